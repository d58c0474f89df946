//! The workers as seen from outside.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::WorkerToken;
use super::crossing::{Batch, Item, Said};
use super::team::Team;
use super::topics::{Set, each};
use crate::error::Error;
use crate::message::Message;
use crate::net::Net;
use crate::reactor::ShutdownReport;
use crate::remote::Remote;
use crate::sys::Thread;

/// A handle to all workers for any thread: `Clone`, `Send` and `Sync`. No method waits for a worker.
///
/// What one thread says through handles to one worker arrives in the order of the calls. Inside a worker the
/// methods of [`Net`] are better ([`Net::send_across`]): they collect what is said in a turn.
pub struct WorkersHandle<S: 'static> {
    team: Arc<Team<S>>,
}

impl<S: 'static> WorkersHandle<S> {
    pub(super) fn new(team: &Arc<Team<S>>) -> Self {
        WorkersHandle { team: Arc::clone(team) }
    }

    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.team.count()
    }

    /// A handle to one worker; `None` if there is no such worker, or if it has ended. It belongs to the
    /// worker's present life: one that is built again needs a new one.
    pub fn remote(&self, worker: usize) -> Option<Remote<S>> {
        Some(self.team.inbox(worker)?.remote())
    }

    /// Sends a message on a connection, as [`Net::send_across`] does. `false` if it is known already that it
    /// is not delivered.
    pub fn send(&self, to: WorkerToken, message: impl Into<Message<Vec<u8>>>) -> bool {
        let Message { bytes, kind } = message.into();
        let len = bytes.len();
        self.post_item(to.worker(), bytes, Item::Send { to, kind, len, tell: None })
    }

    /// Posts a typed value to a handler, as [`Net::notify_across`] does. `false` if it is known already that it
    /// is not delivered.
    pub fn notify<T: Send + 'static>(&self, to: WorkerToken, value: T) -> bool {
        let notify = Item::Notify { to, value: Box::new(value) };
        self.post_item(to.worker(), Vec::new(), notify)
    }

    /// Closes a connection gracefully, or anything else at once, as [`Net::close`] does.
    pub fn close(&self, to: WorkerToken) {
        self.post_item(to.worker(), Vec::new(), Item::Close(to));
    }

    /// Ends a connection at once, as [`Net::abort`] does.
    pub fn abort(&self, to: WorkerToken) {
        self.post_item(to.worker(), Vec::new(), Item::Abort(to));
    }

    /// Runs a closure on a worker's thread. `false` if there is no such worker, it has ended, or too much waits
    /// for it.
    pub fn post(
        &self,
        worker: usize,
        call: impl FnOnce(&mut S, &mut Net<S>) + Send + 'static,
    ) -> bool {
        self.post_item(worker, Vec::new(), Item::Call(Box::new(call)))
    }

    /// Sends a message to all members of a name, as [`Net::publish_named`] does.
    pub fn publish_named(&self, name: impl AsRef<[u8]>, message: impl Into<Message<Vec<u8>>>) {
        let (name, Message { bytes, kind }) = (name.as_ref(), message.into());
        let mut to = self.team.topics.workers_of(name);
        if let Some(worker) = self.team.bridge() {
            to |= (1 as Set) << worker;
        }
        if to == 0 {
            return;
        }
        let mut said = Said::default();
        said.add(name, Message { bytes: &*bytes, kind }, None, false);
        let said = Arc::new(said);
        for worker in each(to) {
            if self.team.has_room(worker, bytes.len()) {
                self.team.post(Batch::of_one_said(&self.team, worker, Arc::clone(&said)));
            } else {
                self.team.count_undelivered(1);
            }
        }
    }

    /// How many messages of workers to each other, and of handles, were not delivered: to connections that
    /// were gone or refused them, to workers that had ended, or because too much waited
    /// ([`Workers::crossing_limit`](crate::Workers::crossing_limit)). A message by name counts once for each
    /// worker.
    pub fn undelivered(&self) -> u64 {
        self.team.undelivered()
    }

    /// Shuts all workers down, as [`Net::shutdown`] does, with one deadline for all. One that is being built
    /// again ends when it is built.
    pub fn shutdown(&self, grace: Duration) {
        self.team.end(Some(grace));
    }

    /// Closes all connections and sessions of all workers gracefully, as [`Net::close_all`] does. Behind a
    /// [`shutdown`](Self::shutdown) it ends a service without waiting for its peers to close.
    pub fn close_all(&self) {
        for worker in 0..self.count() {
            self.post_item(worker, Vec::new(), Item::CloseAll);
        }
    }

    /// Ends all workers at once, as [`Net::stop`] does.
    pub fn stop(&self) {
        self.team.end(None);
    }

    fn post_item(&self, worker: usize, bytes: Vec<u8>, item: Item<S>) -> bool {
        let there = worker < self.team.count();
        let fits = there && (!item.is_bounded() || self.team.has_room(worker, bytes.len()));
        if !(fits && self.team.inbox(worker).is_some()) {
            self.team.item_is_lost(item);
            return false;
        }
        self.team.post(Batch::of_one(&self.team, worker, bytes, item));
        true
    }
}

impl<S: 'static> Clone for WorkersHandle<S> {
    fn clone(&self) -> Self {
        WorkersHandle { team: Arc::clone(&self.team) }
    }
}

impl<S: 'static> fmt::Debug for WorkersHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkersHandle").field("count", &self.count()).finish_non_exhaustive()
    }
}

/// Workers that run. Dropping it lets them run on.
#[must_use = "wait for their end"]
pub struct RunningWorkers<S: 'static> {
    pub(super) handle: WorkersHandle<S>,
    pub(super) threads: Vec<Thread<Result<ShutdownReport, Error>>>,
}

impl<S: 'static> RunningWorkers<S> {
    /// A handle to all workers.
    pub fn handle(&self) -> WorkersHandle<S> {
        self.handle.clone()
    }

    /// Waits until all workers have ended. Returns what their shutdowns have cut, together.
    ///
    /// # Errors
    /// A worker has died, and that was to end all.
    pub fn wait(self) -> Result<ShutdownReport, Error> {
        let mut report = ShutdownReport::default();
        let mut failed = None;
        for thread in self.threads {
            match thread.join() {
                Some(Ok(of_worker)) => {
                    report.connections_cut += of_worker.connections_cut;
                    report.bytes_unsent += of_worker.bytes_unsent;
                }
                Some(Err(error)) => failed = failed.or(Some(error)),
                None => {
                    let error = std::io::Error::other("its thread panicked");
                    failed = failed.or(Some(Error::new("a worker has died", error)));
                }
            }
        }
        failed.map_or(Ok(report), Err)
    }
}

impl<S: 'static> fmt::Debug for RunningWorkers<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningWorkers")
            .field("workers", &self.threads.len())
            .finish_non_exhaustive()
    }
}

const _: () = {
    /// A handle crosses threads whatever the state is made of.
    const fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<WorkersHandle<std::rc::Rc<()>>>();
};
