//! Workers of a simulation, at moments that real threads do not hold still for.

use std::time::Duration;

use super::{Host, Sim};
use crate::error::{CloseInfo, HandlerResult};
use crate::workers::WorkerToken;
use crate::{
    Context, Handler, Input, Listen, Notification, StreamOptions, Token, Undelivered, Workers,
};

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

struct State {
    listener: Token,
    open: Vec<Token>,
    undelivered: Vec<WorkerToken>,
}

/// Tells its peer the worker's number, and is a member of the room.
struct Member;

impl Handler<State> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, State>) -> HandlerResult {
        cx.state.open.push(cx.token);
        let room = cx.net.group("room");
        cx.join(room);
        cx.send([b'0' + cx.net.worker() as u8]);
        Ok(())
    }
    fn on_data(&mut self, cx: &mut Context<'_, State>, input: &mut Input<'_>) -> HandlerResult {
        cx.net.publish_named("room", input.take_all());
        Ok(())
    }
    fn on_notify(&mut self, cx: &mut Context<'_, State>, value: Notification) -> HandlerResult {
        cx.state.undelivered.extend(value.take().map(|Undelivered { to }| to));
        Ok(())
    }
    fn on_close(&mut self, cx: &mut Context<'_, State>, _: &CloseInfo) {
        cx.state.open.retain(|&token| token != cx.token);
    }
}

fn server(sim: &mut Sim, workers: usize) -> Vec<Host<State>> {
    let workers = sim.workers("server", workers, |_, net| {
        let options = StreamOptions::new().idle_timeout(None);
        let listener = net.listen(Listen::tcp("0.0.0.0:1").options(options), |_| Member)?;
        Ok(State { listener, open: Vec::new(), undelivered: Vec::new() })
    });
    workers.unwrap()
}

fn connect(sim: &mut Sim, name: &str) -> super::Peer {
    let peer = sim.peer(name).unwrap();
    sim.raw(peer).connect("server:1").unwrap();
    peer
}

fn heard(sim: &mut Sim, peer: super::Peer) -> String {
    String::from_utf8(sim.raw(peer).received().to_vec()).unwrap()
}

/// The thread of a worker is not scheduled for so long.
fn stop(sim: &mut Sim, worker: Host<State>, time: Duration) {
    let until = sim.after(time);
    sim.stop_process(worker.index, until);
}

// row 262
#[test]
fn a_connection_on_its_way_to_a_listener_that_closes_goes_to_another_worker() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let workers = server(&mut sim, 2);
        let first = connect(&mut sim, "first");
        sim.run_for(ms(10)).unwrap();
        stop(&mut sim, workers[1], ms(100));
        let second = connect(&mut sim, "second");
        sim.run_for(ms(10)).unwrap();
        assert_eq!(heard(&mut sim, second), "", "it is on its way");
        sim.with(workers[1], |state, net| net.close(state.listener));
        sim.run_for(ms(500)).unwrap();
        assert_eq!((heard(&mut sim, first), heard(&mut sim, second)), ("0".into(), "0".into()));
        sim.settle(ms(1_000)).unwrap();
    }
}

// row 263
#[test]
fn what_waits_for_a_worker_that_dies_is_told_and_nothing_of_it_is_left() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let workers = server(&mut sim, 2);
        let [_, second] = ["first", "second"].map(|name| {
            let peer = connect(&mut sim, name);
            sim.run_for(ms(10)).unwrap();
            peer
        });
        let gone = sim.with(workers[1], |state, net| net.worker_token(state.open[0]));
        stop(&mut sim, workers[1], ms(100));
        sim.with(workers[0], move |state, net| {
            net.send_across_or_notify(gone, "for nobody", state.open[0]);
            net.publish_named("room", "for all");
        });
        sim.run_for(ms(10)).unwrap();
        sim.worker_dies(workers[1]).unwrap();
        sim.run_for(ms(500)).unwrap();
        assert!(sim.is_running(workers[1]), "it is built again");
        assert_eq!(sim.state(workers[0]).undelivered, [gone]);
        assert_eq!(heard(&mut sim, second), "1");
        // The room has no member there any more, and nothing counts as waiting.
        sim.settle(ms(1_000)).unwrap();
    }
}

