//! Three workers on one port, and clients that join topics, talk to each other across workers, publish by name,
//! leave and close; listeners are paused, resumed and closed on single workers, a worker dies and is built
//! again, and all shut down in the end.
//!
//! What one publisher says is heard in the order of its calls, once, and by all who are members meanwhile; a
//! message to a token arrives, or is counted and told; every client is served or ends; workers that nobody
//! disturbs have the same number of connections, give or take one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tidegate::layer::Lines;
use tidegate::sim::{Fault, Faults, Host, ScenarioResult, Sim, note};
use tidegate::{
    CloseInfo, Connect, Context, Handler, HandlerResult, Input, Listen, Net, Notification,
    StreamOptions, Token, Undelivered, Worker, WorkerToken, WorkersHandle,
};

use super::{Dice, FAULTY, LIMIT, hostile, impatient, ms, rough, us};

const WORKERS: usize = 3;
const TOPICS: u64 = 3;

/// A publisher's number, and a topic's.
type Stream = (u64, u64);

/// What the server's handlers and the clients know together. Every connection has a number.
#[derive(Default)]
struct Ledger {
    members: BTreeMap<u64, Member>,
    /// How many messages were published.
    published: BTreeMap<Stream, u64>,
    /// Messages from one connection to another.
    between: BTreeMap<(u64, u64), Between>,
    clients: BTreeMap<u64, ClientSide>,
    /// Messages to connections that were known to be gone.
    in_vain: u64,
    /// Clients that the filter refused.
    refused: usize,
    handle: Option<WorkersHandle<Server>>,
}

struct Member {
    token: WorkerToken,
    open: bool,
    /// How much of this one's was said to anybody.
    said: u64,
    /// The topics that it is in, and the numbers of these memberships.
    topics: BTreeMap<u64, usize>,
    /// Of each membership, how much each connection had published to the topic before.
    before: Vec<BTreeMap<u64, u64>>,
}

#[derive(Default)]
struct Between {
    sent: u64,
    /// Those that were sent when the other one was gone, and whose sender is to be told.
    to_be_told: u64,
    told: u64,
    /// Those that the sender was told of at once by the result.
    refused: u64,
    heard: u64,
}

/// What a client has heard.
#[derive(Default)]
struct ClientSide {
    open: bool,
    /// The last thing that each connection has said.
    last: BTreeMap<u64, u64>,
    /// The topics that it is in, the numbers of these memberships, and the last message of each connection
    /// since then.
    topics: BTreeMap<u64, (usize, BTreeMap<u64, u64>)>,
}

type Shared = Rc<RefCell<Ledger>>;

struct Server {
    ledger: Shared,
    listener: Token,
    dice: Dice,
}

/// Does what its client says, a letter a line.
struct Serves {
    number: u64,
}

fn topic(number: u64) -> String {
    format!("topic {number}")
}

impl Serves {
    /// A connection's next message to anybody.
    fn says(&self, ledger: &mut Ledger) -> u64 {
        let member = ledger.members.get_mut(&self.number).expect("it is open");
        member.said += 1;
        member.said
    }

    fn publish(&self, state: &mut Server, net: &mut Net<Server>) {
        let number = state.dice.between(0, TOPICS - 1);
        let ledger = &mut *state.ledger.borrow_mut();
        let said = self.says(ledger);
        let count = ledger.published.entry((self.number, number)).or_default();
        *count += 1;
        let line = format!("publish {} {said} {number} {count}", self.number);
        note(format_args!("says {line}"));
        net.publish_named(topic(number), line);
    }

    fn send(&self, state: &mut Server, net: &mut Net<Server>, own: Token) {
        let mut ledger = state.ledger.borrow_mut();
        let all: Vec<u64> = ledger.members.keys().copied().collect();
        let to = all[state.dice.size(0, all.len() - 1)];
        let said = self.says(&mut ledger);
        let (token, open) = (ledger.members[&to].token, ledger.members[&to].open);
        let between = ledger.between.entry((self.number, to)).or_default();
        between.sent += 1;
        let line = format!("send {} {said} {}", self.number, between.sent);
        note(format_args!("says {line} to {to}"));
        let tells = state.dice.percent(50);
        if tells {
            between.to_be_told += u64::from(!open);
            net.send_across_or_notify(token, line, own);
        } else if !net.send_across(token, line) {
            between.refused += 1;
        }
        ledger.in_vain += u64::from(!open);
    }

