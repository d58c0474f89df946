//! Which seeds run, which run twice, and what is said when two runs differ.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate::sim::{Sim, check, try_check};
use tidegate::{Context, Handler, HandlerResult, Input};

use crate::scenarios::{chat, echo, proxy, udp};

#[test]
fn a_seed_gives_the_same_trace_each_time_and_another_seed_another_one() {
    for run in [echo::run, chat::run, proxy::run, udp::run] {
        let trace = |seed| {
            let mut sim = Sim::new(seed);
            run(&mut sim).unwrap();
            (sim.hash(), sim.events())
        };
        let first: Vec<_> = (0..4).map(trace).collect();
        let again: Vec<_> = (0..4).map(trace).collect();
        assert_eq!(first, again);
        let mut hashes: Vec<u64> = first.iter().map(|&(hash, _)| hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), first.len());
    }
}

#[test]
fn the_first_run_and_one_of_sixteen_after_it_are_compared() {
    let checked = try_check(0..33, |sim| Ok(sim.run_for(Duration::from_secs(1))?)).unwrap();
    assert_eq!((checked.seeds, checked.compared), (33, 3));
}

struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(input.take_all());
        Ok(())
    }
}

#[test]
fn the_first_event_that_differs_between_two_runs_is_named() {
    let runs = AtomicU64::new(0);
    let failure = try_check(7..8, |sim| {
        // What a counter of the process, a clock or the order of a `HashMap` does to a message.
        let text: &[u8] = if runs.fetch_add(1, Ordering::Relaxed) == 0 { b"one" } else { b"three" };
        sim.host("server", |net| net.listen("0.0.0.0:7", |_peer| Echo).map(drop))?;
        let peer = sim.peer("peer")?;
        sim.raw(peer).connect("server:7")?;
        sim.raw(peer).send(text);
        Ok(sim.run_for(Duration::from_secs(1))?)
    })
    .unwrap_err();
    let what = failure.what();
    assert!(what.starts_with("two runs with this seed differ"), "{what}");
    assert!(what.contains("\"peer: writes 3 bytes: #0, port 49152 to server:7"), "{what}");
    assert!(what.contains("\"peer: writes 5 bytes: #0, port 49152 to server:7"), "{what}");
    assert_eq!(failure.seed(), 7);
    assert!(failure.to_string().contains("peer    is connected"), "{failure}");
}

#[test]
fn bytes_that_differ_are_an_event_that_differs() {
    let runs = AtomicU64::new(0);
    let failure = try_check(7..8, |sim| {
        let text: &[u8] = if runs.fetch_add(1, Ordering::Relaxed) == 0 { b"one" } else { b"two" };
        let (here, there) = (sim.peer("here")?, sim.peer("there")?);
        sim.raw(there).listen("0.0.0.0:7")?;
        sim.raw(here).connect("there:7")?;
        sim.raw(here).send(text);
        Ok(sim.run_for(Duration::from_secs(1))?)
    });
    let what = failure.unwrap_err().what().to_owned();
    assert!(
        what.ends_with("then, with other bytes") && what.contains("there: 3 bytes arrive"),
        "{what}"
    );
}

#[test]
#[ignore = "the next tests run it"]
fn prints_its_seeds() {
    check(0..3, |sim| {
        eprintln!("seed {}", sim.seed());
        Ok(sim.run_for(Duration::from_secs(1))?)
    });
}

fn with_seed(seed: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["repeats::prints_its_seeds", "--exact", "--ignored", "--nocapture"])
        .env("TIDEGATE_SEED", seed)
        .output()
        .unwrap()
}

#[test]
fn the_environment_chooses_one_seed_which_runs_twice() {
    let output = with_seed("11");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("seed ").count(), 2, "{text}");
    assert_eq!(text.matches("seed 11\n").count(), 2, "{text}");
}

#[test]
fn a_seed_that_is_no_number_is_refused() {
    let output = with_seed("eleven");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("TIDEGATE_SEED: expected a number, got \"eleven\""), "{text}");
}
