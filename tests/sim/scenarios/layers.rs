//! A layer that is put on an open connection, as STARTTLS does it: what came in one piece with the
//! request for it is decoded, also if the layer comes later.

use std::time::Duration;

use tidegate::layer::Lines;
use tidegate::sim::{ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Connect, Context, Handler, HandlerResult, Input, Listen, Net, Notification, Timer,
};

use super::{Dice, LIMIT, impatient, is_over, rough, us};

/// How the layer is put on.
const NOW: u64 = 0;
const BY_TIMER: u64 = 1;
const BY_NOTIFICATION: u64 = 2;
const BY_CALL: u64 = 3;

/// Takes a first line by hand; the others come through the layer, and are answered.
struct Upgrades {
    how: u64,
    wait: Duration,
    asked: bool,
    layered: bool,
}

impl Upgrades {
    fn upgrade(&mut self, cx: &mut Context<'_>) {
        self.layered = true;
        assert!(cx.start_layer(Lines::new()));
    }
}

impl Handler for Upgrades {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        if self.layered {
            let line = input.take_all();
            assert!(!line.contains(&b'\n'), "a line, without its end");
            cx.send(line);
            return Ok(());
        }
        if self.asked || input.take_until(b'\n').is_none() {
            return Ok(());
        }
        self.asked = true;
        match self.how {
            NOW => self.upgrade(cx),
            BY_TIMER => drop(cx.set_timer(self.wait, 0)),
            BY_NOTIFICATION => assert!(cx.net.notify(cx.token, ())),
            _ => {
                let token = cx.token;
                cx.net.run_after(self.wait, move |(), net| {
                    // It may have ended.
                    net.notify(token, ());
                });
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: Timer) -> HandlerResult {
        self.upgrade(cx);
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Context<'_>, _: Notification) -> HandlerResult {
        self.upgrade(cx);
        Ok(())
    }
}

struct Clients {
    left: usize,
}

struct Says {
    dice: Dice,
    lines: Vec<String>,
    said: usize,
    heard: usize,
}

impl Says {
    /// Lines, cut somewhere.
    fn say(&mut self, cx: &mut Context<'_, Clients>) {
        let mut bytes = Vec::new();
        if self.said == 0 {
            bytes.extend(b"LINES, PLEASE\n");
        }
        while self.said < self.lines.len() {
            bytes.extend(self.lines[self.said].as_bytes());
            bytes.push(b'\n');
            self.said += 1;
            if self.dice.percent(30) {
                break;
            }
        }
        let cut = self.dice.size(0, bytes.len());
        let (first, second) = bytes.split_at(cut);
        cx.send(first);
        cx.send(second);
    }
}

impl Handler<Clients> for Says {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        self.say(cx);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        assert_eq!(input.take_all(), self.lines[self.heard].as_bytes());
        self.heard += 1;
        if self.heard == self.lines.len() {
            cx.half_close();
        } else if self.heard == self.said {
            self.say(cx);
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        assert!(closed.reason.is_orderly(), "{closed}");
        assert_eq!(self.heard, self.lines.len(), "{closed}");
    }
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    rough(sim, &[])?;
    let seed = sim.seed();
    sim.host("server", move |net| {
        let mut dice = Dice::of(seed, 1);
        let listen = Listen::tcp("0.0.0.0:9").options(impatient().idle_timeout(None));
        net.listen(listen, move |_| Upgrades {
            how: dice.between(NOW, BY_CALL),
            wait: us(dice.between(0, 20_000)),
            asked: false,
            layered: false,
        })
        .map(drop)
    })?;
    let client = sim.host("client", move |net: &mut Net<Clients>| {
        let mut dice = Dice::of(seed, 2);
        let left = dice.size(1, 5);
        for _ in 0..left {
            let count = dice.between(1, 10);
            let mut line = |number| "y".repeat(dice.size(0, 60)) + &format!(" {number}");
            let lines = (0..count).map(&mut line).collect();
            let says = Says { dice: dice.split(), lines, said: 0, heard: 0 };
            net.run_after(us(dice.between(0, 20_000)), |_, net| {
                // The client speaks lines by a layer as far as it hears them, and by hand where it says
                // them: what comes in one piece is what this is about.
                let options = impatient().idle_timeout(None);
                let connect = Connect::tcp("server:9").options(options);
                let _ = net.connect(connect, ByHand { says, kept: Vec::new() });
            });
        }
        Ok(Clients { left })
    })?;
    sim.run_until(LIMIT, |sim| sim.state(client).left == 0)?;
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}

/// Cuts the answers into lines.
struct ByHand {
    says: Says,
    kept: Vec<u8>,
}

impl Handler<Clients> for ByHand {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        self.says.on_open(cx)
    }

    fn on_data(&mut self, cx: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        self.kept.extend(input.take_all());
        while let Some(end) = self.kept.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.kept.drain(..=end).collect();
            self.says.on_data(cx, &mut Input::new(&line[..end]))?;
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        self.says.on_close(cx, closed);
    }
}
