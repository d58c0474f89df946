//! Output through layers: what a layer writes goes straight into the output queue.

use super::wire::OwnSide;
use super::{Conn, Phase, SendStatus};
use crate::guard::guarded;
use crate::layer::{Layer, LayerContext, LayerEnd, LayerError, MessageKind};

/// The longest run that is encoded at once, in bytes: a buffer of the queue holds about as much.
const RUN: usize = 64 * 1024;

impl Conn<'_> {
    /// Lets the layer write its opening (a ClientHello, an upgrade request).
    pub(super) fn start_format(&mut self) -> Result<(), LayerError> {
        self.write_with_layer(|layer, cx, buffer| layer.start(cx, buffer))
    }

    /// Appends the wire form of one message to the queue.
    pub(super) fn encode(&mut self, bytes: &[u8], kind: MessageKind) -> Result<(), LayerError> {
        self.write_with_layer(|layer, cx, buffer| layer.encode(cx, bytes, kind, buffer))
    }

    /// Appends the form that a message has for all connections of this one's class to `form`: the wire
    /// form, or that of the inner layers.
    pub(crate) fn encode_shared(
        &mut self,
        inner: bool,
        (message, kind): (&[u8], MessageKind),
        form: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        let now = self.work.now;
        let Some(wire) = self.stream.wire_mut() else { return Ok(()) };
        let called_at = wire.call_at;
        let mut fields = Vec::new(); // nothing is decoded
        let mut cx = LayerContext::new(now, &mut wire.call_at, &mut fields);
        let encoded = guarded(|| match inner {
            true => wire.layer.encode_inner(&mut cx, message, kind, form),
            false => wire.layer.encode(&mut cx, message, kind, form),
        })
        .unwrap_or_else(|text| Err(LayerError::panicked(wire.layer.name(), text)));
        if wire.call_at != called_at {
            self.watch();
        }
        encoded
    }

    /// Queues the wire form of a run: of the form that the inner layers have made, or of bytes, for a
    /// stream layer.
    pub(crate) fn queue_run(&mut self, inner: bool, run: &[u8]) -> SendStatus {
        for run in run.chunks(RUN) {
            let queued = self.write_with_layer(|layer, cx, buffer| match inner {
                true => layer.encode_run(cx, run, buffer),
                false => layer.encode(cx, run, MessageKind::Default, buffer),
            });
            if let Err(error) = queued {
                return self.encode_failed(error);
            }
        }
        self.queued_more()
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
    fn write_with_layer(
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
