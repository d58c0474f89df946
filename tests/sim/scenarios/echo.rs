//! Clients send a stream through an echo server and compare what comes back; one that is cut off
//! connects again.

use std::time::Duration;

use tidegate::sim::{ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Connect, Context, Error, Handler, HandlerResult, Input, Listen, Net, SendStatus,
};

use super::{LIMIT, byte_at, hostile, impatient, ms, patient, pattern};

/// Puts back what comes.
pub(crate) struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        assert_ne!(cx.send(input.take_all()), SendStatus::Full, "reading was not held back");
        Ok(())
    }
}

/// How many bytes each client wants back.
const BYTES: usize = 6_000;

/// What a client's host knows.
#[derive(Default)]
pub(crate) struct Progress {
    pub(crate) done: bool,
    pub(crate) attempts: u64,
}

struct Client {
    stream: u64,
    to: &'static str,
    sent: usize,
    back: usize,
}

impl Client {
    /// Sends pieces of different sizes until the queue is above its mark.
    fn send_more(&mut self, cx: &mut Context<'_, Progress>) {
        while self.sent < BYTES && !cx.is_above_high_water() {
            let len = (1 + self.sent * 7 % 900).min(BYTES - self.sent);
            if !cx.send(pattern(self.stream, self.sent, len)).is_accepted() {
                return;
            }
            self.sent += len;
        }
        if self.sent == BYTES {
            cx.half_close();
        }
    }
}

impl Handler<Progress> for Client {
    fn on_open(&mut self, cx: &mut Context<'_, Progress>) -> HandlerResult {
        self.send_more(cx);
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Progress>) -> HandlerResult {
        self.send_more(cx);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Progress>, input: &mut Input<'_>) -> HandlerResult {
        for &byte in input.take_all() {
            assert_eq!(byte, byte_at(self.stream, self.back), "byte {} of the echo", self.back);
            self.back += 1;
        }
        assert!(self.back <= self.sent, "more came back than was sent");
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Progress>, closed: &CloseInfo) {
        if closed.reason.is_orderly() && self.sent == BYTES {
            assert_eq!(self.back, BYTES, "the echo ended in order and is not whole");
        }
        if self.back == BYTES {
            cx.state.done = true;
        } else {
            let to = self.to;
            cx.net.run_after(ms(100), move |state, net| {
                // Refused while the reactor is being dropped; a client then has no more to do.
                let _ = connect(state, net, to);
            });
        }
    }
}

fn connect(state: &mut Progress, net: &mut Net<Progress>, to: &'static str) -> Result<(), Error> {
    state.attempts += 1;
    let client = Client { stream: state.attempts, to, sent: 0, back: 0 };
    let options = impatient().high_water(2_000).output_limit(4_000);
    net.connect(Connect::tcp(to).options(options), client).map(drop)
}

pub(crate) fn start_client(net: &mut Net<Progress>, to: &'static str) -> Result<Progress, Error> {
    let mut state = Progress::default();
    connect(&mut state, net, to)?;
    Ok(state)
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    hostile(sim)?;
    let options = patient().high_water(1_000);
    sim.host("server", move |net| {
        let listen = Listen::tcp("0.0.0.0:7").options(options.clone());
        net.listen(listen, |_| Echo).map(drop)
    })?;
    let clients: Vec<_> = ["ada", "bob"]
        .iter()
        .map(|name| sim.host(name, |net| start_client(net, "server:7")))
        .collect::<Result<_, _>>()?;
    sim.run_until(LIMIT, |sim| {
        clients.iter().all(|&client| sim.is_running(client) && sim.state(client).done)
    })?;
    sim.settle(Duration::from_secs(3600))?;
    Ok(())
}
