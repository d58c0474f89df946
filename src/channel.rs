//! Typed messages from other threads.
//!
//! They wait in the one inbox of all messages (`remote.rs`), so that order, limit and wakes are the same.
//! A message that finds one of its own channel at the end of the inbox joins that one's run. A run is a
//! box and a queue of values: so a flood of messages costs one box, and not one each.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::guard::{drop_each, guarded};
use crate::net::Net;
use crate::remote::{Inbox, PostError, Shared};

/// A handle to a reactor for typed messages: `Clone`, `Send` and `Sync`. Made by
/// [`Remote::channel`](crate::Remote::channel).
///
/// The contract is that of [`Remote`](crate::Remote): the messages of one thread arrive in the order in
/// which they were sent, those of its `Remote` and of other channels among them. Each counts against
/// [`Config::post_limit`](crate::Config::post_limit) and
/// [`Config::posts_per_turn`](crate::Config::posts_per_turn). A panic while one is handled ends nothing
/// else.
///
/// ```
/// use tidegate::{PostError, Reactor};
///
/// struct Trade { symbol: usize, price: u32 }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut reactor = Reactor::with_state([0; 3])?;
/// let remote = reactor.remote();
/// let trades = remote.channel(|last: &mut [u32; 3], _net, trade: Trade| {
///     last[trade.symbol] = trade.price;
/// });
/// let feed = std::thread::spawn(move || {
///     // One message, or many under one lock.
///     trades.send(Trade { symbol: 0, price: 17 }).unwrap();
///     let mut burst = vec![Trade { symbol: 1, price: 20 }, Trade { symbol: 1, price: 21 }];
///     while let Err(PostError::Full(())) = trades.send_all(&mut burst) {
///         std::thread::yield_now(); // the rest is in `burst`
///     }
///     remote.stop().unwrap();
/// });
/// reactor.run()?;
/// feed.join().unwrap();
/// assert_eq!(*reactor.state(), [17, 21, 0]);
/// # Ok(())
/// # }
/// ```
pub struct Channel<S: 'static, M> {
    shared: Arc<Shared<S>>,
    on_message: Arc<OnMessage<S, M>>,
}

type OnMessage<S, M> = dyn Fn(&mut S, &mut Net<S>, M) + Send + Sync;

/// Messages of one channel that wait, of any type.
pub(crate) trait Run<S>: Send {
    fn len(&self) -> usize;

    /// Hands the next `most` messages to the channel's closure, each guarded: one call through this trait
    /// for many messages.
    fn handle(&mut self, most: usize, state: &mut S, net: &mut Net<S>);

    fn as_any(&mut self) -> &mut dyn Any;
}

struct Messages<S: 'static, M> {
    on_message: Arc<OnMessage<S, M>>,
    waiting: VecDeque<M>,
}

impl<S: 'static, M: Send + 'static> Channel<S, M> {
    pub(crate) fn new(
        shared: Arc<Shared<S>>,
        on_message: impl Fn(&mut S, &mut Net<S>, M) + Send + Sync + 'static,
    ) -> Self {
        Channel { shared, on_message: Arc::new(on_message) }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages are waiting. The error contains the message.
    pub fn send(&self, message: M) -> Result<(), PostError<M>> {
        let (inbox, _) = match self.shared.admit() {
            Ok(admitted) => admitted,
            Err(refused) => return Err(refused.with(message)),
        };
        self.shared.add(inbox, |inbox| match self.own_run(inbox) {
            Some(waiting) => {
                waiting.push_back(message);
                inbox.run_grows(1);
            }
            None => self.begin_run(inbox, VecDeque::from([message])),
        });
        Ok(())
    }

    /// Sends all messages of `messages`, in their order, and leaves it empty with its memory. It takes one
    /// lock for all of them, and one wake if they need one: a thread that has several messages at a time
    /// pays a few nanoseconds for each.
    ///
    /// # Errors
    /// The reactor has ended, or too many messages are waiting. As many as there was room for are sent;
    /// the others stay in `messages`, in their order.
    pub fn send_all(&self, messages: &mut Vec<M>) -> Result<(), PostError<()>> {
        if messages.is_empty() {
            return Ok(());
        }
        let (inbox, room) = self.shared.admit()?;
        let taken = messages.len().min(room);
        self.shared.add(inbox, |inbox| match self.own_run(inbox) {
            Some(waiting) => {
                waiting.extend(messages.drain(..taken));
                inbox.run_grows(taken);
            }
            None => self.begin_run(inbox, messages.drain(..taken).collect()),
        });
        if messages.is_empty() { Ok(()) } else { Err(PostError::Full(())) }
    }

    /// The queue that a message of this channel may join.
    #[inline]
    fn own_run<'a>(&self, inbox: &'a mut Inbox<S>) -> Option<&'a mut VecDeque<M>> {
        if !self.shared.may_join_runs() {
            return None;
        }
        let run = inbox.last_run()?.as_any().downcast_mut::<Messages<S, M>>()?;
        Arc::ptr_eq(&run.on_message, &self.on_message).then_some(&mut run.waiting)
    }

    #[cold]
    fn begin_run(&self, inbox: &mut Inbox<S>, waiting: VecDeque<M>) {
        let len = waiting.len();
        let on_message = Arc::clone(&self.on_message);
        inbox.begin_run(Box::new(Messages { on_message, waiting }), len);
    }
}

impl<S: 'static, M: Send + 'static> Run<S> for Messages<S, M> {
    #[inline]
    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn handle(&mut self, most: usize, state: &mut S, net: &mut Net<S>) {
        for _ in 0..most {
            let Some(message) = self.waiting.pop_front() else { return };
            if let Err(text) = guarded(|| (self.on_message)(state, net, message)) {
                log::error!("a channel's closure panicked: {text}");
            }
        }
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// What is never handled holds user values.
impl<S: 'static, M> Drop for Messages<S, M> {
    fn drop(&mut self) {
        drop_each(self.waiting.drain(..));
    }
}

impl<S: 'static, M> Clone for Channel<S, M> {
    fn clone(&self) -> Self {
        Channel { shared: Arc::clone(&self.shared), on_message: Arc::clone(&self.on_message) }
    }
}

impl<S: 'static, M> fmt::Debug for Channel<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}
