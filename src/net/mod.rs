//! The network side of a reactor: what callbacks, posted closures and set-up code work with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::core::{Core, Stopping};
use crate::handler::{DatagramHandler, Handler};
use crate::listener::Acceptor;
use crate::remote::{Remote, Shared};
use crate::source::AnySource;
use crate::token::Token;

mod connections;
mod groups;
mod sockets;
mod time;

/// The network: connections by token, new sockets, timers, groups, the end of the loop.
///
/// Callbacks have it as [`Context::net`](crate::Context::net), posted closures get it as an argument, and set-up code
/// outside callbacks takes it from [`Reactor::net`](crate::Reactor::net): the same methods everywhere.
///
/// No method calls a handler. What must end in a callback happens later in the turn, or in the next.
/// A token of something that is gone is refused; nothing panics for it.
pub struct Net<S = ()> {
    pub(crate) core: Core,
    /// Handlers of what callbacks created, until the turn installs them.
    pub(crate) pending_handlers: Vec<(Token, AnyHandler<S>)>,
    /// Closures of the reactor's own timers.
    pub(crate) calls: Slab<Call<S>>,
    pub(crate) shared: Arc<Shared<S>>,
}

type Call<S> = Box<dyn FnOnce(&mut S, &mut Net<S>)>;

/// Who is called for what a token names.
pub(crate) enum AnyHandler<S> {
    Stream(Box<dyn Handler<S>>),
    Datagram(Box<dyn DatagramHandler<S>>),
    Listener(Box<dyn Acceptor<S>>),
    Source(Box<dyn AnySource<S>>),
}

/// The loop.
impl<S> Net<S> {
    /// Ends [`run`](crate::Reactor::run) after this turn. Nothing is closed: the reactor can run on.
    pub fn stop(&mut self) {
        self.core.stopping = Stopping::Now;
    }

    /// Closes the listeners, once the peers that the system has accepted already are served (at most
    /// 4,096 of each, and none of a paused listener or one at its limit), lets the connections run to
    /// their own ends, and ends
    /// [`run`](crate::Reactor::run) when the last is done. Those still open after `grace` are cut,
    /// with [`Deadline::Shutdown`](crate::Deadline::Shutdown) as the reason, unless an error was to
    /// end them already. Until then [`listen`](Self::listen) is refused.
    ///
    /// Called again, it gives a new deadline; [`stop`](Self::stop), earlier in the same turn or later,
    /// ends at once instead, the listeners staying closed.
    pub fn shutdown(&mut self, grace: Duration) {
        self.core.start_shutdown(grace);
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote<S> {
        self.shared.remote()
    }

    /// How many connections there are, those on their way in or out included.
    pub fn connection_count(&self) -> usize {
        self.core.streams
    }
}

impl<S> fmt::Debug for Net<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").field("connections", &self.core.streams).finish_non_exhaustive()
    }
}
