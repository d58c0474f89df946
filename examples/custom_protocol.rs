//! A protocol of one's own: a small store of words, with its server and its client.
//!
//! It shows what most protocols need: messages with a header, answers that may come in another
//! order than their requests, a limit on what one peer may ask for, timeouts on both sides, and
//! errors that cost the connection they concern and nothing else.
//!
//! # On the wire
//!
//! Each message has its length before it, in two bytes; the `LengthPrefixed` layer puts it there and
//! takes it off, so that a handler is given whole messages. All numbers have their highest byte
//! first.
//!
//! ```text
//! request:  number (4 bytes)  code (1 byte)    content
//!           chosen by the     0 ping           none
//!           client            1 get            the key
//!                             2 put            length of the key (1 byte), key, value
//!                             3 wait           milliseconds (4 bytes)
//!
//! answer:   number (4 bytes)  status (1 byte)  content
//!           the request's     0 fine           the value, for a get
//!                             1 no such key    none
//!                             2 too busy       none
//! ```
//!
//! A connection on which the server hears nothing for `SILENCE` is closed; the client pings to keep
//! it. A client that has no answer after `REQUEST_TIMEOUT` gives the request up.

mod support;

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use tidegate::layer::LengthPrefixed;
use tidegate::{
    Address, CloseInfo, Connect, Context, Error, Handler, HandlerResult, Input, Listen, Net, Peer,
    Reactor, Timer, Token,
};

const HELP: &str = "custom_protocol - a small store of words, its server and its client

Usage: cargo run --release --example custom_protocol [server [ADDRESS]]
       cargo run --release --example custom_protocol client [ADDRESS [REQUESTS]]

ADDRESS    default 127.0.0.1:8888
REQUESTS   'get KEY', 'put KEY VALUE' and 'wait MILLISECONDS', with semicolons between them. All
           are sent at once, and the answers are printed as they come. Default:
           'put tide high; wait 300; get tide; get gate'";

// Short enough to watch them at work. Ten times as long suits a service.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_millis(1500);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How many `wait`s one connection may have under way: each costs the server a timer.
const MAX_WAITS: usize = 16;
/// How many keys the store holds. Without a limit, anybody could fill the server's memory.
const MAX_KEYS: usize = 10_000;

// The tag of a timer says what it is for. Timers for a request have the request's
// own number, which is smaller than these.
const TIMER_SILENCE: u64 = u64::MAX;
const TIMER_KEEP_ALIVE: u64 = u64::MAX - 1;

const FINE: u8 = 0;
const NO_SUCH_KEY: u8 = 1;
const TOO_BUSY: u8 = 2;

/// The number of a ping, which gets an answer that is ignored.
const PING: u32 = 0;

fn framing() -> LengthPrefixed {
    LengthPrefixed::new(2).frame_limit(16 * 1024)
}

// ---- the messages, to bytes and back; no network here ----

#[derive(Debug, PartialEq, Eq)]
enum Request<'a> {
    Ping,
    Get(&'a [u8]),
    Put(&'a [u8], &'a [u8]),
    Wait(Duration),
}

impl<'a> Request<'a> {
    /// Reads a request and its number. `None` if it is malformed.
    fn read(input: &mut Input<'a>) -> Option<(u32, Request<'a>)> {
        let number = read_u32(input)?;
        let request = match input.take(1)? {
            [0] => Request::Ping,
            [1] => Request::Get(input.take_all()),
            [2] => {
                let length = input.take(1)?[0];
                let key = input.take(length.into())?;
                Request::Put(key, input.take_all())
            }
            [3] => Request::Wait(Duration::from_millis(read_u32(input)?.into())),
            _ => return None,
        };
        input.is_empty().then_some((number, request))
    }

    fn write(&self, number: u32) -> Vec<u8> {
        let mut bytes = number.to_be_bytes().to_vec();
        match *self {
            Request::Ping => bytes.push(0),
            Request::Get(key) => {
                bytes.push(1);
                bytes.extend(key);
            }
            Request::Put(key, value) => {
                bytes.push(2);
                bytes.push(key.len().try_into().unwrap_or(u8::MAX)); // `parse` has checked it
                bytes.extend(key);
                bytes.extend(value);
            }
            Request::Wait(time) => {
                bytes.push(3);
                bytes.extend(u32::try_from(time.as_millis()).unwrap_or(u32::MAX).to_be_bytes());
            }
        }
        bytes
    }

