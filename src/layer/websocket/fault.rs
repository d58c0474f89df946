//! A fault in what the peer sent: the error for this side, and the close code for the other.

use std::borrow::Cow;
use std::fmt;

use crate::layer::LayerError;

use super::{NAME, codes};

/// See the module.
#[derive(Debug)]
pub(super) struct Fault {
    /// Goes to the peer in a Close frame (RFC 6455 section 7.4.1).
    pub(super) code: u16,
    pub(super) error: LayerError,
}

impl Fault {
    /// The peer broke a rule: `got` is what it sent.
    pub(super) fn protocol(got: impl Into<Cow<'static, str>>) -> Fault {
        let error = LayerError::malformed(NAME, format!("the peer sent {}", got.into()));
        Fault { code: codes::PROTOCOL, error }
    }

    /// Text that is none.
    pub(super) fn not_utf8(what: &str) -> Fault {
        let error = LayerError::malformed(NAME, format!("{what} is not UTF-8"));
        Fault { code: codes::NOT_UTF8, error }
    }

    /// Over the limit of that name.
    pub(super) fn too_big(what: &str, size: impl fmt::Display, limit: usize, name: &str) -> Fault {
        let error =
            LayerError::too_large(NAME, format!("{what} of {size} bytes, {name} is {limit}"));
        Fault { code: codes::TOO_BIG, error }
    }
}
