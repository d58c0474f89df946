//! What all targets share: an input is a few option bytes, then a transcript.

pub mod codec;

use tidegate::layer::testkit::{Driver, Ending, Outcome, outcome_of};
use tidegate::layer::{Delivery, MessageKind, Layer};

/// The option bytes of an input, taken one after the other. Where the input is over they are zero,
/// so that every input means something.
#[derive(Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    /// Reads options from the front of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Options { rest: input }
    }

    /// The next option byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        first
    }

    /// The next option byte, as a number below `end`.
    pub fn below(&mut self, end: u8) -> usize {
        usize::from(self.byte() % end)
    }

    /// The next option byte, as yes or no.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// The next `count` bytes, or what is left.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// How the transcript is cut (two more option bytes) and the transcript (all the rest).
    pub fn transcript(mut self) -> Transcript<'a> {
        let cuts = self.byte();
        let ending = if self.flag() { Ending::Ended } else { Ending::Open };
        Transcript { wire: self.rest, cuts, ending }
    }
}

/// Bytes for a layer, and how they arrive.
#[derive(Debug)]
pub struct Transcript<'a> {
    wire: &'a [u8],
    cuts: u8,
    ending: Ending,
}

impl Transcript<'_> {
    /// What follows behind the transcript.
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// Runs the transcript through layers that `make` makes: all at once, in pieces, and in pieces
    /// with one step for each; the result must be the same. The [`Driver`] checks the contract.
    pub fn check<L: Layer>(&self, make: impl Fn() -> L) -> Outcome {
        let whole = outcome_of(make(), [self.wire], self.ending);
        assert_eq!(outcome_of(make(), self.pieces(), self.ending), whole, "in pieces");

        let mut slow = Driver::new(make());
        for piece in self.pieces() {
            slow.push(piece);
            slow.step();
        }
        slow.pull();
        slow.ask_again();
        if self.ending == Ending::Ended {
            slow.end_of_wire();
        }
        assert_eq!(slow.take_units(), whole.units, "in pieces, pulled slowly");
        assert_eq!(slow.error_kind(), whole.error_kind(), "in pieces, pulled slowly");
        whole
    }

    /// Sizes repeat from 1 to `cuts`: small ones find the middle of every header.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.wire;
        let mut size = 0;
        std::iter::from_fn(move || {
            size = size % usize::from(self.cuts.max(1)) + 1;
            let (piece, after) = rest.split_at(size.min(rest.len()));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// Sends `messages` on through a new layer of those that `make` makes: what can be sent must arrive
/// as it was, byte by byte. Returns how many could not be sent.
pub fn check_sent_on<L: Layer>(make: impl Fn() -> L, messages: &[&[u8]]) -> usize {
    let mut from = Driver::new(make());
    let sent: Vec<&[u8]> =
        messages.iter().filter(|m| from.send(m, MessageKind::Default).is_ok()).copied().collect();
    let outcome = outcome_of(make(), from.take_wire().chunks(1), Ending::Ended);
    assert_eq!(outcome.error, None);
    if from.layer().delivery() == Delivery::Stream {
        assert_eq!(outcome.messages().concat(), sent.concat());
    } else {
        assert_eq!(outcome.messages(), sent);
    }
    messages.len() - sent.len()
}
