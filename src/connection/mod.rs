//! One stream connection: its whole life, without the calls into its handler.
//!
//! The fields of a [`Stream`] are private. Everything goes through the methods of a [`Conn`], which is a
//! stream together with the [`Work`] of the loop, borrowed for one step:
//!
//! | file | is |
//! |---|---|
//! | `life.rs` | the table of endings: (state, event) → (state, effects) |
//! | `open.rs` | from a socket to an open connection |
//! | `read.rs` | edges, reads, input that is kept, the end of the peer's side |
//! | `line.rs` | the order of those with work that no event announces |
//! | `batch.rs` | the call behind the last of the input, for handlers that ask |
//! | `latest.rs`, `newest.rs` | values of which only the newest counts: their way to the queue; their line |
//! | `write.rs` | sends, water marks, flushes; `reply.rs` the shortcut for a callback's own small sends |
//! | `published.rs` | what a group gives it from its log |
//! | `close.rs` | carries out what `life.rs` decides |
//! | `deadline.rs` | the one watchdog timer and what it finds |
//! | `wire.rs` | the state of the layers; `decode.rs` input through them, `encode.rs` output |
//! | `sharing.rs` | what layers have in common with others, for the messages of groups |
//! | `upgrade.rs` | a layer that is put on an open connection (STARTTLS) |
//! | `pair.rs` | what a connection knows of its partner |
//! | `tally.rs` | what it has moved, for those that are asked to count |
//! | `times.rs` | how long callbacks take, where that is asked for |
//! | `work.rs` | the lists, timers and buffers that steps share; what a step notes for others |
//!
//! No file here knows another connection, a handler or the table of tokens. A step's effect on another
//! connection is a [`Note`], which the core applies when the step is done.

use std::rc::Rc;

use crate::address::Address;
use crate::error::CloseReason;
use crate::notification::Notification;
use crate::options::StreamOptions;
use crate::sys;
use crate::timer::{Chain, Key};
use crate::token::Token;

mod batch;
#[cfg(feature = "sim")]
mod census;
mod close;
mod deadline;
mod decode;
mod encode;
mod input;
mod latest;
mod life;
mod line;
mod newest;
mod open;
mod output;
mod pair;
mod pool;
mod published;
mod read;
mod reply;
mod route;
mod sharing;
mod status;
mod tally;
mod times;
mod upgrade;
mod wire;
mod work;
mod write;

pub use input::Input;
pub use newest::NewestStats;
pub use status::SendStatus;

pub(crate) use close::OwnEnd;
pub(crate) use deadline::Fired;
pub(crate) use decode::{Decoded, Message, NextLayered, Outcome, Unit};
pub(crate) use input::Tail;
pub(crate) use life::{Phase, ReadSide, WriteSide};
pub(crate) use line::Served;
pub(crate) use open::{Established, Opening};
pub(crate) use output::{KEPT_CAPACITY, Output};
pub(crate) use pair::{Filled, NextRelayed, Transfer};
pub(crate) use read::{Budget, Next};
pub(crate) use route::{Attempt, Route};
pub(crate) use sharing::{Classes, Sharing};
pub(crate) use wire::Wire;
pub(crate) use work::{Due, Note, PARKED, SENDS_UNTIL_LATE, Work};
pub(crate) use write::DIRECT;

use batch::Listed;
use life::Life;
use newest::Newest;
use pair::Partner;
use tally::Tally;

/// The tick of a deadline that never comes.
const NO_DEADLINE: u64 = u64::MAX;

/// What all connections of one listener, or one outgoing connection, share.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) options: StreamOptions,
    /// The listener that accepted it.
    pub(crate) listener: Option<Token>,
}

impl Settings {
    /// The options, made consistent: a queue at its limit has to be above its high-water mark, or a
    /// sender that was refused would never get `on_drain`.
    pub(crate) fn new(mut options: StreamOptions, listener: Option<Token>) -> Rc<Self> {
        options.high_water = options.high_water.min(options.output_limit - 1);
        options.low_water = options.low_water.min(options.high_water);
        Rc::new(Settings { options, listener })
    }
}

