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

pub(crate) mod cluster;
mod place;
mod processes;

use std::cell::RefCell;
use std::rc::Rc;

use tidegate::sim::{Host, ScenarioResult, Sim};

use self::place::{Plan, Shared};
use self::processes::{
    Running, begin, end, is_cut_off, is_killed, refuses, resets_one, window, workers_die,
};
use super::{Dice, FAULTY, LIMIT, ms, rough, us};
use crate::engine::{self, Engine, Store};

const TOPICS: [&str; 4] = ["a", "b", "{kept}/a", "{kept}/b"];

const ENGINE: &str = "engine";

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    let mut dice = Dice::new(sim, 1);
    let plan = Plan::draw(&mut dice, &TOPICS);
    rough(sim, &[])?;
    let (ledger, store) = (Shared::default(), Rc::new(RefCell::new(Store::default())));
    store.borrow_mut().may_miss = plan.drops.is_some();
    let engine = engine::engine(sim, ENGINE, &store)?;
    let mut of_workers = Dice::new(sim, 3);
    let count = dice.size(2, 3);
    let processes = begin(sim, (&[ENGINE], &store), &ledger, (count, &mut of_workers), plan)?;
    disturb(sim, (engine, &store), &processes, &mut dice, plan);
    workers_die(sim, &processes, &ledger, &mut of_workers, plan);
    sim.run_for(FAULTY + ms(5_000))?;
    end(sim, (&[ENGINE], &store), &processes)?;
    sim.with(engine, |_, net| net.shutdown(ms(1_000)));
    sim.settle(LIMIT)?;
    Ok(())
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
                20..45 if runs => resets_one(sim, engine, which),
                45..60 if runs => {
                    let why = ["LOADING for now", "READONLY for now", "OOM for now"][which % 3];
                    refuses(sim, engine, why, time);
                }
                60..70 if runs => sim.pause(ENGINE, time * 2).unwrap(),
                70..78 if runs => sim.with(engine, |state, _| state.mute()),
                78..96 => is_cut_off(sim, name, ENGINE, time * 2),
                96.. if sim.is_running(host) => is_killed(sim, name, &process, time),
                _ => {}
            }
        });
    }
}
