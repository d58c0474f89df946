//! The backplane: named groups that span processes and machines, through an engine that exists.
//!
//! What is published by name ([`Net::publish_named`]) on one reactor reaches the members of that name
//! on every other reactor that has a backplane to the same engine. Nothing else in a program changes.
//! The engine is Redis (6 or newer) or one that speaks as it does; a handler of this library talks to
//! it through [`layer::Resp`](crate::layer::Resp), on the reactor's own thread.
//!
//! ```no_run
//! use tidegate::backplane::{Backplane, BackplaneEvent};
//! use tidegate::Reactor;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut reactor = Reactor::new()?;
//! let backplane = Backplane::redis("redis://127.0.0.1:6379")?
//!     .prefix("chat/")
//!     .on_event(|event, _state, _net| match event {
//!         BackplaneEvent::Lost { .. } => println!("others are out of reach: {event}"),
//!         BackplaneEvent::Resumed { .. } => println!("others are back: {event}"),
//!         _ => {}
//!     })
//!     .start(reactor.net())?;
//!
//! // In a handler: `let room = cx.net.group("lobby"); cx.join(room);`, and
//! reactor.net().publish_named("lobby", "hello, wherever you are");
//! # let _ = backplane.stats();
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - **Subscriptions follow membership**: one SUBSCRIBE when a name gets its first member here, one
//!   UNSUBSCRIBE when its last is gone, whatever the number of members.
//! - **Order**: what one process publishes arrives everywhere in its order.
//! - **No echo**: members here get a message at once and once, not again when it comes back from the
//!   engine. Text stays text and binary binary; any bytes pass.
//! - **The engine away**: local members go on as before. What should go out waits in a
//!   [bounded queue](Backplane::queue_limit) and is sent when the engine is back; what the engine had
//!   got without confirming it is sent again, and dropped by those that have it. Attempts to
//!   [connect](Backplane::longest_wait) go on for ever.
//! - **Silence**: an engine that says nothing for [10 seconds](Backplane::silence), PING included, is
//!   given up and dialled again.
//!
//! # What is not promised
//!
//! Redis pub/sub keeps nothing: what others publish while this process is away from the engine, or in
//! the round trip between a first join and its SUBSCRIBE, is lost for the members here.
//! [`BackplaneEvent::Resumed`] says that there was such a gap. Names that are [kept](Backplane::keep) have
//! none. There is no Sentinel. Who can publish in the engine can write to your members: give
//! it a password or a network of its own.
//!
//! # A cluster
//!
//! A server that says in its greeting that it is a node of a Redis Cluster (7 or newer) is used as one; the URL
//! names any node. Topics spread over the masters: each is published (SPUBLISH) and subscribed (SSUBSCRIBE) where
//! its slot is, over one connection to each master. A slot that moves is followed (MOVED), in order and once; what
//! others publish to its topics in that moment is lost here, and [`BackplaneEvent::Moved`] says so. Names that are
//! [kept](Backplane::keep) lie on one node: their beginning needs a hash tag, such as `{room}/`.
//!
//! Names and databases: a topic is the channel [`prefix`](Backplane::prefix) + name. Channels of Redis
//! know no databases; `/db` in the URL changes nothing for them.

mod answers;
mod dial;
mod envelope;
mod link;
mod nodes;
mod outbox;
mod plane;
mod reader;
mod reading;
mod routing;
mod scout;
mod slots;
mod streams;
mod topics;
mod url;

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

pub use outbox::WhenFull;

use dial::{Control, dial};
use nodes::NodeId;
use outbox::Outbox;
use plane::{Plane, Recorder, Told};
use slots::Endpoint;
use streams::{Newcomer, Streams};
use url::Url;

use crate::connection::Input;
use crate::error::Error;
use crate::layer::Resp;
#[cfg(feature = "tls")]
use crate::layer::tls::TlsClientConfig;
use crate::net::{Errand, Net};
use crate::token::Token;

/// The default limit on a message, its name included.
const MAX_MESSAGE: usize = 1024 * 1024;

/// The default limit on what waits to go out.
const MAX_QUEUE: usize = 8 * 1024 * 1024;

/// What a program is told.
type Hook<S> = Box<dyn Fn(&BackplaneEvent, &mut S, &mut Net<S>)>;

