//! UDP sockets: how they are made, and the core's side of one.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use crate::address::{Address, Resolved};
use crate::core::{Core, SendStatus};
use crate::error::Error;
use crate::handler::DatagramError;
use crate::socket_options::SocketOptions;
use crate::sys::{self, Outgoing};
use crate::timer::Chain;
use crate::token::Token;

/// How many errors wait for the handler; more are counted in the log and dropped.
const ERRORS_KEPT: usize = 64;

/// Where to bind a UDP socket, and how.
///
/// An address alone will do (`net.bind_udp("127.0.0.1:8888", handler)`).
///
/// With the feature `udp-batch`, on Linux and Android, datagrams that wait are received and sent many
/// a call (`recvmmsg(2)`, `sendmmsg(2)`), and those that are of one size and follow one another to
/// one destination leave as one (`UDP_SEGMENT`, udp(7)), up to 64 of them. What a handler is told
/// and may do is the same without it.
#[derive(Debug)]
#[must_use]
pub struct Udp {
    address: Resolved,
    peer: Option<Resolved>,
    adopted: Option<io::Result<sys::Datagram>>,
    options: SocketOptions,
    reuse_address: bool,
    queue_cap: usize,
    receive_trains: bool,
}

impl Udp {
    /// A socket bound to the first address that `addr` stands for.
    pub fn bind<A: ToSocketAddrs + fmt::Debug>(addr: A) -> Self {
        Udp {
            address: Resolved::ip(&addr),
            peer: None,
            adopted: None,
            options: SocketOptions::default(),
            reuse_address: false,
            queue_cap: 256 * 1024,
            receive_trains: false,
        }
    }

    /// A socket that exists already. It is taken over whole; what is set here (a peer, options) is
    /// applied to it, the rest stays as it is.
    pub fn adopt(socket: std::net::UdpSocket) -> Self {
        let mut udp = Udp::bind("0.0.0.0:0");
        udp.adopted = Some(sys::adopt_udp(socket));
        udp
    }

    /// Connects it: it receives from this peer alone, and `send` sends to it (udp(7)). ICMP errors
    /// are reported reliably on connected sockets only.
    pub fn connect<A: ToSocketAddrs + fmt::Debug>(mut self, peer: A) -> Self {
        self.peer = Some(Resolved::ip(&peer));
        self
    }

    /// The socket's own options.
    pub fn options(mut self, options: SocketOptions) -> Self {
        self.options = options;
        self
    }

    /// `SO_REUSEADDR`: several sockets may bind the same multicast group and port. Default false.
    pub fn reuse_address(mut self, on: bool) -> Self {
        self.reuse_address = on;
        self
    }

    /// How many bytes of datagrams may wait when the system takes no more; what would go over it
    /// is dropped, whole, with [`SendStatus::Full`]. Default 256 KiB, at least one byte.
    pub fn queue_cap(mut self, bytes: usize) -> Self {
        self.queue_cap = bytes.max(1);
        self
    }

    /// Takes trains of datagrams from the system as one (`UDP_GRO`, udp(7)): for peers that send
    /// many of one size in a row, as bulk transfers do. Each is told by itself all the same. A
    /// train, up to 64 datagrams, is received whole, so that a turn may go that far over
    /// [`Config::datagrams_per_turn`](crate::Config::datagrams_per_turn).
    ///
    /// Default false: what does not come in trains is then received one datagram a call, where else
    /// one call brings up to 32. Trains were a third cheaper with it, bursts of others 8 % dearer
    /// (docs/performance.md). Linux 5.0 and later, Android; elsewhere it changes nothing.
    #[cfg(feature = "udp-batch")]
    pub fn receive_trains(mut self, on: bool) -> Self {
        self.receive_trains = on;
        self
    }

    pub(crate) fn open(self) -> Result<DatagramSocket, Error> {
        let peer = self.peer.map(first_ip).transpose()?;
        let mut socket = match self.adopted {
            Some(adopted) => adopted
                .and_then(|socket| {
                    socket.set_up(peer, self.reuse_address, &self.options)?;
                    Ok(socket)
                })
                .map_err(|e| Error::new("cannot adopt the UDP socket", e))?,
            None => {
                let address = first_ip(self.address)?;
                sys::bind_udp(address, peer, self.reuse_address, &self.options).map_err(|e| {
                    let to = peer.map_or(String::new(), |peer| format!(", connected to {peer}"));
                    Error::new(format!("cannot bind UDP {address}{to}"), e).about_binding()
                })?
            }
        };
        if self.receive_trains {
            socket.receive_trains();
        }
        Ok(DatagramSocket::new(socket, self.queue_cap))
    }
}

