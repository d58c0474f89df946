//! What all steps of connections share, and the notes they leave for other connections.

use std::time::{Duration, Instant, SystemTime};

use super::Attempt;
use super::life::Death;
use super::line::Line;
use super::pair::PartnerEnd;
use super::pool::Pool;
use super::read::Budget;
use super::reply::Reply;
use super::times::Times;
use crate::error::CloseReason;
use crate::guard::drop_guarded;
use crate::stats::ReactorStats;
use crate::sys::Clock;
use crate::timer::{Chain, Fine, Owned, Wheel};
use crate::token::{Group, Token};

/// The deadline of timers that are parked until their connection opens. Real deadlines saturate one
/// tick later, so none equals it.
pub(crate) const PARKED: u64 = u64::MAX - 1;

/// How many datagrams leave between two looks at the clock in a turn with a deadline. With `udp-batch`
/// that is one system call.
pub(crate) const SENDS_UNTIL_LATE: usize = 16;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A handler's own, with its tag.
    Handler(Token, u64),
    /// A connection's deadline may have passed.
    Watchdog(Token),
    /// A closure of the reactor's, by its index.
    Call(usize),
    /// A listener that backed off tries again.
    Accept(Token),
}

impl Owned for Due {
    /// `None` is the reactor itself.
    type Owner = Option<Token>;

    fn owner(&self) -> Option<Token> {
        match *self {
            Due::Handler(token, _) | Due::Watchdog(token) | Due::Accept(token) => Some(token),
            Due::Call(_) => None,
        }
    }
}

/// An effect of one connection's step on another connection, the groups or the poll. The core applies
/// the notes when the step is done (`core/notes.rs`), in the order in which they were made.
#[derive(Debug)]
pub(crate) enum Note {
    /// Whether the partner's reads have to wait for this one's queue.
    Hold { partner: Token, held: bool },
    /// The pair is dissolved at this end; the partner still refers to it.
    Unpaired { partner: Token },
    /// One connection of a relay has ended, which decides about its partner.
    Ended { partner: Token, end: PartnerEnd },
    /// Attempts to connect are over: their sockets leave the poll and are closed.
    EndAttempts(Vec<Attempt>),
    /// The connection leaves its groups.
    LeavesGroups(Token),
    /// A value of this group that had to wait for the connection cannot be encoded for it.
    Unencodable(Group),
}

/// The turn's time, the lists of work, the timers, the buffers: everything that a step of a
/// connection uses beside the connection itself. It holds no connection and no handler.
pub(crate) struct Work {
    clock: Clock,
    start: Instant,
    /// The turn's one reading of the clock.
    pub(crate) now: Instant,
    pub(crate) tick: u64,
    pub(crate) timers: Wheel<Due>,
    pub(crate) fine_timers: Fine,
    /// The timers that belong to the reactor itself.
    pub(crate) own_timers: Chain,
    /// Sockets with work that no event announces.
    pub(crate) line: Line,
    /// Connections and UDP sockets with output to flush at the end of the turn.
    pub(crate) dirty: Vec<Token>,
    /// Tokens to reap, and why they ended.
    pub(crate) dead: Vec<(Token, CloseReason)>,
    pub(crate) pool: Pool,
    /// The token whose callback runs: its own output is flushed when it returns, not at the end of the
    /// turn.
    pub(crate) current: Option<Token>,
    pub(crate) reply: Reply,
    pub(crate) notes: Vec<Note>,
    /// Units of work that this turn may still spend on input: a callback with data, a decoded KiB. In a
    /// turn with a deadline they are granted one by one, out of `reserve`.
    pub(crate) units: usize,
    reserve: usize,
    /// How many datagrams a UDP socket may send in a turn.
    pub(crate) sends_per_turn: usize,
    /// How many before it looks whether it may send more: all of them, or less in a turn with a deadline.
    pub(crate) sends_at_once: usize,
    /// When this turn has to end, if it keeps a deadline.
    until: Option<Instant>,
    /// That was seen to have passed.
    late: bool,
    /// The last turn ran out of units: events of this turn are served after what that one left over.
    pub(crate) in_line: bool,
    /// What is counted. The gauges are zero here: they are computed when somebody asks.
    pub(crate) counts: ReactorStats,
    /// Whether callbacks are timed: the one test that a call costs otherwise.
    pub(crate) timed: bool,
    pub(super) times: Times,
}

impl Work {
    pub(crate) fn new(clock: Clock) -> Self {
        let now = clock.now();
        Work {
            clock,
            start: now,
            now,
            tick: 0,
            timers: Wheel::with_capacity(0),
            fine_timers: Fine::default(),
            own_timers: Chain::default(),
            line: Line::default(),
            dirty: Vec::new(),
            dead: Vec::new(),
            pool: Pool::default(),
            current: None,
            reply: Reply::default(),
            notes: Vec::new(),
            units: usize::MAX, // before the first turn
            reserve: 0,
            sends_per_turn: usize::MAX,
            sends_at_once: usize::MAX,
            until: None,
            late: false,
            in_line: false,
            counts: ReactorStats::default(),
            timed: false,
            times: Times::new(now),
        }
    }

    /// Reads the clock for this turn.
    pub(crate) fn read_clock(&mut self) {
        self.now = self.clock.now();
        self.tick = crate::timer::ticks_floor(self.now.saturating_duration_since(self.start));
    }

