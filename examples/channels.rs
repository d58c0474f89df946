//! Channels over UDP sessions: messages that arrive, in their order, whatever the network loses, beside
//! messages that may be lost. The channels are the crate `renet`'s, which does no I/O of its own: it takes
//! the datagrams of a session and says what to send. Here they meet; nothing is encrypted.
//!
//! A stream (TCP, WebSocket) makes everything wait for what was lost. With channels only that waits which
//! has to: a position of a moment ago is not worth sending again.
//!
//! A client shows a cookie before the server keeps or repeats anything for its address. What has no limit
//! in renet 2.0.1 gets one here (`is_sane`): it bounds the bytes of a channel and not the messages, and it
//! panics when the number of a slice is over that of its slices. A panic in a callback costs that session
//! alone; with `panic = "abort"` it would end the process. A cookie proves an address and not a datagram:
//! who can write a client's address can still end its session. Against that there is encryption only.

mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use renet::{Bytes, ChannelConfig, ConnectionConfig, RenetClient, SendType};
use tidegate::{
    Admission, CloseInfo, Config, Context, Cookies, Datagram, DatagramHandler, Error,
    HandlerResult, Hello, Net, Reactor, SessionOptions, Timer, Token, Udp,
};

const HELP: &str = "channels - reliable and unreliable messages over UDP
Usage: cargo run --release --features cookies --example channels [ADDRESS [COUNT]]
       (default 127.0.0.1:8888 and 0)
With COUNT 0 it serves, and sends back what it hears. Otherwise it sends so many messages of each kind to
a server, and says what came back.";

/// How often what waits is sent, and what was not acknowledged for 300 ms is sent again.
const TICK: Duration = Duration::from_millis(16);

/// How a client begins; it is longer than the answer: this byte, which begins none of renet's packets,
/// and a cookie. The client returns that as it is, until the byte alone says that the session is there.
const HELLO: &[u8] = b"channels/1 hello";
const COOKIE: u8 = b'c';

const UNRELIABLE: u8 = 0;
const RELIABLE: u8 = 2;

/// How many reliable messages may be on their way, to the server and back, and how many slices each may
/// have, of 1,200 bytes: less than 1 MiB, where renet would end the channels.
const WINDOW: u32 = 128;
const SLICES: u64 = 5;
const MEMORY: usize = 1024 * 1024;

/// One end of the channels; both ends are alike.
struct Channels {
    renet: RenetClient,
    last: Instant,
    /// How many reliable messages were taken out.
    taken: u64,
    /// Those that came in part: how many slices each has.
    slices: BTreeMap<u64, u64>,
}

impl Channels {
    fn new(now: Instant) -> Self {
        let resend = SendType::ReliableOrdered { resend_time: Duration::from_millis(300) };
        let config = [(UNRELIABLE, SendType::Unreliable), (RELIABLE, resend)]
            .map(|(channel_id, send_type)| ChannelConfig {
                channel_id,
                send_type,
                max_memory_usage_bytes: MEMORY,
            })
            .to_vec();
        let renet = RenetClient::new(ConnectionConfig {
            client_channels_config: config.clone(),
            server_channels_config: config,
            ..ConnectionConfig::default()
        });
        Channels { renet, last: now, taken: 0, slices: BTreeMap::new() }
    }

    /// What came. What is not a packet of the other end is left out.
    fn process(&mut self, datagram: &[u8]) {
        if self.is_sane(datagram) == Some(true) {
            self.renet.process_packet(datagram);
        }
    }

    /// Whether renet may see a packet: its `packet.rs` has the format.
    fn is_sane(&mut self, mut packet: &[u8]) -> Option<bool> {
        let (it, end) = (&mut packet, self.taken + u64::from(WINDOW));
        let kind = *it.split_off_first()?;
        let (_sequence, _channel) = (varint(it)?, it.split_off_first()?);
        Some(match kind {
            0 => {
                let count = it.split_off(..2)?;
                for _ in 0..u16::from_be_bytes([count[0], count[1]]) {
                    let (number, len) = (varint(it)?, varint(it)? as usize);
                    it.split_off(..len).filter(|_| number < end && len >= NUMBER)?;
                }
                true
            }
            2 => {
                let (number, index, count) = (varint(it)?, varint(it)?, varint(it)?);
                let is_new = (self.taken..end).contains(&number);
                index < count
                    && count <= SLICES
                    && number < end
                    && (!is_new || *self.slices.entry(number).or_insert(count) == count)
            }
            1 | 4 => true, // unreliable ones, which are never slices here; acknowledgements
            _ => false,
        })
    }

