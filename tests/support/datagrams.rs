//! A datagram handler that records what it is told, a reactor with one such socket in it, and plain
//! sockets to talk to it.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;

use tidegate::{
    CloseInfo, Config, Context, Datagram, DatagramError, DatagramHandler, HandlerResult, Reactor,
    SendStatus, Token, Udp,
};

use super::{PATIENCE, address_of, until};

/// What a datagram handler was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Open,
    Datagram(Vec<u8>),
    Truncated(Vec<u8>),
    Error(ErrorKind, Option<SocketAddr>),
    Drain,
    Close(String),
}

pub type Act = Box<dyn FnMut(&mut Context<'_>, &Heard)>;

/// Writes down what it is told, and then does what the test wants.
pub struct Ear {
    pub heard: Rc<RefCell<Vec<Heard>>>,
    pub act: Act,
}

impl Ear {
    fn note(&mut self, cx: &mut Context<'_>, heard: Heard) -> HandlerResult {
        (self.act)(cx, &heard);
        self.heard.borrow_mut().push(heard);
        Ok(())
    }
}

impl DatagramHandler for Ear {
    fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.note(cx, Heard::Open)
    }

    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        let bytes = datagram.bytes.to_vec();
        let heard =
            if datagram.truncated { Heard::Truncated(bytes) } else { Heard::Datagram(bytes) };
        self.note(cx, heard)
    }

    fn on_error(&mut self, cx: &mut Context<'_>, error: DatagramError) -> HandlerResult {
        let kind = error.io().map_or(ErrorKind::Other, std::io::Error::kind);
        self.note(cx, Heard::Error(kind, error.peer()))
    }

    fn on_drain(&mut self, cx: &mut Context<'_>) -> HandlerResult {
        self.note(cx, Heard::Drain)
    }

    fn on_close(&mut self, cx: &mut Context<'_>, closed: &CloseInfo) {
        self.note(cx, Heard::Close(closed.reason.to_string())).unwrap();
    }
}

/// A reactor with one UDP socket in it.
pub struct Rig {
    pub reactor: Reactor,
    pub token: Token,
    pub heard: Rc<RefCell<Vec<Heard>>>,
}

pub fn rig(udp: impl Into<Udp>) -> Rig {
    rig_that(udp, Config::default(), |_, _| {})
}

pub fn rig_that(
    udp: impl Into<Udp>,
    config: Config,
    act: impl FnMut(&mut Context<'_>, &Heard) + 'static,
) -> Rig {
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let heard = Rc::default();
    let ear = Ear { heard: Rc::clone(&heard), act: Box::new(act) };
    let token = reactor.net().bind_udp(udp, ear).unwrap();
    Rig { reactor, token, heard }
}

impl Rig {
    pub fn address(&mut self) -> SocketAddr {
        address_of(&mut self.reactor, self.token)
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.borrow().clone()
    }

    pub fn send_to(&mut self, to: SocketAddr, bytes: impl AsRef<[u8]>) -> SendStatus {
        self.reactor.net().send_to(self.token, to, bytes)
    }

    #[track_caller]
    pub fn until_heard(&mut self, what: &Heard) {
        let heard = Rc::clone(&self.heard);
        until(&mut self.reactor, &format!("{what:?}"), |_| heard.borrow().contains(what));
    }

    #[track_caller]
    pub fn expect(&mut self, heard: &[Heard]) {
        if let Some(last) = heard.last() {
            self.until_heard(last);
        }
        assert_eq!(self.heard(), heard);
    }
}

pub fn datagram(bytes: &[u8]) -> Heard {
    Heard::Datagram(bytes.to_vec())
}

pub fn refused() -> Heard {
    Heard::Error(ErrorKind::ConnectionRefused, None)
}

/// A blocking socket on loopback whose receives give up rather than hang.
pub fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub fn received(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let n = socket.recv(&mut buffer).unwrap();
    buffer.truncate(n);
    buffer
}

pub fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// An address on loopback that nobody is bound to.
pub fn nobody() -> SocketAddr {
    address(&socket())
}
