//! Processes with a backplane to a cluster, whose members join, leave and publish by name, while slots move from
//! node to node, masters are killed and others take their slots over, and all else happens that happens to one
//! server.
//!
//! The promises are those of one server, slot by slot. Each publisher is heard in its order and nothing twice; of a
//! name that is not kept nothing is missing while its subscription lasts, which a lost node and a slot that moves
//! end, and nothing else does. Kept names lose nothing, but what an engine has lost itself. A `Moved` is told only
//! where slots have moved. In the end nothing that was said before is
//! missing at the engine.
//!
//! Left out are the known faults of `docs/backplane.md` and `docs/reliability.md`: a connection on
//! which a node has refused a message ends before it takes one behind it; no node says `ASK`; each slot has a node.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use tidegate::sim::{Host, ScenarioResult, Sim};

use super::super::{Dice, FAULTY, LIMIT, ms, rough, us};
use super::place::{Plan, Shared};
use super::processes::{
    PREFIX, Running, begin, end, is_cut_off, is_killed, refuses, resets_one, window, workers_die,
};
use crate::engine::{self, Engine, Store};
use crate::shards::{Change, Shards};
use crate::slots::slot_of;

/// The third one is in the slot of the first.
const TOPICS: [&str; 5] = ["a", "b", "{x/a}", "{kept}/a", "{kept}/b"];
const KEPT: &str = TOPICS[3];

const NODES: [&str; 3] = ["one", "two", "three"];

/// Of all that happens, that slots move.
const MOVES: Range<u64> = 26..60;

fn slot(topic: &str) -> u16 {
    slot_of([PREFIX, topic].concat().as_bytes())
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    let mut dice = Dice::new(sim, 1);
    let plan = Plan::draw(&mut dice, &TOPICS);
    rough(sim, &[])?;
    let (ledger, store) = (Shared::default(), Rc::new(RefCell::new(Store::default())));
    let names = &NODES[..dice.size(2, 3)];
    let nodes: Result<Rc<[_]>, _> = names
        .iter()
        .enumerate()
        .map(|(number, name)| engine::node(sim, name, &store, number))
        .collect();
    let nodes = nodes?;
    let addresses: Result<Vec<_>, _> = names.iter().map(|name| sim.ip(name)).collect();
    {
        let store = &mut *store.borrow_mut();
        store.may_miss = plan.drops.is_some();
        let owner = || dice.size(0, names.len() - 1);
        store.shards = Some(Shards::new(addresses?, &TOPICS.map(slot), owner));
    }
    let cluster = Cluster { names, nodes, store };
    let mut of_workers = Dice::new(sim, 3);
    let count = dice.size(2, 3);
    let engines = (names, &cluster.store);
    let processes = begin(sim, engines, &ledger, (count, &mut of_workers), plan)?;
    let whats = if dice.percent(35) { MOVES } else { 0..100 };
    for _ in 0..plan.disturbances {
        let what = dice.between(whats.start, whats.end - 1);
        disturb(sim, &cluster, &processes, (&mut dice, what), plan);
    }
    workers_die(sim, &processes, &ledger, &mut of_workers, plan);
    sim.run_for(FAULTY + ms(5_000))?;
    end(sim, engines, &processes)?;
    for &node in &*cluster.nodes {
        sim.with(node, |_, net| net.shutdown(ms(1_000)));
    }
    sim.settle(LIMIT)?;
    Ok(())
}

#[derive(Clone)]
struct Cluster {
    names: &'static [&'static str],
    nodes: Rc<[Host<Engine>]>,
    store: engine::Shared,
}

impl Cluster {
    fn shards<T>(&self, call: impl FnOnce(&mut Shards) -> T) -> T {
        call(self.store.borrow_mut().shards.as_mut().expect("it is a cluster"))
    }

    /// A piece goes to another node. The one before knows at once, and each of the others so long after.
    fn moves(&self, sim: &mut Sim, piece: usize, to: usize, lags: [Duration; NODES.len()]) {
        let change = self.shards(|shards| shards.moves(piece, to));
        for (node, lag) in lags.into_iter().enumerate().take(self.nodes.len()) {
            if node == change.from || lag.is_zero() {
                self.hears(sim, node, change);
            } else {
                let (cluster, at) = (self.clone(), sim.now() + lag);
                sim.at(at, move |sim| cluster.hears(sim, node, change));
            }
        }
    }

    fn hears(&self, sim: &mut Sim, node: usize, change: Change) {
        let is_news = self.shards(|shards| shards.hears(node, change));
        let host = self.nodes[node];
        if is_news && node != change.to && sim.is_running(host) {
            sim.with(host, |engine, net| engine.lets_go(net, change.piece));
        }
    }

