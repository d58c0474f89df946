//! The network side of a reactor, as callbacks, posted closures and set-up code use it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::core::{Core, Stopping};
use crate::guard::{drop_each, drop_guarded};
use crate::handler::{DatagramHandler, Handler};
use crate::listener::Acceptor;
use crate::remote::{Remote, Shared};
use crate::source::AnySource;
use crate::sys;
use crate::token::Token;

mod across;
mod bridge;
mod connections;
mod groups;
mod interconnect;
mod observe;
mod offload;
mod sessions;
mod sockets;
mod time;
mod topics;

#[cfg(feature = "backplane")]
pub(crate) use bridge::{Bridge, Errand};
pub(crate) use interconnect::Interconnect;
pub(crate) use observe::Slow;
use offload::Done;
pub use offload::{JobPanicked, OffloadError};
use sessions::Gate;

/// The network: connections by token, new sockets, timers, groups, jobs for other threads, and the
/// end of the loop.
///
/// Callbacks have it as [`Context::net`](crate::Context::net), posted closures get it as an
/// argument, and code outside callbacks takes it from [`Reactor::net`](crate::Reactor::net). The
/// methods are the same everywhere.
///
/// No method calls a handler: callbacks that follow from a call run later in the turn, or in the
/// next. A token of something that is closed is refused, and never causes a panic.
pub struct Net<S = ()> {
    pub(crate) core: Core,
    /// Handlers of what callbacks created, until the turn installs them.
    pub(crate) pending_handlers: Vec<(Token, AnyHandler<S>)>,
    /// Closures of [`Net::run_after`], by the index in their timers.
    pub(crate) calls: Slab<Call<S>>,
    /// What is to be done with the results of jobs, by the index that comes back with each.
    pub(crate) offloads: Slab<Done<S>>,
    pub(crate) workers: sys::Workers,
    pub(crate) shared: Arc<Shared<S>>,
    pub(crate) slow: Slow<S>,
    /// What reaches beyond this reactor; nothing does in most programs.
    pub(crate) interconnect: Option<Box<Interconnect<S>>>,
}

type Call<S> = Box<dyn FnOnce(&mut S, &mut Net<S>)>;

/// The handler of what a token names.
pub(crate) enum AnyHandler<S> {
    Stream(Box<dyn Handler<S>>),
    /// Of a UDP socket, or of one session of it.
    Datagram(Box<dyn DatagramHandler<S>>),
    Gate(Box<dyn Gate<S>>),
    Listener(Box<dyn Acceptor<S>>),
    Source(Box<dyn AnySource<S>>),
}

impl<S> Drop for Net<S> {
    /// The network may end without a reactor, where the set-up of [`Reactor::build`] fails: then too
    /// posts are refused from now on, and no job begins.
    ///
    /// [`Reactor::build`]: crate::Reactor::build
    fn drop(&mut self) {
        let (posted, jobs) = (self.shared.close(), self.workers.close());
        // All of these hold user values, whose drops may panic.
        drop_each(posted);
        drop_each(jobs);
        drop_each(std::mem::take(&mut self.pending_handlers));
        drop_guarded(self.slow.hook.take());
        drop_each(std::mem::take(&mut self.calls));
        drop_each(std::mem::take(&mut self.offloads));
        drop_each(std::mem::take(&mut self.core.notifications));
    }
}

/// The loop.
impl<S> Net<S> {
    /// Ends [`run`](crate::Reactor::run) after this turn. Nothing is closed: the reactor can be run
    /// again. It does not wait for [jobs](Self::offload).
    pub fn stop(&mut self) {
        self.core.stopping = Stopping::Now;
    }

    /// Closes the listeners, lets the connections run to their own ends, and ends
    /// [`run`](crate::Reactor::run) when the last one is done. Peers that the system has already
    /// accepted are served first: at most 4,096 per listener, and none of a paused listener or one
    /// at its limit. From now on [`listen`](Self::listen) is refused.
    ///
    /// Timers, UDP sockets, their [sessions](Self::bind_sessions) and [jobs](Self::offload) delay
    /// nothing; when the shutdown ends, sessions end with it. A connection that
    /// [holds](Self::hold) for the answer of a job waits for it, as for any other.
    ///
    /// Connections that are still open after `grace` are cut. Their reason is
    /// [`Deadline::Shutdown`](crate::Deadline::Shutdown), unless an error already ends them.
    ///
    /// A second call sets a new deadline. [`stop`](Self::stop), earlier in the same turn or later,
    /// ends `run` at once instead; the listeners stay closed.
    pub fn shutdown(&mut self, grace: Duration) {
        self.core.start_shutdown(grace);
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote<S> {
        self.shared.remote()
    }

    /// The number of connections, including those that are still opening or closing.
    pub fn connection_count(&self) -> usize {
        self.core.streams
    }
}

impl<S> fmt::Debug for Net<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("connections", &self.core.streams).finish_non_exhaustive()
    }
}
