//! Groups: one message to many members, in order, and a slow member is its own problem.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tidegate::layer::{Item, Layer, LayerContext, LayerError, LengthPrefixed, MessageKind, Step};
use tidegate::{
    Config, Group, Listen, Message, Net, Overflow, Reactor, SendStatus, SocketOptions,
    StreamOptions, Token,
};

use crate::support::child::in_a_process_of_its_own;
use crate::support::counted::Counted;
use crate::support::rolling::{Rolling, rolled};
use crate::support::sockets::small_client;
use crate::support::xorshift::{Xorshift, for_each_seed};
use crate::support::{
    Log, Probe, address_of, client, is_data, read_all, read_n, settle, until, with_client,
};

/// A reactor whose connections only listen, and their clients, in the order of the tokens.
pub(crate) struct Room {
    pub(crate) reactor: Reactor,
    pub(crate) log: Log,
    pub(crate) tokens: Vec<Token>,
    pub(crate) streams: Vec<TcpStream>,
}

impl Room {
    fn new(members: usize) -> Self {
        Self::with(members, Config::default(), |listen| listen)
    }

    pub(crate) fn with(
        members: usize,
        config: Config,
        adapt: impl FnOnce(Listen) -> Listen,
    ) -> Self {
        Self::greeted(members, config, |_| Vec::new(), adapt)
    }

    /// Each client says first what `greeting` has for its number.
    pub(crate) fn greeted(
        members: usize,
        config: Config,
        greeting: impl Fn(usize) -> Vec<u8>,
        adapt: impl FnOnce(Listen) -> Listen,
    ) -> Self {
        let log = Log::new();
        let of_handler = log.clone();
        let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
        let listen = adapt(Listen::tcp("127.0.0.1:0"));
        let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
        let address = address_of(&mut reactor, listener);
        let mut streams = Vec::new();
        for n in 1..=members {
            let mut stream = client(address);
            stream.write_all(&greeting(n - 1)).unwrap();
            streams.push(stream);
            until(&mut reactor, "a member to open", |_| log.opens() == n);
        }
        let tokens = log.opened();
        Room { reactor, log, tokens, streams }
    }

    pub(crate) fn net(&mut self) -> &mut Net {
        self.reactor.net()
    }

    /// A group of the first `n`.
    pub(crate) fn group(&mut self, n: usize) -> Group {
        let tokens = self.tokens[..n].to_vec();
        let group = self.net().create_group();
        for token in tokens {
            assert!(self.net().join(group, token));
        }
        group
    }

    /// Closes everybody gracefully and answers what each client had received in all.
    pub(crate) fn heard(mut self) -> Vec<Vec<u8>> {
        for &token in &self.tokens {
            self.reactor.net().close(token);
        }
        let streams = self.streams;
        with_client(&mut self.reactor, move || {
            // All at once: one that is not read must not hold up the others.
            let readers =
                streams.into_iter().map(|mut s| std::thread::spawn(move || read_all(&mut s)));
            let readers: Vec<_> = readers.collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        })
    }
}

#[test]
fn a_message_reaches_all_members_or_all_but_one_and_nobody_else() {
    let mut room = Room::new(4);
    let group = room.group(3);
    let [first, .., outsider] = room.tokens[..] else { panic!() };
    assert_eq!(room.net().publish(group, "to all. ").members, 3);
    assert_eq!(room.net().publish_except(group, first, "not to the first. ").members, 2);
    assert_eq!(room.net().publish_except(group, outsider, "to all again. ").members, 3);
    assert!(room.net().leave(group, first));
    assert!(!room.net().leave(group, first));
    assert_eq!(room.net().publish(group, "without the first.").members, 2);
    let heard = room.heard();
    assert_eq!(heard[0], b"to all. to all again. ");
    assert_eq!(heard[1], b"to all. not to the first. to all again. without the first.");
    assert_eq!(heard[2], heard[1]);
    assert_eq!(heard[3], b"");
}

#[test]
fn who_joins_in_mid_turn_receives_what_is_published_from_then_on() {
    let mut room = Room::new(2);
    let group = room.group(1);
    let late = room.tokens[1];
    room.net().publish(group, "before ");
    assert!(room.net().join(group, late));
    assert!(room.net().join(group, late)); // twice is once
    assert_eq!(room.net().members(group).len(), 2);
    assert_eq!(room.net().publish(group, "after").members, 2);
    let heard = room.heard();
    assert_eq!((heard[0].as_slice(), heard[1].as_slice()), (&b"before after"[..], &b"after"[..]));
}

