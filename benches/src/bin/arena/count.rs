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

/// Makes the C library copy with vector loops. Its `rep movsb` for what is large is one instruction to the machine,
/// and to callgrind as many as there are bytes.
const COPY: &str = "GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=0x40000000:\
    glibc.cpu.x86_rep_stosb_threshold=0x40000000";

pub fn count(options: &Options) -> Result<()> {
    host::raise_descriptor_limit()?;
    let out = options.out()?;
    let chosen = options.list("scenarios");
    let names = if chosen.is_empty() { &SCENARIOS[..] } else { &chosen[..] };
    let find = |name: &&str| Scenario::find(name).ok_or(format!("no scenario is named {name:?}"));
    let scenarios = names.iter().map(find).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut table = "| peer |".to_owned();
    for name in names {
        write!(table, " {name}: system calls | instructions | the calls |")?;
    }
    writeln!(table, "\n|---|{}", "---:|---:|---|".repeat(names.len()))?;
    let mut built = peers::build(&options.list("peers"), &scenarios)?;
    for word in options.list("add") {
        built.push(peers::added(word)?);
    }
    for built in built.into_iter().filter(|built| !peers::is_setting(&built.name)) {
        write!(table, "| {} |", built.name)?;
        for scenario in &scenarios {
            if !built.enters(scenario) {
                write!(table, " – | – | – |")?;
                continue;
            }
            let (few, many) = scenario.kind.counted();
            let (calls_few, few_messages) = system_calls(&built, scenario, few, &out)?;
            let (calls_many, many_messages) = system_calls(&built, scenario, many, &out)?;
            let each = |total: u64| total as f64 / (many_messages - few_messages) as f64;
            let mut sum = 0.0;
            let mut calls = String::new();
            for (call, total) in calls_many {
                let before =
                    calls_few.iter().find(|(name, _)| *name == call).map_or(0, |found| found.1);
                let number = each(total.saturating_sub(before));
                sum += number;
                if number >= 0.01 {
                    write!(calls, "{call} {number:.2} ")?;
                }
            }
            if built.is_script() {
                write!(table, " {sum:.2} | – | {calls}|")?;
                continue;
            }
            let (few, few_messages) = instructions(&built, scenario, few, &out)?;
            let (many, many_messages) = instructions(&built, scenario, many, &out)?;
            let instructions =
                many.saturating_sub(few) as f64 / (many_messages - few_messages) as f64;
            write!(table, " {sum:.2} | {instructions:.0} | {calls}|")?;
        }
        writeln!(table)?;
    }
    std::fs::write(out.join("count.md"), &table)?;
    println!("{table}");
    Ok(())
}

/// Loads a server that runs under a tracer with a fixed number of messages, and ends it. Returns how many there were:
/// what was under way when the number was reached is completed.
fn load(built: &Built, scenario: &Scenario, messages: u64, wrapper: &[&str]) -> Result<u64> {
    let mut server = Server::start(built, scenario, None, wrapper)?;
    let hour = Duration::from_secs(3_600).as_millis() as u64;
    let slice = Loader::start(scenario, &server, None, &[])?.slice(hour, messages)?;
    server.terminate()?;
    Ok(slice.messages)
}

/// Each call's name and number, and the number of messages.
fn system_calls(
    built: &Built,
    scenario: &Scenario,
    messages: u64,
    out: &Path,
) -> Result<(Vec<(String, u64)>, u64)> {
    let file = out.join("strace.txt");
    let _ = std::fs::remove_file(&file);
    let path = file.to_str().ok_or("the output folder's name is not UTF-8")?;
    // With -D the server, not strace, is our child: ending it ends both.
    let messages = load(built, scenario, messages, &["strace", "-D", "-f", "-c", "-o", path])?;
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.trim_end().ends_with("total") {
            return Ok((text.lines().filter_map(parse_strace).collect(), messages));
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

/// Their number, and the number of messages.
fn instructions(
    built: &Built,
    scenario: &Scenario,
    messages: u64,
    out: &Path,
) -> Result<(u64, u64)> {
    let name = format!("callgrind.{}.{}.{messages}", built.name, scenario.name);
    let file = out.join(name);
    let option = format!("--callgrind-out-file={}", file.display());
    let wrapper = ["env", COPY, "valgrind", "-q", "--tool=callgrind", &option];
    let messages = load(built, scenario, messages, &wrapper)?;
    let text = std::fs::read_to_string(&file)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|number| number.trim().parse().ok());
    let total = total.ok_or_else(|| format!("{} has no totals", file.display()))?;
    Ok((total, messages))
}
