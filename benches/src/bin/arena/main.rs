//! The arena: the same small servers on tidegate and on other loops, one load generator, interleaved rounds.
//! `README.md` beside the package's manifest says how to run it and how to read the numbers.

mod count;
mod host;
mod identity;
mod load;
mod options;
mod peers;
mod plot;
mod report;
mod run;
mod scenario;
mod stats;

use options::Options;
use std::process::ExitCode;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: arena COMMAND [--option value]...
  run    compare the peers: [--layers] [--quick] [--peers a,b] [--add NAME=PROGRAM] [--scenarios ping,chat-100]
         [--rounds N] [--minutes M] [--slice MS] [--cores SERVER,CLIENT] [--realtime] [--out DIR]
  list   the peers and the scenarios
  table  print the Markdown tables of a run again: [--csv FILE]
  plot   draw the plots of a run again: [--csv FILE] [--parts FILE] [--out DIR]
  count  system calls and user instructions for each message: [--peers a,b] [--add NAME=PROGRAM]
         [--scenarios alone,udp-16x8] [--out DIR]
  load   load one server, commands on stdin (what `run` starts for each peer):
         --scenario NAME --addr IP:PORT --pid PID [--core N]";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let outcome = Options::parse(words).and_then(|options| match command.as_str() {
        "run" => run::run(&options),
        "list" => run::list(),
        "table" => report::print_again(&options),
        "plot" => plot::plot(&options),
        "count" => count::count(&options),
        "load" => load::serve_commands(&options),
        _ => Err(USAGE.into()),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
