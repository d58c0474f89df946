//! The endings of a connection as a table: (state, event) → (state, effects).
//!
//! Nothing here touches a socket, a queue or a timer. [`Life`] is the state that decides how a connection
//! ends; [`Life::after`] returns the next state and the effects that it needs. The effects are carried
//! out in one place (`close.rs`), always in the same order. A close, a half-close, an abort, a
//! failed write and a deadline all pass through this table; reading, queues and layers do not, because
//! they decide nothing about an ending.

/// The stage of a connection's life. It only ever moves downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    /// connect(2) is under way.
    Connecting,
    /// The transport is established, the layers are not ready.
    Handshaking,
    /// The layers are ready. `on_open` is the handler's first call.
    Open,
    /// A write has failed. Input that is still readable is offered, then the connection ends.
    Failing,
    /// `close` was called: output is flushed, input is discarded.
    Closing,
    /// Everything is flushed and the write side has ended. Input is discarded until the peer ends
    /// too: close(2) with unread input sends a reset, which destroys what the peer has not read yet.
    Lingering,
    /// Waits to be reaped.
    Dead,
}

/// The peer's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ReadSide {
    Open,
    /// The end has been read; `on_eof` is due.
    Ended,
    /// The end has been passed on: to the handler, or by a relay.
    Delivered,
}

/// This side's direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum WriteSide {
    Open,
    /// Nothing more is accepted; the end follows what is queued.
    Ending,
    Ended,
}

/// How far a connection has come towards its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)] // in this order, for `is_plain`
pub(crate) struct Life {
    pub(crate) phase: Phase,
    pub(crate) read: ReadSide,
    pub(crate) write: WriteSide,
    /// A read of the socket returned end-of-stream: nothing unread can be left in it. (A layer may have
    /// reported the end earlier.)
    pub(crate) exhausted: bool,
}

/// An event that may move a connection towards its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// The transport is established.
    Established,
    /// Every layer is ready.
    Opened,
    /// A graceful close: requested, or for an error of the handler or of a layer.
    Close,
    /// The same of one that may still be in its handshake: what its layer has written is flushed.
    CloseHandshake,
    /// A half-close. `ready`: the layers are ready, so the format's own end can be written.
    EndWrite {
        ready: bool,
    },
    /// Everything that was queued before the end of the write side has been written.
    Flushed,
    /// A read returned zero.
    SocketEnd,
    /// The layer has decoded the format's own end.
    FormatEnd,
    /// The end has been passed on to the handler, or to the other connection of a relay.
    EndDelivered,
    /// A relay that had passed the end on was dissolved: the handler has not been called for it.
    EndUndelivered,
    /// A write has failed.
    OutputFailed,
    /// Nothing more can be read from a connection that fails or lingers.
    InputUsedUp,
    /// The peer of a lingering connection has neither ended nor sent anything in time.
    Quiet,
    Abort,
    /// A deadline has passed.
    TimeUp,
    /// At once, for the reason that comes with it.
    Die,
}

/// The reason of a death, where none was recorded earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Death {
    BothEnded,
    Closed,
    Cancelled,
    Aborted,
    /// The reason given with the event: an error, a deadline.
    Given,
}

/// What has to be done after an event, in the order of the constants, the death last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Effects {
    bits: u16,
    pub(crate) death: Option<Death>,
}

impl Effects {
    /// Kept input is dropped, a pause ends, user timers are cancelled, groups are left.
    pub(crate) const LET_GO: u16 = 1;
    /// The pair is dissolved; in a relay the partner is notified of the end.
    pub(crate) const UNPAIR: u16 = 1 << 1;
    /// Input is read to its end, also after a short read.
    pub(crate) const READ_ALL: u16 = 1 << 2;
    /// The deadline of a close begins.
    pub(crate) const CLOSE_DEADLINE: u16 = 1 << 3;
    /// The format's own end is queued, and the connection is put on the dirty list.
    pub(crate) const WRITE_END: u16 = 1 << 4;
    /// shutdown(2) of the write side.
    pub(crate) const SHUT: u16 = 1 << 5;
    /// The coming close(2) is to be a reset.
    pub(crate) const RESET: u16 = 1 << 6;
    /// The connection is put on the ready list: no event will announce its work.
    pub(crate) const SERVE: u16 = 1 << 7;

    fn of(bits: u16) -> Self {
        Effects { bits, death: None }
    }

    fn dies(death: Death) -> Self {
        Effects { bits: 0, death: Some(death) }
    }

    fn and(self, bits: u16) -> Self {
        Effects { bits: self.bits | bits, ..self }
    }

    pub(crate) fn has(self, bit: u16) -> bool {
        self.bits & bit != 0
    }
}

impl Life {
    /// Whether it is open, and nothing of it has ended.
    #[inline(always)]
    pub(crate) fn is_plain(self) -> bool {
        // One comparison, and not four: each message asks.
        fn number(life: Life) -> u32 {
            let Life { phase, read, write, exhausted } = life;
            u32::from_ne_bytes([phase as u8, read as u8, write as u8, u8::from(exhausted)])
        }
        number(self) == number(Life::new(Phase::Open))
    }

    pub(crate) fn new(phase: Phase) -> Self {
        Life { phase, read: ReadSide::Open, write: WriteSide::Open, exhausted: false }
    }

