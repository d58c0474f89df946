//! A layer put on an open connection, beneath those it has (STARTTLS).

use super::wire::Wire;
use super::{Conn, Phase, ReadSide, WriteSide};
use crate::error::CloseReason;
use crate::guard::drop_guarded;
use crate::layer::{Layer, LayerError, Then};

/// Why bytes behind the switch end the connection.
const BYTES_IN_CLEAR: &str =
    "expected nothing behind the switch to this layer, got bytes in the old format";

impl Conn<'_> {
    /// Puts a layer beneath those the connection has. `false` if it is refused.
    pub(crate) fn start_layer(&mut self, layer: Box<dyn Layer>) -> bool {
        let life = self.stream.life;
        let ended = life.write != WriteSide::Open || life.read != ReadSide::Open;
        if life.phase != Phase::Open || ended {
            drop_guarded(layer);
            return false;
        }
        // What came in clear is never read as if it had come through the layer (CVE-2011-0411). The
        // running layer may hold some, or have looked at it.
        let in_clear = self.stream.wire().is_some_and(|wire| {
            wire.layer.holds_input() || !wire.undecoded.is_empty() || self.stream.unread() > 0
        });
        if in_clear {
            self.close_for_layer(LayerError::malformed(layer.name(), BYTES_IN_CLEAR));
            drop_guarded(layer);
            return false;
        }
        let after = self.stream.options().handshake_timeout;
        let until = self.work.tick_after_this_moment(after);
        let extra = self.stream.extra_mut();
        extra.wire = Some(match extra.wire.take() {
            Some(Wire { layer: running, waiting, call_at, .. }) => {
                let stack = Box::new(Then::beneath(layer, running).inner_at(call_at));
                Wire::in_mid_stream(stack, Some(waiting), until)
            }
            None => Wire::in_mid_stream(layer, None, until),
        });
        // What a handler without a layer did not take has to pass the new one.
        self.unread_to_new_layer();
        if let Err(error) = self.start_format() {
            self.finish(CloseReason::Layer(error));
            return false;
        }
        match self.stream.wire_mut().map(Wire::look_whether_ready) {
            Some(Ok(true)) => self.encode_waiting(),
            Some(Ok(false)) | None => {}
            Some(Err(error)) => {
                self.finish(CloseReason::Layer(error));
                return false;
            }
        }
        self.queued_more();
        self.watch();
        self.make_ready();
        true
    }

    /// What a handler left of the old format when it put a layer on. Of a plain stream it belongs to
    /// the new layer. What the layer above that one has decoded came in clear, and nobody must read
    /// it as if it had come through the new layer (CVE-2011-0411): the connection is closed for it.
    /// (Bytes that are not decoded yet pass the new layer, which finds out what they are.)
    pub(super) fn unread_behind_switch(&mut self) {
        match self.stream.wire().filter(|wire| wire.was_put_over_decoded()) {
            None => self.unread_to_new_layer(),
            Some(wire) => {
                let error = LayerError::malformed(wire.layer().name(), BYTES_IN_CLEAR);
                self.close_for_layer(error);
            }
        }
    }

    /// Bytes a handler left of a plain stream and then put a layer on it: they belong to the layer.
    pub(super) fn unread_to_new_layer(&mut self) {
        let tick = self.work.tick;
        let Some(tail) = self.stream.input.take() else { return };
        if let Some(wire) = self.stream.wire_mut() {
            wire.undecoded.push(tail.unread(), tick);
        }
        self.work.pool.keep_tail(tail);
    }
}
