//! Random schedules against a naive model.

use std::collections::BTreeMap;

use super::registry::Groups;
use super::take::Take;
use super::work;
use crate::layer::MessageKind;
use crate::token::{Group, Token};

#[allow(unreachable_pub, dead_code)] // the tests in tests/ use the same file
#[path = "../../../tests/support/xorshift.rs"]
mod xorshift;
use xorshift::Xorshift;

const LIMIT: usize = 2_000;

/// The naive model: each member has a list of what it must get, and a list of what it got.
#[derive(Default)]
struct Model {
    groups: Vec<(Group, Option<String>, Vec<Token>)>,
    expected: BTreeMap<Token, Vec<u8>>,
    got: BTreeMap<Token, Vec<u8>>,
}

impl Model {
    /// Hands over like `Core`: everything, or by messages up to a limit.
    fn deliver(&mut self, groups: &mut Groups, token: Token, how: Take) {
        let pending = groups.pending_bytes(token);
        let Some(batch) = groups.take(token, how, None) else { return };
        let got = self.got.entry(token).or_default();
        let before = got.len();
        let mut keys = std::mem::take(&mut groups.keys);
        if keys.is_empty() {
            keys.resize(batch.parts.len(), None);
        }
        assert_eq!(keys.len(), batch.parts.len());
        for (part, key) in batch.parts.iter().zip(keys) {
            got.extend_from_slice(&batch.bytes()[part.start..part.end]);
            if let Take::ByMessage { .. } = how {
                let kind = if batch.bytes()[part.start] == b't' {
                    MessageKind::Text
                } else {
                    MessageKind::Binary
                };
                assert_eq!(part.kind, kind);
                let message = &batch.bytes()[part.start..part.end];
                assert_eq!(key, key_of(std::str::from_utf8(message).unwrap()));
                assert_eq!(message.iter().position(|&b| b == b';'), Some(message.len() - 1));
            }
        }
        assert!(got.len() - before <= pending);
        groups.give_back(batch);
        if !matches!(how, Take::ByMessage { limit: 0..1_000_000, .. }) {
            assert!(!groups.is_pending(token));
            assert_eq!(of(&self.got, token), of(&self.expected, token));
        }
    }

    fn check(&self, groups: &Groups) {
        for (group, name, members) in &self.groups {
            let mut listed = groups.members(*group).to_vec();
            listed.sort_unstable();
            let mut members = members.clone();
            members.sort_unstable();
            assert_eq!(listed, members);
            if let Some(name) = name {
                assert_eq!(groups.find(name.as_bytes()), Some(*group));
            }
        }
        let behind = |&token: &Token| of(&self.got, token).len() < of(&self.expected, token).len();
        for token in self.expected.keys() {
            // A member that was only excluded may be marked without anything to get.
            assert!(!behind(token) || groups.is_pending(*token));
            assert!(!groups.is_pending(*token) || groups.has_pending());
        }
    }
}

fn of(bytes: &BTreeMap<Token, Vec<u8>>, token: Token) -> &[u8] {
    bytes.get(&token).map_or(&[], Vec::as_slice)
}

/// Every third message has a key: its number.
fn key_of(message: &str) -> Option<u64> {
    let number: String = message[1..].chars().take_while(char::is_ascii_digit).collect();
    number.parse().ok().filter(|number| number % 3 == 0)
}

fn how(random: &mut Xorshift) -> Take {
    match random.below(3) {
        0 => Take::Joined,
        1 => Take::ByMessage { limit: usize::MAX, each: work::ENCODED },
        _ => Take::ByMessage { limit: random.below(5) * work::ENCODED, each: work::ENCODED },
    }
}

