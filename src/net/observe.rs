//! Figures about the loop and its sockets; callbacks that are slow.

#[cfg(feature = "tcp-info")]
use std::io::{self, ErrorKind};

use super::Net;
#[cfg(feature = "tcp-info")]
use crate::address::Address;
#[cfg(feature = "tcp-info")]
use crate::error::Error;
#[cfg(feature = "histograms")]
use crate::stats::Latency;
#[cfg(feature = "tcp-info")]
use crate::stats::TcpInfo;
use crate::stats::{ConnectionStats, ReactorStats, SlowCallback};
use crate::token::Token;

/// Who is told of slow callbacks, and when the log was.
pub(crate) struct Slow<S> {
    pub(crate) hook: Option<Hook<S>>,
    /// No line before this tick, and how many there would have been since the last one.
    pub(crate) silent_until: u64,
    pub(crate) left_out: u64,
    /// One was told of in this turn.
    pub(crate) in_this_turn: bool,
}

type Hook<S> = Box<dyn FnMut(&SlowCallback, &mut S)>;

impl<S> Default for Slow<S> {
    fn default() -> Self {
        Slow { hook: None, silent_until: 0, left_out: 0, in_this_turn: false }
    }
}

/// Figures.
impl<S> Net<S> {
    /// What the reactor has counted since it was made, and what there is now.
    ///
    /// The counters are always on. They cost some ten instructions a message (counted: 13 of 1,013 where
    /// one connection is served in a turn, none that shows where many are). The gauges (how many
    /// connections, how many bytes wait) are computed here, by one walk over all sockets and timers:
    /// ask once a second, and not for each message. Numbers that are cheap to have at any time are
    /// [`connection_count`](Self::connection_count) and [`queued`](Self::queued).
    pub fn stats(&self) -> ReactorStats {
        self.core.stats()
    }

    /// What one connection has moved, over TCP or a Unix socket. `None` if it does not count
    /// ([`StreamOptions::statistics`](crate::StreamOptions::statistics)), is not established yet, or is
    /// gone; and for UDP sockets and sessions, which have no figures of their own: those of all sessions of
    /// a socket together are in [`session_stats`](Self::session_stats). Also available in `on_close`, with
    /// the final figures.
    pub fn connection_stats(&self, token: Token) -> Option<ConnectionStats> {
        let stream = self.core.stream(token)?;
        stream.stats(self.core.unsent(token), self.core.work.now)
    }

    /// What the system knows of a TCP connection: its round-trip time, what is on its way, what was sent
    /// again. It costs two system calls, some tens of microseconds: ask once a second, not for each
    /// message. The peer's own delays are not in it (Linux delays acknowledgements by up to 40 ms).
    ///
    /// Linux answers through sock_diag(7), from version 5.4 on, to any user.
    ///
    /// # Errors
    /// - `NotFound`: the token names no connection.
    /// - `NotConnected`: it is not established yet, or was reset; or the socket is bound to a device
    ///   (`SO_BINDTODEVICE`), for which the system is not asked.
    /// - `Unsupported`: it is a Unix socket; in a simulation; and on other systems than Linux and Android.
    /// - The system's own error, for instance if a sandbox permits no netlink sockets.
    #[cfg(feature = "tcp-info")]
    pub fn tcp_info(&mut self, token: Token) -> Result<TcpInfo, Error> {
        let failed = |e| Error::new(format!("cannot ask for TCP_INFO of {token}"), e);
        let unknown = || io::Error::new(ErrorKind::NotFound, "the token names no connection");
        let stream = self.core.stream(token).ok_or_else(unknown).map_err(failed)?;
        #[cfg(feature = "sim")]
        if self.core.sys.is_simulated() {
            let what =
                "the network is simulated, and has no TCP_INFO; expected a reactor of the system";
            return Err(failed(io::Error::new(ErrorKind::Unsupported, what)));
        }
        let ip = |it: Address| {
            let what = format!("expected a TCP connection, got a Unix socket ({it})");
            it.socket_addr().ok_or_else(|| io::Error::new(ErrorKind::Unsupported, what))
        };
        let local = stream.socket().local_addr().and_then(ip).map_err(failed)?;
        let peer = stream.socket().peer_addr().and_then(ip).map_err(failed)?;
        self.core.diagnosis.of(local, peer).map_err(failed)
    }

    /// Calls `hook` with each callback, and each turn, that took as long as
    /// [`Config::slow_callback`](crate::Config::slow_callback) or longer, right after it has returned. A
    /// later call replaces the hook. Without that setting it is never called.
    ///
    /// A hook that panics loses that call, and is logged. Its own time counts for no callback, but for
    /// the turn.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate::{Config, Reactor};
    ///
    /// let config = Config::new().slow_callback(Duration::from_millis(5));
    /// let mut reactor = Reactor::build(config, |net| {
    ///     net.on_slow_callback(|slow, count: &mut u64| {
    ///         *count += 1;
    ///         eprintln!("{} in {} for {:?}", slow.callback, slow.handler, slow.took);
    ///     });
    ///     Ok(0)
    /// })?;
    /// reactor.net().run_after(Duration::ZERO, |_, _| std::thread::sleep(Duration::from_millis(6)));
    /// while *reactor.state() == 0 {
    ///     reactor.turn(None)?;
    /// }
    /// # Ok::<(), tidegate::Error>(())
    /// ```
    pub fn on_slow_callback(&mut self, hook: impl FnMut(&SlowCallback, &mut S) + 'static) {
        self.slow.hook = Some(Box::new(hook));
    }

    /// Where the reactor's time has gone since this was last called, as histograms. Reading resets them:
    /// each interval has figures of its own, which a slow second in an hour of fast ones does not vanish
    /// in. `None` without [`Config::measure`](crate::Config::measure).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidegate::{Config, Reactor};
    ///
    /// let mut reactor = Reactor::build(Config::new().measure(true), |_| Ok(()))?;
    /// reactor.net().run_after(Duration::from_millis(1), |_, net| net.stop());
    /// reactor.run()?;
    /// let latency = reactor.net().take_latency().expect("measuring is on");
    /// assert_eq!(latency.timers.count(), 1);
    /// println!("timers fire {:?} late (p99)", latency.timers.value_at(0.99));
    /// # Ok::<(), tidegate::Error>(())
    /// ```
    #[cfg(feature = "histograms")]
    pub fn take_latency(&mut self) -> Option<Latency> {
        self.core.work.take_latency()
    }
}
