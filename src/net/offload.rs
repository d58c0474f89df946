//! Jobs for other threads, whose results come back to the loop.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::Net;
use crate::guard::{drop_guarded, guarded};

/// What is to be done with the result of a job, which comes as a `Result<T, JobPanicked>`.
pub(crate) type Done<S> = Box<dyn FnOnce(Box<dyn Any + Send>, &mut S, &mut Net<S>)>;

/// The job panicked; the text is the panic's message, if it had one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPanicked {
    text: String,
}

impl JobPanicked {
    /// The panic's message; `(a value that is no text)` for any other payload.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for JobPanicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the job panicked: {}", self.text)
    }
}

impl StdError for JobPanicked {}

/// A job was refused. It contains both closures, for another attempt; neither was called.
#[non_exhaustive]
pub enum OffloadError<J, D> {
    /// [`Config::offload_limit`](crate::Config::offload_limit) jobs are under way already.
    Full(J, D),
    /// The reactor is being dropped.
    Ended(J, D),
    /// The system refuses even the first thread.
    NoThread(J, D, io::Error),
}

impl<J, D> OffloadError<J, D> {
    /// Returns the job and what was to be done with its result.
    pub fn into_inner(self) -> (J, D) {
        match self {
            OffloadError::Full(job, done)
            | OffloadError::Ended(job, done)
            | OffloadError::NoThread(job, done, _) => (job, done),
        }
    }
}

impl<J, D> fmt::Display for OffloadError<J, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OffloadError::Full(..) => f.write_str("too many jobs are under way"),
            OffloadError::Ended(..) => f.write_str("the reactor is being dropped"),
            OffloadError::NoThread(_, _, error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

/// Without the closures.
impl<J, D> fmt::Debug for OffloadError<J, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OffloadError::Full(..) => f.write_str("Full(..)"),
            OffloadError::Ended(..) => f.write_str("Ended(..)"),
            OffloadError::NoThread(_, _, error) => write!(f, "NoThread(.., {error:?})"),
        }
    }
}

impl<J, D> StdError for OffloadError<J, D> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            OffloadError::NoThread(_, _, error) => Some(error),
            OffloadError::Full(..) | OffloadError::Ended(..) => None,
        }
    }
}

/// Other threads.
impl<S: 'static> Net<S> {
    /// Runs `job` on another thread, and then `done` on the reactor's thread with its result, the
    /// shared state and the network. For what would block the loop: a name lookup, a file, a
    /// database, a long computation.
    ///
    /// ```
    /// use std::net::{SocketAddr, ToSocketAddrs};
    /// use tidegate::Reactor;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut reactor = Reactor::with_state(Vec::<SocketAddr>::new())?;
    /// let look_up = || ("localhost", 8888).to_socket_addrs(); // may take seconds
    /// reactor.net().offload(look_up, |found, known, net| {
    ///     match found {
    ///         Ok(Ok(addresses)) => known.extend(addresses),
    ///         Ok(Err(error)) => println!("no address: {error}"),
    ///         Err(panicked) => println!("{panicked}"),
    ///     }
    ///     net.stop();
    /// })?;
    /// reactor.run()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// - **Order.** Jobs begin in the order of the calls. `done` is called once for each, in the order
    ///   in which the jobs end; never inside this call, but where the turn handles messages of other
    ///   threads, within [`Config::posts_per_turn`](crate::Config::posts_per_turn). What the job itself
    ///   posts through a [`Remote`](crate::Remote) comes before. `done` need not be `Send`, and may
    ///   call `offload` again.
    /// - **Limits.** [`Config::offload_threads`](crate::Config::offload_threads) (4) jobs run at once,
    ///   and [`Config::offload_limit`](crate::Config::offload_limit) (1,024) are under way, waiting and
    ///   unhandled results included. An accepted job's result is never refused, however many messages
    ///   wait for the reactor.
    /// - **A panic** of the job is its result, [`JobPanicked`], and is logged as an error. The thread
    ///   and the other jobs go on. A panic of `done` is logged, and ends nothing else.
    /// - **Connections.** A job belongs to no connection, and `done` may find its token closed. A
    ///   handler that owes a reply calls [`hold`](Self::hold) before and [`release`](Self::release) in
    ///   `done`.
    /// - **The end.** A job cannot be cancelled. [`stop`](Self::stop) and [`shutdown`](Self::shutdown)
    ///   do not wait for jobs: those go on, and `done` is called if the reactor is run again. When the
    ///   reactor is dropped, waiting jobs are dropped without being run, and so is each `done`. A job
    ///   that runs then goes on to its end, and its result is dropped on its thread; the drop does not
    ///   wait for it. A program that returns from `main` ends it in the middle.
    ///
    /// # Errors
    /// The limit is reached, the reactor is being dropped, or the system refuses the first thread. The
    /// error contains both closures. Where only a further thread is refused, the job waits for those
    /// that there are, and a warning is logged once.
    ///
    /// In a handler, `?` passes the error on if both closures are `Send` and `Sync`; else
    /// `map_err(|error| error.to_string())` comes before it.
    pub fn offload<T, J, D>(&mut self, job: J, done: D) -> Result<(), OffloadError<J, D>>
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
        D: FnOnce(Result<T, JobPanicked>, &mut S, &mut Net<S>) + 'static,
    {
        if self.core.ended {
            return Err(OffloadError::Ended(job, done));
        }
        if self.offloads.len() >= self.core.config.offload_limit {
            return Err(OffloadError::Full(job, done));
        }
        let Net { offloads, workers, shared, .. } = self;
        let submitted = workers.submit((job, done), |(job, done)| {
            let index = offloads.insert(Box::new(move |result, state, net| {
                // The index comes back once and with this job's result, so its type is right.
                let Ok(result) = result.downcast::<Result<T, JobPanicked>>() else { return };
                if let Err(panicked) = &*result {
                    log::error!("{panicked}");
                }
                done(*result, state, net);
            }));
            let shared = Arc::clone(shared);
            Box::new(move || {
                let result = guarded(job).map_err(|text| JobPanicked { text });
                if let Err(unwanted) = shared.post_result(index, Box::new(result)) {
                    drop_guarded(unwanted);
                }
            })
        });
        submitted.map_err(|((job, done), e)| OffloadError::NoThread(job, done, e))
    }
}