// row 69
#[test]
fn direct_sends_and_messages_of_several_groups_keep_the_order_of_the_calls() {
    let mut room = Room::new(2);
    let (a, b) = (room.group(2), room.group(2));
    let member = room.tokens[0];
    let net = room.net();
    net.send(member, "0");
    net.publish(a, "1");
    net.publish(b, "2");
    net.send(member, "3");
    net.publish(b, "4");
    net.publish(a, "5");
    net.publish_except(a, member, "-");
    net.send_shared(member, &vec![b'6'; 20_000].into());
    net.publish(a, "7");
    net.send(member, vec![b'8'; 20_000]); // large enough to be written directly
    net.publish(b, "9");
    let heard = room.heard();
    let expected = [&b"012345"[..], &[b'6'; 20_000], b"7", &[b'8'; 20_000], b"9"].concat();
    assert!(heard[0] == expected, "{}", String::from_utf8_lossy(&heard[0][..10]));
    assert_eq!(heard[1], b"1245-79");
}

#[test]
fn members_leave_when_they_close_however_they_close() {
    let mut room = Room::new(4);
    let (a, b) = (room.group(4), room.group(4));
    let [closing, aborted, left, stays] = room.tokens[..] else { panic!() };
    room.net().close(closing);
    assert!(!room.net().members(a).contains(&closing));
    room.net().abort(aborted);
    drop(room.streams.remove(2));
    let log = room.log.clone();
    until(&mut room.reactor, "two to close", |_| log.closes() == 2);
    for group in [a, b] {
        assert_eq!(room.net().members(group), [stays]);
        assert_eq!(room.net().publish(group, "x").members, 1);
        for gone in [closing, aborted, left] {
            assert!(!room.net().join(group, gone));
            assert!(!room.net().leave(group, gone));
        }
    }
    drop(room.streams.drain(..2));
    let mut last = room.streams.pop().unwrap();
    assert_eq!(with_client(&mut room.reactor, move || read_n(&mut last, 2)), b"xx");
}

#[test]
fn a_removed_group_delivers_what_was_published_and_is_refused_from_then_on() {
    let mut room = Room::new(2);
    let (old, other) = (room.group(2), room.group(1));
    let member = room.tokens[0];
    let net = room.net();
    net.publish(other, "1");
    net.publish(old, "2");
    net.publish(other, "3");
    net.remove_group(old);
    assert_eq!(net.publish(old, "lost").members, 0);
    assert!(!net.join(old, member) && !net.leave(old, member));
    assert!(net.members(old).is_empty());
    let new = net.create_group();
    assert_ne!(new, old);
    assert_eq!(net.publish(new, "nobody").members, 0);
    assert_eq!(net.publish(old, "lost").members, 0);
    net.remove_group(old);
    assert!(net.join(new, member));
    assert_eq!(net.publish(new, "4").members, 1);
    let heard = room.heard();
    assert_eq!((heard[0].as_slice(), heard[1].as_slice()), (&b"1234"[..], &b"2"[..]));
}

#[test]
fn more_than_a_groups_log_in_one_turn_loses_nothing_and_keeps_the_order() {
    for group_log in [1, 10, 1000] {
        let mut room = Room::with(3, Config::new().group_log(group_log), |l| l);
        let (a, b) = (room.group(3), room.group(2));
        let first = room.tokens[0];
        let mut expected = Vec::new();
        for n in 0..2_000_u32 {
            let message = format!("{n},");
            expected.extend_from_slice(message.as_bytes());
            match n % 3 {
                0 => drop(room.net().publish(a, &message)),
                1 => drop(room.net().publish(b, &message)),
                _ => drop(room.net().send(first, &message)),
            }
        }
        let heard = room.heard();
        assert!(heard[0] == expected);
    }
}

#[test]
fn an_empty_message_is_a_message_where_a_layer_frames() {
    let framed = |listen: Listen| listen.layer(|_| LengthPrefixed::new(1));
    let mut room = Room::with(1, Config::default(), framed);
    let group = room.group(1);
    for message in ["", "a", ""] {
        assert_eq!(room.net().publish(group, message).members, 1);
    }
    assert_eq!(room.heard(), [b"\x00\x01a\x00"]);
}

/// Small buffers, so that a member that does not read is slow soon.
fn tight(overflow: Overflow) -> impl FnOnce(Listen) -> Listen {
    move |listen| {
        let socket = SocketOptions::new().send_buffer(4096).receive_buffer(4096);
        listen.options(
            StreamOptions::new().output_limit(64 * 1024).overflow(overflow).socket_options(socket),
        )
    }
}

