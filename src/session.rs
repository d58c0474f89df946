//! Sessions: peers of one UDP socket, each with a handler of its own. Options, admission, counters.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::packet_info::PacketInfo;
use crate::stats::Closes;

/// Limits of the sessions of one UDP socket ([`Net::bind_sessions`](crate::Net::bind_sessions)).
///
/// ```
/// use std::time::Duration;
/// use tidegate::SessionOptions;
///
/// let options = SessionOptions::new().idle_timeout(Duration::from_secs(10)).max_per_address(64);
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct SessionOptions {
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) max_sessions: usize,
    pub(crate) max_per_address: usize,
    pub(crate) amplification: usize,
    pub(crate) datagram_limit: usize,
}

impl SessionOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a peer may be silent; then its session ends as
    /// [`TimedOut`](crate::CloseReason::TimedOut) with [`Deadline::Idle`](crate::Deadline::Idle).
    /// Only what the peer sends counts: what is sent to it proves nothing. It is never early, and
    /// waits while the socket is paused or datagrams are known to wait.
    ///
    /// Default 30 s: UDP has no end of its own, and many NAT devices forget a silent peer after that
    /// time (RFC 9000, section 10.1.2), so that it would come back from another port. `None`: never;
    /// the handler closes the session.
    pub fn idle_timeout(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = time.into();
        self
    }

    /// How many sessions the socket may have. Further ones are refused and counted
    /// ([`SessionStats::refused`]). Default 4,096: with the 300 bytes at most that a session takes
    /// beside its handler, little more than 1 MiB.
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }

    /// How many sessions one IP address may have, on all its ports; of IPv6 one /64 network, since one
    /// host has as many addresses in it as it likes. Further ones are refused and counted. Default 16,
    /// for the players behind one router. Raise it where many share an address (carrier-grade NAT).
    pub fn max_per_address(mut self, sessions: usize) -> Self {
        self.max_per_address = sessions;
        self
    }

    /// How many times as long as the datagram that it answers an
    /// [`Admission::reply`] may be. Its source may be forged, and what is sent
    /// then goes to a victim. A longer one is not sent, and counted
    /// ([`SessionStats::overlong`]). Default 1: no more than came, so that nobody gains from a
    /// forged source. RFC 9000, section 8.1, permits 3.
    pub fn amplification(mut self, times: usize) -> Self {
        self.amplification = times;
        self
    }

    /// The longest datagram that is sent to a peer, in bytes. A longer message is refused with
    /// [`SendStatus::Unencodable`](crate::SendStatus::Unencodable); one that was published to a group
    /// is dropped for this member and counted there. Default 65,507, the most that UDP carries over
    /// IPv4. What exceeds the path's own limit and is no longer than this is fragmented, or refused by
    /// the system (`on_error`). 1,200 is safe on every path (RFC 9000, section 14).
    pub fn datagram_limit(mut self, bytes: usize) -> Self {
        self.datagram_limit = bytes;
        self
    }

    /// A limit of zero is a mistake.
    pub(crate) fn check(&self) -> io::Result<()> {
        let limits = [
            ("max_sessions", self.max_sessions),
            ("max_per_address", self.max_per_address),
            ("amplification", self.amplification),
            ("datagram_limit", self.datagram_limit),
            ("idle_timeout", usize::from(self.idle_timeout != Some(Duration::ZERO))),
        ];
        for (name, limit) in limits {
            if limit == 0 {
                let what = format!("SessionOptions::{name}: expected more than zero");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        }
        Ok(())
    }
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            idle_timeout: Some(Duration::from_secs(30)),
            max_sessions: 4096,
            max_per_address: 16,
            amplification: 1,
            datagram_limit: 65_507,
        }
    }
}

/// What [`SessionOptions::max_per_address`] counts together.
pub(crate) fn origin_of(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A datagram from an address without a session: the argument of the closure that
/// [`Net::bind_sessions`](crate::Net::bind_sessions) takes.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Hello<'a> {
    /// The payload; it may be empty.
    pub bytes: &'a [u8],
    /// Where it says that it comes from. Anybody can write any address there.
    pub from: SocketAddr,
    /// Whether it was longer than [`Config::datagram_size`](crate::Config::datagram_size) and was cut.
    pub truncated: bool,
    /// The time at the start of this turn.
    pub now: Instant,
    /// Whether there is no room for a session of this peer, by
    /// [`max_sessions`](SessionOptions::max_sessions) or
    /// [`max_per_address`](SessionOptions::max_per_address), or because of a shutdown. It may be told so
    /// by a [`reply`](Admission::reply); an [`accept`](Admission::accept) is refused.
    pub full: bool,
    /// What else the system tells of it, if the socket was made with `Udp::packet_info` (feature
    /// `packet-info`).
    pub info: Option<&'a PacketInfo>,
}

