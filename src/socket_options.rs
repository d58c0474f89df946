//! Options of the sockets themselves. `sys/options.rs` sets them on a socket.

use std::net::Ipv4Addr;
use std::time::Duration;

/// Socket options. An option that is not set keeps the system's default, except `TCP_NODELAY`,
/// which is on by default: small messages leave at once instead of waiting for an acknowledgement
/// (RFC 896). Times that the system counts in whole seconds are rounded up.
///
/// An option that the socket's family does not have (`TCP_NODELAY` on a Unix socket) is ignored. An
/// option that the system refuses is an error of the call that makes the socket, with the name of
/// the option; for an outgoing connection that is
/// [`ConnectFailed`](crate::CloseReason::ConnectFailed).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketOptions {
    pub(crate) delay: bool,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) send_buffer: Option<usize>,
    pub(crate) receive_buffer: Option<usize>,
    pub(crate) traffic_class: Option<u8>,
    pub(crate) user_timeout: Option<Duration>,
    pub(crate) linger: Option<Duration>,
    pub(crate) reuse_address: bool,
    pub(crate) reuse_port: bool,
    pub(crate) only_v6: Option<bool>,
    pub(crate) ttl: Option<u32>,
    pub(crate) broadcast: bool,
    pub(crate) multicast: Multicast,
    pub(crate) not_sent_low_water: Option<u32>,
    pub(crate) busy_poll: Option<u32>,
}

/// `SO_KEEPALIVE` with its three settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keepalive {
    pub(crate) idle: Duration,
    pub(crate) interval: Option<Duration>,
    pub(crate) retries: Option<u32>,
}

/// The interface that multicast leaves through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Multicast {
    pub(crate) hops: Option<u32>,
    pub(crate) looped: Option<bool>,
    pub(crate) interface_v4: Option<Ipv4Addr>,
    pub(crate) interface_v6: Option<u32>,
}

