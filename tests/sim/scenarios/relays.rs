//! Relays that begin behind a pause, a full queue or input that nobody took, and relays that are taken
//! apart and put together anew: everything passes, and every end is told. Pairs whose handlers pass
//! everything on themselves, one frame a call, do as well.

use std::time::Duration;

use tidegate::sim::{ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Connect, Context, Handler, HandlerResult, Input, Listen, Net, Relayed, Timer, Token,
};

use super::{Dice, LIMIT, byte_at, impatient, is_over, ms, pattern, rough, us};

// ---- a proxy ----

#[derive(Default)]
struct Proxy {
    swapped: Vec<Token>,
}

/// Says something of its own, waits, and relays.
struct Front {
    dice: Dice,
    back: Option<Token>,
}

/// How much a front says of its own.
const PROLOGUE: usize = 2_500;
const HIGH: usize = 600;
const LIMIT_OF_QUEUES: usize = 3_000;

impl Handler<Proxy> for Front {
    fn on_open(&mut self, cx: &mut Context<'_, Proxy>) -> HandlerResult {
        cx.send(pattern(1, 0, PROLOGUE));
        let options = impatient()
            .idle_timeout(None)
            .stall_timeout(LIMIT)
            .high_water(HIGH)
            .output_limit(LIMIT_OF_QUEUES);
        let back = cx.net.connect(Connect::tcp("server:7").options(options), Relayed)?;
        self.back = Some(back);
        if self.dice.percent(20) {
            cx.net.pause(back);
        }
        if self.dice.percent(20) {
            cx.pair(back);
        }
        let at_once = self.dice.percent(40);
        if !at_once || self.dice.percent(30) {
            // Nothing is left over for an end that comes before the relay.
            cx.pause();
        }
        if at_once {
            return self.relay(cx);
        }
        cx.set_timer(us(self.dice.between(0, 20_000)), 0);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Proxy>, _: &mut Input<'_>) -> HandlerResult {
        Ok(()) // it is for the relay
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Proxy>, _: Timer) -> HandlerResult {
        self.relay(cx)
    }

    fn on_eof(&mut self, _: &mut Context<'_, Proxy>) -> HandlerResult {
        Ok(()) // the same
    }

    fn on_close(&mut self, _: &mut Context<'_, Proxy>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        assert!(closed.reason.is_orderly(), "{closed}");
        assert_eq!(closed.unsent, 0, "{closed}");
    }
}

impl Front {
    fn relay(&mut self, cx: &mut Context<'_, Proxy>) -> HandlerResult {
        let Some(back) = self.back else { return Ok(()) };
        let token = cx.token;
        let (one, other) = if self.dice.percent(50) { (token, back) } else { (back, token) };
        assert!(cx.net.relay(one, other));
        Ok(())
    }
}

// ---- the server: greets, and puts back what comes ----

struct Echo;

const GREETING: usize = 4_000;

impl Handler for Echo {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.send(pattern(2, 0, GREETING));
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(input.take_all());
        Ok(())
    }
}

// ---- the clients ----

struct Clients {
    left: usize,
}

struct Talks {
    dice: Dice,
    bytes: usize,
    sent: usize,
    heard: usize,
    ended: bool,
}

const NEXT: u64 = 0;
const PAUSE_OVER: u64 = 1;

impl Handler<Clients> for Talks {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        cx.set_timer(us(self.dice.between(0, 5_000)), NEXT);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Clients>, timer: Timer) -> HandlerResult {
        if timer.tag() == PAUSE_OVER {
            cx.resume();
            return Ok(());
        }
        let len = self.dice.size(0, 900).min(self.bytes - self.sent);
        assert!(cx.send(pattern(3, self.sent, len)).is_accepted());
        self.sent += len;
        if self.sent == self.bytes {
            cx.half_close();
        } else {
            cx.set_timer(us(self.dice.between(0, 5_000)), NEXT);
        }
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        for &byte in input.take_all() {
            let (stream, at) = match self.heard {
                at @ 0..PROLOGUE => (1, at),
                at if at < PROLOGUE + GREETING => (2, at - PROLOGUE),
                at => (3, at - PROLOGUE - GREETING),
            };
            assert_eq!(byte, byte_at(stream, at), "byte {at} of stream {stream}");
            self.heard += 1;
        }
        if self.dice.percent(5) {
            cx.pause();
            cx.set_timer(us(self.dice.between(0, 60_000)), PAUSE_OVER);
        }
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        self.ended = true;
        cx.close_when_done();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        assert!(self.ended && closed.reason.is_orderly(), "{closed}");
        assert_eq!(self.heard, PROLOGUE + GREETING + self.bytes, "{closed}");
    }
}