    /// What a person writes: `put tide high`.
    fn parse(text: &'a str) -> Option<Request<'a>> {
        let mut words = text.splitn(3, ' ');
        let request = match (words.next()?, words.next()?, words.next()) {
            ("get", key, None) => Request::Get(key.as_bytes()),
            ("put", key, Some(value)) if key.len() <= 255 => {
                Request::Put(key.as_bytes(), value.as_bytes())
            }
            ("wait", time, None) => Request::Wait(Duration::from_millis(time.parse().ok()?)),
            _ => return None,
        };
        Some(request)
    }
}

fn answer(number: u32, status: u8, content: &[u8]) -> Vec<u8> {
    [&number.to_be_bytes(), &[status][..], content].concat()
}

fn read_u32(input: &mut Input<'_>) -> Option<u32> {
    Some(u32::from_be_bytes(input.take(4)?.try_into().ok()?))
}

// ---- the server ----

/// Shared by all connections.
type Store = HashMap<Vec<u8>, Vec<u8>>;

/// The server's side of one connection.
struct Session {
    peer: Address,
    silence: Option<Timer>,
    waits: usize,
}

impl Handler<Store> for Session {
    fn on_open(&mut self, cx: &mut Context<'_, Store>) -> HandlerResult {
        self.silence = Some(cx.set_timer(SILENCE, TIMER_SILENCE));
        Ok(())
    }

    /// One message a call.
    fn on_data(&mut self, cx: &mut Context<'_, Store>, input: &mut Input<'_>) -> HandlerResult {
        // Heard from: the silence begins anew. That moves the timer, and costs next to nothing.
        if let Some(silence) = self.silence {
            cx.rearm_timer(silence, SILENCE);
        }
        // An error closes this connection, with the error as the reason.
        let (number, request) = Request::read(input).ok_or("a malformed request")?;
        match request {
            Request::Ping => cx.send(answer(number, FINE, b"")),
            Request::Get(key) => match cx.state.get(key) {
                Some(value) => cx.send(answer(number, FINE, value)),
                None => cx.send(answer(number, NO_SUCH_KEY, b"")),
            },
            Request::Put(key, value) => {
                if cx.state.len() >= MAX_KEYS && !cx.state.contains_key(key) {
                    cx.send(answer(number, TOO_BUSY, b""))
                } else {
                    cx.state.insert(key.to_vec(), value.to_vec());
                    cx.send(answer(number, FINE, b""))
                }
            }
            Request::Wait(_) if self.waits == MAX_WAITS => cx.send(answer(number, TOO_BUSY, b"")),
            Request::Wait(time) => {
                // Answered when the timer is due; other requests are answered meanwhile. The timer
                // ends with the connection. The hold keeps that open for the answer if the client
                // ends its side first.
                self.waits += 1;
                cx.hold();
                cx.set_timer(time, number.into());
                return Ok(());
            }
        };
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Store>, timer: Timer) -> HandlerResult {
        if timer.tag() == TIMER_SILENCE {
            return Err(format!("nothing heard for {SILENCE:?}").into());
        }
        self.waits -= 1;
        let number = u32::try_from(timer.tag())?;
        cx.send(answer(number, FINE, b""));
        cx.release();
        Ok(())
    }

