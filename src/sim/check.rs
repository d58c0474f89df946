//! Many seeds: which one fails, how to repeat it, and with how few faults it still fails.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Once;

use super::failure::{Details, Line, asked};
use super::{Failure, ScenarioResult, Sim};
use crate::sys::sim::Drawn;
use crate::sys::sim::trace::{Entry, Notes, Shown};

/// What is different in a run from what its seed alone decides.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    off: Vec<super::Fault>,
    until: Option<u64>,
    /// Every event is kept.
    pub(super) records: bool,
}

impl Changes {
    pub(super) fn apply(&self, drawn: &mut Drawn) {
        for &fault in &self.off {
            drawn.switch_off(fault);
        }
        if let Some(until) = self.until {
            drawn.until = drawn.until.min(until);
        }
    }
}

/// What [`try_check`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Checked {
    /// How many seeds ran, those that ran twice once.
    pub seeds: u64,
    /// How many events they had.
    pub events: u64,
    /// How many ran twice, to compare the hashes.
    pub compared: u64,
}

/// The variable whose number is the only seed to run.
const SEED: &str = "TIDEGATE_SEED";

/// How many events the search for a shorter schedule may cost: some seconds.
const SEARCH: u64 = 5_000_000;

/// Each so many seeds one runs twice.
const TWICE_EACH: u64 = 16;

/// Runs a scenario with many seeds. Each run begins with a new simulation.
///
/// - A run fails if the scenario returns an error or panics, or if something happens that must not.
/// - The first run, and one of 16 after it, runs twice: different hashes fail, and the first event
///   that differs is named. The usual reason is a `HashMap` that is iterated (its order is random in
///   each process); `BTreeMap` is the cure. Others are the real clock and other threads.
/// - Of the first failing seed a shorter schedule is searched: kinds of faults are switched off one
///   after the other, and faults end earlier, as long as it still fails the same way.
/// - `TIDEGATE_SEED=n` in the environment runs that seed alone, twice.
/// - `TIDEGATE_EVENTS=n` shows the last n events of a run that fails, and not the last 60.
///
/// ```
/// use std::time::Duration;
/// use tidegate::sim::{Faults, check};
/// use tidegate::{Context, Handler, HandlerResult, Input};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
///         cx.send(input.take_all());
///         Ok(())
///     }
/// }
///
/// check(0..20, |sim| {
///     sim.faults(Faults::swarm());
///     sim.host("server", |net| net.listen("0.0.0.0:7", |_peer| Echo).map(drop))?;
///     let peer = sim.peer("peer")?;
///     sim.raw(peer).connect("server:7")?;
///     sim.raw(peer).send(b"hello");
///     sim.run_for(Duration::from_secs(5))?;
///     assert!(b"hello".starts_with(sim.raw(peer).received()));
///     Ok(())
/// });
/// ```
///
/// # Panics
/// A run failed. The message is that of the [`Failure`], with the command that repeats the run.
#[track_caller]
pub fn check(seeds: impl IntoIterator<Item = u64>, scenario: impl Fn(&mut Sim) -> ScenarioResult) {
    if let Err(failure) = try_check(seeds, scenario) {
        panic!("{failure}");
    }
}

/// The same, for programs that go on after a failure.
///
/// # Errors
/// The failure of the first seed that failed.
///
/// # Panics
/// There is no seed at all, or `TIDEGATE_SEED` is no number.
pub fn try_check(
    seeds: impl IntoIterator<Item = u64>,
    scenario: impl Fn(&mut Sim) -> ScenarioResult,
) -> Result<Checked, Failure> {
    let mut checked = Checked::default();
    if let Some(seed) = chosen_seed() {
        run_one(seed, true, &scenario, &mut checked)?;
        return Ok(checked);
    }
    for (number, seed) in seeds.into_iter().enumerate() {
        let twice = (number as u64).is_multiple_of(TWICE_EACH);
        run_one(seed, twice, &scenario, &mut checked)?;
    }
    assert!(checked.seeds > 0, "expected at least one seed, got none: nothing was checked");
    Ok(checked)
}

fn chosen_seed() -> Option<u64> {
    let text = std::env::var(SEED).ok()?;
    match text.parse() {
        Ok(seed) => Some(seed),
        Err(e) => panic!("{SEED}: expected a number, got {text:?}: {e}"),
    }
}

fn run_one(
    seed: u64,
    twice: bool,
    scenario: &impl Fn(&mut Sim) -> ScenarioResult,
    checked: &mut Checked,
) -> Result<(), Failure> {
    let first = Run::of(
        seed,
        Changes { records: twice || asked().is_some(), ..Changes::default() },
        scenario,
    );
    checked.seeds += 1;
    checked.events += first.events;
    if let Some(failure) = first.failure {
        return Err(shortened(seed, failure, first.events, scenario));
    }
    if twice && !first.unrepeatable {
        checked.compared += 1;
        let second = Run::of(seed, Changes { records: true, ..Changes::default() }, scenario);
        if let Some(mut failure) = first.difference(&second) {
            failure.0.command = Some(command(seed));
            return Err(failure);
        }
    }
    Ok(())
}

/// One run of a scenario.
struct Run {
    seed: u64,
    failure: Option<Failure>,
    hash: u64,
    events: u64,
    /// Something drew randomness that the seed does not decide.
    unrepeatable: bool,
    all: Vec<Entry>,
    names: Vec<String>,
    notes: Notes,
}

