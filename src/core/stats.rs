//! What the table knows for the statistics: how many there are of each kind, and what waits.

use super::{Core, Entity};
use crate::connection::Due;
use crate::stats::ReactorStats;

impl Core {
    /// The counters, and the gauges as they are now: one walk through the table, and
    /// one through the timers.
    pub(crate) fn stats(&self) -> ReactorStats {
        let mut stats = self.work.counts;
        stats.connect_failed = stats.closed.connect_failed();
        // A turn that is over and left nothing of its units.
        stats.work_exhausted += u64::from(self.work.units == 0);
        for token in self.table.tokens() {
            match self.table.entity(token) {
                Some(Entity::Stream(_)) => stats.connections += 1,
                Some(Entity::Listener(_)) => stats.listeners += 1,
                Some(Entity::Datagram(_) | Entity::SessionSocket(_)) => {
                    stats.datagram_sockets += 1;
                    if let Some(socket) = self.datagram(token) {
                        let (sent, dropped) = socket.uncounted();
                        stats.datagrams_sent += sent;
                        stats.datagrams_dropped += dropped;
                    }
                }
                Some(Entity::Session(_)) => {
                    stats.sessions += 1;
                    continue; // what it has queued is its socket's
                }
                Some(Entity::Source(_)) | None => {}
            }
            stats.bytes_queued += self.unsent(token) as u64;
        }
        // The wheel holds deadlines too.
        self.work.timers.each(|due| {
            stats.timers_pending += u64::from(matches!(due, Due::Handler(..) | Due::Call(_)));
        });
        stats
    }
}