fn first_ip(resolved: Resolved) -> Result<SocketAddr, Error> {
    let addresses = resolved.into_addresses()?;
    addresses.first().and_then(Address::socket_addr).ok_or_else(|| {
        Error::new("cannot bind UDP", io::Error::new(io::ErrorKind::NotFound, "no IP address"))
    })
}

impl From<&str> for Udp {
    fn from(addr: &str) -> Self {
        Udp::bind(addr)
    }
}

impl From<String> for Udp {
    fn from(addr: String) -> Self {
        Udp::bind(addr.as_str())
    }
}

impl From<&String> for Udp {
    fn from(addr: &String) -> Self {
        Udp::bind(addr.as_str())
    }
}

impl From<SocketAddr> for Udp {
    fn from(addr: SocketAddr) -> Self {
        Udp::bind(addr)
    }
}

/// Which interface a multicast group is joined on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Interface {
    /// The one the system's routes choose.
    #[default]
    Default,
    /// The one with this address, for IPv4 groups.
    V4(Ipv4Addr),
    /// The one with this index (if_nametoindex(3)), for IPv6 groups.
    Index(u32),
}

/// The core's side of a UDP socket.
#[derive(Debug)]
pub(crate) struct DatagramSocket {
    pub(crate) socket: sys::Datagram,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The handler wants nothing now.
    pub(crate) paused: bool,
    /// Datagrams that wait: their bytes one after the other, behind `gone` bytes of others that have
    /// left, and where each goes and how long it is.
    bytes: Vec<u8>,
    gone: usize,
    waiting: VecDeque<Outgoing>,
    cap: usize,
    /// The system, or the cap, took no more at some point since the queue was last empty.
    blocked: bool,
    /// `on_drain` is owed.
    pub(crate) drained: bool,
    pub(crate) errors: VecDeque<DatagramError>,
    pub(crate) timers: Chain,
    /// `on_open` has been called.
    pub(crate) opened: bool,
    /// It stands in the list of what has work left, of what to flush.
    in_dirty: bool,
    pub(crate) dead: bool,
}

impl DatagramSocket {
    fn new(socket: sys::Datagram, cap: usize) -> Self {
        DatagramSocket {
            socket,
            readable: false,
            writable: true,
            paused: false,
            bytes: Vec::new(),
            gone: 0,
            waiting: VecDeque::new(),
            cap,
            blocked: false,
            drained: false,
            errors: VecDeque::new(),
            timers: Chain::default(),
            opened: false,
            in_dirty: false,
            dead: false,
        }
    }

    /// Notes what an edge said. Sticky: an edge is told once.
    pub(crate) fn note(&mut self, ready: sys::Ready) {
        self.readable |= ready.has(sys::Ready::READABLE | sys::Ready::ERROR);
        self.writable |= ready.has(sys::Ready::WRITABLE | sys::Ready::ERROR);
    }

    pub(crate) fn queued(&self) -> usize {
        self.bytes.len() - self.gone
    }

    pub(crate) fn report(&mut self, error: DatagramError) {
        if self.errors.len() < ERRORS_KEPT {
            self.errors.push_back(error);
        } else {
            log::debug!("more errors on a UDP socket than its handler takes: {error}");
        }
    }

    /// Whether more could be sent at once.
    pub(crate) fn has_more(&self) -> bool {
        self.writable && !self.waiting.is_empty()
    }

    /// Sends what waits, as far as the system takes it, up to `most` datagrams.
    pub(crate) fn flush(&mut self, outbox: &mut sys::Outbox, most: usize) {
        let mut left = most;
        // An error that was pending belongs to an earlier datagram, and the system has not even
        // looked at this one: each is tried twice.
        let mut tried = false;
        while let Some(&Outgoing { to, .. }) = self.waiting.front() {
            if !self.writable || left == 0 {
                break;
            }
            let bytes = &self.bytes[self.gone..];
            let finished = match self.socket.send(outbox, &self.waiting, bytes, left) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    self.blocked = true;
                    break;
                }
                Err(error) => {
                    let pending = is_pending(error.kind(), to.is_none());
                    self.report(DatagramError { error, to: if pending { None } else { to } });
                    if pending && !tried {
                        tried = true;
                        continue;
                    }
                    1
                }
                Ok(sent) => sent,
            };
            tried = false;
            left -= finished;
            for _ in 0..finished {
                self.gone += self.waiting.pop_front().map_or(0, |datagram| datagram.len);
            }
        }
        // The rest moves up when it is the smaller part, so that no byte is moved twice on average.
        if 2 * self.gone >= self.bytes.len() {
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
        if self.waiting.is_empty() {
            self.drained |= std::mem::take(&mut self.blocked);
        }
    }
}