impl Run {
    fn of(seed: u64, changes: Changes, scenario: &impl Fn(&mut Sim) -> ScenarioResult) -> Self {
        let mut sim = Sim::changed(seed, changes);
        let result = catch_unwind(AssertUnwindSafe(|| scenario(&mut sim)));
        let mut failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(match error.downcast::<Failure>() {
                Ok(failure) => *failure,
                Err(error) => sim.failed(None, error.to_string()),
            }),
            Err(panic) => {
                let text = text_of(&*panic);
                if sim.world.is_none() {
                    // It came out of a step of the simulation itself.
                    resume_unwind(panic);
                }
                Some(sim.failed(None, format!("the scenario panicked: {text}")))
            }
        };
        let hash = sim.hash();
        let events = sim.events();
        let notes = std::mem::take(&mut sim.world_mut().notes);
        let names = sim.world().hosts.iter().map(|host| host.name.clone()).collect();
        let all = sim.world_mut().trace.all.take().unwrap_or_default();
        let unrepeatable = sim.world().unrepeatable.is_some();
        // The end: every handler is closed and dropped, which may break a promise, too.
        for host in 0..sim.hosts.len() as u32 {
            sim.take_down(host);
        }
        if failure.is_none() {
            failure = sim.violation();
        }
        Run { seed, failure, hash, events, unrepeatable, all, names, notes }
    }

    /// The first event that differs from the other run's.
    fn difference(&self, other: &Run) -> Option<Failure> {
        if self.hash == other.hash && other.failure.is_none() {
            return None;
        }
        let same = self.all.iter().zip(&other.all).take_while(|(a, b)| a == b).count();
        let show = |run: &Run| match run.all.get(same) {
            None => "nothing".to_owned(),
            Some(entry) => {
                let name = run.names.get(entry.host as usize).map_or("", |name| name);
                let shown = Shown { event: entry.event, names: &run.names, notes: &run.notes };
                format!("{name}: {shown} (at {} ns)", entry.at)
            }
        };
        let (here, there) = (show(self), show(other));
        let bytes = if here == there { ", with other bytes" } else { "" };
        let what = format!(
            "two runs with this seed differ, so that something in them does not come from it (a \
             HashMap that is iterated? the real clock? a thread?). Event {same} was \"{here}\" at \
             first and \"{there}\" then{bytes}"
        );
        let line = |entry: &Entry| Line::of(entry, &self.names, &self.notes);
        Some(Failure(Box::new(Details {
            seed: self.seed,
            hash: self.hash,
            at: self.all.get(same).map_or(0, |entry| entry.at),
            host: String::new(),
            what,
            faults: Vec::new(),
            ends: None,
            timeline: self.all[same.saturating_sub(40)..same].iter().map(line).collect(),
            command: None,
            line: None,
        })))
    }
}

pub(super) fn text_of(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "(a value that is no text)".to_owned(),
    }
}

thread_local! {
    /// This thread repeats a run that has failed.
    static REPEATS: Cell<bool> = const { Cell::new(false) };
}

/// Panics in `call` are not printed: that of the first run was, and each would cost a backtrace.
fn quietly<T>(call: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            REPEATS.set(false);
        }
    }
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !REPEATS.try_with(Cell::get).unwrap_or(false) {
                before(panic);
            }
        }));
    });
    REPEATS.set(true);
    let _reset = Reset;
    call()
}

/// The failure with as few kinds of faults as it takes, and as early an end of them.
fn shortened(
    seed: u64,
    failure: Failure,
    events: u64,
    scenario: &impl Fn(&mut Sim) -> ScenarioResult,
) -> Failure {
    let mut left = SEARCH.saturating_sub(events);
    let kind = |failure: &Failure| {
        // The same sentence, whatever its numbers are.
        let letters = failure.0.what.chars().filter(|c| !c.is_ascii_digit());
        (letters.collect::<String>(), failure.0.line)
    };
    let wanted = kind(&failure);
    let mut again = |changes: &Changes| {
        if left < events {
            return None;
        }
        let run = quietly(|| Run::of(seed, changes.clone(), scenario));
        left = left.saturating_sub(run.events);
        run.failure.filter(|f| kind(f) == wanted)
    };
    let mut best = failure;
    let mut changes = Changes { records: asked().is_some(), ..Changes::default() };
    // Without one kind, others may happen that did not before.
    let mut tried = Vec::new();
    while let Some(&fault) = best.0.faults.iter().find(|&fault| !tried.contains(fault)) {
        tried.push(fault);
        let mut fewer = changes.clone();
        fewer.off.push(fault);
        if let Some(shorter) = again(&fewer) {
            (best, changes) = (shorter, fewer);
        }
    }
    let mut low = 0;
    let mut high = best.0.at.saturating_add(1);
    for _ in 0..12 {
        if best.0.faults.is_empty() || high - low < 2 {
            break;
        }
        let middle = low + (high - low) / 2;
        let earlier = Changes { until: Some(middle), ..changes.clone() };
        match again(&earlier) {
            Some(shorter) => {
                high = middle;
                best = shorter;
                best.0.ends = Some(middle);
                changes = earlier;
            }
            None => low = middle,
        }
    }
    best.0.command = Some(command(seed));
    best
}

/// The command that repeats the run: of this very test, if it is one.
fn command(seed: u64) -> String {
    match std::thread::current().name() {
        Some(test) if test != "main" => {
            format!("{SEED}={seed} cargo test --all-features -- {test}")
        }
        _ => format!("the environment variable {SEED}={seed}"),
    }
}
