//! Workers that die, which no handler can cause, and what becomes of their ports, tokens and messages.

use std::cell::Cell;
use std::io;
use std::ops::ControlFlow;

use crate::error::Error;
use crate::reactor::{Reactor, ShutdownReport};

/// How the worker of this thread dies after its turn.
#[derive(Clone, Copy)]
enum Death {
    Panic,
    Poll,
}

thread_local! {
    static DEATH: Cell<Option<Death>> = const { Cell::new(None) };
}

/// Runs a reactor that may be told to die.
pub(super) fn run<S: 'static>(reactor: &mut Reactor<S>) -> Result<ShutdownReport, Error> {
    loop {
        match DEATH.take() {
            Some(Death::Panic) => panic!("as the test has said"),
            Some(Death::Poll) => {
                return Err(Error::new("cannot wait for readiness", io::Error::other("a test")));
            }
            None => {}
        }
        if let ControlFlow::Break(report) = reactor.turn(None)? {
            return Ok(report);
        }
    }
}

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use super::{OnFailure, RunningWorkers, WorkerToken, Workers};
use crate::{
    Address, Context, Handler, HandlerResult, Input, Notification, PostError, Remote, Token,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    /// In the order of their opening.
    open: Vec<Token>,
}

/// Tells its peer the worker's number and life, and is a member of the room.
struct Member;

impl Handler<State> for Member {
    fn on_open(&mut self, cx: &mut Context<'_, State>) -> HandlerResult {
        cx.state.open.push(cx.token);
        let room = cx.net.group("room");
        cx.net.join(room, cx.token);
        let WorkerToken { worker, life, .. } = cx.net.worker_token(cx.token);
        cx.send([worker as u8, life as u8]);
        Ok(())
    }
    fn on_data(&mut self, cx: &mut Context<'_, State>, input: &mut Input<'_>) -> HandlerResult {
        cx.net.publish_named("room", input.take_all());
        Ok(())
    }
    fn on_notify(&mut self, cx: &mut Context<'_, State>, value: Notification) -> HandlerResult {
        assert!(value.is::<super::Undelivered>());
        cx.send("undelivered");
        Ok(())
    }
}

struct Client {
    stream: TcpStream,
    worker: usize,
    life: u8,
}

fn connect(address: SocketAddr) -> Client {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut hello = [0; 2];
    stream.read_exact(&mut hello).unwrap();
    Client { stream, worker: hello[0].into(), life: hello[1] }
}

impl Client {
    fn hears(&mut self, text: &str) {
        let mut heard = vec![0; text.len()];
        self.stream.read_exact(&mut heard).unwrap();
        assert_eq!(String::from_utf8(heard).unwrap(), text);
    }
}

fn start(workers: usize, on_failure: OnFailure) -> (RunningWorkers<State>, SocketAddr) {
    let (addresses, found) = mpsc::channel();
    let running = Workers::new(workers).on_failure(on_failure).start(move |_, net| {
        let listener = net.listen("127.0.0.1:0", |_peer| Member)?;
        let _ = addresses.send(net.local_addr(listener)); // who starts asks once
        Ok(State::default())
    });
    let Some(Address::Ip(address)) = found.recv().unwrap() else { panic!() };
    (running.unwrap(), address)
}

fn kill(running: &RunningWorkers<State>, worker: usize, how: Death) {
    let handle = running.handle();
    let before = handle.remote(worker).unwrap();
    assert!(handle.post(worker, move |_, _| DEATH.set(Some(how))));
    wait_for_the_end_of(&before);
}

