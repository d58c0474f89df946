//! UDP sockets: how they are made.

use std::io;
use std::net::SocketAddr;

use crate::address::{Address, Target};
use crate::core::DatagramSocket;
use crate::error::Error;
use crate::socket_options::SocketOptions;
use crate::sys;

/// Where to bind a UDP socket, and with which options.
///
/// An address alone is enough (`net.bind_udp("127.0.0.1:8888", handler)`).
///
/// With the feature `udp-batch`, on Linux and Android, one system call receives or sends many
/// datagrams (`recvmmsg(2)`, `sendmmsg(2)`). Up to 64 consecutive datagrams of one size to one
/// destination leave as one (`UDP_SEGMENT`, udp(7)). Handlers see no difference.
///
/// Multicast: on Linux a socket bound to the unspecified address receives the datagrams of every group
/// that any socket of the host has joined (`IP_MULTICAST_ALL`, ip(7)). Bind to the group's address to
/// receive that group alone.
#[derive(Debug)]
#[must_use]
pub struct Udp {
    on: On,
    peer: Option<Target>,
    options: SocketOptions,
    queue_limit: usize,
    receive_trains: bool,
    #[cfg(feature = "packet-info")]
    packet_info: bool,
}

#[derive(Debug)]
enum On {
    Bind(Target),
    Adopted(io::Result<sys::Datagram>),
}

impl Udp {
    /// A socket bound to the first address of `target` that this host has; with
    /// [`connect`](Self::connect), to the first that reaches the peer. A name is resolved inside
    /// [`Net::bind_udp`](crate::Net::bind_udp), which blocks.
    ///
    /// A socket bound to the unspecified address sends from the address that the system's routes
    /// choose. On a host with several addresses that may differ from the one to which the peer
    /// sent. If peers check it, bind one socket to each address.
    pub fn bind(target: impl Into<Target>) -> Self {
        Udp::on(On::Bind(target.into()))
    }

    /// A socket that exists already. The reactor takes it over whole. What is set on this builder
    /// (a peer, options) is applied to it; everything else stays as it is. The error queue of a
    /// socket with `IP_RECVERR` is not read.
    pub fn adopt(socket: std::net::UdpSocket) -> Self {
        Udp::on(On::Adopted(sys::adopt_udp(socket)))
    }

    fn on(on: On) -> Self {
        let options = SocketOptions::default();
        Udp {
            on,
            peer: None,
            options,
            queue_limit: 256 * 1024,
            receive_trains: false,
            #[cfg(feature = "packet-info")]
            packet_info: false,
        }
    }

    /// Connects the socket (udp(7)): it receives from this peer alone, and `send` sends to it. Of
    /// several addresses the first that the system accepts is used. The system reports ICMP errors
    /// reliably on connected sockets only.
    pub fn connect(mut self, peer: impl Into<Target>) -> Self {
        self.peer = Some(peer.into());
        self
    }

    /// The options of the socket itself.
    pub fn socket_options(mut self, options: SocketOptions) -> Self {
        self.options = options;
        self
    }

    /// How many bytes of datagrams may be queued while the system takes no more. A datagram that
    /// would exceed it is dropped whole, with [`SendStatus::Full`](crate::SendStatus::Full).
    /// Default 256 KiB, at least one byte.
    pub fn queue_limit(mut self, bytes: usize) -> Self {
        self.queue_limit = bytes.max(1);
        self
    }

    /// Receives trains of datagrams in one piece (`UDP_GRO`, udp(7)), for peers that send many
    /// datagrams of one size in a row, as bulk transfers do. `on_datagram` is still called once for
    /// each datagram. A train, up to 64 datagrams, is received whole, so a turn may exceed
    /// [`Config::datagrams_per_turn`](crate::Config::datagrams_per_turn) by that many.
    ///
    /// Default false, because datagrams outside trains are then received one per system call, where
    /// otherwise one call receives up to 32. Measured: trains cost a third less CPU with it, other
    /// bursts 8 % more (docs/performance.md). Linux 5.0 and later, Android; no effect elsewhere.
    #[cfg(feature = "udp-batch")]
    pub fn receive_trains(mut self, on: bool) -> Self {
        self.receive_trains = on;
        self
    }

