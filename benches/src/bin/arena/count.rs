//! System calls and user instructions for each message, as the difference of two runs of different length: what
//! start and end cost cancels out. Counts need no quiet machine.

use crate::options::Options;
use crate::peers::{self, Built, Server};
use crate::run::Loader;
use crate::scenario::Scenario;
use crate::{Result, host};
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// A message at a time with a pause between (in a closed loop, the slowed server's needless second read would find
/// the next message and look useful), and many connections at once, under which a slowed server is saturated.
const SCENARIOS: [&str; 2] = ["alone", "ping-64"];
const FEW: u64 = 500;
const MANY: u64 = 3_500;

pub fn count(options: &Options) -> Result<()> {
    host::raise_descriptor_limit()?;
    let out = options.out()?;
    let chosen = options.list("scenarios");
    let scenarios = if chosen.is_empty() { &SCENARIOS[..] } else { &chosen[..] };
    let mut table = "| peer |".to_owned();
    for scenario in scenarios {
        write!(table, " {scenario}: system calls | instructions | the calls |")?;
    }
    writeln!(table, "\n|---|{}", "---:|---:|---|".repeat(scenarios.len()))?;
    let built = peers::build(&options.list("peers"))?;
    for built in built.into_iter().filter(|built| !peers::is_setting(&built.name)) {
        write!(table, "| {} |", built.name)?;
        for name in scenarios {
            let scenario = Scenario::find(name).ok_or("the scenario exists")?;
            let few = system_calls(&built, scenario, FEW, &out)?;
            let many = system_calls(&built, scenario, MANY, &out)?;
            let instructions = instructions(&built, scenario, MANY, &out)?
                .saturating_sub(instructions(&built, scenario, FEW, &out)?);
            let each = |total: u64| total as f64 / (MANY - FEW) as f64;
            let mut sum = 0.0;
            let mut calls = String::new();
            for (call, total) in many {
                let before = few.iter().find(|(name, _)| *name == call).map_or(0, |found| found.1);
                let number = each(total.saturating_sub(before));
                sum += number;
                if number >= 0.01 {
                    write!(calls, "{call} {number:.2} ")?;
                }
            }
            write!(table, " {sum:.2} | {:.0} | {calls}|", each(instructions))?;
        }
        writeln!(table)?;
    }
    std::fs::write(out.join("count.md"), &table)?;
    println!("{table}");
    Ok(())
}

/// Loads a server that runs under a tracer with a fixed number of messages, and ends it.
fn load(built: &Built, scenario: &Scenario, messages: u64, wrapper: &[&str]) -> Result<()> {
    let mut server = Server::start(built, scenario.kind.mode(), None, wrapper)?;
    let minute = Duration::from_secs(60).as_millis() as u64;
    Loader::start(scenario, &server, None, &[])?.slice(minute, messages)?;
    server.terminate()
}

fn system_calls(
    built: &Built,
    scenario: &Scenario,
    messages: u64,
    out: &Path,
) -> Result<Vec<(String, u64)>> {
    let file = out.join("strace.txt");
    let _ = std::fs::remove_file(&file);
    let path = file.to_str().ok_or("the output folder's name is not UTF-8")?;
    // With -D the server, not strace, is our child: ending it ends both.
    load(built, scenario, messages, &["strace", "-D", "-f", "-c", "-o", path])?;
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.trim_end().ends_with("total") {
            return Ok(text.lines().filter_map(parse_strace).collect());
        }
        if Instant::now() > end {
            return Err("strace wrote no summary".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `% time  seconds  usecs/call  calls  [errors]  syscall`
fn parse_strace(line: &str) -> Option<(String, u64)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let name = *fields.last()?;
    let calls = fields.get(3)?.parse().ok()?;
    (name != "total").then(|| (name.to_owned(), calls))
}

fn instructions(built: &Built, scenario: &Scenario, messages: u64, out: &Path) -> Result<u64> {
    let name = format!("callgrind.{}.{}.{messages}", built.name, scenario.name);
    let file = out.join(name);
    let option = format!("--callgrind-out-file={}", file.display());
    load(built, scenario, messages, &["valgrind", "-q", "--tool=callgrind", &option])?;
    let text = std::fs::read_to_string(&file)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|number| number.trim().parse().ok());
    total.ok_or_else(|| format!("{} has no totals", file.display()).into())
}
