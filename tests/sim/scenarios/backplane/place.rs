//! A process, or one worker of it: what its members do, and what they may hear.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::backplane::{Backplane, BackplaneEvent, BackplaneHandle, WhenFull};
use tidegate::layer::Lines;
use tidegate::sim::note;
use tidegate::{
    CloseInfo, Connect, Context, Error, Handler, HandlerResult, Input, Listen, Net, Token, Worker,
    WorkersHandle,
};

use super::super::{Dice, ms, us};
use super::processes::PREFIX;
use crate::engine;
use crate::kit::patient;
use crate::shards::Shards;

/// How names begin that are kept.
const KEPT: &str = "{kept}";

/// So long after a join on one worker the backplane on another one may not know of it.
const TOLD: Duration = Duration::from_secs(2);

/// So far the clocks of hosts may be apart.
const SKEW: Duration = Duration::from_millis(100);

/// A process, or a worker of it, in one of its lives: who publishes.
pub(super) type Life = u64;

/// What everybody has said and heard.
#[derive(Default)]
pub(super) struct Ledger {
    began: Option<Instant>,
    lives: u64,
    /// In which process each is, and in which start of it.
    processes: BTreeMap<Life, (usize, u64)>,
    /// Who said something while their process had no backplane, or lost it: others may miss that.
    lossy: BTreeSet<Life>,
    /// When the backplane of a process came back on a new worker. What the old one had sent until then may
    /// come behind what the new one sends, and to the members there, too.
    came_back: BTreeMap<Life, Instant>,
    /// How much each has published to each topic.
    pub(super) published: BTreeMap<(Life, usize), u64>,
    members: u64,
}

pub(super) type Shared = Rc<RefCell<Ledger>>;

/// What the workers of a process have in common.
pub(super) struct Process {
    number: usize,
    pub(super) ip: Option<IpAddr>,
    /// How often it was started.
    starts: u64,
    pub(super) workers: usize,
    lives: BTreeSet<Life>,
    has_backplane: bool,
    /// When the worker of the backplane was built again: it has no places in kept names, and does not know what
    /// the one before has heard.
    reborn: Option<Instant>,
}

impl Process {
    pub(super) fn new(number: usize, workers: usize) -> Self {
        Process {
            number,
            ip: None,
            starts: 0,
            workers,
            lives: BTreeSet::new(),
            has_backplane: false,
            reborn: None,
        }
    }

    /// It is killed, with all its workers.
    pub(super) fn ends(&mut self) {
        let (starts, ip) = (self.starts + 1, self.ip);
        *self = Process { starts, ip, ..Process::new(self.number, self.workers) };
    }

    /// A worker dies, and is built again.
    pub(super) fn loses(&mut self, worker: usize, ledger: &Shared) {
        if worker == 0 {
            self.has_backplane = false;
            ledger.borrow_mut().lossy.extend(&self.lives);
        }
    }
}

/// Somebody is a member of a topic, from one join to the next leave.
pub(super) struct Membership {
    /// Asked for with a history: they join when the engine has answered.
    with_history: bool,
    /// How much had been published before, by each.
    before: BTreeMap<Life, u64>,
    /// The process was known to hear the topic, since then.
    proved: bool,
    /// Since when the process had members of the topic.
    presence: u64,
    since: Instant,
    pub(super) heard: BTreeMap<Life, Heard>,
}

/// The last message of a publisher.
#[derive(Clone, Copy)]
pub(super) struct Heard {
    pub(super) count: u64,
    said: Duration,
    /// It was no message that had gone out twice, which may come late to somebody new.
    solid: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Whole,
    Lost,
}

/// The state of a process.
pub(super) struct Place {
    pub(super) ledger: Shared,
    process: Rc<RefCell<Process>>,
    pub(super) workers: Option<WorkersHandle<Place>>,
    store: engine::Shared,
    pub(super) plan: Plan,
    pub(super) life: Life,
    port: u16,
    /// Of several workers the first has it.
    pub(super) backplane: Option<BackplaneHandle>,
    pub(super) dice: Dice,
    pub(super) left: u64,
    pub(super) told: Told,
    pub(super) events: u64,
    /// Which members there are, and the near ends of their connections.
    members: BTreeMap<u64, Token>,
    /// The topics of each, as its near end knows.
    pub(super) topics: BTreeMap<u64, BTreeSet<usize>>,
    /// The topics of each, as its far end knows.
    pub(super) memberships: BTreeMap<u64, BTreeMap<usize, Membership>>,
    /// Memberships that the far end is about to learn of.
    pub(super) begun: BTreeMap<(u64, usize, u64), Membership>,
    joins: u64,
    /// Who was asked to come, and has not come yet.
    coming: usize,
    presence: Vec<u64>,
    /// The presence in which something was heard from elsewhere, and when that was said.
    proved: Vec<(u64, Duration)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) topics: &'static [&'static str],
    /// How far apart the things are that a process does, in microseconds.
    pub(super) pace: u64,
    pub(super) silence: Duration,
    /// The queue is small.
    pub(super) drops: Option<WhenFull>,
    pub(super) loss: bool,
    pub(super) disturbances: u64,
}

