//! Slow readers: who takes its output slowly and steadily is never cut as stalled, though its system
//! reports room only when a third of a large buffer is free; who takes nothing is, in its time.

use std::time::{Duration, Instant};

use tidegate::sim::{Fault, ScenarioResult, Sim};
use tidegate::{
    CloseInfo, CloseReason, Config, Connect, Context, Deadline, Handler, HandlerResult, Input,
    Listen, Net, Relayed, SocketOptions, Timer,
};

use super::{Dice, LIMIT, byte_at, impatient, is_over, pattern, rough, us};

/// How long a peer may take nothing.
const STALL: Duration = Duration::from_millis(600);

/// A reader takes something in each of these, at least.
const PAUSE: u64 = 60_000;

/// What a reader takes at a time.
const BITE: usize = 512;

/// A third of it is more than a slow reader takes in `STALL`.
const BUFFER: usize = 30_000;

/// What a request asks for: how much, and whether its peer is going to read it.
const HEAD: usize = 5;

/// Answers one request with so many bytes.
struct Serves {
    last: Option<Instant>,
    deaf: bool,
}

impl Handler for Serves {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let Some(head) = input.take(HEAD) else { return Ok(()) };
        let size = u32::from_be_bytes(head[..4].try_into()?) as usize;
        self.deaf = head[4] != 0;
        self.last = Some(cx.now());
        cx.send(pattern(8, 0, size));
        if !self.deaf && size.is_multiple_of(2) {
            cx.close();
        } else if !self.deaf {
            cx.half_close();
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        if self.deaf {
            let stalled = matches!(closed.reason, CloseReason::TimedOut(Deadline::Stall));
            assert!(stalled, "its peer took nothing: {closed}");
            let last = self.last.expect("it was asked");
            assert!(cx.now() - last >= STALL, "it had more time: {closed}");
        } else {
            assert!(closed.reason.is_orderly(), "its peer read all the time: {closed}");
        }
    }
}

/// Relays to the server.
struct Front;

impl Handler for Front {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        let options = impatient().idle_timeout(None).close_timeout(LIMIT);
        let back = cx.net.connect(Connect::tcp("server:80").options(options), Relayed)?;
        assert!(cx.relay(back));
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }

    fn on_close(&mut self, _: &mut Context<'_>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        assert!(closed.reason.is_orderly(), "its peer read all the time: {closed}");
    }
}

struct Clients {
    left: usize,
}

/// Asks, and reads a little at a time, or nothing.
struct Reads {
    dice: Dice,
    size: usize,
    deaf: bool,
    heard: usize,
}

impl Handler<Clients> for Reads {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        let mut request = (self.size as u32).to_be_bytes().to_vec();
        request.push(u8::from(self.deaf));
        cx.send(request);
        if self.deaf {
            cx.pause();
        }
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        for &byte in input.take_all() {
            assert_eq!(byte, byte_at(8, self.heard), "byte {}", self.heard);
            self.heard += 1;
        }
        cx.pause();
        cx.set_timer(us(self.dice.between(PAUSE / 2, PAUSE)), 0);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Clients>, _: Timer) -> HandlerResult {
        cx.resume();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        if !self.deaf {
            assert!(closed.reason.is_orderly(), "it read all the time: {closed}");
            assert_eq!(self.heard, self.size, "{closed}");
        }
    }
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    // How much a reader takes at a time, and of what, is what this is about.
    rough(sim, &[Fault::SmallBuffers, Fault::Configs])?;
    let seed = sim.seed();
    let socket = SocketOptions::new().send_buffer(BUFFER);
    let options = impatient().stall_timeout(STALL).socket_options(socket);
    let serving = options.clone();
    sim.host("server", move |net| {
        let listen = Listen::tcp("0.0.0.0:80").options(serving.clone().idle_timeout(None));
        net.listen(listen, |_| Serves { last: None, deaf: false }).map(drop)
    })?;
    sim.host("proxy", move |net| {
        // A relay that waits for its slow target is not idle, either.
        let options = options.clone().high_water(2_000).close_timeout(LIMIT);
        net.listen(Listen::tcp("0.0.0.0:81").options(options), |_| Front).map(drop)
    })?;
    let config = Config::new().read_buffer(BITE);
    let client = sim.host_with("client", config, move |net: &mut Net<Clients>| {
        let mut dice = Dice::of(seed, 1);
        let left = dice.size(1, 3);
        for _ in 0..left {
            let deaf = dice.percent(20);
            let size = if deaf { 3 * BUFFER } else { dice.size(0, 2 * BUFFER) };
            let (server, port) =
                if deaf || dice.percent(60) { ("server", 80) } else { ("proxy", 81) };
            let socket = SocketOptions::new().receive_buffer(dice.size(BITE, 2_000));
            let options =
                impatient().idle_timeout(None).stall_timeout(LIMIT).socket_options(socket);
            let reads = Reads { dice: dice.split(), size, deaf, heard: 0 };
            net.connect(Connect::tcp((server, port)).options(options), reads)?;
        }
        Ok(Clients { left })
    })?;
    sim.run_until(LIMIT, |sim| sim.state(client).left == 0)?;
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
