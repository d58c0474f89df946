//! Rooms of WebSockets that compress (permessage-deflate, RFC 7692), heard by an inflater of another making
//! that keeps its window from message to message, as a browser does.
#![cfg(feature = "websocket")]

use std::time::Duration;

use flate2::{Decompress, FlushDecompress};
use tidegate::layer::websocket::WebSocket;
use tidegate::layer::{Layer, MessageKind};
use tidegate::{Config, Group, Message, SocketOptions, StreamOptions};

use crate::groups::Room;
use crate::support::rolling::{Rolling, rolled};
use crate::support::xorshift::{Xorshift, for_each_seed};

/// What a client offers. A window under 15 bits is more than this server promises: such an offer is passed
/// over, and its member gets no compressed message.
const OFFERS: [&str; 14] = [
    "",
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover; client_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=9",
    "permessage-deflate; server_max_window_bits=10",
    "permessage-deflate; server_max_window_bits=11",
    "permessage-deflate; server_max_window_bits=12",
    "permessage-deflate; server_max_window_bits=13",
    "permessage-deflate; server_max_window_bits=14",
    "permessage-deflate; server_max_window_bits=15",
    "permessage-deflate; server_max_window_bits=9, permessage-deflate",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=15",
];

const TAKEOVER: &str = OFFERS[1];
const FORGETS: &str = OFFERS[3];

fn request(offer: &str) -> Vec<u8> {
    let extensions = match offer {
        "" => String::new(),
        offer => format!("Sec-WebSocket-Extensions: {offer}\r\n"),
    };
    format!(
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extensions}\r\n"
    )
    .into_bytes()
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    compressed: bool,
    /// The length of its frame's payload.
    len: usize,
    message: Vec<u8>,
}

/// What a client has heard: whether it agreed to compress, and each message up to the Close.
fn messages(heard: &[u8]) -> (bool, Vec<Heard>) {
    let end = heard.windows(4).position(|four| four == b"\r\n\r\n").expect("a response") + 4;
    let head = std::str::from_utf8(&heard[..end]).unwrap();
    let agreed = head.contains("permessage-deflate");
    let forgets = head.contains("server_no_context_takeover");
    let mut inflater = Decompress::new(false);
    let (mut rest, mut messages) = (&heard[end..], Vec::new());
    loop {
        let first = rest[0];
        let (head, len) = match rest[1] {
            126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            127 => (10, u64::from_be_bytes(rest[2..10].try_into().unwrap()) as usize),
            len => (2, usize::from(len)),
        };
        let payload = &rest[head..head + len];
        rest = &rest[head + len..];
        let compressed = first & 0x40 != 0;
        match first & !0x40 {
            0x88 => {
                assert!(rest.is_empty() && !compressed, "something behind the Close");
                return (agreed, messages);
            }
            0x81 | 0x82 => {}
            other => panic!("a frame that begins with {other:#x}"),
        }
        let message = if compressed {
            assert!(agreed, "compressed without an agreement");
            if forgets {
                inflater.reset(false);
            }
            inflated(&mut inflater, payload)
        } else {
            payload.to_vec()
        };
        messages.push(Heard { compressed, len, message });
    }
}

/// RFC 7692 section 7.2.2.
fn inflated(inflater: &mut Decompress, payload: &[u8]) -> Vec<u8> {
    let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
    let (before, mut message) = (inflater.total_in(), Vec::new());
    loop {
        message.reserve(4096);
        let taken = (inflater.total_in() - before) as usize;
        inflater.decompress_vec(&whole[taken..], &mut message, FlushDecompress::Sync).unwrap();
        let all = (inflater.total_in() - before) as usize == whole.len();
        if all && message.len() < message.capacity() {
            return message;
        }
    }
}

const WORDS: [&str; 12] = [
    "tide ",
    "gate ",
    "the room ",
    "opens, ",
    "closes; ",
    "water ",
    "who ",
    "said ",
    "and then ",
    "7 ",
    "0123456789 ",
    "\n",
];

/// Text that has much in common with other such texts, or bytes that have nothing.
fn message(dice: &mut Xorshift) -> Vec<u8> {
    let len = [5, 100, 1023, 1024, 1500, 8_000, 70_000][dice.below(7)];
    if dice.chance(6) {
        return (0..len).map(|_| dice.next() as u8).collect();
    }
    let mut text = String::new();
    while text.len() < len {
        text.push_str(WORDS[dice.below(WORDS.len())]);
    }
    text.truncate(len);
    text.into_bytes()
}