#[test]
fn a_slow_member_is_cut_at_its_own_cap_and_delays_nobody() {
    let mut room = Room::with(3, Config::default(), tight(Overflow::Close));
    let group = room.group(3);
    let message = [b'm'; 1000];
    let mut fast = room.streams.split_off(1);
    for n in 1..=10_000 {
        room.net().publish(group, message);
        // The two that read have each message before the next one is published.
        fast = with_readers(&mut room.reactor, fast, message.len());
        if room.log.closes() == 1 {
            assert!(n > 64, "cut after {n} messages, below its cap");
            break;
        }
    }
    assert_eq!(room.log.reasons(), ["more queued output than the limit of 65536 bytes"]);
    assert_eq!(room.net().members(group).len(), 2);
}

/// Turns until each of the clients has read `n` bytes.
fn with_readers(reactor: &mut Reactor, mut streams: Vec<TcpStream>, n: usize) -> Vec<TcpStream> {
    for stream in &mut streams {
        stream.set_nonblocking(true).unwrap();
        let mut left = n;
        until(reactor, "a member to read", |_| {
            match stream.read(&mut vec![0; left]) {
                Ok(n) => left -= n,
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
            }
            left == 0
        });
    }
    streams
}

#[test]
fn a_slow_member_that_may_drop_misses_whole_messages_and_stays() {
    let mut room = Room::with(1, Config::default(), tight(Overflow::Drop));
    let group = room.group(1);
    let mut sent = 0_u32;
    // Far beyond what the buffers of the system and the queue take together.
    for _ in 0..1_000 {
        for _ in 0..10 {
            let mut message = [0; 100];
            message[..4].copy_from_slice(&sent.to_be_bytes());
            room.net().publish(group, message);
            sent += 1;
        }
        let _ = room.reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(room.log.closes(), 0);
    assert!(room.reactor.net().queued(room.tokens[0]) <= 64 * 1024);
    let heard = room.heard().remove(0);
    assert_eq!(heard.len() % 100, 0, "a message was cut");
    let numbers: Vec<u32> =
        heard.chunks(100).map(|m| u32::from_be_bytes(m[..4].try_into().unwrap())).collect();
    assert!(numbers.is_sorted() && numbers[0] == 0);
    assert!(numbers.len() > 600 && numbers.len() < sent as usize, "{} of {sent}", numbers.len());
}

#[test]
fn a_burst_above_the_cap_is_dropped_message_by_message_as_direct_sends_are() {
    let mut heard = Vec::new();
    for direct in [true, false] {
        let mut room = Room::with(1, Config::default(), tight(Overflow::Drop));
        let (group, member) = (room.group(1), room.tokens[0]);
        for _ in 0..1_000 {
            if direct {
                room.net().send(member, [b'm'; 100]);
            } else {
                room.net().publish(group, [b'm'; 100]);
            }
        }
        let _ = room.reactor.turn(Some(Duration::ZERO)).unwrap();
        heard.push(room.heard().remove(0).len());
    }
    assert_eq!(heard, [65_500; 2]);
}

#[test]
fn a_member_that_is_half_closed_gets_no_more_and_harms_nobody() {
    let mut room = Room::new(2);
    let group = room.group(2);
    let half = room.tokens[0];
    room.net().publish(group, "before");
    room.net().half_close(half);
    room.net().publish(group, " after");
    assert_eq!(room.net().send(half, "x"), SendStatus::Gone);
    let heard = room.heard();
    assert_eq!(heard[0], b"before");
    assert_eq!(heard[1], b"before after");
}

#[test]
fn one_message_to_many_members_of_which_some_close_in_the_same_turn() {
    let mut room = Room::new(300);
    let group = room.group(300);
    room.net().publish(group, "first ");
    for n in (0..300).step_by(3) {
        let token = room.tokens[n];
        room.net().close(token);
    }
    assert_eq!(room.net().publish(group, "second").members, 200);
    let heard = room.heard();
    for (n, heard) in heard.iter().enumerate() {
        let expected: &[u8] = if n % 3 == 0 { b"first " } else { b"first second" };
        assert_eq!(heard, expected, "member {n}");
    }
}

/// The model: what each member must receive, and who is in which group.
struct Model {
    groups: Vec<(Group, Vec<usize>)>,
    inboxes: Vec<Vec<u8>>,
    closed: Vec<bool>,
}

// row 69
#[test]
fn random_joins_leaves_sends_and_messages_agree_with_a_model() {
    for_each_seed(0..18, |seed| {
        const MEMBERS: usize = 6;
        let mut random = Xorshift::new(seed);
        let group_log = [1, 100, 1 << 20][random.below(3)];
        let formats = Formats::ALL[random.below(3)];
        let work_per_turn = [1, 8, 1024][random.below(3)];
        let config = Config::new().group_log(group_log).work_per_turn(work_per_turn);
        let mut accepted = 0;
        let mut room = Room::with(MEMBERS, config, |listen| match formats {
            Formats::Plain => listen,
            Formats::Framed => listen.layer(|_| LengthPrefixed::new(1)),
            Formats::Mixed => listen.layer(move |_| {
                accepted += 1;
                mixed(accepted - 1)
            }),
        });
        let mut model = Model {
            groups: (0..3).map(|_| (room.net().create_group(), Vec::new())).collect(),
            inboxes: vec![Vec::new(); MEMBERS],
            closed: vec![false; MEMBERS],
        };
        for step in 0..1_500_u32 {
            random_step(&mut random, &mut room, &mut model, formats, step);
        }
        settle(&mut room.reactor);
        let heard = room.heard();
        for (n, (heard, expected)) in heard.iter().zip(&model.inboxes).enumerate() {
            assert!(heard == expected, "seed {seed}: member {n} heard something else");
        }
    });
}

/// The formats of the members of a room.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Formats {
    Plain,
    Framed,
    /// Each third one the same; some share their whole form, some what lies within a stream.
    Mixed,
}

