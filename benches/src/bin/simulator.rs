//! How fast simulations run: `cargo run --release --features sim --bin simulator -- [SEEDS] [THREADS]`.
//!
//! - The scenarios of `tests/sim/scenarios`, with their faults and with all checks on: seeds and events
//!   a second. An event is one delivery, readiness, timer or fault that a host handled.
//! - One host that serves many clients, and many hosts that talk in pairs, without faults: what an
//!   event costs as the number of hosts grows, and what time without an event costs.
//!
//! Time is that of the processor, so that other programs on the machine do not count.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use tidegate::sim::{ScenarioResult, Sim, try_check};
use tidegate::{Context, Error, Handler, HandlerResult, Input, Net};

#[path = "../../../tests/sim/scenarios/mod.rs"]
#[allow(dead_code)] // what only the tests use
mod scenarios;

use scenarios::{chat, echo, proxy, udp};

type Scenario = (&'static str, fn(&mut Sim) -> ScenarioResult);

const SCENARIOS: [Scenario; 4] =
    [("echo", echo::run), ("chat", chat::run), ("proxy", proxy::run), ("udp", udp::run)];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| {
        let text = arguments.next();
        text.map_or(default, |text| text.parse().expect("expected [SEEDS] [THREADS]"))
    };
    let (seeds, threads) = (number(2_000), number(1));
    println!("{seeds} seeds of each scenario on {threads} threads, faults and checks on");
    let begin = std::time::Instant::now();
    let mut all = 0;
    for scenario in SCENARIOS {
        all += run_seeds(scenario, seeds, threads);
    }
    let took = begin.elapsed().as_secs_f64();
    println!(
        "all: {} seeds, {:.1} M events in {took:.1} s by the clock",
        4 * seeds,
        all as f64 / 1e6
    );
    println!("\nechoes without faults, one core");
    for (servers, clients) in [(1, 1), (1, 100), (1, 1_000), (100, 100), (1_000, 1_000)] {
        echoes(servers, clients);
    }
    idle();
}

/// What this thread has used of a processor.
fn used() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("the thread's clock").into()
}

fn run_seeds((name, scenario): Scenario, seeds: u64, threads: u64) -> u64 {
    let (events, nanos) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for thread in 0..threads {
            let (events, nanos) = (&events, &nanos);
            scope.spawn(move || {
                let begin = used();
                let mine = (0..seeds).filter(|seed| seed % threads == thread);
                let checked = try_check(mine, scenario).unwrap_or_else(|e| panic!("{e}"));
                events.fetch_add(checked.events, Ordering::Relaxed);
                nanos.fetch_add((used() - begin).as_nanos() as u64, Ordering::Relaxed);
            });
        }
    });
    let (events, took) = (events.into_inner(), nanos.into_inner() as f64 / 1e9);
    let (million, each) = (events as f64 / took / 1e6, events / seeds.max(1));
    println!("{name:8} {million:6.2} M events/s of a core  {each:6} events a seed  {took:6.2} s");
    events
}

struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(input.take_all());
        Ok(())
    }
}

/// Sends the same 64 bytes again and again.
struct Client;

impl Handler for Client {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        cx.send([7; 64]);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(input.take_all());
        Ok(())
    }
}

fn server(net: &mut Net<()>) -> Result<(), Error> {
    net.listen("0.0.0.0:7", |_| Echo).map(drop)
}

/// So many hosts with a server, and as many with clients, one connection for each client.
fn echoes(servers: usize, clients: usize) {
    let mut sim = Sim::new(1);
    for number in 0..servers {
        sim.host(&format!("server-{number}"), server).expect("a server");
    }
    for number in 0..clients {
        let to = format!("server-{}:7", number % servers);
        let set_up = move |net: &mut Net<()>| net.connect(&to, Client).map(drop);
        sim.host(&format!("client-{number}"), set_up).expect("a client");
    }
    let (begin, before) = (used(), sim.events());
    while used() - begin < Duration::from_millis(500) {
        sim.run_for(Duration::from_millis(2)).expect("a run");
    }
    let million = (sim.events() - before) as f64 / (used() - begin).as_secs_f64() / 1e6;
    println!("{:6} hosts, {clients:5} connections  {million:6.2} M events/s", servers + clients);
}

/// Time in which nothing happens.
fn idle() {
    let mut sim = Sim::new(1);
    for number in 0..1_000 {
        sim.host(&format!("server-{number}"), server).expect("a server");
    }
    sim.run_for(Duration::from_secs(1)).expect("a run");
    let begin = used();
    sim.run_for(Duration::from_secs(365 * 24 * 3600)).expect("a run");
    println!("a year in which 1,000 hosts have nothing to do: {:?}", used() - begin);
}
