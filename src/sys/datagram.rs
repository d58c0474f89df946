//! UDP sockets: how they are made and set up. What moves datagrams is in `single.rs`, or `batch/`.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::event::Source;
use mio::{Interest, Registry, Token};
use socket2::{Protocol, SockAddr, SockRef, Type};

use super::datagram_io::{DatagramIo, Inbox as SystemInbox, Outbox};
#[cfg(feature = "packet-info")]
use super::packets::{PacketInbox, Packets};
use super::socket::{domain_of, keep_from_children, refuse_in_simulation, socket};
use super::{Pollable, uninterrupted};
#[cfg(feature = "packet-info")]
use crate::packet_info::Ecn;
use crate::packet_info::PacketInfo;
use crate::socket_options::{MulticastInterface, SocketOptions};

/// A UDP socket.
#[derive(Debug)]
pub(crate) struct Datagram {
    socket: Socket,
    io: DatagramIo,
    #[cfg(feature = "packet-info")]
    packets: Option<Box<Packets>>,
}

#[derive(Debug)]
enum Socket {
    Os(mio::net::UdpSocket),
    #[cfg(feature = "sim")]
    Sim(super::sim::Socket),
    /// Every call returns `NotConnected`.
    Closed,
}

/// Where datagrams arrive. All is made when it is first needed, so that a reactor without UDP does
/// not pay for it.
#[derive(Debug)]
pub(crate) struct Inbox {
    io: SystemInbox,
    #[cfg(feature = "packet-info")]
    packets: PacketInbox,
    #[cfg(feature = "sim")]
    simulated: super::sim::Arrivals,
    #[cfg(feature = "sim")]
    most: usize,
}

impl Inbox {
    /// For datagrams of up to `most` bytes, of which a turn takes `a_turn` from one socket.
    pub(crate) fn new(most: usize, a_turn: usize) -> Self {
        Inbox {
            io: SystemInbox::new(most, a_turn),
            #[cfg(feature = "packet-info")]
            packets: PacketInbox::new(most),
            #[cfg(feature = "sim")]
            simulated: super::sim::Arrivals::default(),
            #[cfg(feature = "sim")]
            most,
        }
    }

    /// How many datagrams the last call has brought.
    pub(crate) fn len(&self) -> usize {
        #[cfg(feature = "sim")]
        if self.simulated.active {
            return self.simulated.datagrams.len();
        }
        #[cfg(feature = "packet-info")]
        if self.packets.active {
            return self.packets.len();
        }
        self.io.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<Arrived<'_>> {
        #[cfg(feature = "sim")]
        if self.simulated.active {
            let super::sim::Received { bytes, from, info } = self.simulated.datagrams.get(index)?;
            let whole = bytes.len() <= self.most;
            let bytes = &bytes[..bytes.len().min(self.most)];
            return Some(Arrived { bytes, from: *from, truncated: !whole, info: info.as_ref() });
        }
        #[cfg(feature = "packet-info")]
        if self.packets.active {
            return self.packets.get(index);
        }
        self.io.get(index)
    }
}

/// A datagram in the send queue. Its bytes follow those of the datagrams before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing {
    /// `None`: to the peer that the socket is connected to.
    pub(crate) to: Option<SocketAddr>,
    pub(crate) len: usize,
    #[cfg_attr(not(any(feature = "packet-info", feature = "sim")), expect(dead_code))]
    pub(crate) mark: Mark,
}

/// How a datagram leaves, beside its destination. Without the feature it takes no room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    #[cfg(feature = "packet-info")]
    pub(crate) local: Option<IpAddr>,
    #[cfg(feature = "packet-info")]
    pub(crate) ecn: Option<Ecn>,
    /// The address is one that a datagram was sent to: if none can be sent from it, the system chooses.
    #[cfg(feature = "packet-info")]
    pub(crate) is_hint: bool,
}

#[cfg(feature = "packet-info")]
impl Mark {
    /// From an address that a datagram was sent to, if it is not that of a multicast group or the broadcast
    /// address. The broadcast address of a network does not show; the system refuses it.
    pub(crate) fn from_local(local: Option<IpAddr>) -> Self {
        let is_own = |ip: &IpAddr| match ip.to_canonical() {
            IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast(),
            IpAddr::V6(ip) => !ip.is_multicast(),
        };
        let local = local.filter(is_own);
        Mark { local, ecn: None, is_hint: local.is_some() }
    }
}

