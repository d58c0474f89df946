//! A feed: values of which only the newest counts, to subscribers that keep up and to slow ones. Each gets
//! no value behind a newer one of its key, no part of one, and in the end the newest of each; one for which
//! nothing was replaced gets every value in order. Nobody is closed for being slow, and what waits is never
//! more than there are keys. Ordinary messages all arrive.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use tidegate::layer::{LengthPrefixed, Lines};
use tidegate::sim::{Fault, Link, ScenarioResult, Sim};
use tidegate::{
    CloseInfo, Connect, Context, Error, Group, Handler, HandlerResult, Input, Listen, Net,
    SocketOptions, StreamOptions, Timer, Token,
};

use super::{Dice, LIMIT, is_over, ms, patient, rough, us};

/// How many symbols there are.
const KEYS: u64 = 40;

/// The longest message, in bytes.
const LONGEST: usize = 100;

/// How far a batch of values fills a queue that the socket does not take whole, in bytes: the smallest
/// batch, as the send buffers are smaller, and the rest of a message.
const BATCH: u64 = 2 * 1024 + LONGEST as u64;

/// What was published, by its number.
struct Sent {
    /// `None`: an ordinary message.
    key: Option<u64>,
    /// `None`: to all.
    to: Option<String>,
}

/// A message is known by its number: a part of one, or of two, shows.
fn message(number: u64, key: Option<u64>) -> String {
    let pad = "x".repeat((number * 7 % 70) as usize);
    match key {
        Some(key) => format!("{key}={number}{pad};"),
        None => format!("all {number}{pad};"),
    }
}

/// What one subscriber was to get, as the server sees it.
#[derive(Default)]
struct Subscriber {
    /// The number of the first message for it.
    first: u64,
    replaced: u64,
    /// It was sent values of its own, which take another way than those of the group.
    direct: bool,
    closed: bool,
}

#[derive(Default)]
struct Ledger {
    sent: Vec<Sent>,
    subscribers: BTreeMap<String, Subscriber>,
    heard: BTreeMap<String, Vec<u64>>,
}

impl Ledger {
    fn add(&mut self, key: Option<u64>, to: Option<String>) -> String {
        let text = message(self.sent.len() as u64, key);
        self.sent.push(Sent { key, to });
        text
    }
}

type Shared = Rc<RefCell<Ledger>>;

// ---- the server ----

struct Server {
    dice: Dice,
    ledger: Shared,
    all: Group,
    members: Vec<(Token, String)>,
    /// Of those that had fallen behind at the last tick, up to which byte their queues went.
    behind: HashMap<Token, u64>,
    /// Ordinary messages are published, too.
    ordinary: bool,
    bursts: u32,
    closing: bool,
}

struct Member {
    address: String,
}

impl Handler<Server> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, Server>) -> HandlerResult {
        self.address = cx.peer_addr().expect("it is open").to_string();
        cx.state.members.push((cx.token, self.address.clone()));
        assert!(cx.join(cx.state.all));
        let mut ledger = cx.state.ledger.borrow_mut();
        let subscriber = Subscriber {
            first: ledger.sent.len() as u64,
            direct: cx.state.dice.percent(30),
            ..Subscriber::default()
        };
        ledger.subscribers.insert(self.address.clone(), subscriber);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Server>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Server>, closed: &CloseInfo) {
        let over = is_over(closed) || cx.state.closing && closed.reason.is_orderly();
        assert!(over && (closed.unsent == 0 || is_over(closed)), "{}: {closed}", self.address);
        let stats = cx.newest_stats().expect("it is a connection");
        assert_eq!(stats.dropped, 0, "{}", self.address);
        let mut ledger = cx.state.ledger.borrow_mut();
        let subscriber = ledger.subscribers.get_mut(&self.address).expect("it was noted");
        (subscriber.replaced, subscriber.closed) = (stats.replaced, true);
    }
}

/// A burst of values, and now and then something else.
fn publish(state: &mut Server, net: &mut Net<Server>) {
    let (ledger, dice, all) = (Rc::clone(&state.ledger), &mut state.dice, state.all);
    for _ in 0..dice.between(1, 30) {
        // Some change often, some hardly ever.
        let key = dice.between(0, KEYS - 1).min(dice.between(0, KEYS - 1));
        match dice.between(0, 19) {
            0 if !state.members.is_empty() => {
                let (member, address) = &state.members[dice.size(0, state.members.len() - 1)];
                let mut ledger = ledger.borrow_mut();
                if ledger.subscribers[address].direct {
                    let text = ledger.add(Some(key), Some(address.clone()));
                    assert!(net.send_latest(*member, key, text).is_accepted());
                }
            }
            1 if state.ordinary => {
                let text = ledger.borrow_mut().add(None, None);
                net.publish(all, text);
            }
            _ => {
                let text = ledger.borrow_mut().add(Some(key), None);
                net.publish_latest(all, key, text);
            }
        }
    }
}

