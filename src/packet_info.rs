//! What comes with a datagram beside its bytes, and what can go with one.

use std::net::IpAddr;
#[cfg(feature = "packet-info")]
use std::net::SocketAddr;
use std::time::SystemTime;

#[cfg(feature = "packet-info")]
use crate::handler::Datagram;
#[cfg(feature = "packet-info")]
use crate::sys::Mark;

/// What the system tells of a received datagram. Each field is `None` where the system does not tell it.
///
/// A socket asks for it with `Udp::packet_info` (feature `packet-info`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PacketInfo {
    /// The address that it was sent to (`IP_PKTINFO`, ip(7); `IPV6_PKTINFO`, RFC 3542), which may be
    /// one of a multicast group or a broadcast address. For a socket that is bound to the unspecified
    /// address it differs from datagram to datagram, and an answer should come from it. A socket of
    /// IPv6 sees IPv4 addresses in their mapped form.
    pub local: Option<IpAddr>,
    /// The index of the interface on which it came.
    pub interface: Option<u32>,
    /// What routers on its way said of congestion. `None` also if its sender takes no part in that.
    pub ecn: Option<Ecn>,
    /// When the system received it, by the clock of the time of day, which may jump. The difference to
    /// [`Net::system_time`](crate::Net::system_time) is how long it waited for this program.
    /// (`SO_TIMESTAMPNS`, socket(7); on Linux and Android.)
    pub received: Option<SystemTime>,
}

/// Explicit Congestion Notification (RFC 3168): two bits in the header of each IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ecn {
    /// Its sender reacts to marks.
    Ect0,
    /// The same, for senders that react in small steps (L4S, RFC 9331).
    Ect1,
    /// A router marked it, where it would otherwise drop packets soon.
    Ce,
}

/// Where a datagram goes, from which of this host's addresses, and with which ECN mark; for
/// [`Net::send_datagram`](crate::Net::send_datagram).
#[cfg(feature = "packet-info")]
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct SendTo {
    pub(crate) to: Option<SocketAddr>,
    pub(crate) mark: Mark,
}

#[cfg(feature = "packet-info")]
impl SendTo {
    /// To this address.
    pub fn peer(address: SocketAddr) -> Self {
        SendTo { to: Some(address), mark: Mark::default() }
    }

    /// To the peer that the socket is connected to. (macOS and the BSDs permit no source and no mark on
    /// a connected socket: `EISCONN`.)
    pub fn connected_peer() -> Self {
        SendTo { to: None, mark: Mark::default() }
    }

    /// To the sender of a datagram, from the address that it was sent to. If none can be sent from that
    /// (of a multicast group, or broadcast), the system chooses the source.
    pub fn reply(datagram: &Datagram<'_>) -> Self {
        let local = datagram.info.and_then(|info| info.local);
        SendTo { to: Some(datagram.from), mark: Mark::from_local(local) }
    }

    /// From this address of the host, whichever the socket is bound to.
    pub fn local(mut self, address: IpAddr) -> Self {
        self.mark.local = Some(address);
        self.mark.is_hint = false;
        self
    }

    /// With this mark. Only who reacts to the marks of the receiver may set one (RFC 3168, section 5).
    pub fn ecn(mut self, mark: Ecn) -> Self {
        self.mark.ecn = Some(mark);
        self
    }
}
