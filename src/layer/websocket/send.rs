//! Frames that leave: how one is written, and how many pongs a peer gets.

use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, OpCode};

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

/// A frame whose header has arrived, at `payload.start` in what was given to `decode`.
pub(super) struct Head {
    pub(super) header: FrameHeader,
    pub(super) payload: Range<usize>,
}

/// The replies to the pings of one call of `decode`.
#[derive(Default)]
pub(super) struct Pongs {
    answered: usize,
    /// The latest one without a reply.
    latest: Option<Head>,
}

impl Pongs {
    pub(super) fn add(
        &mut self,
        cx: &mut LayerContext<'_>,
        role: Role,
        head: Head,
        wire: &[u8],
        reply: &mut Vec<u8>,
    ) {
        if self.answered < PONGS_PER_CALL {
            self.answered += 1;
            pong(cx, role, &head, wire, reply);
        } else {
            self.latest = Some(head);
        }
    }

    pub(super) fn flush(
        self,
        cx: &mut LayerContext<'_>,
        role: Role,
        wire: &[u8],
        reply: &mut Vec<u8>,
    ) {
        if let Some(head) = self.latest {
            pong(cx, role, &head, wire, reply);
        }
    }
}

fn pong(cx: &mut LayerContext<'_>, role: Role, ping: &Head, wire: &[u8], reply: &mut Vec<u8>) {
    let mut payload = [0; MAX_CONTROL];
    let payload = &mut payload[..ping.payload.len()];
    payload.copy_from_slice(&wire[ping.payload.clone()]);
    mask::apply(payload, ping.header.mask.unwrap_or_default(), 0);
    write(cx, role, OpCode::Control(Control::Pong), false, payload, reply);
}

/// Appends one whole frame; `rsv1` marks a compressed message.
pub(super) fn write(
    cx: &mut LayerContext<'_>,
    role: Role,
    opcode: OpCode,
    rsv1: bool,
    payload: &[u8],
    wire: &mut Vec<u8>,
) {
    let mask = (role == Role::Client).then(|| {
        let mut mask = [0; 4];
        cx.random(&mut mask);
        mask
    });
    let header = FrameHeader { opcode, mask, rsv1, ..FrameHeader::default() };
    wire.reserve(header.len(payload.len() as u64) + payload.len());
    header.format(payload.len() as u64, wire).expect("writing to a Vec<u8> does not fail");
    let start = wire.len();
    wire.extend_from_slice(payload);
    if let Some(mask) = mask {
        mask::apply(&mut wire[start..], mask, 0);
    }
}
