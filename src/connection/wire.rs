//! The layers of one connection: their state, and the messages that wait for their handshake.
//!
//! `decode.rs` calls them with input, `encode.rs` for output.

use std::ops::Range;
use std::time::Instant;

use super::{Settings, Sharing, Tail};
use crate::guard::guarded;
use crate::layer::{Delivery, Item, Layer, LayerContext, LayerError, MessageKind, Step};

/// How far the peer's direction has come, as the layer knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerSide {
    Open,
    /// The layer has been called for the end of the stream below; it yields what that completes.
    Cut,
    /// The layer has decoded the format's own end.
    Ended,
}

/// How far this side's direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnSide {
    /// The layer's handshake goes on: messages wait, unencoded.
    Handshaking,
    Ready,
    /// The format's own end has been written, or the layer has panicked.
    Ended,
}

/// The layers of one connection, and their state.
pub(crate) struct Wire {
    pub(super) layer: Box<dyn Layer>,
    /// Bytes that arrived and are not decoded, if there are any.
    pub(super) undecoded: Option<Box<Tail>>,
    /// The layer may yield something without a new read.
    pub(super) pull: bool,
    pub(super) peer: PeerSide,
    pub(super) own: OwnSide,
    /// The time at which the layer has asked to be called.
    pub(super) call_at: Option<Instant>,
    /// What matters until the layer is ready, if there is anything.
    handshake: Option<Box<Handshake>>,
    /// The layer itself holds a part of a message, since this tick. Noted only for a message timeout.
    pub(super) part_since: Option<u64>,
    /// It was put on in mid-stream and has not decoded anything yet.
    pub(super) unused: bool,
    /// It was put beneath another layer: what that one had decoded came in clear.
    over_decoded: bool,
    /// What it shares with others in groups, and whether it has to be asked again: it has decoded something
    /// since, its peer's end for instance.
    pub(super) sharing: Sharing,
    pub(super) sharing_is_old: bool,
    /// What the layer said when it was ready: before that it yields nothing.
    pub(super) delivery: Delivery,
}

#[derive(Debug, Default)]
struct Handshake {
    /// How many bytes the layer has consumed.
    consumed: usize,
    /// Of a layer that was put on an open connection: the tick of its deadline.
    deadline: Option<u64>,
    waiting: Waiting,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("layer", &self.layer.name()).finish_non_exhaustive()
    }
}

impl super::Stream {
    /// The layer is not called again, not even for its end.
    pub(super) fn disable_layers(&mut self) {
        if let Some(wire) = self.wire_mut() {
            wire.own = OwnSide::Ended;
        }
    }
}

impl Wire {
    pub(crate) fn new(layer: Box<dyn Layer>) -> Self {
        Wire {
            layer,
            undecoded: None,
            pull: false,
            peer: PeerSide::Open,
            own: OwnSide::Handshaking,
            call_at: None,
            handshake: None,
            part_since: None,
            unused: false,
            over_decoded: false,
            sharing: Sharing::Nothing,
            sharing_is_old: true,
            delivery: Delivery::Messages,
        }
    }

    /// The layer that takes the place of `running`, in mid-stream.
    pub(super) fn in_mid_stream(layer: Box<dyn Layer>, over: Option<Waiting>, until: u64) -> Self {
        Wire {
            over_decoded: over.is_some(),
            pull: true,
            unused: true,
            handshake: Some(Box::new(Handshake {
                consumed: 0,
                deadline: Some(until),
                waiting: over.unwrap_or_default(),
            })),
            ..Wire::new(layer)
        }
    }

    pub(crate) fn layer(&self) -> &dyn Layer {
        &*self.layer
    }

    /// Whether the layer's handshake was done when that was last checked.
    pub(crate) fn is_ready(&self) -> bool {
        self.own != OwnSide::Handshaking
    }

    /// The messages that wait for the handshake.
    pub(crate) fn waiting(&self) -> Option<&Waiting> {
        self.handshake.as_ref().map(|handshake| &handshake.waiting)
    }

    /// What they take.
    pub(crate) fn waiting_cost(&self) -> usize {
        self.waiting().map_or(0, Waiting::cost)
    }

    /// A message has to wait for the handshake.
    pub(super) fn wait(&mut self, kind: MessageKind, message: &[u8]) {
        self.handshake.get_or_insert_default().waiting.push(kind, message);
    }

    /// The handshake is over, or goes on with another layer: takes the messages that waited.
    pub(super) fn take_waiting(&mut self) -> Waiting {
        self.handshake.take().map_or_else(Waiting::default, |handshake| handshake.waiting)
    }

