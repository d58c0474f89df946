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
    Address, CloseInfo, Connect, Context, Handler, HandlerResult, Input, Listen, Peer, Reactor,
    Timer,
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

fn server(address: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut reactor = Reactor::with_state(Store::new())?;
    let listen = Listen::tcp(address).layer(|_peer| framing());
    // Called for each connection that comes, to make its handler.
    let make = |peer: &Peer<'_>| Session { peer: peer.address().clone(), silence: None, waits: 0 };
    let listener = reactor.net().listen(listen, make)?;
    for at in reactor.net().local_addrs(listener) {
        support::say(format!("custom_protocol: listening on {at}"))?;
    }
    reactor.run()?;
    Ok(())
}

// ---- the client ----

/// How the client did, for `main`.
#[derive(Default)]
struct Outcome {
    unanswered: usize,
    failure: Option<String>,
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
        support::say(format!("{text}: {outcome}"))?;
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
        support::say(format!("{}: no answer within {REQUEST_TIMEOUT:?}", self.text(number)))?;
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

fn client(address: &str, requests: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut reactor = Reactor::with_state(Outcome::default())?;
    let requests = requests.split(';').map(|request| request.trim().to_owned()).collect();
    let caller = Caller { requests, pending: HashMap::new() };
    reactor.net().connect(Connect::tcp(address).layer(framing()), caller)?;
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
