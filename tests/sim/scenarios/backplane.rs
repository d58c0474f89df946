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
//! may hear twice what went out twice.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::backplane::{Backplane, BackplaneEvent, BackplaneHandle, WhenFull};
use tidegate::layer::Lines;
use tidegate::sim::{Host, Link, ScenarioResult, Sim, note};
use tidegate::{
    CloseInfo, Connect, Context, Error, Handler, HandlerResult, Input, Listen, Net, Token,
};

use super::{Dice, FAULTY, LIMIT, ms, rough, us};
use crate::engine::{self, Engine, Store};
use crate::kit::patient;

/// Those from the third on are kept.
const TOPICS: [&str; 4] = ["a", "b", "{kept}/a", "{kept}/b"];
const FIRST_KEPT: usize = 2;
const PREFIX: &str = "x/";

/// So long after a join a message may still come by a subscription that has ended meanwhile.
const SUBSCRIBED: Duration = Duration::from_secs(2);

/// A process in one of its lives: who publishes.
type Life = u64;

/// What everybody has said and heard.
#[derive(Default)]
struct Ledger {
    began: Option<Instant>,
    lives: u64,
    /// How much each has published to each topic.
    published: BTreeMap<(Life, usize), u64>,
    members: u64,
}

type Shared = Rc<RefCell<Ledger>>;

/// Somebody is a member of a topic, from one join to the next leave.
struct Membership {
    /// Asked for with a history: they join when the engine has answered.
    with_history: bool,
    /// How much had been published before, by each.
    before: BTreeMap<Life, u64>,
    /// The process was known to hear the topic, since then.
    proved: bool,
    /// Since when the process had members of the topic.
    presence: u64,
    since: Instant,
    heard: BTreeMap<Life, Heard>,
}

/// The last message of a publisher.
#[derive(Clone, Copy)]
struct Heard {
    count: u64,
    said: Duration,
    /// It was no message that had gone out twice, which may come late to somebody new.
    solid: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Whole,
    Lost,
}

/// The state of a process.
struct Place {
    ledger: Shared,
    store: engine::Shared,
    plan: Plan,
    life: Life,
    backplane: BackplaneHandle,
    dice: Dice,
    left: u64,
    told: Told,
    events: u64,
    /// Since when nothing has happened to the connections.
    undisturbed: Instant,
    /// Which members there are, and the near ends of their connections.
    members: BTreeMap<u64, Token>,
    /// The topics of each, as its near end knows.
    topics: BTreeMap<u64, BTreeSet<usize>>,
    /// The topics of each, as its far end knows.
    memberships: BTreeMap<u64, BTreeMap<usize, Membership>>,
    /// Memberships that the far end is about to learn of.
    begun: BTreeMap<(u64, usize, u64), Membership>,
    joins: u64,
    /// Who was asked to come, and has not come yet.
    coming: usize,
    presence: [u64; TOPICS.len()],
    /// The presence in which something was heard from elsewhere, and when that was said.
    proved: [(u64, Duration); TOPICS.len()],
}

#[derive(Debug, Clone, Copy)]
struct Plan {
    /// How far apart the things are that a process does, in microseconds.
    pace: u64,
    silence: Duration,
    /// The queue is small.
    drops: Option<WhenFull>,
    loss: bool,
    disturbances: u64,
}

impl Place {
    fn now(&self, net: &Net<Place>) -> Duration {
        net.now() - self.ledger.borrow().began.expect("it is set first")
    }

    fn has_member(&self, net: &Net<Place>, member: u64, topic: usize) -> bool {
        let group = net.find_group(TOPICS[topic]);
        group.is_some_and(|group| net.is_member(group, self.members[&member]))
    }

    /// Whether somebody waits for a history of this topic.
    fn is_waited_for(&self, net: &Net<Place>, topic: usize) -> bool {
        let all = self.topics.iter().filter(|(_, topics)| topics.contains(&topic));
        let all: Vec<u64> = all.map(|(&member, _)| member).collect();
        all.into_iter().any(|member| !self.has_member(net, member, topic))
    }

    fn publish(&mut self, net: &mut Net<Place>, topic: usize) {
        let said = self.now(net).as_micros();
        let count = {
            let ledger = &mut *self.ledger.borrow_mut();
            let count = ledger.published.entry((self.life, topic)).or_default();
            *count += 1;
            *count
        };
        let line = format!("says {} {topic} {count} {said}", self.life);
        note(&line);
        net.publish_named(TOPICS[topic], line);
        self.look_at_figures();
    }