// ---- relays that change ----

/// One of several connections that are relayed to each other by turns. It says and takes nothing itself.
struct Swapped;

impl Handler<Proxy> for Swapped {
    fn on_open(&mut self, cx: &mut Context<'_, Proxy>) -> HandlerResult {
        cx.state.swapped.push(cx.token);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Proxy>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Proxy>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.swapped.retain(|&token| token != cx.token);
        assert!(closed.reason.is_orderly(), "{closed}");
    }
}

fn swap(state: &mut Proxy, net: &mut Net<Proxy>, mut dice: Dice, left: u32) {
    let count = state.swapped.len();
    if count >= 2 {
        let one = state.swapped[dice.size(0, count - 1)];
        let other = state.swapped[dice.size(0, count - 1)];
        match dice.between(0, 9) {
            0 => drop(net.pair(one, other)),
            1 => net.pause(one),
            2 => net.resume(one),
            _ => drop(net.relay(one, other)),
        }
    }
    if left > 0 {
        net.run_after(us(dice.between(0, 8_000)), move |state, net| {
            swap(state, net, dice, left - 1);
        });
        return;
    }
    // The end: everybody for himself. Who has heard its peer's end closes, and the peers have all
    // ended or will.
    for &token in &state.swapped.clone() {
        let Ok(alone) = net.connect("server:8", Relayed) else { continue };
        net.pair(token, alone);
        net.close(alone);
        net.resume(token);
    }
}

/// A peer of one of them: says something, ends, and waits for the other end.
struct Ends {
    dice: Dice,
    left: u32,
}

impl Handler<Clients> for Ends {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        cx.set_timer(ms(1), NEXT);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Clients>, _: Timer) -> HandlerResult {
        if self.left == 0 {
            cx.half_close();
            return Ok(());
        }
        self.left -= 1;
        cx.send(vec![0; self.dice.size(1, 500)]);
        cx.set_timer(us(self.dice.between(0, 10_000)), NEXT);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }

    fn on_eof(&mut self, _: &mut Context<'_, Clients>) -> HandlerResult {
        Ok(()) // it closes once it has ended, too
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        assert!(closed.reason.is_orderly(), "{closed}");
    }
}

// ---- a pair whose handlers pass frames on ----

/// The bytes of a frame.
const FRAME: usize = 4;

/// Takes one frame a call and sends it to the other connection.
struct Passes {
    other: Option<Token>,
}

impl Handler<Proxy> for Passes {
    fn on_open(&mut self, cx: &mut Context<'_, Proxy>) -> HandlerResult {
        if self.other.is_some() {
            return Ok(()); // it is the one that was connected
        }
        let options = impatient().idle_timeout(None).stall_timeout(LIMIT).high_water(HIGH);
        let back = Passes { other: Some(cx.token) };
        let back = cx.net.connect(Connect::tcp("server:9").options(options), back)?;
        self.other = Some(back);
        assert!(cx.pair(back));
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Proxy>, input: &mut Input<'_>) -> HandlerResult {
        if let (Some(other), Some(frame)) = (self.other, input.take(FRAME)) {
            assert!(cx.net.send(other, frame).is_accepted());
        }
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Proxy>) -> HandlerResult {
        if let Some(other) = self.other {
            cx.net.half_close(other);
        }
        Ok(())
    }

    fn on_close(&mut self, _: &mut Context<'_, Proxy>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        assert!(closed.reason.is_orderly(), "{closed}");
        assert_eq!(closed.unsent, 0, "{closed}");
    }
}

/// Puts back what comes, and greets nobody.
struct Mirror;

