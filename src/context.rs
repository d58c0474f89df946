//! The argument of every callback.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::address::Address;
use crate::connection::{NewestStats, SendStatus};
use crate::core::Published;
use crate::layer::Layer;
use crate::message::IntoMessage;
use crate::net::Net;
use crate::options::StreamOptions;
#[cfg(feature = "packet-info")]
use crate::packet_info::SendTo;
use crate::stats::ConnectionStats;
use crate::timers::Timer;
use crate::token::{Group, Token};

/// The argument of every callback: the shared state, the network, and the token of the connection
/// that the callback is about.
///
/// `state` and `net` are separate fields, so that a handler can iterate over shared state and send
/// to the tokens it finds there without copying the list first:
///
/// ```
/// # use tidegate::{Context, Handler, HandlerResult, Input, Token};
/// struct Room {
///     members: Vec<Token>,
/// }
/// struct Talker;
///
/// impl Handler<Room> for Talker {
///     fn on_data(&mut self, cx: &mut Context<'_, Room>, input: &mut Input<'_>) -> HandlerResult {
///         let line = input.take_all();
///         for &member in &cx.state.members {
///             cx.net.send(member, line);
///         }
///         Ok(())
///     }
/// }
/// ```
///
/// The methods are short forms of those of [`Net`], with the callback's own token. Each method of
/// [`Net`] that is about one connection or UDP socket has one. Operations on other connections,
/// listeners, groups or the loop are on `net`.
pub struct Context<'a, S = ()> {
    /// The state that all handlers of the reactor share.
    pub state: &'a mut S,
    /// The network: every other connection, timers, new sockets, groups.
    pub net: &'a mut Net<S>,
    /// The connection (or socket) that this callback is about. It is a field, so that it can be
    /// read while the other two are borrowed.
    pub token: Token,
}

impl<'a, S> Context<'a, S> {
    pub(crate) fn new(state: &'a mut S, net: &'a mut Net<S>, token: Token) -> Self {
        Context { state, net, token }
    }

    /// The time at the start of this turn; see [`Net::now`].
    pub fn now(&self) -> Instant {
        self.net.now()
    }

    /// The time of day, which may jump; see [`Net::system_time`].
    pub fn system_time(&self) -> SystemTime {
        self.net.system_time()
    }

    /// Sends on this connection; see [`Net::send`].
    pub fn send(&mut self, message: impl IntoMessage) -> SendStatus {
        self.net.send(self.token, message)
    }

    /// Sends shared bytes on this connection; see [`Net::send_shared`].
    pub fn send_shared(&mut self, bytes: &Arc<[u8]>) -> SendStatus {
        self.net.send_shared(self.token, bytes)
    }

    /// Sends a value on this connection that replaces its own unsent predecessor; see
    /// [`Net::send_latest`].
    pub fn send_latest(&mut self, key: u64, message: impl IntoMessage) -> SendStatus {
        self.net.send_latest(self.token, key, message)
    }

    /// Drops the values that wait for this connection; see [`Net::discard_queued`].
    pub fn discard_queued(&mut self) -> usize {
        self.net.discard_queued(self.token)
    }

    /// What is known of this connection's values; see [`Net::newest_stats`].
    pub fn newest_stats(&self) -> Option<NewestStats> {
        self.net.newest_stats(self.token)
    }

    /// Whether this connection has fallen behind; see [`Net::is_behind`].
    pub fn is_behind(&self) -> bool {
        self.net.is_behind(self.token)
    }

    /// Asks for [`on_batch_end`](crate::Handler::on_batch_end); see [`Net::request_batch_end`].
    pub fn request_batch_end(&mut self) -> bool {
        self.net.request_batch_end(self.token)
    }

    /// Sends a datagram from this socket; see [`Net::send_to`].
    pub fn send_to(&mut self, to: SocketAddr, bytes: impl AsRef<[u8]>) -> SendStatus {
        self.net.send_to(self.token, to, bytes)
    }

    /// Sends a datagram from a chosen address of this host, or with an ECN mark; see
    /// [`Net::send_datagram`].
    #[cfg(feature = "packet-info")]
    pub fn send_datagram(&mut self, to: SendTo, bytes: impl AsRef<[u8]>) -> SendStatus {
        self.net.send_datagram(self.token, to, bytes)
    }

    /// Drops the datagrams of this session or socket that have not left; see [`Net::clear_queue`].
    pub fn clear_queue(&mut self) -> usize {
        self.net.clear_queue(self.token)
    }

    /// Closes this connection gracefully; see [`Net::close`].
    pub fn close(&mut self) {
        self.net.close(self.token);
    }

    /// Closes this connection gracefully with a code and a reason for the peer; see
    /// [`Net::close_with`].
    pub fn close_with(&mut self, code: u16, reason: impl Into<String>) {
        self.net.close_with(self.token, code, reason);
    }

    /// Closes this connection once no `on_drain` and no held reply is pending; see
    /// [`Net::close_when_done`].
    pub fn close_when_done(&mut self) {
        self.net.close_when_done(self.token);
    }

