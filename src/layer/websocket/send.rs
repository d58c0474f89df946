//! Frames that leave: how one is written, and how many pongs a peer gets.

use std::ops::Range;

use super::head::{self, opcode};
use super::mask;
use crate::layer::LayerContext;

/// A control frame's payload is this long at most, in bytes (RFC 6455 section 5.5).
pub(super) const MAX_CONTROL: usize = 125;

/// Up to this many pings in one call of `decode` get a pong each; of those behind them only the
/// last one (RFC 6455 section 5.5.3 allows that). A read full of pings then costs 4 KiB of replies
/// at most. A peer that measures its round-trip time has far fewer in flight.
const PONGS_PER_CALL: usize = 32;

/// Which side this is: the client masks, the server does not (RFC 6455 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Server,
    Client,
}

/// A ping: where its payload lies in what was given to `decode`, and its mask.
pub(super) struct Ping {
    pub(super) payload: Range<usize>,
    pub(super) mask: Option<[u8; 4]>,
}

/// The replies to the pings of one call of `decode`.
#[derive(Default)]
pub(super) struct Pongs {
    answered: usize,
    /// The latest one without a reply.
    latest: Option<Ping>,
}

impl Pongs {
    pub(super) fn add(
        &mut self,
        cx: &mut LayerContext<'_>,
        role: Role,
        ping: Ping,
        wire: &[u8],
        reply: &mut Vec<u8>,
    ) {
        if self.answered < PONGS_PER_CALL {
            self.answered += 1;
            pong(cx, role, &ping, wire, reply);
        } else {
            self.latest = Some(ping);
        }
    }

    pub(super) fn flush(
        self,
        cx: &mut LayerContext<'_>,
        role: Role,
        wire: &[u8],
        reply: &mut Vec<u8>,
    ) {
        if let Some(ping) = self.latest {
            pong(cx, role, &ping, wire, reply);
        }
    }
}

fn pong(cx: &mut LayerContext<'_>, role: Role, ping: &Ping, wire: &[u8], reply: &mut Vec<u8>) {
    let mut payload = [0; MAX_CONTROL];
    let payload = &mut payload[..ping.payload.len()];
    payload.copy_from_slice(&wire[ping.payload.clone()]);
    mask::apply(payload, ping.mask.unwrap_or_default());
    write(cx, role, opcode::PONG, 0, payload, reply);
}

/// Appends one whole frame; `reserved` is [`RSV1`](head::RSV1) for a compressed message, else 0.
#[inline(always)] // into the encoder, of which it is the half
pub(super) fn write(
    cx: &mut LayerContext<'_>,
    role: Role,
    opcode: u8,
    reserved: u8,
    payload: &[u8],
    wire: &mut Vec<u8>,
) {
    wire.reserve(head::MAX_HEAD + payload.len());
    if role == Role::Server {
        head::write(opcode, reserved, None, payload.len(), wire);
        wire.extend_from_slice(payload);
    } else {
        write_masked(cx, opcode, reserved, payload, wire);
    }
}

#[inline(never)]
fn write_masked(
    cx: &mut LayerContext<'_>,
    opcode: u8,
    reserved: u8,
    payload: &[u8],
    wire: &mut Vec<u8>,
) {
    let mut key = [0; 4];
    cx.random(&mut key);
    head::write(opcode, reserved, Some(key), payload.len(), wire);
    let start = wire.len();
    wire.extend_from_slice(payload);
    mask::apply(&mut wire[start..], key);
}