impl Formats {
    const ALL: [Formats; 3] = [Formats::Plain, Formats::Framed, Formats::Mixed];
}

fn mixed(member: usize) -> Box<dyn Layer> {
    match member % 4 {
        0 => Box::new(LengthPrefixed::new(1)),
        1 => Box::new(Rolling::default().then(LengthPrefixed::new(1))),
        2 => Box::new(Rolling::default()),
        _ => Box::new(Counted::default()),
    }
}

/// Appends what a member hears of a message.
fn hears(inbox: &mut Vec<u8>, formats: Formats, member: usize, message: &[u8]) {
    let framed = [&[message.len() as u8], message].concat();
    match (formats, member % 4) {
        (Formats::Plain, _) => inbox.extend_from_slice(message),
        (Formats::Framed, _) | (_, 0) => inbox.extend(framed),
        (_, 1) => inbox.extend(rolled(&framed, inbox.len())),
        (_, 2) => inbox.extend(rolled(message, inbox.len())),
        _ => {
            inbox.push(0);
            inbox.extend(framed);
        }
    }
}

fn random_step(
    random: &mut Xorshift,
    room: &mut Room,
    model: &mut Model,
    formats: Formats,
    step: u32,
) {
    let Room { reactor, tokens, .. } = room;
    let net = reactor.net();
    let which = random.below(model.groups.len());
    let who = random.below(tokens.len());
    let token = tokens[who];
    let (group, members) = &mut model.groups[which];
    let message = format!("{step};");
    let mut deliver = |to: usize| hears(&mut model.inboxes[to], formats, to, message.as_bytes());
    match random.below(14) {
        0 | 1 => {
            assert_eq!(net.join(*group, token), !model.closed[who]);
            if !model.closed[who] && !members.contains(&who) {
                members.push(who);
            }
        }
        2 => {
            assert_eq!(net.leave(*group, token), members.contains(&who));
            members.retain(|&m| m != who);
        }
        3..=6 => {
            assert_eq!(net.publish(*group, &message).members, members.len());
            members.iter().copied().for_each(&mut deliver);
        }
        7 | 8 => {
            let reached: Vec<_> = members.iter().copied().filter(|&m| m != who).collect();
            assert_eq!(net.publish_except(*group, token, &message).members, reached.len());
            reached.into_iter().for_each(&mut deliver);
        }
        9 | 10 => {
            let status = net.send(token, &message);
            assert_eq!(status.is_accepted(), !model.closed[who]);
            if !model.closed[who] {
                deliver(who);
            }
        }
        11 if random.chance(20) => {
            net.remove_group(*group);
            model.groups[which] = (net.create_group(), Vec::new());
        }
        12 if random.chance(60) => {
            net.close(token);
            model.closed[who] = true;
            for (_, members) in &mut model.groups {
                members.retain(|&m| m != who);
            }
        }
        13 => {
            for _ in 0..random.below(3) {
                let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
            }
        }
        _ => {}
    }
}

#[test]
fn a_message_published_before_the_publishers_error_is_still_delivered() {
    let mut room = Room::new(1);
    let group = room.group(1);
    let log = Log::new();
    let of_handler = log.clone();
    let listener = room
        .net()
        .listen("127.0.0.1:0", move |_| {
            Probe::new(&of_handler).data(move |cx, _| {
                cx.net.publish(group, "he said");
                Err("and left".into())
            })
        })
        .unwrap();
    let mut speaker = client(address_of(&mut room.reactor, listener));
    speaker.write_all(b"x").unwrap();
    until(&mut room.reactor, "the speaker", |_| log.count(is_data) == 1);
    assert_eq!(room.heard(), [b"he said"]);
}

