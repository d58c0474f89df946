//! A layer that is put on an open connection, as STARTTLS does it: what came in one piece with the
//! request for it is decoded, also if the layer comes later. One that is put beneath another layer:
//! nothing that was said in clear is taken for what came through it. And lines of peers that break off:
//! a part of one is never taken for the whole.

use std::time::Duration;

use tidegate::layer::{LengthPrefixed, Lines};
use tidegate::sim::{ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Connect, Context, Handler, HandlerResult, Input, Listen, Net, Notification,
    SocketOptions, Timer,
};

#[allow(unreachable_pub)] // the tests in tests/all use the same file
#[path = "../../support/through.rs"]
mod through;
use through::Through;

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

// ---- a layer beneath another one ----

/// Frames are shorter than the number of any letter, so that clear text is none.
fn secured() -> LengthPrefixed {
    LengthPrefixed::new(1).frame_limit(60)
}

/// Hears lines in clear until one of them asks for the layer beneath; from then on only what came
/// through that one.
struct Secures {
    how: u64,
    wait: Duration,
    /// Its own layer is a stream format, and it cuts the lines itself.
    cuts: bool,
    asked: bool,
    secured: bool,
}

impl Secures {
    fn hears(&mut self, cx: &mut Context<'_>, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        if self.secured {
            assert!(line.starts_with(b"secret"), "{text:?} came in clear, and as if it had not");
        } else if line == b"SECURE" {
            self.asked = true;
            match self.how {
                NOW => self.secure(cx),
                _ => {
                    cx.pause();
                    cx.set_timer(self.wait, 0);
                }
            }
            return;
        }
        self.says(cx, line);
    }

    fn says(&self, cx: &mut Context<'_>, line: &[u8]) {
        let end: &[u8] = if self.cuts { b"\n" } else { b"" };
        cx.send([line, end].concat());
    }

    fn secure(&mut self, cx: &mut Context<'_>) {
        self.says(cx, b"GO");
        // Refused if something has come in clear behind the request.
        self.secured = cx.start_layer(secured());
        cx.resume();
    }
}

impl Handler for Secures {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        if !self.cuts {
            self.hears(cx, input.take_all());
            return Ok(());
        }
        while self.asked == self.secured {
            let was_secured = self.secured;
            let Some(line) = input.take_until(b'\n') else { break };
            self.hears(cx, line);
            if self.secured != was_secured {
                break; // what is left is not this one's
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, _: Timer) -> HandlerResult {
        self.secure(cx);
        Ok(())
    }
}

/// Asks for the layer beneath, by hand. An honest one goes on when it may; the others slip something in
/// behind the request.
struct Pleads {
    dice: Dice,
    honest: bool,
    greetings: usize,
    secrets: usize,
    said: usize,
    heard: Vec<u8>,
    /// The lines that came through the layer.
    inside: Vec<u8>,
    went: bool,
}

impl Pleads {
    fn greeting(&self) -> Vec<u8> {
        b"good day\n".repeat(self.greetings)
    }

    fn secrets(&self, count: usize) -> Vec<u8> {
        (0..count).flat_map(|number| format!("secret {number}\n").into_bytes()).collect()
    }

    fn say_secret(&mut self, cx: &mut Context<'_, Clients>) {
        if self.said == self.secrets {
            return cx.half_close();
        }
        let secret = format!("secret {}\n", self.said).into_bytes();
        self.said += 1;
        let cut = self.dice.size(0, secret.len());
        for part in [&secret[..cut], &secret[cut..]] {
            cx.send([&[part.len() as u8], part].concat());
        }
    }
}

impl Handler<Clients> for Pleads {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        let mut bytes = [&self.greeting()[..], b"SECURE\n"].concat();
        if !self.honest {
            for _ in 0..self.dice.between(1, 5) {
                bytes.extend(b"in clear\n");
            }
            bytes.truncate(bytes.len() - self.dice.size(0, 5));
        }
        cx.send(bytes);
        if !self.honest {
            cx.half_close();
        }
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        self.heard.extend(input.take_all());
        if !self.honest {
            return Ok(());
        }
        if !self.went {
            let expected = [&self.greeting()[..], b"GO\n"].concat();
            assert!(
                expected.starts_with(&self.heard),
                "{:?}",
                String::from_utf8_lossy(&self.heard)
            );
            if self.heard.len() == expected.len() {
                self.went = true;
                self.heard.clear();
                self.say_secret(cx);
            }
            return Ok(());
        }
        while let Some(&len) = self.heard.first().filter(|&&len| self.heard.len() > len.into()) {
            self.inside.extend(self.heard.drain(..=usize::from(len)).skip(1));
            let said = self.secrets(self.said);
            assert!(said.starts_with(&self.inside), "{:?}", String::from_utf8_lossy(&self.inside));
            if self.inside == said {
                self.say_secret(cx);
            }
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        if self.honest {
            assert!(closed.reason.is_orderly(), "{closed}");
            assert!(self.went && self.inside == self.secrets(self.secrets), "{closed}");
        }
    }
}

// ---- peers that break off ----

/// A report: its number, what it says, and how long it is, so that a part of one is known.
fn report(number: usize, len: usize) -> Vec<u8> {
    let text = format!("{number} {}", "r".repeat(len));
    format!("{text} {}", text.len()).into_bytes()
}

/// Hears reports, and says more than its peers take meanwhile.
struct Hears {
    news: usize,
    next: usize,
}

impl Handler for Hears {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        for number in 0..self.news {
            cx.send(report(number, 100));
        }
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let line = String::from_utf8_lossy(input.take_all()).into_owned();
        let whole = line.rsplit_once(' ').is_some_and(|(text, len)| {
            text.starts_with(&format!("{} ", self.next)) && len.parse() == Ok(text.len())
        });
        assert!(whole, "{line:?} is no whole report, and was taken for one");
        self.next += 1;
        Ok(())
    }
}

