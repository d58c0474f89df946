//! The runner: all peers serve at once, and short slices rotate between them, so that what disturbs the machine for
//! a while disturbs all of them alike. Only one of them works at any time.

use crate::load::Slice;
use crate::options::Options;
use crate::peers::{self, Built, Server};
use crate::report::{self, Row};
use crate::scenario::{self, Scenario};
use crate::{Result, host, plot};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 21;
const QUICK_ROUNDS: usize = 7;
const SLICE_MS: u64 = 120;

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
    let rounds = options.value("rounds")?.unwrap_or(if quick { QUICK_ROUNDS } else { ROUNDS });
    let slice = options.value("slice")?.unwrap_or(SLICE_MS);
    let cores = Cores::choose(options)?;
    let out = options.out()?;
    let wanted = options.list("scenarios");
    let built = peers::build(&options.list("peers"))?;

    let begin = Instant::now();
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for scenario in scenario::ALL {
        let chosen = match wanted.is_empty() {
            true => scenario.quick || !quick,
            false => wanted.iter().any(|prefix| scenario.name.starts_with(prefix)),
        };
        if chosen {
            eprint!("{} ", scenario.name);
            let started = Instant::now();
            compete(scenario, &built, rounds, slice, cores, &mut rows, &mut failures);
            eprintln!("{:.1} s", started.elapsed().as_secs_f64());
        }
    }
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
    name: &'static str,
    load: Loader,
    _server: Server,
}

fn compete(
    scenario: &'static Scenario,
    built: &[Built],
    rounds: usize,
    slice: u64,
    cores: Cores,
    rows: &mut Vec<Row>,
    failures: &mut Vec<String>,
) {
    let mut contestants = Vec::new();
    for built in built.iter().filter(|built| built.peer.speaks(scenario.kind.mode())) {
        match enter(scenario, built, slice, cores) {
            Ok(contestant) => contestants.push(contestant),
            Err(error) => failures.push(format!("{} {}: {error}", scenario.name, built.peer.name)),
        }
    }
    for round in 0..rounds {
        let mut failed = None;
        for turn in 0..contestants.len() {
            // Nobody always follows the same neighbour's warm caches or first place.
            let index = (turn + round) % contestants.len();
            let contestant = &mut contestants[index];
            match contestant.load.slice(slice, u64::MAX) {
                Ok(slice) => rows.push(Row {
                    scenario: scenario.name.to_owned(),
                    peer: contestant.name.to_owned(),
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
fn enter(
    scenario: &'static Scenario,
    built: &Built,
    slice: u64,
    cores: Cores,
) -> Result<Contestant> {
    let server = Server::start(built, scenario.kind.mode(), cores.server, &[])?;
    let mut load = Loader::start(scenario, &server, cores.client)?;
    load.slice(slice, u64::MAX)?;
    Ok(Contestant { name: built.peer.name, load, _server: server })
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
    pub fn start(scenario: &Scenario, server: &Server, core: Option<usize>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["load", "--scenario", scenario.name]);
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