    /// When the handshake of a layer that was put on an open connection has to be done.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.handshake.as_ref()?.deadline
    }

    /// The layer has consumed so much more in its handshake. Returns how much that is altogether.
    pub(super) fn consumed_in_handshake(&mut self, more: usize) -> usize {
        let handshake = self.handshake.get_or_insert_default();
        handshake.consumed += more;
        handshake.consumed
    }

    /// Whether it was put on in mid-stream and has not decoded anything yet.
    pub(crate) fn is_unused(&self) -> bool {
        self.unused
    }

    /// Whether it was put on beneath a layer that had decoded bytes in clear.
    pub(super) fn was_put_over_decoded(&self) -> bool {
        self.over_decoded
    }

    /// Whether the format's end has not been written yet. It may be due in a handshake too: the outer
    /// layer of a stack may be ready.
    pub(super) fn owes_end(&self) -> bool {
        self.own != OwnSide::Ended
    }

    /// Checks whether the layer's handshake is done, and records it.
    pub(crate) fn check_ready(&mut self) -> Result<bool, LayerError> {
        if self.own == OwnSide::Handshaking {
            let ready = guarded(|| self.layer.is_ready().then(|| self.layer.delivery()))
                .map_err(|text| LayerError::panicked(self.layer.name(), text))?;
            if let Some(delivery) = ready {
                self.own = OwnSide::Ready;
                self.delivery = delivery;
                if let Some(handshake) = &mut self.handshake {
                    handshake.deadline = None;
                }
            }
        }
        Ok(self.is_ready())
    }

    /// The common case: ready, with nothing that waits to be decoded.
    pub(super) fn is_calm(&self) -> bool {
        self.own == OwnSide::Ready
            && self.peer == PeerSide::Open
            && !(self.pull || self.unused)
            && self.part_since.is_none()
            && self.undecoded.is_none()
    }

    /// One step of decoding. A panic in it is an error.
    #[inline]
    pub(super) fn take_step(
        &mut self,
        now: Instant,
        settings: &Settings,
        bytes: &mut [u8],
        (unit, reply, fields): (&mut Vec<u8>, &mut Vec<u8>, &mut Vec<Range<usize>>),
    ) -> Result<Taken, LayerError> {
        let running = self.peer == PeerSide::Open;
        let mut cx = LayerContext::new(now, &mut self.call_at, fields);
        guarded(|| {
            let step = self.layer.decode(&mut cx, bytes, unit, reply)?;
            step.assert_within(bytes);
            let asked = match step.item {
                Item::Nothing => settings.options.message_timeout.is_some(),
                // Behind the end of the stream the layer has more to yield than it holds.
                Item::Slice(_) | Item::Unit => running && step.consumed == bytes.len(),
                Item::Progress | Item::End => false,
            };
            let holds = asked.then(|| self.layer.holds_input());
            Ok(Taken { step, holds })
        })
        .unwrap_or_else(|text| Err(LayerError::panicked(self.layer.name(), text)))
    }

    /// Calls the layer for something else than to decode. A panic in it is an error.
    #[inline]
    pub(super) fn call<T>(
        &mut self,
        now: Instant,
        call: impl FnOnce(&mut dyn Layer, &mut LayerContext<'_>) -> Result<T, LayerError>,
    ) -> Result<T, LayerError> {
        let mut cx = LayerContext::without_fields(now, &mut self.call_at);
        guarded(|| call(&mut *self.layer, &mut cx))
            .unwrap_or_else(|text| Err(LayerError::panicked(self.layer.name(), text)))
    }
}

/// What a step of decoding came to.
pub(super) struct Taken {
    pub(super) step: Step,
    /// Whether the layer holds input behind it, where that matters.
    pub(super) holds: Option<bool>,
}

/// Messages that were sent before the layer was ready, in their order, not encoded yet.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    bytes: Vec<u8>,
    /// The kind and the length of each message.
    messages: Vec<(MessageKind, usize)>,
}

impl Waiting {
    pub(crate) fn push(&mut self, kind: MessageKind, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.messages.push((kind, message.len()));
    }

    /// The messages' own bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The memory they take, their places in the list included, so that empty messages count too.
    /// (Growing by doubling, the two buffers reserve up to twice as much.)
    pub(crate) fn cost(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.messages)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (MessageKind, &[u8])> {
        let mut rest = &*self.bytes;
        self.messages.iter().map(move |&(kind, len)| {
            let (message, behind) = rest.split_at(len);
            rest = behind;
            (kind, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_wait_keep_their_order_their_bounds_and_their_kinds() {
        let mut waiting = Waiting::default();
        let messages = [
            (MessageKind::Text, &b"one"[..]),
            (MessageKind::Default, b""),
            (MessageKind::Binary, b"three"),
        ];
        for (kind, message) in messages {
            waiting.push(kind, message);
        }
        assert!(waiting.iter().eq(messages));
        assert_eq!(waiting.len(), 8);
    }

    #[test]
    fn an_empty_message_that_waits_costs_its_place() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.cost(), 0);
        for _ in 0..1000 {
            waiting.push(MessageKind::Default, b"");
        }
        assert_eq!((waiting.len(), waiting.cost()), (0, 1000 * size_of::<(MessageKind, usize)>()));
    }
}
