//! UDP sockets whose peers have sessions.

use std::io;
use std::net::SocketAddr;

use super::{AnyHandler, Net};
use crate::core::{Entity, SessionSocket};
use crate::datagram::Udp;
use crate::error::Error;
use crate::handler::DatagramHandler;
use crate::session::{Admission, Hello, SessionOptions, SessionStats, Verdict};
use crate::token::Token;

/// Decides about datagrams of unknown peers.
pub(crate) trait Gate<S> {
    fn admit(&mut self, hello: &Hello<'_>) -> Admission<Box<dyn DatagramHandler<S>>>;
    /// The type of the handlers that it makes.
    fn handler_name(&self) -> &'static str;
}

struct Closure<F>(F);

impl<S, F, H> Gate<S> for Closure<F>
where
    F: FnMut(&Hello<'_>) -> Admission<H>,
    H: DatagramHandler<S> + 'static,
{
    fn admit(&mut self, hello: &Hello<'_>) -> Admission<Box<dyn DatagramHandler<S>>> {
        Admission(match (self.0)(hello).0 {
            Verdict::Accept { handler, skip } => {
                Verdict::Accept { handler: Box::new(handler), skip }
            }
            Verdict::Reply(bytes) => Verdict::Reply(bytes),
            Verdict::Ignore => Verdict::Ignore,
        })
    }

    fn handler_name(&self) -> &'static str {
        std::any::type_name::<H>()
    }
}

/// Sessions of UDP peers.
impl<S: 'static> Net<S> {
    /// Binds a UDP socket whose peers each have a *session*: a handler, a token and timers of their
    /// own, as a connection has. Returns the socket's token.
    ///
    /// `admit` is called with each datagram from an address that has no session. It
    /// [accepts](Admission::accept) the peer with a handler, [replies](Admission::reply) with one
    /// datagram, or [ignores](Admission::ignore) it. Nothing is kept for a peer before it is accepted.
    /// The source of a datagram may be forged: unless it does not matter who fills the limits of
    /// [`SessionOptions`], accept a peer once it has returned something that was sent to its
    /// address, as `Cookies` (feature `cookies`) does. A session may be the very same
    /// handler as a client's on a connected socket: [`send`](Self::send) goes to its peer in both.
    ///
    /// - **A session's token** works wherever a connection's does: [`send`](Self::send) a datagram to
    ///   its peer, [`join`](Self::join) a group (each message is a datagram),
    ///   [`set_timer`](Self::set_timer), [`notify`](Self::notify), [`close`](Self::close),
    ///   [`abort`](Self::abort), [`clear_queue`](Self::clear_queue), [`peer_addr`](Self::peer_addr).
    ///   Pausing has no effect on it.
    /// - **Its end.** `on_close` is called once, with the reason:
    ///   [`TimedOut`](crate::CloseReason::TimedOut) with [`Deadline::Idle`](crate::Deadline::Idle)
    ///   (the peer was silent), `Closed` or `Aborted`, `Handler` or `Panicked` (a callback failed),
    ///   `SocketClosed`, `TimedOut` with [`Deadline::Shutdown`](crate::Deadline::Shutdown), or
    ///   `ReactorDropped`. If several end it, the first counts. What comes from that address before
    ///   `on_close` has been called is dropped; what comes after it is a new peer's.
    /// - **The socket's token** works as that of any UDP socket for [`send_to`](Self::send_to),
    ///   [`pause`](Self::pause), [`close`](Self::close) (which ends all sessions) and
    ///   [`join_multicast`](Self::join_multicast). It has no callbacks, so that timers and notifications
    ///   for it are refused.
    /// - **The send queue** is that of the socket, shared by all sessions. Datagrams leave at the end of
    ///   the turn, in one batch. When it is full, what the system takes leaves at once; only what
    ///   the system does not take is refused ([`SendStatus::Full`](crate::SendStatus::Full)), and
    ///   [`on_drain`](DatagramHandler::on_drain) of those sessions follows.
    /// - **A shutdown** admits no new session and waits for none: those that are left when it ends are
    ///   cut.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use tidegate::{
    ///     Admission, Context, Datagram, DatagramHandler, HandlerResult, Reactor, SessionOptions,
    /// };
    ///
    /// struct Player {
    ///     heard: u64,
    /// }
    ///
    /// impl DatagramHandler for Player {
    ///     fn on_datagram(&mut self, cx: &mut Context<'_>, input: Datagram<'_>) -> HandlerResult {
    ///         self.heard += 1;
    ///         cx.send(format!("{} bytes, number {}", input.bytes.len(), self.heard));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut reactor = Reactor::new()?;
    /// let options = SessionOptions::new().idle_timeout(Duration::from_secs(10));
    /// reactor.net().bind_sessions("127.0.0.1:4000", options, |hello| match hello.bytes {
    ///     b"join" => Admission::accept(Player { heard: 0 }),
    ///     _ => Admission::ignore(),
    /// })?;
    /// reactor.run()?;
    /// # Ok::<(), tidegate::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`bind_udp`](Self::bind_udp). Also if an option is zero, or if `udp` is connected to a
    /// peer, which an adopted socket may be.
    pub fn bind_sessions<H, F>(
        &mut self,
        udp: impl Into<Udp>,
        options: SessionOptions,
        admit: F,
    ) -> Result<Token, Error>
    where
        H: DatagramHandler<S> + 'static,
        F: FnMut(&Hello<'_>) -> Admission<H> + 'static,
    {
        let what = "cannot bind UDP for sessions";
        options.check().map_err(|e| Error::new(what, e))?;
        let udp = udp.into();
        let connected = || {
            let connected = "expected a socket for any peer, got one that is connected to one";
            Error::new(what, io::Error::new(io::ErrorKind::InvalidInput, connected))
        };
        if udp.is_connected() {
            return Err(connected());
        }
        let (udp, key) = self.part_of_udp(udp);
        let socket = udp.open()?;
        if socket.socket.peer_addr().is_ok() {
            return Err(connected()); // an adopted one
        }
        let socket = Box::new(SessionSocket::new(socket, options));
        let token = self.insert(Entity::SessionSocket(socket), what)?;
        let registered = self.core.register_datagram(token);
        self.or_remove(token, registered, "cannot register the UDP socket")?;
        self.pending_handlers.push((token, AnyHandler::Gate(Box::new(Closure(admit)))));
        self.core.make_ready(token);
        self.udp_is_bound(token, key);
        Ok(token)
    }

    /// The sessions of a UDP socket, in no particular order, those included whose `on_close` is still
    /// to be called. Empty for any other token.
    pub fn sessions(&self, socket: Token) -> &[Token] {
        self.core.session_socket(socket).map_or(&[], |socket| &socket.sessions)
    }

    /// The session of a peer.
    pub fn session_of(&self, socket: Token, peer: SocketAddr) -> Option<Token> {
        self.core.session_of(socket, peer)
    }

    /// The UDP socket that a session belongs to.
    pub fn session_socket(&self, session: Token) -> Option<Token> {
        self.core.session(session).map(|session| session.socket)
    }

    /// The counters of a UDP socket with sessions; `None` for any other token.
    pub fn session_stats(&self, socket: Token) -> Option<SessionStats> {
        self.core.session_socket(socket).map(|socket| socket.stats)
    }
}