    fn join(&self, cx: &mut Context<'_, Server>, number: u64) {
        let mut ledger = cx.state.ledger.borrow_mut();
        let before = ledger.published.iter().filter(|((_, topic), _)| *topic == number);
        let before = before.map(|(&(publisher, _), &count)| (publisher, count)).collect();
        let member = ledger.members.get_mut(&self.number).expect("it is open");
        if member.topics.contains_key(&number) {
            return;
        }
        let membership = member.before.len();
        member.topics.insert(number, membership);
        member.before.push(before);
        drop(ledger);
        note(format_args!("{} joins {number}", self.number));
        cx.send(format!("join {number} {membership}"));
        let group = cx.net.group(topic(number));
        let _ = cx.join(group); // refused if the connection has failed
    }

    fn leave(&self, cx: &mut Context<'_, Server>, number: u64) {
        let mut ledger = cx.state.ledger.borrow_mut();
        let member = ledger.members.get_mut(&self.number).expect("it is open");
        if member.topics.remove(&number).is_none() {
            return;
        }
        drop(ledger);
        note(format_args!("{} leaves {number}", self.number));
        let group = cx.net.group(topic(number));
        if cx.net.members(group) == [cx.token] {
            cx.net.remove_group(group); // at once, and not with the end of the turn
        } else {
            let _ = cx.leave(group);
        }
        cx.send(format!("leave {number}"));
    }
}

impl Handler<Server> for Serves {
    fn on_open(&mut self, cx: &mut Context<'_, Server>) -> HandlerResult {
        let token = cx.net.worker_token(cx.token);
        let mut ledger = cx.state.ledger.borrow_mut();
        self.number = ledger.members.len() as u64 + 1;
        let member =
            Member { token, open: true, said: 0, topics: BTreeMap::new(), before: Vec::new() };
        ledger.members.insert(self.number, member);
        drop(ledger);
        cx.send(format!("hello {}", self.number));
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Server>, input: &mut Input<'_>) -> HandlerResult {
        let number = cx.state.dice.between(0, TOPICS - 1);
        match input.take_all() {
            b"p" => self.publish(cx.state, cx.net),
            b"s" => self.send(cx.state, cx.net, cx.token),
            b"j" => self.join(cx, number),
            b"l" => self.leave(cx, number),
            // A topic that loses its last member and gets it again in one turn.
            b"r" => {
                self.leave(cx, number);
                self.join(cx, number);
            }
            b"c" => cx.close(),
            other => panic!("a client said {other:?}"),
        }
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Context<'_, Server>, value: Notification) -> HandlerResult {
        let Ok(Undelivered { to }) = value.take() else { panic!("nothing else is posted") };
        let ledger = &mut *cx.state.ledger.borrow_mut();
        let found = ledger.members.iter().find(|(_, member)| member.token == to);
        let between = ledger.between.get_mut(&(self.number, *found.expect("it is known").0));
        between.expect("it was sent").told += 1;
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Server>, _: &CloseInfo) {
        let mut ledger = cx.state.ledger.borrow_mut();
        if let Some(member) = ledger.members.get_mut(&self.number) {
            member.open = false;
        }
    }
}

/// How many clients there are, and how many have not ended.
struct Clients {
    ledger: Shared,
    left: usize,
}

struct Client {
    number: u64,
    dice: Dice,
    left: u64,
}