/// A connection. Its size is bounded (`core/table.rs`): an idle one holds no buffer, and what most
/// connections never need is boxed.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: sys::Stream,
    life: Life,
    /// Edges that were reported and not used up. `read_closed` and `urgent` switch the short-read rule
    /// off; `error` matters only where no read will return it.
    readable: bool,
    writable: bool,
    read_closed: bool,
    urgent: bool,
    error: bool,
    /// The handler paused reading.
    paused: bool,
    /// Queued output was above the high-water mark and has not fallen to the low-water mark since.
    over_high: bool,
    /// `on_drain` is pending.
    drained: bool,
    /// Kept input may be offered: some of it was taken, or more has come.
    unread_changed: bool,
    /// Whether it is on the list of those with work left, and whether its handler waits for the end of
    /// a batch.
    listed: Listed,
    /// It is on the list of connections to flush.
    in_dirty: bool,
    /// A second descriptor of this socket may exist: it was adopted.
    adopted: bool,
    /// In `Open`: the tick in which a byte last moved. In every other phase: the tick of its deadline.
    clock: u64,
    settings: Rc<Settings>,
    output: Option<Box<Output>>,
    input: Option<Box<Tail>>,
    extra: Option<Box<Extra>>,
    timers: Chain,
    watchdog: Option<Key>,
}

/// What only some connections need.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// The wire format, if there is one.
    wire: Option<Wire>,
    /// Values of which only the newest counts.
    newest: Option<Box<Newest>>,
    /// The other connection of a pair.
    partner: Option<Partner>,
    /// Notifications posted before it was open.
    notifications: Vec<Notification>,
    /// How many bytes a relay has passed on from here.
    relayed: u64,
    /// What is known of its end.
    ending: Option<Box<Ending>>,
    /// While it connects: the target, the addresses left to try, the attempts.
    route: Option<Box<Route>>,
    /// The peer's address, as accept(2) returned it, until the connection is open: getpeername(2) fails
    /// once both directions have ended, or after a reset.
    peer: Option<Address>,
    /// Holds for pending replies: the default `on_eof` does not close before they are released.
    holds: u32,
    /// It closes as soon as no hold and no `on_drain` is pending.
    closes_when_done: bool,
    /// Bytes that were published to it and could not be delivered, because it had ended.
    lost: usize,
    /// A batch that turns had no room for ends at this tick, if its input is not used up before.
    batch_until: Option<u64>,
    /// What it has moved, if it is to be counted.
    tally: Option<Box<Tally>>,
}

/// What is known of an end that is not the ordinary one, or that takes its time.
#[derive(Debug, Default)]
struct Ending {
    /// Why it is failing or closing, where that is not the ordinary reason.
    reason: Option<CloseReason>,
    /// The end that the format writes, where that is not the ordinary close.
    own_end: Option<OwnEnd>,
    /// Bytes still readable after a failure while reading was held back. Bounded, because the kernel
    /// may hold megabytes that the handler did not ask for.
    failure_allowance: Option<usize>,
    /// While it lingers: the tick at which a peer that goes on sending is cut off.
    linger_end: Option<u64>,
    /// While it lingers: the peer has sent something since the last deadline.
    input_since_deadline: bool,
}

impl Ending {
    fn is_empty(&self) -> bool {
        self.reason.is_none()
            && self.own_end.is_none()
            && self.failure_allowance.is_none()
            && self.linger_end.is_none()
            && !self.input_since_deadline
    }
}