    fn join(&mut self, net: &mut Net<Place>, member: u64, topic: usize, history: Option<usize>) {
        if self.topics[&member].contains(&topic) {
            return;
        }
        let group = net.find_group(TOPICS[topic]);
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
        let proved = proved == presence && (topic >= FIRST_KEPT || began + said > self.undisturbed);
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
                let group = net.group(TOPICS[topic]);
                net.join(group, token);
            }
            Some(count) => self.backplane.join_with_history(net, TOPICS[topic], token, count),
        }
    }

    fn leave(&mut self, net: &mut Net<Place>, member: u64, topic: usize) {
        if !self.topics[&member].contains(&topic) || !self.has_member(net, member, topic) {
            return; // nobody can leave who waits for a history
        }
        note(format_args!("{member} leaves {topic}"));
        let (group, token) = (net.group(TOPICS[topic]), self.members[&member]);
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
        let connect = Connect::tcp(("127.0.0.1", 1)).options(patient());
        net.connect(connect.layer(Lines::new()), Far { number: 0 }).expect("it is a loopback");
        self.coming += 1;
    }

    /// Every message is somewhere.
    fn look_at_figures(&self) {
        let stats = self.backplane.stats();
        let sum = stats.confirmed + stats.refused + stats.dropped + stats.queued_messages as u64;
        assert_eq!(stats.published, sum, "{stats:?}");
        assert_eq!(stats.refused + stats.too_large, 0);
        assert!(self.plan.drops.is_some() || stats.dropped == 0, "{stats:?}");
    }

    fn happens(&mut self, net: &mut Net<Place>, event: &BackplaneEvent) {
        note(format_args!("process {}: {event}", self.life));
        self.events += 1;
        self.told = match (self.told, event) {
            (Told::Nothing, BackplaneEvent::Connected) => Told::Whole,
            (Told::Whole, BackplaneEvent::Lost { .. }) => Told::Lost,
            (Told::Lost, BackplaneEvent::Resumed { .. }) => Told::Whole,
            (told, BackplaneEvent::Failed { .. }) => told,
            (told, event) => panic!("{event:?} behind {told:?}"),
        };
        if matches!(event, BackplaneEvent::Lost { .. } | BackplaneEvent::Failed { .. }) {
            self.undisturbed = net.now();
        }
        assert_eq!(self.backplane.is_connected(), self.told == Told::Whole);
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
        let is_kept = topic >= FIRST_KEPT;
        let own = life == self.life;
        let again = self.store.borrow().again.contains(line.as_bytes());
        let undisturbed = self.undisturbed;
        let memberships = self.memberships.get_mut(&member).expect("it is open");
        let Some(m) = memberships.get_mut(&topic) else { panic!("{member} is not in {topic}") };
        let before = m.before.get(&life).copied().unwrap_or(0);
        let last = m.heard.get(&life).copied();
        if own && !m.with_history {
            assert_eq!(count, last.map_or(before, |last| last.count) + 1, "{member}: {line}");
            assert!(now - said < ms(5_000), "{member} hears {line} late, at {now:?}");
        }
        let may_miss = self.plan.drops.is_some();
        match last {
            Some(last) if count <= last.count => {
                assert!(m.with_history && again, "{member} hears {line} behind {}", last.count);
                return;
            }
            Some(last) => {
                // A message that was said since then has come to the same connection.
                let steady = began + last.said > undisturbed.max(m.since + SUBSCRIBED);
                let away = !is_kept && !steady && !own;
                let misses = count > last.count + 1 && !may_miss && !away && last.solid;
                assert!(!misses, "{member} misses {} of {life} to {topic}", last.count + 1);
            }
            None if m.proved => {
                let away = !is_kept && m.since <= undisturbed;
                let misses = count > before + 1 && !may_miss && !away;
                assert!(!misses, "{member} misses {} of {life} to {topic}", before + 1);
            }
            None => {}
        }
        let solid = !again || last.is_some_and(|last| last.solid);
        m.heard.insert(life, Heard { count, said, solid });
        let steady = is_kept || began + said > m.since + SUBSCRIBED;
        if !own && !again && steady && self.proved[topic].0 <= m.presence {
            let since =
                if self.proved[topic].0 == m.presence { self.proved[topic].1 } else { said };
            self.proved[topic] = (m.presence, since.max(said));
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
    let topic = state.dice.size(0, TOPICS.len() - 1);
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
    let count = state.dice.size(0, 20);
    let history = (topic >= FIRST_KEPT).then_some(count);
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

/// A process begins.
fn place(
    net: &mut Net<Place>,
    (ledger, store): (&Shared, &engine::Shared),
    url: &str,
    (seed, plan): (u64, Plan),
) -> Result<Place, Error> {
    let life = {
        let mut ledger = ledger.borrow_mut();
        ledger.began.get_or_insert(net.now());
        ledger.lives += 1;
        ledger.lives
    };
    let mut backplane = Backplane::redis(url)?
        .prefix(PREFIX)
        .keep("{kept}", 100_000)
        .silence(plan.silence)
        .longest_wait(ms(1_000))
        .on_event(|event, state: &mut Place, net| state.happens(net, event));
    if let Some(when_full) = plan.drops {
        backplane = backplane.queue_limit(2_000).when_full(when_full);
    }
    let backplane = backplane.start(net)?;
    net.listen(Listen::tcp(("127.0.0.1", 1)).options(patient()).layer(|_| Lines::new()), |_| {
        Near { number: 0 }
    })?;
    let mut dice = Dice::of(seed, 10 + life);
    net.run_after(us(dice.between(0, plan.pace)), goes_on);
    Ok(Place {
        ledger: Rc::clone(ledger),
        store: Rc::clone(store),
        plan,
        life,
        backplane,
        left: dice.between(10, 120),
        dice,
        told: Told::Nothing,
        events: 0,
        undisturbed: net.now(),
        members: BTreeMap::new(),
        topics: BTreeMap::new(),
        memberships: BTreeMap::new(),
        begun: BTreeMap::new(),
        joins: 0,
        coming: 0,
        presence: [0; TOPICS.len()],
        proved: [(0, Duration::ZERO); TOPICS.len()],
    })
}

const ENGINE: &str = "engine";

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
    let names = ["first", "second", "third"];
    let mut places = Vec::new();
    for name in &names[..dice.size(2, 3)] {
        let (ledger, store, url) = (Rc::clone(&ledger), Rc::clone(&store), url.clone());
        let begin = move |net: &mut Net<Place>| place(net, (&ledger, &store), &url, (seed, plan));
        places.push((*name, sim.host(name, begin)?));
        if plan.loss {
            sim.link(name, ENGINE, Link::new().latency(us(100)..ms(3)).loss(0.05))?;
        }
    }
    disturb(sim, engine, &places, &mut dice, plan);
    sim.run_for(FAULTY + ms(5_000))?;
    for &(name, _) in &places {
        sim.heal(&[name], &[ENGINE])?;
        sim.link(name, ENGINE, Link::new())?;
    }
    together(sim, &places)?;
    look(sim, &places)?;
    // A process that leaves says what it has to say; and nothing is left over.
    for &(_, place) in &places {
        sim.with(place, |state, net| {
            if state.dice.percent(30) {
                state.backplane.stop(net);
            }
            net.shutdown(ms(1_000));
        });
    }
    sim.run_until(LIMIT, |sim| places.iter().all(|&(_, place)| !sim.is_running(place)))?;
    sim.with(engine, |_, net| net.shutdown(ms(1_000)));
    sim.settle(LIMIT)?;
    Ok(())
}

/// What happens to the engine, and to the ways there.
fn disturb(
    sim: &mut Sim,
    engine: Host<Engine>,
    places: &[(&'static str, Host<Place>)],
    dice: &mut Dice,
    plan: Plan,
) {
    let window = 10_000_000.min(plan.pace * 30 + 1_000_000);
    for _ in 0..plan.disturbances {
        let (what, far) = (dice.between(0, 99), dice.size(0, places.len() - 1));
        let (name, host) = places[far];
        let time = us(dice.between(0, 4_000_000));
        let which = dice.size(0, 100);
        sim.at(us(dice.between(0, window)), move |sim| {
            let runs = sim.is_running(engine);
            match what {
                0..20 if runs => {
                    if what < 10 { sim.crash(ENGINE) } else { sim.power_off(ENGINE) }.unwrap();
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
                    let why = if which < 50 { "LOADING for now" } else { "READONLY for now" };
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
            let stats = state.backplane.stats();
            state.left == 0 && state.backplane.is_connected() && stats.queued_messages == 0
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
        assert!(state.told == Told::Whole && state.backplane.stats().queued_messages == 0);
    }
    Ok(())
}
