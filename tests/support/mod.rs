//! The harness all test files share: a handler that records what it is told, a reactor driven on
//! the test's own thread until something has happened, and a reactor on a thread of its own.
#![allow(dead_code, unreachable_pub)] // each binary, and each set of features, uses a part of it

pub mod child;
pub mod counted;
pub mod datagrams;
pub mod endpoints;
#[cfg(all(feature = "backplane", unix))]
pub mod entries;
pub mod grammar;
pub mod logged;
pub mod panics;
#[cfg(all(feature = "backplane", unix))]
pub mod redis;
pub mod rolling;
#[cfg(feature = "tls")]
pub mod secure;
#[cfg(all(feature = "backplane", unix))]
pub mod slots;
pub mod sockets;
pub mod through;
pub mod xorshift;

use std::cell::RefCell;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate::{
    CloseInfo, Context, Handler, HandlerResult, Input, Net, Notification, Reactor, Remote, Timer,
    Token,
};

/// How long anything may take before a test gives up. Never waited for when things work.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a WebSocket server answers a key with (RFC 6455 section 1.3).
#[cfg(feature = "websocket")]
pub fn accept_key(key: &str) -> String {
    let hash = sha1_smol::Sha1::from(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    data_encoding::BASE64.encode(&hash.digest().bytes())
}

/// What a handler was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Open,
    Data(Vec<u8>),
    Drain,
    Eof,
    Timer(u64),
    Notification,
    /// The reason's text, and the unsent bytes.
    Close(String, usize),
}

pub fn is_data(told: &Told) -> bool {
    matches!(told, Told::Data(_))
}

/// An end with this reason that left nothing unsent.
pub fn closed(reason: &str) -> Told {
    Told::Close(reason.to_owned(), 0)
}

/// A shared list of what handlers were told, in order, with the connection it was about.
#[derive(Debug, Clone, Default)]
pub struct Log(Rc<RefCell<Vec<(Token, Told)>>>);

impl Log {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&self, token: Token, told: Told) {
        self.0.borrow_mut().push((token, told));
    }

    pub fn all(&self) -> Vec<(Token, Told)> {
        self.0.borrow().clone()
    }

    pub fn told(&self) -> Vec<Told> {
        self.0.borrow().iter().map(|(_, told)| told.clone()).collect()
    }

    pub fn of(&self, token: Token) -> Vec<Told> {
        self.0.borrow().iter().filter(|(t, _)| *t == token).map(|(_, told)| told.clone()).collect()
    }

    pub fn count(&self, what: impl Fn(&Told) -> bool) -> usize {
        self.0.borrow().iter().filter(|(_, told)| what(told)).count()
    }

    pub fn opens(&self) -> usize {
        self.count(|told| *told == Told::Open)
    }

    pub fn eofs(&self) -> usize {
        self.count(|told| *told == Told::Eof)
    }

    pub fn closes(&self) -> usize {
        self.count(|told| matches!(told, Told::Close(..)))
    }

    /// The tokens in the order in which they opened.
    pub fn opened(&self) -> Vec<Token> {
        self.0.borrow().iter().filter(|(_, t)| *t == Told::Open).map(|(token, _)| *token).collect()
    }

    /// All data of all connections, joined.
    pub fn data(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for (_, told) in self.0.borrow().iter() {
            if let Told::Data(bytes) = told {
                all.extend_from_slice(bytes);
            }
        }
        all
    }

    /// The texts of the close reasons.
    pub fn reasons(&self) -> Vec<String> {
        self.0
            .borrow()
            .iter()
            .filter_map(|(_, told)| match told {
                Told::Close(reason, _) => Some(reason.clone()),
                _ => None,
            })
            .collect()
    }
}

