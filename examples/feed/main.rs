//! A relay of market data. Subscribers that keep up get every value; who reads too slowly gets the newest
//! value of each symbol in place of all old ones, and delays nobody.
//!
//! A value is a frame: two bytes of length, highest byte first; the symbol's number in four bytes; then
//! what the publisher says of it, which the relay does not look at. Of the bots here that is the number
//! among the values of its symbol, nanoseconds since 1970 (8 bytes each), and 12 bytes of price.

#[cfg(all(test, feature = "sim"))]
mod simulated;
#[path = "../support/mod.rs"]
mod support;

use hdrhistogram::Histogram;
use std::process::ExitCode;
use std::time::{Duration, Instant, UNIX_EPOCH};
use tidegate::layer::LengthPrefixed;
use tidegate::{
    CloseInfo, Config, Connect, Context, Error, Group, Handler, HandlerResult, Input, Listen, Net,
    Reactor, ReactorStats, SocketOptions, StreamOptions, Timer, Token,
};

const HELP: &str = "feed - a relay of market data, with a publisher and subscribers to try it
Usage: cargo run --release --example feed [server [PUBLISHERS [SUBSCRIBERS]]] [--spin]
       cargo run --release --example feed publish [PUBLISHERS] [--seconds S]
       cargo run --release --example feed subscribe [SUBSCRIBERS] [--seconds S]
                                          [--connections N] [--bytes-per-second N]
PUBLISHERS   where values come in (default 127.0.0.1:8888); publish sends 20,000 a second
SUBSCRIBERS  where they go out (default 127.0.0.1:8889); subscribe reads as fast as it can, or so
             many bytes a second, and says at its end what came, and how old it was
--spin       waits for values without sleeping: some microseconds less, at the cost of a core
--seconds S  ends after that time; without it, with the connection";

/// How many symbols, and bytes of a frame: without limits, a publisher could fill the relay's memory.
const MAX_SYMBOLS: usize = 10_000;
const MAX_FRAME: usize = 1024;
/// A subscriber's queue: all values for a newcomer, and all again, newer, with 68 bytes beside each.
const QUEUE: usize = MAX_SYMBOLS * (2 * MAX_FRAME + 68);
const REPORT: Duration = Duration::from_secs(5);

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// What all connections share.
struct Relay {
    /// The last frame of each symbol, for newcomers.
    newest: Vec<Vec<u8>>,
    reported: ReactorStats,
}

fn framing() -> LengthPrefixed {
    LengthPrefixed::new(2).frame_limit(MAX_FRAME)
}

/// The relay's side of a publisher.
struct Source(Group);

impl Handler<Relay> for Source {
    /// One frame a call.
    fn on_data(&mut self, cx: &mut Context<'_, Relay>, frame: &mut Input<'_>) -> HandlerResult {
        let symbol = u32::from_be_bytes(*frame.first_chunk().ok_or("a frame without a symbol")?);
        let newest = cx.state.newest.get_mut(symbol as usize).ok_or("a symbol over the limit")?;
        frame[..].clone_into(newest);
        // Stored once, and written at the end of the turn: once for each subscriber and burst.
        cx.net.publish_latest(self.0, symbol.into(), frame.take_all());
        Ok(())
    }
}

/// The relay's side of a subscriber.
struct Subscription(Group);

impl Handler<Relay> for Subscription {
    fn on_open(&mut self, cx: &mut Context<'_, Relay>) -> HandlerResult {
        for frame in cx.state.newest.iter().filter(|frame| !frame.is_empty()) {
            cx.net.send(cx.token, frame); // in the queue before all that is published from now on
        }
        cx.join(self.0);
        Ok(())
    }

    fn on_data(&mut self, _cx: &mut Context<'_, Relay>, _frame: &mut Input<'_>) -> HandlerResult {
        Err("a subscriber has nothing to say".into())
    }
}

/// Opens both listeners: all that the relay has of a network, here and in the simulation.
fn open(net: &mut Net<Relay>, publishers: &str, subscribers: &str) -> Result<[Token; 2], Error> {
    let group = net.create_group();
    // What the system has taken can't be replaced any more: let it take little before it is sent.
    let socket = SocketOptions::new().not_sent_low_water(2 * 1024);
    let options = StreamOptions::new().socket_options(socket).output_limit(QUEUE);
    let publishers = Listen::tcp(publishers).layer(|_peer| framing());
    let subscribers = Listen::tcp(subscribers).layer(|_peer| framing()).options(options);
    net.run_after(REPORT, move |relay, net| report(relay, net, group));
    let publishers = net.listen(publishers, move |_peer| Source(group))?;
    Ok([publishers, net.listen(subscribers, move |_peer| Subscription(group))?])
}

fn report(relay: &mut Relay, net: &mut Net<Relay>, subscribers: Group) {
    let (now, behind) = (net.stats(), net.members_behind(subscribers).count());
    let group = net.group_stats(subscribers).unwrap_or_default();
    log::info!("{group:?}, {behind} behind; in the last five seconds: {}", now - relay.reported);
    relay.reported = now;
    net.run_after(REPORT, move |relay, net| report(relay, net, subscribers));
}

fn serve(publishers: &str, subscribers: &str, spin: Duration) -> Outcome {
    // A burst over the default of 256 messages would be written to everybody twice.
    let config = Config::new().messages_per_turn(1000).spin(spin);
    let newest = vec![Vec::new(); MAX_SYMBOLS];
    let mut reactor = Reactor::build(config, |net| Ok(Relay { newest, reported: net.stats() }))?;
    let [sources, readers] = open(reactor.net(), publishers, subscribers)?;
    for (listener, of) in [(sources, "publishers"), (readers, "subscribers")] {
        for at in reactor.net().local_addrs(listener) {
            support::say(format!("feed: listening on {at}, {of}"))?;
        }
    }
    Ok(reactor.run().map(drop)?)
}