impl Stream {
    pub(crate) fn new(socket: sys::Stream, phase: Phase, settings: Rc<Settings>) -> Self {
        Stream {
            socket,
            life: Life::new(phase),
            readable: false,
            // A new socket's send buffer is empty; if not, the first write returns `WouldBlock`.
            writable: phase != Phase::Connecting,
            read_closed: false,
            urgent: false,
            error: false,
            paused: false,
            over_high: false,
            drained: false,
            unread_changed: false,
            listed: Listed::default(),
            in_dirty: false,
            adopted: false,
            clock: NO_DEADLINE,
            settings,
            output: None,
            input: None,
            extra: None,
            timers: Chain::default(),
            watchdog: None,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.life.phase
    }

    pub(crate) fn socket(&self) -> &sys::Stream {
        &self.socket
    }

    pub(crate) fn socket_mut(&mut self) -> &mut sys::Stream {
        &mut self.socket
    }

    pub(crate) fn options(&self) -> &StreamOptions {
        &self.settings.options
    }

    /// How many bytes a relay has passed on from here.
    pub(crate) fn relayed_bytes(&self) -> u64 {
        self.extra.as_ref().map_or(0, |extra| extra.relayed)
    }

    /// The listener that accepted it.
    pub(crate) fn listener(&self) -> Option<Token> {
        self.settings.listener
    }

    pub(crate) fn wire(&self) -> Option<&Wire> {
        self.extra.as_ref()?.wire.as_ref()
    }

    fn wire_mut(&mut self) -> Option<&mut Wire> {
        self.extra.as_mut()?.wire.as_mut()
    }

    /// Gives the box of rare things back when there is none left, so that an outgoing connection is a
    /// plain one after it has opened.
    fn drop_empty_extra(&mut self) {
        let empty = self.extra.as_ref().is_some_and(|extra| {
            let Extra {
                wire,
                newest,
                partner,
                notifications,
                relayed,
                ending,
                route,
                peer,
                holds,
                closes_when_done,
                lost,
                batch_until,
                tally,
            } = &**extra;
            wire.is_none()
                && newest.is_none()
                && partner.is_none()
                && notifications.is_empty()
                && (*relayed, *holds, *lost) == (0, 0, 0)
                && ending.as_ref().is_none_or(|ending| ending.is_empty())
                && route.is_none()
                && peer.is_none()
                && batch_until.is_none()
                && tally.is_none()
                && !*closes_when_done
        });
        if empty {
            self.extra = None;
        }
    }

    fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_with(Box::default)
    }

    /// The peer's address, as accept(2) returned it or as the socket returns it now.
    pub(crate) fn peer_addr(&self) -> Option<Address> {
        let accepted = self.extra.as_ref().and_then(|extra| extra.peer.clone());
        accepted.or_else(|| self.socket.peer_addr().ok())
    }

    /// Whether the handler may be called: it has had `on_open`, or has it as its next call.
    pub(crate) fn has_callbacks(&self) -> bool {
        matches!(self.life.phase, Phase::Open | Phase::Failing)
    }

    /// Whether `close` was called and its input is being discarded.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.life.phase, Phase::Closing | Phase::Lingering)
    }

    /// Neither closed, nor closing, nor failed: what users call open.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.life.phase, Phase::Connecting | Phase::Handshaking | Phase::Open)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.life.phase == Phase::Dead
    }

    pub(crate) fn is_over_high(&self) -> bool {
        self.over_high
    }

    /// Whether it waits to close until nothing is pending, and nothing is: no hold, no `on_drain`.
    pub(crate) fn is_done(&self) -> bool {
        let Some(extra) = &self.extra else { return false };
        extra.closes_when_done
            && extra.holds == 0
            && !self.drained
            && !self.over_high
            && self.life.phase == Phase::Open
    }

    /// Whether it is on the list of those with work left, and is served from there.
    pub(crate) fn is_in_ready(&self) -> bool {
        self.listed.is_listed()
    }

    /// Whether it is served before others, and with what all of them have allotted to it.
    pub(crate) fn is_trunk(&self) -> bool {
        self.options().trunk
    }

    pub(crate) fn set_in_ready(&mut self, in_ready: bool) -> bool {
        self.listed.set_listed(in_ready)
    }

    pub(crate) fn timers_mut(&mut self) -> Option<&mut Chain> {
        (!self.is_dead()).then_some(&mut self.timers)
    }

    /// Whether its timers and notifications wait for `on_open`.
    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.life.phase, Phase::Connecting | Phase::Handshaking)
    }

    /// A notification for a connection that is not open yet.
    pub(crate) fn park_notification(&mut self, notification: Notification) {
        self.extra_mut().notifications.push(notification);
    }

    pub(crate) fn take_notifications(&mut self) -> Vec<Notification> {
        self.extra.as_mut().map_or_else(Vec::new, |extra| std::mem::take(&mut extra.notifications))
    }

    /// Marks a socket that was made elsewhere.
    pub(crate) fn set_adopted(&mut self) {
        self.adopted = true;
    }

    /// Puts a wire format on a connection that has none.
    pub(crate) fn set_wire(&mut self, wire: Wire) {
        self.extra_mut().wire = Some(wire);
    }

    /// How many bytes that were sent would be lost if it ended now.
    pub(crate) fn unsent(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.len())
            + self.wire().and_then(Wire::waiting).map_or(0, |waiting| waiting.len())
            + self.newest().map_or(0, Newest::bytes)
            + self.extra.as_ref().map_or(0, |extra| extra.lost)
    }

    /// Something was published to it before it ended, and is lost: it counts as unsent.
    pub(crate) fn lose(&mut self, bytes: usize) {
        if bytes > 0 {
            self.extra_mut().lost += bytes;
        }
    }

    #[cfg(test)]
    pub(crate) fn has_no_queue(&self) -> bool {
        self.output.is_none()
    }

    /// What is allocated for undecoded bytes.
    #[cfg(test)]
    pub(crate) fn reserved_for_input(&self) -> usize {
        self.wire().and_then(|wire| wire.undecoded.as_ref()).map_or(0, |tail| tail.capacity())
    }

    #[cfg(test)]
    pub(crate) fn last_moved(&self) -> u64 {
        self.clock
    }

    /// Keeps the peer's address, for when getpeername(2) fails.
    pub(crate) fn set_peer(&mut self, peer: Address) {
        self.extra_mut().peer = Some(peer);
    }

    /// The socket, to be closed; the connection has none any more.
    pub(crate) fn take_socket(&mut self) -> ClosingSocket {
        let lingers = self.adopted || self.options().socket.lingers();
        let socket = std::mem::replace(&mut self.socket, sys::Stream::None);
        ClosingSocket { socket, adopted: self.adopted, lingers }
    }

    /// Takes the connection apart: the socket, its buffers, and what may own something of the user's.
    pub(crate) fn into_parts(mut self) -> Parts {
        let socket = self.take_socket();
        Parts { socket, output: self.output, input: self.input, extra: self.extra }
    }
}

