//! A server that greets and ends, in each of the ways there are, while its clients stand still: what was
//! sent before the end is heard, also if all of it came before the client looked.

use std::time::Duration;

use tidegate::sim::{Fault, ScenarioResult, Sim};
use tidegate::{
    CloseInfo, CloseReason, Connect, Context, Handler, HandlerResult, Input, Listen, Net, Timer,
};

use super::{Dice, LIMIT, impatient, is_over, ms, pattern, rough, us};

const BANNER: usize = 60;

/// By then the greeting has arrived.
const ARRIVED: Duration = Duration::from_millis(100);

/// Greets, waits, and ends.
struct Greets {
    dice: Dice,
    failed: bool,
}

const CLOSE: u64 = 0;
const FAIL: u64 = 1;
const HALF: u64 = 2;
/// The others abort.
const WAYS: u64 = 6;

impl Handler for Greets {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.send(pattern(7, 0, BANNER));
        cx.set_timer(ARRIVED, self.dice.between(0, WAYS));
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) -> HandlerResult {
        match timer.tag() {
            CLOSE => cx.close(),
            HALF => cx.half_close(),
            FAIL => {
                self.failed = true;
                return Err("no more".into());
            }
            _ => cx.abort(),
        }
        Ok(())
    }

    fn on_close(&mut self, _: &mut Context<'_>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        let by_handler = matches!(closed.reason, CloseReason::Handler(_));
        assert_eq!(by_handler, self.failed, "{closed}");
    }
}

struct Clients {
    left: usize,
}

struct Hears {
    heard: Vec<u8>,
    speaks: bool,
}

impl Handler<Clients> for Hears {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        if self.speaks {
            cx.send("good day");
        }
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        self.heard.extend(input.take_all());
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        assert_eq!(self.heard, pattern(7, 0, BANNER), "the greeting, before: {closed}");
    }
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    // With a small buffer the system does not hold the greeting of a client that stands still.
    rough(sim, &[Fault::SmallBuffers])?;
    let seed = sim.seed();
    sim.host("server", move |net| {
        let mut dice = Dice::of(seed, 1);
        let listen = Listen::tcp("0.0.0.0:25").options(impatient());
        net.listen(listen, move |_| Greets { dice: dice.split(), failed: false }).map(drop)
    })?;
    let client = sim.host("client", move |net: &mut Net<Clients>| {
        let mut dice = Dice::of(seed, 2);
        let left = dice.size(2, 12);
        for _ in 0..left {
            let speaks = dice.percent(30);
            let early = dice.percent(10);
            net.run_after(us(dice.between(0, 400_000)), move |_, net| {
                let handler = Hears { heard: Vec::new(), speaks };
                let connect = Connect::tcp("server:25").options(impatient());
                // Refused while the reactor is being dropped.
                if let (Ok(token), true) = (net.connect(connect, handler), early) {
                    net.send(token, "good day");
                }
            });
        }
        Ok(Clients { left })
    })?;
    let mut dice = Dice::new(sim, 3);
    for _ in 0..6 {
        let at = us(dice.between(0, 500_000));
        let time = ms(dice.between(1, 250));
        sim.at(at, move |sim| sim.pause("client", time).expect("it exists"));
    }
    sim.run_until(LIMIT, |sim| sim.state(client).left == 0)?;
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