/// What listens to a name for the program itself.
type Listener<S> = Box<dyn Fn(Input<'_>, &mut S, &mut Net<S>)>;

/// What is told what was said to a name before this process came.
type Historian<S> = Box<dyn FnOnce(&[&[u8]], &mut S, &mut Net<S>)>;

/// A name, how many of its messages, and who is told them.
struct History<S> {
    name: Vec<u8>,
    count: usize,
    then: Historian<S>,
}

/// A connection to other processes, before it is started. The [module's page](self) says what it does.
#[must_use]
pub struct Backplane<S = ()> {
    url: Url,
    prefix: Vec<u8>,
    queue_limit: usize,
    when_full: WhenFull,
    message_limit: usize,
    silence: Duration,
    longest_wait: Duration,
    #[cfg(feature = "tls")]
    tls: Option<TlsClientConfig>,
    kept: Option<(Vec<u8>, usize)>,
    listeners: Vec<(Vec<u8>, Listener<S>)>,
    histories: Vec<History<S>>,
    hook: Option<Hook<S>>,
}

impl<S: 'static> Backplane<S> {
    /// Through the Redis at `redis://[user:password@]host[:port][/db]`; `rediss://` for TLS (feature
    /// `tls`). The port is 6379 by default. In user and password `%`, `@`, `:` and `/` are written as
    /// `%25`, `%40`, `%3A` and `%2F`.
    ///
    /// # Errors
    /// The URL is none; the error is one line, without the password.
    pub fn redis(url: &str) -> Result<Self, BackplaneError> {
        let url = Url::parse(url)?;
        if url.tls && !cfg!(feature = "tls") {
            return Err(BackplaneError::new("rediss:// needs the feature `tls`"));
        }
        Ok(Backplane {
            url,
            prefix: Vec::new(),
            queue_limit: MAX_QUEUE,
            when_full: WhenFull::default(),
            message_limit: MAX_MESSAGE,
            silence: Duration::from_secs(10),
            longest_wait: Duration::from_secs(5),
            #[cfg(feature = "tls")]
            tls: None,
            kept: None,
            listeners: Vec::new(),
            histories: Vec::new(),
            hook: None,
        })
    }

    /// Put in front of each name, so that services share one engine. Nothing by default.
    pub fn prefix(mut self, prefix: impl Into<Vec<u8>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How many bytes may wait to go out, those included that the engine has not confirmed. 8 MiB by
    /// default: forty thousand messages of 200 bytes, some seconds of a busy service. With
    /// [`keep`](Self::keep) a quarter of it is for messages of this process that have not been read back,
    /// which newcomers are told; the oldest are forgotten beyond it.
    pub fn queue_limit(mut self, bytes: usize) -> Self {
        self.queue_limit = bytes;
        self
    }

    /// What happens to a message when the queue is full. The oldest that waits is dropped, by default.
    /// Either is counted in [`BackplaneStats::dropped`]. Local members get every message.
    pub fn when_full(mut self, policy: WhenFull) -> Self {
        self.when_full = policy;
        self
    }

    /// The longest message, its name included. 1 MiB by default. A longer one stays in this process and
    /// is counted in [`BackplaneStats::too_large`]. All processes need the same limit: one that gets a
    /// longer message loses its connection.
    pub fn message_limit(mut self, bytes: usize) -> Self {
        self.message_limit = bytes;
        self
    }

    /// After so much silence the engine is given up. It is sent a PING when half of it is over. 10 s by
    /// default: an engine that only stutters (a fork for a snapshot) is not lost, and one that hangs is
    /// noticed before people reload their pages. The connect and the login have the same limit.
    pub fn silence(mut self, silence: Duration) -> Self {
        self.silence = silence.max(Duration::from_millis(2));
        self
    }

    /// The longest wait between two attempts to connect, or to publish what is refused for the moment. The first is 100 ms, and each the double of the
    /// one before; half of each is chance. 5 s by default.
    pub fn longest_wait(mut self, wait: Duration) -> Self {
        self.longest_wait = wait;
        self
    }

    /// Names that begin with `prefix` (the empty one: all) are kept by the engine, in a Redis Stream each,
    /// with about the last `keep` messages: those that others publish while this process is away from the
    /// engine arrive afterwards, and [`join_with_history`](BackplaneHandle::join_with_history) has what was
    /// said before somebody came. None by default.
    ///
    /// It costs a second connection, which waits in the engine (XREAD) and names all these topics each time:
    /// for hundreds of topics in a process, not for ten thousand. `keep` has to exceed what is said in the
    /// longest absence, and the engine has to keep it too (`appendonly yes`) where its own restart must lose
    /// nothing. The key of a stream is the topic with its prefix, in the database of the URL. In a cluster one
    /// node has all of them: [`prefix`](Self::prefix) and this beginning need a hash tag, such as `{room}/`.
    pub fn keep(mut self, prefix: impl Into<Vec<u8>>, keep: usize) -> Self {
        self.kept = Some((prefix.into(), keep));
        self
    }

    /// How a `rediss://` server is verified. Without it Mozilla's authorities are trusted, with the
    /// feature `tls-webpki-roots`.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: TlsClientConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Called with each message that another process publishes by this name: for what the program itself
    /// wants to know (who is where, what has changed), whether there are members here or not. They get it
    /// first. May be given several times, also for one name.
    pub fn on_message(
        mut self,
        name: impl Into<Vec<u8>>,
        listener: impl Fn(Input<'_>, &mut S, &mut Net<S>) + 'static,
    ) -> Self {
        self.listeners.push((name.into(), Box::new(listener)));
        self
    }

    /// Called once, when the engine is there for the first time, with the last `count` messages of a name that
    /// is [kept](Self::keep), oldest first, without those of this process. What follows is told by
    /// [`on_message`](Self::on_message): nothing is missed between, and nothing told twice. One for each name.
    ///
    /// ```no_run
    /// use tidegate::backplane::Backplane;
    /// use tidegate::Reactor;
    ///
    /// let mut reactor = Reactor::with_state(Vec::<Vec<u8>>::new())?; // what was said in the lobby
    /// Backplane::redis("redis://127.0.0.1")?
    ///     .keep("room/", 1000)
    ///     .on_history("room/lobby", 50, |messages, said: &mut Vec<_>, _net| {
    ///         said.extend(messages.iter().map(|message| message.to_vec()));
    ///     })
    ///     .on_message("room/lobby", |message, said, _net| said.push(message.to_vec()))
    ///     .start(reactor.net())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_history(
        mut self,
        name: impl Into<Vec<u8>>,
        count: usize,
        then: impl FnOnce(&[&[u8]], &mut S, &mut Net<S>) + 'static,
    ) -> Self {
        let (name, then) = (name.into(), Box::new(then));
        self.histories.retain(|history| history.name != name);
        self.histories.push(History { name, count, then });
        self
    }

    /// Called with each [`BackplaneEvent`], outside of all handlers. Each is also a line in the log.
    pub fn on_event(
        mut self,
        hook: impl Fn(&BackplaneEvent, &mut S, &mut Net<S>) + 'static,
    ) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// Starts: connects, and goes on connecting. Returns at once. A reactor has one backplane; a second one
    /// takes the place of the first, which is stopped. Of several [workers](crate::Workers) one has it, for
    /// all of them.
    ///
    /// # Errors
    /// `rediss://` without anything to verify the server with; a [history](Self::on_history) of a name that is
    /// not kept; another worker has a backplane. What goes wrong later is told by
    /// [`on_event`](Self::on_event).
    pub fn start(self, net: &mut Net<S>) -> Result<BackplaneHandle, BackplaneError> {
        #[cfg(feature = "tls")]
        let tls = if self.url.tls { Some(trust(self.tls)?) } else { None };
        // What is put around a message: types and lengths, the envelope.
        let message_limit = self.message_limit.saturating_add(256 + envelope::OVERHEAD);
        // Own messages of kept names are remembered until they have been read back.
        let unread = if self.kept.is_some() { self.queue_limit / 4 } else { 0 };
        let outbox = Outbox::new(self.queue_limit - unread, self.when_full);
        let streams = Streams::new(self.kept, unread);
        let at = Endpoint { host: self.url.host.clone(), port: self.url.port };
        let mut plane = Plane::new(at, self.prefix, self.message_limit, outbox, streams);
        for (name, _) in &self.listeners {
            plane.listen_to(name);
        }
        for History { name, .. } in &self.histories {
            if plane.streams.keeps(name).is_none() {
                let name = String::from_utf8_lossy(name);
                return Err(BackplaneError::new(format!(
                    "expected a name that is kept (`Backplane::keep`) for a history, {name:?} came"
                )));
            }
            plane.listen_to(name);
            plane.streams.tell_history(name);
        }
        let control = Control {
            plane: Rc::new(RefCell::new(plane)),
            url: self.url,
            silence: self.silence,
            longest_wait: self.longest_wait,
            resp: Resp::client().message_limit(message_limit),
            message_limit,
            #[cfg(feature = "tls")]
            tls,
            listeners: self.listeners,
            histories: RefCell::new(self.histories),
            hook: self.hook,
        };
        let plane = Rc::clone(&control.plane);
        let before = net.bridge_connections();
        net.attach_bridge(Box::new(Recorder(Rc::clone(&plane)))).map_err(|worker| {
            BackplaneError::new(format!(
                "the backplane runs on worker {worker} already; start it on one worker, for instance \
                 where worker.index() == 0"
            ))
        })?;
        for connection in before {
            net.close(connection);
        }
        let control = Rc::new(control);
        net.run_after(Duration::ZERO, move |state, net| dial(&control, NodeId::HOME, state, net));
        Ok(BackplaneHandle { plane })
    }
}

#[cfg(feature = "tls")]
fn trust(given: Option<TlsClientConfig>) -> Result<TlsClientConfig, BackplaneError> {
    if let Some(config) = given {
        return Ok(config);
    }
    #[cfg(feature = "tls-webpki-roots")]
    {
        let config = TlsClientConfig::builder().webpki_roots().build();
        config.map_err(|error| BackplaneError::new(error.to_string()))
    }
    #[cfg(not(feature = "tls-webpki-roots"))]
    Err(BackplaneError::new(
        "expected whom to trust for rediss://: `Backplane::tls`, or the feature `tls-webpki-roots`",
    ))
}

impl<S> fmt::Debug for Backplane<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backplane")
            .field("host", &self.url.host)
            .field("port", &self.url.port)
            .finish_non_exhaustive()
    }
}

