//! The runner: all peers serve at once, and short slices rotate between them, so that what disturbs the machine for
//! a while disturbs all of them alike. Only one of them works at any time.

use crate::load::Slice;
use crate::options::Options;
use crate::peers::{self, Built, Server};
use crate::report::{self, Row};
use crate::scenario::{self, Scenario};
use crate::{Result, host, plot};
use std::cmp::Reverse;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 21;
const SLICE_MS: u64 = 120;
/// Of the quick run: three, less what building and the last scenario's start-up may take.
const QUICK_MINUTES: f64 = 2.6;
/// However short the time: a median of fewer says nothing.
const LEAST_ROUNDS: usize = 5;
/// After a slice, so that what a server still does falls into nobody else's.
const REST: Duration = Duration::from_millis(3);

/// The cores of the servers and of the load; none where the machine has only one.
#[derive(Clone, Copy)]
pub struct Cores {
    pub server: Option<usize>,
    pub client: Option<usize>,
}

impl Cores {
    fn choose(options: &Options) -> Result<Self> {
        let given = options.list("cores");
        if let [server, client] = given[..] {
            return Ok(Self { server: Some(server.parse()?), client: Some(client.parse()?) });
        }
        if !given.is_empty() {
            return Err("--cores takes two numbers: SERVER,CLIENT".into());
        }
        if std::thread::available_parallelism()?.get() < 2 {
            eprintln!("one core only: the server and its load share it, and rates mean little");
            return Ok(Self { server: None, client: None });
        }
        Ok(Self { server: Some(0), client: Some(1) })
    }
}

/// How a scenario is measured.
struct Plan {
    /// At most.
    rounds: usize,
    /// When it should be done, whatever the number of rounds.
    end: Option<Instant>,
    slice: u64,
    cores: Cores,
    /// What servers and loads are started under.
    wrapper: &'static [&'static str],
}

impl Plan {
    fn is_done(&self, round: usize, started: Instant) -> bool {
        let Some(end) = self.end.filter(|_| round >= LEAST_ROUNDS) else {
            return round >= self.rounds;
        };
        // The next round takes as long as those before.
        round >= self.rounds || Instant::now() + started.elapsed() / round as u32 > end
    }
}

pub fn list() -> Result<()> {
    for peer in peers::ALL {
        println!("peer      {}", peer.name);
    }
    for scenario in scenario::ALL {
        let quick = if scenario.quick { "  (quick)" } else { "" };
        println!("scenario  {}{quick}", scenario.name);
    }
    Ok(())
}

pub fn run(options: &Options) -> Result<()> {
    host::raise_descriptor_limit()?;
    let quick = options.has("quick");
    let minutes = options.value("minutes")?.or(quick.then_some(QUICK_MINUTES));
    let rounds =
        options.value("rounds")?.unwrap_or(if minutes.is_some() { usize::MAX } else { ROUNDS });
    let slice = options.value("slice")?.unwrap_or(SLICE_MS);
    let cores = Cores::choose(options)?;
    let wrapper: &[&str] = if options.has("realtime") { &["chrt", "-f", "10"] } else { &[] };
    let out = options.out()?;
    let wanted = options.list("scenarios");
    let layers = options.has("layers");
    let mut chosen: Vec<_> = scenario::ALL
        .iter()
        .filter(|scenario| match wanted.is_empty() {
            true => scenario.is_layered() == layers && (scenario.quick || !quick),
            false => scenario.is_meant(&wanted),
        })
        .collect();
    let mut names = options.list("peers");
    if !names.is_empty() {
        names.extend(chosen.iter().map(|scenario| peers::base(scenario.over)));
    }
    let mut built = peers::build(&names, &chosen)?;
    for word in options.list("add") {
        built.push(peers::added(word)?);
    }

    // What takes longest to start comes first, so that what is left of the time is known.
    chosen.sort_by_key(|scenario| Reverse(scenario.kind.connections()));

    let begin = Instant::now();
    let end = minutes.map(|minutes| begin + Duration::from_secs_f64(minutes * 60.0));
    match minutes {
        Some(minutes) => eprintln!("{} scenarios in {minutes} minutes", chosen.len()),
        None => {
            let slices: usize =
                chosen.iter().map(|s| built.iter().filter(|b| b.enters(s)).count()).sum();
            let seconds = (slices * (rounds + 1)) as u64 * (slice + REST.as_millis() as u64) / 1000;
            let minutes = seconds as f64 / 60.0;
            eprintln!("{} scenarios: about {minutes:.1} minutes and the start-up", chosen.len());
        }
    }
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for (index, scenario) in chosen.iter().enumerate() {
        eprint!("{} ", scenario.name);
        let started = Instant::now();
        // What is left of the time, in equal shares.
        let left = (chosen.len() - index) as u32;
        let end = end.map(|end| started + end.saturating_duration_since(started) / left);
        let plan = Plan { rounds, end, slice, cores, wrapper };
        compete(scenario, &built, &plan, &mut rows, &mut failures);
        eprintln!(" {:.1} s", started.elapsed().as_secs_f64());
    }
    let place = |row: &Row| scenario::ALL.iter().position(|s| s.name == row.scenario);
    rows.sort_by_key(place);
    let csv = out.join("arena.csv");
    report::write_csv(&csv, &rows)?;
    let tables = report::tables(&rows);
    std::fs::write(out.join("arena.md"), &tables)?;
    plot::draw(&rows, &out)?;
    println!("{tables}");
    let seconds = begin.elapsed().as_secs_f64();
    eprintln!("{seconds:.0} s in all; {} and arena.md, plots beside it", csv.display());
    match failures.is_empty() {
        true => Ok(()),
        false => Err(failures.join("\n").into()),
    }
}

