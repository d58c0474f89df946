//! What every example does around its protocol: arguments, `--help`, and one clear line when
//! something fails.

use std::error::Error;
use std::process::ExitCode;

/// The body of an example's `main`. Fills in the arguments that were not given from `defaults` and
/// runs `run` with them; an error becomes one line on standard error, and exit status 1.
///
/// `help` is what `--help` prints. Its first word is the example's name.
pub(crate) fn main<const N: usize>(
    help: &str,
    defaults: [&str; N],
    run: impl FnOnce([String; N]) -> Result<(), Box<dyn Error>>,
) -> ExitCode {
    // RUST_LOG=debug shows what the library does; without it, what the user should know.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let name = help.split_whitespace().next().unwrap_or("example");
    let fail = |status: u8, message: &dyn std::fmt::Display| {
        eprintln!("{name}: {message}");
        ExitCode::from(status)
    };

    let mut arguments = defaults.map(str::to_owned);
    for (at, given) in std::env::args_os().skip(1).enumerate() {
        let given = given.to_string_lossy().into_owned();
        if given == "--help" || given == "-h" {
            println!("{help}");
            return ExitCode::SUCCESS;
        }
        match arguments.get_mut(at) {
            Some(argument) if !given.starts_with('-') => *argument = given,
            _ => return fail(2, &format!("did not expect '{given}'; --help says what is")),
        }
    }
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &error),
    }
}
