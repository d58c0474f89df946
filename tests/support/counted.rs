//! A layer for tests of encoding: messages, and how often one was encoded.

use std::cell::Cell;
use std::rc::Rc;

use tidegate::layer::{
    Item, Layer, LayerContext, LayerError, LayerErrorKind, MessageKind, Step, WireClass,
};

use super::panics::panic_on_purpose;

/// Messages: their length, one byte, in front of them, and the number of the class. Those of over 255
/// bytes it cannot carry.
#[derive(Debug, Default)]
pub struct Counted {
    /// `None`: it has no class, each member's own encoder is asked.
    pub class: Option<u8>,
    /// How often `encode` was called.
    pub encoded: Rc<Cell<usize>>,
    /// It fails for this message, and is not to be used behind it.
    pub fails_at: Option<&'static [u8]>,
    pub panics: bool,
    /// Instead it empties the buffer that it was to append to.
    pub takes_away: bool,
}

impl Counted {
    pub fn of(class: impl Into<Option<u8>>, encoded: &Rc<Cell<usize>>) -> Self {
        Counted { class: class.into(), encoded: Rc::clone(encoded), ..Counted::default() }
    }
}

impl Layer for Counted {
    fn name(&self) -> &'static str {
        "counted"
    }

    /// What comes is dropped.
    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        Ok(Step::new(wire.len(), Item::Nothing))
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        self.encoded.set(self.encoded.get() + 1);
        if self.fails_at == Some(message) {
            if self.takes_away {
                wire.clear();
                return Ok(());
            }
            if self.panics {
                panic_on_purpose();
            }
            return Err(LayerError::new("counted", LayerErrorKind::OutOfStep, "no more"));
        }
        let Ok(len) = u8::try_from(message.len()) else {
            return Err(LayerError::new("counted", LayerErrorKind::Unencodable, "too long"));
        };
        wire.extend([self.class.unwrap_or(0), len]);
        wire.extend_from_slice(message);
        Ok(())
    }

    fn wire_class(&self) -> Option<WireClass> {
        Some(WireClass::of::<Counted>().with(self.class?.into()))
    }
}