impl Plan {
    pub(super) fn draw(dice: &mut Dice, topics: &'static [&'static str]) -> Self {
        Plan {
            topics,
            pace: dice.between(2_000, 1_500_000),
            silence: ms(dice.between(1_500, 6_000)),
            drops: match dice.between(0, 9) {
                0 => Some(WhenFull::DropOldest),
                1 => Some(WhenFull::Refuse),
                _ => None,
            },
            loss: dice.percent(20),
            disturbances: if dice.percent(20) { 0 } else { dice.between(1, 12) },
        }
    }
}

impl Place {
    fn now(&self, net: &Net<Place>) -> Duration {
        net.now() - self.ledger.borrow().began.expect("it is set first")
    }

    fn is_kept(&self, topic: usize) -> bool {
        self.plan.topics[topic].starts_with(KEPT)
    }

    fn has_member(&self, net: &Net<Place>, member: u64, topic: usize) -> bool {
        let group = net.find_group(self.plan.topics[topic]);
        group.is_some_and(|group| net.is_member(group, self.members[&member]))
    }

    /// Whether somebody waits for a history of this topic.
    pub(super) fn is_waited_for(&self, net: &Net<Place>, topic: usize) -> bool {
        let all = self.topics.iter().filter(|(_, topics)| topics.contains(&topic));
        let all: Vec<u64> = all.map(|(&member, _)| member).collect();
        all.into_iter().any(|member| !self.has_member(net, member, topic))
    }

    pub(super) fn publish(&mut self, net: &mut Net<Place>, topic: usize) {
        let said = self.now(net).as_micros();
        let count = {
            let ledger = &mut *self.ledger.borrow_mut();
            let count = ledger.published.entry((self.life, topic)).or_default();
            *count += 1;
            *count
        };
        let line = format!("says {} {topic} {count} {said}", self.life);
        note(&line);
        net.publish_named(self.plan.topics[topic], line);
        self.look_at_figures();
    }

    fn join(&mut self, net: &mut Net<Place>, member: u64, topic: usize, history: Option<usize>) {
        if self.topics[&member].contains(&topic) {
            return;
        }
        let group = net.find_group(self.plan.topics[topic]);
        let is_empty = group.is_none_or(|group| net.members(group).is_empty());
        if is_empty && !self.is_waited_for(net, topic) {
            self.presence[topic] += 1;
        }
        let presence = self.presence[topic];
        let before = {
            let ledger = self.ledger.borrow();
            let published = ledger.published.iter().filter(|((_, of), _)| *of == topic);
            published.map(|(&(life, _), &count)| (life, count)).collect()
        };
        let began = self.ledger.borrow().began.expect("it is set first");
        let (proved, said) = self.proved[topic];
        let proved = proved == presence && began + said > self.undisturbed(topic, began);
        let membership = Membership {
            with_history: history.is_some(),
            before,
            proved: proved && history.is_none(),
            presence,
            since: net.now(),
            heard: BTreeMap::new(),
        };
        note(format_args!("{member} joins {topic}, history {history:?}, proved {proved}"));
        let token = self.members[&member];
        self.joins += 1;
        net.send(token, format!("joins {topic} {}", self.joins));
        self.begun.insert((member, topic, self.joins), membership);
        self.topics.get_mut(&member).expect("it is open").insert(topic);
        match history {
            None => {
                let group = net.group(self.plan.topics[topic]);
                net.join(group, token);
            }
            Some(count) => {
                let backplane = self.backplane.as_ref().expect("only it has histories");
                backplane.join_with_history(net, self.plan.topics[topic], token, count);
            }
        }
    }

    fn leave(&mut self, net: &mut Net<Place>, member: u64, topic: usize) {
        if !self.topics[&member].contains(&topic) || !self.has_member(net, member, topic) {
            return; // nobody can leave who waits for a history
        }
        note(format_args!("{member} leaves {topic}"));
        let (group, token) = (net.group(self.plan.topics[topic]), self.members[&member]);
        net.leave(group, token);
        net.send(token, format!("leaves {topic}"));
        self.topics.get_mut(&member).expect("it is open").remove(&topic);
    }