fn tick(state: &mut Server, net: &mut Net<Server>) {
    for (member, address) in &state.members {
        let stats = net.newest_stats(*member).expect("nobody has left");
        assert!(stats.waiting <= KEYS as usize, "{address}: {stats:?}");
        assert!(stats.waiting_bytes <= stats.waiting * LONGEST, "{address}: {stats:?}");
        let behind = net.is_behind(*member);
        assert!(net.members_behind(state.all).any(|m| m == *member) == behind);
        // Who has fallen behind has not caught up before what was in its queue has left, and till then what
        // joins its queue is a batch of values. Only members that count tell: they get values one by one,
        // the others by runs.
        let Some(moved) = net.connection_stats(*member) else { continue };
        let queued = moved.queued.saturating_sub(stats.waiting_bytes as u64);
        let before = state.behind.remove(member).filter(|&through| moved.bytes_sent < through);
        if let Some(through) = before {
            assert!(behind, "{address} has caught up too early");
            let most = BATCH.max(through - moved.bytes_sent);
            assert!(
                queued <= most,
                "{address}: {queued} bytes in its queue, at most {most} expected"
            );
        }
        if stats.behind {
            state.behind.insert(*member, moved.bytes_sent + queued);
        }
    }
    if state.bursts == 0 {
        return;
    }
    state.bursts -= 1;
    publish(state, net);
    let next = us(state.dice.between(0, 20_000));
    net.run_after(next, tick);
}

// ---- the subscribers ----

#[derive(Default)]
struct Subscribers {
    ledger: Shared,
    ended: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Plain,
    Lines,
    LengthPrefixed,
}

const FORMATS: [Format; 3] = [Format::Plain, Format::Lines, Format::LengthPrefixed];

struct Reads {
    dice: Dice,
    /// Reads now and then only.
    slow: bool,
    address: String,
}

impl Handler<Subscribers> for Reads {
    fn on_open(&mut self, cx: &mut Context<'_, Subscribers>) -> HandlerResult {
        self.address = cx.local_addr().expect("it is open").to_string();
        cx.state.ledger.borrow_mut().heard.insert(self.address.clone(), Vec::new());
        Ok(())
    }

