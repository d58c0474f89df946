//! Deadlines and timers of connections whose peers do what they should, on hosts that stand still now
//! and then: nobody is found idle who is not, no timer fires that input which came in time would have
//! moved, and timers fire in their order.

use std::time::Duration;

use tidegate::sim::{Fault, ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Config, Connect, Context, Handler, HandlerResult, Input, Listen, Net, Timer,
};

use super::{Dice, LIMIT, impatient, is_over, ms, rough, us};

/// What a byte of a client asks for.
const PAUSE: u8 = 1;

/// Moves its timer with each byte, and pauses when it is asked to.
struct Watches {
    limit: Duration,
    /// Its watchdog is not rounded up to milliseconds.
    fine: bool,
    pauses: bool,
    watchdog: Option<Timer>,
}

const WATCHDOG: u64 = 1;
const PAUSE_OVER: u64 = 2;

impl Watches {
    fn watch(&mut self, cx: &mut Context<'_>) {
        self.watchdog = Some(match self.fine {
            true => cx.set_fine_timer(self.limit, WATCHDOG),
            false => cx.set_timer(self.limit, WATCHDOG),
        });
    }
}

impl Handler for Watches {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.watch(cx);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let pauses = input.take_all().contains(&PAUSE);
        if pauses && !self.pauses {
            self.pauses = true;
            cx.cancel_timer(self.watchdog.take().expect("it is set again after each pause"));
            cx.pause();
            cx.set_timer(3 * self.limit, PAUSE_OVER);
        } else if let Some(watchdog) = self.watchdog {
            assert!(cx.rearm_timer(watchdog, self.limit), "the timer is pending");
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, timer: Timer) -> HandlerResult {
        assert_eq!(timer.tag(), PAUSE_OVER, "input that came in time waits, and the timer fired");
        self.pauses = false;
        self.watch(cx);
        cx.resume();
        Ok(())
    }

    fn on_close(&mut self, _: &mut Context<'_>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        assert!(closed.reason.is_orderly(), "its peer spoke all the time: {closed}");
    }
}

struct Clients {
    left: usize,
}

/// Sends a byte in each of its intervals.
struct Speaks {
    dice: Dice,
    interval: u64,
    /// Its timers are not rounded up to milliseconds.
    fine: bool,
    left: u32,
    last_early: u64,
}

impl Speaks {
    fn set(&self, cx: &mut Context<'_, Clients>) {
        match self.fine {
            true => cx.set_fine_timer(us(self.interval), NEXT),
            false => cx.set_timer(us(self.interval), NEXT),
        };
    }
}

const NEXT: u64 = 0;

impl Handler<Clients> for Speaks {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        self.set(cx);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Clients>, timer: Timer) -> HandlerResult {
        if timer.tag() != NEXT {
            // Those that were set before it was open, each one for later than the one before.
            assert!(timer.tag() > self.last_early, "{} after {}", timer.tag(), self.last_early);
            self.last_early = timer.tag();
            return Ok(());
        }
        if self.left == 0 {
            cx.half_close();
            return Ok(());
        }
        self.left -= 1;
        cx.send([u8::from(self.dice.percent(3))]);
        self.set(cx);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Clients>, _: &mut Input<'_>) -> HandlerResult {
        Err("nobody answers here".into())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        assert!(closed.reason.is_orderly(), "{closed}");
    }
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    // In a buffer of a few bytes the bytes of a while do not fit, while their receiver stands still. And
    // timers wait for as many turns as it takes to hear of every socket: that is known of systems that
    // report each one once and by turns. A budget of timers may cut those of one connection in two.
    rough(sim, &[Fault::SmallBuffers, Fault::ReadyOrder, Fault::PollLike, Fault::Configs])?;
    let mut dice = Dice::new(sim, 1);
    let limit = ms(dice.between(100, 400));
    // Bytes, and what the network adds, are far below it.
    let interval = limit.as_micros() as u64 / 4;
    let events = if dice.percent(50) { 1_024 } else { dice.size(1, 4) };
    let config = Config::new().read_buffer(1024).events_per_turn(events);
    let options = impatient().idle_timeout(limit);
    let own = dice.split();
    sim.host_with("server", config, move |net| {
        let listen = Listen::tcp("0.0.0.0:9").options(options.clone());
        let mut own = own.clone();
        net.listen(listen, move |_| {
            let fine = own.percent(50);
            Watches { limit, fine, pauses: false, watchdog: None }
        })?;
        Ok(())
    })?;
    let seed = sim.seed();
    let client = sim.host("client", move |net: &mut Net<Clients>| {
        let mut dice = Dice::of(seed, 2);
        let left = dice.size(1, 9);
        for _ in 0..left {
            let mut own = dice.split();
            net.run_after(us(dice.between(0, 100_000)), move |_, net| {
                let early = own.between(0, 4);
                let mut waits: Vec<u64> = (0..early).map(|_| own.between(0, 4_000)).collect();
                waits.sort_unstable();
                let fine = own.percent(50);
                let left = own.between(5, 30) as u32;
                let speaks = Speaks { left, dice: own, interval, fine, last_early: 0 };
                // Deadlines of the client's own are not what this is about.
                let options = impatient().idle_timeout(None).stall_timeout(LIMIT);
                let connect = Connect::tcp("server:9").options(options);
                let Ok(token) = net.connect(connect, speaks) else { return };
                for (number, wait) in waits.into_iter().enumerate() {
                    let tag = 1 + number as u64;
                    match fine {
                        true => net.set_fine_timer(token, us(wait), tag),
                        false => net.set_timer(token, us(wait), tag),
                    };
                }
            });
        }
        Ok(Clients { left })
    })?;
    for _ in 0..dice.between(0, 6) {
        let at = us(dice.between(0, 1_500_000));
        let time = us(dice.between(0, 3 * limit.as_micros() as u64));
        sim.at(at, move |sim| sim.pause("server", time).expect("it exists"));
    }
    sim.run_until(LIMIT, |sim| sim.state(client).left == 0)?;
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