    fn close(&mut self, net: &mut Net<Place>, member: u64) {
        net.close(self.members[&member]);
        self.gone(member);
    }

    fn gone(&mut self, member: u64) {
        self.members.remove(&member);
        self.topics.remove(&member);
    }

    fn invite(&mut self, net: &mut Net<Place>) {
        let connect = Connect::tcp(("127.0.0.1", self.port)).options(patient());
        net.connect(connect.layer(Lines::new()), Far { number: 0 }).expect("it is a loopback");
        self.coming += 1;
    }

    /// Since when what is said to a topic comes to this process.
    fn undisturbed(&self, topic: usize, began: Instant) -> Instant {
        let process = self.process.borrow();
        if self.is_kept(topic) {
            return process.reborn.unwrap_or(began);
        }
        // What was said since then, and has come, has come by the subscription that there is.
        let subscribed =
            self.store.borrow().subscribed(process.ip, PREFIX, self.plan.topics[topic]);
        subscribed.map_or(began, |at| at + SKEW)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.backplane.as_ref().is_none_or(BackplaneHandle::is_connected)
    }

    pub(super) fn queued(&self) -> usize {
        self.backplane.as_ref().map_or(0, |backplane| backplane.stats().queued_messages)
    }

    /// Whether these messages may be missing elsewhere.
    fn may_miss(&self, life: Life, topic: usize, mut counts: std::ops::Range<u64>) -> bool {
        let store = self.store.borrow();
        let was_lost = |count| store.has_lost(format!("says {life} {topic} {count} ").as_bytes());
        let is_lossy = self.ledger.borrow().lossy.contains(&life);
        self.plan.drops.is_some() || is_lossy || counts.all(was_lost)
    }

    /// Every message is somewhere.
    pub(super) fn look_at_figures(&self) {
        let Some(backplane) = &self.backplane else { return };
        let stats = backplane.stats();
        let sum = stats.confirmed + stats.refused + stats.dropped + stats.queued_messages as u64;
        assert_eq!(stats.published, sum, "{stats:?}");
        assert_eq!(stats.refused + stats.too_large, 0);
        assert!(self.plan.drops.is_some() || stats.dropped == 0, "{stats:?}");
    }

    fn happens(&mut self, event: &BackplaneEvent) {
        note(format_args!("process {}: {event}", self.life));
        self.events += 1;
        self.told = match (self.told, event) {
            (Told::Nothing, BackplaneEvent::Connected) => Told::Whole,
            (Told::Whole, BackplaneEvent::Lost { .. }) => Told::Lost,
            (Told::Lost, BackplaneEvent::Resumed { .. }) => Told::Whole,
            (Told::Whole, BackplaneEvent::Moved { topics, .. }) => {
                let has_moved = self.store.borrow().shards.as_ref().is_some_and(Shards::have_moved);
                assert!(has_moved && (1..=self.plan.topics.len()).contains(topics), "{event}");
                Told::Whole
            }
            (told, BackplaneEvent::Failed { .. }) => told,
            (told, event) => panic!("{event:?} behind {told:?}"),
        };
        if let BackplaneEvent::Lost { why, .. } | BackplaneEvent::Failed { why, .. } = event {
            // A message that comes in pieces of a few bytes takes longer than a silence may, or than the end.
            let is_slow = ["has said nothing", "shutdown"].iter().any(|slow| why.contains(slow));
            assert!(is_slow || self.plan.loss || self.plan.disturbances > 0, "{event}");
        }
        assert_eq!(self.is_connected(), self.told == Told::Whole);
        self.look_at_figures();
    }

