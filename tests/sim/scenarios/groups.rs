//! Groups, and members that do all that members do: what a member is sent, directly and through groups,
//! arrives whole and in the order of the calls; what is lost is counted; who only listens is not idle.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

#[cfg(feature = "websocket")]
use tidegate::layer::websocket::WebSocket;
use tidegate::layer::{
    Item, Layer, LayerContext, LayerError, LengthPrefixed, MessageKind, Step, WireClass,
};
use tidegate::sim::{Fault, ScenarioResult, Sim};
use tidegate::{
    CloseInfo, CloseReason, Connect, Context, Group, Handler, HandlerResult, Input, Listen, Net,
    Token,
};

#[allow(dead_code, unreachable_pub)] // the tests in tests/all use the same file
#[path = "../../support/rolling.rs"]
mod rolling;
use rolling::Rolling;

use super::{Dice, LIMIT, impatient, is_over, ms, rough, us};

/// What a connection of the server's was sent, and how it ended; under the address of its peer.
#[derive(Default)]
struct Sent {
    bytes: Vec<u8>,
    unsent: usize,
    /// Its layer gave up, so that the end came before what was published in that turn.
    by_layer: bool,
    /// Its layer drops what it is to encode from some message on.
    quits: bool,
    /// A relay writes to it, too.
    relayed: bool,
    closed: bool,
}

/// What was sent and what was heard, over all hosts.
#[derive(Default)]
struct Ledger {
    sent: BTreeMap<String, Sent>,
    heard: BTreeMap<String, Vec<u8>>,
    /// The values that WebSockets were sent. They may replace each other, and leave at another place.
    values: BTreeMap<String, Vec<Vec<u8>>>,
    /// How many bytes the source of the relay has sent, and whether it has ended.
    source: usize,
    source_ended: bool,
}

type Shared = Rc<RefCell<Ledger>>;

struct Server {
    dice: Dice,
    ledger: Shared,
    groups: Vec<Group>,
    /// The connections under their addresses, and how many bytes of length precede a message to them.
    members: Vec<(Token, String, usize)>,
    /// Those of them that are WebSockets.
    sockets: Vec<(Token, String)>,
    /// Decides about values alone.
    of_values: Dice,
    next: u32,
    /// The target of the relay, once it is open.
    target: Option<Token>,
    source: Option<Token>,
    is_over: bool,
}

impl Server {
    fn note(&mut self, token: Token, message: &[u8]) {
        let found = self.members.iter().find(|member| member.0 == token);
        let (_, address, framed) = found.expect("every connection is known");
        let mut ledger = self.ledger.borrow_mut();
        let sent = &mut ledger.sent.get_mut(address).expect("it was noted").bytes;
        if *framed == 1 && message.len() > 255 {
            return; // it is dropped
        }
        sent.extend(&(message.len() as u32).to_be_bytes()[4 - framed..]);
        sent.extend(message);
    }

    fn message(&mut self) -> Vec<u8> {
        self.next += 1;
        let len =
            if self.dice.percent(90) { self.dice.size(0, 40) } else { self.dice.size(0, 900) };
        words(format!("<{} ", self.next), len, &mut self.dice)
    }
}

/// Text that begins so, with so many bytes behind that.
fn words(mut text: String, len: usize, dice: &mut Dice) -> Vec<u8> {
    let len = text.len() + len;
    while text.len() < len {
        text.push_str(WORDS[dice.size(0, WORDS.len() - 1)]);
    }
    text.truncate(len);
    text.into_bytes()
}

/// They come again and again: what compresses refers to earlier messages.
const WORDS: [&str; 8] = ["tide ", "gate", " opens, ", "and ", "closes; ", "the ", "water ", "7"];

fn send(state: &mut Server, net: &mut Net<Server>, to: Token) {
    let message = state.message();
    if net.send(to, &message).is_accepted() {
        state.note(to, &message);
    }
}