/// A socket at its end.
pub(crate) struct ClosingSocket {
    pub(crate) socket: sys::Stream,
    /// A second descriptor may exist: closing this one does not take it out of the poll.
    pub(crate) adopted: bool,
    /// close(2) might wait.
    pub(crate) lingers: bool,
}

/// What is left of a connection at its end.
pub(crate) struct Parts {
    pub(crate) socket: ClosingSocket,
    pub(crate) output: Option<Box<Output>>,
    pub(crate) input: Option<Box<Tail>>,
    pub(crate) extra: Option<Box<Extra>>,
}

impl Extra {
    fn ending_mut(&mut self) -> &mut Ending {
        self.ending.get_or_insert_default()
    }

    /// Why it is failing or closing, as far as that is known.
    fn reason(&self) -> Option<&CloseReason> {
        self.ending.as_ref()?.reason.as_ref()
    }

    fn take_reason(&mut self) -> Option<CloseReason> {
        self.ending.as_mut()?.reason.take()
    }

    /// Whether its layers are at rest, and nothing else makes the connection a special one.
    fn is_calm(&self) -> bool {
        self.wire.as_ref().is_some_and(Wire::is_calm)
            && self.newest.is_none()
            && self.partner.is_none()
            && self.tally.is_none()
            && !self.closes_when_done
    }

    /// What may own something of the user's, to be dropped one by one.
    pub(crate) fn into_user_parts(self) -> (Vec<Notification>, Option<CloseReason>, Option<Wire>) {
        let reason = self.ending.and_then(|ending| ending.reason);
        (self.notifications, reason, self.wire)
    }
}

/// A connection during one step: the stream, and the loop's lists, timers and buffers.
///
/// The core makes one by a single look-up (`Core::with`) and applies the notes that the step leaves. It
/// is never held across a call into a handler.
pub(crate) struct Conn<'a> {
    pub(crate) token: Token,
    pub(crate) stream: &'a mut Stream,
    pub(crate) work: &'a mut Work,
}

impl Conn<'_> {
    /// Puts the connection on the list of work that no event announces.
    pub(crate) fn make_ready(&mut self) {
        if self.stream.set_in_ready(true) {
            self.work.line.join(self.token, self.stream.is_trunk());
        }
    }

    /// The same for one that has used up its budget: it is served in the next turn.
    pub(crate) fn make_ready_later(&mut self) {
        if self.stream.set_in_ready(true) {
            self.work.line.join_later(self.token, self.stream.is_trunk());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_of_rare_things_goes_when_it_is_empty_and_no_earlier() {
        let settings = Settings::new(StreamOptions::new(), None);
        let mut stream = Stream::new(sys::Stream::None, Phase::Open, settings);
        stream.extra_mut().holds = 1;
        stream.drop_empty_extra();
        assert!(stream.extra.is_some());
        stream.extra_mut().holds = 0;
        stream.drop_empty_extra();
        assert!(stream.extra.is_none());
    }
}
