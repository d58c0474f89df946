//! When two connections have the same wire form of a message.

use std::any::TypeId;

/// What decides a layer's wire form of a message: two layers whose classes are equal encode every
/// message to the same bytes (or to bytes that decode to the same), so that a message to many
/// members is encoded once for each class.
///
/// A layer of one type builds it from its own type and from *everything* that its
/// [`encode_shared`](super::Layer::encode_shared) (by default its [`encode`](super::Layer::encode))
/// depends on, limits on what is sent included: they decide whether a message can be sent at all. A
/// layer that cannot encode without its own state (a cipher) has no class. One that can has
/// (a compressor with a window: `encode_shared` compresses without it, and
/// [`sent_shared`](super::Layer::sent_shared) resets it).
///
/// ```
/// use tidegate::layer::{Layer, Lines, LengthPrefixed};
///
/// assert_eq!(Lines::new().wire_class(), Lines::new().wire_class());
/// assert_ne!(Lines::new().wire_class(), Lines::new().crlf().wire_class());
///
/// let stack = || LengthPrefixed::new(4).then(Lines::new());
/// assert_eq!(stack().wire_class(), stack().wire_class());
/// assert_ne!(stack().wire_class(), Lines::new().wire_class());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WireClass {
    /// From the wire inwards: the layer's type and its parameters.
    layers: Vec<(TypeId, Vec<u8>)>,
}

impl WireClass {
    /// The class of layers of the type `L` without parameters.
    pub fn of<L: 'static>() -> Self {
        WireClass { layers: vec![(TypeId::of::<L>(), Vec::new())] }
    }

    /// The same with a number (a flag, a limit) that the wire form depends on. The order counts.
    #[must_use]
    pub fn with(mut self, parameter: u64) -> Self {
        self.append(&parameter.to_ne_bytes());
        self
    }

    /// The same with bytes that the wire form depends on.
    #[must_use]
    pub fn with_bytes(mut self, parameter: &[u8]) -> Self {
        // The length first, so that two parameters are never taken for two others.
        self.append(&(parameter.len() as u64).to_ne_bytes());
        self.append(parameter);
        self
    }

    fn append(&mut self, bytes: &[u8]) {
        if let Some((_, parameters)) = self.layers.last_mut() {
            parameters.extend_from_slice(bytes);
        }
    }

    /// The class of a stack: this one outside, `inner` inside.
    #[must_use]
    pub(super) fn then(mut self, inner: WireClass) -> Self {
        self.layers.extend(inner.layers);
        self
    }
}
