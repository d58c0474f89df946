//! What a run checks, and what its failure says.

use std::cell::RefCell;
use std::time::Duration;

use tidegate::sim::{Failure, Fault, Faults, Link, ScenarioResult, Sim, check, try_check};
use tidegate::{Context, Handler, HandlerResult, Input, Net};

use crate::kit::{Log, SECOND, Watch, connect, idle, listen, ms};

/// Panics as soon as something comes.
struct Panics;

impl Handler for Panics {
    fn on_data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let got = input.take_all().len();
        assert_eq!(got, 0, "on purpose");
        Ok(())
    }
}

fn with_panics(sim: &mut Sim) {
    sim.host("server", |net| net.listen("0.0.0.0:7", |_| Panics).map(drop)).unwrap();
    connect(sim, "client", "server:7", Watch::saying("hello"));
}

#[test]
fn an_assertion_in_a_handler_fails_the_run() {
    let mut sim = Sim::new(1);
    with_panics(&mut sim);
    let failure = sim.run_for(SECOND).unwrap_err();
    let text = failure.to_string();
    assert!(text.starts_with("server: a panic: ") && text.contains("on purpose"), "{text}");
    // It stays: whoever goes on learns of it again.
    assert!(sim.run_for(SECOND).is_err());
}

#[test]
fn panics_may_be_what_a_scenario_is_about() {
    let mut sim = Sim::new(1);
    sim.allow_panics();
    with_panics(&mut sim);
    sim.run_for(SECOND).unwrap();
}

#[test]
fn a_scenario_that_ignores_a_failure_fails_all_the_same() {
    let failure = try_check(0..1, |sim| {
        with_panics(sim);
        let _ = sim.run_for(SECOND);
        Ok(())
    })
    .unwrap_err();
    assert!(failure.what().contains("on purpose"), "{failure}");
}

/// Panics when it is dropped.
struct Bomb;

impl Handler for Bomb {
    fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::panic_any("dropped on purpose");
        }
    }
}

#[test]
fn a_panic_behind_the_end_of_the_scenario_fails_the_run() {
    let failure = try_check(0..1, |sim| {
        sim.host("server", |net| net.listen("0.0.0.0:7", |_| Bomb).map(drop))?;
        connect(sim, "client", "server:7", Watch::saying("hello"));
        sim.run_for(SECOND)?;
        Ok(())
    })
    .unwrap_err();
    assert!(failure.what().contains("dropped on purpose"), "{failure}");
}

#[test]
fn a_scenario_s_own_error_and_panic_fail_the_run() {
    let failure = try_check(3..5, |_| Err("not what was wanted".into())).unwrap_err();
    assert_eq!((failure.seed(), failure.what()), (3, "not what was wanted"));
    let failure = try_check(3..5, |sim| {
        assert_ne!(sim.seed(), 4, "seed four");
        Ok(())
    })
    .unwrap_err();
    assert_eq!(failure.seed(), 4);
    assert!(failure.what().starts_with("the scenario panicked: "), "{failure}");
    assert!(failure.what().contains("seed four"), "{failure}");
}

fn again(_: &mut Log, net: &mut Net<Log>) {
    net.run_after(ms(100), again);
}

#[test]
fn what_never_becomes_quiet_is_named() {
    let mut sim = Sim::new(1);
    idle(&mut sim, "quiet");
    let host = idle(&mut sim, "restless");
    sim.with(host, again);
    let failure = sim.settle(SECOND).unwrap_err();
    let what = failure.what();
    assert!(what.starts_with("not quiet after 1s: restless has something to do at 1."), "{what}");
    let mut sim = Sim::new(1);
    sim.at(5 * SECOND, |_| {});
    let failure = sim.settle(SECOND).unwrap_err();
    assert_eq!(failure.what(), "not quiet after 1s: an action has something to do at 5s");
    sim.settle(5 * SECOND).unwrap();
}

#[test]
fn a_condition_that_does_not_come_true() {
    let mut sim = Sim::new(1);
    let host = idle(&mut sim, "host");
    sim.with(host, again);
    let failure = sim.run_until(SECOND, |_| false).unwrap_err();
    assert!(failure.what().starts_with("the condition at tests/sim/"), "{failure}");
    assert!(failure.what().ends_with(" did not hold within 1s"), "{failure}");
    let mut sim = Sim::new(1);
    idle(&mut sim, "host");
    let failure = sim.run_until(SECOND, |_| false).unwrap_err();
    assert!(failure.what().ends_with("nothing is left to happen"), "{failure}");
}