/// Sends reports, in pieces, and reads nothing until it has sent them all. Some break off before.
struct Reports {
    dice: Dice,
    bytes: Vec<u8>,
    sent: usize,
    breaks_off: Option<usize>,
}

impl Handler<Clients> for Reports {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        cx.pause();
        cx.set_timer(us(self.dice.between(0, 3_000)), 0);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Clients>, _: Timer) -> HandlerResult {
        if self.breaks_off.is_some_and(|at| self.sent >= at) {
            cx.abort();
            return Ok(());
        }
        if self.sent == self.bytes.len() {
            cx.resume();
            cx.half_close();
            return Ok(());
        }
        let len = self.dice.size(1, 60).min(self.bytes.len() - self.sent);
        cx.send(&self.bytes[self.sent..self.sent + len]);
        self.sent += len;
        cx.set_timer(us(self.dice.between(0, 3_000)), 0);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        assert!(self.breaks_off.is_some() || closed.reason.is_orderly(), "{closed}");
    }
}

/// The others than those that ask for lines. Returns how many there are.
fn start_others(net: &mut Net<Clients>, mut dice: Dice) -> usize {
    let options = impatient().idle_timeout(None).stall_timeout(LIMIT);
    let (pleading, reporting) = (dice.size(0, 3), dice.size(0, 3));
    for _ in 0..pleading {
        let port = 10 + dice.between(0, 1) as u16;
        let pleads = Pleads {
            honest: dice.percent(50),
            greetings: dice.size(0, 2),
            secrets: dice.size(1, 4),
            dice: dice.split(),
            said: 0,
            heard: Vec::new(),
            inside: Vec::new(),
            went: false,
        };
        let options = options.clone();
        net.run_after(us(dice.between(0, 20_000)), move |_, net| {
            // Refused while the reactor is being dropped.
            let _ = net.connect(Connect::tcp(("server", port)).options(options), pleads);
        });
    }
    for _ in 0..reporting {
        let mut bytes = Vec::new();
        for number in 0..dice.size(1, 10) {
            bytes.extend(report(number, dice.size(0, 60)));
            bytes.push(b'\n');
        }
        let breaks_off = dice.percent(70).then(|| dice.size(1, bytes.len()));
        let reports = Reports { dice: dice.split(), bytes, sent: 0, breaks_off };
        let socket = SocketOptions::new().receive_buffer(2_000);
        let options = options.clone().socket_options(socket);
        net.run_after(us(dice.between(0, 20_000)), move |_, net| {
            let _ = net.connect(Connect::tcp("server:12").options(options), reports);
        });
    }
    pleading + reporting
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    rough(sim, &[])?;
    let seed = sim.seed();
    sim.host("server", move |net| {
        let mut dice = Dice::of(seed, 1);
        let options = impatient().idle_timeout(None);
        let mut own = dice.split();
        let mut secures = move |cuts| Secures {
            how: own.between(NOW, BY_TIMER),
            wait: us(own.between(0, 20_000)),
            cuts,
            asked: false,
            secured: false,
        };
        let lines = Listen::tcp("0.0.0.0:10").options(options.clone()).layer(|_| Lines::new());
        let mut of_lines = secures.clone();
        net.listen(lines, move |_| of_lines(false))?;
        let stream = Listen::tcp("0.0.0.0:11").options(options.clone()).layer(|_| Through);
        net.listen(stream, move |_| secures(true))?;
        let socket = SocketOptions::new().send_buffer(2_000);
        let reports = options.clone().stall_timeout(LIMIT).auto_pause(false).socket_options(socket);
        let reports = Listen::tcp("0.0.0.0:12").options(reports).layer(|_| Lines::new());
        let news = dice.size(0, 100);
        net.listen(reports, move |_| Hears { news, next: 0 })?;
        let listen = Listen::tcp("0.0.0.0:9").options(options);
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
        let others = start_others(net, dice.split());
        Ok(Clients { left: left + others })
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
