//! Values of which only the newest counts, over real sockets: a peer that reads slowly gets few of them,
//! each whole, in order for each key, and the newest at last; one that keeps up gets all.

use std::collections::HashMap;
use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use tidegate::layer::{LengthPrefixed, Lines};
use tidegate::{Group, Listen, Reactor, SocketOptions, StreamOptions, Token};

use crate::support::sockets::small_client;
use crate::support::{Log, Probe, address_of, client, read_all, until, with_client};

const KEYS: u64 = 10;
const LEN: usize = 100;

fn value(key: u64, number: u64) -> String {
    format!("{key} {number:>width$};", width = LEN - 3)
}

/// The values in what was heard: key and number. Panics at one that is torn.
fn values(heard: &[u8]) -> Vec<(u64, u64)> {
    let mut values = Vec::new();
    for text in std::str::from_utf8(heard).unwrap().split_terminator(';') {
        let (key, number) = text.split_once(' ').unwrap();
        let (key, number) = (key.parse().unwrap(), number.trim_start().parse().unwrap());
        assert_eq!(format!("{text};"), value(key, number));
        values.push((key, number));
    }
    values
}

/// Each key's numbers grow, and end with the last one that was sent.
fn assert_newest(values: &[(u64, u64)], sent: u64) {
    let mut last: HashMap<u64, u64> = HashMap::new();
    for &(key, number) in values {
        assert_eq!(number % KEYS, key, "the value of another key");
        let before = last.insert(key, number);
        assert!(before.is_none_or(|before| before < number), "{key}: {number} behind {before:?}");
    }
    for key in 0..KEYS {
        assert_eq!(last[&key], (0..sent).rev().find(|n| n % KEYS == key).unwrap());
    }
}

/// Small buffers, so that a peer that does not read is slow soon.
fn small(listen: Listen) -> Listen {
    let socket = SocketOptions::new().send_buffer(4096).not_sent_low_water(4096);
    listen.options(StreamOptions::new().socket_options(socket))
}

struct Rig {
    reactor: Reactor,
    group: Group,
    tokens: Vec<Token>,
    streams: Vec<TcpStream>,
    log: Log,
}

/// `fast` members that read, and one that does not; it is the last one.
fn rig(fast: usize, listen: Listen) -> Rig {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut streams = Vec::new();
    for n in 0..=fast {
        streams.push(if n < fast { client(address) } else { small_client(address) });
        until(&mut reactor, "a member to open", |_| log.opens() == n + 1);
    }
    let group = reactor.net().create_group();
    let tokens = log.opened();
    for &token in &tokens {
        assert!(reactor.net().join(group, token));
    }
    Rig { reactor, group, tokens, streams, log }
}