/// Fails if a message comes in pieces, which only short writes do here.
fn in_one_piece(sim: &mut Sim) -> ScenarioResult {
    sim.faults(
        Faults::none()
            .with(Fault::ShortWrites, 0.3)
            .with(Fault::Jitter, 0.5)
            .with(Fault::InterruptedPolls, 0.3)
            .with(Fault::ReadyOrder, 1.0)
            .with(Fault::Loss, 0.1),
    );
    let server = listen(sim, "server", 7, Watch::default());
    connect(sim, "client", "server:7", Watch::saying("hello"));
    sim.run_for(60 * SECOND)?;
    let pieces = sim.state(server).pieces();
    if pieces.len() > 1 {
        return Err(format!("{} pieces", pieces.len()).into());
    }
    // What comes later is not needed.
    sim.run_for(600 * SECOND)?;
    Ok(())
}

fn failure_of(scenario: fn(&mut Sim) -> ScenarioResult) -> Failure {
    try_check(0..200, scenario).unwrap_err()
}

#[test]
fn a_failure_keeps_the_faults_that_it_takes() {
    let failure = failure_of(in_one_piece);
    assert_eq!(failure.faults(), [Fault::ShortWrites], "{failure}");
    let text = failure.to_string();
    assert!(text.contains("faults: short writes\n"), "{text}");
    assert!(text.contains("no fault after "), "{text}");
}

#[test]
fn the_text_of_a_failure_says_how_to_repeat_it() {
    let failure = failure_of(in_one_piece);
    let text = failure.to_string();
    let seed = failure.seed();
    assert!(text.contains(&format!("seed {seed}, hash {:016x}\n", failure.hash())), "{text}");
    let name = "invariants::the_text_of_a_failure_says_how_to_repeat_it";
    let command = format!("TIDEGATE_SEED={seed} cargo test --all-features -- {name}\n");
    assert!(text.contains(&command), "{text}");
    assert!(text.contains("ms  client  connects: port 49152 to server:7\n"), "{text}");
    assert!(text.contains("ms  server  on_data of #"), "{text}");
    assert_eq!(format!("{failure:?}"), text, "a test that returns it shows the same");
    assert!(failure.at() >= 60 * SECOND);
    // The command repeats it: so does a run by hand.
    let mut sim = Sim::new(seed);
    assert!(in_one_piece(&mut sim).is_err());
}

#[test]
#[should_panic(expected = "repeat it with: ")]
fn check_panics_with_that_text() {
    check(0..200, in_one_piece);
}

#[test]
fn a_run_without_a_failure_says_what_it_did() {
    let checked = try_check(0..33, |sim| {
        listen(sim, "server", 7, Watch::default());
        connect(sim, "client", "server:7", Watch::saying("hello"));
        sim.run_for(SECOND)?;
        Ok(())
    })
    .unwrap();
    assert_eq!((checked.seeds, checked.compared), (33, 3));
    assert!(checked.events >= 33 * 5, "{checked:?}");
}

thread_local! {
    static SEEDS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn seeds_that_run() {
    let result = try_check(0..3, |sim| {
        SEEDS.with_borrow_mut(|seeds| seeds.push(sim.seed()));
        Ok(())
    });
    let seeds = SEEDS.take();
    if std::env::var_os("TIDEGATE_SEED").is_some() {
        assert_eq!(seeds, [17, 17], "the chosen one, twice");
    } else {
        assert_eq!(seeds, [0, 0, 1, 2], "the first one twice");
    }
    assert!(result.is_ok());
}

#[test]
fn a_seed_of_the_environment_runs_alone() {
    let run = |seed: &str| {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "invariants::seeds_that_run"])
            .env("TIDEGATE_SEED", seed)
            .output()
            .unwrap()
    };
    let output = run("17");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let output = run("0x11");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("TIDEGATE_SEED: expected a number, got \"0x11\""), "{text}");
}

#[test]
fn a_swarm_switches_half_of_the_faults_on() {
    let mut kinds = Vec::new();
    for seed in 0..30 {
        let mut sim = Sim::new(seed);
        sim.faults(Faults::swarm());
        sim.default_link(Link::new().latency(ms(1)..ms(10))).unwrap();
        listen(&mut sim, "server", 7, Watch::echo());
        for name in ["ada", "bob", "cleo"] {
            connect(&mut sim, name, "server:7", Watch::saying(vec![7; 30_000]));
        }
        sim.run_for(Duration::from_secs(20)).unwrap();
        let happened = sim.run_until(ms(1), |_| false).unwrap_err();
        kinds.extend(happened.faults().to_vec());
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert!(kinds.len() > 12, "{kinds:?}");
    let none = Faults::swarm().without(Fault::Crashes);
    let mut sim = Sim::new(1);
    sim.faults(none.until(Duration::ZERO));
    listen(&mut sim, "server", 7, Watch::echo());
    connect(&mut sim, "client", "server:7", Watch::saying(vec![7; 30_000]));
    sim.run_for(SECOND).unwrap();
    assert_eq!(sim.run_until(ms(1), |_| false).unwrap_err().faults(), []);
}
