//! Datagrams through small queues over slow links, some of which the receiver's handler refuses: the
//! socket lives, and whoever was told that a queue is full is told when it is empty.

use std::time::Duration;

use tidegate::sim::{Fault, Host, Link, ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Context, Datagram, DatagramError, DatagramHandler, Error, HandlerResult, Net,
    SendStatus, Timer, Token, Udp,
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

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    rough(sim, &[Fault::Crashes])?;
    let mut dice = Dice::new(sim, 1);
    if dice.percent(70) {
        let rate = dice.between(20_000, 500_000);
        sim.default_link(Link::new().bytes_per_second(rate).loss(0.02))?;
    }
    sim.host("server", |net| {
        net.bind_udp("0.0.0.0:53", Answers { errors: 0, refused: 0 }).map(drop)
    })?;
    let clients = [client(sim, "ada", 2)?, client(sim, "bob", 3)?];
    sim.run_until(LIMIT, |sim| clients.iter().all(|&host| sim.state(host).is_done()))?;
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
