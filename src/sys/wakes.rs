//! Wakes over mio's emulation of edges on `poll(2)`, which may lose one: it takes the token of the waker before
//! it empties the descriptor that announces it, and its own notes to itself use that descriptor, too. So a wake
//! that comes in between is forgotten, and the poll sleeps on (mio 1.2, `selector/poll.rs`).
//!
//! Here each wake also sets a flag, which is looked at every few milliseconds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// For how long a lost wake may wait.
const LOOK: Duration = Duration::from_millis(5);

/// The flag of one poll.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wakes(Arc<AtomicBool>);

impl Wakes {
    /// A wake is about to be made.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }

    /// Polls, and returns whether a wake was noted.
    pub(super) fn poll(
        &self,
        poll: &mut mio::Poll,
        events: &mut mio::Events,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        let begun = Instant::now();
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
            let noted = self.take();
            let most =
                if noted { Duration::ZERO } else { left.map_or(LOOK, |left| left.min(LOOK)) };
            if let Err(e) = poll.poll(events, Some(most)) {
                if noted {
                    self.note();
                }
                return Err(e);
            }
            let noted = self.take() || noted;
            if noted || !events.is_empty() || left.is_some_and(|left| left <= most) {
                return Ok(noted);
            }
        }
    }
}
