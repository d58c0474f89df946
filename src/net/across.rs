//! Other workers: their tokens, and what can be done with them from here.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use super::Net;
use crate::core::Entity;
use crate::guard::{drop_guarded, guarded};
use crate::message::{IntoMessage, Message};
use crate::notification::Notification;
use crate::remote::Shared;
use crate::token::Token;
use crate::workers::{Item, Undelivered, WorkerToken};

/// Other workers of [`Workers`](crate::Workers).
///
/// All of these work on a reactor alone, too, which is worker 0 of one. A message to a token of this worker is
/// sent as by the method without `_across`. One to another worker leaves at the end of the turn, with all that
/// was said to that worker, and never blocks. What one worker says to another arrives in the order of the
/// calls, messages by name ([`publish_named`](Self::publish_named)) and closures among them.
///
/// A message that could not be delivered is counted
/// ([`WorkersHandle::undelivered`](crate::WorkersHandle::undelivered)): its connection is gone or refused it,
/// its worker has ended, or more than [`Workers::crossing_limit`](crate::Workers::crossing_limit) waits there.
/// [`send_across_or_notify`](Self::send_across_or_notify) reports it.
impl<S> Net<S> {
    /// The number of this worker, from 0; 0 on a reactor alone.
    pub fn worker(&self) -> usize {
        self.own_desk().map_or(0, |desk| desk.index())
    }

    /// How many workers there are; 1 on a reactor alone.
    pub fn worker_count(&self) -> usize {
        self.own_desk().map_or(1, |desk| desk.team().count())
    }

    /// The token as other workers name it.
    pub fn worker_token(&self, token: Token) -> WorkerToken {
        self.own_desk().map_or(WorkerToken::new(0, 0, token), |desk| desk.token(token))
    }

    /// Sends a message on a connection of any worker. `false` if it is known here already that it is not
    /// delivered.
    pub fn send_across(&mut self, to: WorkerToken, message: impl IntoMessage) -> bool {
        let Message { bytes, kind } = message.into_message();
        self.send_to_worker(to, Message { bytes: bytes.as_ref(), kind }, None)
    }

    /// The same; if the message is not delivered, the handler of `notify` gets an [`Undelivered`] in its
    /// `on_notify`.
    pub fn send_across_or_notify(
        &mut self,
        to: WorkerToken,
        message: impl IntoMessage,
        notify: Token,
    ) {
        let Message { bytes, kind } = message.into_message();
        let tell = self.worker_token(notify);
        let message = Message { bytes: bytes.as_ref(), kind };
        if !self.send_to_worker(to, message, Some(tell)) {
            self.notify(notify, Undelivered { to });
        }
    }

    fn send_to_worker(
        &mut self,
        to: WorkerToken,
        message: Message<&[u8]>,
        tell: Option<WorkerToken>,
    ) -> bool {
        let sent = match self.desk() {
            Some(desk) if !desk.is_here(to) => desk.send(to, message, tell),
            _ => {
                self.is_here(to)
                    && self.core.send(to.token(), message.bytes, message.kind).is_accepted()
            }
        };
        if !sent && let Some(desk) = self.desk() {
            desk.not_delivered();
        }
        sent
    }