/// One peer under one scenario: its server and the process that loads it.
struct Contestant {
    name: String,
    load: Loader,
    _server: Server,
}

fn compete(
    scenario: &Scenario,
    built: &[Built],
    plan: &Plan,
    rows: &mut Vec<Row>,
    failures: &mut Vec<String>,
) {
    let mut contestants = Vec::new();
    for built in built.iter().filter(|built| built.enters(scenario)) {
        match enter(scenario, built, plan) {
            Ok(contestant) => contestants.push(contestant),
            Err(error) => failures.push(format!("{} {}: {error}", scenario.name, built.name)),
        }
    }
    let started = Instant::now();
    for round in 0.. {
        if plan.is_done(round, started) {
            break;
        }
        let mut failed = None;
        for turn in 0..contestants.len() {
            // Nobody always follows the same neighbour's warm caches or first place.
            let index = (turn + round) % contestants.len();
            let contestant = &mut contestants[index];
            let slice = contestant.load.slice(plan.slice, u64::MAX);
            std::thread::sleep(REST);
            match slice {
                Ok(slice) => rows.push(Row {
                    scenario: scenario.name.to_owned(),
                    peer: contestant.name.clone(),
                    round,
                    memory: contestant.load.memory,
                    slice,
                }),
                Err(error) => {
                    failures.push(format!("{} {}: {error}", scenario.name, contestant.name));
                    failed = Some(index);
                }
            }
        }
        failed.map(|index| contestants.remove(index));
        eprint!(".");
    }
}

/// Starts a server and its load, and runs one slice that does not count.
fn enter(scenario: &Scenario, built: &Built, plan: &Plan) -> Result<Contestant> {
    let Plan { slice, cores, wrapper, .. } = *plan;
    let server = Server::start(built, scenario, cores.server, wrapper)?;
    let mut load = Loader::start(scenario, &server, cores.client, wrapper)?;
    load.slice(slice, u64::MAX)?;
    Ok(Contestant { name: built.name.clone(), load, _server: server })
}

/// A load process, as the runner sees it.
pub struct Loader {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The server's resident memory for each connection.
    pub memory: u64,
}

impl Loader {
    /// Under `wrapper`, a program that starts another one, where one is given.
    pub fn start(
        scenario: &Scenario,
        server: &Server,
        core: Option<usize>,
        wrapper: &[&str],
    ) -> Result<Self> {
        let mut words = wrapper.iter().map(|&word| word.into()).collect::<Vec<PathBuf>>();
        words.push(std::env::current_exe()?);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["load", "--scenario", scenario.name]);
        command.args(["--addr", &server.addr.to_string(), "--pid", &server.pid().to_string()]);
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let commands = child.stdin.take().ok_or("stdin is piped")?;
        let answers = BufReader::new(child.stdout.take().ok_or("stdout is piped")?);
        let mut loader = Self { child, commands, answers, memory: 0 };
        loader.memory = loader.answer("open ")?.parse()?;
        Ok(loader)
    }

    /// One slice: ends with the time or with the messages, whichever comes first.
    pub fn slice(&mut self, milliseconds: u64, messages: u64) -> Result<Slice> {
        writeln!(self.commands, "slice {milliseconds} {messages}")?;
        let answer = self.answer("slice ")?;
        Slice::from_csv(&answer).ok_or_else(|| format!("not a slice: {answer:?}").into())
    }

    fn answer(&mut self, expected: &str) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.trim_end().strip_prefix(expected) {
            Some(rest) => Ok(rest.to_owned()),
            None => Err("the load gave up, its reason is above".into()),
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