    /// The time now, which may be a long callback after the turn's.
    pub(crate) fn this_moment(&self) -> Instant {
        self.clock.now()
    }

    /// The time of day now, which may jump.
    pub(crate) fn system_time(&self) -> SystemTime {
        self.clock.system_time()
    }

    /// The tick at which a delay that begins now ends, rounded up so that nothing is early. It does not
    /// count from the turn's time, which may be a long callback ago.
    pub(crate) fn tick_after_this_moment(&self, after: Duration) -> u64 {
        let since_start = self.clock.now().saturating_duration_since(self.start);
        crate::timer::deadline_after(since_start, after)
    }

    /// Makes due what is due by this turn's time.
    pub(crate) fn advance_timers(&mut self) {
        self.fine_timers.release(&mut self.timers, self.now);
        self.timers.advance(self.tick);
    }

    /// The first tick that begins at `at` or later.
    pub(crate) fn tick_of(&self, at: Instant) -> u64 {
        crate::timer::ticks_ceil(at.saturating_duration_since(self.start))
    }

    /// When tick `tick` begins.
    pub(crate) fn instant_of(&self, tick: u64) -> Option<Instant> {
        self.start.checked_add(Duration::from_millis(tick))
    }

    /// Counts a write of a connection.
    #[inline]
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.counts.writes += 1;
        self.counts.bytes_written += bytes as u64;
    }

    /// Charges `units` of work to this turn.
    pub(crate) fn charge(&mut self, units: usize) {
        self.units = self.units.saturating_sub(units);
    }

    /// Whether this turn may spend nothing more on input: its units are used up, or its deadline has
    /// passed.
    #[inline]
    pub(crate) fn is_used_up(&mut self) -> bool {
        self.units == 0 && !self.grant()
    }

    /// Grants the next unit of a turn with a deadline, while that has not passed.
    #[cold]
    fn grant(&mut self) -> bool {
        if self.reserve == 0 || self.is_late() {
            return false;
        }
        self.reserve -= 1;
        self.units = 1;
        true
    }

    /// From here on this turn keeps a deadline. One unit is granted at once: a loop that is always late
    /// goes on too.
    pub(crate) fn keep_deadline(&mut self, until: Instant) {
        self.until = Some(until);
        self.late = false;
        self.reserve = self.units.saturating_sub(1);
        self.units = 1;
        self.sends_at_once = self.sends_per_turn.min(SENDS_UNTIL_LATE);
    }

    /// From here on it keeps none.
    pub(crate) fn forget_deadline(&mut self) {
        if self.until.take().is_some() {
            self.units += std::mem::take(&mut self.reserve);
            self.sends_at_once = self.sends_per_turn;
        }
    }

    /// A trunk is served before the others: what it may use. `answers` are the units of what it is to get in
    /// answer: they are lent to the turn for it, unless the turn keeps a deadline.
    pub(crate) fn begin_trunk(&mut self, answers: usize) -> (Budget, usize) {
        let allotted = self.line.allotted();
        let room = usize::MAX - self.units.max(allotted);
        let answers = if self.keeps_deadline() { 0 } else { answers.min(room) };
        let lent = self.line.lend(answers);
        self.units += lent;
        (Budget::of_trunk(allotted + lent), lent)
    }

    /// It has been served: what it has not used of what was lent is not for others.
    pub(crate) fn end_trunk(&mut self, budget: &Budget, lent: usize) {
        let used = self.line.allotted() + lent - budget.calls;
        self.units = self.units.saturating_sub(self.line.trunk_used(used, lent));
        if self.is_used_up() {
            self.line.trunks_rest();
        }
    }

    /// Whether this turn keeps a deadline.
    pub(crate) fn keeps_deadline(&self) -> bool {
        self.until.is_some()
    }

    /// Whether the deadline of this turn has passed. Reads the clock, if there is one.
    pub(crate) fn is_late(&mut self) -> bool {
        let late = self.until.is_some_and(|until| self.clock.now() >= until);
        if late {
            self.units = 0;
            self.reserve = 0;
            self.late = true;
        }
        late
    }

    /// Whether this turn has seen its deadline pass.
    pub(crate) fn was_late(&self) -> bool {
        self.late
    }

    /// A late turn has left nothing: it does not count as one that ran out of units.
    pub(crate) fn forgive(&mut self) {
        self.late = false;
        self.units = self.units.max(1);
    }

    /// Whether work is left that no event announces.
    pub(crate) fn is_pending(&self) -> bool {
        !(self.line.is_empty() && self.dirty.is_empty() && self.dead.is_empty())
    }
}

/// The reason of a death where none was recorded earlier: the one given with the event, else the
/// ordinary one.
pub(super) fn ordinary(death: Option<Death>, given: Option<CloseReason>) -> CloseReason {
    match (death, given) {
        (Some(Death::BothEnded | Death::Given | Death::Cancelled), Some(reason)) => reason,
        (Some(Death::BothEnded), None) => CloseReason::BothEnded,
        (Some(Death::Cancelled), None) => CloseReason::Cancelled,
        (Some(Death::Aborted), _) => CloseReason::Aborted,
        (Some(Death::Closed | Death::Given) | None, given) => {
            drop_guarded(given);
            CloseReason::Closed
        }
    }
}
