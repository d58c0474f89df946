//! The traits a protocol implements.

use std::net::SocketAddr;

use crate::connection::Input;
use crate::context::Context;
use crate::error::{CloseInfo, DatagramError, HandlerResult};
use crate::notification::Notification;
use crate::packet_info::PacketInfo;
use crate::timers::Timer;

/// A stream protocol: TCP or Unix sockets, with or without wire layers on them.
///
/// The reactor owns one value per connection and calls its methods on one thread. Implement the
/// callbacks that the protocol needs; the others have useful defaults.
///
/// # The callback grammar
///
/// ```text
/// (on_open (on_data | on_batch_end | on_drain | on_timer | on_notify)* on_eof? (on_drain | on_timer | on_notify)*)? on_close
/// ```
///
/// - `on_open` is called once the connection is established and every layer has finished its
///   handshake. The handler of an accepted connection is created at that point and not before.
/// - `on_close` is called exactly once for every connection that had `on_open`, and for every
///   outgoing connection that failed before it. No callback follows it.
/// - After a call of `close` or `abort`, from this handler or from elsewhere, only `on_close`
///   follows.
/// - No callback runs inside another. What a callback does to other connections is queued or
///   written, and their handlers are called later.
///
/// # Errors and panics
///
/// A callback that returns an error closes its own connection gracefully, with the error as the
/// reason; output sent before is flushed. A callback that panics (where panics unwind) ends its
/// connection at once. No other connection is affected in either case. After a panic the shared
/// state `S` may be left half-changed.
///
/// ```
/// use tidegate::{Context, Handler, HandlerResult, Input};
///
/// struct Upper;
///
/// impl<S> Handler<S> for Upper {
///     fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult {
///         let text = std::str::from_utf8(input.take_all())?; // not UTF-8: closes this connection
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

    /// Bytes arrived, or one message where a layer frames. [`Input`] describes what happens to
    /// bytes that are not taken.
    ///
    /// # Errors
    /// Closes this connection, as in every callback.
    fn on_data(&mut self, cx: &mut Context<'_, S>, input: &mut Input<'_>) -> HandlerResult;

    /// The input that has arrived is used up: everything that was read has been offered, and the socket
    /// has no more. Called once behind each batch in which the handler has asked for it with
    /// [`Context::request_batch_end`], for what is to be done once a batch and not once a message: a
    /// publish of what has changed, one write to a log.
    ///
    /// A batch is what arrives without a pause. It may take several turns, where a budget or the deadline
    /// of [`turn_until`](crate::Reactor::turn_until) cuts it, and ends
    ///
    /// - when the input is used up. A part of a message is not waited for;
    /// - when no more of it may be offered now: after [`pause`](Context::pause), above the high-water
    ///   mark, while a [pair](crate::Net::pair) holds it back, when a [relay](crate::Net::relay) takes
    ///   over;
    /// - before `on_eof`, where the peer has ended;
    /// - 50 ms after the first turn that had no room for all of it, because a peer that sends without a
    ///   pause would put it off for ever. (Three ticks of a loop at 60 Hz. Count messages in `on_data`
    ///   where that is too long.)
    ///
    /// It comes in the turn that used up the input, behind the other sockets' events, or in the next one if
    /// that turn's work was used up, too. Like every callback
    /// it does not come after `close` or an error: what is still to be passed on then belongs in
    /// [`on_close`](Self::on_close), too.
    ///
    /// # Errors
    /// Closes this connection, as in every callback.
    fn on_batch_end(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        let _ = cx;
        Ok(())
    }

    /// The output queue was above its high-water mark and has fallen to its low-water mark: the
    /// handler can send again.
    ///
    /// # Errors
    /// Closes this connection, as in every callback.
    fn on_drain(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        let _ = cx;
        Ok(())
    }

    /// The peer has ended its write side, and everything it sent has been delivered.
    ///
    /// The default calls [`Context::close_when_done`]: the connection closes as soon as no
    /// `on_drain` is pending and no reply is [held](Context::hold) for. Override it to go on
    /// sending to a half-closed peer for another reason, and then call `close` or `half_close` when
    /// all is sent.
    ///
    /// # Errors
    /// Closes this connection, as in every callback.
    fn on_eof(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        cx.close_when_done();
        Ok(())
    }

    /// A timer of this connection has expired. It fires once, and never early.
    ///
    /// # Errors
    /// Closes this connection, as in every callback.
    fn on_timer(&mut self, cx: &mut Context<'_, S>, timer: Timer) -> HandlerResult {
        let _ = (cx, timer);
        Ok(())
    }

    /// Another handler or another thread has posted a [`Notification`] to this connection.
    ///
    /// # Errors
    /// Closes this connection, as in every callback.
    fn on_notify(&mut self, cx: &mut Context<'_, S>, notification: Notification) -> HandlerResult {
        let _ = (cx, notification);
        Ok(())
    }

    /// The connection has ended. Its token has left its groups and refuses sends. Every other
    /// operation of `cx` works as usual.
    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        let _ = (cx, closed);
    }

    /// What this handler is called where it is named: in the line about a slow callback
    /// ([`Config::slow_callback`](crate::Config::slow_callback)). The default is the name of its type;
    /// a wrapper may give the name of what it holds.
    fn handler_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

