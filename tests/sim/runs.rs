//! `run_for`, `run_until`, `settle`: when they end. `check`: what it prints.

use std::time::Duration;

use tidegate::sim::{Faults, Sim, check};
use tidegate::{Error, Net};

fn tick(net: &mut Net<()>) {
    net.run_after(Duration::from_millis(300), |(), net| tick(net));
}

#[test]
fn a_condition_that_does_not_hold_fails_at_its_limit() -> Result<(), Error> {
    let mut sim = Sim::new(1);
    sim.host("host", |net| {
        tick(net);
        Ok(())
    })?;
    let failure = sim.run_until(Duration::from_secs(1), |_| false).unwrap_err();
    assert!(failure.what().starts_with("the condition at tests/sim/"), "{failure}");
    assert!(failure.what().ends_with(" did not hold within 1s"), "{failure}");
    assert_eq!(failure.at(), Duration::from_secs(1));
    assert_eq!(sim.now(), Duration::from_secs(1));
    Ok(())
}

/// Fails in any network, so that every repetition does, too.
#[test]
#[ignore = "the next test runs it"]
fn fails() {
    check(0..1, |sim| {
        sim.faults(Faults::swarm());
        sim.host("host", |net| net.listen("0.0.0.0:7", |_| tidegate::Relayed).map(drop))?;
        for name in ["ada", "bob"] {
            sim.host(name, |net| net.connect("host:7", tidegate::Relayed).map(drop))?;
        }
        sim.run_for(Duration::from_secs(60))?;
        eprintln!("a run");
        panic!("it fails");
    });
}

#[test]
fn a_failure_is_printed_once_and_without_faults_that_it_does_not_need() {
    let program = std::env::current_exe().unwrap();
    let arguments = ["runs::fails", "--exact", "--ignored", "--nocapture"];
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.matches("a run").count() > 3, "{text}");
    assert!(
        text.contains("the scenario panicked: it fails") && !text.contains("faults: "),
        "{text}"
    );
    // The panic of the scenario, and that of `check`.
    assert_eq!(text.matches("panicked at").count(), 2, "{text}");
}
