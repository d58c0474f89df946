//! The handle of other threads to the reactor.
//!
//! Messages wait in one vector under a lock. The reactor swaps it for an empty one, so that a batch
//! costs it one lock. The thread that finds the vector empty wakes the poll, so that a batch costs
//! one wake. A thread that finds this wake still pending, because the first thread was preempted
//! before making it, wakes too. Measured against a channel and against one wake per message, this
//! is by far the cheapest for many messages, and as cheap for one.
//!
//! The calls that end something (`close`, `abort`, `stop`, `shutdown`) are never refused for
//! [`Config::post_limit`](crate::Config::post_limit): a full inbox must not keep a connection or
//! the loop from ending. Their memory is bounded all the same: the vector holds each token once,
//! and one stop and one shutdown. Results of jobs ([`Net::offload`]) are never refused either: the
//! job was accepted, and [`Config::offload_limit`](crate::Config::offload_limit) bounds their number.
//! While they wait they count as messages.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::channel::{Channel, Run};
use crate::layer::MessageKind;
use crate::message::Message;
use crate::net::Net;
use crate::sys;
use crate::token::Token;

mod post_error;

pub use post_error::PostError;

/// A handle to a reactor for other threads: `Clone`, `Send` and `Sync`.
///
/// The messages of one thread arrive in the order in which they were sent. They are handled at the
/// start of a turn. No accepted message is lost while the reactor runs. Every method may be called
/// from any thread, and none waits for the reactor.
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

pub(crate) type Call<S> = Box<dyn FnOnce(&mut S, &mut Net<S>) + Send>;

/// A message to the reactor.
pub(crate) enum Post<S> {
    Call(Call<S>),
    Send(Token, MessageKind, Vec<u8>),
    /// Boxed, or every message would be as large: what waits moves from one core to the other.
    SendTo(Box<(Token, SocketAddr, Vec<u8>)>),
    Notification(Token, Box<dyn Any + Send>),
    SendShared(Token, Arc<[u8]>),
    /// Messages of one channel, one behind the other.
    Run(Box<dyn Run<S>>),
    /// The result of a job, for the closure with this index in `Net::offloads`.
    Result(usize, Box<dyn Any + Send>),
    HalfClose(Token),
    Close(Token),
    Abort(Token),
    Stop,
    Shutdown(Duration),
}

pub(crate) struct Inbox<S> {
    messages: Vec<Post<S>>,
    /// How many messages the runs hold beyond one each.
    in_runs: usize,
    /// When each of them came, if that is measured.
    stamps: Vec<Instant>,
    /// The part of it that ends something, which does not count against the limit.
    control: Control,
    /// The reactor has ended: everything is refused.
    closed: bool,
}

/// The control messages in an inbox, each of which is there once.
#[derive(Default)]
struct Control {
    closes: HashSet<Token>,
    aborts: HashSet<Token>,
    stops: bool,
    /// The index of the shutdown in the vector: a later call replaces its time.
    shutdown: Option<usize>,
}

impl Control {
    fn len(&self) -> usize {
        self.closes.len()
            + self.aborts.len()
            + usize::from(self.stops)
            + usize::from(self.shutdown.is_some())
    }

    fn clear(&mut self) {
        if self.len() == 0 {
            return;
        }
        *self = Control::default();
    }
}

/// The capacity that is kept for the next batch: what a turn handles by default.
const KEPT: usize = 1024;

pub(crate) struct Shared<S> {
    inbox: Mutex<Inbox<S>>,
    /// Whether the wake for the content of the inbox has been made.
    woken: AtomicBool,
    /// How many messages the reactor has taken and not handled yet, and how many notifications it
    /// has not delivered yet. They count as waiting.
    taken: AtomicUsize,
    limit: usize,
    /// The clock that messages are stamped with, if how long they wait is measured.
    stamps: Option<sys::Clock>,
    /// Held by the reactor too: dropping the last one would close the descriptor and lose a wake
    /// that the poll has not seen yet.
    waker: sys::Waker,
}

impl<S> Remote<S> {
    /// Runs a closure on the reactor's thread, with the shared state and the network.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages are waiting. The error contains the closure.
    pub fn post<F>(&self, call: F) -> Result<(), PostError<F>>
    where
        F: FnOnce(&mut S, &mut Net<S>) + Send + 'static,
    {
        self.push(call, |call| Post::Call(Box::new(call)))
    }

