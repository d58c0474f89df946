//! Output through layers: what a layer writes goes straight into the output queue.

use super::wire::OwnSide;
use super::{Conn, Phase};
use crate::guard::guarded;
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
    pub(super) fn write_with_layer(
        &mut self,
        write: impl FnOnce(
            &mut dyn Layer,
            &mut LayerContext<'_>,
            &mut Vec<u8>,
        ) -> Result<(), LayerError>,
    ) -> Result<(), LayerError> {
        let (tick, now) = (self.work.tick, self.work.now);
        let stream = &mut *self.stream;
        let Some(wire) = stream.extra.as_mut().and_then(|extra| extra.wire.as_mut()) else {
            return Ok(());
        };
        let output = stream.output.get_or_insert_with(|| self.work.pool.output(tick));
        let called_at = wire.call_at;
        let written = output.push_with(|buffer| {
            let mut fields = Vec::new(); // nothing is decoded
            let mut cx = LayerContext::new(now, &mut wire.call_at, &mut fields);
            guarded(|| write(&mut *wire.layer, &mut cx, buffer))
                .unwrap_or_else(|text| Err(LayerError::panicked(wire.layer.name(), text)))
        });
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
        let (mut reply, mut fields) = (Vec::new(), Vec::new());
        let mut cx = LayerContext::new(now, &mut wire.call_at, &mut fields);
        let called = guarded(|| wire.layer.on_time(&mut cx, &mut reply))
            .unwrap_or_else(|text| Err(LayerError::panicked(wire.layer.name(), text)));
        self.push_raw(&reply);
        match called {
            Ok(()) => self.flush(),
            Err(error) => self.close_for_layer(error),
        }
    }
}
