//! An engine for backplanes in a simulation: it speaks as Redis does, as one server or as a node of a cluster. What
//! it keeps survives its restart, but for the last entries where the scenario wants that; subscriptions do not.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use tidegate::layer::resp::{Command, Resp, Value, Version};
use tidegate::sim::{Host, Sim, note};
use tidegate::{
    CloseInfo, Context, Error, Handler, HandlerResult, Input, Listen, Net, Timer, Token,
};

use crate::entries::{Entries, Places, behind, newest, places};
use crate::kit::{ms, patient};
use crate::shards::Shards;
use crate::slots::slot_of;

pub(crate) const PORT: u16 = 6379;

/// What keeps its order: a slot, and whether its names are kept.
type Flow = (u16, bool);

/// Which process, in its present life: 16 bytes of an envelope.
type Publisher = Vec<u8>;

/// What outlives the engine's processes, and what the scenario knows of it. The nodes of a cluster share it: a stream
/// is at once where its slot goes.
#[derive(Default)]
pub(crate) struct Store {
    streams: HashMap<Vec<u8>, Entries>,
    last_id: u64,
    /// The nodes of a cluster, and who has which slots.
    pub(crate) shards: Option<Shards>,
    /// The number of the last message of each publisher, in each flow.
    last: BTreeMap<(Publisher, Flow), u64>,
    /// The highest number of each publisher, and when it came.
    newest: BTreeMap<Publisher, (u64, Instant)>,
    /// Lower ones that have not come.
    owed: BTreeSet<(Publisher, u64)>,
    /// When a host was last subscribed anew to a channel.
    subscribed: BTreeMap<(Option<IpAddr>, Vec<u8>), Instant>,
    /// Messages that came again, without their envelopes.
    pub(crate) again: BTreeSet<Vec<u8>>,
    /// Messages of kept names that it had taken, and lost, without their envelopes.
    lost: BTreeSet<Vec<u8>>,
    /// Messages may be missing: the queues of the publishers are small.
    pub(crate) may_miss: bool,
}

pub(crate) type Shared = Rc<RefCell<Store>>;

impl Store {
    /// So many entries were not synced when it was killed.
    pub(crate) fn loses(&mut self, entries: usize) {
        for _ in 0..entries {
            let newest = self.streams.values_mut().max_by_key(|all| all.last().map(|&(id, _)| id));
            let Some((_, payload)) = newest.and_then(Vec::pop) else { return };
            self.lost.insert(payload[27..].to_vec());
        }
    }

    /// Since when a host is subscribed to a channel: what is said there from then on comes there.
    pub(crate) fn subscribed(
        &self,
        host: Option<IpAddr>,
        prefix: &str,
        topic: &str,
    ) -> Option<Instant> {
        self.subscribed.get(&(host, [prefix, topic].concat().into_bytes())).copied()
    }

    /// Whether a message that begins so was taken, and lost.
    pub(crate) fn has_lost(&self, beginning: &[u8]) -> bool {
        let mut from = self.lost.range(beginning.to_vec()..);
        from.next().is_some_and(|message| message.starts_with(beginning))
    }

    /// Whether somebody who has said something since then has said something before that never came.
    pub(crate) fn is_owed(&self, since: Instant) -> bool {
        let mut owing = self.owed.iter().map(|(publisher, _)| self.newest[publisher].1);
        !self.may_miss && owing.any(|newest| newest >= since)
    }

    /// What a publisher says in one flow comes in its order.
    fn comes(&mut self, now: Instant, flow: Flow, payload: &[u8]) {
        let (publisher, number) = sender(payload);
        self.lost.remove(&payload[27..]);
        let newest = self.newest.entry(publisher.clone()).or_insert((0, now));
        // Those between are for other slots, or were overtaken.
        self.owed.extend((newest.0 + 1..number).map(|owed| (publisher.clone(), owed)));
        *newest = (newest.0.max(number), now);
        let is_owed = self.owed.remove(&(publisher.clone(), number));
        let last = self.last.entry((publisher, flow)).or_default();
        if number <= *last {
            assert!(!is_owed, "message {number} came behind {last}");
            self.again.insert(payload[27..].to_vec());
        } else {
            *last = number;
        }
    }
}

