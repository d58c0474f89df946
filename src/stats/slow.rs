//! Callbacks that took too long, by name.

use std::fmt;
use std::time::Duration;

use crate::token::Token;

/// A callback that took as long as [`Config::slow_callback`](crate::Config::slow_callback) or longer.
///
/// [`Net::on_slow_callback`](crate::Net::on_slow_callback) gets each one. Its text is the line that is
/// logged: `chat::Member::on_data of 3.1 took 12.3ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowCallback {
    /// The type of the handler ([`Handler::handler_name`](crate::Handler::handler_name)); of a listener,
    /// the type of the handlers that it makes; of a custom source, the source's type. `closure` for
    /// closures, `Reactor` for a whole turn.
    pub handler: &'static str,
    /// The callback (`on_data`, `on_timer` and so on). Of a listener it is `filter`, `layer`, `factory`
    /// or `on_unopened`, of a UDP socket with sessions `admit`; of a source `on_ready`; of closures
    /// `post`, `run_after` or `done` (of a job).
    ///
    /// `turn` is a whole turn, without the wait for events, that took so long without one callback that
    /// did: ten callbacks of a tenth delay the next event as much.
    pub callback: &'static str,
    /// The connection, UDP socket, listener or source; `None` for closures and turns.
    pub token: Option<Token>,
    /// How long it took, by the monotonic clock: also the time in which the system ran something else.
    pub took: Duration,
}

impl fmt::Display for SlowCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.handler, self.callback)?;
        if let Some(token) = self.token {
            write!(f, " of {token}")?;
        }
        write!(f, " took {:.1?}", self.took)
    }
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callback {
    Open,
    Data,
    BatchEnd,
    Drain,
    Eof,
    Timer,
    Notify,
    Close,
    Datagram,
    Error,
    Ready,
    Filter,
    Layer,
    Admit,
    Factory,
    Unopened,
    Post,
    RunAfter,
    Done,
}

impl Callback {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Callback::Open => "on_open",
            Callback::Data => "on_data",
            Callback::BatchEnd => "on_batch_end",
            Callback::Drain => "on_drain",
            Callback::Eof => "on_eof",
            Callback::Timer => "on_timer",
            Callback::Notify => "on_notify",
            Callback::Close => "on_close",
            Callback::Datagram => "on_datagram",
            Callback::Error => "on_error",
            Callback::Ready => "on_ready",
            Callback::Filter => "filter",
            Callback::Layer => "layer",
            Callback::Admit => "admit",
            Callback::Factory => "factory",
            Callback::Unopened => "on_unopened",
            Callback::Post => "post",
            Callback::RunAfter => "run_after",
            Callback::Done => "done",
        }
    }

    /// Whether it follows from readiness, so that it has waited since the poll returned.
    #[cfg(feature = "histograms")]
    pub(crate) fn is_for_an_event(self) -> bool {
        !matches!(
            self,
            Callback::Timer
                | Callback::Notify
                | Callback::Close
                | Callback::Unopened
                | Callback::Post
                | Callback::RunAfter
                | Callback::Done
        )
    }
}