    /// Posts a typed value to a handler of any worker, as [`notify`](Self::notify) does. `false` if it is
    /// known here already that it is not delivered.
    pub fn notify_across<T: Send + 'static>(&mut self, to: WorkerToken, value: T) -> bool {
        let notified = match self.desk() {
            Some(desk) if !desk.is_here(to) => desk.notify(to, Box::new(value), None),
            _ => self.is_here(to) && self.notify_boxed(to.token(), Box::new(value)),
        };
        if !notified && let Some(desk) = self.desk() {
            desk.not_delivered();
        }
        notified
    }

    /// Closes a connection of any worker gracefully, or anything else at once, as [`close`](Self::close)
    /// does.
    pub fn close_across(&mut self, to: WorkerToken) {
        self.end_across(to, Item::Close, |net, token| net.core.close(token, None));
    }

    /// Ends the write side of a connection of any worker, as [`half_close`](Self::half_close) does.
    pub fn half_close_across(&mut self, to: WorkerToken) {
        self.end_across(to, Item::HalfClose, Net::half_close);
    }

    /// Ends a connection of any worker at once, as [`abort`](Self::abort) does.
    pub fn abort_across(&mut self, to: WorkerToken) {
        self.end_across(to, Item::Abort, Net::abort);
    }

    fn end_across(
        &mut self,
        to: WorkerToken,
        there: fn(WorkerToken) -> Item<S>,
        here: fn(&mut Net<S>, Token),
    ) {
        if self.is_here(to) {
            return here(self, to.token());
        }
        if let Some(desk) = self.desk() {
            desk.end(to, there);
        }
    }

    /// Runs a closure on another worker's thread, or on this one's, with that worker's state and network.
    /// `false` if there is no such worker, or too much waits for it.
    pub fn post_to_worker(
        &mut self,
        worker: usize,
        call: impl FnOnce(&mut S, &mut Net<S>) + Send + 'static,
    ) -> bool {
        match self.desk() {
            Some(desk) if desk.index() != worker => desk.call(worker, call),
            None if worker != 0 => false,
            _ => self.shared.remote().post(call).is_ok(),
        }
    }

    /// Asks all workers, this one included, and combines their answers: who is there, what they have counted.
    /// `ask` runs on each worker's thread; `then` runs here when all have answered, with the answers by the
    /// numbers of the workers, `None` for one that has ended meanwhile.
    ///
    /// ```
    /// # use tidegate::Reactor;
    /// # let mut reactor = Reactor::with_state(7)?;
    /// reactor.net().ask_workers(
    ///     |_state, net| net.stats(),
    ///     |_state, net, answers| {
    ///         let all = answers.into_iter().flatten().reduce(|a, b| a + b);
    ///         println!("{}", all.unwrap_or_default());
    ///         net.stop();
    ///     },
    /// );
    /// reactor.run()?;
    /// # Ok::<(), tidegate::Error>(())
    /// ```
    ///
    /// A panic of `ask` is logged, and its answer is `None`. Questions that wait for answers count towards
    /// [`Config::offload_limit`](crate::Config::offload_limit); `false`, and neither closure is called, if there
    /// are too many, or if the reactor is being dropped.
    pub fn ask_workers<T: Send + 'static>(
        &mut self,
        ask: impl Fn(&mut S, &mut Net<S>) -> T + Send + Sync + 'static,
        then: impl FnOnce(&mut S, &mut Net<S>, Vec<Option<T>>) + 'static,
    ) -> bool
    where
        S: 'static,
    {
        if self.core.ended || self.offloads.len() >= self.core.config.offload_limit {
            return false;
        }
        let workers = self.worker_count();
        let index = self.offloads.insert(Box::new(move |answers, state, net| {
            // The index comes back once and with these answers, so their type is right.
            let Ok(answers) = answers.downcast::<Vec<Option<T>>>() else { return };
            then(state, net, *answers);
        }));
        let answers = std::iter::repeat_with(|| None).take(workers).collect();
        let question = Arc::new(Question {
            ask,
            answers: Mutex::new((answers, workers)),
            shared: Arc::clone(&self.shared),
            index,
        });
        for worker in 0..workers {
            let answer = Answer { question: Arc::clone(&question), worker, answer: None };
            // One that is refused is dropped, which answers for it.
            self.post_to_worker(worker, move |state, net| answer.give(state, net));
        }
        true
    }
}

/// What all workers are asked.
struct Question<S, A, T: Send + 'static> {
    ask: A,
    /// The answers, and how many are missing.
    answers: Mutex<(Vec<Option<T>>, usize)>,
    shared: Arc<Shared<S>>,
    index: usize,
}

/// One worker's answer. It counts when it is dropped, whatever has become of the worker.
struct Answer<S, A, T: Send + 'static> {
    question: Arc<Question<S, A, T>>,
    worker: usize,
    answer: Option<T>,
}

impl<S, A, T> Answer<S, A, T>
where
    A: Fn(&mut S, &mut Net<S>) -> T,
    T: Send + 'static,
{
    fn give(mut self, state: &mut S, net: &mut Net<S>) {
        match guarded(|| (self.question.ask)(state, net)) {
            Ok(value) => self.answer = Some(value),
            Err(text) => log::error!("a question to a worker panicked: {text}"),
        }
    }
}

impl<S, A, T: Send + 'static> Drop for Answer<S, A, T> {
    fn drop(&mut self) {
        let Question { answers, shared, index, .. } = &*self.question;
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.0[self.worker] = self.answer.take();
        answers.1 -= 1;
        if answers.1 == 0 {
            let all = std::mem::take(&mut answers.0);
            drop(answers);
            if let Err(unwanted) = shared.post_result(*index, Box::new(all)) {
                drop_guarded(unwanted);
            }
        }
    }
}

impl<S> Net<S> {
    /// Whether the token is one of this worker, in its present life.
    pub(crate) fn is_here(&self, to: WorkerToken) -> bool {
        match self.own_desk() {
            Some(desk) => desk.is_here(to),
            None => to.worker() == 0,
        }
    }

    /// A message of another worker was not delivered here.
    pub(crate) fn not_delivered(&mut self, to: WorkerToken, tell: Option<WorkerToken>) {
        if let Some(desk) = self.desk() {
            desk.not_delivered();
        }
        if let Some(tell) = tell {
            self.notify_across(tell, Undelivered { to });
        }
    }

    /// [`notify`](Self::notify) for a value that is boxed already.
    pub(crate) fn notify_boxed(&mut self, to: Token, value: Box<dyn Any + Send>) -> bool {
        let known = self.takes_notifications(to);
        if known {
            self.core.notifications.push_back((to, Notification::from_box(value)));
        }
        known
    }

    pub(super) fn takes_notifications(&self, to: Token) -> bool {
        match self.core.entity(to) {
            Some(Entity::Stream(s)) => s.has_callbacks() || s.is_opening(),
            Some(Entity::Datagram(d)) => !d.dead,
            Some(Entity::Session(s)) => !s.dead,
            _ => false,
        }
    }
}
