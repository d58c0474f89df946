//! Errors of layers.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// Which side caused the error, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LayerErrorKind {
    /// The peer sent what the format does not allow.
    Malformed,
    /// A unit, a header or a decompressed message is over its limit.
    TooLarge,
    /// The stream ended in the middle of a unit, or without the format's own end.
    Truncated,
    /// This side refused the peer: an origin that is not allowed, a certificate that does not hold.
    Refused,
    /// The peer refused this side: an alert, an HTTP status that is no upgrade.
    RefusedByPeer,
    /// The message to send cannot be expressed in this format. Only that message is lost: none of
    /// it has been sent, and the next one can be.
    Unencodable,
    /// The layer's own code panicked.
    Panicked,
    /// Something was lost on the way out that the peer needs to understand what follows (a
    /// compressor's window, a cipher's counter moved on): nothing more can be sent.
    OutOfStep,
}

impl fmt::Display for LayerErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LayerErrorKind::Malformed => "malformed",
            LayerErrorKind::TooLarge => "too large",
            LayerErrorKind::Truncated => "truncated",
            LayerErrorKind::Refused => "refused",
            LayerErrorKind::RefusedByPeer => "refused by the peer",
            LayerErrorKind::Unencodable => "cannot be encoded",
            LayerErrorKind::Panicked => "panicked",
            LayerErrorKind::OutOfStep => "out of step",
        })
    }
}

/// The error of a layer: which layer, what kind, what was expected and what arrived.
///
/// It is one pointer, so that what a layer returns for each message stays small.
#[derive(Debug)]
pub struct LayerError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    layer: &'static str,
    kind: LayerErrorKind,
    what: Cow<'static, str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl LayerError {
    /// An error of `layer`; `what` states what was expected and what arrived.
    pub fn new(
        layer: &'static str,
        kind: LayerErrorKind,
        what: impl Into<Cow<'static, str>>,
    ) -> Self {
        LayerError(Box::new(Parts { layer, kind, what: what.into(), source: None }))
    }

    /// The peer sent what the format does not allow.
    pub fn malformed(layer: &'static str, what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(layer, LayerErrorKind::Malformed, what)
    }

    /// A limit was exceeded.
    pub fn too_large(layer: &'static str, what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(layer, LayerErrorKind::TooLarge, what)
    }

    /// The stream ended too early.
    pub fn truncated(layer: &'static str, what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(layer, LayerErrorKind::Truncated, what)
    }

    /// The layer's code panicked, with this message.
    pub(crate) fn panicked(layer: &'static str, text: String) -> Self {
        Self::new(layer, LayerErrorKind::Panicked, text)
    }

    /// The same error with the one that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Which layer it was.
    pub fn layer(&self) -> &'static str {
        self.0.layer
    }

    /// Of what sort.
    pub fn kind(&self) -> LayerErrorKind {
        self.0.kind
    }
}

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.0.layer, self.0.kind, self.0.what)
    }
}

impl Error for LayerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}