impl Client {
    /// Says something, in bursts, until it has said all.
    fn next(&mut self, cx: &mut Context<'_, Clients>) {
        let burst = self.dice.between(1, 6).min(self.left);
        for _ in 0..burst {
            let what = match self.dice.between(0, 99) {
                0..45 => "p",
                45..70 => "s",
                70..85 => "j",
                85..92 => "l",
                92..98 => "r",
                _ => "p",
            };
            cx.send(what);
        }
        self.left -= burst;
        if self.left > 0 {
            cx.set_timer(us(self.dice.between(0, 20_000)), 0);
        } else if self.dice.percent(30) {
            cx.send("c");
        }
    }

    fn hears(&mut self, ledger: &mut Ledger, line: &str) {
        let mut words = line.split(' ');
        let what = words.next().unwrap_or_default();
        let numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
        if let ("hello", [number]) = (what, &numbers[..]) {
            self.number = *number;
            let side = ledger.clients.entry(*number).or_default();
            side.open = true;
            return;
        }
        let own = self.number;
        note(format_args!("{own} hears {line}"));
        let Ledger { clients, between, members, .. } = ledger;
        let side = clients.get_mut(&own).expect("it was greeted");
        let mut in_order = |from: u64, said: u64| {
            let last = side.last.insert(from, said).unwrap_or(0);
            assert!(said > last, "{own} hears {said} of {from} behind {last}");
        };
        match (what, &numbers[..]) {
            ("publish", &[from, said, topic, count]) => {
                in_order(from, said);
                let Some((membership, heard)) = side.topics.get_mut(&topic) else {
                    panic!("{own} hears of {topic}, which it is not in")
                };
                // What was on its way to somebody else when it joined may come, too.
                let before = members[&own].before[*membership].get(&from).copied().unwrap_or(0);
                let last = heard.insert(from, count).unwrap_or(0).max(before);
                assert!(count <= last + 1, "{own} misses {} of {from} to {topic}", last + 1);
            }
            ("send", &[from, said, count]) => {
                in_order(from, said);
                let between = between.get_mut(&(from, own)).expect("it was sent");
                between.heard += 1;
                assert!(count >= between.heard && between.heard <= between.sent);
            }
            ("join", &[topic, membership]) => {
                let joined = (membership as usize, BTreeMap::new());
                assert!(side.topics.insert(topic, joined).is_none());
            }
            ("leave", &[topic]) => assert!(side.topics.remove(&topic).is_some()),
            _ => panic!("{own} hears {line:?}"),
        }
    }
}

impl Handler<Clients> for Client {
    fn on_open(&mut self, cx: &mut Context<'_, Clients>) -> HandlerResult {
        self.next(cx);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Clients>, _: tidegate::Timer) -> HandlerResult {
        self.next(cx);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Clients>, input: &mut Input<'_>) -> HandlerResult {
        let line = std::str::from_utf8(input.take_all())?;
        self.hears(&mut cx.state.ledger.borrow_mut(), line);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Clients>, _: &CloseInfo) {
        cx.state.left -= 1;
        let mut ledger = cx.state.ledger.borrow_mut();
        if let Some(side) = ledger.clients.get_mut(&self.number) {
            side.open = false;
        }
    }
}

/// What is done to the server.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Connections may be cut, and hosts stand still for seconds.
    hostile: bool,
    /// Nobody touches the listeners, nobody ends or dies.
    calm: bool,
    limit: usize,
    /// Of a hundred clients the filter refuses so many.
    refuses: u64,
    /// The shutdown does not wait until all is quiet.
    early_end: bool,
    /// In which time clients come and workers are disturbed, in microseconds.
    window: u64,
}

fn options() -> StreamOptions {
    impatient().idle_timeout(None).stall_timeout(LIMIT).connect_timeout(LIMIT)
}