/// The handler of a connection that the reactor relays ([`Net::relay`](crate::Net::relay)) and that
/// needs no code of its own.
///
/// It takes no input. What arrives before the relay starts is kept for it, up to
/// [`unread_limit`](crate::StreamOptions::unread_limit) bytes. The reason of the close is logged
/// and reported to no callback; the other connection of the relay ends with it.
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
///         Ok(()) // never called: the reactor relays
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
    fn on_batch_end(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        (**self).on_batch_end(cx)
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
    fn on_notify(&mut self, cx: &mut Context<'_, S>, notification: Notification) -> HandlerResult {
        (**self).on_notify(cx, notification)
    }
    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        (**self).on_close(cx, closed);
    }
    fn handler_name(&self) -> &'static str {
        (**self).handler_name()
    }
}

/// A datagram protocol: one UDP socket with any number of peers, or a *session* with one of them.
///
/// Streams and datagrams differ in the shape of their data, in their end, in back-pressure and in
/// addressing. That is why datagrams have a trait of their own.
///
/// # The callback grammar
///
/// ```text
/// (on_open (on_datagram | on_error | on_drain | on_timer | on_notify)*)? on_close
/// ```
///
/// A failure of one datagram leaves the socket open, because the socket serves all peers. It is
/// reported to [`on_error`](Self::on_error): an error from the network (an ICMP "port unreachable",
/// a datagram too large for the path), and an error or a panic of
/// [`on_datagram`](Self::on_datagram), which a peer's bytes may have caused. Per socket, these are
/// logged above debug level at most once every 10 s. Any other callback that returns an error, or
/// panics, closes its own socket and nothing else.
///
/// # Sessions
///
/// [`Net::bind_sessions`](crate::Net::bind_sessions) makes a handler for each peer. The grammar is the
/// same, about a session: `on_open` when the peer was accepted, `on_datagram` for what it sends,
/// `on_close` once. Two things differ. A session serves one peer, so that an error or a panic of *any*
/// callback, `on_datagram` included, ends this session (and no other). And `on_error` reports only what
/// the system says about sending to this peer.
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
    /// Reported to [`on_error`](Self::on_error) as [`DatagramError::Handler`]; the socket stays
    /// open. A session is closed. Call [`close`](crate::Context::close) to end it.
    fn on_datagram(&mut self, cx: &mut Context<'_, S>, datagram: Datagram<'_>) -> HandlerResult;

    /// The system reported an error on this socket, or `on_datagram` failed. The socket stays open.
    /// The default logs the error at debug level.
    ///
    /// # Errors
    /// Closes this socket, as in every callback.
    fn on_error(&mut self, cx: &mut Context<'_, S>, error: DatagramError) -> HandlerResult {
        log::debug!("udp socket {}: {error}", cx.token);
        Ok(())
    }

    /// The send queue is empty again. Called after datagrams were queued because the system took no
    /// more, or after one was refused because the queue was full. A session gets it after one of its own
    /// was refused: the queue is that of the socket.
    ///
    /// # Errors
    /// Closes this socket, as in every callback.
    fn on_drain(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        let _ = cx;
        Ok(())
    }

    /// A timer of this socket has expired. It fires once, and never early.
    ///
    /// # Errors
    /// Closes this socket, as in every callback.
    fn on_timer(&mut self, cx: &mut Context<'_, S>, timer: Timer) -> HandlerResult {
        let _ = (cx, timer);
        Ok(())
    }

    /// Another handler or another thread has posted a [`Notification`] to this socket.
    ///
    /// # Errors
    /// Closes this socket, as in every callback.
    fn on_notify(&mut self, cx: &mut Context<'_, S>, notification: Notification) -> HandlerResult {
        let _ = (cx, notification);
        Ok(())
    }

    /// The socket is closed. No callback follows.
    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        let _ = (cx, closed);
    }

    /// What this handler is called where it is named: in the line about a slow callback
    /// ([`Config::slow_callback`](crate::Config::slow_callback)). The default is the name of its type;
    /// a wrapper may give the name of what it holds.
    fn handler_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

impl<S> DatagramHandler<S> for Box<dyn DatagramHandler<S>> {
    fn on_open(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        (**self).on_open(cx)
    }
    fn on_datagram(&mut self, cx: &mut Context<'_, S>, datagram: Datagram<'_>) -> HandlerResult {
        (**self).on_datagram(cx, datagram)
    }
    fn on_error(&mut self, cx: &mut Context<'_, S>, error: DatagramError) -> HandlerResult {
        (**self).on_error(cx, error)
    }
    fn on_drain(&mut self, cx: &mut Context<'_, S>) -> HandlerResult {
        (**self).on_drain(cx)
    }
    fn on_timer(&mut self, cx: &mut Context<'_, S>, timer: Timer) -> HandlerResult {
        (**self).on_timer(cx, timer)
    }
    fn on_notify(&mut self, cx: &mut Context<'_, S>, notification: Notification) -> HandlerResult {
        (**self).on_notify(cx, notification)
    }
    fn on_close(&mut self, cx: &mut Context<'_, S>, closed: &CloseInfo) {
        (**self).on_close(cx, closed);
    }
    fn handler_name(&self) -> &'static str {
        (**self).handler_name()
    }
}

/// A received datagram.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// The payload; it may be empty.
    pub bytes: &'a [u8],
    /// The address of the sender.
    pub from: SocketAddr,
    /// Whether the datagram was longer than [`Config::datagram_size`](crate::Config::datagram_size)
    /// and was cut. The rest is lost.
    pub truncated: bool,
    /// What else the system tells of it, if the socket was made with `Udp::packet_info` (feature
    /// `packet-info`).
    pub info: Option<&'a PacketInfo>,
}
