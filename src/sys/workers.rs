//! Threads for jobs that would block the loop.
//!
//! The threads share one queue under a lock, and those without work wait at one condition variable.
//! What may be handed in, what a job is, and where its result goes is decided above the seam; this
//! file runs jobs in the order in which they come, and nothing else.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Something to run on another thread. It does not panic.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The threads of one reactor, none at first. They end with this value: each when the job that it
/// runs then is done. Nobody waits for that, because a job may hang.
pub(crate) struct Workers {
    queue: Arc<Queue>,
    /// Starts a thread for the queue. A field, so that tests can refuse one.
    start: fn(Arc<Queue>) -> io::Result<()>,
    started: usize,
    most: usize,
    /// Jobs run on this simulated host, in its time, and not on threads.
    #[cfg(feature = "sim")]
    simulated: Option<u32>,
    /// That a further thread could not be started has been logged.
    warned: bool,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// There is a job, or there are no more.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Threads without a job: those that wait for one, were notified of one, or are just starting.
    idle: usize,
    closed: bool,
}

impl Workers {
    /// Starts no thread yet, and `most` in all.
    pub(crate) fn new(most: usize) -> Self {
        Workers {
            queue: Arc::default(),
            start: start_thread,
            started: 0,
            most,
            #[cfg(feature = "sim")]
            simulated: None,
            warned: false,
        }
    }

    /// Jobs begin inside the simulation, one after the other, after a time that the seed decides.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated(host: u32, most: usize) -> Self {
        let mut workers = Workers::new(most);
        workers.simulated = Some(host);
        workers
    }

    /// Runs the job that `wrap` makes of `value`, later and on another thread: the next one that has
    /// none. Jobs begin in the order of these calls. A thread is started if all are busy and there may
    /// be more.
    ///
    /// # Errors
    /// The system refuses the first thread: `value` comes back, and `wrap` is not called. If it refuses
    /// a further one, the job waits for those that there are.
    pub(crate) fn submit<T>(
        &mut self,
        value: T,
        wrap: impl FnOnce(T) -> Job,
    ) -> Result<(), (T, io::Error)> {
        #[cfg(feature = "sim")]
        if let Some(host) = self.simulated {
            super::sim::submit(host, self.most, wrap(value));
            return Ok(());
        }
        if self.started < self.most
            && self.queue.is_busy()
            && let Err(e) = self.start_one()
        {
            if self.started == 0 {
                return Err((value, e));
            }
            if !std::mem::replace(&mut self.warned, true) {
                log::warn!("cannot start worker {}: {e}; jobs wait", self.started + 1);
            }
        }
        let job = wrap(value);
        let mut state = self.queue.lock();
        state.waiting.push_back(job);
        let somebody_waits = state.idle > 0;
        drop(state);
        if somebody_waits {
            self.queue.changed.notify_one();
        }
        Ok(())
    }

    fn start_one(&mut self) -> io::Result<()> {
        self.queue.lock().idle += 1;
        let result = (self.start)(Arc::clone(&self.queue));
        match result {
            Ok(()) => self.started += 1,
            Err(_) => self.queue.lock().idle -= 1,
        }
        result
    }

    /// No job begins from now on, and the threads end. The caller drops those that were waiting,
    /// outside the lock: a drop may do anything.
    pub(crate) fn close(&mut self) -> VecDeque<Job> {
        #[cfg(feature = "sim")]
        if let Some(host) = self.simulated {
            return super::sim::take_jobs(host);
        }
        let mut state = self.queue.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.queue.changed.notify_all();
        waiting
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        drop(self.close());
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("started", &self.started).finish_non_exhaustive()
    }
}

/// A thread that nobody joins. Its name has the 15 bytes that Linux shows (pthread_setname_np(3)).
fn start_thread(queue: Arc<Queue>) -> io::Result<()> {
    let thread = thread::Builder::new().name("tidegate-worker".to_owned());
    thread.spawn(move || queue.work()).map(drop)
}

impl Queue {
    /// Whether no thread is left for one more job: each idle one has one on its way already.
    fn is_busy(&self) -> bool {
        let state = self.lock();
        !state.closed && state.waiting.len() >= state.idle
    }