/// One connection to the engine.
struct Client {
    token: Token,
    host: Option<IpAddr>,
    channels: BTreeSet<Vec<u8>>,
    /// What it waits for in XREAD, how many entries of each, and the number of this wait.
    waits: Option<(Places, usize)>,
    wait: u64,
    /// It is told nothing any more.
    muted: bool,
    /// It was refused something by a server that takes nothing, and is refused all that follows.
    refused: bool,
    /// Messages that it was told go elsewhere, or later: their flows and numbers.
    not_taken: BTreeSet<(Flow, u64)>,
}

/// The state of an engine's host.
pub(crate) struct Engine {
    store: Shared,
    /// Which node of a cluster.
    node: usize,
    next: u64,
    clients: BTreeMap<u64, Client>,
    /// What it answers for the moment to whatever changes or reads something.
    pub(crate) busy: Option<&'static str>,
}

impl Engine {
    /// Hears all that comes, and says nothing to those that are connected now.
    pub(crate) fn mute(&mut self) {
        self.clients.values_mut().for_each(|client| client.muted = true);
    }

    /// The connections, in their order.
    pub(crate) fn connections(&self) -> Vec<Token> {
        self.clients.values().map(|client| client.token).collect()
    }

    /// A piece of the slots is at another node from now on, and with it what clients have there.
    pub(crate) fn lets_go(&mut self, net: &mut Net<Engine>, piece: usize) {
        let store = Rc::clone(&self.store);
        let store = store.borrow();
        let shards = store.shards.as_ref().expect("it is a cluster");
        let goes = |name: &[u8]| shards.piece_of(slot_of(name)) == piece;
        let mut said = Vec::new();
        for (&id, client) in &mut self.clients {
            client.channels.retain(|channel| {
                let goes = goes(channel);
                if goes {
                    said.push((id, push(b"sunsubscribe", channel)));
                }
                !goes
            });
            let key = client.waits.as_ref().map(|(places, _)| places[0].0.clone());
            if let Some(key) = key.filter(|key| goes(key)) {
                let why = shards.moved(self.node, &key).expect("it is at another node");
                client.waits = None;
                said.push((id, why.into_bytes()));
            }
        }
        for (id, bytes) in said {
            self.say(net, id, &bytes);
        }
    }

    fn say(&self, net: &mut Net<Engine>, to: u64, bytes: &[u8]) {
        if let Some(client) = self.clients.get(&to).filter(|client| !client.muted) {
            net.send(client.token, bytes);
        }
    }

    /// What is new for those who wait.
    fn wake(&mut self, net: &mut Net<Engine>) {
        let store = Rc::clone(&self.store);
        let store = store.borrow();
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        for id in ids {
            let Some(client) = self.clients.get_mut(&id) else { continue };
            let waits = client.waits.as_ref();
            let new = waits.and_then(|(places, count)| behind(&store.streams, places, *count));
            if let Some(answer) = new {
                client.waits = None;
                self.say(net, id, &answer);
            }
        }
    }
}

fn push(word: &[u8], channel: &[u8]) -> Vec<u8> {
    let words = vec![Value::Bulk(word), Value::Bulk(channel), Value::Integer(1)];
    Value::Push(words).encode(Version::Resp3)
}

/// The channel or the key of a command, which decides about its node.
fn name_of<'a>(words: &[&'a [u8]]) -> Option<&'a [u8]> {
    match *words {
        [b"SSUBSCRIBE" | b"SUNSUBSCRIBE" | b"SPUBLISH" | b"XADD" | b"XREVRANGE", name, ..] => {
            Some(name)
        }
        [b"XREAD", _, _, _, _, _, name, ..] => Some(name),
        _ => None,
    }
}

/// Who says something, and as its which message.
fn sender(payload: &[u8]) -> (Publisher, u64) {
    let number = payload[19..27].try_into().expect("8 bytes");
    (payload[3..19].to_vec(), u64::from_be_bytes(number))
}

struct Session {
    id: u64,
}

impl Session {
    fn hello(&self, mode: &[u8]) -> Vec<u8> {
        let facts = vec![
            (Value::Bulk(b"server"), Value::Bulk(b"redis")),
            (Value::Bulk(b"version"), Value::Bulk(b"7.0.15")),
            (Value::Bulk(b"id"), Value::Integer(self.id as i64)),
            (Value::Bulk(b"mode"), Value::Bulk(mode)),
        ];
        Value::Map(facts).encode(Version::Resp3)
    }