    /// Sends a message on a connection, as [`Net::send`] does: bytes, or a [`Message`] with a kind.
    /// The message is dropped if the connection is closed when it arrives.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages are waiting. The error contains the bytes.
    pub fn send(
        &self,
        to: Token,
        message: impl Into<Message<Vec<u8>>>,
    ) -> Result<(), PostError<Vec<u8>>> {
        let Message { bytes, kind } = message.into();
        self.push(bytes, |bytes| Post::Send(to, kind, bytes))
    }

    /// Sends a datagram from a UDP socket, as [`Net::send_to`] does.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages are waiting. The error contains the bytes.
    pub fn send_to(
        &self,
        from: Token,
        to: SocketAddr,
        bytes: Vec<u8>,
    ) -> Result<(), PostError<Vec<u8>>> {
        self.push(bytes, |bytes| Post::SendTo(Box::new((from, to, bytes))))
    }

    /// Posts a typed value to a handler's `on_notify`, as [`Net::notify`] does.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages are waiting. The error contains the value.
    pub fn notify<T: Send + 'static>(&self, to: Token, value: T) -> Result<(), PostError<T>> {
        self.push(value, |value| Post::Notification(to, Box::new(value)))
    }

    /// Closes a connection gracefully, or a listener or socket at once, as [`Net::close`] does;
    /// everything that this thread posted before is handled first. Never refused because too many
    /// messages are waiting.
    ///
    /// # Errors
    /// The reactor has ended.
    pub fn close(&self, token: Token) -> Result<(), PostError<()>> {
        self.control(|inbox| {
            if inbox.control.closes.insert(token) {
                inbox.messages.push(Post::Close(token));
            }
        })
    }

    /// Sends bytes that are shared with other connections or threads, as [`Net::send_shared`] does: a
    /// large message is queued without a copy.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages are waiting. The bytes are returned.
    pub fn send_shared(&self, to: Token, bytes: Arc<[u8]>) -> Result<(), PostError<Arc<[u8]>>> {
        self.push(bytes, |bytes| Post::SendShared(to, bytes))
    }

    /// Ends the write side of a connection behind what was sent before, as [`Net::half_close`] does.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages are waiting.
    pub fn half_close(&self, token: Token) -> Result<(), PostError<()>> {
        self.push((), |()| Post::HalfClose(token))
    }

    /// Ends a connection at once, as [`Net::abort`] does. Never refused because too many messages
    /// are waiting.
    ///
    /// # Errors
    /// The reactor has ended.
    pub fn abort(&self, token: Token) -> Result<(), PostError<()>> {
        self.control(|inbox| {
            if inbox.control.aborts.insert(token) {
                inbox.messages.push(Post::Abort(token));
            }
        })
    }

    /// Ends `run` after the turn in which this arrives; see [`Net::stop`]. Never refused because
    /// too many messages are waiting.
    ///
    /// # Errors
    /// The reactor has ended.
    pub fn stop(&self) -> Result<(), PostError<()>> {
        self.control(|inbox| {
            if !std::mem::replace(&mut inbox.control.stops, true) {
                inbox.messages.push(Post::Stop);
            }
        })
    }

    /// Stops accepting and ends `run` when the last connection is done, after `grace` at the
    /// latest; see [`Net::shutdown`]. Never refused because too many messages are waiting. If a
    /// shutdown is waiting already, this one replaces its time.
    ///
    /// # Errors
    /// The reactor has ended.
    pub fn shutdown(&self, grace: Duration) -> Result<(), PostError<()>> {
        self.control(|Inbox { messages, control, .. }| match control.shutdown {
            Some(place) => messages[place] = Post::Shutdown(grace),
            None => {
                control.shutdown = Some(messages.len());
                messages.push(Post::Shutdown(grace));
            }
        })
    }

    fn push<T>(&self, value: T, wrap: impl FnOnce(T) -> Post<S>) -> Result<(), PostError<T>> {
        match self.shared.admit() {
            Ok((inbox, _)) => {
                self.shared.add(inbox, |inbox| inbox.messages.push(wrap(value)));
                Ok(())
            }
            Err(refused) => Err(refused.with(value)),
        }
    }

    fn control(&self, add: impl FnOnce(&mut Inbox<S>)) -> Result<(), PostError<()>> {
        if !self.shared.waker.may_wake() {
            return Err(PostError::Simulated(()));
        }
        let inbox = self.shared.lock();
        if inbox.closed {
            return Err(PostError::Ended(()));
        }
        self.shared.add(inbox, add);
        Ok(())
    }
}

