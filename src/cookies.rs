//! Cookies: whether a peer receives what is sent to its address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher24;

use crate::net::Net;
use crate::sys;

/// Makes and checks cookies, which prove that a peer receives what is sent to its address: the source
/// of a datagram is whatever its sender wrote. Nothing is kept for a peer until it has returned one.
///
/// A cookie is 12 bytes: the time when it was made, and SipHash-2-4 of that time and of the peer's
/// address and port, under a random key of this value. The same hash serves the same purpose in DNS
/// cookies (RFC 9018); its 64 bits are enough where each guess is a datagram that has to be sent. It hides
/// nothing, and a peer may use its cookie several times while it is valid. The key lives in memory
/// only: after a restart, and in another process, old cookies are refused and peers ask again.
///
/// ```
/// use tidegate::{Admission, Context, Cookies, Datagram, DatagramHandler, HandlerResult, Reactor};
/// use tidegate::SessionOptions;
///
/// struct Player;
///
/// impl DatagramHandler for Player {
///     fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
///         // A client that has heard nothing yet repeats its cookie: messages of others begin with `M`.
///         if datagram.bytes.first() == Some(&b'M') {
///             cx.send(datagram.bytes);
///         }
///         Ok(())
///     }
/// }
///
/// let mut reactor = Reactor::new()?;
/// let cookies = Cookies::new(reactor.net());
/// // A client says hello in 12 bytes or more, gets a cookie, and begins with it.
/// reactor.net().bind_sessions("127.0.0.1:0", SessionOptions::new(), move |hello| {
///     if cookies.is_valid(hello.from, hello.now, hello.bytes) {
///         Admission::accept(Player).skip(Cookies::LEN)
///     } else {
///         Admission::reply(cookies.make(hello.from, hello.now))
///     }
/// })?;
/// # Ok::<(), tidegate::Error>(())
/// ```
pub struct Cookies {
    key: [u8; 16],
    start: Instant,
    lifetime: u64,
}

/// How long the time is at the beginning of a cookie: seconds in four bytes, for 136 years.
const TIME: usize = 4;

impl Cookies {
    /// How long a cookie is, in bytes.
    pub const LEN: usize = TIME + 8;

    /// With a new random key (from the seed in a simulation). Cookies are valid for 15 s: a client
    /// returns one at once, and the short time bounds what one who has left an address can do with it
    /// (RFC 9000, section 8.1.3).
    pub fn new<S>(net: &Net<S>) -> Self {
        let mut key = [0; 16];
        sys::random::fill(&mut key);
        Cookies { key, start: net.now(), lifetime: 15 }
    }

    /// How long cookies are valid, rounded up to whole seconds; at least one. They may be
    /// accepted for up to a second more.
    #[must_use]
    pub fn lifetime(mut self, time: Duration) -> Self {
        self.lifetime = (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1);
        self
    }

    /// The cookie of a peer. `now` is the turn's time ([`Hello::now`](crate::Hello::now)).
    pub fn make(&self, peer: SocketAddr, now: Instant) -> [u8; Self::LEN] {
        // Cannot overflow in 136 years.
        let time = (self.seconds(now) as u32).to_be_bytes();
        let mut cookie = [0; Self::LEN];
        cookie[..TIME].copy_from_slice(&time);
        cookie[TIME..].copy_from_slice(&self.hash(peer, time).to_be_bytes());
        cookie
    }

    /// Whether `bytes` begin with a cookie that was made for this peer and is still valid.
    pub fn is_valid(&self, peer: SocketAddr, now: Instant, bytes: &[u8]) -> bool {
        let Some((&time, rest)) = bytes.split_first_chunk::<TIME>() else { return false };
        let Some(&hash) = rest.first_chunk::<8>() else { return false };
        let made = u64::from(u32::from_be_bytes(time));
        let age = self.seconds(now).checked_sub(made);
        // One comparison of two words takes the same time wherever they differ.
        let genuine = u64::from_be_bytes(hash) == self.hash(peer, time);
        genuine && age.is_some_and(|age| age <= self.lifetime)
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }

    fn hash(&self, peer: SocketAddr, time: [u8; TIME]) -> u64 {
        let ip = match peer.ip().to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut bytes = [0; TIME + 16 + 2];
        bytes[..TIME].copy_from_slice(&time);
        bytes[TIME..][..16].copy_from_slice(&ip.octets());
        bytes[TIME + 16..].copy_from_slice(&peer.port().to_be_bytes());
        SipHasher24::new_with_key(&self.key).hash(&bytes)
    }
}

/// Without the key.
impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(key: u8) -> Cookies {
        Cookies { key: [key; 16], start: Instant::now(), lifetime: 15 }
    }

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    // row 190
    #[test]
    fn a_cookie_is_valid_for_its_peer_its_key_and_its_time_alone() {
        let jar = cookies(1);
        let ada = peer("192.0.2.7:4000");
        let after = |seconds: u64| jar.start + Duration::from_millis(seconds * 1000 + 999);
        let cookie = jar.make(ada, after(3));
        for seconds in 3..=18 {
            assert!(jar.is_valid(ada, after(seconds), &cookie), "{seconds}");
        }
        assert!(!jar.is_valid(ada, after(19), &cookie), "it has expired");
        assert!(!jar.is_valid(ada, after(2), &cookie), "it is of the future");
        assert!(!cookies(2).is_valid(ada, after(3), &cookie), "another key");
        for other in ["192.0.2.7:4001", "192.0.2.8:4000", "[::c000:207]:4000"] {
            assert!(!jar.is_valid(peer(other), after(3), &cookie), "{other}");
        }
        assert!(jar.is_valid(peer("[::ffff:192.0.2.7]:4000"), after(3), &cookie), "the same one");
        let mut longer = cookie.to_vec();
        longer.extend(b"data");
        assert!(jar.is_valid(ada, after(3), &longer), "more may follow");
        for len in 0..Cookies::LEN {
            assert!(!jar.is_valid(ada, after(3), &cookie[..len]), "cut to {len}");
        }
        for at in 0..Cookies::LEN {
            let mut changed = cookie;
            changed[at] ^= 1;
            assert!(!jar.is_valid(ada, after(3), &changed), "changed at {at}");
        }
    }

    #[test]
    fn a_lifetime_is_rounded_up() {
        let of = |millis| cookies(1).lifetime(Duration::from_millis(millis)).lifetime;
        assert_eq!([of(0), of(1), of(1000), of(1001)], [1, 1, 1, 2]);
    }

    #[test]
    fn the_key_is_not_shown() {
        assert_eq!(format!("{:?}", cookies(7)), "Cookies { lifetime: 15, .. }");
    }
}