    /// The table. Inlined, because nearly every caller passes a constant event, which leaves a few
    /// comparisons of the table.
    #[inline(always)]
    pub(crate) fn after(self, event: Event) -> (Life, Effects) {
        use Phase::{Closing, Connecting, Dead, Failing, Handshaking, Lingering, Open};
        let same = (self, Effects::default());
        let to = |phase| Life { phase, ..self };
        match (self.phase, event) {
            (Dead, _) => same,
            (_, Event::Die) => (to(Dead), Effects::dies(Death::Given)),

            (Connecting, Event::Established) => (to(Handshaking), Effects::default()),
            (Handshaking, Event::Opened) => (to(Open), Effects::default()),

            (Connecting | Handshaking, Event::Close | Event::Abort) => {
                (to(Dead), Effects::dies(Death::Cancelled))
            }
            (_, Event::Abort) => (to(Dead), Effects::dies(Death::Aborted).and(Effects::RESET)),

            (Open, Event::Close | Event::CloseHandshake) => self.close(),
            (Handshaking, Event::CloseHandshake) => to(Open).close(),
            (Connecting, Event::CloseHandshake) => (to(Dead), Effects::dies(Death::Cancelled)),
            // Nothing can be flushed any more, and a close needs no more input.
            (Failing, Event::Close | Event::CloseHandshake) => {
                (to(Dead), Effects::dies(Death::Closed))
            }

            (Open | Closing, Event::EndWrite { ready }) => self.end_write(ready),
            (Connecting | Handshaking, Event::EndWrite { .. }) if self.write == WriteSide::Open => {
                (Life { write: WriteSide::Ending, ..self }, Effects::default())
            }

            // close(2) sends the end, and no unread input is left to make it a reset.
            (Closing, Event::Flushed) if self.exhausted => self.both_ended(),
            (Closing, Event::Flushed) => (
                Life { phase: Lingering, write: WriteSide::Ended, ..self },
                Effects::of(Effects::SHUT | Effects::CLOSE_DEADLINE | Effects::SERVE),
            ),
            (Open, Event::Flushed) => {
                let ended = Life { write: WriteSide::Ended, ..self };
                let (life, effects) = ended.if_both_ended();
                (life, effects.and(Effects::SHUT))
            }

            (phase, Event::SocketEnd) => {
                let ends = self.read == ReadSide::Open && !matches!(phase, Closing | Lingering);
                let read = if ends { ReadSide::Ended } else { self.read };
                (Life { read, exhausted: true, ..self }, Effects::default())
            }
            (_, Event::FormatEnd) if self.read == ReadSide::Open => {
                (Life { read: ReadSide::Ended, ..self }, Effects::default())
            }
            (Open, Event::EndDelivered) => {
                Life { read: ReadSide::Delivered, ..self }.if_both_ended()
            }
            (_, Event::EndDelivered) => {
                (Life { read: ReadSide::Delivered, ..self }, Effects::default())
            }
            (Open, Event::EndUndelivered) if self.read == ReadSide::Delivered => {
                (Life { read: ReadSide::Ended, ..self }, Effects::of(Effects::SERVE))
            }

            (Open, Event::OutputFailed) if self.read != ReadSide::Delivered => (
                Life { phase: Failing, write: WriteSide::Ended, ..self },
                Effects::of(Effects::READ_ALL | Effects::CLOSE_DEADLINE | Effects::SERVE),
            ),
            (Failing, Event::OutputFailed) => same,
            (_, Event::OutputFailed) => (to(Dead), Effects::dies(Death::Given)),

            (Failing, Event::InputUsedUp) => (to(Dead), Effects::dies(Death::BothEnded)),
            (Lingering, Event::InputUsedUp) => {
                let both = self.read != ReadSide::Open;
                let death = if both { Death::BothEnded } else { Death::Closed };
                (to(Dead), Effects::dies(death))
            }

            (Lingering, Event::Quiet) => (to(Dead), Effects::dies(Death::Closed)),

            (_, Event::TimeUp) => (to(Dead), Effects::dies(Death::Given)),

            (
                _,
                Event::Close
                | Event::CloseHandshake
                | Event::Quiet
                | Event::EndWrite { .. }
                | Event::Flushed
                | Event::FormatEnd
                | Event::EndUndelivered
                | Event::InputUsedUp
                | Event::Established
                | Event::Opened,
            ) => same,
        }
    }

    /// A graceful close of an open connection.
    fn close(self) -> (Life, Effects) {
        let mut bits = Effects::LET_GO | Effects::UNPAIR | Effects::SERVE;
        let phase = match self.write {
            WriteSide::Ended if self.exhausted => return self.both_ended(),
            WriteSide::Ended => {
                bits |= Effects::CLOSE_DEADLINE;
                Phase::Lingering
            }
            // The close deadline begins when all is flushed. Until then only the stall deadline runs.
            WriteSide::Open | WriteSide::Ending => {
                bits |= Effects::WRITE_END;
                Phase::Closing
            }
        };
        let write = if phase == Phase::Closing { WriteSide::Ending } else { self.write };
        (Life { phase, write, ..self }, Effects::of(bits))
    }

    /// A half-close of a connection that is open or closing.
    fn end_write(self, ready: bool) -> (Life, Effects) {
        if self.write == WriteSide::Ended {
            return (self, Effects::default());
        }
        let bits = if ready || self.phase == Phase::Closing { Effects::WRITE_END } else { 0 };
        (Life { write: WriteSide::Ending, ..self }, Effects::of(bits))
    }

    /// Closes an open connection whose both directions have ended. If only a layer has reported the
    /// peer's end, the close waits for the socket's.
    fn if_both_ended(self) -> (Life, Effects) {
        if self.read != ReadSide::Delivered || self.write != WriteSide::Ended {
            (self, Effects::default())
        } else if self.exhausted {
            self.both_ended()
        } else {
            self.close()
        }
    }

    fn both_ended(self) -> (Life, Effects) {
        (Life { phase: Phase::Dead, ..self }, Effects::dies(Death::BothEnded))
    }
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