    /// A member has got a line.
    fn hears(&mut self, net: &mut Net<Place>, member: u64, line: &str) {
        note(format_args!("{member} hears {line}"));
        let now = self.now(net);
        let numbers = line.strip_prefix("says ").expect("nothing else is said").split(' ');
        let numbers: Vec<u64> = numbers.map(|word| word.parse().expect("a number")).collect();
        let [life, topic, count, said] = numbers[..] else { panic!("{line}") };
        let (topic, said) = (topic as usize, us(said));
        let began = self.ledger.borrow().began.expect("it is set first");
        let is_kept = self.is_kept(topic);
        let own = life == self.life;
        let (reborn, several) = {
            let process = self.process.borrow();
            (process.reborn, process.workers > 1)
        };
        // What a worker of this process says does not come through the engine.
        let kin = {
            let processes = &self.ledger.borrow().processes;
            processes[&life] == processes[&self.life]
        };
        let again = self.store.borrow().again.contains(line.as_bytes());
        let undisturbed = self.undisturbed(topic, began);
        let memberships = &self.memberships[&member];
        let Some(m) = memberships.get(&topic) else { panic!("{member} is not in {topic}") };
        let before = m.before.get(&life).copied().unwrap_or(0);
        let last = m.heard.get(&life).copied();
        let misses = |from| count > from + 1 && !self.may_miss(life, topic, from + 1..count);
        // What a worker had sent that has died meanwhile comes as from another process.
        let came_back = self.ledger.borrow().came_back.get(&life).copied();
        let is_of_the_dead = came_back.is_some_and(|at| began + said <= at);
        if is_of_the_dead && count <= last.map_or(before, |last| last.count.max(before)) {
            return;
        }
        if own && !m.with_history {
            assert_eq!(count, last.map_or(before, |last| last.count) + 1, "{member}: {line}");
            assert!(now - said < ms(5_000), "{member} hears {line} late, at {now:?}");
        }
        if kin && !m.with_history {
            // Somebody else's, on its way here when they joined, may come to them, too.
            let last = last.map_or(before, |last| last.count.max(before));
            assert!(count <= last + 1, "{member} misses {} of {life} to {topic}", last + 1);
        }
        // The place of a kept name that others of the workers have left may be used for a moment.
        let settled = if is_kept && several { m.since + TOLD } else { began };
        match last {
            Some(last) if count <= last.count => {
                let may_come_again = m.with_history || reborn.is_some();
                assert!(may_come_again && again, "{member} hears {line} behind {}", last.count);
                return;
            }
            Some(last) => {
                // A message that was said since then has come to the same connection.
                let steady = began + last.said > undisturbed.max(settled);
                let is_place = is_kept && !several;
                let away = !is_place && !steady && !kin;
                assert!(
                    away || !last.solid || !misses(last.count),
                    "{member} misses {} of {life} to {topic}",
                    last.count + 1
                );
            }
            None if m.proved => {
                let away = m.since <= undisturbed;
                assert!(away || !misses(before), "{member} misses {} of {life}", before + 1);
            }
            None => {}
        }
        let solid = !again || last.is_some_and(|last| last.solid);
        let presence = m.presence;
        let steady = began + said >= settled;
        let memberships = self.memberships.get_mut(&member).expect("it is open");
        let m = memberships.get_mut(&topic).expect("it is in");
        m.heard.insert(life, Heard { count, said, solid });
        if !kin && !again && steady && self.proved[topic].0 <= presence {
            let since = if self.proved[topic].0 == presence { self.proved[topic].1 } else { said };
            self.proved[topic] = (presence, since.max(said));
        }
    }
}

/// The near end of a member.
struct Near {
    number: u64,
}

impl Handler<Place> for Near {
    fn on_open(&mut self, cx: &mut Context<'_, Place>) -> HandlerResult {
        self.number = {
            let mut ledger = cx.state.ledger.borrow_mut();
            ledger.members += 1;
            ledger.members
        };
        cx.state.coming -= 1;
        cx.state.members.insert(self.number, cx.token);
        cx.state.topics.insert(self.number, BTreeSet::new());
        cx.send(format!("hello {}", self.number));
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Place>, _: &mut Input<'_>) -> HandlerResult {
        panic!("the far end says nothing");
    }

    fn on_close(&mut self, cx: &mut Context<'_, Place>, _: &CloseInfo) {
        cx.state.gone(self.number);
    }
}

/// The far end of a member, which hears what it is told.
struct Far {
    number: u64,
}

