//! Options of the sockets themselves, as plain builder methods over `socket2`.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use socket2::{Domain, SockRef, TcpKeepalive, Type};

/// Socket options. What is not set stays as the system has it, but for `TCP_NODELAY`, which is on
/// by default: small messages leave at once instead of waiting for an acknowledgement (RFC 896).
/// Times that the system counts in whole seconds are rounded up.
///
/// An option that a socket's family does not know (`TCP_NODELAY` on a Unix socket) is passed over;
/// one that the system refuses is an error of the call that made the socket, with the option's name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketOptions {
    delay: bool,
    keepalive: Option<Keepalive>,
    send_buffer: Option<usize>,
    receive_buffer: Option<usize>,
    traffic_class: Option<u8>,
    user_timeout: Option<Duration>,
    linger: Option<Duration>,
    reuse_port: bool,
    only_v6: Option<bool>,
    ttl: Option<u32>,
    pub(crate) broadcast: bool,
    pub(crate) multicast: Multicast,
    not_sent_low_water: Option<u32>,
    busy_poll: Option<u32>,
}

/// `SO_KEEPALIVE` with its three settings.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Keepalive {
    idle: Duration,
    interval: Option<Duration>,
    retries: Option<u32>,
}

/// What a multicast sender may choose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Multicast {
    hops: Option<u32>,
    looped: Option<bool>,
    interface_v4: Option<Ipv4Addr>,
    interface_v6: Option<u32>,
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

    /// `SO_KEEPALIVE`: probe a peer that has been silent for `idle` (`TCP_KEEPIDLE`, whole seconds).
    #[must_use]
    pub fn keepalive(mut self, idle: Duration) -> Self {
        let (interval, retries) = match self.keepalive {
            Some(k) => (k.interval, k.retries),
            None => (None, None),
        };
        self.keepalive = Some(Keepalive { idle, interval, retries });
        self
    }

    /// The pause between probes (`TCP_KEEPINTVL`, whole seconds) and how many may go unanswered
    /// (`TCP_KEEPCNT`). Probing starts after two hours unless [`keepalive`](Self::keepalive) says
    /// otherwise (RFC 1122 section 4.2.3.6).
    #[must_use]
    pub fn keepalive_probes(mut self, interval: Duration, retries: u32) -> Self {
        let idle = self.keepalive.map_or(Duration::from_secs(7200), |k| k.idle);
        self.keepalive = Some(Keepalive { idle, interval: Some(interval), retries: Some(retries) });
        self
    }

    /// `SO_SNDBUF`, in bytes (socket(7): Linux doubles it, and caps it at `net.core.wmem_max`).
    #[must_use]
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.send_buffer = Some(bytes);
        self
    }

    /// `SO_RCVBUF`, in bytes (socket(7): Linux doubles it, and caps it at `net.core.rmem_max`).
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// The eight bits of `IP_TOS` or `IPV6_TCLASS`: the DSCP in the upper six (RFC 2474), so that
    /// "expedited forwarding" is `46 << 2`.
    #[must_use]
    pub fn traffic_class(mut self, bits: u8) -> Self {
        self.traffic_class = Some(bits);
        self
    }

    /// `TCP_USER_TIMEOUT` (RFC 5482): how long sent data may go unacknowledged before the system
    /// drops the connection. Linux and Android; elsewhere it is passed over.
    #[must_use]
    pub fn user_timeout(mut self, after: Duration) -> Self {
        self.user_timeout = Some(after);
        self
    }

    /// `SO_LINGER` (socket(7)), whole seconds. Zero makes every close a reset, which is what
    /// [`abort`](crate::Net::abort) does for a single one. Any other time is taken back right
    /// before close(2), which would block the loop for it (on Linux for sockets that do not block,
    /// too): the system goes on sending by itself.
    #[must_use]
    pub fn linger(mut self, after: Duration) -> Self {
        self.linger = Some(after);
        self
    }

    /// `SO_REUSEPORT`: several sockets share one port and the system spreads what arrives (Linux
    /// 3.9; socket(7)). Unix only; elsewhere it is an error.
    #[must_use]
    pub fn reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// `IPV6_V6ONLY` (RFC 3493 section 5.3). By default it is *on* for a listener on several
    /// addresses and as the system has it otherwise.
    #[must_use]
    pub fn only_v6(mut self, on: bool) -> Self {
        self.only_v6 = Some(on);
        self
    }

    /// `IP_TTL` or `IPV6_UNICAST_HOPS`.
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

    /// `IP_MULTICAST_LOOP` or `IPV6_MULTICAST_LOOP`: whether this host's own members hear it too.
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

    /// `TCP_NOTSENT_LOWAT` (Linux): how many bytes the system may hold unsent before the socket
    /// stops being writable. A small value keeps the queue on this side, where newer messages can
    /// still replace older ones. Passed over elsewhere.
    #[must_use]
    pub fn not_sent_low_water(mut self, bytes: u32) -> Self {
        self.not_sent_low_water = Some(bytes);
        self
    }

    /// `SO_BUSY_POLL` (Linux, microseconds): the driver polls the device queue on a blocking wait.
    /// Raising it needs `CAP_NET_ADMIN`. Passed over elsewhere.
    #[must_use]
    pub fn busy_poll(mut self, microseconds: u32) -> Self {
        self.busy_poll = Some(microseconds);
        self
    }

    /// Whether `IPV6_V6ONLY` was chosen by the user.
    pub(crate) fn chosen_only_v6(&self) -> Option<bool> {
        self.only_v6
    }

    /// Whether close(2) might wait.
    pub(crate) fn lingers(&self) -> bool {
        self.linger.is_some_and(|after| !after.is_zero())
    }

    /// Sets all on a socket of this domain and type, before it is bound or connected.
    pub(crate) fn apply(&self, socket: &SockRef<'_>, domain: Domain, ty: Type) -> io::Result<()> {
        if domain == Domain::IPV4 || domain == Domain::IPV6 {
            self.apply_before_bind(socket, domain)?;
        }
        self.apply_bound(socket, domain, ty)
    }

    /// Sets what may be set at any time: the rest means nothing to an accepted socket.
    pub(crate) fn apply_bound(
        &self,
        socket: &SockRef<'_>,
        domain: Domain,
        ty: Type,
    ) -> io::Result<()> {
        if let Some(bytes) = self.send_buffer {
            named("SO_SNDBUF", socket.set_send_buffer_size(bytes))?;
        }
        if let Some(bytes) = self.receive_buffer {
            named("SO_RCVBUF", socket.set_recv_buffer_size(bytes))?;
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(microseconds) = self.busy_poll {
            named("SO_BUSY_POLL", socket.set_busy_poll(microseconds))?;
        }
        if domain != Domain::IPV4 && domain != Domain::IPV6 {
            return Ok(());
        }
        self.apply_ip(socket, domain)?;
        if ty == Type::STREAM { self.apply_tcp(socket) } else { self.apply_udp(socket, domain) }
    }

    fn apply_before_bind(&self, socket: &SockRef<'_>, domain: Domain) -> io::Result<()> {
        if self.reuse_port {
            named("SO_REUSEPORT", set_reuse_port(socket))?;
        }
        if let (Some(on), Domain::IPV6) = (self.only_v6, domain) {
            named("IPV6_V6ONLY", socket.set_only_v6(on))?;
        }
        Ok(())
    }

    fn apply_ip(&self, socket: &SockRef<'_>, domain: Domain) -> io::Result<()> {
        if let Some(bits) = self.traffic_class {
            named("IP_TOS/IPV6_TCLASS", set_traffic_class(socket, domain, u32::from(bits)))?;
        }
        if let Some(hops) = self.ttl {
            let set = if domain == Domain::IPV4 {
                socket.set_ttl_v4(hops)
            } else {
                socket.set_unicast_hops_v6(hops)
            };
            named("IP_TTL/IPV6_UNICAST_HOPS", set)?;
        }
        Ok(())
    }

    fn apply_tcp(&self, socket: &SockRef<'_>) -> io::Result<()> {
        if !self.delay {
            named("TCP_NODELAY", socket.set_tcp_nodelay(true))?;
        }
        if let Some(keepalive) = &self.keepalive {
            let mut parameters = TcpKeepalive::new().with_time(whole_seconds(keepalive.idle));
            if let Some(interval) = keepalive.interval {
                parameters = parameters.with_interval(whole_seconds(interval));
            }
            if let Some(retries) = keepalive.retries {
                parameters = parameters.with_retries(retries);
            }
            named("SO_KEEPALIVE", socket.set_tcp_keepalive(&parameters))?;
        }
        if let Some(after) = self.linger {
            named("SO_LINGER", socket.set_linger(Some(whole_seconds(after))))?;
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            if let Some(after) = self.user_timeout {
                named("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(Some(after)))?;
            }
            if let Some(bytes) = self.not_sent_low_water {
                named("TCP_NOTSENT_LOWAT", socket.set_tcp_notsent_lowat(bytes))?;
            }
        }
        Ok(())
    }

    fn apply_udp(&self, socket: &SockRef<'_>, domain: Domain) -> io::Result<()> {
        if self.broadcast {
            named("SO_BROADCAST", socket.set_broadcast(true))?;
        }
        let v4 = domain == Domain::IPV4;
        if let Some(hops) = self.multicast.hops {
            let set = if v4 {
                socket.set_multicast_ttl_v4(hops)
            } else {
                socket.set_multicast_hops_v6(hops)
            };
            named("IP_MULTICAST_TTL/IPV6_MULTICAST_HOPS", set)?;
        }
        if let Some(on) = self.multicast.looped {
            let set = if v4 {
                socket.set_multicast_loop_v4(on)
            } else {
                socket.set_multicast_loop_v6(on)
            };
            named("IP_MULTICAST_LOOP/IPV6_MULTICAST_LOOP", set)?;
        }
        if let (Some(interface), true) = (self.multicast.interface_v4, v4) {
            named("IP_MULTICAST_IF", socket.set_multicast_if_v4(&interface))?;
        }
        if let (Some(index), false) = (self.multicast.interface_v6, v4) {
            named("IPV6_MULTICAST_IF", socket.set_multicast_if_v6(index))?;
        }
        Ok(())
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

/// Rounded up: the system cuts fractions off, and zero means something else than "soon".
fn whole_seconds(time: Duration) -> Duration {
    let up = u64::from(time.subsec_nanos() > 0);
    Duration::from_secs(time.as_secs().saturating_add(up))
}

/// Puts the option's name before the system's answer.
fn named<T>(option: &str, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|e| io::Error::new(e.kind(), format!("setting {option}: {e}")))
}

#[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
fn set_reuse_port(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(all(unix, not(any(target_os = "solaris", target_os = "illumos")))))]
fn set_reuse_port(_: &SockRef<'_>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "freebsd"))]
fn set_traffic_class(socket: &SockRef<'_>, domain: Domain, bits: u32) -> io::Result<()> {
    if domain == Domain::IPV4 { socket.set_tos_v4(bits) } else { socket.set_tclass_v6(bits) }
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "freebsd"
)))]
fn set_traffic_class(socket: &SockRef<'_>, domain: Domain, bits: u32) -> io::Result<()> {
    if domain == Domain::IPV4 {
        socket.set_tos_v4(bits)
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
#[path = "socket_options_tests.rs"]
mod tests;