type Act<S> = Box<dyn FnMut(&mut Context<'_, S>) -> HandlerResult>;
type DataAct<S> = Box<dyn FnMut(&mut Context<'_, S>, &mut Input<'_>) -> HandlerResult>;
type TimerAct<S> = Box<dyn FnMut(&mut Context<'_, S>, Timer) -> HandlerResult>;
type NotifyAct<S> = Box<dyn FnMut(&mut Context<'_, S>, Notification) -> HandlerResult>;
type CloseAct<S> = Box<dyn FnMut(&mut Context<'_, S>, &CloseInfo)>;

/// A handler that writes down what it is told and then does what the test wants. By default it
/// takes all input, and closes at end-of-stream, as a handler without `on_eof` would.
pub struct Probe<S = ()> {
    log: Log,
    on_open: Option<Act<S>>,
    on_data: Option<DataAct<S>>,
    on_drain: Option<Act<S>>,
    on_eof: Option<Act<S>>,
    on_timer: Option<TimerAct<S>>,
    on_notify: Option<NotifyAct<S>>,
    on_close: Option<CloseAct<S>>,
}

impl<S> Probe<S> {
    pub fn new(log: &Log) -> Self {
        Probe {
            log: log.clone(),
            on_open: None,
            on_data: None,
            on_drain: None,
            on_eof: None,
            on_timer: None,
            on_notify: None,
            on_close: None,
        }
    }

    /// Sends back what it gets.
    pub fn echo(log: &Log) -> Self {
        Self::new(log).data(|cx, input| {
            cx.send(input.take_all());
            Ok(())
        })
    }

    pub fn open(mut self, f: impl FnMut(&mut Context<'_, S>) -> HandlerResult + 'static) -> Self {
        self.on_open = Some(Box::new(f));
        self
    }

    pub fn data(
        mut self,
        f: impl FnMut(&mut Context<'_, S>, &mut Input<'_>) -> HandlerResult + 'static,
    ) -> Self {
        self.on_data = Some(Box::new(f));
        self
    }

    pub fn drain(mut self, f: impl FnMut(&mut Context<'_, S>) -> HandlerResult + 'static) -> Self {
        self.on_drain = Some(Box::new(f));
        self
    }

    pub fn eof(mut self, f: impl FnMut(&mut Context<'_, S>) -> HandlerResult + 'static) -> Self {
        self.on_eof = Some(Box::new(f));
        self
    }

    pub fn timer(
        mut self,
        f: impl FnMut(&mut Context<'_, S>, Timer) -> HandlerResult + 'static,
    ) -> Self {
        self.on_timer = Some(Box::new(f));
        self
    }

    pub fn notify(
        mut self,
        f: impl FnMut(&mut Context<'_, S>, Notification) -> HandlerResult + 'static,
    ) -> Self {
        self.on_notify = Some(Box::new(f));
        self
    }

    pub fn close(mut self, f: impl FnMut(&mut Context<'_, S>, &CloseInfo) + 'static) -> Self {
        self.on_close = Some(Box::new(f));
        self
    }
}

impl<S> Handler<S> for Probe<S> {
    fn on_open(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.log.push(cx.token, Told::Open);
        self.on_open.as_mut().map_or(Ok(()), |f| f(cx))
    }

    fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        self.log.push(cx.token, Told::Data(input.to_vec()));
        match &mut self.on_data {
            Some(f) => f(cx, input),
            None => {
                input.take_all();
                Ok(())
            }
        }
    }

    fn on_drain(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.log.push(cx.token, Told::Drain);
        self.on_drain.as_mut().map_or(Ok(()), |f| f(cx))
    }

    fn on_eof(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        self.log.push(cx.token, Told::Eof);
        match &mut self.on_eof {
            Some(f) => f(cx),
            None => {
                cx.close();
                Ok(())
            }
        }
    }

    fn on_timer(&mut self, cx: &mut Context<'_, S>, timer: Timer) -> HandlerResult {
        self.log.push(cx.token, Told::Timer(timer.tag()));
        self.on_timer.as_mut().map_or(Ok(()), |f| f(cx, timer))
    }

    fn on_notify(&mut self, cx: &mut Context<'_, S>, signal: Notification) -> HandlerResult {
        self.log.push(cx.token, Told::Notification);
        self.on_notify.as_mut().map_or(Ok(()), |f| f(cx, signal))
    }

    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        self.log.push(cx.token, Told::Close(closed.reason.to_string(), closed.unsent));
        if let Some(f) = &mut self.on_close {
            f(cx, closed);
        }
    }
}

/// Turns the reactor until `done` holds; panics with `what` if it never does.
#[track_caller]
pub fn until<S>(
    reactor: &mut Reactor<S>,
    what: &str,
    mut done: impl FnMut(&mut Reactor<S>) -> bool,
) {
    let start = Instant::now();
    while !done(reactor) {
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        assert_eq!(
            reactor.turn(Some(Duration::from_millis(10))).unwrap(),
            ControlFlow::Continue(())
        );
    }
}

/// Turns the reactor until nothing is left to do and nothing more arrives: until some turns in a
/// row have slept through their limit. One such turn proves little, because on a busy machine the
/// kernel delivers what goes over loopback a moment later. For what another thread is to cause,
/// wait with [`until`].
#[track_caller]
pub fn settle<S>(reactor: &mut Reactor<S>) {
    const LIMIT: Duration = Duration::from_millis(1);
    let start = Instant::now();
    let mut quiet = 0;
    while quiet < 5 {
        assert!(start.elapsed() < PATIENCE, "the loop does not come to rest");
        let turn = Instant::now();
        let _ = reactor.turn(Some(LIMIT)).unwrap();
        quiet = if turn.elapsed() >= LIMIT { quiet + 1 } else { 0 };
    }
}

/// A reactor without state that listens on an ephemeral port, and the port's address.
pub fn listening<H: Handler + 'static>(
    mut make: impl FnMut() -> H + 'static,
) -> (Reactor, Token, SocketAddr) {
    let mut reactor = Reactor::new().unwrap();
    let listener = reactor.net().listen("127.0.0.1:0", move |_| make()).unwrap();
    let address = address_of(&mut reactor, listener);
    (reactor, listener, address)
}

pub fn address_of<S>(reactor: &mut Reactor<S>, token: Token) -> SocketAddr {
    reactor.net().local_addr(token).unwrap().socket_addr().unwrap()
}

/// A blocking client whose reads give up rather than hang.
pub fn client(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Makes the coming close of a std socket a reset.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Runs a blocking client on a thread of its own while the reactor turns on this one.
#[track_caller]
pub fn with_client<S, T: Send + 'static>(
    reactor: &mut Reactor<S>,
    client: impl FnOnce() -> T + Send + 'static,
) -> T {
    let thread = std::thread::spawn(client);
    until(reactor, "the client to finish", |_| thread.is_finished());
    thread.join().unwrap()
}

/// Reads exactly `n` bytes.
#[track_caller]
pub fn read_n(stream: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Reads to the end of the stream.
#[track_caller]
pub fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A reactor on a thread of its own; stopped and joined when dropped.
pub struct Server<S: 'static = ()> {
    pub address: SocketAddr,
    pub remote: Remote<S>,
    thread: Option<JoinHandle<()>>,
}

impl<S: 'static> Server<S> {
    /// `set_up` runs on the reactor's thread and answers the address to talk to.
    pub fn start(
        state: impl FnOnce() -> S + Send + 'static,
        set_up: impl FnOnce(&mut Net<S>) -> SocketAddr + Send + 'static,
    ) -> Self {
        let (ready, wait) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut reactor = Reactor::with_state(state()).unwrap();
            let address = set_up(reactor.net());
            ready.send((address, reactor.remote())).unwrap();
            reactor.run().unwrap();
        });
        let (address, remote) = wait.recv_timeout(PATIENCE).unwrap();
        Server { address, remote, thread: Some(thread) }
    }
}

impl<S: 'static> Drop for Server<S> {
    fn drop(&mut self) {
        let _ = self.remote.stop();
        let joined = self.thread.take().map(JoinHandle::join);
        if let (Some(Err(panic)), false) = (joined, std::thread::panicking()) {
            std::panic::resume_unwind(panic);
        }
    }
}
