//! A process with a backplane, and an engine for it: one of this library, small and scripted, with what of
//! Redis a backplane uses. `.ci/backplane.py` has a real one.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use tidegate::backplane::{Backplane, BackplaneEvent, BackplaneHandle};
use tidegate::layer::resp::{Command, Resp, Value, Version};
use tidegate::layer::{Item, Layer, LayerContext, LayerError, MessageKind, Step};
use tidegate::{
    Adopt, Context, Handler, HandlerResult, Input, Listen, Message, Reactor, StreamOptions, Token,
};

use super::entries::{self, Entries, Places};
pub(crate) use super::slots::slot_of;
use super::{Log, Probe, address_of};

/// What the engine knows.
#[derive(Default)]
pub struct Engine {
    pub channels: HashMap<Vec<u8>, Vec<Token>>,
    /// Every command but PUBLISH and PING.
    pub commands: Vec<String>,
    pub published: usize,
    /// How many commands were for another node.
    pub moved: usize,
    pub pings: usize,
    /// What it answers to HELLO in place of its greeting. It repeats what it was sent, as Redis may.
    pub refusal: Option<&'static str>,
    /// It does not answer to PUBLISH and XADD.
    pub keeps_quiet: bool,
    /// What it answers to PUBLISH and XADD for the moment.
    pub busy: Option<&'static str>,
    /// What it refuses for the moment, and with what.
    pub refuses: Option<Refuses>,
    /// It holds back what it answers to SUBSCRIBE.
    pub holds: bool,
    /// The same to PUBLISH, whatever it is.
    pub holds_published: bool,
    pub held: Vec<(Token, Vec<u8>)>,
    /// It holds back what wakes a client.
    pub wakes_late: bool,
    /// It does not take up XREAD; how many of them.
    pub reads_late: Option<usize>,
    /// The number of the next client, and who is which.
    pub clients: Vec<Token>,
    pub streams: HashMap<Vec<u8>, Entries>,
    pub last_id: u64,
    /// What it answers to XREAD for the moment, and how often it has.
    pub unreadable: Option<&'static str>,
    pub refused_reads: usize,
    /// Keys that are of another type.
    pub wrong: Vec<Vec<u8>>,
    /// Who waits in XREAD for what.
    pub blocked: Vec<(Token, Places)>,
    /// It is a node of a cluster: where it is, and what it knows about the slots.
    pub cluster: Option<(SocketAddr, Slots)>,
    /// The version that it says it has.
    pub version: Option<&'static str>,
}

/// Of the words of a command.
pub type Refuses = Box<dyn FnMut(&[&[u8]]) -> Option<&'static str>>;

/// Of the slots up to a last one each: who has them. With port 0 nobody has.
pub type Slots = Rc<RefCell<Vec<(u16, SocketAddr)>>>;

impl Engine {
    /// Who has the slot of a name, if that is another node.
    fn elsewhere(&self, name: &[u8]) -> Option<String> {
        let (here, slots) = self.cluster.as_ref()?;
        let slot = slot_of(name);
        let (_, owner) = *slots.borrow().iter().find(|(last, _)| slot <= *last)?;
        if owner.port() == 0 {
            return Some("CLUSTERDOWN Hash slot not served".into());
        }
        (owner != *here).then(|| format!("MOVED {slot} {owner}"))
    }

    /// What it has held back is said.
    pub fn let_out(&mut self) -> Vec<(Token, Vec<u8>)> {
        (self.holds, self.holds_published) = (false, false);
        std::mem::take(&mut self.held)
    }

    /// How often it was told this.
    pub fn count(&self, command: &str) -> usize {
        self.commands.iter().filter(|said| said.starts_with(command)).count()
    }

    /// What XREAD answers, if there is anything.
    fn read(&self, places: &Places) -> Option<Vec<u8>> {
        entries::behind(&self.streams, places, usize::MAX)
    }
}

struct Session;

