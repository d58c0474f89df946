//! The load generator: one process for each server, so that each has descriptors of its own. It opens its sockets
//! once and then runs slices on command; between slices everything it sent has come back and both sides rest.

mod bulk;
mod chat;
mod churn;
mod deflate;
mod echo;
mod line;
mod pattern;
mod stream;
mod talk;
mod tls;
mod udp;
mod websocket;
mod wording;

use crate::Result;
use crate::host::{self, CpuClock};
use crate::identity::Identity;
use crate::options::Options;
use crate::scenario::{Kind, Scenario, Suites};
use arena::server::Over;
use chat::Chat;
use deflate::Deflated;
use echo::Echo;
use hdrhistogram::Histogram;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use stream::{Opener, Stream};
use talk::{Bytes, Frames};
use tls::Sessions;
use websocket::Masks;
use wording::Wording;

/// No progress for this long is a failed server, not a slow one.
const STUCK: Duration = Duration::from_secs(20);

/// One of the kinds of load, connected to a server.
trait Load {
    /// Sends until the budget is spent, then waits until all of it is answered.
    fn run(&mut self, budget: &Budget, tally: &mut Tally) -> Result<()>;
}

/// When to stop sending.
pub struct Budget {
    start: Instant,
    end: Instant,
    messages: u64,
}

impl Budget {
    fn new(time: Duration, messages: u64) -> Self {
        let start = Instant::now();
        Self { start, end: start + time, messages }
    }

    fn spent(&self, sent: u64, now: Instant) -> bool {
        sent >= self.messages || now >= self.end
    }
}

/// What a slice measured.
pub struct Tally {
    messages: u64,
    lost: u64,
    latency: Histogram<u64>,
}

impl Tally {
    fn new() -> Result<Self> {
        let minute = 60_000_000_000;
        Ok(Self { messages: 0, lost: 0, latency: Histogram::new_with_bounds(1, minute, 3)? })
    }

    /// Counts one answer; `since` is when its message was sent, or planned to be.
    fn answered(&mut self, since: Instant, now: Instant) {
        self.messages += 1;
        self.latency.saturating_record((now - since).as_nanos() as u64);
    }
}

/// A slice as it travels from the load process to the runner, and into the CSV.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    pub messages: u64,
    pub lost: u64,
    pub seconds: f64,
    pub cpu_ns: u64,
    /// The generator's own.
    pub load_ns: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Slice {
    pub const COLUMNS: &str = "messages,lost,seconds,cpu_ns,load_ns,p50_us,p99_us,p999_us,max_us";

    pub fn to_csv(&self) -> String {
        let Self { messages, lost, seconds, cpu_ns, load_ns, p50_us, p99_us, p999_us, max_us } =
            self;
        format!(
            "{messages},{lost},{seconds:.6},{cpu_ns},{load_ns},{p50_us:.2},{p99_us:.2},{p999_us:.2},{max_us:.2}"
        )
    }

    pub fn from_csv(text: &str) -> Option<Self> {
        let mut fields = text.trim().split(',');
        let mut next = || fields.next();
        Some(Self {
            messages: next()?.parse().ok()?,
            lost: next()?.parse().ok()?,
            seconds: next()?.parse().ok()?,
            cpu_ns: next()?.parse().ok()?,
            load_ns: next()?.parse().ok()?,
            p50_us: next()?.parse().ok()?,
            p99_us: next()?.parse().ok()?,
            p999_us: next()?.parse().ok()?,
            max_us: next()?.parse().ok()?,
        })
    }
}

