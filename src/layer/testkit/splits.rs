//! One transcript, cut in every way that matters.

use super::super::{Layer, LayerErrorKind};
use super::driver::{Driver, Unit};

/// Up to this length every pair of cuts is tried (about 2,000 runs), which finds what happens in
/// the middle of a middle.
const PAIRS_UP_TO: usize = 64;

/// At most so many single cuts are tried; in a longer transcript they are spread evenly, because
/// every position would make the work quadratic.
const SINGLE_CUTS: usize = 4096;

/// What follows behind a transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Nothing yet: the stream stays open.
    Open,
    /// The end of the stream.
    Ended,
}

/// The result of a layer for a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What it yielded; of a [`Delivery::Stream`](crate::layer::Delivery) one unit with all of it.
    pub units: Vec<Unit>,
    /// What it sent to the peer by itself, at its start and in reply.
    pub replies: Vec<u8>,
    /// Whether it was ready in the end.
    pub ready: bool,
    /// Whether it yielded [`Item::End`](crate::layer::Item::End).
    pub ended: bool,
    /// Which layer failed, and how, if one did.
    pub error: Option<(&'static str, LayerErrorKind)>,
}

impl Outcome {
    /// The bytes of the units.
    pub fn messages(&self) -> Vec<&[u8]> {
        self.units.iter().map(|unit| unit.bytes.as_slice()).collect()
    }

    /// How the layer failed, if it did.
    pub fn error_kind(&self) -> Option<LayerErrorKind> {
        self.error.map(|(_, kind)| kind)
    }

    fn of<L: Layer>(mut driver: Driver<L>, ending: Ending) -> Self {
        driver.pull();
        if ending == Ending::Ended {
            driver.end_of_wire();
        }
        Outcome {
            units: driver.take_units(),
            replies: driver.take_wire(),
            ready: driver.is_ready(),
            ended: driver.has_ended(),
            error: driver.error().map(|error| (error.layer(), error.kind())),
        }
    }
}

/// What a new layer makes of `pieces` that arrive one after the other.
pub fn outcome_of<'a, L: Layer>(
    layer: L,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    ending: Ending,
) -> Outcome {
    let mut driver = Driver::new(layer);
    for piece in pieces {
        driver.feed(piece);
    }
    Outcome::of(driver, ending)
}

/// What a new layer of those that `make` makes does with `wire`, which must be the same for
/// * all at once,
/// * byte by byte,
/// * byte by byte, the layer asked again after each without new bytes,
/// * byte by byte, with one step for each byte and the others at the end (back-pressure),
/// * two pieces, for every place to cut (of a transcript over 4 KiB, for 4,096 places),
/// * three pieces, for every pair of places, if the transcript has up to 64 bytes.
///
/// And wherever the layer has left nothing and reports that it [holds](Layer::holds_input) nothing,
/// the stream may end without notice: what it had consumed there was whole. (Of a layer that is
/// ready from the start and takes an empty stream for a whole one; for others this cannot be
/// checked from outside.)
///
/// The layer must do the same each time. One that draws its random numbers from
/// [`LayerContext::random`](crate::layer::LayerContext) does: each run begins with the same numbers.
/// One with randomness of its own (TLS) is tested with a [`Pair`](super::Pair).
///
/// # Panics
/// When the result depends on the cut, when the layer holds more than it reports, or breaks the
/// contract in another way (see [`Driver`]).
pub fn every_split<L: Layer>(make: impl Fn() -> L, wire: &[u8], ending: Ending) -> Outcome {
    let whole = outcome_of(make(), [wire], ending);
    let compare = |outcome: Outcome, how: &dyn Fn() -> String| {
        assert!(
            outcome == whole,
            "the result depends on how the bytes arrive\n all at once: {whole:?}\n {}: {outcome:?}",
            how()
        );
    };

    compare(outcome_of(make(), wire.chunks(1), ending), &|| "byte by byte".into());

    let mut asked_again = Driver::new(make());
    for byte in wire.chunks(1) {
        asked_again.feed(byte);
        asked_again.ask_again();
    }
    compare(Outcome::of(asked_again, ending), &|| "byte by byte, each asked twice".into());

    let mut slow = Driver::new(make());
    for byte in wire.chunks(1) {
        slow.push(byte);
        slow.step();
    }
    compare(Outcome::of(slow, ending), &|| "byte by byte, one step for each".into());

    let may_end_early = {
        let mut driver = Driver::new(make());
        let ready = driver.is_ready();
        driver.end_of_wire();
        ready && driver.error().is_none()
    };
    for cut in (1..wire.len()).step_by(wire.len().div_ceil(SINGLE_CUTS).max(1)) {
        let (first, second) = wire.split_at(cut);
        compare(outcome_of(make(), [first, second], ending), &|| format!("cut at {cut}"));
        if may_end_early {
            check_what_is_held(make(), first);
        }
    }

    if wire.len() <= PAIRS_UP_TO {
        for to in 1..wire.len() {
            for from in 1..to {
                let pieces = [&wire[..from], &wire[from..to], &wire[to..]];
                compare(outcome_of(make(), pieces, ending), &|| format!("cut at {from} and {to}"));
            }
        }
    }
    whole
}

/// If the layer reports that it holds nothing of `wire`, checks that this is so.
fn check_what_is_held<L: Layer>(layer: L, wire: &[u8]) {
    let mut driver = Driver::new(layer);
    driver.feed(wire);
    if driver.is_over() || driver.left() > 0 || driver.layer().holds_input() {
        return;
    }
    driver.take_units();
    driver.end_of_wire();
    let (more, error) = (driver.take_units().len(), driver.error());
    assert!(
        more == 0 && error.is_none(),
        "{}: said that it held no input after {} bytes, but their end yielded {more} units, {error:?}",
        driver.layer().name(),
        wire.len()
    );
}
