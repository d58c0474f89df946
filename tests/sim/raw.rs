//! Raw peers do what they are told, whatever the faults are.

use std::time::Duration;

use tidegate::sim::{Fault, Faults, ScenarioResult, Sim, check};
use tidegate::{Context, Handler, HandlerResult, Input};

struct Echo;

impl Handler for Echo {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        cx.send(input.take_all());
        Ok(())
    }
}

#[test]
fn faults_of_a_process_do_not_meet_a_raw_peer() {
    check(0..20, |sim| {
        sim.faults(Faults::none().with(Fault::Descriptors, 1.0).with(Fault::AcceptErrors, 1.0));
        let (one, other) = (sim.peer("one")?, sim.peer("other")?);
        sim.raw(other).listen("0.0.0.0:7")?;
        sim.raw(one).connect("other:7")?;
        sim.raw(one).send(b"hello");
        sim.run_for(Duration::from_secs(1))?;
        assert_eq!(sim.raw(other).received(), b"hello");
        Ok(())
    });
}

#[test]
fn a_peer_of_a_server_may_always_try() {
    check(0..200, |sim| {
        sim.faults(Faults::swarm());
        sim.host("server", |net| net.listen("0.0.0.0:7", |_peer| Echo).map(drop))?;
        let peer = sim.peer("peer")?;
        sim.raw(peer).connect("server:7")?;
        sim.raw(peer).send(b"hello");
        sim.run_for(Duration::from_secs(60))?;
        assert!(b"hello".starts_with(sim.raw(peer).received()));
        Ok(())
    });
}

#[test]
fn what_is_said_before_somebody_connects_is_said_then() -> ScenarioResult {
    let mut sim = Sim::new(1);
    let (server, client) = (sim.peer("server")?, sim.peer("client")?);
    sim.raw(server).send(b"220 ");
    sim.raw(server).listen("0.0.0.0:25")?;
    sim.raw(server).send(b"ready");
    sim.raw(server).end();
    sim.at(Duration::from_secs(1), move |sim| sim.raw(client).connect("server:25").unwrap());
    sim.run_for(Duration::from_secs(2))?;
    assert_eq!(sim.raw(client).received(), b"220 ready");
    assert!(sim.raw(client).has_ended());
    Ok(())
}

#[test]
fn what_a_connection_has_brought_can_be_read_after_it() -> ScenarioResult {
    let mut sim = Sim::new(1);
    sim.host("server", |net| net.listen("0.0.0.0:7", |_peer| Echo).map(drop))?;
    let peer = sim.peer("peer")?;
    let second = Duration::from_secs(1);
    sim.raw(peer).connect("server:7")?;
    sim.raw(peer).send(b"one");
    sim.run_for(second)?;
    sim.raw(peer).reset();
    assert_eq!(sim.raw(peer).received(), b"one");
    sim.raw(peer).connect("server:7")?;
    assert_eq!(sim.raw(peer).received(), b"");
    sim.raw(peer).send(b"two");
    sim.run_for(second)?;
    sim.raw(peer).close();
    assert_eq!(sim.raw(peer).received(), b"two");
    Ok(())
}
