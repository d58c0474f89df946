//! What all workers share: their inboxes, the names, the ports, the end.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::crossing::{Batch, Item};
use super::ports::Ports;
use super::topics::Topics;
use super::{Balance, Workers};
use crate::net::Net;
use crate::remote::Shared;
use crate::sys;

/// The end of a grace beyond the clock's range: ten years.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// All workers of one service.
pub(crate) struct Team<S> {
    inboxes: Vec<Mutex<Option<Live<S>>>>,
    /// Bytes that wait for each worker, in batches of others.
    waiting: Vec<AtomicUsize>,
    crossing_limit: usize,
    pub(super) topics: Topics,
    pub(super) ports: Mutex<Ports>,
    pub(super) balance: Balance,
    /// The worker that carries names to other processes; `usize::MAX` for none.
    bridge: AtomicUsize,
    undelivered: AtomicU64,
    ending: Mutex<Option<Ending>>,
    clock: sys::Clock,
    /// `ending` was set.
    ends: Condvar,
}

/// A worker that runs.
struct Live<S> {
    shared: Arc<Shared<S>>,
    /// How many times it was built before.
    life: u32,
}

impl<S> Clone for Live<S> {
    fn clone(&self) -> Self {
        Live { shared: Arc::clone(&self.shared), life: self.life }
    }
}

/// How all workers are to end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ending {
    Now,
    /// At this time at the latest.
    Shutdown(Instant),
}

impl<S> Team<S> {
    pub(super) fn new(workers: &Workers, clock: sys::Clock) -> Arc<Self> {
        let Workers { count, balance, crossing_limit, .. } = *workers;
        Arc::new(Team {
            inboxes: std::iter::repeat_with(|| Mutex::new(None)).take(count).collect(),
            waiting: std::iter::repeat_with(AtomicUsize::default).take(count).collect(),
            crossing_limit,
            topics: Topics::default(),
            ports: Mutex::default(),
            balance,
            bridge: AtomicUsize::new(usize::MAX),
            undelivered: AtomicU64::new(0),
            ending: Mutex::new(None),
            clock,
            ends: Condvar::new(),
        })
    }

    /// How many workers there are.
    pub(crate) fn count(&self) -> usize {
        self.inboxes.len()
    }

    // ---- what crosses ----

    /// Whether a worker may have so many more bytes waiting.
    pub(super) fn has_room(&self, worker: usize, more: usize) -> bool {
        self.waiting[worker].load(Ordering::Relaxed).saturating_add(more) <= self.crossing_limit
    }