impl<S: 'static> Remote<S> {
    /// A channel for typed messages, each of which `on_message` gets on the reactor's thread.
    ///
    /// For messages of one kind that come in numbers: [`post`](Self::post) boxes every closure that has
    /// captured something, a channel boxes none of its messages. All else is the same, and messages of
    /// both kinds keep their order.
    pub fn channel<M: Send + 'static>(
        &self,
        on_message: impl Fn(&mut S, &mut Net<S>, M) + Send + Sync + 'static,
    ) -> Channel<S, M> {
        Channel::new(Arc::clone(&self.shared), on_message)
    }
}

impl<S> Inbox<S> {
    /// The last message, if it is a run.
    #[inline]
    pub(crate) fn last_run(&mut self) -> Option<&mut dyn Run<S>> {
        match self.messages.last_mut() {
            Some(Post::Run(run)) => Some(&mut **run),
            _ => None,
        }
    }

    /// A new run of `len` messages.
    pub(crate) fn begin_run(&mut self, run: Box<dyn Run<S>>, len: usize) {
        self.messages.push(Post::Run(run));
        self.in_runs += len - 1;
    }

    /// The last run has become longer.
    #[inline]
    pub(crate) fn run_grows(&mut self, by: usize) {
        self.in_runs += by;
    }
}