    fn on_close(&mut self, _cx: &mut Context<'_, Store>, closed: &CloseInfo) {
        log::info!("{}: {closed}", self.peer);
    }
}

/// The server's listener: all that its host has of a network, here and in the simulation below.
fn listen(net: &mut Net<Store>, address: &str) -> Result<Token, Error> {
    let listen = Listen::tcp(address).layer(|_peer| framing());
    // Called for each connection that comes, to make its handler.
    let make = |peer: &Peer<'_>| Session { peer: peer.address().clone(), silence: None, waits: 0 };
    net.listen(listen, make)
}

fn server(address: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut reactor = Reactor::with_state(Store::new())?;
    let listener = listen(reactor.net(), address)?;
    for at in reactor.net().local_addrs(listener) {
        support::say(format!("custom_protocol: listening on {at}"))?;
    }
    reactor.run()?;
    Ok(())
}

// ---- the client ----

/// How the client did, for `main`.
struct Outcome {
    /// Where a line goes when there is one: to standard output.
    say: Box<dyn FnMut(String) -> std::io::Result<()>>,
    unanswered: usize,
    failure: Option<String>,
}

impl Outcome {
    fn new(say: impl FnMut(String) -> std::io::Result<()> + 'static) -> Outcome {
        Outcome { say: Box::new(say), unanswered: 0, failure: None }
    }
}

/// The client's side: sends its requests, prints the answers, closes.
struct Caller {
    requests: Vec<String>,
    /// Those under way: the request's number, and the timer that gives it up.
    pending: HashMap<u32, Timer>,
}

impl Caller {
    /// The request with this number. They are counted from 1; 0 is for pings.
    fn text(&self, number: u32) -> &str {
        self.requests.get(number as usize - 1).map_or("?", String::as_str)
    }

    fn close_if_done(&self, cx: &mut Context<'_, Outcome>) {
        if self.pending.is_empty() {
            cx.close();
        }
    }
}

impl Handler<Outcome> for Caller {
    fn on_open(&mut self, cx: &mut Context<'_, Outcome>) -> HandlerResult {
        for (number, text) in (1..).zip(&self.requests) {
            let request = Request::parse(text).ok_or_else(|| {
                format!("expected 'get KEY', 'put KEY VALUE' or 'wait MILLISECONDS', not '{text}'")
            })?;
            cx.send(request.write(number));
            self.pending.insert(number, cx.set_timer(REQUEST_TIMEOUT, number.into()));
        }
        cx.set_timer(KEEP_ALIVE, TIMER_KEEP_ALIVE);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Outcome>, input: &mut Input<'_>) -> HandlerResult {
        let malformed = "the server sent a malformed answer";
        let number = read_u32(input).ok_or(malformed)?;
        let status = input.take(1).ok_or(malformed)?[0];
        // A ping, or a request that has been given up meanwhile: the answer is ignored.
        let Some(timer) = self.pending.remove(&number) else { return Ok(()) };
        cx.cancel_timer(timer);
        let text = self.text(number);
        let outcome = match status {
            // Escaped, because the value may be anything, and this may be a terminal.
            FINE if text.starts_with("get") => input.escape_ascii().to_string(),
            FINE => "done".into(),
            NO_SUCH_KEY => "no such key".into(),
            TOO_BUSY => "the server is too busy".into(),
            _ => return Err(malformed.into()),
        };
        (cx.state.say)(format!("{text}: {outcome}"))?;
        self.close_if_done(cx);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Outcome>, timer: Timer) -> HandlerResult {
        if timer.tag() == TIMER_KEEP_ALIVE {
            cx.send(Request::Ping.write(PING));
            cx.set_timer(KEEP_ALIVE, TIMER_KEEP_ALIVE);
            return Ok(());
        }
        let number = u32::try_from(timer.tag())?;
        self.pending.remove(&number);
        (cx.state.say)(format!("{}: no answer within {REQUEST_TIMEOUT:?}", self.text(number)))?;
        cx.state.unanswered += 1;
        self.close_if_done(cx);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Outcome>, closed: &CloseInfo) {
        cx.state.unanswered += self.pending.len();
        if !closed.reason.is_orderly() {
            cx.state.failure = Some(closed.to_string());
        }
        cx.net.stop();
    }
}

/// Connects to the server with these requests.
fn call(net: &mut Net<Outcome>, address: &str, requests: &str) -> Result<Token, Error> {
    let requests = requests.split(';').map(|request| request.trim().to_owned()).collect();
    let caller = Caller { requests, pending: HashMap::new() };
    net.connect(Connect::tcp(address).layer(framing()), caller)
}

fn client(address: &str, requests: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut reactor = Reactor::with_state(Outcome::new(support::say))?;
    call(reactor.net(), address, requests)?;
    reactor.run()?;
    match reactor.state() {
        Outcome { failure: Some(failure), .. } => Err(failure.as_str().into()),
        Outcome { unanswered: 0, .. } => Ok(()),
        Outcome { unanswered, .. } => Err(format!("{unanswered} without an answer").into()),
    }
}

fn main() -> ExitCode {
    let requests = "put tide high; wait 300; get tide; get gate";
    support::main(HELP, ["server", "127.0.0.1:8888", requests], |[side, address, requests]| {
        match &*side {
            "server" => server(&address),
            "client" => client(&address, &requests),
            other => Err(format!("expected server or client, not '{other}'").into()),
        }
    })
}

/// Both sides in a simulated network: `cargo test --all-features --example custom_protocol`.
#[cfg(all(test, feature = "sim"))]
mod simulated {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tidegate::sim::{Faults, Host, Link, Sim, check};