#[test]
fn many_messages_each_with_a_direct_send_keep_their_order() {
    const PAIRS: usize = 20_000;
    let mut room = Room::new(2);
    let group = room.group(2);
    let member = room.tokens[0];
    for _ in 0..PAIRS {
        room.net().publish(group, "line;");
        room.net().send(member, "+");
    }
    let heard = room.heard();
    assert!(heard[0] == b"line;+".repeat(PAIRS));
    assert!(heard[1] == b"line;".repeat(PAIRS));
}

#[test]
fn a_subscriber_of_thousands_of_topics_gets_all_in_order_and_leaves_them_all() {
    const TOPICS: usize = 5_000;
    let mut room = Room::new(2);
    let topics: Vec<_> = (0..TOPICS).map(|_| room.group(2)).collect();
    let [leaver, stayer] = room.tokens[..] else { panic!() };
    let mut expected = Vec::new();
    for (n, &topic) in topics.iter().enumerate() {
        assert_eq!(room.net().publish(topic, format!("{n};")).members, 2);
        expected.extend_from_slice(format!("{n};").as_bytes());
    }
    // Order over all topics, also against the order of joining.
    for (n, &topic) in topics.iter().enumerate().rev() {
        assert_eq!(room.net().publish(topic, format!("{n}.")).members, 2);
        expected.extend_from_slice(format!("{n}.").as_bytes());
    }
    for &topic in &topics[..TOPICS / 2] {
        assert!(room.net().leave(topic, leaver));
    }
    assert!(!room.net().is_member(topics[0], leaver) && room.net().is_member(topics[0], stayer));
    assert!(room.net().is_member(topics[TOPICS - 1], leaver));
    room.net().close(leaver);
    assert!(topics.iter().all(|&topic| room.net().members(topic) == [stayer]));
    assert_eq!(room.net().publish(topics[9], "last").members, 1);
    let heard = room.heard();
    assert!(heard[0] == expected);
    expected.extend_from_slice(b"last");
    assert!(heard[1] == expected);
}

#[test]
fn empty_messages_fill_a_log_too() {
    let config = Config::new().group_log(4096);
    let mut room = Room::with(1, config, |listen| listen.layer(|_| LengthPrefixed::new(1)));
    let group = room.group(1);
    for _ in 0..1_000 {
        room.net().publish(group, "");
    }
    // More than a log takes has left, without a turn.
    assert!(read_n(&mut room.streams[0], 800).iter().all(|&length| length == 0));
    assert_eq!(room.heard()[0].len(), 200);
}

#[test]
fn what_members_limits_drop_is_counted() {
    let mut room = Room::with(1, Config::default(), tight(Overflow::Drop));
    let group = room.group(1);
    assert_eq!(room.net().group_stats(group).unwrap().members, 1);
    for _ in 0..1_000 {
        room.net().publish(group, [b'm'; 100]);
    }
    let _ = room.reactor.turn(Some(Duration::ZERO)).unwrap();
    let stats = room.net().group_stats(group).unwrap();
    // 655 of them fit under the limit of 65,536 bytes.
    assert_eq!((stats.published, stats.dropped), (1_000, 345));
    room.net().remove_group(group);
    assert_eq!(room.net().group_stats(group), None);
    assert_eq!(room.heard()[0].len(), 65_500);
}

#[test]
fn a_named_group_is_found_by_its_name_while_it_has_members() {
    let mut room = Room::new(2);
    let [one, two] = room.tokens[..] else { panic!() };
    let lobby = room.net().group("lobby");
    assert_eq!(room.net().find_group("lobby"), Some(lobby));
    assert_eq!(room.net().group(b"lobby"), lobby);
    assert_eq!(room.net().find_group("other"), None);
    let unnamed = room.net().create_group();
    assert!(room.net().join(lobby, one));
    settle(&mut room.reactor);
    assert_eq!(room.net().find_group("lobby"), Some(lobby));
    // Without members only within a turn.
    assert!(room.net().leave(lobby, one));
    assert!(room.net().join(lobby, two));
    settle(&mut room.reactor);
    assert_eq!(room.net().publish(lobby, "to two").members, 1);
    let unused = room.net().group("unused");
    room.net().leave(lobby, two);
    settle(&mut room.reactor);
    for (name, group) in [("lobby", lobby), ("unused", unused)] {
        assert_eq!(room.net().find_group(name), None);
        assert!(!room.net().join(group, one));
    }
    assert!(room.net().join(unnamed, one), "a group without a name stays");
    // The name serves again, for another group; it ends with its last member.
    let again = room.net().group("lobby");
    assert_ne!(again, lobby);
    assert!(room.net().join(again, one));
    room.net().close(one);
    settle(&mut room.reactor);
    assert_eq!(room.net().find_group("lobby"), None);
    assert_eq!(room.heard(), [&b""[..], b"to two"]);
}