impl Handler<Engine> for Session {
    fn on_data(&mut self, cx: &mut Context<'_, Engine>, input: &mut Input<'_>) -> HandlerResult {
        let command = Command::new(input.take_all(), input.fields());
        let words: Vec<&[u8]> = command.words().collect();
        let shown = words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>();
        if !matches!(
            words[0],
            b"PUBLISH" | b"SPUBLISH" | b"PING" | b"XADD" | b"XREAD" | b"XREVRANGE"
        ) {
            cx.state.commands.push(shown.join(" "));
        }
        let confirmed = |word, channel| {
            Value::Push(vec![Value::Bulk(word), Value::Bulk(channel), Value::Integer(1)])
        };
        let token = cx.token;
        let elsewhere = match words[..] {
            [b"SSUBSCRIBE" | b"SUNSUBSCRIBE" | b"SPUBLISH" | b"XADD" | b"XREVRANGE", name, ..] => {
                cx.state.elsewhere(name)
            }
            [b"XREAD", .., name, _] => cx.state.elsewhere(name),
            _ => None,
        };
        if let Some(elsewhere) = elsewhere {
            cx.state.moved += 1;
            return answer(cx, &words, &Value::Error(elsewhere.as_bytes()));
        }
        let args = shown[1..].iter().map(|word| format!("'{word}' ")).collect::<String>();
        let refused =
            cx.state.refusal.map(|why| format!("{why}, with args beginning with: {args}"));
        let is_refused = cx.state.refuses.as_mut().and_then(|refuses| refuses(&words));
        let said = match words[..] {
            _ if is_refused.is_some() => Value::Error(is_refused.unwrap_or_default().as_bytes()),
            [b"HELLO", ..] => match &refused {
                Some(refused) => Value::Error(refused.as_bytes()),
                None => {
                    cx.state.clients.push(token);
                    let id = Value::Integer(cx.state.clients.len() as i64);
                    let mode = if cx.state.cluster.is_some() { "cluster" } else { "standalone" };
                    let version = cx.state.version.unwrap_or("7.0.15");
                    Value::Map(vec![
                        (Value::Bulk(b"version"), Value::Bulk(version.as_bytes())),
                        (Value::Bulk(b"id"), id),
                        (Value::Bulk(b"mode"), Value::Bulk(mode.as_bytes())),
                    ])
                }
            },
            [b"CLUSTER", b"SLOTS"] => {
                let (_, slots) = cx.state.cluster.clone().unwrap();
                let mut first = 0;
                let served = slots.borrow().iter().filter(|(_, at)| at.port() > 0).count();
                let mut answer = format!("*{served}\r\n");
                for (last, at) in &*slots.borrow() {
                    if at.port() == 0 {
                        first = last + 1;
                        continue;
                    }
                    let (ip, port) = (at.ip().to_string(), at.port());
                    answer += &format!("*3\r\n:{first}\r\n:{last}\r\n");
                    answer += &format!("*2\r\n${}\r\n{ip}\r\n:{port}\r\n", ip.len());
                    first = last + 1;
                }
                cx.send(answer);
                return Ok(());
            }
            [b"SELECT", _] => Value::Simple(b"OK"),
            [b"PING"] => {
                cx.state.pings += 1;
                Value::Simple(b"PONG")
            }
            [b"SUBSCRIBE", b"forbidden"] => Value::Error(b"NOPERM no permissions"),
            [word @ (b"SUBSCRIBE" | b"SSUBSCRIBE"), channel] => {
                cx.state.channels.entry(channel.into()).or_default().push(token);
                confirmed(if word[1] == b'S' { b"ssubscribe" } else { b"subscribe" }, channel)
            }
            [word @ (b"UNSUBSCRIBE" | b"SUNSUBSCRIBE"), channel] => {
                cx.state.channels.entry(channel.into()).or_default().retain(|&t| t != token);
                confirmed(if word[0] == b'S' { b"sunsubscribe" } else { b"unsubscribe" }, channel)
            }
            [b"PUBLISH" | b"SPUBLISH" | b"XADD", ..] if cx.state.busy.is_some() => {
                Value::Error(cx.state.busy.unwrap_or_default().as_bytes())
            }
            [word @ (b"PUBLISH" | b"SPUBLISH"), channel, payload] => {
                cx.state.published += 1;
                let subscribers = cx.state.channels.get(channel).cloned().unwrap_or_default();
                let said: &[u8] = if word[0] == b'S' { b"smessage" } else { b"message" };
                let push = [said, channel, payload].map(Value::Bulk).to_vec();
                let push = Value::Push(push).encode(Version::Resp3);
                for &subscriber in &subscribers {
                    cx.net.send(subscriber, &push);
                }
                if cx.state.keeps_quiet {
                    return Ok(());
                }
                Value::Integer(subscribers.len() as i64)
            }
            [b"XADD" | b"XREVRANGE" | b"XREAD", ref keys @ ..]
                if keys.iter().any(|key| cx.state.wrong.iter().any(|wrong| wrong == key)) =>
            {
                Value::Error(b"WRONGTYPE Operation against a key holding the wrong kind of value")
            }
            [b"XADD", key, b"MAXLEN", b"~", _, b"*", b"m", payload] => {
                cx.state.last_id += 1;
                let id = cx.state.last_id;
                cx.state.streams.entry(key.into()).or_default().push((id, payload.into()));
                for (token, names) in std::mem::take(&mut cx.state.blocked) {
                    match cx.state.read(&names) {
                        Some(answer) => drop(cx.net.send(token, answer)),
                        None => cx.state.blocked.push((token, names)),
                    }
                }
                if !cx.state.keeps_quiet {
                    cx.send(Value::Bulk(format!("{id}-0").as_bytes()).encode(Version::Resp3));
                }
                return Ok(());
            }
            [b"XREVRANGE", key, b"+", b"-", b"COUNT", count] => {
                let count: usize = std::str::from_utf8(count)?.parse()?;
                let all = cx.state.streams.get(key).map_or(&[][..], Vec::as_slice);
                let answer = entries::newest(all, count);
                cx.send(answer);
                return Ok(());
            }
            [b"XREAD", ..] if cx.state.unreadable.is_some() => {
                cx.state.refused_reads += 1;
                Value::Error(cx.state.unreadable.unwrap_or_default().as_bytes())
            }
            [b"XREAD", b"COUNT", _, b"BLOCK", _, b"STREAMS", ref names @ ..] => {
                let names = entries::places(names);
                if let Some(late) = &mut cx.state.reads_late {
                    *late += 1;
                    return Ok(());
                }
                match cx.state.read(&names) {
                    Some(answer) => drop(cx.send(answer)),
                    None => cx.state.blocked.push((token, names)),
                }
                return Ok(());
            }
            [b"CLIENT", b"UNBLOCK", id] => {
                let id: usize = std::str::from_utf8(id)?.parse()?;
                let waits = cx.state.clients[id - 1];
                let before = cx.state.blocked.len();
                cx.state.blocked.retain(|(token, _)| *token != waits);
                let woken = before - cx.state.blocked.len();
                if woken == 1 && !cx.state.wakes_late {
                    cx.net.send(waits, Value::Null.encode(Version::Resp3));
                }
                Value::Integer(woken as i64)
            }
            _ => Value::Error(b"ERR unknown command"),
        };
        answer(cx, &words, &said)
    }
}

