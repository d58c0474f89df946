//! Why a run failed, with what led to it.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::sys::sim::trace::Entry;
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
    pub(super) timeline: Vec<(String, Entry)>,
    pub(super) command: Option<String>,
}

impl Failure {
    pub(super) fn of(world: &World, seed: u64, host: Option<u32>, what: String) -> Self {
        let name = |host: u32| world.hosts.get(host as usize).map_or("", |host| &host.name);
        Failure(Box::new(Details {
            seed,
            hash: world.trace.hash(),
            at: world.now,
            host: host.map_or(String::new(), |host| name(host).to_owned()),
            what,
            faults: world.faults_that_happened(),
            ends: None,
            timeline: match &world.trace.all {
                Some(all) if asked().is_some() => all.clone(),
                _ => world.trace.recent(),
            }
            .into_iter()
            .map(|entry| (name(entry.host).to_owned(), entry))
            .collect(),
            command: None,
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
        let width = self.0.timeline.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, entry) in &self.0.timeline[first..] {
            let at = entry.at as f64 / 1e6;
            writeln!(f, "  {at:>14.6} ms  {name:width$}  {}", entry.event)?;
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
