//! Datagrams through small queues over slow links, some of which the receiver's handler refuses: the
//! socket lives, and whoever was told that a queue is full is told when it is empty. Sockets that close
//! with a full queue say what became of it, and their addresses can be used again at once. What comes in
//! trains, and what no link has lost, is heard.

use std::time::Duration;

use tidegate::sim::{Fault, Host, Link, ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Context, Datagram, DatagramError, DatagramHandler, Error, HandlerResult, Net,
    SendStatus, SocketOptions, Timer, Token, Udp,
};

use super::{Dice, LIMIT, ms, pattern, rough, us};

/// Answers with the number; refuses some.
struct Answers {
    errors: u32,
    refused: u32,
}

impl DatagramHandler for Answers {
    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        let (number, rest) = datagram.bytes.split_at(4);
        let number = u32::from_be_bytes(number.try_into()?);
        assert_eq!(rest, pattern(number.into(), 0, rest.len()));
        // Each time by the same dice, or a client would ask it for ever.
        if Dice::of(number.into(), u64::from(self.refused)).percent(20) {
            self.refused += 1;
            return Err("not this one".into());
        }
        self.refused = self.refused.wrapping_add(u32::from(rest.len() % 2 == 0));
        cx.send_to(datagram.from, number.to_be_bytes());
        Ok(())
    }

    fn on_error(&mut self, _: &mut Context<'_>, error: DatagramError) -> HandlerResult {
        self.errors += u32::from(matches!(error, DatagramError::Handler { .. }));
        Ok(())
    }

    fn on_close(&mut self, _: &mut Context<'_>, closed: &CloseInfo) {
        assert!(closed.to_string().contains("dropped"), "no peer ends a UDP socket: {closed}");
    }
}

const QUESTIONS: u32 = 24;

struct Asked {
    dice: Dice,
    answered: Vec<bool>,
    waits: bool,
    socket: Option<Token>,
}

impl Asked {
    fn is_done(&self) -> bool {
        self.answered.iter().all(|&answered| answered)
    }

    /// Asks again what has no answer, until the queue is full: then only `on_drain` goes on.
    fn ask(&mut self, net: &mut Net<Asked>) {
        let Some(token) = self.socket.filter(|_| !self.waits) else { return };
        for _ in 0..20 {
            let open: Vec<u32> =
                (0..QUESTIONS).filter(|&number| !self.answered[number as usize]).collect();
            if open.is_empty() {
                return;
            }
            let number = open[self.dice.size(0, open.len() - 1)];
            let len = self.dice.size(0, 200);
            let mut bytes = number.to_be_bytes().to_vec();
            bytes.extend(pattern(number.into(), 0, len));
            if net.send(token, bytes) != SendStatus::Queued {
                self.waits = true;
                return;
            }
        }
    }
}

struct Asks;

impl DatagramHandler<Asked> for Asks {
    fn on_open(&mut self, cx: &mut Context<'_, Asked>) -> HandlerResult {
        cx.set_timer(ms(20), 0);
        Ok(())
    }

    fn on_datagram(
        &mut self,
        cx: &mut Context<'_, Asked>,
        datagram: Datagram<'_>,
    ) -> HandlerResult {
        let number = u32::from_be_bytes(datagram.bytes.try_into()?);
        cx.state.answered[number as usize] = true;
        if cx.state.dice.percent(20) {
            cx.state.ask(cx.net);
        }
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Asked>) -> HandlerResult {
        cx.state.waits = false;
        if cx.state.dice.percent(50) {
            cx.state.ask(cx.net);
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Asked>, _: Timer) -> HandlerResult {
        if cx.state.is_done() {
            cx.close();
            return Ok(());
        }
        if cx.state.dice.percent(50) {
            cx.state.ask(cx.net);
        } else {
            // From outside of the socket's own callbacks.
            let wait = us(cx.state.dice.between(0, 3_000));
            cx.net.run_after(wait, |state: &mut Asked, net| state.ask(net));
        }
        cx.set_timer(ms(20), 0);
        Ok(())
    }

    fn on_error(&mut self, _: &mut Context<'_, Asked>, _: DatagramError) -> HandlerResult {
        Ok(()) // the timer asks again
    }

    fn on_close(&mut self, cx: &mut Context<'_, Asked>, _: &CloseInfo) {
        cx.state.socket = None;
    }
}

fn client(sim: &mut Sim, name: &str, stream: u64) -> Result<Host<Asked>, Error> {
    let seed = sim.seed();
    sim.host(name, move |net| {
        let mut dice = Dice::of(seed, stream);
        let queue = dice.size(300, 3_000);
        let udp = Udp::bind("0.0.0.0:0").connect("server:53").queue_limit(queue);
        let socket = Some(net.bind_udp(udp, Asks)?);
        let answered = vec![false; QUESTIONS as usize];
        Ok(Asked { dice, answered, waits: false, socket })
    })
}

/// Sends as much as its queue takes, closes, and begins again at the same address.
struct Floods {
    dice: Dice,
    left: u32,
}

/// Its state is the number of sockets to come.
type Sockets = u32;

const OWN_PORT: u16 = 1_000;

impl Floods {
    fn start(mut self, net: &mut Net<Sockets>) -> Result<Token, Error> {
        let buffer = SocketOptions::new().send_buffer(self.dice.size(500, 5_000));
        let udp = Udp::bind(("0.0.0.0", OWN_PORT)).connect("server:9").socket_options(buffer);
        net.bind_udp(udp.queue_limit(self.dice.size(300, 5_000)), self)
    }
}

impl DatagramHandler<Sockets> for Floods {
    fn on_open(&mut self, cx: &mut Context<'_, Sockets>) -> HandlerResult {
        cx.set_timer(us(self.dice.between(0, 2_000)), 0);
        Ok(())
    }