fn server(
    worker: &Worker<Server>,
    net: &mut Net<Server>,
    seed: u64,
    ledger: &Shared,
    Plan { limit, refuses, .. }: Plan,
) -> Result<Server, tidegate::Error> {
    let on = Listen::tcp("0.0.0.0:1").options(options()).connection_limit(limit);
    let mut of_filter = Dice::of(seed, 20 + worker.index() as u64);
    let on = on.filter(move |_peer, state: &mut Server| {
        let refused = of_filter.percent(refuses);
        state.ledger.borrow_mut().refused += usize::from(refused);
        !refused
    });
    let listener = net.listen(on.layer(|_| Lines::new()), |_peer| Serves { number: 0 })?;
    ledger.borrow_mut().handle.get_or_insert_with(|| worker.handle().clone());
    Ok(Server {
        ledger: Rc::clone(ledger),
        listener,
        dice: Dice::of(seed, 10 + worker.index() as u64),
    })
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    let mut dice = Dice::new(sim, 1);
    let plan = Plan {
        hostile: dice.percent(25),
        calm: dice.percent(30),
        limit: if dice.percent(30) { dice.size(1, 8) } else { 1_000 },
        refuses: if Dice::new(sim, 2).percent(25) { 30 } else { 0 },
        early_end: dice.percent(25),
        window: if dice.percent(50) { 100_000 } else { dice.between(100, 4_000) },
    };
    if plan.hostile {
        hostile(sim)?;
        sim.faults(Faults::swarm().until(FAULTY).without(Fault::Crashes));
    } else {
        rough(sim, &[])?;
    }
    let (seed, ledger) = (sim.seed(), Shared::default());
    let shared = Rc::clone(&ledger);
    let workers = sim
        .workers("server", WORKERS, move |worker, net| server(worker, net, seed, &shared, plan))?;
    let count = dice.size(1, 12);
    let (shared, of_clients) = (Rc::clone(&ledger), dice.split());
    let clients = sim.host("clients", move |net: &mut Net<Clients>| {
        let mut dice = of_clients.clone();
        for _ in 0..count {
            let client = Client { number: 0, left: dice.between(1, 40), dice: dice.split() };
            net.run_after(us(dice.between(0, plan.window)), move |_, net| {
                let connect = Connect::tcp(("server", 1)).options(options());
                // Refused while the reactor is being dropped.
                let _ = net.connect(connect.layer(Lines::new()), client);
            });
        }
        Ok(Clients { ledger: Rc::clone(&shared), left: count })
    })?;
    let mut undisturbed = workers.clone();
    if !plan.calm {
        disturb(sim, &mut undisturbed, &mut dice, plan.window);
    }
    if plan.early_end {
        sim.run_for(us(dice.between(0, 200_000)))?;
    } else {
        sim.run_for(FAULTY + ms(20_000))?;
        // All take connections again, or one, which need not be the one that accepts.
        let all = dice.percent(50);
        for &worker in
            workers.iter().rev().filter(|&&worker| sim.is_running(worker)).collect::<Vec<_>>()
        {
            let listens = sim.with(worker, |state, net| {
                net.resume(state.listener);
                net.listener_stats(state.listener).is_some()
            });
            if listens && !all {
                break;
            }
        }
        sim.run_for(LIMIT / 2)?;
        if !plan.hostile && !undisturbed.is_empty() {
            // Whoever is cut off from one worker is served by another.
            let came = ledger.borrow().members.len() + waiting(sim, clients, &ledger.borrow());
            let refused = ledger.borrow().refused;
            assert_eq!(came + refused, count, "clients that were served, or wait");
        }
        sim.settle(LIMIT * 3)?; // who waits at the limit is given up meanwhile
        look(sim, &workers, clients, &ledger.borrow(), plan)?;
    }
    let grace = ms(dice.between(0, 3_000));
    let handle = ledger.borrow_mut().handle.take();
    handle.expect("they were set up").shutdown(grace);
    sim.run_until(LIMIT * 3, |sim| workers.iter().all(|&worker| !sim.is_running(worker)))?;
    sim.settle(Duration::from_secs(7200))?;
    for &worker in &workers {
        assert!(!sim.is_running(worker), "a worker was built again behind the end");
    }
    // A reset that a partition has swallowed is not repeated.
    let left = sim.state(clients).left;
    assert!(left == 0 || plan.hostile, "{left} clients are left whose server has ended");
    Ok(())
}