/// The load process: says `open BYTES` (the server's resident memory for each connection) when it is connected,
/// then answers each line `slice MILLISECONDS MESSAGES` with the slice, whichever of the two limits comes first.
pub fn serve_commands(options: &Options) -> Result<()> {
    let name: String = options.required("scenario")?;
    let scenario = Scenario::find(&name).ok_or(format!("no scenario is named {name:?}"))?;
    let addr: SocketAddr = options.required("addr")?;
    let pid: u32 = options.required("pid")?;
    if let Some(core) = options.value("core")? {
        host::pin(core)?;
    }
    host::raise_descriptor_limit()?;
    let clock = CpuClock::of(pid)?;
    clock.wait_until_quiet()?;

    let before = host::resident(pid)?;
    let mut load = connect(scenario, addr, clock)?;
    if scenario.used {
        // The least that a load sends: one message on each connection, or one line to all.
        measure(load.as_mut(), STUCK, 1, clock)?;
    }
    clock.wait_until_quiet()?;
    let grown = host::resident(pid)?.saturating_sub(before);
    println!("open {}", grown / scenario.kind.connections() as u64);

    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (time, messages) = parse_command(&line).ok_or(format!("not a command: {line:?}"))?;
        println!("slice {}", measure(load.as_mut(), time, messages, clock)?.to_csv());
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn parse_command(line: &str) -> Option<(Duration, u64)> {
    let (time, messages) = line.strip_prefix("slice ")?.split_once(' ')?;
    Some((Duration::from_millis(time.parse().ok()?), messages.parse().ok()?))
}

fn connect(scenario: &Scenario, addr: SocketAddr, clock: CpuClock) -> Result<Box<dyn Load>> {
    let Scenario { kind, over, .. } = *scenario;
    let opener = |resumed, suites| -> Result<Opener> {
        let sessions = || Sessions::new(&Identity::get()?.cert, resumed, suites);
        Ok(Opener::new(addr, over, over.has_tls().then(sessions).transpose()?))
    };
    let open = |count| opener(false, Suites::All)?.open_all(count, clock);
    Ok(match kind {
        Kind::Echo { connections, active, size, depth } => {
            echo(over, open(connections)?, active, size, echo::Pace::Depth(depth))?
        }
        Kind::Alone { size, pause } => echo(over, open(1)?, 1, size, echo::Pace::Pause(pause))?,
        Kind::OpenEcho { connections, size, rate } => {
            echo(over, open(connections)?, connections, size, echo::Pace::Period(period(rate)))?
        }
        Kind::Chat { members, senders, window } => {
            chat(over, open(members)?, senders, chat::Pace::Window(window))?
        }
        Kind::OpenChat { members, rate } => {
            chat(over, open(members)?, 1, chat::Pace::Period(period(rate)))?
        }
        Kind::Udp { sockets, depth, size } => Box::new(udp::Udp::new(addr, sockets, depth, size)?),
        Kind::Train { depth, size } => Box::new(udp::Udp::new(addr, 1, depth, size)?.in_trains()?),
        Kind::Bulk { connections } => {
            Box::new(bulk::Bulk::new(opener(false, Suites::All)?, connections)?)
        }
        Kind::Churn { slots } => churn(slots, false, &|| opener(false, Suites::All))?,
        Kind::Handshake { slots, resumed, suites } => {
            churn(slots, resumed, &|| opener(resumed, suites))?
        }
    })
}

fn period(rate: u64) -> Duration {
    Duration::from_secs(1) / rate as u32
}

fn churn(
    slots: usize,
    resumed: bool,
    opener: &dyn Fn() -> Result<Opener>,
) -> Result<Box<dyn Load>> {
    let openers = (0..slots).map(|_| opener()).collect::<Result<_>>()?;
    Ok(Box::new(churn::Churn::new(openers, resumed)?))
}

fn echo(
    over: Over,
    streams: Vec<Stream>,
    active: usize,
    size: usize,
    pace: echo::Pace,
) -> Result<Box<dyn Load>> {
    Ok(match over.has_websocket() {
        true => Box::new(Echo::<Frames>::new(streams, active, size, pace)?),
        false => Box::new(Echo::<Bytes>::new(streams, active, size, pace)?),
    })
}

fn chat(
    over: Over,
    streams: Vec<Stream>,
    speakers: usize,
    pace: chat::Pace,
) -> Result<Box<dyn Load>> {
    let wording = || match over {
        Over::Plain | Over::Tls => Wording::Line,
        Over::WebSocket | Over::Secure => Wording::Frame(Masks::new()),
        Over::Deflate => Wording::Deflated(Masks::new(), Deflated::new()),
    };
    Ok(Box::new(Chat::new(streams, wording, speakers, pace)?))
}

fn measure(load: &mut dyn Load, time: Duration, messages: u64, clock: CpuClock) -> Result<Slice> {
    let mut tally = Tally::new()?;
    let own = CpuClock::of(std::process::id())?;
    let (cpu, load_cpu) = (clock.now()?, own.now()?);
    let budget = Budget::new(time, messages);
    load.run(&budget, &mut tally)?;
    let seconds = budget.start.elapsed().as_secs_f64();
    let cpu_ns = (clock.now()? - cpu).as_nanos() as u64;
    let load_ns = (own.now()? - load_cpu).as_nanos() as u64;
    let quantile = |part| tally.latency.value_at_quantile(part) as f64 / 1_000.0;
    Ok(Slice {
        messages: tally.messages,
        lost: tally.lost,
        seconds,
        cpu_ns,
        load_ns,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        max_us: tally.latency.max() as f64 / 1_000.0,
    })
}