impl Handler<Place> for Far {
    fn on_data(&mut self, cx: &mut Context<'_, Place>, input: &mut Input<'_>) -> HandlerResult {
        let line = std::str::from_utf8(input.take_all())?;
        let mut words = line.split(' ');
        let what = words.next();
        let mut next = || words.next().expect("a number").parse::<u64>();
        match what {
            Some("hello") => {
                self.number = next()?;
                cx.state.memberships.insert(self.number, BTreeMap::new());
            }
            Some("joins") => {
                let (topic, join) = (next()? as usize, next()?);
                let membership = cx.state.begun.remove(&(self.number, topic, join));
                let memberships = cx.state.memberships.get_mut(&self.number).expect("it is open");
                let before = memberships.insert(topic, membership.expect("it has begun"));
                assert!(before.is_none());
            }
            Some("leaves") => {
                let topic = next()? as usize;
                let memberships = cx.state.memberships.get_mut(&self.number).expect("it is open");
                assert!(memberships.remove(&topic).is_some());
            }
            _ => cx.state.hears(cx.net, self.number, line),
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Place>, _: &CloseInfo) {
        cx.state.memberships.remove(&self.number);
    }
}

/// Does some of what a process has to do, and comes again.
fn goes_on(state: &mut Place, net: &mut Net<Place>) {
    let burst = state.dice.between(1, 6).min(state.left);
    state.left -= burst;
    for _ in 0..burst {
        acts(state, net);
    }
    if state.left > 0 {
        net.run_after(us(state.dice.between(0, state.plan.pace)), goes_on);
    }
}

fn acts(state: &mut Place, net: &mut Net<Place>) {
    let topic = state.dice.size(0, state.plan.topics.len() - 1);
    let what = state.dice.between(0, 99);
    if what < 60 {
        return state.publish(net, topic);
    }
    let members: Vec<u64> = state.members.keys().copied().collect();
    if members.is_empty() || (what >= 94 && members.len() + state.coming < 4) {
        if state.coming == 0 {
            state.invite(net);
        }
        return;
    }
    let member = members[state.dice.size(0, members.len() - 1)];
    let has_histories = state.is_kept(topic) && state.backplane.is_some();
    let count = state.dice.size(0, 20);
    let history = has_histories.then_some(count);
    match what {
        60..68 => state.join(net, member, topic, None),
        68..76 => state.join(net, member, topic, history),
        76..84 => state.leave(net, member, topic),
        // In one turn.
        84..88 => {
            state.leave(net, member, topic);
            state.join(net, member, topic, None);
        }
        88..91 => state.close(net, member),
        _ => {
            state.join(net, member, topic, None);
            state.publish(net, topic);
        }
    }
}

/// A process begins, or a worker of it.
pub(super) fn place(
    (worker, net): (Option<&Worker<Place>>, &mut Net<Place>),
    (ledger, store): (&Shared, &engine::Shared),
    process: &Rc<RefCell<Process>>,
    url: &str,
    (seed, plan): (u64, Plan),
) -> Result<Place, Error> {
    let index = worker.map_or(0, Worker::index);
    let life = {
        let mut ledger = ledger.borrow_mut();
        ledger.began.get_or_insert(net.now());
        ledger.lives += 1;
        ledger.lives
    };
    let backplane = if index == 0 { Some(backplane(net, url, plan)?) } else { None };
    {
        let process = &mut *process.borrow_mut();
        let mut ledger = ledger.borrow_mut();
        ledger.processes.insert(life, (process.number, process.starts));
        if index == 0 {
            let now = net.now();
            process.reborn = Some(now).filter(|_| !process.lives.is_empty());
            ledger.came_back.extend(process.lives.iter().map(|&life| (life, now)));
            process.has_backplane = true;
        } else if !process.has_backplane {
            ledger.lossy.insert(life);
        }
        process.lives.insert(life);
    }
    // Each worker has its own members.
    let port = 1 + index as u16;
    net.listen(
        Listen::tcp(("127.0.0.1", port)).options(patient()).layer(|_| Lines::new()),
        |_| Near { number: 0 },
    )?;
    let mut dice = Dice::of(seed, 10 + life);
    net.run_after(us(dice.between(0, plan.pace)), goes_on);
    Ok(Place {
        ledger: Rc::clone(ledger),
        store: Rc::clone(store),
        process: Rc::clone(process),
        workers: worker.map(|worker| worker.handle().clone()),
        plan,
        life,
        port,
        backplane,
        left: dice.between(10, 120),
        dice,
        told: if index == 0 { Told::Nothing } else { Told::Whole },
        events: 0,
        members: BTreeMap::new(),
        topics: BTreeMap::new(),
        memberships: BTreeMap::new(),
        begun: BTreeMap::new(),
        joins: 0,
        coming: 0,
        presence: vec![0; plan.topics.len()],
        proved: vec![(0, Duration::ZERO); plan.topics.len()],
    })
}

fn backplane(net: &mut Net<Place>, url: &str, plan: Plan) -> Result<BackplaneHandle, Error> {
    let mut backplane = Backplane::redis(url)?
        .prefix(PREFIX)
        .keep(KEPT, 100_000)
        .silence(plan.silence)
        .longest_wait(ms(1_000))
        .on_event(|event, state: &mut Place, _| state.happens(event));
    if let Some(when_full) = plan.drops {
        backplane = backplane.queue_limit(500 * plan.topics.len()).when_full(when_full);
    }
    Ok(backplane.start(net)?)
}
