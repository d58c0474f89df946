//! Several reactors on several threads, which share nothing but what crosses.
//!
//! `team.rs` is what all of them reach, `desk.rs` what one of them has; `life.rs` is the thread of a worker, from
//! its set-up to its end. `ports.rs` shares listening sockets (their balance is `core/shares.rs`), `topics.rs`
//! knows which workers have members of a name, `crossing.rs` carries messages. `net/across.rs` is the public
//! face inside a worker, `handle.rs` the one outside.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::error::Error;
use crate::net::Net;
use crate::reactor::ShutdownReport;
use crate::sys;
use crate::token::Token;

mod crossing;
#[cfg(test)]
mod death_tests;
mod desk;
mod handle;
mod life;
mod ports;
#[cfg(feature = "sim")]
mod simulated;
mod team;
mod topics;

pub(crate) use crossing::Item;
pub use crossing::Undelivered;
pub(crate) use desk::Desk;
pub use handle::{RunningWorkers, WorkersHandle};
pub(crate) use ports::{Key, Part};
#[cfg(feature = "sim")]
pub(crate) use simulated::Machine;
use team::Team;

/// Several reactors, one for each thread, that serve the same ports.
///
/// The set-up closure builds each: it runs once on every thread, with that worker's number and network, and
/// returns its state. State, handlers and tokens stay on their thread, and need not be `Send`. Workers share
/// nothing but what they say to each other: messages by name
/// ([`Net::publish_named`]), messages to a [`WorkerToken`] ([`Net::send_across`]), and closures.
///
/// ```no_run
/// use tidegate::{Context, Handler, HandlerResult, Input, Workers};
///
/// struct Member;
///
/// impl Handler for Member {
///     fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
///         let room = cx.net.group("room"); // of this worker's members
///         cx.net.join(room, cx.token);
///         Ok(())
///     }
///     fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
///         cx.net.publish_named("room", input.take_all()); // to those of all workers
///         Ok(())
///     }
/// }
///
/// let report = Workers::new(4).run(|_worker, net| {
///     net.listen("0.0.0.0:8888", |_peer| Member)?;
///     Ok(())
/// })?;
/// # let _ = report;
/// # Ok::<(), tidegate::Error>(())
/// ```
///
/// - **Ports.** What the set-up listens on is one port for all workers, port 0 too. Whichever accepts a
///   connection gives it to the worker with the fewest open ones of that port, before its layers and its handler
///   exist ([`Balance`]). [`Listen::connection_limit`](crate::Listen::connection_limit) counts all workers
///   together; those of a worker whose listener has closed count no more. UDP sockets that the set-up binds are
///   one for each worker on the same port, and the system spreads the peers over them by a hash of their
///   addresses (`SO_REUSEPORT`, socket(7)). When one worker ends or is built again, the system spreads the peers
///   of *all* of them anew, so that sessions find themselves on other workers. What a handler listens on or binds later, and
///   adopted sockets, belong to its worker alone.
/// - **Pausing and closing** a listener concerns its worker: the others go on.
/// - **A worker that blocks** holds up its own connections, what others say to it, and while it is the one that
///   accepts, new connections of all. No callback may block here, as on a reactor alone:
///   [`Net::offload`].
/// - **Settings** ([`config`](Self::config)) hold for each worker. Each has its own budgets, buffers and offload
///   threads.
/// - **The end.** [`WorkersHandle::shutdown`] and [`stop`](WorkersHandle::stop) end all workers.
///   [`Net::stop`] and [`Net::shutdown`] end the worker of that network, and the others go on.
/// - **Failures.** A set-up that returns an error or panics at the start ends all, and the error says which
///   worker and why. A worker that dies later (the poll fails, or something outside callbacks panics) is logged
///   as an error, its connections are lost, and [`on_failure`](Self::on_failure) decides what follows.
#[derive(Debug, Clone)]
#[must_use = "run it"]
pub struct Workers {
    count: usize,
    config: Config,
    balance: Balance,
    on_failure: OnFailure,
    crossing_limit: usize,
    #[cfg(feature = "affinity")]
    pinned: bool,
}

/// Which worker gets a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Balance {
    /// The one with the fewest open connections of that port: their numbers differ by one at most, as long as
    /// none closes. One worker at a time accepts for all (the first at first); accepting costs a few
    /// microseconds a connection, and handing one over about one more. The default, because connections that
    /// stay are what a worker is busy with.
    #[default]
    LeastOpen,
    /// Each worker has sockets of its own on the same port, and the system spreads connections by a hash of
    /// their addresses (`SO_REUSEPORT`, socket(7)). Nothing crosses between threads. But numbers differ by
    /// chance, and what waits in a worker's backlog is reset when that worker ends. Each worker has its share of
    /// the connection limit. For services whose connections are many and short. Ports of Unix sockets are
    /// balanced as by `LeastOpen`. Only Linux spreads connections; FreeBSD and macOS give all to one.
    ReusePort,
}