    /// The life of a thread, which was counted as idle when it was started.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            let nothing = |state: &mut State| state.waiting.is_empty() && !state.closed;
            let waited = self.changed.wait_while(state, nothing);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.closed {
                return;
            }
            let Some(job) = state.waiting.pop_front() else { continue };
            state.idle -= 1;
            drop(state);
            job();
            state = self.lock();
            state.idle += 1;
        }
    }

    /// Only an allocation failure can panic while the lock is held; the state is consistent at every
    /// point.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(20);

    fn until(workers: &Workers, what: &str, done: impl Fn(&State) -> bool) {
        let start = Instant::now();
        while !done(&workers.queue.lock()) {
            assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
            thread::yield_now();
        }
    }

    fn submit(workers: &mut Workers, job: impl FnOnce() + Send + 'static) {
        let submitted = workers.submit((), |()| Box::new(job));
        submitted.unwrap();
    }

    // row 141
    #[test]
    fn a_thread_is_started_only_when_all_are_busy_and_never_more_than_may_be() {
        let mut workers = Workers::new(2);
        assert_eq!(workers.started, 0);
        for _ in 0..10 {
            submit(&mut workers, || {});
            let idle = |state: &State| state.idle == 1 && state.waiting.is_empty();
            until(&workers, "the thread is idle again", idle);
        }
        assert_eq!(workers.started, 1, "an idle thread takes the next job");
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        for started in [1, 2, 2, 2] {
            let blocked = Arc::clone(&blocked);
            submit(&mut workers, move || {
                let _ = blocked.lock().unwrap().recv();
            });
            assert_eq!(workers.started, started);
        }
        until(&workers, "both are busy", |state| state.idle == 0 && state.waiting.len() == 2);
        drop(release);
        until(&workers, "all are done", |state| state.idle == 2 && state.waiting.is_empty());
    }

    // row 141
    #[test]
    fn a_thread_that_is_just_starting_is_there_for_the_next_job() {
        let mut workers = Workers::new(9);
        workers.start = |_queue| Ok(()); // it never gets so far
        submit(&mut workers, || {});
        assert_eq!(workers.started, 1);
        workers.queue.lock().waiting.clear(); // another thread was faster
        submit(&mut workers, || {});
        assert_eq!(workers.started, 1);
        submit(&mut workers, || {});
        assert_eq!(workers.started, 2);
    }

    // row 145
    #[test]
    fn without_a_first_thread_the_value_comes_back_and_later_attempts_may_succeed() {
        let mut workers = Workers::new(2);
        workers.start = |_queue| Err(io::Error::other("no threads left"));
        for _ in 0..3 {
            let refused = workers.submit("the value", |_| unreachable!("it is refused"));
            let (value, error) = refused.unwrap_err();
            assert_eq!((value, error.to_string().as_str()), ("the value", "no threads left"));
        }
        workers.start = start_thread;
        let (tell, told) = mpsc::channel();
        submit(&mut workers, move || tell.send(()).unwrap());
        told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(workers.started, 1);
    }

    // row 145
    #[test]
    fn without_a_further_thread_jobs_wait_for_those_that_there_are() {
        let mut workers = Workers::new(2);
        let (release, blocked) = mpsc::channel::<()>();
        submit(&mut workers, move || {
            let _ = blocked.recv();
        });
        workers.start = |_queue| Err(io::Error::other("no threads left"));
        let (tell, told) = mpsc::channel();
        for n in 0..10 {
            let tell = tell.clone();
            submit(&mut workers, move || tell.send(n).unwrap());
        }
        assert_eq!((workers.started, workers.warned), (1, true));
        drop(release);
        for n in 0..10 {
            assert_eq!(told.recv_timeout(PATIENCE), Ok(n));
        }
        until(&workers, "the thread is idle", |state| state.idle == 1);
    }

    // row 144
    #[test]
    fn after_the_close_no_job_begins_and_no_thread_is_started() {
        let mut workers = Workers::new(2);
        submit(&mut workers, || {});
        assert_eq!(workers.started, 1);
        let left = workers.close().len();
        assert!(left <= 1);
        submit(&mut workers, || unreachable!("it is closed"));
        assert_eq!(workers.started, 1);
        let start = Instant::now();
        while Arc::strong_count(&workers.queue) > 1 {
            assert!(start.elapsed() < PATIENCE, "the thread does not end");
            thread::yield_now();
        }
        assert_eq!(workers.close().len(), 1);
    }

    // row 144
    #[test]
    fn the_threads_end_with_their_owner_and_what_waits_is_never_begun() {
        let mut workers = Workers::new(1);
        let (release, blocked) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let first = tell.clone();
        submit(&mut workers, move || {
            first.send("running").unwrap();
            drop(first);
            let _ = blocked.recv();
        });
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "running");
        submit(&mut workers, move || tell.send("begun").unwrap());
        let queue = Arc::clone(&workers.queue);
        drop(workers);
        let all_gone = Err(mpsc::RecvTimeoutError::Disconnected);
        assert_eq!(
            told.recv_timeout(PATIENCE),
            all_gone,
            "the one that waited is dropped, with its sender"
        );
        drop(release);
        let start = Instant::now();
        while Arc::strong_count(&queue) > 1 {
            assert!(start.elapsed() < PATIENCE, "the thread does not end");
            thread::yield_now();
        }
    }
}