    fn next(&mut self, channel: u8) -> Option<Bytes> {
        let message = self.renet.receive_message(channel)?;
        if channel == RELIABLE {
            self.slices.remove(&self.taken);
            self.taken += 1;
        }
        Some(message)
    }

    /// What waits, one datagram each, of up to 1,300 bytes.
    fn tick(&mut self, now: Instant) -> Result<Vec<Vec<u8>>, tidegate::BoxError> {
        self.renet.update(now - self.last);
        self.last = now;
        match self.renet.disconnect_reason() {
            Some(reason) => Err(reason.to_string().into()),
            None => Ok(self.renet.get_packets_to_send()),
        }
    }
}

/// An integer of 1, 2, 4 or 8 bytes (RFC 9000, section 16).
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let bytes = bytes.split_off(..1 << (first >> 6))?;
    Some(bytes[1..].iter().fold(u64::from(first & 0x3f), |n, &byte| n << 8 | u64::from(byte)))
}

/// The server's side of one session: sends back what it hears, on the channel on which it came.
struct Echo(Channels);

impl DatagramHandler for Echo {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.set_timer(TICK, 0);
        Ok(())
    }

    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        if datagram.bytes.starts_with(&[COOKIE]) && datagram.bytes.len() > 1 {
            cx.send([COOKIE]);
            return Ok(());
        }
        self.0.process(datagram.bytes);
        for channel in [RELIABLE, UNRELIABLE] {
            while let Some(message) = self.0.next(channel) {
                // There is no room if the client acknowledges nothing.
                if self.0.renet.can_send_message(channel, message.len()) {
                    self.0.renet.send_message(channel, message);
                }
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: Timer) -> HandlerResult {
        // An error ends this session, and no other.
        for datagram in self.0.tick(cx.now())? {
            cx.send(datagram);
        }
        cx.set_timer(TICK, 0);
        Ok(())
    }
}

fn serve(net: &mut Net, address: &str) -> Result<Token, Error> {
    let cookies = Cookies::new(net);
    // Each may take MEMORY four times: two channels, each with what comes and what goes.
    let options = SessionOptions::new().max_sessions(100);
    net.bind_sessions(Udp::bind(address), options, move |hello: &Hello<'_>| {
        let cookie = hello.bytes.strip_prefix(&[COOKIE]).unwrap_or_default();
        if cookies.is_valid(hello.from, hello.now, cookie) {
            Admission::accept(Echo(Channels::new(hello.now)))
        } else if hello.bytes == HELLO {
            Admission::reply([&[COOKIE][..], &cookies.make(hello.from, hello.now)].concat())
        } else {
            Admission::ignore()
        }
    })
}

/// What a client has heard.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Heard {
    reliable: u32,
    unreliable: u32,
}

/// How long a message is at least.
const NUMBER: usize = 4;

/// Message number n: the number, and up to 5,000 bytes more, which renet takes apart and joins.
fn message(number: u32) -> Bytes {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(NUMBER + number as usize * 37 % 5_000, number as u8);
    bytes.into()
}

/// The client: sends some messages with each tick, until all reliable ones have come back.
struct Asks {
    channels: Channels,
    sent: u32,
    count: u32,
    /// What is sent until the session is there.
    greeting: Option<Vec<u8>>,
}

impl DatagramHandler<Heard> for Asks {
    fn on_open(&mut self, cx: &mut Context<'_, Heard>) -> HandlerResult {
        cx.set_timer(TICK, 0);
        Ok(())
    }

