//! Peers without a reactor: they say what they are told, and keep to no protocol.

use std::io;
use std::net::SocketAddr;

use super::{Sim, What, wrong};
use crate::address::{Address, Target};
use crate::error::Error;
use crate::socket_options::SocketOptions;
use crate::sys::sim::{self as world, Socket};

/// A peer without a reactor, made by [`Sim::peer`](super::Sim::peer): the key to it.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub(super) index: u32,
    pub(super) sim: u64,
}

/// The sockets of such a host, and what it has said and heard. A connection that is gone leaves what it
/// has brought, until the next one.
#[derive(Debug, Default)]
pub(super) struct RawHost {
    listener: Option<Socket>,
    connection: Option<Socket>,
    received: Vec<u8>,
    /// What the peer has to say and the system has not taken.
    unsent: Vec<u8>,
    ends: bool,
    deaf: bool,
    ended: bool,
    error: Option<io::ErrorKind>,
}

impl RawHost {
    /// It has a new connection, which has brought nothing yet.
    fn takes(&mut self, socket: Socket) -> io::Result<()> {
        socket.register_here(0)?;
        self.connection = Some(socket);
        self.received.clear();
        self.ended = false;
        self.error = None;
        Ok(())
    }

    /// The connection ends. What was to be said on it is not for the next one.
    fn lets_go(&mut self) -> Option<Socket> {
        self.unsent.clear();
        self.ends = false;
        self.deaf = false;
        self.connection.take()
    }

    /// Says what it has to say, and hears what there is.
    fn serve(&mut self) {
        let Some(socket) = &self.connection else { return };
        while !self.unsent.is_empty() {
            match socket.write(&[io::IoSlice::new(&self.unsent)]) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return self.error = Some(e.kind()),
            }
        }
        if self.ends && self.unsent.is_empty() {
            match socket.shutdown_write() {
                Err(e) if e.kind() == io::ErrorKind::NotConnected => {}
                _ => self.ends = false,
            }
        }
        let mut buffer = [0; 4096];
        while !self.deaf && !self.ended && self.error.is_none() {
            match socket.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => self.received.extend(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => self.error = Some(e.kind()),
            }
        }
    }
}

/// A raw peer, to be told what to do now; with [`Sim::at`](super::Sim::at) at a time.
///
/// It has one connection: the one that it makes, or the first one that comes to the address at which
/// it listens. It reads all the time, unless it is [deaf](Self::deaf).
///
/// ```
/// use std::time::Duration;
/// use tidegate::sim::Sim;
/// use tidegate::{Context, Handler, HandlerResult, Input};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
///         cx.send(input.take_all());
///         Ok(())
///     }
/// }
///
/// let mut sim = Sim::new(1);
/// sim.host("server", |net| net.listen("0.0.0.0:7", |_peer| Echo).map(drop))?;
/// let eve = sim.peer("eve")?;
/// sim.raw(eve).connect("server:7")?;
/// sim.raw(eve).send(b"first");
/// sim.at(Duration::from_secs(1), move |sim| sim.raw(eve).send(b" second"));
/// sim.run_for(Duration::from_secs(2))?;
/// assert_eq!(sim.raw(eve).received(), b"first second");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RawPeer<'a> {
    pub(super) sim: &'a mut Sim,
    pub(super) index: u32,
}

impl<'a> RawPeer<'a> {
    /// Connects. What is said before that has succeeded is said then. An earlier connection is closed,
    /// and what it has brought is forgotten.
    ///
    /// # Errors
    /// The target does not resolve.
    pub fn connect(&mut self, to: impl Into<Target>) -> Result<(), Error> {
        let to = to.into();
        self.open(|raw| {
            let addresses = world::resolve(&to)?;
            let socket = world::connect(&addresses[0], None, &SocketOptions::new())?;
            if raw.connection.is_some() {
                raw.lets_go();
            }
            raw.takes(socket)
        })
    }

    /// Listens; the first connection is taken, the others wait in the backlog. What is said before
    /// there is one is said then.
    ///
    /// # Errors
    /// The address does not resolve or is in use.
    pub fn listen(&mut self, on: impl Into<Target>) -> Result<(), Error> {
        let on = on.into();
        self.open(|raw| {
            let addresses = world::resolve(&on)?;
            let first: &Address = &addresses[0];
            let socket = world::listen(first, 16, &SocketOptions::new(), false)?;
            socket.register_here(0)?;
            raw.listener = Some(socket);
            Ok(())
        })
    }

