//! Layers for tests of encoding: a stream whose encoder has state, as that of TLS; and messages that
//! count who encodes them.

use std::cell::Cell;
use std::rc::Rc;

use tidegate::layer::{
    Delivery, Item, Layer, LayerContext, LayerError, LayerErrorKind, MessageKind, Step, WireClass,
};

/// A stream: each byte is changed by how many went before it. A byte that is lost, doubled or encoded by
/// another one's layer spoils all behind it.
#[derive(Debug, Default)]
pub struct Rolling {
    received: u8,
    sent: u8,
    encoded: Rc<Cell<usize>>,
}

impl Rolling {
    /// Counts in `encoded` how often `encode` is called.
    pub fn counted(encoded: &Rc<Cell<usize>>) -> Self {
        Rolling { encoded: Rc::clone(encoded), ..Rolling::default() }
    }
}

/// What [`Rolling`] makes of `bytes`, where `before` went before them.
pub fn rolled(bytes: &[u8], before: usize) -> Vec<u8> {
    bytes.iter().zip(before..).map(|(byte, at)| byte ^ (at as u8)).collect()
}

impl Layer for Rolling {
    fn name(&self) -> &'static str {
        "rolling"
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
        for byte in &mut *wire {
            *byte ^= self.received;
            self.received = self.received.wrapping_add(1);
        }
        let len = wire.len();
        Ok(Step::new(len, if len == 0 { Item::Nothing } else { Item::Slice(0..len) }))
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        self.encoded.set(self.encoded.get() + 1);
        for byte in message {
            wire.push(byte ^ self.sent);
            self.sent = self.sent.wrapping_add(1);
        }
        Ok(())
    }
}

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
            if self.panics {
                super::panics::panic_on_purpose();
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