/// A room of members that make these offers.
fn room(offers: &[&'static str], rolling: bool) -> Room {
    let (asked, server) = (offers.to_vec(), WebSocket::server().deflate(true));
    let greeting = move |n: usize| match request(asked[n]) {
        request if rolling => rolled(&request, 0),
        request => request,
    };
    Room::greeted(offers.len(), Config::default(), greeting, move |listen| {
        listen.layer(move |_| -> Box<dyn Layer> {
            match server.layer() {
                socket if rolling => Box::new(Rolling::default().then(socket)),
                socket => Box::new(socket),
            }
        })
    })
}

fn turn(room: &mut Room) {
    let _ = room.reactor.turn(Some(Duration::ZERO)).unwrap();
}

fn binary(message: &[u8]) -> Message<&[u8]> {
    Message::new(MessageKind::Binary, message)
}

// row 205
#[test]
fn direct_and_group_messages_of_all_sizes_inflate_for_every_member_whatever_it_offered() {
    for_each_seed(0..6, |seed| {
        let (mut dice, rolling) = (Xorshift::new(seed), seed % 3 == 2);
        let mut room = room(&OFFERS, rolling);
        // It counts, so that each message is encoded for it alone.
        let counting = room.tokens[2];
        assert!(room.net().set_options(counting, StreamOptions::new().statistics(true)));
        let groups = [room.group(OFFERS.len()), room.group(6)];
        let mut expected = vec![Vec::new(); OFFERS.len()];
        for _ in 0..60 {
            let message = message(&mut dice);
            let (at, member) = (dice.below(2), dice.below(OFFERS.len()));
            let (group, token) = (groups[at], room.tokens[member]);
            let in_group = 0..[OFFERS.len(), 6][at];
            match dice.below(6) {
                0 | 1 => {
                    assert!(room.net().send(token, binary(&message)).is_accepted());
                    expected[member].push(message);
                }
                2 => {
                    room.net().publish_except(group, token, binary(&message));
                    in_group
                        .filter(|&n| n != member)
                        .for_each(|n| expected[n].push(message.clone()));
                }
                3 => {
                    room.net().publish_latest(group, 7, binary(&message));
                    in_group.for_each(|n| expected[n].push(message.clone()));
                }
                _ => {
                    room.net().publish(group, binary(&message));
                    in_group.for_each(|n| expected[n].push(message.clone()));
                }
            }
            if dice.chance(3) {
                turn(&mut room);
            }
        }
        for (n, heard) in room.heard().into_iter().enumerate() {
            let heard = if rolling { rolled(&heard, 0) } else { heard };
            let (agreed, heard) = messages(&heard);
            assert_eq!(agreed, ![0, 5, 6, 7, 8, 9, 10].contains(&n), "{}", OFFERS[n]);
            assert_eq!(heard.len(), expected[n].len(), "{}", OFFERS[n]);
            for (at, (heard, expected)) in heard.iter().zip(&expected[n]).enumerate() {
                assert!(heard.message == *expected, "message {at} for {:?}", OFFERS[n]);
                assert!(agreed && expected.len() >= 1024 || !heard.compressed);
            }
            assert_eq!(heard.iter().any(|heard| heard.compressed), agreed);
        }
    });
}

/// Text of 64 different letters, in which only another copy of it is found again.
fn text(len: usize) -> Vec<u8> {
    let mut dice = Xorshift::new(1);
    (0..len).map(|_| b'0' + dice.below(64) as u8).collect()
}

/// What the members of a room heard of each of these messages: sent directly to all, or published.
fn lengths(offers: &[&'static str], plan: &[(bool, &[u8])]) -> Vec<Vec<(bool, usize)>> {
    let mut room = room(offers, false);
    let group = room.group(offers.len());
    for &(direct, message) in plan {
        if direct {
            for token in room.tokens.clone() {
                room.net().send(token, binary(message));
            }
        } else {
            room.net().publish(group, binary(message));
        }
        turn(&mut room);
    }
    let heard = room.heard();
    let lengths = heard.iter().map(|heard| {
        let (_, heard) = messages(heard);
        assert!(heard.iter().map(|heard| &heard.message[..]).eq(plan.iter().map(|plan| plan.1)));
        heard.iter().map(|heard| (heard.compressed, heard.len)).collect()
    });
    lengths.collect()
}

// row 206
#[test]
fn a_message_to_a_room_refers_to_no_other_and_neither_does_a_direct_one_behind_it() {
    let (large, other) = (text(6_000), text(9_000)[5_000..].to_vec());
    let (large, other) = (&large[..], &other[..]);
    let plan = [
        (true, large),
        (true, large),
        (false, large),
        (false, large),
        (true, large),
        (true, other),
    ];
    let heard = lengths(&[TAKEOVER, FORGETS, OFFERS[2]], &plan);
    let lens: Vec<Vec<usize>> =
        heard.iter().map(|heard| heard.iter().map(|&(_, len)| len).collect()).collect();
    assert!(heard.iter().flatten().all(|&(compressed, _)| compressed));
    // Who forgets gets each by itself.
    let alone = lens[1][0];
    assert_eq!(lens[1][..5], [alone; 5]);
    for lens in [&lens[0], &lens[2]] {
        assert!(lens[1] < alone / 4, "the second refers to the first: {lens:?}");
        assert_eq!([lens[0], lens[2], lens[3], lens[4]], [alone; 4], "these to none");
        assert!(lens[5] < heard[1][5].1, "and its window is in use again: {lens:?}");
    }
}

// row 207
#[test]
fn what_a_room_gets_uncompressed_leaves_the_window_as_it_is() {
    let mut dice = Xorshift::new(3);
    let large = text(6_000);
    let random: Vec<u8> = (0..3_000).map(|_| dice.next() as u8).collect();
    let plan = [(true, &large[..]), (false, b"short"), (false, &random), (true, &large)];
    let heard = lengths(&[TAKEOVER, ""], &plan);
    assert_eq!(heard[0][1..3], [(false, 5), (false, 3_000)]);
    assert!(heard[0][3].0 && heard[0][3].1 < heard[0][0].1 / 4, "{heard:?}");
    assert_eq!(heard[1], [6_000, 5, 3_000, 6_000].map(|len| (false, len)));
}

/// Values to a member that does not read: in the form of its class as far as its socket takes them, then
/// through its own layer.
// row 208
#[test]
fn values_of_a_room_inflate_for_a_member_that_falls_behind() {
    let mut room = room(&[TAKEOVER, TAKEOVER], false);
    let socket = SocketOptions::new().send_buffer(4096).not_sent_low_water(4096);
    for token in room.tokens.clone() {
        assert!(room.net().set_options(token, StreamOptions::new().socket_options(socket.clone())));
    }
    let (group, mut dice) = (room.group(2), Xorshift::new(9));
    // All have this in common, so that each could refer to those before.
    let base = text(8_000);
    let value = |key: u64, number: u64, dice: &mut Xorshift| {
        let own: String = (0..800).map(|_| format!("{:x}", dice.next())).collect();
        [format!("{key} {number} ").as_bytes(), &base, own.as_bytes()].concat()
    };
    let mut sent = vec![Vec::new(); 3];
    publish_until_behind(&mut room, group, |room, number| {
        if number % 4 == 0 {
            for token in room.tokens.clone() {
                assert!(room.net().send(token, binary(&base)).is_accepted());
            }
        }
        let key = number % 3;
        let value = value(key, number, &mut dice);
        room.net().publish_latest(group, key, binary(&value));
        sent[key as usize].push(value);
    });
    for heard in room.heard() {
        let (_, heard) = messages(&heard);
        assert!(heard.iter().all(|heard| heard.compressed));
        let direct = heard.iter().filter(|heard| heard.message == base).count();
        assert!(direct > 5, "{direct} of {}", heard.len());
        for (key, sent) in sent.iter().enumerate() {
            let of_key = |heard: &&Heard| heard.message.starts_with(format!("{key} ").as_bytes());
            let mut sent = sent.iter();
            let mut last = None;
            for heard in heard.iter().filter(of_key) {
                last = Some(&heard.message);
                assert!(
                    sent.any(|value| *value == heard.message),
                    "another value, or out of order"
                );
            }
            assert!(last.is_some() && sent.next().is_none(), "the newest is missing");
        }
    }
}

/// A value waits beside the queue when the room is served, and leaves behind the room's message, or before it
/// where that is a value as well.
// row 205
#[test]
fn what_leaves_around_a_message_of_a_room_refers_to_nothing_across_it() {
    for case in 0..4 {
        let (rolling, keyed) = (case % 2 == 1, case / 2 == 1);
        let mut room = room(&[TAKEOVER, TAKEOVER], rolling);
        let (group, mut large) = (room.group(2), text(12_000));
        // As long as the other, and has nothing in common with it.
        let between = large.split_off(6_000);
        let send = |room: &mut Room| {
            for token in room.tokens.clone() {
                assert!(room.net().send(token, binary(&large)).is_accepted());
            }
            turn(room);
        };
        send(&mut room);
        for token in room.tokens.clone() {
            assert!(room.net().send_latest(token, 1, binary(&large)).is_accepted());
        }
        match keyed {
            true => room.net().publish_latest(group, 2, binary(&between)),
            false => room.net().publish(group, binary(&between)),
        };
        turn(&mut room);
        send(&mut room);
        for heard in room.heard() {
            let heard = if rolling { rolled(&heard, 0) } else { heard };
            let (_, heard) = messages(&heard);
            assert!(heard.iter().all(|heard| heard.compressed));
            let mut heard: Vec<_> = heard.iter().map(|heard| &heard.message[..]).collect();
            if keyed {
                heard.swap(1, 2);
            }
            assert!(heard == [&large[..], &between, &large, &large], "case {case}");
        }
    }
}

fn publish_until_behind(room: &mut Room, group: Group, mut publish: impl FnMut(&mut Room, u64)) {
    let mut number = 0;
    let mut more = 20;
    while more > 0 {
        for _ in 0..4 {
            publish(room, number);
            number += 1;
        }
        turn(room);
        more -= u32::from(room.net().members_behind(group).count() == 2);
        assert!(number < 10_000, "nobody falls behind");
    }
}

/// The same behind TLS, where what lies within is encoded once, and each member encrypts it.
#[cfg(feature = "tls")]
mod secure {
    use std::io::{Read, Write};
    use std::sync::Arc;

    use tidegate::layer::tls::rustls;
    use tidegate::{Listen, Reactor};

    use super::*;
    use crate::support::{Log, Probe, address_of, client, secure, until};

    fn heard_over_tls(address: std::net::SocketAddr, offer: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(secure::roots())
            .with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = rustls::StreamOwned::new(tls, client(address));
        stream.write_all(&request(offer)).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        heard
    }

    // row 209
    #[test]
    fn direct_and_group_messages_inflate_behind_tls() {
        let (log, mut sent) = (Log::new(), Vec::new());
        let of_handler = log.clone();
        let mut reactor = Reactor::new().unwrap();
        let socket = WebSocket::server().deflate(true);
        let listen =
            Listen::tcp("127.0.0.1:0").layer(move |_| secure::server().then(socket.layer()));
        let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
        let address = address_of(&mut reactor, listener);
        let mut readers = Vec::new();
        for (n, offer) in [TAKEOVER, FORGETS, "", TAKEOVER].into_iter().enumerate() {
            readers.push(std::thread::spawn(move || heard_over_tls(address, offer)));
            until(&mut reactor, "a member to open", |_| log.opens() == n + 1);
        }
        let (tokens, mut dice) = (log.opened(), Xorshift::new(5));
        let group = reactor.net().create_group();
        for &token in &tokens {
            assert!(reactor.net().join(group, token));
        }
        for n in 0..60 {
            let message = message(&mut dice);
            if n % 3 == 0 {
                for &token in &tokens {
                    reactor.net().send(token, binary(&message));
                }
            } else {
                reactor.net().publish(group, binary(&message));
            }
            sent.push(message);
            if n % 4 == 0 {
                let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
            }
        }
        for token in tokens {
            reactor.net().close(token);
        }
        until(&mut reactor, "the clients", |_| readers.iter().all(|reader| reader.is_finished()));
        for (n, reader) in readers.into_iter().enumerate() {
            let (agreed, heard) = messages(&reader.join().unwrap());
            assert_eq!(agreed, n != 2);
            let heard: Vec<Vec<u8>> = heard.into_iter().map(|heard| heard.message).collect();
            assert!(heard == sent, "member {n}");
        }
    }
}