impl Handler for Mirror {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(input.take_all());
        Ok(())
    }
}

/// Sends frames, in bursts, and hears them again.
struct Frames {
    dice: Dice,
    bytes: usize,
    sent: usize,
    heard: usize,
}

impl Frames {
    fn burst(&mut self, cx: &mut Context<'_, Clients>) {
        let left = (self.bytes - self.sent) / FRAME;
        let len = self.dice.size(1, 60).min(left) * FRAME;
        assert!(cx.send(pattern(4, self.sent, len)).is_accepted());
        self.sent += len;
        if self.sent == self.bytes {
            cx.half_close();
        } else {
            cx.set_timer(us(self.dice.between(0, 6_000)), NEXT);
        }
    }
}

impl Handler<Clients> for Frames {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        self.burst(cx);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Clients>, _: Timer) -> HandlerResult {
        self.burst(cx);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        let bytes = input.take_all();
        assert_eq!(bytes, pattern(4, self.heard, bytes.len()), "behind byte {}", self.heard);
        self.heard += bytes.len();
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        assert_eq!(self.sent, self.bytes, "the end, before its own");
        cx.close_when_done();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        assert!(closed.reason.is_orderly(), "{closed}");
        assert_eq!(self.heard, self.bytes, "{closed}");
    }
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    rough(sim, &[])?;
    let seed = sim.seed();
    let options = impatient().idle_timeout(None).stall_timeout(LIMIT).high_water(1_000);
    let echo = options.clone();
    sim.host("server", move |net| {
        net.listen(Listen::tcp("0.0.0.0:9").options(echo.clone()), |_| Mirror)?;
        net.listen(Listen::tcp("0.0.0.0:7").options(echo.clone()), |_| Echo).map(drop)
    })?;
    let fronts = options.clone().high_water(HIGH).output_limit(LIMIT_OF_QUEUES);
    let swapped = options.clone();
    let proxy = sim.host("proxy", move |net| {
        let mut dice = Dice::of(seed, 1);
        let listen = Listen::tcp("0.0.0.0:1").options(fronts.clone());
        let mut own = dice.split();
        net.listen(listen, move |_| Front { dice: own.split(), back: None })?;
        net.listen(Listen::tcp("0.0.0.0:2").options(swapped.clone()), |_| Swapped)?;
        let passes = Listen::tcp("0.0.0.0:3").options(swapped.clone());
        net.listen(passes, |_| Passes { other: None })?;
        let steps = dice.between(1, 25) as u32;
        net.run_after(ms(4), move |state, net| swap(state, net, dice, steps));
        Ok(Proxy::default())
    })?;
    let client = sim.host("client", move |net: &mut Net<Clients>| {
        let mut dice = Dice::of(seed, 2);
        let talks = dice.size(0, 2);
        let ends = dice.size(0, 5);
        let frames = dice.size(0, 2);
        // Who reads only while its own queue is short may wait for a peer that does the same.
        let options = options.clone().auto_pause(false);
        for _ in 0..talks {
            let dice = dice.split();
            let talks =
                Talks { bytes: dice.clone().size(0, 4_000), dice, sent: 0, heard: 0, ended: false };
            net.connect(Connect::tcp("proxy:1").options(options.clone()), talks)?;
        }
        for _ in 0..ends {
            let mut dice = dice.split();
            let ends = Ends { left: dice.between(0, 8) as u32, dice };
            net.connect(Connect::tcp("proxy:2").options(options.clone()), ends)?;
        }
        for _ in 0..frames {
            let mut dice = dice.split();
            let bytes = dice.size(1, 300) * FRAME;
            let frames = Frames { dice, bytes, sent: 0, heard: 0 };
            net.connect(Connect::tcp("proxy:3").options(options.clone()), frames)?;
        }
        Ok(Clients { left: talks + ends + frames })
    })?;
    sim.run_until(LIMIT, |sim| sim.state(client).left == 0)?;
    sim.settle(Duration::from_secs(3600))?;
    let open = sim.with(proxy, |_, net| net.connection_count());
    assert_eq!(open, 0, "connections of the proxy whose peers are gone");
    Ok(())
}