/// Values for some of the WebSockets, which wait until they are flushed, or for all of them.
fn send_values(state: &mut Server, net: &mut Net<Server>) {
    let Server { sockets, of_values: dice, next, ledger, .. } = state;
    let values = &mut ledger.borrow_mut().values;
    let room = net.group("sockets");
    for n in 0..=sockets.len() {
        if !dice.percent(8) {
            continue;
        }
        *next += 1;
        let value = words(format!("[{next} "), dice.size(0, 900), dice);
        let key = dice.between(0, 2);
        let receivers = match sockets.get(n) {
            Some((token, _)) => {
                let _ = net.send_latest(*token, key, &value);
                &sockets[n..=n]
            }
            None => {
                net.publish_latest(room, key, &value);
                &sockets[..]
            }
        };
        for (_, address) in receivers {
            values.entry(address.clone()).or_default().push(value.clone());
        }
    }
}

fn publish(state: &mut Server, net: &mut Net<Server>, group: Group, except: Option<Token>) {
    send_values(state, net);
    let message = state.message();
    let members = net.members(group).to_vec();
    let receivers: Vec<Token> = members
        .into_iter()
        .filter(|&member| Some(member) != except && net.is_open(member))
        .collect();
    let count = match except {
        Some(except) => net.publish_except(group, except, &message),
        None => net.publish(group, &message),
    };
    assert_eq!(count.members, receivers.len(), "the members of the group");
    for receiver in receivers {
        state.note(receiver, &message);
    }
}

/// The queue of the target takes so much, and has so much room.
const TARGET_LIMIT: usize = 2_000;

/// Publishes to the target alone, now and then all that there is room for.
fn fill_the_target(state: &mut Server, net: &mut Net<Server>) {
    let Some(target) = state.target.filter(|&target| net.is_open(target)) else { return };
    if state.ledger.borrow().source_ended {
        return; // the relay ends the target's write side
    }
    let room = TARGET_LIMIT.saturating_sub(net.queued(target));
    if room == 0 {
        return;
    }
    let len = if state.dice.percent(60) { room } else { state.dice.size(1, room) };
    let group = net.group("target");
    let message = vec![b'g'; len];
    net.publish(group, &message);
    state.note(target, &message);
}

/// A member: each byte of its peer's makes it do something.
struct Member {
    framed: usize,
    quits: bool,
    is_socket: bool,
}

impl Member {
    fn framed(framed: usize) -> Self {
        Member { framed, quits: false, is_socket: false }
    }
}

/// Drops what it is to encode once its peer has said `q`, as WebSocket does behind a Close. Until then it
/// has the class of what it wraps.
struct Quits(LengthPrefixed, bool);

impl Layer for Quits {
    fn name(&self) -> &'static str {
        "quits"
    }

    fn decode(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let step = self.0.decode(cx, wire, unit, reply)?;
        if let Item::Slice(range) = &step.item {
            self.1 |= wire[range.clone()] == *b"q";
        }
        Ok(step)
    }

    fn encode(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        if self.1 { Ok(()) } else { self.0.encode(cx, message, kind, wire) }
    }

    fn wire_class(&self) -> Option<WireClass> {
        self.0.wire_class().filter(|_| !self.1)
    }
}

