//! Layers to stack: awkward on purpose.

use std::any::{Any, TypeId};

use crate::layer::{
    Delivery, Item, Layer, LayerContext, LayerEnd, LayerError, LayerErrorKind, Lines, MessageKind,
    Step,
};

/// A stream layer with everything that is awkward about TLS: a handshake, records masked with a
/// counter (so that what is lost, doubled or out of order shows), decoded bytes held back and given
/// out four at a time, an alert before it fails, an end of its own that it insists on, a fact.
#[derive(Debug, Default)]
pub(super) struct Veil {
    pub(super) client: bool,
    pub(super) ready: bool,
    pub(super) sent: u8,
    pub(super) received: u8,
    pub(super) held: Vec<u8>,
    pub(super) peer_ended: bool,
    /// Refuses to encode more than this at once, if set.
    pub(super) most: Option<usize>,
    pub(super) fact: VeilFact,
}

const RECORD: usize = 9;
pub(super) const END: u8 = 0;
pub(super) const ALERT: u8 = 255;

#[derive(Debug, Default, PartialEq)]
pub(super) struct VeilFact(pub(super) u8);

impl Veil {
    pub(super) fn client() -> Self {
        Veil { client: true, ..Veil::default() }
    }
    pub(super) fn server() -> Self {
        Veil::default()
    }
    fn mask(counter: &mut u8, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            out.push(byte ^ *counter);
            *counter = counter.wrapping_add(1);
        }
    }
}

impl Layer for Veil {
    fn name(&self) -> &'static str {
        "veil"
    }
    fn delivery(&self) -> Delivery {
        Delivery::Stream
    }
    fn start(&mut self, _: &mut LayerContext<'_>, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        if self.client {
            wire.extend(b"knock\n");
        }
        Ok(())
    }
    fn is_ready(&self) -> bool {
        self.ready
    }
    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        assert!(unit.is_empty());
        if !self.ready {
            if wire.len() < 6 {
                return Ok(Step::new(0, Item::Nothing));
            }
            let expected = if self.client { b"enter\n" } else { b"knock\n" };
            if &wire[..6] != expected {
                reply.push(ALERT);
                return Err(LayerError::malformed("veil", "expected a knock"));
            }
            if !self.client {
                reply.extend(b"enter\n");
            }
            self.ready = true;
            return Ok(Step::new(6, Item::Progress));
        }
        // As rustls: all records there are first, then what they held is given out.
        let mut consumed = 0;
        while let [length, rest @ ..] = &wire[consumed..] {
            match usize::from(*length) {
                _ if *length == END => {
                    self.peer_ended = true;
                    consumed += 1;
                    break;
                }
                length if length > RECORD => {
                    reply.push(ALERT);
                    return Err(LayerError::malformed("veil", "a long record"));
                }
                length => {
                    let Some(record) = rest.get(..length) else { break };
                    Veil::mask(&mut self.received, record, &mut self.held);
                    consumed += 1 + length;
                }
            }
        }
        if !self.held.is_empty() {
            unit.extend(self.held.drain(..self.held.len().min(4)));
            return Ok(Step::new(consumed, Item::Unit));
        }
        Ok(Step::new(consumed, if self.peer_ended { Item::End } else { Item::Nothing }))
    }
    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        assert!(self.ready, "encoded before the veil was ready");
        if self.most.is_some_and(|most| message.len() > most) {
            return Err(LayerError::new("veil", LayerErrorKind::Unencodable, "too much at once"));
        }
        for record in message.chunks(RECORD) {
            wire.push(record.len() as u8);
            Veil::mask(&mut self.sent, record, wire);
        }
        Ok(())
    }
    fn end(&mut self, _: &mut LayerContext<'_>, _: &LayerEnd<'_>, wire: &mut Vec<u8>) {
        wire.push(END);
    }
    fn wire_ended(&mut self, _: &mut LayerContext<'_>, _left: usize) -> Result<(), LayerError> {
        Err(LayerError::truncated("veil", "expected the end record before the end"))
    }
    fn holds_input(&self) -> bool {
        !self.held.is_empty() || self.peer_ended
    }
    fn layer_info(&self, fact: TypeId) -> Option<&dyn Any> {
        (fact == TypeId::of::<VeilFact>()).then_some(&self.fact)
    }
}

/// Lines of a protocol that greets, answers pings, says why it gives up, and says goodbye.
#[derive(Debug, Default)]
pub(super) struct Polite {
    lines: Lines,
}

#[derive(Debug, PartialEq)]
pub(super) struct PoliteFact;

impl Layer for Polite {
    fn name(&self) -> &'static str {
        "polite"
    }
    fn start(&mut self, _: &mut LayerContext<'_>, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        wire.extend(b"hi\n");
        Ok(())
    }
    fn decode(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let mut step = self.lines.decode(cx, wire, unit, reply)?;
        if let Item::Slice(line) = &step.item {
            match &wire[line.clone()] {
                b"ping" => {
                    reply.extend(b"pong\n");
                    step.item = Item::Progress;
                }
                b"bad" => {
                    reply.extend(b"why?\n");
                    return Err(LayerError::malformed("polite", "a bad word"));
                }
                b"bye" => step.item = Item::End,
                _ => {}
            }
        }
        Ok(step)
    }
    fn encode(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        self.lines.encode(cx, message, kind, wire)
    }
    fn end(&mut self, _: &mut LayerContext<'_>, _: &LayerEnd<'_>, wire: &mut Vec<u8>) {
        wire.extend(b"bye\n");
    }
    fn wire_ended(&mut self, cx: &mut LayerContext<'_>, left: usize) -> Result<(), LayerError> {
        self.lines.wire_ended(cx, left)
    }
    fn layer_info(&self, fact: TypeId) -> Option<&dyn Any> {
        (fact == TypeId::of::<PoliteFact>()).then_some(&PoliteFact)
    }
}

/// Ready at its first byte, about which it says `Nothing`; what follows goes through as it is.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    pub(super) ready: bool,
}

impl Layer for Quiet {
    fn name(&self) -> &'static str {
        "quiet"
    }
    fn is_ready(&self) -> bool {
        self.ready
    }
    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        if wire.is_empty() {
            return Ok(Step::new(0, Item::Nothing));
        }
        if !std::mem::replace(&mut self.ready, true) {
            return Ok(Step::new(1, Item::Nothing));
        }
        Ok(Step::new(wire.len(), Item::Slice(0..wire.len())))
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