/// A datagram that has arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) from: SocketAddr,
    /// It was longer than the limit and has been cut.
    pub(crate) truncated: bool,
    /// If the socket asked for it.
    pub(crate) info: Option<&'a PacketInfo>,
}

/// Sends one datagram by a call of its own.
pub(super) fn send_one(
    socket: &mio::net::UdpSocket,
    bytes: &[u8],
    to: Option<SocketAddr>,
) -> io::Result<usize> {
    uninterrupted(|| match to {
        Some(to) => socket.send_to(bytes, to),
        None => socket.send(bytes),
    })
}

impl Datagram {
    fn of(socket: Socket) -> Self {
        Datagram {
            socket,
            io: DatagramIo::default(),
            #[cfg(feature = "packet-info")]
            packets: None,
        }
    }

    fn new(socket: mio::net::UdpSocket) -> Self {
        Datagram::of(Socket::Os(socket))
    }

    /// Receives up to `most` datagrams, which is not zero; more only where the system hands over
    /// several as one. Returns whether none is left, as far as that is known.
    pub(crate) fn receive(&mut self, inbox: &mut Inbox, most: usize) -> io::Result<bool> {
        match &self.socket {
            Socket::Os(socket) => {
                #[cfg(feature = "packet-info")]
                {
                    inbox.packets.active = false;
                    if let Some(packets) = &self.packets {
                        return packets.receive(socket, &mut inbox.packets, most);
                    }
                }
                self.io.receive(socket, &mut inbox.io, most)
            }
            #[cfg(feature = "sim")]
            Socket::Sim(socket) => socket.receive(&mut inbox.simulated, most),
            Socket::Closed => Err(closed()),
        }
    }

    /// Sends from the front of the queue, whose bytes are `bytes`, what one call takes, up to `most`,
    /// which is not zero. Returns how many were sent. An error is about the first one.
    pub(crate) fn send(
        &mut self,
        outbox: &mut Outbox,
        waiting: &VecDeque<Outgoing>,
        bytes: &[u8],
        most: usize,
    ) -> io::Result<usize> {
        match &self.socket {
            Socket::Os(socket) => {
                #[cfg(feature = "packet-info")]
                if let Some(packets) = &mut self.packets {
                    return packets.send(socket, waiting, bytes);
                }
                self.io.send(socket, outbox, waiting, bytes, most)
            }
            #[cfg(feature = "sim")]
            Socket::Sim(socket) => socket.send(waiting.iter(), bytes, most),
            Socket::Closed => Err(closed()),
        }
    }

    /// Lets the system hand over trains of datagrams as one, where it can.
    pub(crate) fn receive_trains(&mut self) {
        if let Socket::Os(socket) = &self.socket {
            self.io.receive_trains(socket);
        }
    }

    /// Lets the system tell of each datagram what it knows, from now on.
    #[cfg(feature = "packet-info")]
    pub(crate) fn ask_for_packet_info(&mut self) -> io::Result<()> {
        match &self.socket {
            Socket::Os(socket) => self.packets = Some(Box::new(Packets::new(socket)?)),
            #[cfg(feature = "sim")]
            Socket::Sim(socket) => socket.tell_packet_info()?,
            Socket::Closed => return Err(closed()),
        }
        Ok(())
    }

