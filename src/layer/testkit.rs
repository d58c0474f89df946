//! Tools to test a [`Layer`] of your own. The built-in layers are tested with them.
//!
//! * [`Driver`] runs one layer in memory, the way a connection does, and panics as soon as the
//!   layer breaks its side of the [contract](super).
//! * [`every_split`] feeds a transcript split in every relevant way, and panics unless the result is
//!   the same each time: bugs of wire formats appear at the split that was never tried.
//! * [`Pair`] connects a client's and a server's layer in memory.
//! * [`Environment`] is what a layer gets from its driver at each call: for a test that calls a layer
//!   directly, and inside of the three above.
//!
//! The first three panic instead of returning errors: they are for tests and fuzzers, not for
//! production.
//!
//! ```
//! use tidegate::layer::testkit::{Ending, Pair, every_split};
//! use tidegate::layer::{LayerErrorKind, Lines};
//!
//! let outcome = every_split(Lines::new, b"one\r\ntwo\n", Ending::Ended);
//! assert_eq!(outcome.messages(), [b"one", b"two"]);
//! assert_eq!(outcome.error_kind(), None);
//!
//! let outcome = every_split(|| Lines::new().line_limit(3), b"one\nfour\n", Ending::Open);
//! assert_eq!(outcome.messages(), [b"one"]);
//! assert_eq!(outcome.error_kind(), Some(LayerErrorKind::TooLarge));
//!
//! let mut pair = Pair::new(Lines::new(), Lines::new().crlf()).chunks(1, 2);
//! pair.handshake();
//! pair.carries(&[b"hello", b"", b"world"]);
//! pair.close();
//! ```

mod driver;
mod environment;
mod pair;
mod splits;

#[cfg(doc)]
use super::Layer;

pub use driver::{Driver, Unit};
pub use environment::Environment;
pub use pair::Pair;
pub use splits::{Ending, Outcome, every_split, outcome_of};

#[cfg(test)]
mod tests;
