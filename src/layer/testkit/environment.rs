//! What layers ask of their driver, under the control of a test.

#[cfg(feature = "random")]
use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::super::LayerContext;

#[cfg(feature = "random")]
type Random = Box<dyn Fn(&mut [u8])>;

/// The environment of one layer in a test: a clock that only the test moves, random numbers that are
/// the same in each run, the time that the layer asked to be called at, and the fields that it named.
///
/// ```
/// use tidegate::layer::testkit::Environment;
/// use tidegate::layer::{MessageKind, Layer, Lines};
///
/// let mut environment = Environment::new();
/// let mut wire = Vec::new();
/// Lines::new().encode(&mut environment.cx(), b"hello", MessageKind::Default, &mut wire)?;
/// assert_eq!(wire, b"hello\n");
/// # Ok::<(), tidegate::layer::LayerError>(())
/// ```
pub struct Environment {
    now: Instant,
    call_at: Option<Instant>,
    fields: Vec<Range<usize>>,
    #[cfg(feature = "random")]
    random: Random,
}

impl Environment {
    /// An environment whose clock begins now, with the random numbers of seed 0.
    pub fn new() -> Self {
        Environment {
            now: Instant::now(),
            call_at: None,
            fields: Vec::new(),
            #[cfg(feature = "random")]
            random: Box::new(generator(0)),
        }
    }

    /// The same with other random numbers.
    #[cfg(feature = "random")]
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = Box::new(generator(seed));
        self
    }

    /// The environment of one call.
    pub fn cx(&mut self) -> LayerContext<'_> {
        let cx = LayerContext::new(self.now, &mut self.call_at, &mut self.fields);
        #[cfg(feature = "random")]
        let cx = cx.with_random(&*self.random);
        cx
    }

    /// The time that layers are given.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Moves the clock on. It calls no layer: [`Driver::advance`](super::Driver::advance) does.
    pub fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    /// When the layer asked to be called, if it did.
    pub fn call_at(&self) -> Option<Instant> {
        self.call_at
    }

    /// When the layer asked to be called, if that time has come; it is forgotten then, as a driver
    /// has to before it calls [`Layer::on_time`](super::super::Layer::on_time).
    pub fn take_due(&mut self) -> Option<Instant> {
        self.call_at.take_if(|at| *at <= self.now)
    }

    /// The fields that were named since they were last taken. A driver takes them before each
    /// `decode` as well, to drop them.
    pub fn take_fields(&mut self) -> Vec<Range<usize>> {
        std::mem::take(&mut self.fields)
    }
}

impl Default for Environment {
    fn default() -> Self {
        Environment::new()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("now", &self.now)
            .field("call_at", &self.call_at)
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): any seed will do, and no two calls give the same bytes.
#[cfg(feature = "random")]
fn generator(seed: u64) -> impl Fn(&mut [u8]) {
    let state = Cell::new(seed);
    move |bytes| {
        for chunk in bytes.chunks_mut(8) {
            let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
            state.set(next);
            let mut word = next;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^= word >> 31;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }
}
