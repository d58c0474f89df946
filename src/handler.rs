//! The traits a protocol implements.

use std::net::SocketAddr;

use crate::connection::Input;
use crate::context::Context;
use crate::error::{CloseInfo, DatagramError, HandlerResult};
use crate::notification::Notification;
use crate::timers::Timer;

/// A stream protocol: TCP or Unix sockets, with or without wire layers on them.
///
/// The reactor owns one value for each connection and calls it, on one thread, as things happen.
/// Implement the callbacks the protocol needs; the others do the sensible thing.
///
/// # The callback grammar
///
/// ```text
/// (on_open (on_data | on_drain | on_timer | on_notify)* on_eof? (on_drain | on_timer | on_notify)*)? on_close
/// ```
///
/// - `on_open` means that the socket is connected and every layer's handshake is done. A connection that
///   was accepted gets its handler only then.
/// - `on_close` is called exactly once for every connection that had `on_open`, and for every
///   outgoing one that failed before it. Nothing is called after it.
/// - After the handler, or anybody, called `close` or `abort`, only `on_close` follows.
/// - No callback ever runs inside another: what a callback does to other connections is queued or
///   written, and their handlers are called later.
///
/// # Errors and panics
///
/// A callback that returns an error closes its own connection, gracefully, with the error as the
/// reason: what it sent before is flushed. One that panics (where panics unwind) loses its
/// connection at once. Nothing else is touched either way; but after a panic the shared state `S`
/// may be half-changed, as after any panic.
///
/// ```
/// use tidegate::{Context, Handler, HandlerResult, Input};
///
/// struct Upper;
///
/// impl<S> Handler<S> for Upper {
///     fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
///         let text = std::str::from_utf8(input.take_all())?; // ends this connection if it is not
///         cx.send(text.to_uppercase());
///         Ok(())
///     }
/// }
/// ```
pub trait Handler<S = ()> {
    /// The connection is established and its layers are ready.
    ///
    /// # Errors
    /// Closes this connection, as in every callback.
    fn on_open(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        let _ = cx;
        Ok(())
    }

    /// Bytes arrived (or one message, where a layer frames). See [`Input`] for what becomes of
    /// bytes that are not taken.
    ///
    /// # Errors
    /// Closes this connection, as in every callback.
    fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult;

    /// The queue, which had been above its high mark, has fallen to its low mark: go on sending.
    ///
    /// # Errors
    /// Closes this connection, as in every callback.
    fn on_drain(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        let _ = cx;
        Ok(())
    }

    /// The peer has ended its side; everything it sent has been offered. The default is
    /// [`Context::close_when_done`]: it closes the connection as soon as this side owes nothing, no
    /// `on_drain` and no answer that was held for ([`Context::hold`]). A handler that goes on sending
    /// to a half-closed peer for another reason overrides it and closes, or ends its write side, when
    /// it is done.
    ///
    /// # Errors
    /// Closes this connection, as in every callback.
    fn on_eof(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        cx.close_when_done();
        Ok(())
    }

    /// A timer of this connection is due. It fires once, and never early.
    ///
    /// # Errors
    /// Closes this connection, as in every callback.
    fn on_timer(&mut self, cx: &mut Context<'_, S>, timer: Timer) -> HandlerResult {
        let _ = (cx, timer);
        Ok(())
    }

    /// Another handler or another thread has posted a typed message to this connection.
    ///
    /// # Errors
    /// Closes this connection, as in every callback.
    fn on_notify(&mut self, cx: &mut Context<'_, S>, signal: Notification) -> HandlerResult {
        let _ = (cx, signal);
        Ok(())
    }

    /// The connection has ended. Its token is out of its groups and refuses sends; other
    /// connections can be used as ever.
    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        let _ = (cx, closed);
    }
}

/// The handler of a connection that the reactor relays ([`Net::relay`](crate::Net::relay)) and that
/// no code has to look at.
///
/// It takes no input: what arrives before the relay is made is kept for it, up to
/// [`unread_limit`](crate::StreamOptions::unread_limit) bytes. How the connection ended is in the
/// log and in no callback; the other connection of the relay ends with it.
///
/// ```no_run
/// use tidegate::{Context, Handler, HandlerResult, Input, Reactor, Relayed};
///
/// struct Forward;
///
/// impl Handler for Forward {
///     fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
///         let target = cx.net.connect("192.0.2.7:80", Relayed)?;
///         cx.relay(target);
///         Ok(())
///     }
///
///     fn on_data(&mut self, _: &mut Context<'_>, _: &mut Input<'_>) -> HandlerResult {
///         Ok(()) // not called: the reactor relays
///     }
/// }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Relayed;

