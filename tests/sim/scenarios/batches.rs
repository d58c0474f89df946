//! Bursts, and what is done once for each: a source sends numbers in bursts, a server adds up what a batch
//! has brought and tells it to a group. In a rough network each number is told once, no batch is empty,
//! none is told while more of it waits (which every run checks), and each ends before its connection.

use std::time::Duration;

use tidegate::layer::LengthPrefixed;
use tidegate::sim::{ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Connect, Context, Group, Handler, HandlerResult, Input, Listen, Net, Timer,
};

use super::{Dice, LIMIT, is_over, patient, rough, us};

/// How many numbers each source sends.
const NUMBERS: u32 = 400;

struct Server {
    group: Group,
    /// The numbers of sources, and those of them that were told to the group.
    heard: u32,
    told: u32,
    ended: u32,
}

/// Adds up numbers; what is not told yet.
struct Adds {
    dice: Dice,
    left: u32,
    next: u32,
    bytewise: bool,
}

impl Adds {
    fn number(&mut self, cx: &mut Context<'_, Server>, bytes: &[u8]) {
        let number = u32::from_be_bytes(bytes.try_into().expect("four bytes"));
        assert_eq!(number, self.next, "numbers come in their order");
        self.next += 1;
        self.left += 1;
        cx.state.heard += 1;
    }

    fn tell(&mut self, cx: &mut Context<'_, Server>) {
        let told = std::mem::take(&mut self.left);
        assert!(told > 0, "a batch without anything in it");
        cx.state.told += told;
        cx.net.publish(cx.state.group, told.to_be_bytes());
    }
}

impl Handler<Server> for Adds {
    fn on_data(&mut self, cx: &mut Context<'_, Server>, input: &mut Input<'_>) -> HandlerResult {
        let before = self.left;
        if self.bytewise {
            while let Some(number) = input.take(4) {
                self.number(cx, number);
                if self.dice.percent(10) {
                    break; // the rest is offered again
                }
            }
        } else {
            let number = input.take_all().to_vec();
            self.number(cx, &number);
        }
        if self.left > before {
            assert!(cx.request_batch_end());
        }
        if self.dice.percent(2) {
            cx.pause();
            let wait = us(self.dice.between(0, 5_000));
            cx.set_timer(wait, 0);
        }
        Ok(())
    }

    fn on_batch_end(&mut self, cx: &mut Context<'_, Server>) -> HandlerResult {
        self.tell(cx);
        if self.dice.percent(10) {
            assert!(cx.request_batch_end(), "of the batch that ends");
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Server>, _: Timer) -> HandlerResult {
        cx.resume();
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Server>) -> HandlerResult {
        assert_eq!(self.left, 0, "the last batch has not ended before its connection");
        cx.close();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Server>, closed: &CloseInfo) {
        if !is_over(closed) {
            assert!(closed.reason.is_orderly(), "{closed}");
            assert_eq!(self.next, NUMBERS);
            cx.state.ended += 1;
        }
    }
}

/// Is told sums.
struct Hears;

impl Handler<u32> for Hears {
    fn on_data(&mut self, cx: &mut Context<'_, u32>, input: &mut Input<'_>) -> HandlerResult {
        while let Some(sum) = input.take(4) {
            *cx.state += u32::from_be_bytes(sum.try_into()?);
        }
        Ok(())
    }
}

struct Joins;

impl Handler<Server> for Joins {
    fn on_open(&mut self, cx: &mut Context<'_, Server>) -> HandlerResult {
        cx.join(cx.state.group);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Server>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }
}

/// Sends numbers in bursts.
struct Source {
    dice: Dice,
    sent: u32,
}

impl Source {
    fn burst(&mut self, cx: &mut Context<'_>) {
        let burst = self.dice.between(1, 150) as u32;
        let until = NUMBERS.min(self.sent + burst);
        for number in self.sent..until {
            cx.send(number.to_be_bytes());
        }
        self.sent = until;
        if self.sent < NUMBERS {
            let wait = us(self.dice.between(0, 40_000));
            cx.set_timer(wait, 0);
        } else {
            cx.half_close();
        }
    }
}

impl Handler for Source {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.burst(cx);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: Timer) -> HandlerResult {
        self.burst(cx);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }
}

/// Port 7 frames the numbers, port 8 leaves that to the handler, port 9 is the group.
fn serve(net: &mut Net<Server>, mut dice: Dice) -> Result<Server, tidegate::Error> {
    for (port, bytewise) in [(7, false), (8, true)] {
        let mut of_handlers = dice.split();
        let listen = Listen::tcp(("0.0.0.0", port)).options(patient());
        let make = move |_: &tidegate::Peer<'_>| Adds {
            dice: of_handlers.split(),
            left: 0,
            next: 0,
            bytewise,
        };
        if bytewise {
            net.listen(listen, make)?;
        } else {
            net.listen(listen.layer(|_| LengthPrefixed::new(2)), make)?;
        }
    }
    net.listen("0.0.0.0:9", |_| Joins)?;
    let group = net.create_group();
    Ok(Server { group, heard: 0, told: 0, ended: 0 })
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    rough(sim, &[])?;
    let mut dice = Dice::new(sim, 1);
    let of_server = dice.split();
    let server = sim.host("server", move |net| serve(net, of_server.clone()))?;
    let hears = sim.host("hears", |net| {
        net.connect(Connect::tcp("server:9").options(patient()), Hears)?;
        Ok(0)
    })?;
    sim.run_for(Duration::from_secs(1))?; // it is a member, whatever is lost
    let sources = 1 + dice.between(0, 3) as u32;
    for number in 0..sources {
        let of_source = dice.split();
        sim.host(&format!("source-{number}"), move |net| {
            let source = Source { dice: of_source.clone(), sent: 0 };
            let (to, framed) =
                if number % 2 == 0 { ("server:7", true) } else { ("server:8", false) };
            let to = Connect::tcp(to).options(patient());
            let to = if framed { to.layer(LengthPrefixed::new(2)) } else { to };
            net.connect(to, source).map(drop)
        })?;
    }
    let all = sources * NUMBERS;
    sim.run_until(LIMIT, |sim| sim.state(server).ended == sources && *sim.state(hears) == all)?;
    let Server { heard, told, .. } = *sim.state(server);
    assert_eq!((heard, told), (all, all));
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
