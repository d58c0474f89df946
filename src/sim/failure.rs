//! Why a run failed, with what led to it.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::sys::sim::trace::{Entry, Notes, Shown};
use crate::sys::sim::{Fault, World};

/// A run that failed: what was wrong, when, and the last events of each host.
///
/// Its text is for people: seed, hash, the command that repeats the run, a timeline.
pub struct Failure(pub(super) Box<Details>);

/// What a failure knows.
pub(super) struct Details {
    pub(super) seed: u64,
    pub(super) hash: u64,
    pub(super) at: u64,
    pub(super) host: String,
    pub(super) what: String,
    pub(super) faults: Vec<Fault>,
    pub(super) ends: Option<u64>,
    pub(super) timeline: Vec<Line>,
    pub(super) command: Option<String>,
    /// The line of the scenario whose condition did not hold.
    pub(super) line: Option<u32>,
}

/// One event, as text.
pub(super) struct Line {
    at: u64,
    host: String,
    text: String,
}

impl Line {
    pub(super) fn of(entry: &Entry, names: &[String], notes: &Notes) -> Self {
        let shown = Shown { event: entry.event, names, notes };
        let host = names.get(entry.host as usize).cloned().unwrap_or_default();
        Line { at: entry.at, host, text: shown.to_string() }
    }
}

impl Failure {
    pub(super) fn of(world: &World, seed: u64, host: Option<u32>, what: String) -> Self {
        let names: Vec<String> = world.hosts.iter().map(|host| host.name.clone()).collect();
        let entries = match &world.trace.all {
            Some(all) if asked().is_some() => all.clone(),
            _ => world.trace.recent(),
        };
        Failure(Box::new(Details {
            seed,
            hash: world.trace.hash(),
            at: world.now,
            host: host.and_then(|host| names.get(host as usize).cloned()).unwrap_or_default(),
            what,
            faults: world.faults_that_happened(),
            ends: None,
            timeline: entries.iter().map(|entry| Line::of(entry, &names, &world.notes)).collect(),
            command: None,
            line: None,
        }))
    }

    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The hash of the trace up to the failure.
    pub fn hash(&self) -> u64 {
        self.0.hash
    }

    /// When it failed, since the simulation began.
    pub fn at(&self) -> Duration {
        Duration::from_nanos(self.0.at)
    }

    /// On which host; empty if it is the scenario's failure.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// What was wrong, in one sentence.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// The kinds of faults that happened before. After [`check`](super::check) has looked for a
    /// shorter schedule: those without which it does not fail.
    pub fn faults(&self) -> &[Fault] {
        &self.0.faults
    }
}

/// How many events the text shows, unless `TIDEGATE_EVENTS` says otherwise.
const SHOWN: usize = 60;

/// How many events somebody wants to see: all of the run are kept then.
pub(super) fn asked() -> Option<usize> {
    std::env::var("TIDEGATE_EVENTS").ok()?.parse().ok()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at();
        if self.0.host.is_empty() {
            writeln!(f, "{} (at {at:?})", self.0.what)?;
        } else {
            writeln!(f, "{}: {} (at {at:?})", self.0.host, self.0.what)?;
        }
        writeln!(f, "seed {}, hash {:016x}", self.0.seed, self.0.hash)?;
        if !self.0.faults.is_empty() {
            let faults: Vec<String> = self.0.faults.iter().map(Fault::to_string).collect();
            writeln!(f, "faults: {}", faults.join(", "))?;
        }
        if let Some(ends) = self.0.ends {
            writeln!(f, "no fault after {:?} is needed", Duration::from_nanos(ends))?;
        }
        if let Some(command) = &self.0.command {
            writeln!(f, "repeat it with: {command}")?;
        }
        let shown = asked().unwrap_or(SHOWN);
        let first = self.0.timeline.len().saturating_sub(shown);
        if first > 0 {
            writeln!(f, "the last {shown} events (TIDEGATE_EVENTS=n shows more):")?;
        }
        let width = self.0.timeline.iter().map(|line| line.host.len()).max().unwrap_or(0);
        for Line { at, host, text } in &self.0.timeline[first..] {
            let at = *at as f64 / 1e6;
            writeln!(f, "  {at:>14.6} ms  {host:width$}  {text}")?;
        }
        Ok(())
    }
}

/// The text, because a test that returns it is shown with `Debug`.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Failure {}
