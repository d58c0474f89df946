//! A layer put on an open connection, beneath those it has (STARTTLS).

use super::wire::Wire;
use super::{Conn, Phase, ReadSide, WriteSide};
use crate::error::CloseReason;
use crate::guard::drop_guarded;
use crate::layer::{Layer, LayerError, Then};

/// The error for bytes that follow the switch in clear.
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
        // Bytes that came in clear must not be delivered as if they had passed the new layer
        // (CVE-2011-0411). The running layer may hold some.
        let in_clear = self.stream.wire().is_some_and(|wire| {
            wire.layer.holds_input() || wire.undecoded.is_some() || self.stream.unread() > 0
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
            Some(mut wire) => {
                let waiting = wire.take_waiting();
                let Wire { layer: running, call_at, .. } = wire;
                let stack = Box::new(Then::beneath(layer, running).inner_at(call_at));
                Wire::in_mid_stream(stack, Some(waiting), until)
            }
            None => Wire::in_mid_stream(layer, None, until),
        });
        // Without a running layer the kept bytes are input of the new one.
        self.unread_to_new_layer();
        if let Err(error) = self.start_format() {
            self.finish(CloseReason::Layer(error));
            return false;
        }
        match self.stream.wire_mut().map(Wire::check_ready) {
            Some(Ok(true)) => {
                self.encode_waiting();
                self.values_wait();
            }
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

    /// Input that a handler left when it put a layer on. On a plain stream it is input of the new
    /// layer. What an older layer has decoded came in clear and must not be delivered as if it had
    /// passed the new one (CVE-2011-0411): the connection is closed. (Undecoded bytes pass the new
    /// layer, which checks them.)
    pub(super) fn unread_behind_switch(&mut self) {
        match self.stream.wire().filter(|wire| wire.was_put_over_decoded()) {
            None => self.unread_to_new_layer(),
            Some(wire) => {
                let error = LayerError::malformed(wire.layer().name(), BYTES_IN_CLEAR);
                self.close_for_layer(error);
            }
        }
    }

    /// Moves the bytes that a handler left of a plain stream to the new layer.
    pub(super) fn unread_to_new_layer(&mut self) {
        let Some(tail) = self.stream.input.take() else { return };
        self.keep_undecoded(tail.unread());
        self.work.pool.keep_tail(tail);
    }
}