    /// Lets the system tell of each datagram to which address it was sent, on which interface it came,
    /// when, and with which ECN mark ([`Datagram::info`](crate::Datagram::info)). The socket may then
    /// send from any address of the host and with a mark of its own
    /// ([`Net::send_datagram`](crate::Net::send_datagram)), and
    /// [sessions](crate::Net::bind_sessions) of a socket on the unspecified address answer from the address at
    /// which their peer was admitted.
    ///
    /// Default false, because it costs more: one call sends one datagram, a call receives up to eight, and
    /// buffers for eight datagrams are added to the reactor. On Linux the socket no longer lets the system
    /// fragment datagrams: one longer than the way permits is refused with `EMSGSIZE`
    /// (`IP_PMTUDISC_PROBE`, ip(7)). A datagram with a mark or from a chosen address, which includes all
    /// that such sessions send, has a DSCP of zero, whatever
    /// [`SocketOptions::traffic_class`](crate::SocketOptions::traffic_class) says.
    /// [`receive_trains`](Self::receive_trains) has no effect with it.
    ///
    /// How many datagrams the system has dropped because the receive buffer was full (`SO_RXQ_OVFL`) no
    /// crate reports by a safe call. On Linux `ss -uam` and `/proc/net/udp` show it for each socket.
    #[cfg(feature = "packet-info")]
    pub fn packet_info(mut self, on: bool) -> Self {
        self.packet_info = on;
        self
    }

    /// The address that it binds, for any peer.
    pub(crate) fn bound_to(&self) -> Option<&Target> {
        match &self.on {
            On::Bind(target) if self.peer.is_none() => Some(target),
            _ => None,
        }
    }

    /// The same on a port that other sockets bind too.
    pub(crate) fn on_shared_port(mut self, target: Target) -> Self {
        self.on = On::Bind(target);
        self.options = self.options.reuse_port(true);
        self
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.peer.is_some()
    }

    pub(crate) fn open(self) -> Result<DatagramSocket, Error> {
        let peers = match &self.peer {
            None => vec![None],
            Some(peer) => addresses_of(peer)?.into_iter().map(Some).collect(),
        };
        let mut socket = match self.on {
            On::Adopted(adopted) => {
                let failed = |e| Error::new("cannot adopt the UDP socket", e);
                let socket = adopted.map_err(failed)?;
                first_that_works(peers, |peer| socket.set_up(peer, &self.options).map_err(failed))?;
                socket
            }
            On::Bind(target) => {
                let mut pairs = Vec::new();
                for address in addresses_of(&target)? {
                    pairs.extend(peers.iter().map(|&peer| (address, peer)));
                }
                first_that_works(pairs, |(address, peer)| {
                    sys::bind_udp(address, peer, &self.options).map_err(|e| {
                        let to =
                            peer.map_or(String::new(), |peer| format!(", connected to {peer}"));
                        Error::new(format!("cannot bind UDP {address}{to}"), e).about_binding()
                    })
                })?
            }
        };
        if self.receive_trains {
            socket.receive_trains();
        }
        let socket = DatagramSocket::new(socket, self.queue_limit);
        #[cfg(feature = "packet-info")]
        let socket = match self.packet_info {
            true => with_packet_info(socket)?,
            false => socket,
        };
        Ok(socket)
    }
}

#[cfg(feature = "packet-info")]
fn with_packet_info(mut socket: DatagramSocket) -> Result<DatagramSocket, Error> {
    socket.ask_for_packet_info().map_err(|e| Error::new("cannot ask for packet information", e))?;
    Ok(socket)
}

fn addresses_of(target: &Target) -> Result<Vec<SocketAddr>, Error> {
    let found = sys::resolve(target).map_err(|e| Error::resolving(target, e))?;
    let addresses: Vec<_> = found.iter().filter_map(Address::socket_addr).collect();
    if addresses.is_empty() {
        let no_ip = io::Error::new(io::ErrorKind::InvalidInput, "UDP needs an IP address");
        return Err(Error::new(format!("cannot bind UDP {target}"), no_ip));
    }
    Ok(addresses)
}

/// The result of the first choice that works, else the last error. An error about an address or a
/// family that this host lacks hides no other error.
fn first_that_works<C, T>(
    choices: Vec<C>,
    mut attempt: impl FnMut(C) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut failed: Option<Error> = None;
    for choice in choices {
        match attempt(choice) {
            Ok(made) => return Ok(made),
            Err(e) if failed.is_none() || !sys::is_missing_family(e.io()) => failed = Some(e),
            Err(_) => {}
        }
    }
    Err(failed.unwrap_or_else(|| Error::new("cannot bind UDP", io::ErrorKind::NotFound.into())))
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

impl From<Target> for Udp {
    fn from(target: Target) -> Self {
        Udp::bind(target)
    }
}