#[test]
fn random_schedules_agree_with_a_naive_model() {
    for seed in 0..300 {
        let mut random = Xorshift::new(seed);
        let mut groups = Groups::default();
        let mut model = Model::default();
        let mut tokens: Vec<_> = (0..8).map(|n| Token::new(n, 1).unwrap()).collect();
        let count = [1, 3, 40][random.below(3)];
        for n in 0..count {
            let name = random.chance(4).then(|| format!("name {n}"));
            model.groups.push(new_group(&mut groups, name, &tokens));
        }
        for step in 0..600 {
            let which = random.below(model.groups.len());
            let at = random.below(tokens.len());
            let token = tokens[at];
            let (group, name, members) = &mut model.groups[which];
            let group = *group;
            assert_eq!(groups.is_member(group, token), members.contains(&token));
            match random.below(16) {
                0 | 1 => {
                    assert!(groups.join(group, token));
                    if !members.contains(&token) {
                        members.push(token);
                    }
                }
                2 => {
                    let was = members.contains(&token);
                    // A named group needs a member to stay.
                    if name.is_none() || members.len() > 1 {
                        members.retain(|&m| m != token);
                        model.deliver(&mut groups, token, Take::Joined);
                        assert_eq!(groups.leave(group, token), was);
                    }
                }
                3..=8 => {
                    let except = random.chance(2).then_some(token);
                    let kind =
                        if random.chance(2) { MessageKind::Text } else { MessageKind::Binary };
                    let tag = if kind == MessageKind::Text { 't' } else { 'b' };
                    let message = format!("{tag}{step}{};", "x".repeat(random.below(40)));
                    if groups.is_full(group, message.len(), LIMIT) {
                        while let Some(member) = groups.marked_member(group) {
                            model.deliver(&mut groups, member, Take::Joined);
                        }
                    }
                    let (_, _, members) = &model.groups[which];
                    let reached: Vec<_> =
                        members.iter().filter(|&&m| Some(m) != except).copied().collect();
                    let (bytes, key) = (message.as_bytes(), key_of(&message));
                    let count = match key {
                        Some(key) => groups.publish_keyed(group, key, bytes, kind, except),
                        None => groups.publish(group, bytes, kind, except),
                    };
                    assert_eq!(count.members, reached.len());
                    for member in reached {
                        let expected = model.expected.entry(member).or_default();
                        expected.extend_from_slice(message.as_bytes());
                    }
                }
                9 | 10 => {
                    // A direct send: what is pending goes first.
                    model.deliver(&mut groups, token, Take::Joined);
                    for of in [&mut model.expected, &mut model.got] {
                        of.entry(token).or_default().extend_from_slice(b"direct;");
                    }
                }
                11 | 12 => {
                    // A flush with a budget: some members, some of them in part.
                    for _ in 0..random.below(6) {
                        let Some(member) = groups.next_member().map(|(token, _)| token) else {
                            break;
                        };
                        let how = how(&mut random);
                        model.deliver(&mut groups, member, how);
                    }
                }
                13 if random.chance(6) => {
                    // The connection breaks: what is pending is lost, another has its place.
                    groups.leave_all(token);
                    for (_, _, members) in &mut model.groups {
                        members.retain(|&m| m != token);
                    }
                    model.expected.remove(&token);
                    model.got.remove(&token);
                    tokens[at] = Token::new(token.index(), token.generation() + 1).unwrap();
                }
                14 if random.chance(6) => {
                    for member in members.clone() {
                        model.deliver(&mut groups, member, Take::Joined);
                    }
                    groups.remove(group);
                    assert!(!groups.join(group, token) && groups.members(group).is_empty());
                    let name = model.groups[which].1.clone();
                    model.groups[which] = new_group(&mut groups, name, &tokens);
                }
                15 => {
                    groups.remove_empty();
                    for (group, name, members) in &mut model.groups {
                        if let (Some(name), true) = (name, members.is_empty()) {
                            assert_eq!(groups.find(name.as_bytes()), None);
                            assert_eq!(groups.stats(*group), None);
                            *group = groups.named(name.as_bytes()).unwrap();
                        }
                    }
                }
                _ => {}
            }
            model.check(&groups);
        }
        while let Some(member) = groups.next_member().map(|(token, _)| token) {
            let how = how(&mut random);
            model.deliver(&mut groups, member, how);
        }
        for &token in model.expected.keys() {
            assert_eq!(of(&model.got, token), of(&model.expected, token), "seed {seed}");
        }
        assert!(!groups.has_pending());
        assert_eq!((groups.gather.marks, groups.gather.crowded), (0, 0));
        for token in tokens {
            groups.leave_all(token);
        }
        groups.remove_empty();
        assert!(groups.members.is_empty(), "seed {seed}: members are left");
        for (_, state) in &groups.slots {
            assert!(state.log.is_empty() && state.log.reserved() <= 128 * 1024);
        }
    }
}

/// A named group gets a member, so that it stays.
fn new_group(
    groups: &mut Groups,
    name: Option<String>,
    tokens: &[Token],
) -> (Group, Option<String>, Vec<Token>) {
    match name {
        None => (groups.create().unwrap(), None, Vec::new()),
        Some(name) => {
            let group = groups.named(name.as_bytes()).unwrap();
            assert!(groups.join(group, tokens[0]));
            (group, Some(name), vec![tokens[0]])
        }
    }
}
