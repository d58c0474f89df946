//! Processes with a backplane to one engine, whose members join, leave and publish by name, while the engine
//! is killed, hangs, is out of reach or takes nothing for the moment.
//!
//! Members of the same process hear every message once and at once. Those of the others hear each publisher in
//! its order and nothing twice; of names that are kept nothing is missing from a first message on, of others
//! nothing while the engine was there. Events alternate, figures agree, and in the end all are together again
//! and every queue is empty.
//!
//! Left out are the known faults of `docs/backplane.md`: pages of histories are small, only this program writes
//! to the engine, a refusal for the moment takes all that follows on its connection, and a newcomer with a history
//! may hear twice what went out twice. Behind the death of a worker with a backplane what it had sent may come
//! late, and a second time.

mod place;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use tidegate::backplane::WhenFull;
use tidegate::sim::{Host, Link, ScenarioResult, Sim};
use tidegate::{Net, Worker};

use self::place::{Life, Place, Plan, Process, Shared, Told, place};
use super::{Dice, FAULTY, LIMIT, ms, rough, us};
use crate::engine::{self, Engine, Store};

/// Those from the third on are kept.
const TOPICS: [&str; 4] = ["a", "b", "{kept}/a", "{kept}/b"];
const FIRST_KEPT: usize = 2;
const PREFIX: &str = "x/";

const ENGINE: &str = "engine";
const NAMES: [&str; 3] = ["first", "second", "third"];

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    let mut dice = Dice::new(sim, 1);
    let plan = Plan {
        pace: dice.between(2_000, 1_500_000),
        silence: ms(dice.between(1_500, 6_000)),
        drops: match dice.between(0, 9) {
            0 => Some(WhenFull::DropOldest),
            1 => Some(WhenFull::Refuse),
            _ => None,
        },
        loss: dice.percent(20),
        disturbances: if dice.percent(20) { 0 } else { dice.between(1, 12) },
    };
    rough(sim, &[])?;
    let (ledger, store) = (Shared::default(), Rc::new(RefCell::new(Store::default())));
    store.borrow_mut().may_miss = plan.drops.is_some();
    let engine = engine::engine(sim, ENGINE, &store)?;
    let url = format!("redis://{}", sim.ip(ENGINE)?);
    let seed = sim.seed();
    let mut of_workers = Dice::new(sim, 3);
    let mut processes = Vec::new();
    for (number, &name) in NAMES[..dice.size(2, 3)].iter().enumerate() {
        let workers = if of_workers.percent(25) { of_workers.size(2, 3) } else { 1 };
        let process = Rc::new(RefCell::new(Process::new(number, workers)));
        let shared = Rc::clone(&process);
        let (ledger, store, url) = (Rc::clone(&ledger), Rc::clone(&store), url.clone());
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
            sim.link(name, ENGINE, Link::new().latency(us(100)..ms(3)).loss(0.05))?;
        }
    }
    disturb(sim, (engine, &store), &processes, &mut dice, plan);
    workers_die(sim, &processes, &ledger, &mut of_workers, plan);
    sim.run_for(FAULTY + ms(5_000))?;
    for &Running { name, .. } in &processes {
        sim.heal(&[name], &[ENGINE])?;
        sim.link(name, ENGINE, Link::new())?;
    }
    let places: Vec<(&str, Host<Place>)> = processes
        .iter()
        .flat_map(|running| running.places.iter().map(|&place| (running.name, place)))
        .collect();
    together(sim, &places)?;
    look(sim, &places)?;
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
    sim.with(engine, |_, net| net.shutdown(ms(1_000)));
    sim.settle(LIMIT)?;
    Ok(())
}

/// A process, and the hosts of its workers.
struct Running {
    name: &'static str,
    process: Rc<RefCell<Process>>,
    places: Vec<Host<Place>>,
}

/// Workers die, and are built again.
fn workers_die(sim: &mut Sim, processes: &[Running], ledger: &Shared, dice: &mut Dice, plan: Plan) {
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
fn window(plan: Plan) -> u64 {
    10_000_000.min(plan.pace * 30 + 1_000_000)
}

/// What happens to the engine, and to the ways there.
fn disturb(
    sim: &mut Sim,
    (engine, store): (Host<Engine>, &engine::Shared),
    processes: &[Running],
    dice: &mut Dice,
    plan: Plan,
) {
    for _ in 0..plan.disturbances {
        let (what, far) = (dice.between(0, 99), dice.size(0, processes.len() - 1));
        let Running { name, process, places } = &processes[far];
        let (name, host) = (*name, places[0]);
        let (process, store) = (Rc::clone(process), Rc::clone(store));
        let time = us(dice.between(0, 4_000_000));
        let which = dice.size(0, 100);
        sim.at(us(dice.between(0, window(plan))), move |sim| {
            let runs = sim.is_running(engine);
            match what {
                0..20 if runs => {
                    if what < 10 { sim.crash(ENGINE) } else { sim.power_off(ENGINE) }.unwrap();
                    if which % 2 == 1 {
                        store.borrow_mut().loses(which % 7);
                    }
                    let back = sim.now() + time;
                    sim.at(back, |sim| sim.restart(ENGINE).unwrap());
                }
                20..45 if runs => sim.with(engine, |state, net| {
                    let connections = state.connections();
                    if !connections.is_empty() {
                        net.abort(connections[which % connections.len()]);
                    }
                }),
                45..60 if runs => {
                    let why = ["LOADING for now", "READONLY for now", "OOM for now"][which % 3];
                    sim.with(engine, |state, _| state.busy = Some(why));
                    let over = sim.now() + time;
                    sim.at(over, move |sim| {
                        if sim.is_running(engine) {
                            sim.with(engine, |state, _| state.busy = None);
                        }
                    });
                }
                60..70 if runs => sim.pause(ENGINE, time * 2).unwrap(),
                70..78 if runs => sim.with(engine, |state, _| state.mute()),
                78..96 => {
                    sim.partition(&[name], &[ENGINE]).unwrap();
                    let over = sim.now() + time * 2;
                    sim.at(over, move |sim| sim.heal(&[name], &[ENGINE]).unwrap());
                }
                96.. if sim.is_running(host) => {
                    process.borrow_mut().ends();
                    sim.crash(name).unwrap();
                    let back = sim.now() + time;
                    sim.at(back, move |sim| sim.restart(name).unwrap());
                }
                _ => {}
            }
        });
    }
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
fn look(sim: &mut Sim, places: &[(&str, Host<Place>)]) -> ScenarioResult {
    for &(name, place) in places {
        sim.with(place, |state, net| {
            for topic in 0..TOPICS.len() {
                assert!(!state.is_waited_for(net, topic), "{name}: somebody waits for {topic}");
                state.publish(net, topic);
            }
        });
    }
    sim.run_for(ms(5_000))?;
    let lives: BTreeSet<Life> = places.iter().map(|&(_, place)| sim.state(place).life).collect();
    let mut events = Vec::new();
    for &(name, place) in places {
        let state = sim.state(place);
        events.push(state.events);
        state.look_at_figures();
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