/// A worker's inbox is closed when it is dead.
fn wait_for_the_end_of(remote: &Remote<State>) {
    let nothing = Token::new(1_000_000, 1).unwrap();
    while !matches!(remote.abort(nothing), Err(PostError::Ended(()))) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait_for(running: &RunningWorkers<State>, worker: usize) {
    while running.handle().remote(worker).is_none() {
        std::thread::yield_now();
    }
}

// row 240
#[test]
fn a_worker_that_dies_ends_all_and_the_error_says_which_and_why() {
    for (how, why) in [
        (Death::Panic, "it panicked: as the test has said"),
        (Death::Poll, "cannot wait for readiness: a test"),
    ] {
        let (running, address) = start(3, OnFailure::EndAll(Duration::ZERO));
        let clients: Vec<_> = (0..6).map(|_| connect(address)).collect();
        kill(&running, 1, how);
        let error = running.wait().unwrap_err();
        assert_eq!(error.to_string(), format!("worker 1 has died: {why}"));
        assert!(TcpStream::connect(address).is_err(), "the port is free");
        drop(clients);
    }
}

// row 240
#[test]
fn a_worker_that_dies_is_built_again_and_the_others_go_on() {
    // The first accepts for all.
    for dying in [0, 1] {
        let (running, address) = start(2, OnFailure::Rebuild);
        let mut clients = [connect(address), connect(address)];
        clients.sort_by_key(|client| client.worker);
        let [mut lost, mut other] = clients;
        if dying == 1 {
            std::mem::swap(&mut lost, &mut other);
        }
        assert_eq!((lost.worker, lost.life, other.life), (dying, 0, 0));
        let handle = running.handle();
        // The token of a connection that is about to be lost.
        let (answer, answered) = mpsc::channel();
        handle.post(dying, move |state, net| answer.send(net.worker_token(state.open[0])).unwrap());
        let old = answered.recv_timeout(PATIENCE).unwrap();
        kill(&running, dying, Death::Panic);
        let mut rest = Vec::new();
        let _ = lost.stream.read_to_end(&mut rest); // an end or a reset
        assert_eq!(rest, b"");
        // The others talk meanwhile.
        other.stream.write_all(b"still here").unwrap();
        other.hears("still here");
        wait_for(&running, dying);
        // It takes connections again, and is a member again.
        let mut new = connect(address);
        assert_eq!((new.worker, new.life), (dying, 1));
        new.stream.write_all(b"back").unwrap();
        new.hears("back");
        other.hears("back");
        other.stream.write_all(b"welcome").unwrap();
        new.hears("welcome");
        // The old token, which may be that of the new connection by its number, is refused.
        let sender = other.worker;
        handle.post(sender, move |state, net| {
            net.send_across_or_notify(old, "for who is gone", state.open[0]);
        });
        other.hears("welcome");
        other.hears("undelivered");
        assert!(!handle.send(WorkerToken::new(7, 0, old.token()), "no such worker"));
        drop((new, other));
        handle.shutdown(PATIENCE);
        running.wait().unwrap();
        assert!(TcpStream::connect(address).is_err(), "the port is free");
    }
}

// row 240
#[test]
fn a_lone_worker_that_is_built_again_serves_the_backlog() {
    let (running, address) = start(1, OnFailure::Rebuild);
    let handle = running.handle();
    let (goes_on, gate) = mpsc::channel::<()>();
    handle.post(0, move |_, _| {
        gate.recv().unwrap();
        DEATH.set(Some(Death::Poll));
    });
    // It cannot come to accept this one before it dies: or it does, in that turn.
    let stream = TcpStream::connect(address).unwrap();
    let before = handle.remote(0).unwrap();
    goes_on.send(()).unwrap();
    wait_for_the_end_of(&before);
    wait_for(&running, 0);
    let client = connect(address);
    assert_eq!(client.life, 1);
    drop((stream, client));
    handle.stop();
    running.wait().unwrap();
}

// row 240
#[test]
fn a_worker_that_dies_each_time_ends_all() {
    let (builds, built) = mpsc::channel();
    let running = Workers::new(2).on_failure(OnFailure::Rebuild).start(move |worker, net| {
        if worker.index() == 1 {
            builds.send(()).unwrap();
            net.run_after(Duration::ZERO, |_, _| DEATH.set(Some(Death::Poll)));
        }
        Ok(())
    });
    let error = running.unwrap().wait().unwrap_err().to_string();
    assert_eq!(error, "worker 1 has died: cannot wait for readiness: a test");
    assert_eq!(built.try_iter().count(), 6);
}

// row 240
#[test]
fn an_end_reaches_a_worker_that_is_being_built_again() {
    let (running, address) = start(2, OnFailure::Rebuild);
    for _ in 0..3 {
        kill(&running, 1, Death::Poll);
        wait_for(&running, 1);
    }
    kill(&running, 1, Death::Poll); // now it waits for 300 ms before the next attempt
    running.handle().shutdown(PATIENCE);
    running.wait().unwrap();
    assert!(TcpStream::connect(address).is_err(), "the port is free");
}

// row 240
#[test]
fn a_set_up_that_fails_once_leaves_no_seat_and_no_name_behind() {
    for workers in [1, 2] {
        let (addresses, found) = mpsc::channel();
        let builds = AtomicUsize::new(0);
        let running = Workers::new(workers)
            .on_failure(OnFailure::Rebuild)
            .start(move |worker, net| {
                let listener = net.listen("127.0.0.1:0", |_peer| Member)?;
                let _ = addresses.send(net.local_addr(listener));
                if worker.index() == 0 && builds.fetch_add(1, Ordering::SeqCst) == 1 {
                    net.group("forgotten");
                    return Err(io::Error::other("the database is not back yet").into());
                }
                Ok(State::default())
            })
            .unwrap();
        let Some(Address::Ip(address)) = found.recv().unwrap() else { panic!() };
        kill(&running, 0, Death::Poll);
        wait_for(&running, 0);
        let clients: Vec<_> = (0..workers).map(|_| connect(address)).collect();
        assert!(clients.iter().any(|client| (client.worker, client.life) == (0, 2)));
        let (answer, answered) = mpsc::channel();
        let last = workers - 1;
        running.handle().post(last, move |_, net| {
            net.publish_named("forgotten", "nobody is there");
            net.run_after(Duration::from_millis(1), move |_, net| {
                answer.send(net.stats().crossings).unwrap();
            });
        });
        assert_eq!(answered.recv_timeout(PATIENCE).unwrap(), 0);
        drop(clients);
        running.handle().stop();
        running.wait().unwrap();
        assert!(TcpStream::connect(address).is_err(), "the port is free");
    }
}

// row 240
#[test]
fn a_port_waits_for_a_worker_that_is_being_built_again() {
    let (addresses, found) = mpsc::channel();
    let (goes_on, gate) = mpsc::channel::<()>();
    let (gate, builds) = (Mutex::new(gate), AtomicUsize::new(0));
    let running = Workers::new(2)
        .on_failure(OnFailure::Rebuild)
        .start(move |worker, net| {
            if worker.index() == 1 && builds.fetch_add(1, Ordering::SeqCst) == 1 {
                gate.lock().unwrap().recv().unwrap();
            }
            let listener = net.listen("127.0.0.1:0", |_peer| Member)?;
            let _ = addresses.send(net.local_addr(listener));
            Ok(State::default())
        })
        .unwrap();
    let first = found.recv().unwrap();
    assert_eq!(found.recv().unwrap(), first);
    let Some(Address::Ip(address)) = first.clone() else { panic!() };
    kill(&running, 1, Death::Panic);
    // The other one ends in order meanwhile.
    let handle = running.handle();
    let before = handle.remote(0).unwrap();
    assert!(handle.post(0, |_, net| net.stop()));
    wait_for_the_end_of(&before);
    // A peer waits in the backlog.
    let mut waits = TcpStream::connect(address).unwrap();
    goes_on.send(()).unwrap();
    assert_eq!(found.recv_timeout(PATIENCE).unwrap(), first);
    let mut hello = [0; 2];
    waits.set_read_timeout(Some(PATIENCE)).unwrap();
    waits.read_exact(&mut hello).unwrap();
    assert_eq!(hello, [1, 1]);
    drop(waits);
    handle.stop();
    running.wait().unwrap();
}

// row 240
#[test]
fn a_worker_that_dies_while_all_end_is_reported() {
    let (running, address) = start(2, OnFailure::Rebuild);
    let clients = [connect(address), connect(address)]; // which hold the workers
    let handle = running.handle();
    let (begins, begun) = mpsc::channel();
    handle.post(1, move |_, _| {
        begun.recv().unwrap();
        DEATH.set(Some(Death::Poll));
    });
    handle.shutdown(PATIENCE);
    begins.send(()).unwrap();
    handle.remote(0).unwrap().stop().unwrap();
    let error = running.wait().unwrap_err().to_string();
    assert_eq!(error, "worker 1 has died: cannot wait for readiness: a test");
    drop(clients);
}