    /// Sets up a socket that exists already.
    pub(crate) fn set_up(
        &self,
        peer: Option<SocketAddr>,
        options: &SocketOptions,
    ) -> io::Result<()> {
        let socket = self.open()?;
        options.apply(&SockRef::from(socket), domain_of(socket.local_addr()?), Type::DGRAM)?;
        peer.map_or(Ok(()), |peer| socket.connect(peer))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.socket {
            #[cfg(feature = "sim")]
            Socket::Sim(socket) => socket.udp_addr(),
            _ => self.open()?.local_addr(),
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match &self.socket {
            #[cfg(feature = "sim")]
            Socket::Sim(socket) => socket.udp_peer(),
            _ => self.open()?.peer_addr(),
        }
    }

    /// Joins or leaves a multicast group. An interface of the other family is `InvalidInput`.
    pub(crate) fn multicast(
        &self,
        group: IpAddr,
        interface: MulticastInterface,
        join: bool,
    ) -> io::Result<()> {
        #[cfg(feature = "sim")]
        if let Socket::Sim(socket) = &self.socket {
            return match (group, interface) {
                (IpAddr::V4(_), MulticastInterface::Index(_))
                | (IpAddr::V6(_), MulticastInterface::V4(_)) => Err(wrong_interface()),
                _ => socket.membership(group, join),
            };
        }
        let socket = SockRef::from(self.open()?);
        match group {
            IpAddr::V4(group) => {
                let local = match interface {
                    MulticastInterface::Default => Ipv4Addr::UNSPECIFIED,
                    MulticastInterface::V4(local) => local,
                    MulticastInterface::Index(_) => return Err(wrong_interface()),
                };
                if join {
                    socket.join_multicast_v4(&group, &local)
                } else {
                    socket.leave_multicast_v4(&group, &local)
                }
            }
            IpAddr::V6(group) => {
                let index = match interface {
                    MulticastInterface::Default => 0,
                    MulticastInterface::Index(index) => index,
                    MulticastInterface::V4(_) => return Err(wrong_interface()),
                };
                if join {
                    socket.join_multicast_v6(&group, index)
                } else {
                    socket.leave_multicast_v6(&group, index)
                }
            }
        }
    }

    /// The number of the simulated socket.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated_index(&self) -> Option<u32> {
        match &self.socket {
            Socket::Sim(socket) => Some(socket.index()),
            _ => None,
        }
    }

    fn open(&self) -> io::Result<&mio::net::UdpSocket> {
        match &self.socket {
            Socket::Os(socket) => Ok(socket),
            _ => Err(closed()),
        }
    }

    /// Closes the socket; its address is free then. It must be deregistered before.
    pub(crate) fn close(&mut self) {
        self.socket = Socket::Closed;
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket is closed")
}

fn wrong_interface() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the interface must be an address for an IPv4 group, an index for an IPv6 one",
    )
}

impl Pollable for Datagram {
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let Socket::Os(socket) = &mut self.socket else { return Err(closed()) };
        socket.register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        let Socket::Os(socket) = &mut self.socket else { return Ok(()) };
        socket.deregister(registry)
    }

    #[cfg(feature = "sim")]
    fn simulated(&self) -> Option<&super::sim::Socket> {
        match &self.socket {
            Socket::Sim(socket) => Some(socket),
            _ => None,
        }
    }
}

/// Binds a UDP socket and, if a peer is given, connects it: it then receives from that peer alone.
pub(crate) fn bind_udp(
    addr: SocketAddr,
    peer: Option<SocketAddr>,
    options: &SocketOptions,
) -> io::Result<Datagram> {
    #[cfg(feature = "sim")]
    if super::sim::is_simulated() {
        return Ok(Datagram::of(Socket::Sim(super::sim::bind_udp(addr, peer, options)?)));
    }
    let domain = domain_of(addr);
    let socket = socket(domain, Type::DGRAM, Some(Protocol::UDP))?;
    options.apply(&SockRef::from(&socket), domain, Type::DGRAM)?;
    socket.bind(&SockAddr::from(addr))?;
    if let Some(peer) = peer {
        // Named, because it is not the address that is to be bound.
        socket
            .connect(&SockAddr::from(peer))
            .map_err(|e| io::Error::new(e.kind(), format!("connecting: {e}")))?;
    }
    Ok(Datagram::new(mio::net::UdpSocket::from_std(socket.into())))
}

pub(crate) fn adopt_udp(socket: std::net::UdpSocket) -> io::Result<Datagram> {
    refuse_in_simulation()?;
    socket.set_nonblocking(true)?;
    keep_from_children(&SockRef::from(&socket))?;
    Ok(Datagram::new(mio::net::UdpSocket::from_std(socket)))
}
