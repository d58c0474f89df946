//! How other threads reach the reactor.
//!
//! Messages wait in one vector under a lock; the reactor swaps it for an empty one, so that a batch
//! costs it one lock, and only whoever finds the vector empty wakes the poll, so that a batch costs
//! one wake. Measured against a channel and against a wake for each message, this is the cheapest
//! by far for many messages, and as good for one.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::net::Net;
use crate::sys;
use crate::token::Token;

/// A handle to a reactor for other threads: `Clone`, `Send` and `Sync`.
///
/// Messages of one thread arrive in the order in which they were sent. They are handled at the start
/// of a turn. Nothing that was accepted is lost while the reactor runs.
///
/// ```
/// use tidegate::Reactor;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut reactor = Reactor::with_state(0)?;
/// let remote = reactor.remote();
/// let thread = std::thread::spawn(move || {
///     remote.post(|count: &mut i32, _net| *count += 1).unwrap();
///     remote.stop().unwrap();
/// });
/// reactor.run()?;
/// thread.join().unwrap();
/// assert_eq!(*reactor.state(), 1);
/// # Ok(())
/// # }
/// ```
pub struct Remote<S = ()> {
    shared: Arc<Shared<S>>,
}

type Call<S> = Box<dyn FnOnce(&mut S, &mut Net<S>) + Send>;

/// What waits for the reactor.
pub(crate) enum Message<S> {
    Call(Call<S>),
    Send(Token, Vec<u8>),
    Signal(Token, Box<dyn Any + Send>),
    Close(Token),
    Stop,
    Shutdown(Duration),
}

struct Inbox<S> {
    messages: Vec<Message<S>>,
    /// The reactor is gone: nothing is accepted any more.
    closed: bool,
}

pub(crate) struct Shared<S> {
    inbox: Mutex<Inbox<S>>,
    /// How many messages the reactor has taken out and not handled yet, and how many signals it has
    /// not told yet: they count as waiting.
    taken: AtomicUsize,
    limit: usize,
    /// Held by the reactor too: dropping the last one would close the descriptor and lose a wake
    /// that nobody has seen yet.
    waker: sys::Waker,
}

/// A message was not accepted. The value comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PostError<T> {
    /// The reactor has ended.
    Ended(T),
    /// [`Config::post_limit`](crate::Config::post_limit) messages wait already.
    Full(T),
}

impl<T> PostError<T> {
    /// The value that was not accepted.
    pub fn into_inner(self) -> T {
        match self {
            PostError::Ended(value) | PostError::Full(value) => value,
        }
    }
}

impl<T> fmt::Display for PostError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PostError::Ended(_) => "the reactor has ended",
            PostError::Full(_) => "too many messages wait for the reactor",
        })
    }
}

/// Without the value, which may be a closure.
impl<T> fmt::Debug for PostError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PostError::Ended(_) => "Ended(..)",
            PostError::Full(_) => "Full(..)",
        })
    }
}

impl<T> std::error::Error for PostError<T> {}

impl<S> Remote<S> {
    /// Runs a closure on the reactor's thread, with the shared state and the network.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages wait; the closure comes back.
    pub fn post<F>(&self, call: F) -> Result<(), PostError<F>>
    where
        F: FnOnce(&mut S, &mut Net<S>) + Send + 'static,
    {
        self.push(call, |call| Message::Call(Box::new(call)))
    }

    /// Sends bytes on a connection, as [`Net::send`] does. A connection that is gone by then
    /// swallows them.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages wait; the bytes come back.
    pub fn send(&self, to: Token, bytes: Vec<u8>) -> Result<(), PostError<Vec<u8>>> {
        self.push(bytes, |bytes| Message::Send(to, bytes))
    }

    /// Posts a typed message to a handler's `on_signal`.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages wait; the value comes back.
    pub fn signal<T: Send + 'static>(&self, to: Token, value: T) -> Result<(), PostError<T>> {
        self.push(value, |value| Message::Signal(to, Box::new(value)))
    }

    /// Closes a connection gracefully, or a listener or socket.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages wait.
    pub fn close(&self, token: Token) -> Result<(), PostError<()>> {
        self.push((), |()| Message::Close(token))
    }

    /// Ends `run` after the turn in which this arrives.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages wait.
    pub fn stop(&self) -> Result<(), PostError<()>> {
        self.push((), |()| Message::Stop)
    }

    /// Stops accepting and ends `run` when the last connection is done, after `grace` at the latest;
    /// see [`Net::shutdown`].
    ///
    /// # Errors
    /// The reactor has ended, or too many messages wait.
    pub fn shutdown(&self, grace: Duration) -> Result<(), PostError<()>> {
        self.push((), |()| Message::Shutdown(grace))
    }

    fn push<T>(&self, value: T, wrap: impl FnOnce(T) -> Message<S>) -> Result<(), PostError<T>> {
        let mut inbox = self.shared.lock();
        if inbox.closed {
            return Err(PostError::Ended(value));
        }
        if inbox.messages.len() + self.shared.taken.load(Relaxed) >= self.shared.limit {
            return Err(PostError::Full(value));
        }
        let first = inbox.messages.is_empty();
        inbox.messages.push(wrap(value));
        drop(inbox);
        if first {
            self.shared.wake();
        }
        Ok(())
    }
}

impl<S> Clone for Remote<S> {
    fn clone(&self) -> Self {
        Remote { shared: Arc::clone(&self.shared) }
    }
}

impl<S> fmt::Debug for Remote<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl<S> Shared<S> {
    pub(crate) fn new(waker: sys::Waker, limit: usize) -> Arc<Self> {
        let inbox = Inbox { messages: Vec::new(), closed: false };
        Arc::new(Shared { inbox: Mutex::new(inbox), taken: AtomicUsize::new(0), limit, waker })
    }

    pub(crate) fn remote(self: &Arc<Self>) -> Remote<S> {
        Remote { shared: Arc::clone(self) }
    }

    /// Swaps what waits for `empty`; so many signals that were taken earlier are not told yet.
    pub(crate) fn take(&self, empty: &mut Vec<Message<S>>, untold: usize) {
        let mut inbox = self.lock();
        std::mem::swap(&mut inbox.messages, empty);
        self.still_taken(empty.len() + untold);
    }

    /// So many of those that were taken are left, signals that are not told yet included.
    pub(crate) fn still_taken(&self, left: usize) {
        self.taken.store(left, Relaxed);
    }

    /// Refuses everything from now on. What waits is the caller's to drop, outside the lock: a
    /// closure's drop may post.
    pub(crate) fn close(&self) -> Vec<Message<S>> {
        let mut inbox = self.lock();
        inbox.closed = true;
        std::mem::take(&mut inbox.messages)
    }

    /// A panic while the lock was held is impossible but for an allocation failure; the vector is
    /// whole at every point.
    fn lock(&self) -> MutexGuard<'_, Inbox<S>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Err(e) = self.waker.wake() {
            log::error!("cannot wake the reactor: {e}");
        }
    }
}
