//! Channels over UDP sessions: messages that arrive, in their order, whatever the network loses, beside
//! messages that may be lost. The channels are the crate `renet`'s, which does no I/O of its own: it takes
//! the datagrams of a session and says what to send. Here they meet; nothing is encrypted.
//!
//! A stream (TCP, WebSocket) makes everything wait for what was lost. With channels only that waits which
//! has to: a position of a moment ago is not worth sending again.

mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use renet::{Bytes, ConnectionConfig, RenetClient};
use tidegate::{
    Admission, CloseInfo, Config, Context, Datagram, DatagramHandler, Error, HandlerResult, Hello,
    Net, Reactor, SessionOptions, Timer, Token, Udp,
};

const HELP: &str = "channels - reliable and unreliable messages over UDP
Usage: cargo run --release --example channels [ADDRESS [COUNT]]
       (default 127.0.0.1:8888 and 0)
With COUNT 0 it serves, and sends back what it hears. Otherwise it sends so many messages of each kind to
a server, and says what came back.";

/// How often what waits is sent, and what was not acknowledged for 300 ms is sent again.
const TICK: Duration = Duration::from_millis(16);

/// How a client begins. A server keeps nothing for one who begins in another way; `Cookies` would make
/// it prove its address first.
const HELLO: &[u8] = b"channels/1";

/// The numbers of `renet::DefaultChannel::Unreliable` and `ReliableOrdered`.
const UNRELIABLE: u8 = 0;
const RELIABLE: u8 = 2;

/// One end of the channels; both ends are alike. A channel holds at most 5 MiB that was not acknowledged;
/// then renet ends them.
struct Channels {
    renet: RenetClient,
    last: Instant,
}

impl Channels {
    fn new(now: Instant) -> Self {
        Channels { renet: RenetClient::new(ConnectionConfig::default()), last: now }
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

/// The server's side of one session: sends back what it hears, on the channel on which it came.
struct Echo(Channels);

impl DatagramHandler for Echo {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.set_timer(TICK, 0);
        Ok(())
    }

    fn on_datagram(&mut self, _: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        if datagram.bytes == HELLO {
            return Ok(()); // its first tick was not heard yet
        }
        let renet = &mut self.0.renet;
        renet.process_packet(datagram.bytes);
        for channel in [RELIABLE, UNRELIABLE] {
            while let Some(message) = renet.receive_message(channel) {
                if renet.can_send_message(channel, message.len()) {
                    renet.send_message(channel, message);
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
    net.bind_sessions(Udp::bind(address), SessionOptions::new(), |hello: &Hello<'_>| {
        match hello.bytes == HELLO {
            true => Admission::accept(Echo(Channels::new(hello.now))),
            false => Admission::ignore(),
        }
    })
}

/// What a client has heard.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Heard {
    reliable: u32,
    unreliable: u32,
}

/// Message number n: the number, and up to 5,000 bytes more, which renet takes apart and joins.
fn message(number: u32) -> Bytes {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(4 + number as usize * 37 % 5_000, number as u8);
    bytes.into()
}

/// The client: sends some messages with each tick, until all reliable ones have come back.
struct Asks {
    channels: Channels,
    sent: u32,
    count: u32,
    is_known: bool,
}

impl DatagramHandler<Heard> for Asks {
    fn on_open(&mut self, cx: &mut Context<'_, Heard>) -> HandlerResult {
        cx.set_timer(TICK, 0);
        Ok(())
    }

    fn on_datagram(&mut self, cx: &mut Context<'_, Heard>, it: Datagram<'_>) -> HandlerResult {
        self.is_known = true;
        let renet = &mut self.channels.renet;
        renet.process_packet(it.bytes);
        while let Some(bytes) = renet.receive_message(RELIABLE) {
            assert_eq!(bytes, message(cx.state.reliable), "they come whole, and in their order");
            cx.state.reliable += 1;
        }
        while renet.receive_message(UNRELIABLE).is_some() {
            cx.state.unreliable += 1;
        }
        if cx.state.reliable == self.count {
            cx.net.stop();
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Heard>, _: Timer) -> HandlerResult {
        if !self.is_known {
            cx.send(HELLO);
        }
        for _ in 0..4 {
            if self.sent < self.count {
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
    let asks = Asks { channels: Channels::new(net.now()), sent: 0, count, is_known: false };
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
    use tidegate::sim::{Link, check};

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

    #[test]
    fn bytes_that_are_no_packet_cost_their_own_session() {
        check(0..5, |sim| {
            sim.host("server", |net| serve(net, "0.0.0.0:80").map(drop))?;
            let eve = sim.peer("eve")?;
            let (from, to) = ((sim.ip("eve")?, 4000).into(), (sim.ip("server")?, 80).into());
            for bytes in [HELLO, b"\xff\xff\xff\xff", b"", b"\x00"] {
                sim.raw(eve).send_datagram(from, to, bytes)?;
            }
            let ada = sim.host("ada", |net| {
                ask(net, "server:80", 20)?;
                Ok(Heard::default())
            })?;
            sim.run_until(Duration::from_secs(60), |sim| !sim.is_running(ada))?;
            assert_eq!(sim.state(ada).reliable, 20);
            Ok(())
        });
    }
}