/// A started backplane. It goes on when this is dropped.
#[derive(Debug, Clone)]
pub struct BackplaneHandle {
    plane: Rc<RefCell<Plane>>,
}

impl BackplaneHandle {
    /// The figures.
    pub fn stats(&self) -> BackplaneStats {
        let plane = self.plane.borrow();
        BackplaneStats {
            topics: plane.nodes.topics() + plane.streams.len(),
            nodes: plane.nodes.iter().filter(|(_, node)| node.is_up()).count(),
            queued_messages: plane.outbox.messages(),
            queued_bytes: plane.outbox.bytes(),
            ..plane.stats
        }
    }

    /// Whether the engine is there, and all topics are subscribed.
    pub fn is_connected(&self) -> bool {
        let plane = self.plane.borrow();
        plane.told == Told::Whole && !plane.stopped
    }

    /// Lets a connection join the group of a name, and sends it the last `count` messages of it before: of a
    /// name that is [kept](Backplane::keep). Nothing is missed in between, and nothing comes twice.
    ///
    /// It joins when the engine has answered; while that is away, at once and without a history. Of a name
    /// that is not kept it is a plain join.
    pub fn join_with_history<S: 'static>(
        &self,
        net: &mut Net<S>,
        name: impl AsRef<[u8]>,
        token: Token,
        count: usize,
    ) {
        let newcomer = Newcomer { token, name: name.as_ref().into(), count };
        let link = {
            let plane = &mut *self.plane.borrow_mut();
            let is_kept = plane.streams.keeps(&newcomer.name).is_some();
            plane.token().filter(|_| is_kept && plane.tells_histories())
        };
        match link {
            Some(link) => {
                self.plane.borrow_mut().greet(newcomer);
                net.notify(link, Errand);
            }
            None => drop(reader::join_group(&newcomer, net)),
        }
    }

    /// Ends it: what was handed to the connection is flushed, what waits is dropped, and no event follows.
    /// Named groups are those of this reactor again.
    pub fn stop<S: 'static>(&self, net: &mut Net<S>) {
        let tokens = {
            let plane = &mut *self.plane.borrow_mut();
            if plane.stopped {
                return; // another one may have its place
            }
            plane.stopped = true;
            plane.connections()
        };
        for token in tokens {
            net.close(token);
        }
        net.detach_bridge();
    }
}

