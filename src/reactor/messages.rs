//! Messages from other threads: taken in batches, handled within the budget of a turn.

use super::Reactor;
use crate::channel::Run;
use crate::remote::Post;

impl<S: 'static> Reactor<S> {
    /// Handles messages from other threads. What exceeds the budget is left for the next turn and
    /// comes before anything newer.
    #[inline]
    pub(super) fn messages(&mut self, woken: bool) {
        self.woken |= woken;
        if self.woken || !self.inbox.is_empty() {
            self.handle_messages();
        }
    }

    #[inline(never)] // most turns have none
    fn handle_messages(&mut self) {
        self.take_messages();
        self.run_messages(self.dispatch.net.core.config.posts_per_turn);
        self.count_messages_left();
    }

    /// Takes over what has been posted, once everything taken before is handled.
    pub(super) fn take_messages(&mut self) {
        if self.inbox.is_empty() && std::mem::take(&mut self.woken) {
            let net = &self.dispatch.net;
            let undelivered = net.core.undelivered_notifications();
            let mut batch = Vec::from(std::mem::take(&mut self.inbox));
            let mut stamps = Vec::from(std::mem::take(&mut self.stamps));
            self.in_runs = net.shared.take(&mut batch, &mut stamps, undelivered);
            self.inbox = batch.into();
            self.stamps = stamps.into();
            self.published_backlog = self.messages_left() + undelivered;
        }
    }

    /// How many messages are taken and not handled.
    pub(super) fn messages_left(&self) -> usize {
        self.inbox.len() + self.in_runs
    }

    /// Handles `most` of them at most.
    pub(super) fn run_messages(&mut self, most: usize) {
        let budget = most.min(self.messages_left());
        self.publish_backlog(budget);
        let mut left = budget;
        while left > 0 {
            let Some(message) = self.inbox.pop_front() else { break };
            if let Post::Run(run) = message {
                left -= self.run_messages_of(run, left);
                continue;
            }
            if let Some(posted) = self.stamps.pop_front() {
                self.dispatch.net.core.work.post_is_handled(posted);
            }
            self.dispatch.message(message);
            left -= 1;
        }
        let counts = &mut self.dispatch.net.core.work.counts;
        counts.posts += budget as u64;
        self.publish_backlog(0);
    }

    /// The same for messages of one channel; returns how many it has handled. What is left keeps its
    /// place.
    fn run_messages_of(&mut self, mut run: Box<dyn Run<S>>, most: usize) -> usize {
        let (len, posted) = (run.len(), self.stamps.front().copied());
        let handled = len.min(most);
        if let Some(posted) = posted {
            for _ in 0..handled {
                self.dispatch.net.core.work.post_is_handled(posted);
            }
        }
        self.dispatch.run_of_channel(&mut *run, handled);
        if handled < len {
            self.in_runs -= handled;
            self.inbox.push_front(Post::Run(run));
        } else {
            self.in_runs -= len - 1;
            self.stamps.pop_front();
        }
        handled
    }

    /// The turn handles no more messages: those that are taken wait for the next one.
    pub(super) fn count_messages_left(&mut self) {
        let counts = &mut self.dispatch.net.core.work.counts;
        counts.posts_exhausted += u64::from(!self.inbox.is_empty());
    }

    /// Publishes how many taken messages are unhandled, less the `handled` that are handled next, so that
    /// posters can enforce `post_limit`. Stored only on change, because each store invalidates the
    /// posters' cache line. Repeated at the end of a turn, because a refused poster may be the only one
    /// left to wake the loop.
    pub(super) fn publish_backlog(&mut self, handled: usize) {
        let net = &self.dispatch.net;
        let left = self.messages_left() - handled + net.core.undelivered_notifications();
        if std::mem::replace(&mut self.published_backlog, left) != left {
            net.shared.still_taken(left);
        }
    }
}
