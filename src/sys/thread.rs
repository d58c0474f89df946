//! Threads that carry a reactor each.

use std::io;
use std::thread;

/// A thread that can be waited for.
pub(crate) struct Thread<T>(thread::JoinHandle<T>);

impl<T: Send + 'static> Thread<T> {
    /// # Errors
    /// The system refuses another thread.
    pub(crate) fn start(
        name: String,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Self> {
        thread::Builder::new().name(name).spawn(work).map(Thread)
    }

    /// Waits for its end. `None` if it panicked.
    pub(crate) fn join(self) -> Option<T> {
        self.0.join().ok()
    }
}

/// How many threads run at once here, as far as the system says (sched_getaffinity(2), cgroups(7)); else one.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Binds the calling thread to the core with this number, counted within those that the process may use
/// (sched_setaffinity(2)).
#[cfg(all(feature = "affinity", any(target_os = "linux", target_os = "android")))]
pub(crate) fn pin(number: usize) -> io::Result<()> {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let allowed = sched_getaffinity(None)?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    let mut own = CpuSet::new();
    own.set(cores[number % cores.len()]);
    Ok(sched_setaffinity(None, &own)?)
}