#[test]
fn a_message_carries_its_kind_to_the_layers() {
    /// Writes each message behind a letter for its kind.
    struct Kinds;
    impl Layer for Kinds {
        fn name(&self) -> &'static str {
            "kinds"
        }
        fn decode(
            &mut self,
            _: &mut LayerContext<'_>,
            wire: &mut [u8],
            _: &mut Vec<u8>,
            _: &mut Vec<u8>,
        ) -> Result<Step, LayerError> {
            Ok(Step::new(wire.len(), Item::Nothing))
        }
        fn encode(
            &mut self,
            _: &mut LayerContext<'_>,
            m: &[u8],
            kind: MessageKind,
            wire: &mut Vec<u8>,
        ) -> Result<(), LayerError> {
            wire.push(match kind {
                MessageKind::Default => b'd',
                MessageKind::Text => b't',
                MessageKind::Binary => b'b',
            });
            wire.extend_from_slice(m);
            Ok(())
        }
    }
    let mut room = Room::with(2, Config::default(), |listen| listen.layer(|_| Kinds));
    let (a, b) = (room.group(2), room.group(2));
    let member = room.tokens[0];
    room.net().publish(a, "1");
    room.net().publish(b, Message::text("2"));
    room.net().publish(a, Message::binary([b'3']));
    room.net().publish_except(b, member, Message::new(MessageKind::Text, vec![b'4']));
    assert_eq!(room.heard(), [&b"d1t2b3"[..], b"d1t2b3t4"]);
}

/// The budget of a turn. Unix sockets: what was written can be read at once.
#[cfg(unix)]
pub(crate) mod budget {
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use tidegate::{Config, Group, Reactor, Token};

    use super::Log;
    use crate::support::counted::Counted;
    use crate::support::{Probe, settle};

    pub(crate) struct Crowd {
        pub(crate) reactor: Reactor,
        tokens: Vec<Token>,
        peers: Vec<UnixStream>,
        pub(crate) group: Group,
        pub(crate) heard: Vec<Vec<u8>>,
    }

    impl Crowd {
        fn new(members: usize, work_per_turn: usize, framed: bool) -> Self {
            Self::with(members, work_per_turn, |_| framed.then(Counted::default))
        }

        pub(crate) fn with(
            members: usize,
            work_per_turn: usize,
            mut layer: impl FnMut(usize) -> Option<Counted>,
        ) -> Self {
            let config = Config::new().work_per_turn(work_per_turn);
            let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
            let group = reactor.net().create_group();
            let log = Log::new();
            let (mut tokens, mut peers) = (Vec::new(), Vec::new());
            for _ in 0..members {
                let (ours, theirs) = UnixStream::pair().unwrap();
                theirs.set_nonblocking(true).unwrap();
                tokens.push(reactor.net().adopt(ours, Probe::new(&log)).unwrap());
                peers.push(theirs);
            }
            settle(&mut reactor);
            for (n, &token) in tokens.iter().enumerate() {
                assert!(reactor.net().join(group, token));
                if let Some(layer) = layer(n) {
                    reactor.net().start_layer(token, layer);
                }
            }
            Crowd { reactor, tokens, peers, group, heard: vec![Vec::new(); members] }
        }

        pub(crate) fn turn(&mut self) {
            let _ = self.reactor.turn(Some(Duration::ZERO)).unwrap();
            self.read();
        }

        fn read(&mut self) {
            for (peer, heard) in self.peers.iter_mut().zip(&mut self.heard) {
                match peer.read_to_end(heard) {
                    Ok(_) => {}
                    Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
                }
            }
        }

        /// How many members have heard exactly this.
        pub(crate) fn have(&self, what: &[u8]) -> usize {
            self.heard.iter().filter(|heard| *heard == what).count()
        }

        fn is_due(&mut self) -> bool {
            let now = self.reactor.net().now();
            self.reactor.next_deadline().is_some_and(|at| at <= now)
        }
    }