// row 261
#[test]
fn a_crash_ends_all_workers_and_a_restart_begins_with_new_ones() {
    for off in [false, true] {
        let mut sim = Sim::new(7);
        let workers = server(&mut sim, 3);
        for name in ["a", "b", "c", "d"] {
            connect(&mut sim, name);
        }
        sim.run_for(ms(10)).unwrap();
        assert!(workers.iter().all(|&worker| !sim.state(worker).open.is_empty()));
        sim.worker_dies(workers[2]).unwrap(); // and is not built again behind the crash
        let crashed = if off { sim.power_off("server") } else { sim.crash("server") };
        crashed.unwrap();
        sim.run_for(ms(1_000)).unwrap();
        assert!(workers.iter().all(|&worker| !sim.is_running(worker)));
        let host = &sim.world().hosts[0];
        assert_eq!((host.descriptors, host.ownerless), (0, 0));
        sim.restart("server").unwrap();
        assert!(sim.restart("server").is_err(), "it runs");
        let peer = connect(&mut sim, "e");
        sim.run_for(ms(1_000)).unwrap();
        assert_eq!(heard(&mut sim, peer), "0");
        sim.settle(ms(3_600_000)).unwrap();
    }
}

// row 260
#[test]
fn the_seed_decides_how_the_turns_of_workers_interleave() {
    let run = |seed| {
        let mut sim = Sim::new(seed);
        server(&mut sim, 3);
        let peers = ["a", "b", "c", "d", "e", "f"].map(|name| connect(&mut sim, name));
        sim.run_for(ms(10)).unwrap();
        for _ in 0..5 {
            (b'a'..).zip(peers).for_each(|(letter, peer)| sim.raw(peer).send(&[letter]));
            sim.run_for(ms(1)).unwrap();
        }
        sim.settle(ms(1_000)).unwrap();
        let heard = peers.map(|peer| heard(&mut sim, peer));
        assert!(heard.iter().all(|text| text.len() > 5));
        (sim.hash(), heard)
    };
    assert_eq!(run(1), run(1));
    let orders: std::collections::BTreeSet<_> = (0..10).map(|seed| run(seed).1).collect();
    assert!(orders.len() > 3, "{orders:?}");
}

// row 261
#[test]
fn set_ups_that_fail_and_hosts_that_are_no_workers() {
    let mut sim = Sim::new(1);
    let failed = sim.workers("server", 2, |worker, net| {
        net.listen("0.0.0.0:1", |_| Member)?;
        match worker.index() {
            0 => {
                Ok(State { listener: Token::new(1, 1).unwrap(), open: vec![], undelivered: vec![] })
            }
            _ => Err(crate::Error::from(std::io::Error::other("a test"))),
        }
    });
    assert!(failed.unwrap_err().to_string().contains("cannot set up worker 1"));
    sim.run_for(ms(10)).unwrap();
    let host = sim.host("host", |_| Ok(())).unwrap();
    let refused = sim.worker_dies(host).unwrap_err().to_string();
    assert!(refused.contains("expected a worker that runs"), "{refused}");
    assert!(sim.restart("server/1").is_err(), "a worker has no name");
    let two = Workers::new(2).on_failure(crate::OnFailure::EndAll(ms(100)));
    let workers = sim.workers_with("two", two, |_, _| Ok(())).unwrap();
    sim.worker_dies(workers[0]).unwrap();
    sim.run_for(ms(1_000)).unwrap();
    assert!(workers.iter().all(|&worker| !sim.is_running(worker)), "all end");
}