    /// What is published, to everybody who is subscribed here. Returns to how many.
    fn publish(engine: &Engine, net: &mut Net<Engine>, words: &[&[u8]]) -> usize {
        let (channel, payload) = (words[1], words[2]);
        let word: &[u8] = if words[0] == b"SPUBLISH" { b"smessage" } else { b"message" };
        let words = [word, channel, payload].map(Value::Bulk).to_vec();
        let message = Value::Push(words).encode(Version::Resp3);
        let subscribed = engine.clients.iter().filter(|(_, c)| c.channels.contains(channel));
        subscribed.map(|(&id, _)| engine.say(net, id, &message)).count()
    }

    fn answer(&self, cx: &mut Context<'_, Engine>, words: &[&[u8]]) -> Option<Vec<u8>> {
        let store = Rc::clone(&cx.state.store);
        let store = &mut *store.borrow_mut();
        let client = cx.state.clients.get_mut(&self.id)?;
        let (now, node) = (cx.net.now(), cx.state.node);
        let sent = match *words {
            [b"PUBLISH" | b"SPUBLISH", name, payload] => Some(((name, false), sender(payload))),
            [b"XADD", name, .., payload] => Some(((name, true), sender(payload))),
            _ => None,
        };
        let sharded = store.shards.is_some();
        let slot = |name| if sharded { slot_of(name) } else { 0 };
        let sent = sent.map(|((name, kept), sender)| ((slot(name), kept), sender));
        let moved = store.shards.as_ref().and_then(|shards| shards.moved(node, name_of(words)?));
        if let Some(why) = moved {
            client.not_taken.extend(sent.map(|(flow, (_, number))| (flow, number)));
            return Some(why.into_bytes());
        }
        let of_one_server = matches!(words[0], b"PUBLISH" | b"SUBSCRIBE" | b"UNSUBSCRIBE");
        let of_data =
            matches!(words[0], b"PUBLISH" | b"SPUBLISH" | b"XADD" | b"XREAD" | b"XREVRANGE");
        assert!(store.shards.is_none() || !of_one_server, "a node of a cluster was told {words:?}");
        if let Some(why) = cx.state.busy.filter(|_| of_data) {
            client.refused |= ["LOADING", "READONLY"].iter().any(|no| why.starts_with(no));
            client.not_taken.extend(sent.map(|(flow, (_, number))| (flow, number)));
            return Some(format!("-{why}\r\n").into_bytes());
        }
        if of_data && client.refused {
            return Some(b"-LOADING it was\r\n".to_vec());
        }
        if let Some((flow, (publisher, number))) = &sent {
            let last = store.last.get(&(publisher.clone(), *flow)).copied().unwrap_or(0);
            // That one was refused, and one behind it is taken, is a known fault where a connection had broken,
            // and not looked for.
            if last + 1 < *number
                && client.not_taken.range((*flow, last + 1)..(*flow, *number)).next().is_some()
            {
                cx.net.abort(client.token);
                return None;
            }
        }
        let flow = sent.map_or((0, false), |(flow, _)| flow);
        let integer = |n: usize| format!(":{n}\r\n").into_bytes();
        Some(match *words {
            [b"HELLO", b"3"] if store.shards.is_some() => self.hello(b"cluster"),
            [b"HELLO", b"3"] => self.hello(b"standalone"),
            [b"CLUSTER", b"SLOTS"] => store.shards.as_ref().expect("it is a cluster").map(node),
            [b"SELECT", _] => b"+OK\r\n".to_vec(),
            [b"PING"] => b"+PONG\r\n".to_vec(),
            [b"SUBSCRIBE" | b"SSUBSCRIBE", channel] => {
                if client.channels.insert(channel.into()) {
                    store.subscribed.insert((client.host, channel.into()), now);
                }
                push(&words[0].to_ascii_lowercase(), channel)
            }
            [b"UNSUBSCRIBE" | b"SUNSUBSCRIBE", channel] => {
                client.channels.remove(channel);
                push(&words[0].to_ascii_lowercase(), channel)
            }
            [b"PUBLISH" | b"SPUBLISH", _, payload] => {
                store.comes(now, flow, payload);
                integer(Self::publish(cx.state, cx.net, words))
            }
            [b"XADD", key, b"MAXLEN", b"~", _, b"*", b"m", payload] => {
                store.comes(now, flow, payload);
                store.last_id += 1;
                let id = store.last_id;
                store.streams.entry(key.into()).or_default().push((id, payload.into()));
                Value::Bulk(format!("{id}-0").as_bytes()).encode(Version::Resp3)
            }
            [b"XREVRANGE", key, b"+", b"-", b"COUNT", count] => {
                newest(store.streams.get(key).map_or(&[][..], Vec::as_slice), number(count))
            }
            [b"XREAD", b"COUNT", count, b"BLOCK", time, b"STREAMS", ref names @ ..] => {
                let (places, count) = (places(names), number(count));
                let new = behind(&store.streams, &places, count);
                if new.is_none() {
                    client.waits = Some((places, count));
                    client.wait += 1;
                    let wait = client.wait;
                    cx.set_timer(ms(number(time) as u64), wait);
                }
                return new;
            }
            [b"CLIENT", b"UNBLOCK", id] => {
                let id = number(id) as u64;
                let waits = cx.state.clients.get_mut(&id).and_then(|client| client.waits.take());
                if waits.is_some() {
                    cx.state.say(cx.net, id, b"_\r\n");
                }
                integer(waits.iter().count())
            }
            _ => panic!("the engine was told {words:?}"),
        })
    }
}