/// What follows when a worker dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnFailure {
    /// The others shut down within this time, and the error is returned: something restarts the service. The
    /// default, with 5 seconds.
    EndAll(Duration),
    /// The worker is built again by the set-up closure, on the same thread. Tokens of its former life are
    /// refused. After five failures in a row, each within a minute of the last, all end as by `EndAll` with
    /// 5 seconds; before each attempt but the first it waits 100 ms longer.
    Rebuild,
}

/// The grace of an end that follows a failure, if nothing else is said.
const GRACE: Duration = Duration::from_secs(5);

impl Workers {
    /// So many workers, at least one and at most 128. [`one_for_each_core`](Self::one_for_each_core) asks the
    /// system.
    pub fn new(count: usize) -> Self {
        Workers {
            count: count.clamp(1, topics::MOST),
            config: Config::default(),
            balance: Balance::default(),
            on_failure: OnFailure::EndAll(GRACE),
            crossing_limit: 64 << 20,
            #[cfg(feature = "affinity")]
            pinned: false,
        }
    }

    /// One for each core that the process may use.
    pub fn one_for_each_core() -> Self {
        Self::new(sys::cores())
    }

    /// The settings of each worker's reactor.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Which worker gets a new connection. Default [`Balance::LeastOpen`].
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// What follows when a worker dies. Default [`OnFailure::EndAll`] with 5 seconds.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// How many bytes may wait for one worker in messages of other workers, before further ones are refused and
    /// counted as undelivered. Each message counts 64 bytes more; a batch with messages by name counts all that
    /// was said by name in that turn, because it keeps it. What each of the others has collected in its
    /// present turn comes on top, and what ends something is never refused. Messages that wait count towards
    /// [`Config::post_limit`], too, for threads that post to that worker. Default 64 MiB, a second of a busy worker; a
    /// worker that takes none for longer has failed.
    pub fn crossing_limit(mut self, bytes: usize) -> Self {
        self.crossing_limit = bytes;
        self
    }

    /// Binds worker `n` to core `n` of those that the process may use (sched_setaffinity(2)), on Linux and
    /// Android. Default false: the scheduler's choice is better where other programs run too.
    #[cfg(feature = "affinity")]
    pub fn pin(mut self, on: bool) -> Self {
        self.pinned = on;
        self
    }

    #[cfg(feature = "sim")]
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    #[cfg(feature = "sim")]
    pub(crate) fn settings(&self) -> &Config {
        &self.config
    }

    /// Runs the workers until all have ended, and returns what their shutdowns have cut. The calling thread
    /// only waits.
    ///
    /// # Errors
    /// The set-up of a worker fails, the system refuses a thread or a poll, or a worker has died and
    /// [`on_failure`](Self::on_failure) ends all.
    pub fn run<S, F>(self, set_up: F) -> Result<ShutdownReport, Error>
    where
        S: 'static,
        F: Fn(&Worker<S>, &mut Net<S>) -> Result<S, Error> + Send + Sync + 'static,
    {
        self.start(set_up)?.wait()
    }

    /// Starts the workers and returns when all are set up and listen.
    ///
    /// # Errors
    /// The set-up of a worker fails, or the system refuses a thread or a poll. No worker runs then.
    pub fn start<S, F>(self, set_up: F) -> Result<RunningWorkers<S>, Error>
    where
        S: 'static,
        F: Fn(&Worker<S>, &mut Net<S>) -> Result<S, Error> + Send + Sync + 'static,
    {
        life::start(self, set_up)
    }
}

/// A worker, as its set-up sees it.
pub struct Worker<S: 'static> {
    index: usize,
    handle: WorkersHandle<S>,
}

impl<S: 'static> Worker<S> {
    fn new(team: &Arc<Team<S>>, index: usize) -> Self {
        Worker { index, handle: WorkersHandle::new(team) }
    }

    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.handle.count()
    }

    /// A handle to all workers, which the state can hold and any thread can use.
    pub fn handle(&self) -> &WorkersHandle<S> {
        &self.handle
    }
}

impl<S> fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Identifies a connection, or anything else with a token, of one of several workers:
/// [`Net::worker_token`].
///
/// A plain copyable value that any thread may hold. It stays safe after its socket has closed, and after its
/// worker has been built again: it is refused then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerToken {
    token: Token,
    worker: u16,
    /// How many times the worker was built before.
    life: u32,
}

impl WorkerToken {
    pub(crate) fn new(worker: usize, life: u32, token: Token) -> Self {
        // There are 128 workers at most.
        WorkerToken { token, worker: worker as u16, life }
    }

    /// The number of the worker.
    pub fn worker(self) -> usize {
        self.worker.into()
    }

    /// The token, which names something on that worker alone.
    pub fn token(self) -> Token {
        self.token
    }
}

impl fmt::Display for WorkerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.worker, self.token)
    }
}

impl fmt::Debug for WorkerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerToken({self})")
    }
}
