//! What all scenarios with backplanes have in common: their processes, and how a run ends.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::sim::{Host, Link, ScenarioResult, Sim};
use tidegate::{Net, Worker};

use super::super::{Dice, LIMIT, ms, us};
use super::place::{Life, Place, Plan, Process, Shared, Told, place};
use crate::engine::{self, Engine};
use crate::shards::Shards;

pub(super) const PREFIX: &str = "x/";

const NAMES: [&str; 3] = ["first", "second", "third"];

/// A process, and the hosts of its workers.
pub(super) struct Running {
    pub(super) name: &'static str,
    pub(super) process: Rc<RefCell<Process>>,
    pub(super) places: Vec<Host<Place>>,
}

/// So many processes, some of several workers, with backplanes to these nodes; the first one is named to them.
pub(super) fn begin(
    sim: &mut Sim,
    (nodes, store): (&[&str], &engine::Shared),
    ledger: &Shared,
    (count, of_workers): (usize, &mut Dice),
    plan: Plan,
) -> Result<Vec<Running>, tidegate::Error> {
    let url = format!("redis://{}", sim.ip(nodes[0])?);
    let seed = sim.seed();
    let mut processes = Vec::new();
    for (number, &name) in NAMES[..count].iter().enumerate() {
        let workers = if of_workers.percent(25) { of_workers.size(2, 3) } else { 1 };
        let process = Rc::new(RefCell::new(Process::new(number, workers)));
        let shared = Rc::clone(&process);
        let (ledger, store, url) = (Rc::clone(ledger), Rc::clone(store), url.clone());
        let begin = move |worker: Option<&Worker<Place>>, net: &mut Net<Place>| {
            place((worker, net), (&ledger, &store), &shared, &url, (seed, plan))
        };
        let places = if workers > 1 {
            sim.workers(name, workers, move |worker, net| begin(Some(worker), net))?
        } else {
            vec![sim.host(name, move |net: &mut Net<Place>| begin(None, net))?]
        };
        process.borrow_mut().ip = Some(sim.ip(name)?);
        processes.push(Running { name, process, places });
        if plan.loss {
            for node in nodes {
                sim.link(name, node, Link::new().latency(us(100)..ms(3)).loss(0.05))?;
            }
        }
    }
    Ok(processes)
}

/// Workers die, and are built again.
pub(super) fn workers_die(
    sim: &mut Sim,
    processes: &[Running],
    ledger: &Shared,
    dice: &mut Dice,
    plan: Plan,
) {
    for running in processes.iter().filter(|running| running.places.len() > 1) {
        for _ in 0..dice.between(0, 2) {
            let index = if dice.percent(60) { 0 } else { dice.size(1, running.places.len() - 1) };
            let worker = running.places[index];
            let (process, ledger) = (Rc::clone(&running.process), Rc::clone(ledger));
            sim.at(us(dice.between(0, window(plan))), move |sim| {
                if sim.is_running(worker) {
                    process.borrow_mut().loses(index, &ledger);
                    sim.worker_dies(worker).unwrap();
                }
            });
        }
    }
}

/// In which time it is disturbed, in microseconds.
pub(super) fn window(plan: Plan) -> u64 {
    10_000_000.min(plan.pace * 30 + 1_000_000)
}

/// All is healed: everybody comes together, and what is said then is heard. Then all of them leave.
pub(super) fn end(
    sim: &mut Sim,
    (nodes, store): (&[&str], &engine::Shared),
    processes: &[Running],
) -> ScenarioResult {
    for &Running { name, .. } in processes {
        for node in nodes {
            sim.heal(&[name], &[node])?;
            sim.link(name, node, Link::new())?;
        }
    }
    let places: Vec<(&str, Host<Place>)> = processes
        .iter()
        .flat_map(|running| running.places.iter().map(|&place| (running.name, place)))
        .collect();
    together(sim, &places)?;
    look(sim, &places, store)?;
    // A process that leaves says what it has to say; and nothing is left over.
    for &(_, place) in &places {
        if !sim.is_running(place) {
            continue; // with the first worker all of them end
        }
        sim.with(place, |state, net| {
            if state.dice.percent(30)
                && let Some(backplane) = &state.backplane
            {
                backplane.stop(net);
            }
            match &state.workers {
                Some(workers) => workers.shutdown(ms(1_000)),
                None => net.shutdown(ms(1_000)),
            }
        });
    }
    sim.run_until(LIMIT, |sim| places.iter().all(|&(_, place)| !sim.is_running(place)))?;
    Ok(())
}