fn number(text: &[u8]) -> usize {
    std::str::from_utf8(text).unwrap().parse().unwrap()
}

impl Handler<Engine> for Session {
    fn on_open(&mut self, cx: &mut Context<'_, Engine>) -> HandlerResult {
        cx.state.next += 1;
        self.id = cx.state.next;
        let client = Client {
            token: cx.token,
            host: cx.peer_addr().and_then(|peer| peer.socket_addr()).map(|peer| peer.ip()),
            channels: BTreeSet::new(),
            waits: None,
            wait: 0,
            muted: false,
            refused: false,
            not_taken: BTreeSet::new(),
        };
        cx.state.clients.insert(self.id, client);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Engine>, input: &mut Input<'_>) -> HandlerResult {
        let command = Command::new(input.take_all(), input.fields());
        let words: Vec<&[u8]> = command.words().collect();
        let shown = words.iter().map(|word| show(word)).collect::<Vec<_>>().join(" ");
        note(format_args!("client {} says {shown}", self.id));
        if let Some(answer) = self.answer(cx, &words) {
            cx.state.say(cx.net, self.id, &answer);
        }
        if words[0] == b"XADD" {
            cx.state.wake(cx.net);
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Engine>, timer: Timer) -> HandlerResult {
        let Some(client) = cx.state.clients.get_mut(&self.id) else { return Ok(()) };
        if client.wait == timer.tag() && client.waits.take().is_some() {
            cx.state.say(cx.net, self.id, b"_\r\n");
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Engine>, _: &CloseInfo) {
        cx.state.clients.remove(&self.id);
    }
}

fn show(word: &[u8]) -> String {
    let bytes = if word.first() == Some(&0xff) { word.get(27..).unwrap_or_default() } else { word };
    String::from_utf8_lossy(bytes).into_owned()
}

/// A host with an engine.
pub(crate) fn engine(sim: &mut Sim, name: &str, store: &Shared) -> Result<Host<Engine>, Error> {
    node(sim, name, store, 0)
}

/// The same, as a node of a cluster once its store has shards.
pub(crate) fn node(
    sim: &mut Sim,
    name: &str,
    store: &Shared,
    node: usize,
) -> Result<Host<Engine>, Error> {
    let store = Rc::clone(store);
    sim.host(name, move |net: &mut Net<Engine>| {
        let listen = Listen::tcp(("0.0.0.0", PORT)).options(patient());
        net.listen(listen.layer(|_| Resp::server()), |_| Session { id: 0 })?;
        let (store, clients) = (Rc::clone(&store), BTreeMap::new());
        Ok(Engine { store, node, next: 0, clients, busy: None })
    })
}
