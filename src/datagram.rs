//! UDP sockets: how they are made.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::address::{Address, Resolved};
use crate::core::DatagramSocket;
use crate::error::Error;
use crate::socket_options::SocketOptions;
use crate::sys;

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
    /// is dropped, whole, with [`SendStatus::Full`](crate::SendStatus::Full). Default 256 KiB, at least one byte.
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