impl SocketOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// `TCP_NODELAY` (tcp(7)). Default true.
    #[must_use]
    pub fn nodelay(mut self, on: bool) -> Self {
        self.delay = !on;
        self
    }

    /// `SO_KEEPALIVE`: probes a peer that has been silent for `idle` (`TCP_KEEPIDLE`, whole
    /// seconds). Default off.
    #[must_use]
    pub fn keepalive(mut self, idle: Duration) -> Self {
        let (interval, retries) = match self.keepalive {
            Some(k) => (k.interval, k.retries),
            None => (None, None),
        };
        self.keepalive = Some(Keepalive { idle, interval, retries });
        self
    }

    /// Enables `SO_KEEPALIVE` with the interval between probes (`TCP_KEEPINTVL`, whole seconds) and
    /// the number of probes without a reply after which the connection fails (`TCP_KEEPCNT`).
    /// Probing starts after two hours of silence (RFC 1122 section 4.2.3.6) unless
    /// [`keepalive`](Self::keepalive) sets another time.
    #[must_use]
    pub fn keepalive_probes(mut self, interval: Duration, retries: u32) -> Self {
        let idle = self.keepalive.map_or(Duration::from_secs(7200), |k| k.idle);
        self.keepalive = Some(Keepalive { idle, interval: Some(interval), retries: Some(retries) });
        self
    }

    /// `SO_SNDBUF`, in bytes (socket(7): Linux doubles it, and limits it to `net.core.wmem_max`).
    #[must_use]
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// `SO_RCVBUF`, in bytes (socket(7): Linux doubles it, and limits it to `net.core.rmem_max`).
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// The eight bits of `IP_TOS` or `IPV6_TCLASS`: the DSCP in the upper six (RFC 2474), so that
    /// "expedited forwarding" is `46 << 2`. An IPv6 socket that serves IPv4 peers too gets both.
    #[must_use]
    pub fn traffic_class(mut self, bits: u8) -> Self {
        self.traffic_class = Some(bits);
        self
    }

    /// `TCP_USER_TIMEOUT` (RFC 5482): how long sent data may stay unacknowledged before the system
    /// drops the connection. Linux and Android; ignored elsewhere.
    #[must_use]
    pub fn user_timeout(mut self, after: Duration) -> Self {
        self.user_timeout = Some(after);
        self
    }

    /// `SO_LINGER` (socket(7)), whole seconds. Zero makes every close a reset, as
    /// [`abort`](crate::Net::abort) does for one connection. Any other time is reset right before
    /// close(2), which would otherwise block the loop for that time (on Linux also on a
    /// non-blocking socket); the system goes on sending in the background.
    #[must_use]
    pub fn linger(mut self, after: Duration) -> Self {
        self.linger = Some(after);
        self
    }

    /// `SO_REUSEADDR` (socket(7)): lets a UDP socket bind an address that another socket with this
    /// option has, as members of one multicast group on one host need it. Default false. A TCP
    /// listener always has it (except on Windows), and so does a connection from a fixed local
    /// port.
    #[must_use]
    pub fn reuse_address(mut self, on: bool) -> Self {
        self.reuse_address = on;
        self
    }

    /// `SO_REUSEPORT`: several sockets share one port, and the system distributes what arrives
    /// (Linux 3.9; socket(7)). Unix only; an error elsewhere.
    #[must_use]
    pub fn reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// `IPV6_V6ONLY` (RFC 3493 section 5.3). By default it is *on* for a listener on several
    /// addresses, and has the system's default otherwise.
    #[must_use]
    pub fn only_v6(mut self, on: bool) -> Self {
        self.only_v6 = Some(on);
        self
    }

    /// `IP_TTL` or `IPV6_UNICAST_HOPS`. An IPv6 socket that serves IPv4 peers too gets both.
    #[must_use]
    pub fn ttl(mut self, hops: u32) -> Self {
        self.ttl = Some(hops);
        self
    }

    /// `SO_BROADCAST`, for datagrams to broadcast addresses.
    #[must_use]
    pub fn broadcast(mut self, on: bool) -> Self {
        self.broadcast = on;
        self
    }

    /// `IP_MULTICAST_TTL` or `IPV6_MULTICAST_HOPS`; the system's default is 1, the local network.
    #[must_use]
    pub fn multicast_hops(mut self, hops: u32) -> Self {
        self.multicast.hops = Some(hops);
        self
    }

    /// `IP_MULTICAST_LOOP` or `IPV6_MULTICAST_LOOP`: whether members on this host receive the
    /// datagrams too.
    #[must_use]
    pub fn multicast_loop(mut self, on: bool) -> Self {
        self.multicast.looped = Some(on);
        self
    }

    /// `IP_MULTICAST_IF`: the interface, by its address, that IPv4 multicast leaves through.
    #[must_use]
    pub fn multicast_interface_v4(mut self, interface: Ipv4Addr) -> Self {
        self.multicast.interface_v4 = Some(interface);
        self
    }

    /// `IPV6_MULTICAST_IF`: the interface, by its index, that IPv6 multicast leaves through.
    #[must_use]
    pub fn multicast_interface_v6(mut self, index: u32) -> Self {
        self.multicast.interface_v6 = Some(index);
        self
    }

    /// `TCP_NOTSENT_LOWAT` (Linux), in bytes: how much unsent data the system may hold before it
    /// stops reporting the socket as writable and takes no more. A small value keeps the data in the
    /// queue of this process, where newer messages can still replace older ones
    /// ([`Net::send_latest`](crate::Net::send_latest)). Ignored elsewhere.
    ///
    /// For a peer that does not read, Linux 6.18 takes over loopback, in writes of 2 KiB: 4.3 MB by
    /// default (all but 0.1 MB in the send buffer, `tcp_wmem`); 148 KB with 16 KiB here; and 23 KB if the
    /// peer has a receive buffer of 4 KiB too. At 20 KB/s those are 213, 7.4 and 1.1 seconds.
    #[must_use]
    pub fn not_sent_low_water(mut self, bytes: u32) -> Self {
        self.not_sent_low_water = Some(bytes);
        self
    }

    /// `SO_BUSY_POLL` (Linux, microseconds): the driver polls the device queue during a blocking
    /// wait. Raising it needs `CAP_NET_ADMIN`. Ignored elsewhere.
    #[must_use]
    pub fn busy_poll(mut self, microseconds: u32) -> Self {
        self.busy_poll = Some(microseconds);
        self
    }

    /// Whether `IPV6_V6ONLY` was chosen by the user.
    pub(crate) fn chosen_only_v6(&self) -> Option<bool> {
        self.only_v6
    }

    /// Whether close(2) could block.
    pub(crate) fn lingers(&self) -> bool {
        self.linger.is_some_and(|after| !after.is_zero())
    }
}

/// The interface on which a multicast group is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MulticastInterface {
    /// The interface that the system's routes choose.
    #[default]
    Default,
    /// The interface with this address, for IPv4 groups.
    V4(Ipv4Addr),
    /// The interface with this index (if_nametoindex(3)), for IPv6 groups.
    Index(u32),
}