fn answer(cx: &mut Context<'_, Engine>, words: &[&[u8]], said: &Value<'_>) -> HandlerResult {
    let said = said.encode(Version::Resp3);
    let is_held = match words[0] {
        b"SUBSCRIBE" | b"SSUBSCRIBE" => cx.state.holds,
        b"PUBLISH" | b"SPUBLISH" => cx.state.holds_published,
        _ => false,
    };
    if is_held {
        cx.state.held.push((cx.token, said));
    } else {
        cx.send(said);
    }
    Ok(())
}

pub fn engine(at: SocketAddr) -> (Reactor<Engine>, SocketAddr) {
    let mut reactor = Reactor::with_state(Engine::default()).unwrap();
    let options = StreamOptions::new().output_limit(64 * 1024 * 1024);
    let listen = Listen::tcp(at).options(options).layer(|_| Resp::server());
    let listener = reactor.net().listen(listen, |_| Session).unwrap();
    let address = address_of(&mut reactor, listener);
    (reactor, address)
}

/// The nodes of a cluster. The first one has the lower half of the slots, the second one the other.
pub fn new_cluster() -> ([Reactor<Engine>; 2], Slots) {
    let (mut low, low_at) = new_engine();
    let (mut high, high_at) = new_engine();
    let slots = Slots::default();
    *slots.borrow_mut() = vec![(8191, low_at), (16383, high_at)];
    low.state_mut().cluster = Some((low_at, Rc::clone(&slots)));
    high.state_mut().cluster = Some((high_at, Rc::clone(&slots)));
    ([low, high], slots)
}

/// The slots of a node have been given away: it ends the subscriptions that it has no longer.
pub fn let_go(node: &mut Reactor<Engine>) {
    let channels = std::mem::take(&mut node.state_mut().channels);
    let (stay, go): (HashMap<_, _>, _) =
        channels.into_iter().partition(|(name, _)| node.state().elsewhere(name).is_none());
    node.state_mut().channels = stay;
    for (name, subscribers) in go {
        let push =
            Value::Push(vec![Value::Bulk(b"sunsubscribe"), Value::Bulk(&name), Value::Integer(0)]);
        for subscriber in subscribers {
            node.net().send(subscriber, push.encode(Version::Resp3));
        }
    }
}