    #[test]
    fn a_flush_stops_at_its_budget_and_goes_on_where_it_stopped() {
        let mut crowd = Crowd::new(40, 10, false);
        crowd.reactor.net().publish(crowd.group, "a");
        for served in [10, 20, 30] {
            crowd.turn();
            assert_eq!((crowd.have(b"a"), crowd.have(b"")), (served, 40 - served));
            assert!(crowd.is_due(), "the loop would sleep");
        }
        crowd.turn();
        assert_eq!(crowd.have(b"a"), 40);
        crowd.turn();
        assert_eq!(crowd.reactor.next_deadline(), None);
    }

    #[test]
    fn later_messages_reach_those_first_that_wait_and_then_those_that_were_served() {
        let mut crowd = Crowd::new(40, 10, false);
        crowd.reactor.net().publish(crowd.group, "a");
        crowd.turn();
        let served: Vec<_> = (0..40).filter(|&n| crowd.heard[n] == b"a").collect();
        crowd.reactor.net().publish(crowd.group, "b");
        for both in [10, 20, 30] {
            crowd.turn();
            assert_eq!(crowd.have(b"ab"), both);
            assert!(served.iter().all(|&n| crowd.heard[n] == b"a"), "served before the others");
        }
        crowd.turn();
        assert_eq!(crowd.have(b"ab"), 40);
    }

    #[test]
    fn nobody_is_starved_while_messages_keep_coming() {
        let mut crowd = Crowd::new(40, 10, false);
        let small = crowd.reactor.net().create_group();
        let (lonely, token) = (7, crowd.tokens[7]);
        assert!(crowd.reactor.net().join(small, token));
        let mut expected = Vec::new();
        for n in 0..100_u8 {
            crowd.reactor.net().publish(crowd.group, [n]);
            crowd.reactor.net().publish(small, [n]);
            expected.extend([n, n]);
            crowd.turn();
            // Each is served once in four turns.
            assert!(crowd.heard.iter().all(|heard| heard.len() + 4 > usize::from(n)));
        }
        settle(&mut crowd.reactor);
        crowd.read();
        assert_eq!(crowd.heard[lonely], expected);
    }

    #[test]
    fn direct_sends_keep_their_order_across_a_cut_flush() {
        let mut crowd = Crowd::new(40, 10, false);
        crowd.reactor.net().publish(crowd.group, "1");
        crowd.turn();
        let tokens = crowd.tokens.clone();
        for &token in &tokens {
            crowd.reactor.net().send(token, "2");
        }
        crowd.reactor.net().publish(crowd.group, "3");
        crowd.turn();
        for &token in &tokens {
            crowd.reactor.net().send(token, "4");
        }
        settle(&mut crowd.reactor);
        crowd.read();
        assert_eq!(crowd.have(b"1234"), 40);
    }

    #[test]
    fn encoding_is_work_and_one_members_messages_are_cut_between_two_of_them() {
        // Four units for each message: ten of them in a turn.
        let mut crowd = Crowd::new(1, 40, true);
        for n in 0..100_u8 {
            crowd.reactor.net().publish(crowd.group, [n]);
        }
        let expected: Vec<u8> = (0..100).flat_map(|n| [0, 1, n]).collect();
        for turn in 1..=10 {
            crowd.turn();
            assert_eq!(crowd.heard[0], expected[..30 * turn]);
        }
    }

    #[test]
    fn a_member_that_was_served_in_part_lets_the_others_go_first() {
        let mut crowd = Crowd::new(2, 40, true);
        for n in 0..100_u8 {
            crowd.reactor.net().publish(crowd.group, [n]);
        }
        for turn in 1..=10 {
            crowd.turn();
            crowd.turn();
            assert!(crowd.heard.iter().all(|heard| heard.len() == 30 * turn));
        }
    }

    #[test]
    fn large_messages_use_the_budget_up_by_their_bytes() {
        let mut crowd = Crowd::new(10, 40, false);
        // Each member's write is 17 units and a piece: three of them fit, the third just over.
        crowd.reactor.net().publish(crowd.group, [b'x'; 16 * 1024]);
        crowd.turn();
        assert_eq!(crowd.have(&[b'x'; 16 * 1024]), 3);
    }

    #[test]
    fn what_was_published_before_the_loop_stops_leaves_whatever_the_budget() {
        let mut crowd = Crowd::new(40, 1, false);
        crowd.reactor.net().publish(crowd.group, "goodbye");
        crowd.reactor.net().stop();
        crowd.reactor.run().unwrap();
        crowd.read();
        assert_eq!(crowd.have(b"goodbye"), 40);
    }