/// What a backplane has counted since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BackplaneStats {
    /// Messages that were published by name here, to go out.
    pub published: u64,
    /// Of them, how many the engine has taken.
    pub confirmed: u64,
    /// How many were dropped because the queue was full.
    pub dropped: u64,
    /// How many were longer than [`Backplane::message_limit`].
    pub too_large: u64,
    /// How many the engine refused (an ACL that does not allow the channel).
    pub refused: u64,
    /// Messages of other processes, given to the members here.
    pub received: u64,
    /// Messages of this process that came back, and were dropped.
    pub own: u64,
    /// Messages that came a second time, and were dropped.
    pub repeated: u64,
    /// Messages that a node of a cluster did not take because their slot is at another one. They went there.
    pub moved: u64,
    /// How often it was connected; in a cluster, to any node.
    pub connects: u64,
    /// Connections to the engine's nodes, at this moment: one, or one for each master of a cluster.
    pub nodes: usize,
    /// Names with members here, at this moment.
    pub topics: usize,
    /// Messages that wait or are not confirmed, at this moment.
    pub queued_messages: usize,
    /// Their bytes.
    pub queued_bytes: usize,
}

/// What has happened between this process and the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackplaneEvent {
    /// Logged in for the first time, and all topics are subscribed.
    Connected,
    /// The engine is gone. Attempts follow.
    Lost {
        /// Why, in one line.
        why: String,
        /// Messages that were sent and not confirmed. They go out again.
        unconfirmed: usize,
    },
    /// The engine is back, and all topics are subscribed. What others published meanwhile is lost here.
    Resumed {
        /// How long it was away: the gap.
        away: Duration,
        /// How many messages of this process were dropped meanwhile.
        dropped: u64,
    },
    /// In a cluster: slots are at other nodes, and topics with them, which are subscribed there. What others
    /// published to them meanwhile is lost here.
    Moved {
        /// How many topics, of those that were subscribed.
        topics: usize,
        /// How long it took: the gap.
        away: Duration,
    },
    /// In a cluster: no node has the slots of these topics. What is published to them waits, and what others say
    /// does not come, until a node has them, which is [`Moved`](Self::Moved) for those with members here. Each is
    /// named once; other topics go on.
    Unserved {
        /// Their names.
        topics: Vec<Vec<u8>>,
    },
    /// An attempt failed: the address, the login, the version of the server. Or the engine takes something later: that
    /// is held back and tried again, and the connection goes on.
    Failed {
        /// Why, in one line.
        why: String,
        /// When the next attempt follows.
        again_in: Duration,
    },
    /// The engine refused one command. The connection goes on.
    Refused {
        /// `SUBSCRIBE`, `PUBLISH` or `XADD`; `XREVRANGE` for a kept name that cannot be read. It is left alone for a
        /// minute.
        command: &'static str,
        /// The name, where one is known, and what it said.
        why: String,
    },
    /// An entry of a kept name is longer than this side takes: the name is left alone for a minute, and goes on behind
    /// its newest entry, with a gap.
    TooLong {
        /// The name.
        name: Vec<u8>,
    },
}