impl<S> Handler<S> for Relayed {
    fn on_data(&mut self, _: &mut Context<'_, S>, _: &mut Input<'_>) -> HandlerResult {
        Ok(())
    }
}

impl<S> Handler<S> for Box<dyn Handler<S>> {
    fn on_open(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        (**self).on_open(cx)
    }
    fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
        (**self).on_data(cx, input)
    }
    fn on_drain(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        (**self).on_drain(cx)
    }
    fn on_eof(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        (**self).on_eof(cx)
    }
    fn on_timer(&mut self, cx: &mut Context<'_, S>, timer: Timer) -> HandlerResult {
        (**self).on_timer(cx, timer)
    }
    fn on_notify(&mut self, cx: &mut Context<'_, S>, signal: Notification) -> HandlerResult {
        (**self).on_notify(cx, signal)
    }
    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        (**self).on_close(cx, closed);
    }
}

/// A datagram protocol: one UDP socket, however many peers.
///
/// Streams and datagrams differ in the shape of their data, in what "end" means, in back-pressure
/// and in addressing; that is why this is a trait of its own.
///
/// # The callback grammar
///
/// ```text
/// (on_open (on_datagram | on_error | on_drain | on_timer | on_notify)*)? on_close
/// ```
///
/// What goes wrong with one datagram leaves the socket open, because it serves all peers:
/// [`on_error`](Self::on_error) is called with it. That is what the network reports (an ICMP "port
/// unreachable", a datagram too large for the path), and an error or a panic of
/// [`on_datagram`](Self::on_datagram), which a peer's bytes may have caused. The log has a line above
/// debug level about those at most every 10 s for each socket. Any other callback that returns an
/// error, or panics, closes its own socket and nothing else.
pub trait DatagramHandler<S = ()> {
    /// The socket is bound and registered.
    ///
    /// # Errors
    /// Closes this socket, as in every callback.
    fn on_open(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        let _ = cx;
        Ok(())
    }

    /// A datagram arrived. One of length zero is data like any other (RFC 768).
    ///
    /// # Errors
    /// Goes to [`on_error`](Self::on_error) as [`DatagramError::Handler`]; the socket lives on. Call
    /// [`close`](crate::Context::close) to end it.
    fn on_datagram(&mut self, cx: &mut Context<'_, S>, datagram: Datagram<'_>) -> HandlerResult;

    /// The system reported an error on this socket, or `on_datagram` failed. The socket lives on. The
    /// default logs it at debug level.
    ///
    /// # Errors
    /// Closes this socket, as in every callback.
    fn on_error(&mut self, cx: &mut Context<'_, S>, error: DatagramError) -> HandlerResult {
        log::debug!("udp socket {}: {error}", cx.token);
        Ok(())
    }

    /// Datagrams had been queued because the system took no more, or one had been refused because
    /// the queue was full; and the queue is empty again.
    ///
    /// # Errors
    /// Closes this socket, as in every callback.
    fn on_drain(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        let _ = cx;
        Ok(())
    }

    /// A timer of this socket is due. It fires once, and never early.
    ///
    /// # Errors
    /// Closes this socket, as in every callback.
    fn on_timer(&mut self, cx: &mut Context<'_, S>, timer: Timer) -> HandlerResult {
        let _ = (cx, timer);
        Ok(())
    }

    /// Another handler or another thread has posted a typed message to this socket.
    ///
    /// # Errors
    /// Closes this socket, as in every callback.
    fn on_notify(&mut self, cx: &mut Context<'_, S>, signal: Notification) -> HandlerResult {
        let _ = (cx, signal);
        Ok(())
    }

    /// The socket is closed. Nothing is called after this.
    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        let _ = (cx, closed);
    }
}

/// A datagram that was received.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Its payload; possibly empty.
    pub bytes: &'a [u8],
    /// Who sent it. On a dual-stack socket (`[::]`) an IPv4 peer has an IPv4-mapped address
    /// (`::ffff:192.0.2.1`). Answer to that address as it is; to show it or to compare it, take
    /// [`to_canonical`](std::net::IpAddr::to_canonical) of the IP.
    pub from: SocketAddr,
    /// Whether it was longer than [`Config::datagram_size`](crate::Config::datagram_size) and has
    /// been cut. The cut part is lost.
    pub truncated: bool,
}