    #[test]
    fn members_that_leave_close_or_break_while_they_wait_lose_nothing_they_can_still_get() {
        let mut crowd = Crowd::new(40, 1, false);
        let net = crowd.reactor.net();
        net.publish(crowd.group, "said");
        for n in 0..10 {
            net.leave(crowd.group, crowd.tokens[n]);
            net.close(crowd.tokens[10 + n]);
            net.abort(crowd.tokens[20 + n]);
        }
        net.remove_group(crowd.group);
        settle(&mut crowd.reactor);
        crowd.read();
        for (n, heard) in crowd.heard.iter().enumerate() {
            let expected: &[u8] = if (20..30).contains(&n) { b"" } else { b"said" };
            assert_eq!(heard, expected, "member {n}");
        }
    }
}

/// The process's own memory, in bytes (proc(5), `statm`).
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

// A member that does not read keeps as much as its queue says, not all that was said meanwhile.
#[cfg(target_os = "linux")]
#[test]
fn a_slow_member_keeps_no_more_of_a_groups_log_than_its_own_part() {
    if !in_a_process_of_its_own(a_slow_member_keeps_no_more_of_a_groups_log_than_its_own_part) {
        return;
    }
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0");
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
    let _peer = small_client(address_of(&mut reactor, listener));
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let slow = log.opened()[0];
    let group = reactor.net().create_group();
    reactor.net().join(group, slow);
    // Another member, who reads.
    let mut reader = client(address_of(&mut reactor, listener));
    until(&mut reactor, "the open", |_| log.opens() == 2);
    let fast = log.opened()[1];
    reactor.net().join(group, fast);
    let _reading = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while reader.read(&mut buffer).is_ok_and(|n| n > 0) {}
    });
    while reactor.net().queued(slow) == 0 {
        reactor.net().send(slow, [0; 4096]);
        let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    }
    let before = resident();
    for _ in 0..200 {
        reactor.net().publish_except(group, slow, vec![1; 1_000_000]);
        reactor.net().publish(group, "x");
        until(&mut reactor, "the reader", |r| r.net().queued(fast) == 0);
    }
    assert_eq!(log.closes(), 0);
    let grown = resident().saturating_sub(before);
    assert!(grown < 50 << 20, "{grown} bytes for {} queued", reactor.net().queued(slow));
}

// row 101
#[test]
fn what_was_published_counts_as_queued() {
    let mut room = Room::with(2, Config::default(), |listen| {
        listen.options(StreamOptions::new().low_water(10).high_water(100))
    });
    let group = room.group(2);
    let other = room.group(1);
    let [first, second] = room.tokens[..] else { panic!() };
    let net = room.net();
    net.publish(group, [1; 60]);
    net.publish_except(group, first, [2; 50]);
    net.publish(other, [3; 7]);
    assert_eq!((net.queued(first), net.queued(second)), (67, 110));
    assert_eq!((net.is_above_high_water(first), net.is_above_high_water(second)), (false, true));
    net.send(first, [4; 5]);
    assert_eq!(net.queued(first), 72, "it is in the connection's own queue now");
    until(&mut room.reactor, "all to leave", |reactor| {
        reactor.net().queued(first) + reactor.net().queued(second) == 0
    });
    assert!(!room.net().is_above_high_water(second));
}

// row 101
#[test]
fn what_was_published_and_is_lost_counts_as_unsent() {
    let mut room = Room::new(2);
    let group = room.group(2);
    let [first, second] = room.tokens[..] else { panic!() };
    let net = room.net();
    net.publish(group, [1; 60]);
    net.publish_except(group, second, [2; 50]);
    net.abort(first);
    net.abort(second);
    until(&mut room.reactor, "both to close", |reactor| reactor.net().connection_count() == 0);
    let end = |unsent| Some(crate::support::Told::Close("aborted".into(), unsent));
    assert_eq!(room.log.of(first).pop(), end(110));
    assert_eq!(room.log.of(second).pop(), end(60));
}

// row 230
#[test]
fn a_message_by_name_reaches_the_members_of_that_name_and_makes_no_group() {
    let mut room = Room::new(3);
    let [first, second, other] = room.tokens[..] else { panic!() };
    let net = room.net();
    assert_eq!(net.publish_named("lobby", "nobody").members, 0);
    assert_eq!(net.find_group("lobby"), None);
    let (lobby, hall) = (net.group("lobby"), net.group("hall"));
    assert!(net.join(lobby, first) && net.join(lobby, second) && net.join(hall, other));
    assert_eq!(net.publish_named("lobby", "1").members, 2);
    assert_eq!(net.publish(lobby, "2").members, 2);
    assert_eq!(net.publish_named_except("lobby", first, "3").members, 1);
    assert_eq!(net.publish_named_latest("lobby", 7, "4").members, 2);
    let heard = room.heard();
    assert_eq!(heard[0], b"124");
    assert_eq!(heard[1], b"1234");
    assert_eq!(heard[2], b"");
}