/// All is healed: everybody comes together, and all that waits goes out.
fn together(sim: &mut Sim, places: &[(&str, Host<Place>)]) -> ScenarioResult {
    let all = places.to_vec();
    sim.run_until(LIMIT, move |sim| {
        all.iter().all(|&(_, place)| {
            let Some(state) = sim.try_state(place) else { return false };
            state.left == 0 && state.is_connected() && state.queued() == 0
        })
    })?;
    sim.run_for(ms(5_000))?;
    Ok(())
}

/// All is quiet. What is said now is heard by everybody.
fn look(sim: &mut Sim, places: &[(&str, Host<Place>)], store: &engine::Shared) -> ScenarioResult {
    let began: Instant = sim.with(places[0].1, |_, net| net.now());
    for &(name, place) in places {
        sim.with(place, |state, net| {
            for topic in 0..state.plan.topics.len() {
                assert!(!state.is_waited_for(net, topic), "{name}: somebody waits for {topic}");
                state.publish(net, topic);
            }
        });
    }
    sim.run_for(ms(5_000))?;
    assert!(!store.borrow().is_owed(began), "something never came");
    let lives: BTreeSet<Life> = places.iter().map(|&(_, place)| sim.state(place).life).collect();
    let mut events = Vec::new();
    for &(name, place) in places {
        let state = sim.state(place);
        events.push(state.events);
        state.look_at_figures();
        if let Some(backplane) = &state.backplane {
            // One that has no slots any longer is noticed when something is said there.
            let used = store.borrow().shards.as_ref().map_or(1, Shards::used_nodes);
            assert!(backplane.stats().nodes >= used, "{name}");
        }
        assert!(state.begun.is_empty() && state.topics.len() == state.memberships.len());
        for (member, topics) in &state.memberships {
            for (&topic, membership) in topics {
                for &life in &lives {
                    let said = state.ledger.borrow().published[&(life, topic)];
                    let heard = membership.heard.get(&life).map(|heard| heard.count);
                    assert_eq!(heard, Some(said), "{name}: {member} of {life} to {topic}");
                }
            }
        }
    }
    // Nothing happens to who has nothing to say.
    sim.run_for(ms(20_000))?;
    for (&(name, place), before) in places.iter().zip(events) {
        let state = sim.state(place);
        assert_eq!(state.events, before, "{name}");
        assert!(state.told == Told::Whole && state.queued() == 0);
    }
    Ok(())
}

/// A node refuses for the moment, for so long.
pub(super) fn refuses(sim: &mut Sim, node: Host<Engine>, why: &'static str, time: Duration) {
    sim.with(node, |state, _| state.busy = Some(why));
    let over = sim.now() + time;
    sim.at(over, move |sim| {
        if sim.is_running(node) {
            sim.with(node, |state, _| state.busy = None);
        }
    });
}

/// One of a node's connections is reset.
pub(super) fn resets_one(sim: &mut Sim, node: Host<Engine>, which: usize) {
    sim.with(node, |state, net| {
        let connections = state.connections();
        if !connections.is_empty() {
            net.abort(connections[which % connections.len()]);
        }
    });
}

/// Nothing passes between a process and a node for so long.
pub(super) fn is_cut_off(sim: &mut Sim, name: &'static str, node: &'static str, time: Duration) {
    sim.partition(&[name], &[node]).unwrap();
    let over = sim.now() + time;
    sim.at(over, move |sim| sim.heal(&[name], &[node]).unwrap());
}

/// A process is killed, and is back after so long.
pub(super) fn is_killed(
    sim: &mut Sim,
    name: &'static str,
    process: &RefCell<Process>,
    time: Duration,
) {
    process.borrow_mut().ends();
    sim.crash(name).unwrap();
    let back = sim.now() + time;
    sim.at(back, move |sim| sim.restart(name).unwrap());
}
