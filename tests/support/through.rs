//! A layer for tests of what stands on a stream format.

use tidegate::layer::{Delivery, Item, Layer, LayerContext, LayerError, MessageKind, Step};

/// A stream format: what it reads and writes passes as it is.
pub struct Through;

impl Layer for Through {
    fn name(&self) -> &'static str {
        "through"
    }

    fn delivery(&self) -> Delivery {
        Delivery::Stream
    }

    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let item = if wire.is_empty() { Item::Nothing } else { Item::Slice(0..wire.len()) };
        Ok(Step::new(wire.len(), item))
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.extend_from_slice(message);
        Ok(())
    }
}