/// So many names are in the line of an event.
const NAMED: usize = 10;

impl fmt::Display for BackplaneEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackplaneEvent::Connected => f.write_str("connected"),
            BackplaneEvent::Lost { why, unconfirmed: 0 } => write!(f, "lost: {why}"),
            BackplaneEvent::Lost { why, unconfirmed } => {
                write!(f, "lost: {why} ({unconfirmed} messages go out again)")
            }
            BackplaneEvent::Resumed { away, dropped } => {
                write!(f, "resumed after {away:.1?}; what others said meanwhile is lost")?;
                match dropped {
                    0 => Ok(()),
                    _ => write!(f, ", and {dropped} messages of this process"),
                }
            }
            BackplaneEvent::Moved { topics, away } => {
                write!(f, "moved: {topics} topics are at other nodes, for {away:.1?} nowhere")
            }
            BackplaneEvent::Unserved { topics } => {
                write!(f, "no node has the slots of {} topics, which wait: ", topics.len())?;
                for (at, name) in topics.iter().take(NAMED).enumerate() {
                    let name = String::from_utf8_lossy(name);
                    write!(f, "{}{name:?}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str(if topics.len() > NAMED { ", …" } else { "" })
            }
            BackplaneEvent::Failed { why, again_in } => {
                write!(f, "{why}; again in {again_in:.1?}")
            }
            BackplaneEvent::Refused { command, why } => {
                write!(f, "the server refused {command}: {why}")
            }
            BackplaneEvent::TooLong { name } => {
                let name = String::from_utf8_lossy(name);
                write!(f, "an entry of {name:?} is too long for this side, and is left out")
            }
        }
    }
}

/// Why a backplane cannot be made, or a connection of it has failed: one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackplaneError(String);

impl BackplaneError {
    fn new(what: impl Into<String>) -> Self {
        BackplaneError(what.into())
    }
}

impl fmt::Display for BackplaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BackplaneError {}

/// For set-ups, which return that.
impl From<BackplaneError> for Error {
    fn from(error: BackplaneError) -> Self {
        Error::new(
            "cannot start the backplane",
            std::io::Error::new(std::io::ErrorKind::InvalidInput, error),
        )
    }
}
