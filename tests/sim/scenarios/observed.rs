//! A server that measures and counts everything, in a rough network: the figures of all intervals
//! together are those of the whole, each slow callback is told, and what a connection says of itself is
//! what its handler has seen.

use std::time::Duration;

use tidegate::sim::{ScenarioResult, Sim};
use tidegate::stats::Latency;
use tidegate::{
    CloseInfo, Config, Connect, Context, Handler, HandlerResult, Input, Listen, Net, StreamOptions,
    Timer,
};

use super::{Dice, LIMIT, is_over, ms, patient, pattern, rough, us};

/// What a server knows.
#[derive(Default)]
struct Server {
    /// All intervals together.
    taken: Latency,
    /// What the hook was told, without whole turns.
    told: u64,
    ended: u64,
}

impl Server {
    /// Takes an interval, and compares the sum of all with what was never reset.
    fn take(&mut self, net: &mut Net<Server>) {
        let interval = net.take_latency().expect("it measures");
        self.taken.add(&interval);
        for ((name, sum), (_, now)) in self.taken.fields().zip(interval.fields()) {
            let (sum, total) = (sum.count(), now.total_count());
            assert_eq!(sum, total, "{name}: all intervals together, and the whole");
        }
    }
}

/// Answers what comes, at once or after a while, and counts it.
struct Counted {
    dice: Dice,
    received: u64,
    sent: u64,
    messages: u64,
}

impl Handler<Server> for Counted {
    fn on_data(&mut self, cx: &mut Context<'_, Server>, input: &mut Input<'_>) -> HandlerResult {
        let bytes = input.take_all();
        self.received += bytes.len() as u64;
        if self.dice.percent(70) {
            self.answer(cx, bytes.len() / 2);
        } else {
            cx.set_timer(us(self.dice.between(0, 3_000)), bytes.len() as u64);
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Server>, timer: Timer) -> HandlerResult {
        self.answer(cx, timer.tag() as usize);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Server>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.ended += 1;
        let stats = cx.connection_stats().expect("it counts");
        assert_eq!(stats.messages_sent, self.messages, "{stats}");
        assert_eq!(stats.bytes_sent + closed.unsent as u64, self.sent, "{stats}; {closed}");
        assert!(stats.bytes_received >= self.received, "{stats}");
        if closed.reason.is_orderly() {
            assert_eq!(stats.bytes_received, self.received, "{stats}");
        }
        assert!(stats.queued_peak <= self.sent && stats.idle <= stats.age, "{stats}");
    }
}

impl Counted {
    fn answer(&mut self, cx: &mut Context<'_, Server>, len: usize) {
        if cx.send(pattern(9, 0, len)).is_accepted() {
            self.sent += len as u64;
            self.messages += 1;
        }
    }
}

/// Sends some pieces and ends.
struct Client {
    pieces: u64,
    dice: Dice,
}

impl Handler<u64> for Client {
    fn on_open(&mut self, cx: &mut Context<'_, u64>) -> HandlerResult {
        cx.set_timer(Duration::ZERO, 0);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, u64>, _: Timer) -> HandlerResult {
        if self.pieces == 0 {
            cx.half_close();
            return Ok(());
        }
        self.pieces -= 1;
        cx.send(pattern(8, 0, self.dice.size(1, 2_000)));
        cx.set_timer(us(self.dice.between(0, 4_000)), 0);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, u64>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, u64>, closed: &CloseInfo) {
        if !is_over(closed) {
            *cx.state -= 1;
        }
    }
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    rough(sim, &[])?;
    let seed = sim.seed();
    let mut dice = Dice::new(sim, 1);
    let own = dice.split();
    // Every callback is slow: each one has to be told.
    let config = Config::new().measure(true).slow_callback(Duration::ZERO).read_buffer(1024);
    let server = sim.host_with("server", config, move |net| {
        net.on_slow_callback(|slow, state: &mut Server| {
            state.told += u64::from(slow.callback != "turn");
        });
        let options = patient().statistics(true).low_water(500).high_water(1_500);
        let mut own = own.clone();
        net.listen(Listen::tcp("0.0.0.0:80").options(options), move |_| Counted {
            dice: own.split(),
            received: 0,
            sent: 0,
            messages: 0,
        })?;
        Ok(Server::default())
    })?;
    let client = sim.host("client", move |net: &mut Net<u64>| {
        let mut dice = Dice::of(seed, 2);
        let clients = dice.between(1, 4);
        for _ in 0..clients {
            let client = Client { pieces: dice.between(0, 12), dice: dice.split() };
            net.connect(
                Connect::tcp("server:80").options(StreamOptions::new().connect_timeout(LIMIT)),
                client,
            )?;
        }
        Ok(clients)
    })?;
    for _ in 0..dice.between(0, 6) {
        sim.run_for(us(dice.between(0, 10_000)))?;
        sim.with(server, |state, net| state.take(net));
    }
    let remote = sim.remote(server);
    for _ in 0..3 {
        remote.post(|_, _| {}).expect("the inbox has room");
    }
    sim.run_until(LIMIT, |sim| *sim.state(client) == 0)?;
    sim.run_for(ms(100))?;
    sim.settle(Duration::from_secs(3600))?;
    sim.with(server, |state, net| {
        state.take(net);
        let stats = net.stats();
        assert_eq!(state.taken.timers.count(), stats.timers_fired);
        assert_eq!(state.taken.posts.count(), stats.posts);
        assert_eq!(state.taken.turns.count(), stats.turns);
        assert_eq!(state.taken.callbacks.count(), state.told);
        assert_eq!(state.ended, stats.closed.total());
        assert!(state.taken.timers.max() < Duration::from_secs(1), "{}", state.taken);
    });
    Ok(())
}
