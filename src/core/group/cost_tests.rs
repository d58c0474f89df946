//! What the groups cost, counted in visits of log entries and marks: a clock cannot show "linear".

use super::log::ENTRY;
use super::registry::Groups;
use super::take::Take;
use super::work;
use crate::connection::KEPT_CAPACITY;
use crate::layer::MessageKind;
use crate::token::{Group, Token};

fn tokens(count: usize) -> Vec<Token> {
    (0..count).map(|n| Token::new(n, 1).unwrap()).collect()
}

fn group_of(groups: &mut Groups, members: &[Token]) -> Group {
    let group = groups.create().unwrap();
    for &member in members {
        assert!(groups.join(group, member));
    }
    group
}

/// Takes what is pending and returns how many bytes that was.
fn take(groups: &mut Groups, token: Token, how: Take) -> usize {
    let Some(batch) = groups.take(token, how, None) else { return 0 };
    let bytes = batch.parts.iter().map(|part| part.end - part.start).sum();
    groups.give_back(batch);
    bytes
}

fn take_all(groups: &mut Groups) -> usize {
    let mut bytes = 0;
    while let Some(member) = groups.next_member().map(|(token, _)| token) {
        bytes += take(groups, member, Take::Joined);
    }
    bytes
}

#[test]
fn a_flood_of_messages_each_with_a_direct_send_costs_its_pairs() {
    const PEERS: usize = 100;
    const LINES: usize = 256;
    for excluded in [true, false] {
        let mut groups = Groups::default();
        let peers = tokens(PEERS);
        let group = group_of(&mut groups, &peers);
        let mut delivered = 0;
        for &peer in &peers {
            for _ in 0..LINES {
                groups.publish(group, b"hi\n", MessageKind::Default, excluded.then_some(peer));
                // The acknowledgement: what is pending goes first.
                delivered += take(&mut groups, peer, Take::Joined);
            }
        }
        delivered += take_all(&mut groups);
        assert_eq!(delivered, PEERS * LINES * (PEERS - usize::from(excluded)) * 3);
        // The publish, the mark and the take of each pair, and one flush of all.
        let visits = groups.visits.count;
        assert!(visits < 8 * PEERS * LINES, "{visits} visits for {} pairs", PEERS * LINES);
    }
}

#[test]
fn messages_that_exclude_a_member_cost_their_number_and_not_the_logs_length() {
    const MESSAGES: usize = 10_000;
    let mut groups = Groups::default();
    let peers = tokens(3);
    let group = group_of(&mut groups, &peers);
    for n in 0..MESSAGES {
        let except = if n % 1000 == 7 { peers[0] } else { peers[1] };
        groups.publish(group, b"x", MessageKind::Default, Some(except));
    }
    groups.visits.count = 0;
    assert_eq!(take(&mut groups, peers[0], Take::Joined), MESSAGES - 10);
    assert!(groups.visits.count <= 12, "{} visits for ten exclusions", groups.visits.count);
}

#[test]
fn subscribers_of_thousands_of_topics_cost_their_messages() {
    const TOPICS: usize = 8_000;
    const SUBSCRIBERS: usize = 10;
    let mut groups = Groups::default();
    let subscribers = tokens(SUBSCRIBERS);
    let topics: Vec<_> = (0..TOPICS).map(|_| group_of(&mut groups, &subscribers)).collect();
    for &topic in &topics {
        let published = groups.publish(topic, b"12345678", MessageKind::Default, None);
        assert_eq!(published.members, SUBSCRIBERS);
    }
    assert_eq!(take_all(&mut groups), TOPICS * SUBSCRIBERS * 8);
    let deliveries = TOPICS * SUBSCRIBERS;
    assert!(groups.visits.count <= 4 * deliveries, "{} visits", groups.visits.count);
}

#[test]
fn one_pending_topic_among_thousands_is_found_without_a_look_at_the_others() {
    let mut groups = Groups::default();
    let member = tokens(1)[0];
    let topics: Vec<_> = (0..10_000).map(|_| group_of(&mut groups, &[member])).collect();
    groups.visits.count = 0;
    for _ in 0..1_000 {
        groups.publish(topics[77], b"x", MessageKind::Default, None);
        assert_eq!(take(&mut groups, member, Take::Joined), 1);
    }
    assert!(groups.visits.count <= 5_000, "{} visits", groups.visits.count);
}