    fn on_datagram(&mut self, _: &mut Context<'_, Sockets>, _: Datagram<'_>) -> HandlerResult {
        Err("nobody answers it".into())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Sockets>, _: Timer) -> HandlerResult {
        for _ in 0..self.dice.between(0, 20) {
            cx.send(vec![0; self.dice.size(0, 300)]);
        }
        if self.dice.percent(30) {
            cx.set_timer(us(self.dice.between(0, 2_000)), 0);
            return Ok(());
        }
        self.left -= 1;
        cx.close();
        *cx.state -= 1;
        if self.left > 0 {
            let next = Floods { dice: self.dice.split(), left: self.left };
            next.start(cx.net).expect("its address is free when close returns");
            *cx.state += 1;
        }
        Ok(())
    }
}

/// Takes everything, and says nothing.
struct Drain;

impl DatagramHandler for Drain {
    fn on_datagram(&mut self, _: &mut Context<'_>, _: Datagram<'_>) -> HandlerResult {
        Ok(())
    }
}

/// So many trains come, of so many datagrams at most.
const TRAINS: u32 = 8;
const CARS: u32 = 20;

/// Sends a number in each datagram of a train, many at once. The state is how many it has sent.
struct Trains {
    dice: Dice,
    left: u32,
}

impl DatagramHandler<u32> for Trains {
    fn on_open(&mut self, cx: &mut Context<'_, u32>) -> HandlerResult {
        cx.set_timer(ms(1), 0);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, u32>, _: Timer) -> HandlerResult {
        for _ in 0..self.dice.between(1, CARS.into()) {
            let status = cx.send(cx.state.to_be_bytes());
            assert_eq!(status, SendStatus::Queued, "a train fits in the queue");
            *cx.state += 1;
        }
        self.left -= 1;
        if self.left > 0 {
            let wait = self.dice.between(10, 100);
            cx.set_timer(ms(wait), 0);
        }
        Ok(())
    }

    fn on_datagram(&mut self, _: &mut Context<'_, u32>, _: Datagram<'_>) -> HandlerResult {
        Err("nobody answers it".into())
    }

    fn on_error(&mut self, _: &mut Context<'_, u32>, _: DatagramError) -> HandlerResult {
        Ok(())
    }
}

/// Notes the numbers that it hears.
struct Station;

impl DatagramHandler<Vec<bool>> for Station {
    fn on_datagram(
        &mut self,
        cx: &mut Context<'_, Vec<bool>>,
        datagram: Datagram<'_>,
    ) -> HandlerResult {
        let number = u32::from_be_bytes(datagram.bytes.try_into()?) as usize;
        cx.state[number] = true;
        Ok(())
    }
}

/// Trains between two hosts whose link loses nothing and whose buffers hold them.
fn trains(sim: &mut Sim) -> Result<(Host<u32>, Host<Vec<bool>>), Error> {
    let station = sim.host("station", |net| {
        net.bind_udp("0.0.0.0:7", Station)?;
        Ok(vec![false; (TRAINS * CARS) as usize])
    })?;
    let seed = sim.seed();
    let trains = sim.host("depot", move |net| {
        let trains = Trains { dice: Dice::of(seed, 4), left: TRAINS };
        net.bind_udp(Udp::bind("0.0.0.0:0").connect("station:7"), trains)?;
        Ok(0)
    })?;
    sim.link("depot", "station", Link::new().latency(us(50)..us(60)))?;
    Ok((trains, station))
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    rough(sim, &[Fault::Crashes])?;
    let mut dice = Dice::new(sim, 1);
    if dice.percent(70) {
        let rate = dice.between(20_000, 500_000);
        sim.default_link(Link::new().bytes_per_second(rate).loss(0.02))?;
    }
    sim.host("server", |net| {
        net.bind_udp("0.0.0.0:9", Drain)?;
        net.bind_udp("0.0.0.0:53", Answers { errors: 0, refused: 0 }).map(drop)
    })?;
    let clients = [client(sim, "ada", 2)?, client(sim, "bob", 3)?];
    let floods = Floods { left: dice.between(1, 5) as u32, dice: dice.split() };
    let flooding = sim.host("cleo", move |net| {
        let Floods { dice, left } = &floods;
        Floods { dice: dice.clone(), left: *left }.start(net)?;
        Ok(1)
    })?;
    let (trains, station) = trains(sim)?;
    sim.run_until(LIMIT, |sim| *sim.state(flooding) == 0)?;
    sim.run_until(LIMIT, |sim| clients.iter().all(|&host| sim.state(host).is_done()))?;
    sim.run_for(ms(100 * u64::from(TRAINS)) + Duration::from_secs(1))?;
    let sent = *sim.state(trains) as usize;
    let lost: Vec<_> = (0..sent).filter(|&number| !sim.state(station)[number]).collect();
    assert!(lost.is_empty(), "the link has lost nothing, and nobody heard {lost:?} of {sent}");
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