    use super::*;

    const REQUESTS: &str = "put tide high; wait 300; get tide; get gate; wait 1800";

    /// What the client prints where nothing goes wrong, in the order of the answers. The last wait is
    /// longer than the server endures silence: the pings keep the connection.
    const ANSWERS: [&str; 5] = [
        "put tide high: done",
        "get tide: high",
        "get gate: no such key",
        "wait 300: done",
        "wait 1800: done",
    ];

    fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    fn start_server(sim: &mut Sim) -> Result<Host<Store>, Error> {
        sim.host("server", |net| {
            listen(net, "0.0.0.0:8888")?;
            Ok(Store::new())
        })
    }

    /// A client, and the lines that it prints.
    struct Client {
        host: Host<Outcome>,
        lines: Rc<RefCell<Vec<String>>>,
    }

    impl Client {
        fn start(sim: &mut Sim, name: &str) -> Result<Client, Error> {
            let lines = Rc::new(RefCell::new(Vec::new()));
            let printed = lines.clone();
            // Runs again when the host comes back after a crash: nothing is printed then, either.
            let host = sim.host(name, move |net| {
                printed.borrow_mut().clear();
                let printed = printed.clone();
                call(net, "server:8888", REQUESTS)?;
                Ok(Outcome::new(move |line| {
                    printed.borrow_mut().push(line);
                    Ok(())
                }))
            })?;
            Ok(Client { host, lines })
        }

        /// Its program ends with its connection (`Net::stop`).
        fn has_ended(&self, sim: &Sim) -> bool {
            !sim.is_running(self.host)
        }

        /// Whatever happened: a request has one line at most, and that is a true one.
        fn verify(&self, sim: &Sim) {
            let outcome = sim.state(self.host);
            let mut left: Vec<&str> = REQUESTS.split("; ").collect();
            let lines = self.lines.borrow();
            for line in lines.iter() {
                let (request, answer) = line.rsplit_once(": ").expect("an answer");
                let place = left.iter().position(|&left| left == request);
                left.remove(place.unwrap_or_else(|| panic!("a second answer: {line}")));
                let is_late = answer == "no answer within 2s";
                assert!(is_late || ANSWERS.contains(&&**line), "a wrong answer: {line}");
            }
            // The others are counted, unless the connection failed, which may be before it began.
            let late = lines.iter().filter(|line| line.ends_with("within 2s")).count();
            let known = left.len() + late == outcome.unanswered;
            assert!(known || outcome.failure.is_some(), "nothing was said of {left:?}");
        }
    }