// From here on a publisher, and subscribers that check what they get.

const SYMBOLS: usize = 1000;
const BURST: usize = 500;
const PERIOD: Duration = Duration::from_millis(25);
const FRAME: usize = 34; // with its length: all have the same, so that the bots need no layer

/// What the bots of a process have sent, or got.
struct Totals {
    values: u64,
    missed: u64, // a newer one came in their place
    out_of_order: u64,
    ages: Histogram<u64>, // microseconds, from the publisher's call to the subscriber's
}

fn nanoseconds(net: &Net<Totals>) -> u64 {
    net.system_time().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[derive(Clone, Copy)]
enum Kind {
    Publisher,
    Fast,
    Slow(u32), // bytes a second
}

struct Bot {
    kind: Kind,
    /// The number of each symbol's last value.
    numbers: [u64; SYMBOLS],
    /// When the next burst is due; when a slow reader is through with what it has read.
    next: Instant,
}

impl Handler<Totals> for Bot {
    fn on_timer(&mut self, cx: &mut Context<'_, Totals>, _: Timer) -> HandlerResult {
        let Kind::Publisher = self.kind else {
            cx.resume();
            return Ok(());
        };
        let time = nanoseconds(cx.net).to_be_bytes();
        for _ in 0..BURST {
            let drawn = cx.state.values.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            let symbol = drawn as usize % SYMBOLS; // in another order each time
            self.numbers[symbol] += 1;
            cx.state.values += 1;
            let number = self.numbers[symbol].to_be_bytes();
            let symbol = (symbol as u32).to_be_bytes();
            cx.send([&[0, FRAME as u8 - 2][..], &symbol, &number, &time, &[0; 12]].concat());
        }
        self.next += PERIOD; // from when it was due, so that lateness does not add up
        cx.set_timer(self.next.saturating_duration_since(cx.now()), 0);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Totals>, input: &mut Input<'_>) -> HandlerResult {
        let (now, length) = (nanoseconds(cx.net), input.len() as u32);
        while let Some(frame) = input.take(FRAME) {
            let field = |at| u64::from_be_bytes(std::array::from_fn(|n| frame[at + n]));
            let (symbol, number) = (field(0) >> 16 & 0xffff_ffff, field(6));
            let last = self.numbers.get_mut(symbol as usize).ok_or("an unknown symbol")?;
            let before = std::mem::replace(last, number);
            cx.state.values += 1;
            cx.state.out_of_order += u64::from(number <= before);
            if (1..number).contains(&before) {
                cx.state.missed += number - before - 1; // the first one may be of before we came
                cx.state.ages.record(now.saturating_sub(field(14)) / 1000)?;
            }
        }
        if let Kind::Slow(speed) = self.kind {
            self.next += Duration::from_secs((length - input.len() as u32).into()) / speed.max(1);
            if self.next > cx.now() {
                cx.pause();
                cx.set_timer(self.next - cx.now(), 0);
            }
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Totals>, _: &CloseInfo) {
        cx.net.stop();
    }
}

fn connect(net: &mut Net<Totals>, address: &str, kind: Kind) -> Result<(), Error> {
    // What lies in the system's buffer gets old: that of a slow one is small. Who must not miss a
    // value takes a large one, for the time in which the process does not run.
    let buffer = if matches!(kind, Kind::Slow(_)) { 2 * 1024 } else { 1024 * 1024 };
    let options = StreamOptions::new().socket_options(SocketOptions::new().receive_buffer(buffer));
    let to = Connect::tcp(address).options(options);
    let bot = net.connect(to, Bot { kind, numbers: [0; SYMBOLS], next: net.now() })?;
    net.set_timer(bot, Duration::ZERO, 0); // fires when it is connected
    Ok(())
}

/// Publishes, or subscribes and says what came.
fn call(address: &str, connections: u32, kind: Kind, time: Option<Duration>) -> Outcome {
    let totals = Totals { values: 0, missed: 0, out_of_order: 0, ages: Histogram::new(3)? };
    let mut reactor = Reactor::with_state(totals)?;
    for _ in 0..connections {
        connect(reactor.net(), address, kind)?;
    }
    if let Some(time) = time {
        reactor.net().run_after(time, |_, net| net.close_all());
    }
    reactor.run()?;
    let Totals { values, missed, out_of_order, ages } = reactor.state();
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| ages.value_at_quantile(quantile));
    Ok(support::say(format!(
        "feed: {values} values, {missed} missed, {out_of_order} out of order, \
         age_us p50 {p50} p99 {p99} max {max}"
    ))?)
}

fn main() -> ExitCode {
    support::main_with_options(HELP, |arguments| {
        let spin = if arguments.flag("--spin") { 4 * PERIOD } else { Duration::ZERO };
        let time = arguments.option("--seconds")?.map(Duration::from_secs);
        let connections = arguments.option("--connections")?.unwrap_or(1);
        let reader = arguments.option("--bytes-per-second")?.map_or(Kind::Fast, Kind::Slow);
        let [mode, first, second] = arguments.rest(["server", "", "127.0.0.1:8889"])?;
        let at = |default| if first.is_empty() { default } else { &*first };
        match &*mode {
            "server" => serve(at("127.0.0.1:8888"), &second, spin),
            "publish" => call(at("127.0.0.1:8888"), 1, Kind::Publisher, time),
            "subscribe" => call(at("127.0.0.1:8889"), connections, reader, time),
            other => Err(format!("expected server, publish or subscribe, not '{other}'").into()),
        }
    })
}