/// Pauses, ends and deaths. Leaves those that nothing is done to.
fn disturb(sim: &mut Sim, workers: &mut Vec<Host<Server>>, dice: &mut Dice, window: u64) {
    let all = workers.clone();
    let mut disturbed = [false; WORKERS];
    for _ in 0..dice.between(0, 6) {
        let number = dice.size(0, WORKERS - 1);
        let (worker, what) = (all[number], dice.between(0, 99));
        disturbed[number] |= what < 90;
        sim.at(us(dice.between(0, window + window / 2 + 1_000)), move |sim| {
            if !sim.is_running(worker) {
                return;
            }
            match what {
                0..30 => sim.with(worker, |state, net| net.pause(state.listener)),
                30..60 => sim.with(worker, |state, net| net.resume(state.listener)),
                60..75 => sim.with(worker, |state, net| net.close(state.listener)),
                75..90 => sim.worker_dies(worker).expect("it runs"),
                _ => sim.pause("server", us(what * 300)).expect("it exists"),
            }
        });
    }
    let mut disturbed = disturbed.iter();
    workers.retain(|_| disturbed.next() == Some(&false));
}

/// How many clients have not been greeted, and have not ended.
fn waiting(sim: &Sim, clients: Host<Clients>, ledger: &Ledger) -> usize {
    let served = ledger.clients.values().filter(|side| side.open).count();
    sim.state(clients).left - served
}

/// All is quiet.
fn look(
    sim: &mut Sim,
    workers: &[Host<Server>],
    clients: Host<Clients>,
    ledger: &Ledger,
    plan: Plan,
) -> ScenarioResult {
    let mut open = Vec::new();
    let undelivered = ledger.handle.as_ref().map_or(0, WorkersHandle::undelivered);
    for &worker in workers {
        assert!(sim.is_running(worker), "a worker was not built again");
        sim.with(worker, |state, net| {
            open.extend(net.listener_stats(state.listener).map(|stats| stats.open));
        });
    }
    let all: usize = open.iter().sum();
    // What is on its way to a listener that closes goes to another one, whatever has been accepted meanwhile.
    assert!(all <= plan.limit || !plan.calm, "{all} connections are open, above {}", plan.limit);
    // All but those that wait at the limit have been served, or have ended.
    let waiting = waiting(sim, clients, ledger);
    assert!(waiting == 0 || all >= plan.limit, "{waiting} clients wait for {open:?}");
    let ended = ledger.members.values().any(|member| !member.open);
    if plan.calm && !plan.hostile && plan.refuses == 0 && !ended {
        let (least, most) = (open.iter().min(), open.iter().max());
        assert!(most.unwrap() - least.unwrap() <= 1, "open connections: {open:?}");
    }
    for (number, member) in ledger.members.iter().filter(|(_, member)| member.open) {
        let Some(side) = ledger.clients.get(number).filter(|side| side.open) else { continue };
        for (topic, &membership) in &member.topics {
            let (heard_in, heard) = &side.topics[topic];
            assert_eq!(*heard_in, membership);
            let before = &member.before[membership];
            for (&(publisher, _), &count) in ledger.published.iter().filter(|(s, _)| s.1 == *topic)
            {
                if count > before.get(&publisher).copied().unwrap_or(0) {
                    let heard = heard.get(&publisher).copied();
                    assert_eq!(heard, Some(count), "{number} of {publisher} to {topic}");
                }
            }
        }
    }
    for ((from, to), between) in &ledger.between {
        let Between { sent, to_be_told, told, refused, heard } = *between;
        let is_open = |number| ledger.members[number].open;
        let listens = ledger.clients.get(to).is_some_and(|side| side.open);
        assert!(heard + told + refused <= sent, "of {from} to {to}: too much");
        if is_open(to) && listens {
            assert_eq!((heard, told, refused), (sent, 0, 0), "of {from} to {to}");
        }
        if is_open(from) {
            assert!(told >= to_be_told, "of {from} to {to}: {told} told, not {to_be_told}");
        }
    }
    assert!(undelivered >= ledger.in_vain, "{undelivered} counted, not {}", ledger.in_vain);
    Ok(())
}
