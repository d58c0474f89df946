//! `run_for`, `run_until`, `settle`: when they end.

use std::time::Duration;

use tidegate::sim::Sim;
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
    assert_eq!(failure.what(), "the condition did not hold within 1s");
    assert_eq!(failure.at(), Duration::from_secs(1));
    assert_eq!(sim.now(), Duration::from_secs(1));
    Ok(())
}