    fn on_data(
        &mut self,
        cx: &mut Context<'_, Subscribers>,
        input: &mut Input<'_>,
    ) -> HandlerResult {
        let before = input.len();
        let mut ledger = cx.state.ledger.borrow_mut();
        while let Some(text) = input.take_until(b';') {
            let text = std::str::from_utf8(text)?;
            let number = text.trim_end_matches('x');
            let number = number.rsplit([' ', '=']).next().unwrap_or_default().parse::<u64>()?;
            let sent = ledger.sent.get(number as usize).expect("it was published");
            assert_eq!(text.to_owned() + ";", message(number, sent.key), "another's key, or torn");
            let mine = sent.to.as_ref().is_none_or(|to| *to == self.address);
            assert!(mine, "{}: another's value", self.address);
            ledger.heard.get_mut(&self.address).expect("it was noted").push(number);
        }
        drop(ledger);
        // One that pauses at a part of a message would be offered that alone, for ever.
        if self.slow && input.len() < before {
            cx.pause();
            let time = us(self.dice.between(0, 60_000));
            cx.set_timer(time, 0);
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Subscribers>, _: Timer) -> HandlerResult {
        cx.resume();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Subscribers>, closed: &CloseInfo) {
        assert!(closed.reason.is_orderly() || is_over(closed), "{}: {closed}", self.address);
        cx.state.ended += 1;
    }
}

fn connect(net: &mut Net<Subscribers>, mut dice: Dice, slow: bool) -> Result<(), Error> {
    let which = dice.size(0, FORMATS.len() - 1);
    let socket = SocketOptions::new().receive_buffer(dice.size(500, 4_000));
    let options = options().socket_options(socket);
    let connect = Connect::tcp(("server", 1 + which as u16)).options(options);
    let connect = match FORMATS[which] {
        Format::Plain => connect,
        Format::Lines => connect.layer(Lines::new()),
        Format::LengthPrefixed => connect.layer(LengthPrefixed::new(2)),
    };
    net.connect(connect, Reads { dice, slow, address: String::new() }).map(drop)
}

/// Nobody is hurried: a slow one may take minutes.
fn options() -> StreamOptions {
    let patient = patient().idle_timeout(None).connect_timeout(LIMIT);
    patient.stall_timeout(LIMIT).close_timeout(LIMIT).handshake_timeout(LIMIT)
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    let seed = sim.seed();
    let strict = seed.is_multiple_of(3);
    let without = [Fault::SmallBuffers, Fault::Configs];
    rough(sim, if strict { &without } else { &without[..1] })?;
    let ledger = Shared::default();
    let mut dice = Dice::new(sim, 1);
    let bursts = dice.between(10, if strict { 200 } else { 40 }) as u32;
    let behind_above = [0, 500, 2_000, 6_000, 16 * 1024][dice.size(0, 4)];
    let shared = Rc::clone(&ledger);
    let server = sim.host("server", move |net| {
        for (format, port) in FORMATS.into_iter().zip(1..) {
            let socket = SocketOptions::new().send_buffer(2_000);
            let options = options().behind_above(behind_above).socket_options(socket);
            let options = options.statistics(strict);
            let listen = Listen::tcp(("0.0.0.0", port)).options(options);
            let listen = match format {
                Format::Plain => listen,
                Format::Lines => listen.layer(|_| Lines::new()),
                Format::LengthPrefixed => listen.layer(|_| LengthPrefixed::new(2)),
            };
            net.listen(listen, |_| Member { address: String::new() })?;
        }
        net.run_after(ms(20), tick);
        Ok(Server {
            dice: Dice::of(seed, 2),
            ledger: Rc::clone(&shared),
            all: net.create_group(),
            members: Vec::new(),
            behind: HashMap::new(),
            ordinary: !strict && seed.is_multiple_of(2),
            bursts,
            closing: false,
        })
    })?;
    let mut hosts = Vec::new();
    for (name, count, slow_link) in
        [("near", 9, false), ("far", 6, false), ("thin", 4, true), ("thinner", 3, true)]
    {
        let (shared, own) = (Rc::clone(&ledger), dice.split());
        let host = sim.host(name, move |net| {
            let mut own = own.clone();
            for _ in 0..count {
                let (mut own, slow_reader) = (own.split(), own.percent(20));
                let begin = us(own.between(0, 100_000));
                net.run_after(begin, move |_, net| {
                    let _ = connect(net, own, slow_reader); // refused while the run ends
                });
            }
            Ok(Subscribers { ledger: Rc::clone(&shared), ended: 0 })
        })?;
        if slow_link {
            let link = Link::new().bytes_per_second(dice.between(3_000, 30_000));
            sim.link("server", name, link)?;
        }
        hosts.push((host, count));
    }
    // Published to the end: everybody catches up by itself.
    sim.run_until(LIMIT, |sim| {
        sim.state(server).members.len() == 22 && sim.state(server).bursts == 0
    })?;
    let caught_up = |sim: &mut Sim| {
        sim.with(server, |state, net| {
            let behind = net.members_behind(state.all).count();
            let waiting = state.members.iter().filter(|member| net.queued(member.0) > 0).count();
            (behind, waiting) == (0, 0)
        })
    };
    let mut waited = Duration::ZERO;
    while !caught_up(sim) {
        sim.run_for(ms(100))?;
        waited += ms(100);
        assert!(waited < LIMIT, "somebody does not catch up");
    }
    // A last burst, and the end behind it: nothing may be lost by that.
    sim.with(server, |state, net| {
        publish(state, net);
        publish(state, net);
        state.closing = true;
        net.close_all();
    });
    sim.run_until(LIMIT, |sim| hosts.iter().all(|&(host, count)| sim.state(host).ended == count))?;
    sim.settle(Duration::from_secs(3600))?;
    compare(&ledger.borrow());
    Ok(())
}

fn compare(ledger: &Ledger) {
    for (address, subscriber) in &ledger.subscribers {
        assert!(subscriber.closed, "{address} has ended without on_close");
        let heard = ledger.heard.get(address).map_or(&[][..], Vec::as_slice);
        let all: Vec<u64> = (subscriber.first..ledger.sent.len() as u64)
            .filter(|&n| ledger.sent[n as usize].to.as_ref().is_none_or(|to| to == address))
            .collect();
        let key_of = |n: u64| ledger.sent[n as usize].key;
        let ordinary = |of: &[u64]| -> Vec<u64> {
            of.iter().copied().filter(|&n| key_of(n).is_none()).collect()
        };
        assert_eq!(ordinary(heard), ordinary(&all), "{address}: ordinary messages");
        let mut last: HashMap<u64, u64> = HashMap::new();
        for &number in heard {
            let Some(key) = key_of(number) else { continue };
            let before = last.insert(key, number);
            assert!(before < Some(number), "{address}: {number} of {key} behind {before:?}");
        }
        let newest: HashMap<u64, u64> = all.iter().filter_map(|&n| Some((key_of(n)?, n))).collect();
        assert_eq!(last, newest, "{address}: the newest of each key");
        let lost = all.len() - heard.len();
        assert_eq!(lost as u64, subscriber.replaced, "{address}: what was replaced");
        if lost == 0 && !subscriber.direct {
            let values = heard.iter().filter(|&&n| key_of(n).is_some());
            assert!(values.is_sorted(), "{address}: every value, in order");
        }
    }
}
