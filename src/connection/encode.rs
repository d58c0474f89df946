//! Output through layers: what a layer writes goes straight into the output queue.

use super::wire::OwnSide;
use super::{Conn, Phase};
use crate::layer::{Layer, LayerContext, LayerEnd, LayerError, MessageKind};

impl Conn<'_> {
    /// Lets the layer write its opening (a ClientHello, an upgrade request).
    pub(super) fn start_format(&mut self) -> Result<(), LayerError> {
        self.write_with_layer(|layer, cx, buffer| layer.start(cx, buffer))
    }

    /// Appends the wire form of one message to the queue.
    pub(super) fn encode(&mut self, bytes: &[u8], kind: MessageKind) -> Result<(), LayerError> {
        self.write_with_layer(|layer, cx, buffer| layer.encode(cx, bytes, kind, buffer))
    }

    /// Appends what goes before the message's own bytes to the queue. `false` if the format is not of
    /// that sort.
    pub(super) fn encode_head(
        &mut self,
        bytes: &[u8],
        kind: MessageKind,
    ) -> Result<bool, LayerError> {
        self.write_with_layer(|layer, cx, buffer| layer.encode_head(cx, bytes, kind, buffer))
    }

    /// Appends the wire form of one message to the running callback's reply.
    pub(super) fn encode_reply(
        &mut self,
        bytes: &[u8],
        kind: MessageKind,
    ) -> Result<(), LayerError> {
        let now = self.work.now;
        let Some(wire) = self.stream.wire_mut() else { return Ok(()) };
        let called_at = wire.call_at;
        let buffer = self.work.reply.encoded();
        let before = buffer.len();
        let written = wire.call(now, |layer, cx| layer.encode(cx, bytes, kind, buffer));
        if written.is_err() {
            buffer.truncate(before);
        }
        if wire.call_at != called_at {
            self.watch();
        }
        written
    }

    /// Queues the format's own end, once.
    pub(super) fn encode_end(&mut self, end: &LayerEnd<'_>) -> Result<(), LayerError> {
        let Some(wire) = self.stream.wire_mut() else { return Ok(()) };
        if std::mem::replace(&mut wire.own, OwnSide::Ended) == OwnSide::Ended {
            return Ok(());
        }
        self.write_with_layer(|layer, cx, buffer| {
            layer.end(cx, end, buffer);
            Ok(())
        })
    }

    /// Lets the connection's layer append to its output queue.
    pub(super) fn write_with_layer<T: Default>(
        &mut self,
        write: impl FnOnce(&mut dyn Layer, &mut LayerContext<'_>, &mut Vec<u8>) -> Result<T, LayerError>,
    ) -> Result<T, LayerError> {
        let (tick, now) = (self.work.tick, self.work.now);
        let stream = &mut *self.stream;
        let Some(wire) = stream.extra.as_mut().and_then(|extra| extra.wire.as_mut()) else {
            return Ok(T::default());
        };
        let output = stream.output.get_or_insert_with(|| self.work.pool.output(tick));
        let called_at = wire.call_at;
        let written =
            output.push_with(|buffer| wire.call(now, |layer, cx| write(layer, cx, buffer)));
        if wire.call_at != called_at {
            self.watch();
        }
        if written.is_err() && !self.stream.has_values() {
            // Nothing was appended: a queue that was made for it would stay.
            if let Some(output) = self.stream.take_empty_output() {
                self.work.pool.keep_output(output);
            }
        }
        written
    }

    /// Calls a layer that asked to be called by now.
    pub(super) fn call_layer_on_time(&mut self) {
        let now = self.work.now;
        // One that is on its way out has had the format's end.
        if !matches!(self.stream.phase(), Phase::Handshaking | Phase::Open) {
            return;
        }
        let Some(wire) = self.stream.wire_mut() else { return };
        if wire.call_at.is_none_or(|at| at > now) {
            return;
        }
        wire.call_at = None;
        let mut reply = Vec::new();
        let called = wire.call(now, |layer, cx| layer.on_time(cx, &mut reply));
        self.push_raw(&reply);
        match called {
            Ok(()) => self.flush(),
            Err(error) => self.close_for_layer(error),
        }
    }
}
