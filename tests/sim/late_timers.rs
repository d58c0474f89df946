//! Timers that are due while their process does not run.

use std::time::Duration;

use tidegate::Config;
use tidegate::sim::Sim;

#[test]
fn a_budget_that_cuts_late_timers_is_no_fault() {
    let ms = Duration::from_millis;
    let mut sim = Sim::new(1);
    let config = Config::new().timers_per_turn(1);
    let host = sim
        .host_with("host", config, move |net| {
            for time in [10, 20, 30, 40] {
                net.run_after(ms(time), |fired: &mut usize, _| *fired += 1);
            }
            Ok(0)
        })
        .unwrap();
    sim.pause("host", ms(500)).unwrap();
    sim.run_for(ms(499)).unwrap();
    assert_eq!(*sim.state(host), 0);
    sim.run_for(ms(2)).unwrap();
    assert_eq!(*sim.state(host), 4);
}
