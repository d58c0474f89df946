//! What a simulation asks of the reactors that it runs.

use std::time::Instant;

use super::Reactor;
use crate::guard::{drop_each, drop_guarded};

impl<S: 'static> Reactor<S> {
    /// Whether the next turn has something to do without an event or a timer.
    pub(crate) fn has_leftovers(&self) -> bool {
        self.has_work()
    }

    /// What it has counted.
    pub(crate) fn stats(&self) -> crate::stats::ReactorStats {
        self.dispatch.net.core.stats()
    }

    /// The process ended in order: every handler gets its `on_close`, and the state stays.
    pub(crate) fn finish(&mut self) {
        self.end();
    }

    /// The process was killed: no callback runs any more.
    pub(crate) fn vanish(mut self) {
        let handlers = std::mem::take(&mut self.dispatch.handlers);
        let pending = std::mem::take(&mut self.dispatch.net.pending_handlers);
        drop_each(handlers);
        drop_each(pending);
        drop_guarded(self);
    }

    /// The time now.
    pub(crate) fn this_moment(&self) -> Instant {
        self.dispatch.net.core.work.this_moment()
    }

    /// Work that waits though nothing will announce it: the loop is about to sleep.
    pub(crate) fn forgotten(&self) -> Option<String> {
        self.dispatch.net.core.forgotten()
    }

    /// What is left over where nothing goes on any more.
    pub(crate) fn leftovers(&self) -> Option<String> {
        let net = &self.dispatch.net;
        let handlers = self.dispatch.handlers.iter().flatten().count();
        let jobs = net.offloads.len();
        if jobs > 0 {
            return Some(format!("{jobs} results of jobs are awaited, and none is under way"));
        }
        net.core.leftovers(handlers).or_else(|| net.misplaced_name()).or_else(|| {
            let calls = net.calls.len();
            let timers = net.core.own_calls();
            (calls != timers).then(|| {
                format!("{calls} closures of run_after are kept, but {timers} timers of theirs")
            })
        })
    }

    /// How many sockets the reactor has.
    pub(crate) fn socket_count(&self) -> usize {
        self.dispatch.net.core.socket_count()
    }

    /// Whether this timer waits for its time: it is neither gone nor parked until its connection
    /// opens.
    pub(crate) fn is_live_timer(&self, key: u64) -> Option<bool> {
        self.dispatch.net.core.is_live_timer(key)
    }
}
