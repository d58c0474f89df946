//! Messages of a `Remote`.

use std::time::Duration;

use tidegate::sim::Sim;

#[test]
fn what_is_posted_between_runs_is_an_event_of_the_next_one() {
    let (mut one, mut other) = (Sim::new(1), Sim::new(1));
    let host = one.host("one", |_| Ok(0)).unwrap();
    let far = other.host("other", |_| Ok(0)).unwrap();
    let (remote, far_remote) = (one.remote(host), other.remote(far));
    one.settle(Duration::from_secs(1)).unwrap();
    remote.post(|state, _| *state += 1).unwrap();
    // From a step of another simulation, too.
    one.at(Duration::from_secs(2), move |_| far_remote.post(|state, _| *state += 10).unwrap());
    one.settle(Duration::from_secs(5)).unwrap();
    assert_eq!((*one.state(host), *other.state(far)), (1, 0));
    other.settle(Duration::from_secs(1)).unwrap();
    assert_eq!(*other.state(far), 10);
    let mut posted = false;
    other
        .run_until(Duration::from_secs(1), |sim| {
            if !std::mem::replace(&mut posted, true) {
                let remote = sim.remote(far);
                remote.post(|state, _| *state += 1).unwrap();
            }
            *sim.state(far) == 11
        })
        .unwrap();
}