    pub(super) fn begins_to_wait(&self, worker: usize, bytes: usize) {
        self.waiting[worker].fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn waits_no_more(&self, worker: usize, bytes: usize) {
        self.waiting[worker].fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cfg(feature = "sim")]
    pub(super) fn waiting(&self, worker: usize) -> usize {
        self.waiting[worker].load(Ordering::Relaxed)
    }

    pub(super) fn count_undelivered(&self, messages: u64) {
        self.undelivered.fetch_add(messages, Ordering::Relaxed);
    }

    pub(super) fn undelivered(&self) -> u64 {
        self.undelivered.load(Ordering::Relaxed)
    }

    /// A worker's inbox; `None` if it does not run at the moment.
    pub(super) fn inbox(&self, worker: usize) -> Option<Arc<Shared<S>>> {
        let live = lock(self.inboxes.get(worker)?);
        live.as_ref().map(|live| Arc::clone(&live.shared))
    }

    pub(super) fn bridge(&self) -> Option<usize> {
        let worker = self.bridge.load(Ordering::SeqCst);
        (worker != usize::MAX).then_some(worker)
    }

    /// Gives the bridge to a worker, unless another one has it: that is the error.
    pub(super) fn take_bridge(&self, worker: usize) -> Result<(), usize> {
        let (none, order) = (usize::MAX, Ordering::SeqCst);
        match self.bridge.compare_exchange(none, worker, order, order) {
            Err(other) if other != worker => Err(other),
            _ => Ok(()),
        }
    }

    pub(super) fn leave_bridge(&self, worker: usize) {
        let (none, order) = (usize::MAX, Ordering::SeqCst);
        let _ = self.bridge.compare_exchange(worker, none, order, order);
    }

    /// A worker is gone, and with it its groups.
    pub(super) fn forget_names(self: &Arc<Self>, worker: usize)
    where
        S: 'static,
    {
        let gone = self.topics.forget(worker);
        self.leave_bridge(worker);
        if let Some(bridge) = self.bridge() {
            for name in gone {
                self.post(Batch::of_one(self, bridge, Vec::new(), Item::NameChanged(name)));
            }
        }
    }

    // ---- the end ----

    /// A worker is built and can be reached. Returns how all of them end, if that is decided.
    pub(super) fn enter(&self, worker: usize, life: u32, shared: Arc<Shared<S>>) -> Option<Ending> {
        // Under this lock, so that an end is either seen here or posted to this inbox.
        let ending = lock(&self.ending);
        *lock(&self.inboxes[worker]) = Some(Live { shared, life });
        *ending
    }

    /// A worker is gone.
    pub(super) fn leave(&self, worker: usize) {
        *lock(&self.inboxes[worker]) = None;
    }

    /// How all of them end, if that is decided.
    pub(super) fn ending(&self) -> Option<Ending> {
        *lock(&self.ending)
    }

    /// Ends all workers at once, or gives them `grace`. A later shutdown replaces the time of an earlier one; a
    /// stop stays.
    pub(super) fn end(&self, grace: Option<Duration>) {
        let mut ending = lock(&self.ending);
        let grace = match (*ending, grace) {
            (Some(Ending::Now), _) => None,
            (_, grace) => grace,
        };
        *ending = Some(match grace {
            None => Ending::Now,
            Some(grace) => {
                let now = self.clock.now();
                Ending::Shutdown(now.checked_add(grace).unwrap_or(now + FAR))
            }
        });
        for inbox in &self.inboxes {
            let live = lock(inbox).clone();
            let Some(live) = live else { continue };
            // One that has ended meanwhile needs no message.
            let _ = match grace {
                None => live.shared.remote().stop(),
                Some(grace) => live.shared.remote().shutdown(grace),
            };
        }
        drop(ending);
        self.ends.notify_all();
    }

    /// Waits until the end is decided, for `most` at most. Returns whether it is.
    pub(super) fn wait_for_end(&self, most: Duration) -> bool {
        let ending = lock(&self.ending);
        let waited = self.ends.wait_timeout_while(ending, most, |ending| ending.is_none());
        waited.map_or(true, |(ending, _)| ending.is_some())
    }

    /// A worker has died, and is being built again: its ports wait for it. Or it is back, or does not come back.
    pub(super) fn awaits(&self, worker: usize, returns: bool) {
        for shares in lock(&self.ports).all() {
            if returns { shares.will_return(worker) } else { shares.has_returned(worker) }
        }
    }

    /// All workers have ended: their ports are closed, also where a handle of a user keeps this value.
    pub(super) fn close_ports(&self) {
        let ports = std::mem::take(&mut *lock(&self.ports));
        drop(ports);
    }
}

impl<S: 'static> Team<S> {
    /// Hands a batch to its worker. If that is gone, the batch is dropped, which tells who asked.
    pub(super) fn post(&self, batch: Batch<S>) {
        if let Some(shared) = self.inbox(batch.to) {
            drop(shared.push_run(Box::new(batch)));
        }
    }
}

impl Ending {
    /// The end as a worker begins it that was built after it was decided.
    pub(super) fn begin<S>(self, net: &mut Net<S>) {
        match self {
            Ending::Now => net.stop(),
            Ending::Shutdown(at) => {
                let now = net.core.sys.clock().now();
                net.shutdown(at.saturating_duration_since(now));
            }
        }
    }
}

/// None of these locks is held while user code runs, and what they guard is consistent at every point.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