impl Handler<Server> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, Server>) -> HandlerResult {
        let address = cx.peer_addr().expect("it is open").to_string();
        let sent = Sent { quits: self.quits, ..Sent::default() };
        cx.state.ledger.borrow_mut().sent.insert(address.clone(), sent);
        if self.is_socket {
            cx.state.sockets.push((cx.token, address.clone()));
            let sockets = cx.net.group("sockets");
            cx.join(sockets);
        }
        cx.state.members.push((cx.token, address, self.framed));
        for (number, group) in cx.state.groups.clone().into_iter().enumerate() {
            if number == 0 || cx.state.dice.percent(70) {
                cx.join(group);
            }
        }
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Server>, input: &mut Input<'_>) -> HandlerResult {
        for _ in 0..input.take_all().len() {
            if cx.state.is_over {
                return Ok(());
            }
            let number = cx.state.dice.size(0, cx.state.groups.len() - 1);
            let group = cx.state.groups[number];
            match cx.state.dice.between(0, 19) {
                0..4 => publish(cx.state, cx.net, group, None),
                4..6 => publish(cx.state, cx.net, group, Some(cx.token)),
                6..8 => send(cx.state, cx.net, cx.token),
                8..10 => {
                    send(cx.state, cx.net, cx.token);
                    publish(cx.state, cx.net, group, None);
                    send(cx.state, cx.net, cx.token);
                }
                10..12 => {
                    let (member, _, _) =
                        cx.state.members[cx.state.dice.size(0, cx.state.members.len() - 1)];
                    if Some(member) != cx.state.source && Some(member) != cx.state.target {
                        send(cx.state, cx.net, member);
                    }
                }
                12..14 => drop(cx.join(group)),
                14 => drop(cx.leave(group)),
                15..18 => fill_the_target(cx.state, cx.net),
                18 if cx.state.dice.percent(10) => cx.close(),
                19 if cx.state.dice.percent(10) => return Err("this one leaves".into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Server>, closed: &CloseInfo) {
        closes(cx, closed);
    }
}

fn closes(cx: &mut Context<'_, Server>, closed: &CloseInfo) {
    if is_over(closed) {
        return;
    }
    let place = cx.state.members.iter().position(|member| member.0 == cx.token);
    let (_, address, _) = cx.state.members.remove(place.expect("it was open"));
    let by_layer = matches!(closed.reason, CloseReason::Layer(_));
    let by_handler = matches!(closed.reason, CloseReason::Handler(_));
    assert!(by_layer || by_handler || closed.reason.is_orderly(), "{address}: {closed}");
    let mut ledger = cx.state.ledger.borrow_mut();
    let sent = ledger.sent.get_mut(&address).expect("it was noted");
    sent.unsent = closed.unsent;
    sent.by_layer = by_layer;
    sent.closed = true;
}

/// One end of the relay.
struct End {
    is_target: bool,
    /// It looks at the first input before the relay begins, and leaves it to that.
    looks: bool,
}

impl Handler<Server> for End {
    fn on_open(&mut self, cx: &mut Context<'_, Server>) -> HandlerResult {
        let address = cx.peer_addr().expect("it is open").to_string();
        let sent = Sent { relayed: true, ..Sent::default() };
        cx.state.ledger.borrow_mut().sent.insert(address.clone(), sent);
        cx.state.members.push((cx.token, address, 0));
        if !self.looks {
            cx.pause(); // or an end that comes before the relay would drop what is left
        }
        if self.is_target {
            cx.state.target = Some(cx.token);
            let group = cx.net.group("target");
            cx.join(group);
        } else {
            cx.state.source = Some(cx.token);
        }
        if let (Some(source), Some(target)) = (cx.state.source, cx.state.target) {
            if cx.state.dice.percent(50) {
                assert!(cx.net.relay(source, target));
            } else {
                let wait = us(cx.state.dice.between(0, 60_000));
                cx.net.run_after(wait, move |_, net| assert!(net.relay(source, target)));
            }
        }
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Server>, _: &mut Input<'_>) -> HandlerResult {
        cx.pause(); // it waits for the relay
        Ok(())
    }

    fn on_eof(&mut self, _: &mut Context<'_, Server>) -> HandlerResult {
        Ok(()) // the same
    }

    fn on_close(&mut self, cx: &mut Context<'_, Server>, closed: &CloseInfo) {
        closes(cx, closed);
    }
}

// ---- the peers ----

struct Peers {
    left: usize,
    ledger: Shared,
}

struct Talks {
    dice: Dice,
    left: u32,
    framed: usize,
    /// Sends what the layer refuses, at the end.
    breaks: bool,
    /// Says so before the end.
    quits: bool,
    /// Leaves it to the server to end: its layer's end would cut off what is on its way.
    is_socket: bool,
    slow: bool,
    address: String,
}

/// How many bytes of length are in front of each message, by port.
const FRAMED: [usize; 12] = [0, 0, 2, 0, 0, 0, 2, 0, 1, 1, 0, 0];

const NEXT: u64 = 0;
const PAUSE_OVER: u64 = 1;

impl Handler<Peers> for Talks {
    fn on_open(&mut self, cx: &mut Context<'_, Peers>) -> HandlerResult {
        self.address = cx.local_addr().expect("it is open").to_string();
        cx.state.ledger.borrow_mut().heard.insert(self.address.clone(), Vec::new());
        cx.set_timer(ms(1), NEXT);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Peers>, input: &mut Input<'_>) -> HandlerResult {
        let mut ledger = cx.state.ledger.borrow_mut();
        let bytes = input.take_all();
        if self.is_socket && bytes.starts_with(b"[") {
            let sent = ledger.values.get(&self.address);
            let known = sent.is_some_and(|sent| sent.iter().any(|value| value == bytes));
            assert!(known, "{} heard a value that it was not sent", self.address);
        } else {
            ledger.heard.entry(self.address.clone()).or_default().extend(bytes);
        }
        drop(ledger);
        if self.slow && self.dice.percent(20) {
            cx.pause();
            cx.set_timer(us(self.dice.between(0, 20_000)), PAUSE_OVER);
        }
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Peers>, timer: tidegate::Timer) -> HandlerResult {
        if timer.tag() == PAUSE_OVER {
            cx.resume();
            return Ok(());
        }
        if self.left == 0 {
            if self.breaks {
                cx.send([255, 255, 255, 255, 0]);
            }
            if !self.is_socket {
                cx.half_close();
            }
            return Ok(());
        }
        self.left -= 1;
        let count = self.dice.size(1, 3);
        let mut bytes = Vec::new();
        for _ in 0..count {
            bytes.extend(&[0, 0, 0, 1][4 - self.framed..]);
            bytes.push(if self.quits && self.left < 5 { b'q' } else { b'x' });
        }
        cx.send(bytes);
        cx.set_timer(us(self.dice.between(100, 8_000)), NEXT);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Peers>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        if self.breaks && matches!(closed.reason, CloseReason::Io(_)) {
            // It went on sending to a connection whose layer had given up.
            cx.state.ledger.borrow_mut().heard.remove(&self.address);
            return;
        }
        assert!(closed.reason.is_orderly(), "{}: {closed}", self.address);
    }
}

/// Listens only, as long as others talk.
struct Listens(Talks);

impl Handler<Peers> for Listens {
    fn on_open(&mut self, cx: &mut Context<'_, Peers>) -> HandlerResult {
        self.0.on_open(cx)
    }

    fn on_data(&mut self, cx: &mut Context<'_, Peers>, input: &mut Input<'_>) -> HandlerResult {
        self.0.on_data(cx, input)
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Peers>, timer: tidegate::Timer) -> HandlerResult {
        if timer.tag() == PAUSE_OVER {
            cx.resume();
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Peers>, closed: &CloseInfo) {
        self.0.on_close(cx, closed);
    }
}

/// The peer of the relay's source: sends, and ends.
struct Feeds {
    dice: Dice,
    left: u32,
}

impl Handler<Peers> for Feeds {
    fn on_open(&mut self, cx: &mut Context<'_, Peers>) -> HandlerResult {
        cx.set_timer(ms(1), NEXT);
        Ok(())
    }

    fn on_data(&mut self, _: &mut Context<'_, Peers>, _: &mut Input<'_>) -> HandlerResult {
        Err("nobody sends to the source".into())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Peers>, _: tidegate::Timer) -> HandlerResult {
        if self.left == 0 {
            cx.state.ledger.borrow_mut().source_ended = true;
            cx.half_close();
            return Ok(());
        }
        self.left -= 1;
        // Now and then more than the target has room for.
        let most = if self.dice.percent(80) { 400 } else { 3 * TARGET_LIMIT };
        let len = self.dice.size(1, most);
        if cx.send(vec![b'r'; len]).is_accepted() {
            cx.state.ledger.borrow_mut().source += len;
        }
        cx.set_timer(us(self.dice.between(100, 12_000)), NEXT);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Peers>, closed: &CloseInfo) {
        if is_over(closed) {
            return;
        }
        cx.state.left -= 1;
        assert!(closed.reason.is_orderly(), "the source: {closed}");
    }
}

#[cfg(feature = "websocket")]
fn socket() -> WebSocket {
    WebSocket::client("server", "/").deflate(true).layer()
}

/// Until when the server publishes to everybody, so that nobody is idle.
const TALK: Duration = Duration::from_millis(600);

fn tick(state: &mut Server, net: &mut Net<Server>, count: u32) {
    for group in state.groups.clone() {
        publish(state, net, group, None);
    }
    if count < 40 {
        net.run_after(TALK / 40, move |state, net| tick(state, net, count + 1));
    } else {
        // Nobody says anything any more, and who only listens is told so.
        state.is_over = true;
        for &(token, _, _) in &state.members {
            if Some(token) != state.source && Some(token) != state.target {
                net.half_close(token);
            }
        }
    }
}

pub(crate) fn run(sim: &mut Sim) -> ScenarioResult {
    rough(sim, &[Fault::SmallBuffers])?;
    let seed = sim.seed();
    let ledger = Shared::default();
    let mut dice = Dice::new(sim, 1);
    let idle = TALK / 3;
    let looks = dice.percent(70);
    let shared = Rc::clone(&ledger);
    let server = sim.host("server", move |net| {
        let options = impatient().idle_timeout(None);
        let members = Listen::tcp("0.0.0.0:1").options(options.clone());
        net.listen(members, |_| Member::framed(0))?;
        let layered = Listen::tcp("0.0.0.0:2")
            .options(options.clone())
            .layer(|_| LengthPrefixed::new(2).frame_limit(2_000));
        net.listen(layered, |_| Member::framed(2))?;
        // Another class, that cannot carry long messages.
        let short = Listen::tcp("0.0.0.0:8").options(options.clone());
        net.listen(short.layer(|_| LengthPrefixed::new(1)), |_| Member::framed(1))?;
        let quits = Listen::tcp("0.0.0.0:9").options(options.clone());
        let quits = quits.layer(|_| Quits(LengthPrefixed::new(1), false));
        net.listen(quits, |_| Member { quits: true, ..Member::framed(1) })?;
        // A stream layer, whose encoder has state, with messages in it and without.
        let framed = Listen::tcp("0.0.0.0:6").options(options.clone());
        let framed =
            framed.layer(|_| Rolling::default().then(LengthPrefixed::new(2).frame_limit(2_000)));
        net.listen(framed, |_| Member::framed(2))?;
        let stream = Listen::tcp("0.0.0.0:7").options(options.clone());
        net.listen(stream.layer(|_| Rolling::default()), |_| Member::framed(0))?;
        // Messages that are compressed with a window of what the member was sent before.
        #[cfg(feature = "websocket")]
        {
            let threshold = Dice::of(seed, 4).size(10, 300);
            let server = WebSocket::server().deflate(true).deflate_threshold(threshold);
            let of_streams = server.clone();
            let sockets = Listen::tcp("0.0.0.0:10").options(options.clone());
            let socket = || Member { is_socket: true, ..Member::framed(0) };
            net.listen(sockets.layer(move |_| server.layer()), move |_| socket())?;
            let within = Listen::tcp("0.0.0.0:11").options(options.clone());
            let within = within.layer(move |_| Rolling::default().then(of_streams.layer()));
            net.listen(within, move |_| socket())?;
        }
        let listeners = Listen::tcp("0.0.0.0:3").options(options.clone().idle_timeout(idle));
        net.listen(listeners, |_| Member::framed(0))?;
        let ends = options.high_water(500).output_limit(TARGET_LIMIT);
        net.listen(Listen::tcp("0.0.0.0:4").options(ends.clone()), move |_| End {
            is_target: false,
            looks,
        })?;
        net.listen(Listen::tcp("0.0.0.0:5").options(ends), |_| End {
            is_target: true,
            looks: false,
        })?;
        let groups = vec![net.create_group(), net.group("all"), net.create_group()];
        net.run_after(ms(5), |state, net| tick(state, net, 0));
        Ok(Server {
            dice: Dice::of(seed, 2),
            ledger: Rc::clone(&shared),
            groups,
            members: Vec::new(),
            sockets: Vec::new(),
            of_values: Dice::of(seed, 5),
            next: 0,
            target: None,
            source: None,
            is_over: false,
        })
    })?;
    let shared = Rc::clone(&ledger);
    let peers = sim.host("peers", move |net: &mut Net<Peers>| {
        let mut dice = Dice::of(seed, 3);
        let mut left = 0;
        let relay = dice.percent(60);
        let ports = [1, 1, 1, 2, 2, 8, 8, 9, 3, 3, 4, 5, 6, 6, 7, 7];
        let sockets: &[u16] = if cfg!(feature = "websocket") { &[10, 10, 10, 11, 11] } else { &[] };
        for port in ports.into_iter().chain(sockets.iter().copied()) {
            let mut own = dice.split();
            if if matches!(port, 4 | 5) { !relay } else { own.percent(40) } {
                continue;
            }
            left += 1;
            let talks = Talks {
                left: own.between(1, 60) as u32,
                framed: FRAMED[port as usize],
                breaks: FRAMED[port as usize] > 0 && own.percent(60),
                quits: port == 9,
                is_socket: port >= 10,
                slow: port != 3 && own.percent(40),
                address: String::new(),
                dice: own.split(),
            };
            net.run_after(us(own.between(0, 4_000)), move |_, net| {
                let options = impatient().idle_timeout(None).stall_timeout(LIMIT);
                let connect = Connect::tcp(("server", port)).options(options);
                let connect = match port {
                    6 | 7 => connect.layer(Rolling::default()),
                    #[cfg(feature = "websocket")]
                    10 => connect.layer(socket()),
                    #[cfg(feature = "websocket")]
                    11 => connect.layer(Rolling::default().then(socket())),
                    _ => connect,
                };
                // Refused while the reactor is being dropped.
                let _ = match port {
                    4 => net.connect(connect, Feeds { left: talks.left, dice: talks.dice }),
                    3 | 5 => net.connect(connect, Listens(talks)),
                    _ => net.connect(connect, talks),
                };
            });
        }
        Ok(Peers { left, ledger: Rc::clone(&shared) })
    })?;
    for _ in 0..dice.between(0, 12) {
        let at = us(dice.between(0, 400_000));
        let time = us(dice.between(0, 40_000));
        sim.at(at, move |sim| sim.pause("server", time).expect("it exists"));
    }
    sim.run_until(LIMIT, |sim| sim.state(peers).left == 0)?;
    sim.settle(Duration::from_secs(3600))?;
    let open = sim.with(server, |_, net| net.connection_count());
    assert_eq!(open, 0, "connections of the server whose peers are gone");
    compare(&ledger.borrow());
    Ok(())
}

fn compare(ledger: &Ledger) {
    let nothing = Vec::new();
    for (address, sent) in &ledger.sent {
        assert!(sent.closed, "{address} has ended without on_close");
        let heard = match ledger.heard.get(address) {
            Some(heard) => heard,
            None if sent.by_layer => continue, // it was reset
            None => &nothing,
        };
        if sent.relayed {
            let count = |byte| heard.iter().filter(|&&b| b == byte).count();
            if !sent.bytes.is_empty() || !heard.is_empty() {
                assert_eq!(count(b'g'), sent.bytes.len(), "{address}: what was published");
                assert_eq!(count(b'r'), ledger.source, "{address}: what was relayed");
            }
            continue;
        }
        assert!(sent.bytes.starts_with(heard), "{address} heard something else than was sent");
        if sent.quits {
            continue; // from then on it gets nothing
        }
        let lost = sent.bytes.len() - heard.len();
        if sent.by_layer {
            assert!(
                lost == 0 || sent.unsent > 0,
                "{address}: {lost} bytes are lost and not counted"
            );
        } else {
            assert_eq!((lost, sent.unsent), (0, 0), "{address}: bytes lost, and counted");
        }
    }
}