    fn on_datagram(&mut self, cx: &mut Context<'_, Heard>, it: Datagram<'_>) -> HandlerResult {
        if it.bytes.starts_with(&[COOKIE]) {
            let is_cookie = it.bytes.len() > 1;
            self.greeting = self.greeting.take().filter(|_| is_cookie).map(|_| it.bytes.to_vec());
            return Ok(());
        }
        self.channels.process(it.bytes);
        while let Some(bytes) = self.channels.next(RELIABLE) {
            assert_eq!(bytes, message(cx.state.reliable), "they come whole, and in their order");
            cx.state.reliable += 1;
        }
        while self.channels.next(UNRELIABLE).is_some() {
            cx.state.unreliable += 1;
        }
        if cx.state.reliable == self.count {
            cx.net.stop();
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Heard>, _: Timer) -> HandlerResult {
        if let Some(greeting) = &self.greeting {
            cx.send(greeting);
            cx.set_timer(TICK, 0);
            return Ok(());
        }
        for _ in 0..4 {
            if self.sent < self.count.min(cx.state.reliable + WINDOW) {
                self.channels.renet.send_message(RELIABLE, message(self.sent));
                self.channels.renet.send_message(UNRELIABLE, self.sent.to_be_bytes().to_vec());
                self.sent += 1;
            }
        }
        match self.channels.tick(cx.now()) {
            Err(error) => {
                cx.close();
                return Err(error);
            }
            Ok(datagrams) => {
                for datagram in datagrams {
                    cx.send(datagram);
                }
            }
        }
        cx.set_timer(TICK, 0);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Heard>, _: &CloseInfo) {
        cx.net.stop();
    }
}

fn ask(net: &mut Net<Heard>, server: &str, count: u32) -> Result<Token, Error> {
    let (channels, greeting) = (Channels::new(net.now()), Some(HELLO.to_vec()));
    let asks = Asks { channels, sent: 0, count, greeting };
    net.bind_udp(Udp::bind("0.0.0.0:0").connect(server), asks)
}

fn main() -> ExitCode {
    support::main(HELP, ["127.0.0.1:8888", "0"], |[address, count]| {
        let count: u32 = count.parse().map_err(|_| format!("expected a count, got '{count}'"))?;
        if count == 0 {
            let mut reactor = Reactor::new()?;
            let token = serve(reactor.net(), &address)?;
            for at in reactor.net().local_addrs(token) {
                support::say(format!("channels: listening on {at}"))?;
            }
            reactor.run()?;
            return Ok(());
        }
        let mut reactor = Reactor::build(Config::new(), |_| Ok(Heard::default()))?;
        ask(reactor.net(), &address, count)?;
        // A server that is not there is not an error of UDP.
        reactor.net().run_after(Duration::from_secs(30), |_: &mut Heard, net| net.stop());
        reactor.run()?;
        let Heard { reliable, unreliable } = *reactor.state();
        support::say(format!("channels: {reliable} of {count} came back in order, all bytes"))?;
        support::say(format!("channels: {unreliable} of {count} that may be lost came back"))?;
        if reliable < count { Err("no answer within 30 s".into()) } else { Ok(()) }
    })
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use tidegate::sim::{Host, Link, Sim, check};

    use super::*;

    #[test]
    fn what_must_arrive_does_and_the_rest_does_not_hold_it_up() {
        check(0..10, |sim| {
            let loss = 0.02 * sim.seed() as f64;
            let latency = Duration::from_millis(5)..Duration::from_millis(60);
            sim.default_link(Link::new().loss(loss).latency(latency).duplicates(0.05))?;
            sim.host("server", |net| serve(net, "0.0.0.0:80").map(drop))?;
            let clients = ["ada", "bob"].map(|name| {
                sim.host(name, |net| {
                    ask(net, "server:80", 100)?;
                    Ok(Heard::default())
                })
            });
            for client in clients {
                let client = client?;
                sim.run_until(Duration::from_secs(120), |sim| !sim.is_running(client))?;
                let heard = sim.state(client);
                assert_eq!(heard.reliable, 100);
                assert!(loss > 0.0 || heard.unreliable >= 95, "{heard:?}");
            }
            sim.settle(Duration::from_secs(120))?;
            Ok(())
        });
    }

    /// Sends this, with a cookie before it or without one.
    struct Eve {
        bytes: Vec<u8>,
        has_cookie: bool,
    }

    impl DatagramHandler<Heard> for Eve {
        fn on_open(&mut self, cx: &mut Context<'_, Heard>) -> HandlerResult {
            cx.send(if self.has_cookie { HELLO } else { &self.bytes });
            Ok(())
        }

        fn on_datagram(&mut self, cx: &mut Context<'_, Heard>, it: Datagram<'_>) -> HandlerResult {
            cx.state.unreliable += 1;
            if self.has_cookie && it.bytes.starts_with(&[COOKIE]) && it.bytes.len() > 1 {
                cx.send(it.bytes);
                cx.send(&self.bytes);
            }
            Ok(())
        }
    }

    fn start_eve(sim: &mut Sim, bytes: &[u8], has_cookie: bool) -> Result<Host<Heard>, Error> {
        let bytes = bytes.to_vec();
        sim.host("eve", move |net| {
            net.bind_udp(
                Udp::bind("0.0.0.0:0").connect("server:80"),
                Eve { bytes: bytes.clone(), has_cookie },
            )?;
            Ok(Heard::default())
        })
    }

    /// Slice `index` of `count`, of reliable message 1.
    fn slice(index: u8, count: u8) -> Vec<u8> {
        let mut packet = vec![2, 0, RELIABLE, 1, index, count, 0x44, 0xb0];
        packet.resize(packet.len() + 1_200, 0);
        packet
    }

    #[test]
    fn bytes_that_are_no_packet_cost_their_own_session() {
        let far = [0, 0, RELIABLE, 0, 1, 0x7f, 0xff, 4, 0, 0, 0, 0];
        let bad: [&[u8]; 6] =
            [b"\xff\xff\xff\xff", b"", b"\x00", &far, &slice(9, 2), b"\x04\0\0\x01\0"];
        check(0..6, |sim| {
            sim.host("server", |net| serve(net, "0.0.0.0:80").map(drop))?;
            start_eve(sim, bad[sim.seed() as usize], true)?;
            let ada = sim.host("ada", |net| {
                ask(net, "server:80", 20)?;
                Ok(Heard::default())
            })?;
            sim.run_until(Duration::from_secs(60), |sim| !sim.is_running(ada))?;
            assert_eq!(sim.state(ada).reliable, 20);
            Ok(())
        });
    }

    #[test]
    fn an_address_that_is_not_proved_gets_no_more_than_it_sends() {
        let message = [0, 0, RELIABLE, 0, 1, 0, 4, 0, 0, 0, 0];
        let cases: [(&[u8], u32); 3] = [(HELLO, 1), (&message, 0), (&slice(0, 1), 0)];
        assert!(HELLO.len() > Cookies::LEN);
        check(0..3, |sim| {
            let (bytes, answers) = cases[sim.seed() as usize];
            sim.host("server", |net| serve(net, "0.0.0.0:80").map(drop))?;
            let eve = start_eve(sim, bytes, false)?;
            sim.run_for(Duration::from_secs(5))?;
            assert_eq!(sim.state(eve).unreliable, answers);
            Ok(())
        });
    }

    #[test]
    fn renet_sees_no_slices_that_do_not_fit_and_no_message_far_ahead() {
        let mut channels = Channels::new(Instant::now());
        for (index, count, is_sane) in
            [(2, 2, false), (0, 6, false), (0, 2, true), (0, 2, true), (4, 5, false), (1, 2, true)]
        {
            assert_eq!(channels.is_sane(&slice(index, count)), Some(is_sane), "{index} of {count}");
        }
        let small = |number: [u8; 2], len: u8| {
            let mut packet = vec![0, 0, RELIABLE, 0, 1, 0x40 | number[0], number[1], len];
            packet.resize(packet.len() + usize::from(len), 0);
            packet
        };
        assert_eq!(channels.is_sane(&small([0, 127], 4)), Some(true));
        assert_eq!(channels.is_sane(&small([0, 128], 4)), None, "over the window");
        assert_eq!(channels.is_sane(&small([0, 1], 0)), None, "empty ones would cost nothing");
        assert_eq!(channels.is_sane(b"\x02\0\x02\x01"), None);
        // The same without the guard, for as long as it is needed.
        let panics = |packet: &[&[u8]]| {
            let mut renet = Channels::new(Instant::now()).renet;
            let run = || packet.iter().for_each(|packet| renet.process_packet(packet));
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
        };
        assert!(panics(&[&slice(9, 2)]));
        assert!(panics(&[&slice(0, 2), &slice(4, 5)]));
    }
}