    fn open(&mut self, step: impl FnOnce(&mut RawHost) -> io::Result<()>) -> Result<(), Error> {
        let opened = self.sim.in_raw(self.index, step).unwrap_or(Ok(()));
        opened.map_err(|e| {
            let what = "the raw peer cannot do that";
            match e.kind() {
                io::ErrorKind::InvalidInput => wrong(what, "expected name:port or address:port"),
                _ => Error::new(what, e),
            }
        })
    }

    fn then_serve(&mut self, step: impl FnOnce(&mut RawHost)) {
        self.sim.in_raw(self.index, step);
        self.sim.serve_raw(self.index);
    }

    /// Says these bytes, as soon as there is a connection that takes them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.then_serve(|raw| raw.unsent.extend(bytes));
    }

    /// Says one byte of urgent data (`MSG_OOB`, send(2)), at which the other side's read stops. It
    /// stays in the stream, as with `SO_OOBINLINE`. Lost if the connection is not established yet, or
    /// takes nothing now.
    pub fn send_urgent(&mut self, byte: u8) {
        self.then_serve(|raw| {
            if let Some(socket) = &raw.connection
                && raw.unsent.is_empty()
                && let Err(e) = socket.write_urgent(byte)
                && e.kind() != io::ErrorKind::WouldBlock
            {
                raw.error = Some(e.kind());
            }
        });
    }

    /// Sends a datagram to a host, from whatever address it says: its own, or a forged one.
    ///
    /// # Errors
    /// Nobody has the address `to`.
    pub fn send_datagram(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let index = self.index;
        self.open(|_| {
            let sent = world::with(|world| world.inject(index, from, to, bytes));
            sent.unwrap_or(Ok(()))
        })
    }

    /// Ends its side, behind what it has said.
    pub fn end(&mut self) {
        self.then_serve(|raw| raw.ends = true);
    }

    /// Reads no more from now on, or again: its window fills.
    pub fn deaf(&mut self, deaf: bool) {
        self.then_serve(|raw| raw.deaf = deaf);
    }

    /// Resets the connection.
    pub fn reset(&mut self) {
        self.end_connection(Socket::reset_on_close);
    }

    /// Closes the connection, which resets it if something was not read.
    pub fn close(&mut self) {
        self.end_connection(|_| {});
    }

    fn end_connection(&mut self, before: impl FnOnce(&Socket)) {
        self.sim.in_raw(self.index, |raw| {
            if let Some(socket) = raw.lets_go() {
                before(&socket);
            }
        });
        self.sim.plan_next(self.index);
    }

    /// What it has received on its connection, or on its last one.
    pub fn received(self) -> &'a [u8] {
        match &self.sim.hosts[self.index as usize].what {
            What::Raw(raw) => &raw.received,
            _ => &[],
        }
    }

    /// Whether the other side has ended.
    pub fn has_ended(&self) -> bool {
        self.host().is_some_and(|raw| raw.ended)
    }

    /// The error of its connection, or of its last one, if it had one.
    pub fn error(&self) -> Option<io::ErrorKind> {
        self.host()?.error
    }

    fn host(&self) -> Option<&RawHost> {
        match &self.sim.hosts[self.index as usize].what {
            What::Raw(raw) => Some(raw),
            _ => None,
        }
    }
}

impl Sim {
    /// A step of a raw peer, inside the world.
    fn in_raw<T>(&mut self, index: u32, step: impl FnOnce(&mut RawHost) -> T) -> Option<T> {
        let world = self.world_mut();
        let now = world.now;
        world.current = Some(index);
        let place = &mut world.hosts[index as usize];
        place.clock = place.clock.max(now);
        let Sim { world, hosts, .. } = self;
        let What::Raw(raw) = &mut hosts[index as usize].what else { return None };
        let result = {
            let _world = super::Installed::new(world);
            step(raw)
        };
        self.world_mut().current = None;
        Some(result)
    }

    /// Something came for a raw peer.
    pub(super) fn serve_raw(&mut self, index: u32) {
        self.world_mut().drop_edges(index);
        self.in_raw(index, |raw| {
            if raw.connection.is_none()
                && let Some(listener) = &raw.listener
                && let Ok((socket, _)) = listener.accept()
                && let Err(e) = raw.takes(socket)
            {
                raw.error = Some(e.kind());
            }
            raw.serve();
        });
        self.world_mut().drop_edges(index);
        self.plan_next(index);
    }
}
