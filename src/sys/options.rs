//! Setting socket options, over `socket2`.

use std::io;
use std::time::Duration;

use socket2::{Domain, SockRef, TcpKeepalive, Type};

use crate::socket_options::SocketOptions;

impl SocketOptions {
    /// Sets all on a socket of this domain and type, before it is bound or connected.
    pub(super) fn apply(&self, socket: &SockRef<'_>, domain: Domain, ty: Type) -> io::Result<()> {
        if domain == Domain::IPV4 || domain == Domain::IPV6 {
            self.apply_before_bind(socket, domain)?;
        }
        self.apply_bound(socket, domain, ty)
    }

    /// Sets what may be set at any time: the rest means nothing to an accepted socket.
    pub(super) fn apply_bound(
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
        if self.reuse_address {
            named("SO_REUSEADDR", socket.set_reuse_address(true))?;
        }
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
            let set = |domain| set_traffic_class(socket, domain, u32::from(bits));
            named("IP_TOS/IPV6_TCLASS", for_each_family(socket, domain, set))?;
        }
        if let Some(hops) = self.ttl {
            let set = |domain| match domain {
                Domain::IPV4 => socket.set_ttl_v4(hops),
                _ => socket.set_unicast_hops_v6(hops),
            };
            named("IP_TTL/IPV6_UNICAST_HOPS", for_each_family(socket, domain, set))?;
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
        if let Some(hops) = self.multicast.hops {
            let set = |domain| match domain {
                Domain::IPV4 => socket.set_multicast_ttl_v4(hops),
                _ => socket.set_multicast_hops_v6(hops),
            };
            let set = for_each_family(socket, domain, set);
            named("IP_MULTICAST_TTL/IPV6_MULTICAST_HOPS", set)?;
        }
        if let Some(on) = self.multicast.looped {
            let set = |domain| match domain {
                Domain::IPV4 => socket.set_multicast_loop_v4(on),
                _ => socket.set_multicast_loop_v6(on),
            };
            let set = for_each_family(socket, domain, set);
            named("IP_MULTICAST_LOOP/IPV6_MULTICAST_LOOP", set)?;
        }
        let v4 = domain == Domain::IPV4;
        if let (Some(interface), true) = (self.multicast.interface_v4, v4) {
            named("IP_MULTICAST_IF", socket.set_multicast_if_v4(&interface))?;
        }
        if let (Some(index), false) = (self.multicast.interface_v6, v4) {
            named("IPV6_MULTICAST_IF", socket.set_multicast_if_v6(index))?;
        }
        Ok(())
    }
}

/// Sets an option that each family has in a form of its own. An IPv6 socket that serves IPv4 peers too
/// needs both: the IPv6 form does not reach those. Where the system does not take the IPv4 form on an
/// IPv6 socket, only IPv6 peers have it.
fn for_each_family(
    socket: &SockRef<'_>,
    domain: Domain,
    set: impl Fn(Domain) -> io::Result<()>,
) -> io::Result<()> {
    set(domain)?;
    if domain == Domain::IPV6
        && socket.only_v6().is_ok_and(|only| !only)
        && let Err(e) = set(Domain::IPV4)
    {
        log::debug!("an option is set for IPv6 peers alone: {e}");
    }
    Ok(())
}

/// Rounded up: the system cuts fractions off, and zero means something else than "soon".
fn whole_seconds(time: Duration) -> Duration {
    let up = u64::from(time.subsec_nanos() > 0);
    Duration::from_secs(time.as_secs().saturating_add(up))
}

/// Puts the option's name before the system's error.
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
#[path = "options_tests.rs"]
mod tests;