#[test]
fn a_member_with_very_many_messages_is_served_in_parts_that_cost_what_they_bring() {
    const MESSAGES: usize = 20_000;
    for topics in [1, 2, 10_000] {
        let mut groups = Groups::default();
        let member = tokens(1)[0];
        let topics: Vec<_> = (0..topics).map(|_| group_of(&mut groups, &[member])).collect();
        for &topic in topics.iter().cycle().take(MESSAGES) {
            groups.publish(topic, b"x", MessageKind::Default, None);
        }
        groups.visits.count = 0;
        let mut rounds = 0;
        while let Some(token) = groups.next_member().map(|(token, _)| token) {
            let how = Take::ByMessage { limit: 100 * work::ENCODED, each: work::ENCODED };
            let taken = take(&mut groups, token, how);
            assert!((1..=100).contains(&taken));
            rounds += 1;
        }
        assert!(rounds >= MESSAGES / 100);
        assert!(groups.visits.count <= 2 * MESSAGES, "{} visits", groups.visits.count);
    }
}

#[test]
fn leaving_thousands_of_topics_keeps_every_place_right() {
    const TOPICS: usize = 40_000;
    let mut groups = Groups::default();
    let [leaver, stayer] = tokens(2)[..] else { panic!() };
    let topics: Vec<_> = (0..TOPICS).map(|_| group_of(&mut groups, &[leaver, stayer])).collect();
    assert!(topics.iter().all(|&topic| groups.is_member(topic, leaver)));
    for &topic in topics.iter().step_by(2) {
        assert!(groups.leave(topic, leaver));
    }
    for (n, &topic) in topics.iter().enumerate() {
        assert_eq!(groups.is_member(topic, leaver), n % 2 == 1);
        let published = groups.publish(topic, b"x", MessageKind::Default, None);
        assert_eq!(published.members, 1 + n % 2);
    }
    take_all(&mut groups);
    groups.leave_all(leaver);
    assert!(topics.iter().all(|&topic| groups.members(topic) == [stayer]));
    groups.leave_all(stayer);
    assert!(groups.members.is_empty());
}

#[test]
fn records_count_and_are_given_back() {
    const LIMIT: usize = 1 << 20;
    for size in [0, 1] {
        let mut groups = Groups::default();
        let member = tokens(1)[0];
        let group = group_of(&mut groups, &[member]);
        let mut count = 0;
        while !groups.is_full(group, size, LIMIT) {
            groups.publish(group, &[b'x'][..size], MessageKind::Default, None);
            count += 1;
        }
        assert_eq!(count, LIMIT / (ENTRY + size));
        assert_eq!(take_all(&mut groups), count * size);
        let (_, state) = groups.slots.iter().next().unwrap();
        assert!(state.log.reserved() <= 2 * KEPT_CAPACITY, "{} bytes", state.log.reserved());
    }
}

#[test]
fn a_log_that_a_slow_member_shares_is_copied_once_and_not_for_each_message() {
    let mut groups = Groups::default();
    let members = tokens(2);
    let group = group_of(&mut groups, &members);
    groups.publish(group, &[b'x'; 1000], MessageKind::Default, None);
    // One member is served, and its queue keeps the log; the other waits for its round.
    let first = groups.next_member().map(|(token, _)| token).unwrap();
    let batch = groups.take(first, Take::Joined, None).unwrap();
    let super::take::Bytes::Log(_, log) = &batch.bytes else { panic!() };
    let queue = std::rc::Rc::clone(log);
    groups.give_back(batch);
    groups.work = 0;
    for _ in 0..100 {
        groups.publish(group, b"y", MessageKind::Default, None);
    }
    assert_eq!(groups.work, work::bytes(1000));
    assert_eq!(*queue, [b'x'; 1000]);
    assert_eq!(take_all(&mut groups), 1100 + 100);
}