    /// Announces a reply on this connection that is sent later; see [`Net::hold`].
    pub fn hold(&mut self) -> bool {
        self.net.hold(self.token)
    }

    /// Takes back one hold, after its reply was sent; see [`Net::release`].
    pub fn release(&mut self) -> bool {
        self.net.release(self.token)
    }

    /// Gives this connection other options; see [`Net::set_options`].
    pub fn set_options(&mut self, options: StreamOptions) -> bool {
        self.net.set_options(self.token, options)
    }

    /// Ends this connection at once, without flushing; see [`Net::abort`].
    pub fn abort(&mut self) {
        self.net.abort(self.token);
    }

    /// Ends this connection's write side; see [`Net::half_close`].
    pub fn half_close(&mut self) {
        self.net.half_close(self.token);
    }

    /// Stops reading from this connection; see [`Net::pause`].
    pub fn pause(&mut self) {
        self.net.pause(self.token);
    }

    /// Resumes reading from this connection; see [`Net::resume`].
    pub fn resume(&mut self) {
        self.net.resume(self.token);
    }

    /// Relays between this connection and another; see [`Net::relay`].
    pub fn relay(&mut self, other: Token) -> bool {
        self.net.relay(self.token, other)
    }

    /// Pairs this connection with another; see [`Net::pair`].
    pub fn pair(&mut self, other: Token) -> bool {
        self.net.pair(self.token, other)
    }

    /// Inserts a layer between the socket and this connection's layers; see [`Net::start_layer`].
    pub fn start_layer(&mut self, layer: impl Layer + 'static) -> bool {
        self.net.start_layer(self.token, layer)
    }

    /// Adds this connection to a group; see [`Net::join`].
    pub fn join(&mut self, group: Group) -> bool {
        self.net.join(group, self.token)
    }

    /// Removes this connection from a group; see [`Net::leave`].
    pub fn leave(&mut self, group: Group) -> bool {
        self.net.leave(group, self.token)
    }

    /// Sends to all members of a group except this connection; see [`Net::publish_except`].
    pub fn publish_to_others(&mut self, group: Group, message: impl IntoMessage) -> Published {
        self.net.publish_except(group, self.token, message)
    }

    /// Sends to all members of the group with this name, wherever they are, except this connection; see
    /// [`Net::publish_named_except`].
    pub fn publish_named_to_others(
        &mut self,
        name: impl AsRef<[u8]>,
        message: impl IntoMessage,
    ) -> Published {
        self.net.publish_named_except(name, self.token, message)
    }

    /// Sets a timer of this connection; see [`Net::set_timer`].
    pub fn set_timer(&mut self, after: Duration, tag: u64) -> Timer {
        self.net.set_timer(self.token, after, tag)
    }

    /// Sets a timer that is not rounded up to milliseconds; see [`Net::set_fine_timer`].
    pub fn set_fine_timer(&mut self, after: Duration, tag: u64) -> Timer {
        self.net.set_fine_timer(self.token, after, tag)
    }

    /// Moves a timer; see [`Net::rearm_timer`].
    pub fn rearm_timer(&mut self, timer: Timer, after: Duration) -> bool {
        self.net.rearm_timer(timer, after)
    }

    /// Cancels a timer; see [`Net::cancel_timer`].
    pub fn cancel_timer(&mut self, timer: Timer) -> bool {
        self.net.cancel_timer(timer)
    }

    /// Whether this connection is neither closed nor closing; see [`Net::is_open`].
    pub fn is_open(&self) -> bool {
        self.net.is_open(self.token)
    }

    /// The number of output bytes of this connection that are not written yet; see [`Net::queued`].
    pub fn queued(&self) -> usize {
        self.net.queued(self.token)
    }

    /// What this connection has moved, if it counts; see [`Net::connection_stats`].
    pub fn connection_stats(&self) -> Option<ConnectionStats> {
        self.net.connection_stats(self.token)
    }

    /// What the system knows of this connection; see [`Net::tcp_info`].
    ///
    /// # Errors
    /// As that.
    #[cfg(feature = "tcp-info")]
    pub fn tcp_info(&mut self) -> Result<crate::stats::TcpInfo, crate::error::Error> {
        self.net.tcp_info(self.token)
    }

    /// Whether this connection's output is above its high-water mark; see
    /// [`Net::is_above_high_water`].
    pub fn is_above_high_water(&self) -> bool {
        self.net.is_above_high_water(self.token)
    }

    /// The local address of this connection; see [`Net::local_addr`].
    pub fn local_addr(&self) -> Option<Address> {
        self.net.local_addr(self.token)
    }

    /// The address of the peer; see [`Net::peer_addr`].
    pub fn peer_addr(&self) -> Option<Address> {
        self.net.peer_addr(self.token)
    }

    /// What this connection's layers know about the peer; see [`Net::layer_info`].
    pub fn layer_info<T: Any>(&self) -> Option<&T> {
        self.net.layer_info(self.token)
    }
}

impl<S> fmt::Debug for Context<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("token", &self.token).finish_non_exhaustive()
    }
}
