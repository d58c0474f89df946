//! One stream connection: its state, without the calls into its handler.

use std::rc::Rc;

use crate::error::CloseReason;
use crate::options::StreamOptions;
use crate::signal::Signal;
use crate::sys;
use crate::timer::{Chain, Key};
use crate::token::Token;

mod input;
mod link;
mod membership;
mod output;
mod route;
mod transfer;
mod wire;

pub use input::Input;
pub(crate) use input::Tail;
pub(crate) use link::{Carriage, Link};
pub(crate) use membership::Membership;
pub(crate) use output::{KEPT_CAPACITY, Output};
pub(crate) use route::{Attempt, Route};
pub(crate) use transfer::Received;
pub(crate) use wire::{OwnSide, PeerSide, Wire};

/// Where a connection stands in its life. It only ever moves downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// connect(2) goes on.
    Connecting,
    /// The socket stands, the layers are not ready.
    Handshaking,
    /// The handler has been told `on_open`.
    Open,
    /// The socket's output is dead; what the system still hands out is offered, then it ends.
    Failing,
    /// `close` was called: output is flushed, input is discarded.
    Closing,
    /// Everything is flushed and the write side ended; input is discarded until the peer ends too,
    /// because closing with unread input would send a reset that destroys what was flushed.
    Lingering,
    /// Waits to be reaped. Nothing is possible any more.
    Dead,
}

/// The peer's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadSide {
    Open,
    /// The end has been read; the handler has not been told yet.
    Ended,
    /// The handler has been told.
    Told,
}

/// This side's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteSide {
    Open,
    /// Nothing more is accepted; the end follows what is queued.
    Ending,
    Ended,
}

/// What all connections of one listener, or one outgoing connection, share.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) options: StreamOptions,
    /// The listener that accepted it.
    pub(crate) listener: Option<Token>,
}

impl Settings {
    /// The options, made consistent: a queue at its cap has to be above its high mark, or nobody
    /// who was refused would ever be told to go on.
    pub(crate) fn new(mut options: StreamOptions, listener: Option<Token>) -> Rc<Self> {
        options.high_mark = options.high_mark.min(options.output_cap - 1);
        options.low_mark = options.low_mark.min(options.high_mark);
        Rc::new(Settings { options, listener })
    }
}

/// A connection. Small on purpose: an idle one holds no buffer, and what most never need is boxed.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: sys::Stream,
    pub(crate) phase: Phase,
    pub(crate) read: ReadSide,
    pub(crate) write: WriteSide,
    /// Edges seen and not used up. `read_closed` and `urgent` switch the short-read rule off;
    /// `error` is for whoever finds that reading will not meet it.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    pub(crate) read_closed: bool,
    pub(crate) urgent: bool,
    pub(crate) error: bool,
    /// The socket itself has said end-of-stream: nothing unread can be left in it.
    pub(crate) exhausted: bool,
    /// The handler paused reading.
    pub(crate) paused: bool,
    /// Queued output has been above the high mark and is not yet down at the low mark.
    pub(crate) over_high: bool,
    /// `on_drain` is owed.
    pub(crate) drained: bool,
    /// Unread input may be offered: some was taken, or more came.
    pub(crate) fresh: bool,
    /// It stands in the list of connections to flush.
    pub(crate) in_dirty: bool,
    /// The stall deadline is being watched.
    pub(crate) stall_watched: bool,
    /// Somebody else may hold a descriptor of this socket: it was adopted.
    pub(crate) adopted: bool,
    /// While open: the tick when a byte last moved. In every other phase: the tick of its deadline.
    pub(crate) clock: u64,
    pub(crate) settings: Rc<Settings>,
    pub(crate) output: Option<Box<Output>>,
    pub(crate) input: Option<Box<Tail>>,
    pub(crate) extra: Option<Box<Extra>>,
    pub(crate) timers: Chain,
    pub(crate) watchdog: Option<Key>,
}

/// What only some connections need.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// The wire format, if there is one.
    pub(crate) wire: Option<Wire>,
    /// The other connection of a pair.
    pub(crate) link: Option<Link>,
    /// The groups it belongs to.
    pub(crate) memberships: Vec<Membership>,
    /// What was signalled before it was open.
    pub(crate) signals: Vec<Signal>,
    /// Why it is failing or closing, where that is not the ordinary reason.
    pub(crate) reason: Option<CloseReason>,
    /// It failed while it was held back: how many bytes may still be offered. The system may have
    /// kept megabytes, and whoever held it back had a reason.
    pub(crate) last_words: Option<usize>,
    /// While it connects: where it may still go.
    pub(crate) route: Option<Box<Route>>,
    /// Where an accepted connection comes from, until it is open: a socket whose both directions
    /// have ended, or that was reset, does not know any more.
    pub(crate) peer: Option<crate::address::Address>,
}