impl<S> Shared<S> {
    /// Whether a message may join the run before it: not where each has a stamp of its own.
    #[inline]
    pub(crate) fn may_join_runs(&self) -> bool {
        self.stamps.is_none()
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
    pub(crate) fn new(waker: sys::Waker, limit: usize, stamps: Option<sys::Clock>) -> Arc<Self> {
        let inbox = Inbox {
            messages: Vec::new(),
            in_runs: 0,
            stamps: Vec::new(),
            control: Control::default(),
            closed: false,
        };
        Arc::new(Shared {
            inbox: Mutex::new(inbox),
            woken: AtomicBool::new(false),
            taken: AtomicUsize::new(0),
            limit,
            stamps,
            waker,
        })
    }

    /// The inbox and how many messages it has room for, at least one; or why it takes none.
    #[inline]
    pub(crate) fn admit(&self) -> Result<(MutexGuard<'_, Inbox<S>>, usize), PostError<()>> {
        if !self.waker.may_wake() {
            return Err(PostError::Simulated(()));
        }
        let inbox = self.lock();
        if inbox.closed {
            return Err(PostError::Ended(()));
        }
        let waiting = inbox.messages.len() + inbox.in_runs - inbox.control.len();
        let room = self.limit.saturating_sub(waiting + self.taken.load(Ordering::Relaxed));
        if room == 0 { Err(PostError::Full(())) } else { Ok((inbox, room)) }
    }

    /// Adds to the inbox, and wakes the poll if a wake is needed.
    #[inline]
    pub(crate) fn add(&self, mut inbox: MutexGuard<'_, Inbox<S>>, add: impl FnOnce(&mut Inbox<S>)) {
        let first = inbox.messages.is_empty();
        if first {
            self.woken.store(false, Ordering::Relaxed);
        }
        add(&mut inbox);
        if let Some(clock) = self.stamps {
            // A control message that replaces a waiting one keeps its place and its stamp.
            let Inbox { messages, stamps, .. } = &mut *inbox;
            stamps.resize_with(messages.len(), || clock.now());
        }
        drop(inbox);
        if first || !self.woken.load(Ordering::Relaxed) {
            self.wake();
            self.woken.store(true, Ordering::Relaxed);
        }
    }

    /// Adds messages of another worker, whatever waits: their own limit is in bytes. They are returned if the
    /// reactor has ended.
    pub(crate) fn push_run(&self, run: Box<dyn Run<S>>) -> Result<(), Box<dyn Run<S>>> {
        if !self.waker.may_wake() {
            return Err(run);
        }
        let inbox = self.lock();
        if inbox.closed {
            return Err(run);
        }
        let len = run.len();
        self.add(inbox, |inbox| inbox.begin_run(run, len));
        Ok(())
    }

    pub(crate) fn remote(self: &Arc<Self>) -> Remote<S> {
        Remote { shared: Arc::clone(self) }
    }

    /// Posts the result of a job. It is returned if the reactor has ended.
    pub(crate) fn post_result(
        &self,
        index: usize,
        result: Box<dyn Any + Send>,
    ) -> Result<(), Box<dyn Any + Send>> {
        let inbox = self.lock();
        if inbox.closed {
            return Err(result);
        }
        self.add(inbox, |inbox| inbox.messages.push(Post::Result(index, result)));
        Ok(())
    }

    /// Swaps the inbox for `empty`. `undelivered` notifications of earlier batches are not delivered
    /// yet. Returns how many messages the runs hold beyond one each.
    pub(crate) fn take(
        &self,
        empty: &mut Vec<Post<S>>,
        stamps: &mut Vec<Instant>,
        undelivered: usize,
    ) -> usize {
        if empty.capacity() > KEPT {
            // After a flood its memory is released.
            *empty = Vec::new();
            *stamps = Vec::new();
        }
        let mut inbox = self.lock();
        std::mem::swap(&mut inbox.messages, empty);
        std::mem::swap(&mut inbox.stamps, stamps);
        inbox.control.clear();
        let in_runs = std::mem::take(&mut inbox.in_runs);
        self.still_taken(empty.len() + in_runs + undelivered);
        in_runs
    }

    /// Publishes how many taken messages are not handled yet, undelivered notifications included.
    pub(crate) fn still_taken(&self, left: usize) {
        self.taken.store(left, Ordering::Relaxed);
    }

    /// Refuses everything from now on. The caller drops the returned messages outside the lock: the
    /// drop of a closure may post.
    pub(crate) fn close(&self) -> Vec<Post<S>> {
        let mut inbox = self.lock();
        inbox.closed = true;
        inbox.in_runs = 0;
        inbox.control.clear();
        std::mem::take(&mut inbox.messages)
    }

    /// Only an allocation failure can panic while the lock is held; the vector is consistent at
    /// every point.
    fn lock(&self) -> MutexGuard<'_, Inbox<S>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Err(e) = self.waker.wake() {
            log::error!("cannot wake the reactor: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(limit: usize) -> Arc<Shared<()>> {
        Shared::new(sys::Poller::new(1).unwrap().waker().unwrap(), limit, None)
    }

    // C3
    #[test]
    fn what_ends_something_is_never_refused_and_takes_bounded_memory() {
        let shared = shared(1);
        let remote = shared.remote();
        let tokens = [Token::new(1, 1).unwrap(), Token::new(2, 1).unwrap()];
        remote.post(|(), _| {}).unwrap();
        assert!(matches!(remote.post(|(), _| {}), Err(PostError::Full(_))));
        for time in 0..10_000 {
            remote.stop().unwrap();
            remote.shutdown(Duration::from_secs(time)).unwrap();
            for token in tokens {
                remote.close(token).unwrap();
                remote.abort(token).unwrap();
            }
        }
        let mut taken = Vec::new();
        shared.take(&mut taken, &mut Vec::new(), 0);
        assert_eq!(taken.len(), 1 + 2 + 2 * tokens.len());
        assert!(matches!(taken[0], Post::Call(_)), "the order is that of the calls");
        assert!(matches!(taken[1], Post::Stop));
        let Post::Shutdown(time) = taken[2] else { panic!("no shutdown") };
        assert_eq!(time, Duration::from_secs(9_999), "the latest one's");
        // They were taken out, so that the next ones are new.
        taken.clear();
        remote.stop().unwrap();
        remote.close(tokens[0]).unwrap();
        shared.take(&mut taken, &mut Vec::new(), 0);
        assert!(matches!(taken[..], [Post::Stop, Post::Close(_)]));
    }

    // row 142
    #[test]
    fn results_are_never_refused_and_count_while_they_wait() {
        let shared = shared(1);
        let remote = shared.remote();
        remote.post(|(), _| {}).unwrap();
        for index in 0..3 {
            shared.post_result(index, Box::new(())).unwrap();
        }
        let mut taken = Vec::new();
        shared.take(&mut taken, &mut Vec::new(), 0);
        assert!(matches!(
            taken[..],
            [Post::Call(_), Post::Result(0, _), Post::Result(1, _), Post::Result(2, _)]
        ));
        shared.still_taken(1);
        assert!(matches!(remote.post(|(), _| {}), Err(PostError::Full(_))));
        shared.still_taken(0);
        remote.post(|(), _| {}).unwrap();
        drop(shared.close());
        assert!(shared.post_result(0, Box::new(7)).unwrap_err().is::<i32>());
    }

    // B5
    #[test]
    fn the_memory_of_a_flood_is_given_back() {
        let shared = shared(usize::MAX);
        let remote = shared.remote();
        for _ in 0..100 * KEPT {
            remote.post(|(), _| {}).unwrap();
        }
        let mut taken = Vec::new();
        for _ in 0..3 {
            shared.take(&mut taken, &mut Vec::new(), 0);
            taken.clear();
        }
        assert!(taken.capacity() <= KEPT && shared.lock().messages.capacity() <= KEPT);
    }
}