/// Whether an error of a send may be an ICMP answer to an earlier one. Most such answers become pending
/// on connected sockets only.
fn is_pending(kind: io::ErrorKind, connected: bool) -> bool {
    use io::ErrorKind as Kind;
    kind == Kind::ConnectionRefused
        || connected && matches!(kind, Kind::HostUnreachable | Kind::NetworkUnreachable)
}

impl Core {
    /// Queues a datagram; it leaves when the callback returns, or at the end of the turn.
    pub(crate) fn send_datagram(
        &mut self,
        token: Token,
        to: Option<SocketAddr>,
        bytes: &[u8],
    ) -> SendStatus {
        let current = self.current == Some(token);
        let Some(socket) = self.datagram_mut(token) else { return SendStatus::Gone };
        if socket.dead {
            return SendStatus::Gone;
        }
        // Empty datagrams take room too.
        let queued = socket.queued().max(socket.waiting.len());
        if queued + bytes.len().max(1) > socket.cap {
            // Who is refused because of what waits is owed a word when that has gone.
            socket.blocked |= !socket.waiting.is_empty();
            return SendStatus::Full;
        }
        socket.bytes.extend_from_slice(bytes);
        socket.waiting.push_back(Outgoing { to, len: bytes.len() });
        if !current && !std::mem::replace(&mut socket.in_dirty, true) {
            self.dirty.push(token);
        }
        SendStatus::Queued
    }

    /// A `send` to something that is no stream.
    pub(crate) fn send_elsewhere(&mut self, token: Token, bytes: &[u8]) -> SendStatus {
        self.send_datagram(token, None, bytes)
    }

    /// Sends what waits, up to the budget; the rest goes on in the next turn.
    pub(crate) fn flush_datagrams(&mut self, token: Token) {
        let most = self.config.datagrams_per_turn;
        let Some((socket, outbox)) = self.datagram_and_outbox(token) else { return };
        socket.in_dirty = false;
        if socket.dead {
            return;
        }
        socket.flush(outbox, most);
        let more = socket.has_more();
        if socket.drained || !socket.errors.is_empty() {
            self.make_ready(token);
        } else if more {
            self.make_ready_later(token);
        }
    }

    /// Joins or leaves a multicast group.
    pub(crate) fn multicast(
        &mut self,
        token: Token,
        group: IpAddr,
        interface: Interface,
        join: bool,
    ) -> Result<(), Error> {
        let what = || format!("cannot {} {group}", if join { "join" } else { "leave" });
        let Some(socket) = self.datagram(token) else {
            let gone = io::Error::new(io::ErrorKind::NotFound, "the token names no UDP socket");
            return Err(Error::new(what(), gone));
        };
        let options = socket.socket.options();
        let result = match (group, interface) {
            (IpAddr::V4(group), Interface::V4(local)) if join => {
                options.join_multicast_v4(&group, &local)
            }
            (IpAddr::V4(group), Interface::V4(local)) => options.leave_multicast_v4(&group, &local),
            (IpAddr::V4(group), Interface::Default) if join => {
                options.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)
            }
            (IpAddr::V4(group), Interface::Default) => {
                options.leave_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)
            }
            (IpAddr::V6(group), Interface::Index(index)) if join => {
                options.join_multicast_v6(&group, index)
            }
            (IpAddr::V6(group), Interface::Index(index)) => {
                options.leave_multicast_v6(&group, index)
            }
            (IpAddr::V6(group), Interface::Default) if join => options.join_multicast_v6(&group, 0),
            (IpAddr::V6(group), Interface::Default) => options.leave_multicast_v6(&group, 0),
            (IpAddr::V4(_), Interface::Index(_)) | (IpAddr::V6(_), Interface::V4(_)) => {
                Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the interface must be an address for an IPv4 group, an index for an IPv6 one",
                ))
            }
        };
        result.map_err(|e| Error::new(what(), e))
    }
}
