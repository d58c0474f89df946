//! A layer for tests of encoding: a stream whose encoder has state, as that of TLS.

use std::cell::Cell;
use std::rc::Rc;

use tidegate::layer::{Delivery, Item, Layer, LayerContext, LayerError, MessageKind, Step};

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
