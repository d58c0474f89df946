//! The system's own poll loses no wake.

use std::io;
use std::time::Duration;

/// Nothing to remember.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wakes(());

impl Wakes {
    #[inline(always)]
    pub(super) fn note(&self) {}

    /// Polls.
    #[inline(always)]
    pub(super) fn poll(
        &self,
        poll: &mut mio::Poll,
        events: &mut mio::Events,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        poll.poll(events, timeout)?;
        Ok(false)
    }
}