/// What is to be done with a [`Hello`].
pub struct Admission<H>(pub(crate) Verdict<H>);

pub(crate) enum Verdict<H> {
    Accept { handler: H, skip: usize },
    Reply(Vec<u8>),
    Ignore,
}

impl<H> Admission<H> {
    /// A session begins: `handler` gets its `on_open`, and then this datagram. Where there is no room
    /// ([`Hello::full`]), the handler is dropped without a callback.
    pub fn accept(handler: H) -> Self {
        Admission(Verdict::Accept { handler, skip: 0 })
    }

    /// Of an [`accept`](Self::accept): leaves out so many bytes at the beginning of this datagram (a
    /// cookie, for example). If that leaves none, `on_datagram` is not called for it.
    #[must_use]
    pub fn skip(mut self, bytes: usize) -> Self {
        if let Verdict::Accept { skip, .. } = &mut self.0 {
            *skip = bytes;
        }
        self
    }

    /// Answers with one datagram and keeps nothing. It may be as long as
    /// [`SessionOptions::amplification`] permits: by default no longer than what came.
    pub fn reply(bytes: impl Into<Vec<u8>>) -> Self {
        Admission(Verdict::Reply(bytes.into()))
    }

    /// Does nothing, as if the datagram had been lost.
    pub fn ignore() -> Self {
        Admission(Verdict::Ignore)
    }
}

impl<H> fmt::Debug for Admission<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Verdict::Accept { skip, .. } => write!(f, "Accept(.., skip {skip})"),
            Verdict::Reply(bytes) => write!(f, "Reply({} bytes)", bytes.len()),
            Verdict::Ignore => f.write_str("Ignore"),
        }
    }
}

/// Counters of a UDP socket with sessions ([`Net::session_stats`](crate::Net::session_stats)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct SessionStats {
    /// Sessions that exist now, those included whose `on_close` is still to be called.
    pub open: usize,
    /// Sessions that were begun.
    pub accepted: u64,
    /// Sessions that have ended, by the reason that `on_close` got. Outside callbacks `accepted` is `open`
    /// and the total of these.
    pub closed: Closes,
    /// Datagrams that sessions were given, what [`skip`](Admission::skip) leaves of a first one included.
    pub messages_received: u64,
    /// Their bytes, with what was skipped.
    pub bytes_received: u64,
    /// Messages to sessions that were queued, published ones included. What the system refuses later is
    /// in `errors`.
    pub messages_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Accepted peers that got no session, because a limit was reached or a shutdown is in progress.
    pub refused: u64,
    /// Replies to unknown peers that were queued.
    pub replied: u64,
    /// Replies that were not sent, because they were longer than
    /// [`SessionOptions::amplification`] permits.
    pub overlong: u64,
    /// Datagrams of unknown peers that were ignored, and those at which the closure panicked.
    pub ignored: u64,
    /// Datagrams that came between the end of a session and its `on_close`, and were dropped.
    pub late: u64,
    /// Errors that the system reported when a datagram was sent or received. Those about a session's
    /// peer are also reported to its [`on_error`](crate::DatagramHandler::on_error).
    pub errors: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_one_address() {
        let origin = |peer: &str| origin_of(peer.parse().unwrap()).to_string();
        assert_eq!(origin("192.0.2.7:1"), "192.0.2.7");
        assert_eq!(origin("[::ffff:192.0.2.7]:2"), "192.0.2.7");
        assert_eq!(origin("[2001:db8:1:2:3:4:5:6]:3"), "2001:db8:1:2::");
        assert_eq!(origin("[2001:db8:1:2:ffff::]:3"), "2001:db8:1:2::");
        assert_eq!(origin("[2001:db8:1:3::]:3"), "2001:db8:1:3::");
    }

    #[test]
    fn a_limit_of_zero_is_named() {
        let options = SessionOptions::new;
        for (wrong, name) in [
            (options().max_sessions(0), "max_sessions"),
            (options().max_per_address(0), "max_per_address"),
            (options().amplification(0), "amplification"),
            (options().datagram_limit(0), "datagram_limit"),
            (options().idle_timeout(Duration::ZERO), "idle_timeout"),
        ] {
            let error = wrong.check().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(options().idle_timeout(None).check().is_ok());
    }
}