pub fn new_engine() -> (Reactor<Engine>, SocketAddr) {
    engine("127.0.0.1:0".parse().unwrap())
}

/// Sends a message with its kind and a bar behind it: `T:hello|`.
struct Shown;

impl Layer for Shown {
    fn name(&self) -> &'static str {
        "shown"
    }
    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        Ok(Step::new(wire.len(), Item::Nothing))
    }
    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.extend_from_slice(match kind {
            MessageKind::Default => b"D:",
            MessageKind::Text => b"T:",
            MessageKind::Binary => b"B:",
        });
        wire.extend_from_slice(message);
        wire.push(b'|');
        Ok(())
    }
}

pub type Events = Rc<RefCell<VecDeque<BackplaneEvent>>>;

/// A process with a backplane.
pub struct Process {
    pub reactor: Reactor,
    pub backplane: BackplaneHandle,
    pub events: Events,
}

pub struct Member {
    pub token: Token,
    pub far: UnixStream,
}

impl Member {
    pub fn got(&mut self) -> String {
        let mut got = Vec::new();
        let mut block = [0; 4096];
        while let Ok(n @ 1..) = self.far.read(&mut block) {
            got.extend_from_slice(&block[..n]);
        }
        String::from_utf8_lossy(&got).into_owned()
    }
}

impl Process {
    pub fn new(url: &str, adapt: impl FnOnce(Backplane) -> Backplane) -> Self {
        let (mut reactor, events) = (Reactor::new().unwrap(), Events::default());
        let told = Rc::clone(&events);
        let backplane = Backplane::redis(url)
            .unwrap()
            .longest_wait(Duration::from_millis(20))
            .on_event(move |event, _, _| told.borrow_mut().push_back(event.clone()));
        let backplane = adapt(backplane).start(reactor.net()).unwrap();
        Process { reactor, backplane, events }
    }

    pub fn at(address: SocketAddr) -> Self {
        Self::new(&format!("redis://{address}"), |backplane| backplane)
    }

    /// A connection that is in no group.
    pub fn stranger(&mut self) -> Member {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let options = StreamOptions::new().output_limit(64 * 1024 * 1024);
        let adopt = Adopt::from(near).options(options).layer(Shown);
        let token = self.reactor.net().adopt(adopt, Probe::new(&Log::new())).unwrap();
        Member { token, far }
    }

    pub fn member_of(&mut self, name: &str) -> Member {
        let member = self.stranger();
        let net = self.reactor.net();
        let group = net.group(name);
        assert!(net.join(group, member.token));
        member
    }

    pub fn say(&mut self, name: &str, message: &str) {
        self.reactor.net().publish_named(name, Message::text(message));
    }

    pub fn next_event(&self) -> Option<BackplaneEvent> {
        self.events.borrow_mut().pop_front()
    }
}

pub trait Turns {
    fn turn_once(&mut self);
}

impl Turns for Reactor<Engine> {
    fn turn_once(&mut self) {
        assert!(self.turn(Some(Duration::ZERO)).unwrap().is_continue());
    }
}

impl Turns for Process {
    fn turn_once(&mut self) {
        assert!(self.reactor.turn(Some(Duration::from_micros(100))).unwrap().is_continue());
    }
}

/// Turns all of them until something has happened.
#[allow(unused_macros)] // as above
macro_rules! turned_until {
    ($($turned:expr),+; $condition:expr) => {{
        let begin = std::time::Instant::now();
        while !$condition {
            $($turned.turn_once();)+
            assert!(begin.elapsed() < $crate::support::PATIENCE, "it did not happen: {}", stringify!($condition));
        }
    }};
}

/// A process whose names are all kept.
pub fn keeping(address: SocketAddr) -> Process {
    Process::new(&format!("redis://{address}"), |backplane| backplane.keep("", 1000))
}

/// The next engine at that address, with the streams of the one before.
pub fn restarted(mut before: Reactor<Engine>, address: SocketAddr) -> Reactor<Engine> {
    let streams = std::mem::take(&mut before.state_mut().streams);
    let last_id = before.state().last_id;
    drop(before);
    let (mut after, _) = engine(address);
    after.state_mut().streams = streams;
    after.state_mut().last_id = last_id;
    after
}

#[allow(unused_imports)]
pub(crate) use turned_until;