impl Stream {
    pub(crate) fn new(socket: sys::Stream, phase: Phase, settings: Rc<Settings>) -> Self {
        Stream {
            socket,
            phase,
            read: ReadSide::Open,
            write: WriteSide::Open,
            readable: false,
            // A fresh socket's buffer is empty; if that is wrong, the first write says so.
            writable: phase != Phase::Connecting,
            read_closed: false,
            urgent: false,
            error: false,
            exhausted: false,
            paused: false,
            over_high: false,
            drained: false,
            fresh: false,
            in_dirty: false,
            stall_watched: false,
            adopted: false,
            clock: 0,
            settings,
            output: None,
            input: None,
            extra: None,
            timers: Chain::default(),
            watchdog: None,
        }
    }

    pub(crate) fn options(&self) -> &StreamOptions {
        &self.settings.options
    }

    pub(crate) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_with(Box::default)
    }

    pub(crate) fn wire(&self) -> Option<&Wire> {
        self.extra.as_ref()?.wire.as_ref()
    }

    pub(crate) fn wire_mut(&mut self) -> Option<&mut Wire> {
        self.extra.as_mut()?.wire.as_mut()
    }

    /// What counts against the marks and the cap: bytes queued for the wire, and what those take
    /// that wait for a handshake to be encoded.
    pub(crate) fn queued(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.len())
            + self.wire().map_or(0, |wire| wire.waiting.cost())
    }

    /// The same without the bookkeeping: what a peer would still have got.
    pub(crate) fn unsent(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.len())
            + self.wire().map_or(0, |wire| wire.waiting.len())
    }

    /// After something was queued, `queued` bytes in all: whether that is above the high mark.
    #[inline]
    pub(crate) fn passes_high_mark(&mut self, queued: usize) -> bool {
        let above = queued > self.options().high_mark;
        self.over_high |= above;
        above
    }

    pub(crate) fn unread(&self) -> usize {
        self.input.as_ref().map_or(0, |tail| tail.len())
    }

    /// Whether `send` may still queue something.
    pub(crate) fn accepts_output(&self) -> bool {
        self.write == WriteSide::Open
            && matches!(self.phase, Phase::Connecting | Phase::Handshaking | Phase::Open)
    }

    /// Whether the end of the write side may be written: not before what waits for a layer to be
    /// ready, unless the connection is being closed and waits for nothing more.
    pub(crate) fn may_end_write(&self) -> bool {
        self.is_closing() || self.phase == Phase::Open && self.wire().is_none_or(Wire::is_ready)
    }

    /// Whether the handler is, or is about to be, alive to be told things.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Failing)
    }

    /// The ordinary case: open, without anything that only some connections have, nothing held back,
    /// nothing kept and nothing owed in either direction. What an edge brings can be read and
    /// offered without a further question. An edge that only says "writable" brings nothing: a read
    /// would be one for nothing, and with poll(2), which it arms anew, the next edge for ever.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        self.readable
            && self.phase == Phase::Open
            && self.read == ReadSide::Open
            && self.write == WriteSide::Open
            && self.extra.is_none()
            && self.input.is_none()
            && self.output.is_none()
            && !(self.paused | self.over_high | self.drained | self.error)
    }

    /// Whether `close` was called and its input is being discarded.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing | Phase::Lingering)
    }

    /// Whether it is on its way out.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Failing | Phase::Closing | Phase::Lingering | Phase::Dead)
    }

    /// Makes the coming close a reset; the socket may be too far gone for that.
    pub(crate) fn reset_on_close(&self) {
        if let Err(e) = self.socket.reset_on_close() {
            log::debug!("cannot make the close of {:?} a reset: {e}", self.socket);
        }
    }

    /// The tick at which a deadline may have passed; `None` if none is running.
    pub(crate) fn deadline(&self) -> Option<u64> {
        // The tick a byte moved in may have been almost over: one more, so that nothing is early.
        let after =
            |tick: u64, time| tick.saturating_add(crate::timer::ticks_ceil(time)).saturating_add(1);
        match self.phase {
            Phase::Open => {
                let options = self.options();
                let idle = options.idle_timeout.map(|idle| after(self.clock, idle));
                let stall = self
                    .output
                    .as_ref()
                    .filter(|output| !output.is_empty())
                    .map(|output| after(output.progress, options.stall_timeout));
                let upgrade = self.wire().and_then(|wire| wire.deadline);
                [idle, stall, upgrade].into_iter().flatten().min()
            }
            Phase::Dead => None,
            _ => Some(self.clock),
        }
    }
}
