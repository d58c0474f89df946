//! Custom sources: anything that mio can wait for, beside the sockets.
#![cfg(unix)]

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use mio::unix::{SourceFd, pipe};
use mio::{Interest, Registry, Token as MioToken, event::Source};
use tidegate::{Reactor, mio};

use crate::support::panics::{Bomb, panic_on_purpose, quiet};
use crate::support::{Log, Probe, Told, client, listening, settle, until};

/// Reads what there is; whether more may come.
fn drain(source: &mut impl Read, into: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 64];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return false,
            Ok(n) => into.extend_from_slice(&buffer[..n]),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::WouldBlock);
                return true;
            }
        }
    }
}

#[test]
fn a_pipe_is_read_and_what_it_brings_reaches_a_connection() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || Probe::new(&of_handler));
    let mut stream = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    let to = log.opened()[0];

    let (mut sender, receiver) = pipe::new().unwrap();
    let ended = Rc::new(Cell::new(false));
    let tell = Rc::clone(&ended);
    let source = reactor
        .net()
        .register_source(receiver, Interest::READABLE, move |pipe, cx, ready| {
            assert!(ready.readable || ready.closed);
            let mut bytes = Vec::new();
            tell.set(!drain(pipe, &mut bytes));
            cx.net.send(to, bytes);
            Ok(())
        })
        .unwrap();
    let thread = std::thread::spawn(move || {
        for n in 0..100_u8 {
            sender.write_all(&[n]).unwrap();
        }
    });
    let heard =
        crate::support::with_client(&mut reactor, move || crate::support::read_n(&mut stream, 100));
    assert!(heard.iter().copied().eq(0..100));
    until(&mut reactor, "the end", |_| ended.get());
    assert!(reactor.net().is_open(source)); // its end is the callback's business
    thread.join().unwrap();
}

#[test]
fn an_error_of_the_callback_closes_the_source_and_nothing_else() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _listener, address) = listening(move || Probe::echo(&of_handler));
    let mut stream = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);

    let (mut sender, receiver) = pipe::new().unwrap();
    let calls = Rc::new(Cell::new(0));
    let count = Rc::clone(&calls);
    let source = reactor
        .net()
        .register_source(receiver, Interest::READABLE, move |_, _, _| {
            count.set(count.get() + 1);
            Err("enough".into())
        })
        .unwrap();
    sender.write_all(b"x").unwrap();
    until(&mut reactor, "the source to close", |r| !r.net().is_open(source));
    // The source has been dropped, and with it the pipe's end.
    assert_eq!(sender.write(b"y").unwrap_err().kind(), ErrorKind::BrokenPipe);
    stream.write_all(b"still").unwrap();
    crate::support::with_client(&mut reactor, move || crate::support::read_n(&mut stream, 5));
    assert_eq!(calls.get(), 1);
}

#[test]
fn a_source_is_closed_by_its_token_from_its_own_callback_and_from_outside() {
    let mut reactor = Reactor::new().unwrap();
    for from_inside in [true, false] {
        let (mut sender, receiver) = pipe::new().unwrap();
        let calls = Rc::new(Cell::new(0));
        let count = Rc::clone(&calls);
        let source = reactor
            .net()
            .register_source(receiver, Interest::READABLE, move |_, cx, _| {
                count.set(count.get() + 1);
                if from_inside {
                    cx.close();
                }
                Ok(())
            })
            .unwrap();
        sender.write_all(b"x").unwrap();
        if !from_inside {
            until(&mut reactor, "the event", |_| calls.get() == 1);
            reactor.net().close(source);
        }
        until(&mut reactor, "the source to close", |r| !r.net().is_open(source));
        settle(&mut reactor);
        assert_eq!(calls.get(), 1);
        assert_eq!(sender.write(b"y").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}

/// A descriptor that several sources may share, as mio's own sources may not.
struct Shared(Rc<OwnedFd>);

impl Source for Shared {
    fn register(&mut self, r: &Registry, t: MioToken, i: Interest) -> std::io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).register(r, t, i)
    }
    fn reregister(&mut self, r: &Registry, t: MioToken, i: Interest) -> std::io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).reregister(r, t, i)
    }
    fn deregister(&mut self, r: &Registry) -> std::io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).deregister(r)
    }
}

// row 10
#[test]
fn a_source_registered_twice_is_an_error_and_the_first_stays() {
    let mut reactor = Reactor::new().unwrap();
    let (mut sender, receiver) = pipe::new().unwrap();
    let receiver = Rc::new(OwnedFd::from(receiver));
    let calls = Rc::new(Cell::new(0));
    let count = Rc::clone(&calls);
    let first = Shared(Rc::clone(&receiver));
    reactor
        .net()
        .register_source(first, Interest::READABLE, move |_, _, _| {
            count.set(count.get() + 1);
            Ok(())
        })
        .unwrap();
    let second = Shared(receiver);
    let error =
        reactor.net().register_source(second, Interest::READABLE, |_, _, _| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    sender.write_all(b"x").unwrap();
    until(&mut reactor, "the first to be called", |_| calls.get() == 1);
}

#[test]
fn a_source_that_panics_or_whose_drop_panics_is_gone_and_nothing_else() {
    quiet();
    let mut reactor = Reactor::new().unwrap();
    let (mut sender, receiver) = pipe::new().unwrap();
    let bomb = Bomb;
    let source = reactor
        .net()
        .register_source(receiver, Interest::READABLE, move |_, _, _| {
            let _owned = &bomb;
            panic_on_purpose()
        })
        .unwrap();
    sender.write_all(b"x").unwrap();
    until(&mut reactor, "the source to close", |r| !r.net().is_open(source));
    // Everything else goes on.
    let log = Log::new();
    let of_handler = log.clone();
    let listener = reactor.net().listen("127.0.0.1:0", move |_| Probe::echo(&of_handler)).unwrap();
    let address = crate::support::address_of(&mut reactor, listener);
    let mut stream = client(address);
    stream.write_all(b"well?").unwrap();
    until(&mut reactor, "an answer", |_| log.told().contains(&Told::Data(b"well?".to_vec())));
}