    #[test]
    fn a_quiet_network_answers_everything_in_time() {
        check(0..20, |sim| {
            let latency = ms(1 + sim.seed() * 4);
            sim.default_link(Link::new().latency(ms(1)..latency + ms(1)))?;
            start_server(sim)?;
            let client = Client::start(sim, "client")?;
            // The condition is asked after every event: `now` is the time of the answer.
            for (line, at_least) in [(3, ms(0)), (4, ms(300)), (5, ms(1800))] {
                sim.run_until(ms(5000), |_| client.lines.borrow().len() >= line)?;
                // From the client and back, twice (one for the connection), and slow clocks' ticks.
                let at_most = at_least + 4 * latency + ms(10);
                assert!((at_least..at_most).contains(&sim.now()), "line {line} at {:?}", sim.now());
            }
            assert_eq!(*client.lines.borrow(), ANSWERS);
            sim.run_until(ms(5000), |sim| client.has_ended(sim))?;
            assert_eq!(sim.state(client.host).failure, None);
            sim.settle(ms(60_000))?;
            Ok(())
        });
    }

    #[test]
    fn faults_cost_answers_and_never_make_wrong_ones() {
        check(0..100, |sim| {
            sim.faults(Faults::swarm().until(ms(10_000)));
            start_server(sim)?;
            let clients = [Client::start(sim, "ada")?, Client::start(sim, "bob")?];
            // Until the faults are over, and hosts that crashed are back.
            sim.run_for(ms(20_000))?;
            sim.run_until(ms(600_000), |sim| clients.iter().all(|client| client.has_ended(sim)))?;
            for client in &clients {
                client.verify(sim);
            }
            // The server has survived it all.
            let later = Client::start(sim, "cleo")?;
            sim.run_until(ms(60_000), |sim| later.has_ended(sim))?;
            assert_eq!(*later.lines.borrow(), ANSWERS);
            sim.settle(ms(600_000))?;
            Ok(())
        });
    }

    #[test]
    fn silence_ends_a_connection() {
        check(0..5, |sim| {
            start_server(sim)?;
            let silent = sim.peer("silent")?;
            sim.raw(silent).connect("server:8888")?;
            sim.run_for(SILENCE)?;
            assert!(!sim.raw(silent).has_ended(), "closed too early");
            sim.run_for(ms(10))?;
            assert!(sim.raw(silent).has_ended());
            assert_eq!(sim.raw(silent).received(), b"");
            Ok(())
        });
    }

    #[test]
    fn a_malformed_message_costs_its_sender_the_connection() {
        let bad: [&[u8]; 5] = [
            b"\0\0",
            b"\0\x05\0\0\0\x01\x09",
            b"\0\x06\0\0\0\x01\x02\xff",
            b"\xff\xff",
            b"GET / HTTP/1.1\r\n\r\n",
        ];
        check(0..5, |sim| {
            start_server(sim)?;
            let client = Client::start(sim, "client")?;
            let eve = sim.peer("eve")?;
            sim.raw(eve).connect("server:8888")?;
            let message = bad[sim.seed() as usize % bad.len()];
            sim.raw(eve).send(message);
            sim.run_for(ms(100))?;
            assert!(sim.raw(eve).has_ended());
            assert_eq!(sim.raw(eve).received(), b"");
            sim.run_until(ms(5000), |sim| client.has_ended(sim))?;
            assert_eq!(*client.lines.borrow(), ANSWERS);
            Ok(())
        });
    }

    #[test]
    fn a_client_that_has_ended_its_side_still_gets_its_answer() {
        check(0..20, |sim| {
            // Streams that come in pieces, at any speed; but no fault that ends a connection.
            sim.faults(gentle());
            start_server(sim)?;
            let peer = sim.peer("peer")?;
            sim.raw(peer).connect("server:8888")?;
            // Request 7: wait 200 ms.
            sim.raw(peer).send(b"\0\x09\0\0\0\x07\x03\0\0\0\xc8");
            sim.raw(peer).end();
            sim.run_until(ms(60_000), |sim| sim.raw(peer).has_ended())?;
            assert!(sim.now() > ms(200));
            assert_eq!(sim.raw(peer).received(), b"\0\x05\0\0\0\x07\0");
            Ok(())
        });
    }

    /// Everything that makes a stream slow, late and ragged, and nothing that ends it.
    fn gentle() -> Faults {
        use tidegate::sim::Fault::*;
        [Resets, AcceptErrors, Descriptors, Crashes, Pauses, Partitions, Loss, Jitter]
            .into_iter()
            .fold(Faults::swarm(), Faults::without)
    }
}