impl Rig {
    /// Closes everybody gracefully; what each client has received in all.
    fn heard(mut self) -> Vec<Vec<u8>> {
        self.reactor.net().close_all();
        let streams = self.streams;
        let heard = with_client(&mut self.reactor, move || {
            let readers =
                streams.into_iter().map(|mut s| std::thread::spawn(move || read_all(&mut s)));
            let readers: Vec<_> = readers.collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        until(&mut self.reactor, "all to close", |_| self.log.closes() == self.tokens.len());
        assert!(self.log.reasons().iter().all(|r| r == "closed"), "{:?}", self.log.reasons());
        heard
    }
}

// row 170
#[test]
fn a_peer_that_does_not_read_gets_the_newest_values_when_it_does() {
    const SENT: u64 = 20_000;
    let mut rig = rig(0, small(Listen::tcp("127.0.0.1:0")));
    let token = rig.tokens[0];
    for n in 0..SENT {
        let status = rig.reactor.net().send_latest(token, n % KEYS, value(n % KEYS, n));
        assert!(status.is_accepted());
        if n % 10 == 9 {
            let _ = rig.reactor.turn(Some(Duration::ZERO)).unwrap();
        }
    }
    let stats = rig.reactor.net().newest_stats(token).unwrap();
    assert!(stats.waiting as u64 <= KEYS && stats.replaced > SENT / 2, "{stats:?}");
    assert!(rig.reactor.net().queued(token) < 32 * 1024);
    let heard = rig.heard().remove(0);
    let values = values(&heard);
    assert_eq!(values.len() as u64, SENT - stats.replaced);
    assert_newest(&values, SENT);
}

/// Publishes until the last member has fallen behind and much was replaced, while the others read.
fn publish(rig: &mut Rig) -> u64 {
    let (group, mut number) = (rig.group, 0);
    let slow = *rig.tokens.last().unwrap();
    loop {
        for _ in 0..50 {
            let published = rig.reactor.net().publish_latest(
                group,
                number % KEYS,
                value(number % KEYS, number),
            );
            assert_eq!(published.members, rig.tokens.len());
            number += 1;
        }
        let _ = rig.reactor.turn(Some(Duration::ZERO)).unwrap();
        // The others read as fast as it is published.
        let fast = rig.tokens[..rig.tokens.len() - 1].to_vec();
        until(&mut rig.reactor, "the readers", |reactor| {
            fast.iter().all(|&token| reactor.net().queued(token) == 0)
        });
        let stats = rig.reactor.net().newest_stats(slow).unwrap();
        assert!(stats.waiting as u64 <= KEYS && number < 1_000_000, "{stats:?}");
        if stats.replaced > 5_000 {
            return number;
        }
    }
}

fn slow_and_fast_members(listen: Listen, decode: impl Fn(&[u8]) -> Vec<u8>) {
    let mut rig = rig(3, listen);
    // Read all the time, on threads of their own; the last one at the end.
    let mut readers = Vec::new();
    for stream in rig.streams.drain(..3) {
        readers.push(std::thread::spawn(move || {
            let (mut stream, mut heard) = (stream, Vec::new());
            stream.read_to_end(&mut heard).unwrap();
            heard
        }));
    }
    let sent = publish(&mut rig);
    let slow = rig.tokens[3];
    assert!(rig.reactor.net().is_behind(slow));
    let group = rig.group;
    assert!(rig.reactor.net().members_behind(group).eq([slow]));
    let replaced = rig.reactor.net().group_stats(group).unwrap().replaced;
    let slow = decode(&rig.heard().remove(0));
    for reader in readers {
        let values = values(&decode(&reader.join().unwrap()));
        assert!(values.iter().map(|value| value.1).eq(0..sent), "a fast one misses something");
    }
    let values = values(&slow);
    assert_eq!(values.len() as u64, sent - replaced);
    assert_newest(&values, sent);
}

// row 177
#[test]
fn a_member_that_keeps_up_gets_every_value_and_a_slow_one_the_newest() {
    slow_and_fast_members(small(Listen::tcp("127.0.0.1:0")), <[u8]>::to_vec);
}

// row 176
#[test]
fn so_it_is_behind_layers() {
    let lines = small(Listen::tcp("127.0.0.1:0")).layer(|_| Lines::new());
    slow_and_fast_members(lines, |heard| {
        String::from_utf8(heard.to_vec()).unwrap().replace('\n', "").into_bytes()
    });
    let framed = small(Listen::tcp("127.0.0.1:0")).layer(|_| LengthPrefixed::new(2));
    slow_and_fast_members(framed, |heard| {
        let mut rest = heard;
        let mut whole = Vec::new();
        while let [a, b, behind @ ..] = rest {
            let (frame, behind) = behind.split_at(usize::from(u16::from_be_bytes([*a, *b])));
            whole.extend_from_slice(frame);
            rest = behind;
        }
        whole
    });
}

#[cfg(feature = "websocket")]
#[test]
fn values_are_frames_of_a_websocket_too() {
    use tidegate::Connect;
    use tidegate::layer::websocket::WebSocket;
    let log = Log::new();
    let (of_server, of_client) = (log.clone(), Log::new());
    let heard = of_client.clone();
    let mut reactor: Reactor = Reactor::new().unwrap();
    let listen = small(Listen::tcp("127.0.0.1:0")).layer(|_| WebSocket::server().layer());
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_server)).unwrap();
    let address = address_of(&mut reactor, listener);
    let connect = Connect::tcp(address).layer(WebSocket::client("localhost", "/").layer());
    reactor.net().connect(connect, Probe::new(&of_client)).unwrap();
    until(&mut reactor, "both to open", |_| log.opens() == 1 && heard.opens() == 1);
    let token = log.opened()[0];
    for n in 0..1000 {
        assert!(reactor.net().send_latest(token, n % KEYS, value(n % KEYS, n)).is_accepted());
    }
    until(&mut reactor, "the newest", |_| heard.data().len() == KEYS as usize * LEN);
    assert_newest(&values(&heard.data()), 1000);
    assert_eq!(reactor.net().newest_stats(token).unwrap().replaced, 990);
}

// row 174
#[test]
fn a_token_that_names_no_connection_takes_no_value() {
    let mut rig = rig(0, Listen::tcp("127.0.0.1:0"));
    let token = rig.tokens[0];
    let mut other = crate::support::datagrams::rig("127.0.0.1:0");
    let udp = other.token;
    assert_eq!(other.reactor.net().send_latest(udp, 1, "x"), tidegate::SendStatus::Gone);
    assert_eq!(other.reactor.net().newest_stats(udp), None);
    rig.reactor.net().close(token);
    assert_eq!(rig.reactor.net().send_latest(token, 1, "x"), tidegate::SendStatus::Gone);
    assert_eq!(rig.reactor.net().discard_queued(token), 0);
}
