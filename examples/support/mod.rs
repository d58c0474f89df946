//! What every example does around its protocol: arguments, `--help`, and one clear line when
//! something fails.
#![allow(dead_code)] // each example uses a part of it

use std::error::Error;
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;

#[cfg(feature = "tls")]
pub(crate) mod certificate;
pub(crate) mod metrics;
#[cfg(feature = "tls")]
pub(crate) mod trust;

/// The body of an example's `main`. Fills in the arguments that were not given from `defaults` and
/// runs `run` with them; an error becomes one line on standard error, and exit status 1.
///
/// `help` is what `--help` prints. Its first word is the example's name.
pub(crate) fn main<const N: usize>(
    help: &str,
    defaults: [&str; N],
    run: impl FnOnce([String; N]) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    main_with_options(help, |arguments| run(arguments.rest(defaults)?))
}

/// Like [`main`], for an example with options. `run` asks for each option first, then for the
/// [`rest`](Arguments::rest).
pub(crate) fn main_with_options(
    help: &str,
    run: impl FnOnce(&mut Arguments) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    // RUST_LOG=debug shows what the library does; without it, what the user should know.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let name = help.split_whitespace().next().unwrap_or("example");
    let given = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    let mut arguments = Arguments(given.collect());
    if arguments.flag("--help") || arguments.flag("-h") {
        // A reader may have closed the pipe after the first lines; that is no error.
        let _ = writeln!(std::io::stdout(), "{help}");
        return ExitCode::SUCCESS;
    }
    match run(&mut arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

/// Prints a line. `println!` panics where that fails: a full disk, a pipe that was closed.
pub(crate) fn say(line: impl Display) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
        .map_err(|e| std::io::Error::new(e.kind(), format!("cannot write to standard output: {e}")))
}

/// What was given on the command line and has not been used yet.
pub(crate) struct Arguments(Vec<String>);

impl Arguments {
    /// Whether `name` was given.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|argument| argument != name);
        self.0.len() < before
    }

    /// The value behind `name`, if that was given: `--name VALUE`.
    pub(crate) fn option<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Usage>
    where
        T::Err: Display,
    {
        let Some(at) = self.0.iter().position(|argument| argument == name) else {
            return Ok(None);
        };
        self.0.remove(at);
        if at == self.0.len() {
            return Err(Usage(format!("expected a value behind {name}")));
        }
        let value = self.0.remove(at);
        match value.parse() {
            Ok(value) => Ok(Some(value)),
            Err(why) => Err(Usage(format!("did not expect {name} '{value}': {why}"))),
        }
    }

    /// The arguments that are no options, those that were not given from `defaults`.
    pub(crate) fn rest<const N: usize>(
        &mut self,
        defaults: [&str; N],
    ) -> Result<[String; N], Usage> {
        let mut arguments = defaults.map(str::to_owned);
        for (at, given) in self.0.drain(..).enumerate() {
            match arguments.get_mut(at) {
                Some(argument) if !given.starts_with('-') => *argument = given,
                _ => {
                    return Err(Usage(format!("did not expect '{given}'; --help says what is")));
                }
            }
        }
        Ok(arguments)
    }
}

/// The command line is not what the program expects: exit status 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Usage {}