    /// All that a node has goes to another one.
    fn fails_over(&self, sim: &mut Sim, from: usize, to: usize, mut lags: [Duration; NODES.len()]) {
        lags[to] = Duration::ZERO;
        for piece in 0..self.shards(|shards| shards.pieces()) {
            if self.shards(|shards| shards.owner(piece)) == from {
                self.moves(sim, piece, to, lags);
            }
        }
    }

    /// A node dies. It comes back after a while; meanwhile another one may have taken its slots over, and what was
    /// said last in kept names may be lost.
    fn dies(&self, sim: &mut Sim, node: usize, heir: Option<usize>, death: &Death) {
        let name = self.names[node];
        if death.of_machine { sim.power_off(name) } else { sim.crash(name) }.unwrap();
        let has_kept = self.shards(|shards| shards.owner(shards.piece_of(slot(KEPT)))) == node;
        if has_kept {
            self.store.borrow_mut().loses(death.loses);
        }
        let back = sim.now() + death.time;
        sim.at(back, move |sim| sim.restart(name).unwrap());
        if let Some(heir) = heir {
            let (cluster, lags, at) = (self.clone(), death.lags, sim.now() + death.time / 2);
            sim.at(at, move |sim| {
                if sim.is_running(cluster.nodes[heir]) {
                    cluster.fails_over(sim, node, heir, lags);
                }
            });
        }
    }
}

struct Death {
    of_machine: bool,
    loses: usize,
    time: Duration,
    lags: [Duration; NODES.len()],
}

/// Something happens to a node, to the ways there, or to the slots.
fn disturb(
    sim: &mut Sim,
    cluster: &Cluster,
    processes: &[Running],
    (dice, what): (&mut Dice, u64),
    plan: Plan,
) {
    let Running { name, process, places } = &processes[dice.size(0, processes.len() - 1)];
    let (name, host, process) = (*name, places[0], Rc::clone(process));
    let node = dice.size(0, cluster.nodes.len() - 1);
    let other = (node + dice.size(1, cluster.nodes.len() - 1)) % cluster.nodes.len();
    let topic = dice.size(0, TOPICS.len() - 1);
    let of_topic = cluster.shards(|shards| shards.piece_of(slot(TOPICS[topic])));
    let pieces = cluster.shards(|shards| shards.pieces());
    let piece = if dice.percent(80) { of_topic } else { dice.size(0, pieces - 1) };
    let burst = dice.between(0, 8);
    let knows_late = dice.percent(30);
    let mut lag = || ms(dice.between(0, if knows_late { 900 } else { 20 }));
    let lags = [lag(), lag(), lag()];
    let time = us(dice.between(0, 4_000_000));
    let which = dice.size(0, 100);
    let (of_machine, loses) = (dice.percent(50), if dice.percent(50) { which % 7 } else { 0 });
    let death = Death { of_machine, loses, time, lags };
    let at = us(dice.between(0, window(plan)));
    let cluster = cluster.clone();
    if MOVES.contains(&what) {
        // Some of it is on its way when the slot moves.
        sim.at(at.saturating_sub(us(dice.between(0, 3_000))), move |sim| {
            if sim.is_running(host) {
                sim.with(host, |state, net| (0..burst).for_each(|_| state.publish(net, topic)));
            }
        });
    }
    sim.at(at, move |sim| {
        let (engine, address) = (cluster.nodes[node], cluster.names[node]);
        let runs = sim.is_running(engine);
        match what {
            0..12 if runs => cluster.dies(sim, node, None, &death),
            12..26 if runs => cluster.dies(sim, node, Some(other), &death),
            26..54 => {
                let from = cluster.shards(|shards| shards.owner(piece));
                if from != node && runs && sim.is_running(cluster.nodes[from]) {
                    cluster.moves(sim, piece, node, lags);
                }
            }
            54..60 if runs && sim.is_running(cluster.nodes[other]) => {
                cluster.fails_over(sim, node, other, lags);
            }
            60..70 if runs => resets_one(sim, engine, which),
            70..78 if runs => {
                let why = ["LOADING", "READONLY", "OOM", "CLUSTERDOWN"][which % 4];
                refuses(sim, engine, why, time);
            }
            78..83 if runs => sim.pause(address, time * 2).unwrap(),
            83..87 if runs => sim.with(engine, |state, _| state.mute()),
            87..96 => is_cut_off(sim, name, address, time * 2),
            96.. if sim.is_running(host) => is_killed(sim, name, &process, time),
            _ => {}
        }
    });
}
