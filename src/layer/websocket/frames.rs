//! Frames and messages, once the socket is open (RFC 6455 sections 5 and 6).
//!
//! The header's layout is tungstenite's (`FrameHeader`), what is done with the payload is ours; the
//! [module's page](super) says why.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::layer::{
    Item, LayerContext, LayerEnd, LayerError, LayerErrorKind, MessageKind, Step, WireClass,
};

use super::close::{self, PeerClose};
use super::config::Limits;
use super::deflate::Deflate;
use super::extension::Agreed;
use super::fault::Fault;
use super::send::{Head, MAX_CONTROL, Pongs, Role, write};
use super::{NAME, WebSocket, mask};

/// A header is this long at most, in bytes (RFC 6455 section 5.2).
const MAX_HEADER: usize = 14;

/// Room for messages in pieces that is kept from one to the next, in bytes for each connection.
const KEPT: usize = 4096;

/// How far the closing handshake has come (RFC 6455 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    Open,
    /// `end` was called; the peer has not replied yet.
    Ours,
    /// Both sides have sent a Close, or the connection failed.
    Done,
}

/// A data frame whose payload is arriving.
#[derive(Debug, Clone, Copy)]
struct Arriving {
    mask: Option<[u8; 4]>,
    taken: usize,
    left: usize,
    last: bool,
}

/// The state of one open socket.
#[derive(Debug)]
pub(super) struct Frames {
    role: Role,
    limits: Limits,
    closing: Closing,
    /// The message that is arriving in pieces, if one is.
    message: Option<MessageKind>,
    /// Whether it is compressed (RFC 7692 section 7.2).
    compressed: bool,
    /// What there is of it, unmasked and inflated. Empty whenever `message` is `None`.
    partial: Vec<u8>,
    /// So much of it is known to be whole UTF-8, if it is text.
    checked: usize,
    /// The frame whose payload comes next. Only while `message` is `Some`.
    arriving: Option<Arriving>,
    peer_close: Option<PeerClose>,
    deflate: Option<Box<Deflate>>,
}

impl Frames {
    pub(super) fn new(role: Role, limits: Limits, deflate: Option<Agreed>) -> Frames {
        Frames {
            role,
            limits,
            closing: Closing::Open,
            message: None,
            compressed: false,
            partial: Vec::new(),
            checked: 0,
            arriving: None,
            peer_close: None,
            deflate: deflate.map(|agreed| Box::new(Deflate::new(agreed))),
        }
    }

    pub(super) fn peer_close(&self) -> Option<&PeerClose> {
        self.peer_close.as_ref()
    }

    /// Whether a message is arriving in pieces.
    pub(super) fn is_within_message(&self) -> bool {
        self.message.is_some()
    }

    /// Bytes that are kept for messages in pieces.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.partial.capacity()
    }

    /// As `Layer::decode`. A fault leaves as a Close frame with its code.
    pub(super) fn decode(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        self.next(cx, wire, unit, reply).map_err(|fault| {
            self.close_once(cx, &fault.code.to_be_bytes(), reply);
            self.closing = Closing::Done;
            fault.error
        })
    }

    fn next(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, Fault> {
        let mut at = 0;
        let mut pongs = Pongs::default();
        let (item, kind) = loop {
            if let Some(frame) = self.arriving {
                at += self.take(frame, &mut wire[at..])?;
                if self.arriving.is_some() {
                    break (Item::Nothing, MessageKind::Default);
                }
                if frame.last {
                    break (Item::Unit, self.finish(unit)?);
                }
            }
            let Some(head) = self.head(wire, at)? else {
                break (Item::Nothing, MessageKind::Default);
            };
            let whole = wire.get_mut(head.payload.clone());
            match head.header.opcode {
                OpCode::Control(control) => {
                    let Some(payload) = whole else { break (Item::Nothing, MessageKind::Default) };
                    at = head.payload.end;
                    match control {
                        Control::Ping if self.closing == Closing::Open => {
                            pongs.add(cx, self.role, head, wire, reply);
                        }
                        Control::Close => {
                            self.closed(cx, payload, head.header.mask, reply)?;
                            return Ok(Step::new(at, Item::End));
                        }
                        _ => {}
                    }
                }
                OpCode::Data(data) => {
                    let kind = self.begin(data)?;
                    if let Some(payload) = whole
                        && let Some(kind) = kind
                        && head.header.is_final
                        && !head.header.rsv1
                    {
                        at = head.payload.end;
                        if let Some(mask) = head.header.mask {
                            mask::apply(payload, mask, 0);
                        }
                        check_text(kind, payload)?;
                        break (Item::Slice(head.payload), kind);
                    }
                    at = head.payload.start;
                    if kind.is_some() {
                        self.message = kind;
                        self.compressed = head.header.rsv1;
                        if let (true, Some(deflate)) = (self.compressed, &mut self.deflate) {
                            deflate.begin();
                        }
                    }
                    self.arriving = Some(Arriving {
                        mask: head.header.mask,
                        taken: 0,
                        left: head.payload.len(),
                        last: head.header.is_final,
                    });
                }
            }
        };
        pongs.flush(cx, self.role, wire, reply);
        Ok(Step::new(at, item).with_kind(kind))
    }

    /// The next frame's header, checked against every rule that needs no payload.
    fn head(&self, wire: &[u8], at: usize) -> Result<Option<Head>, Fault> {
        let rest = &wire[at..];
        let mut cursor = Cursor::new(&rest[..rest.len().min(MAX_HEADER)]);
        // The one thing it refuses, and only once the header is whole.
        let parsed = FrameHeader::parse(&mut cursor)
            .map_err(|_| Fault::protocol(format!("a frame of the opcode {}", rest[0] & 0x0f)))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let begins = matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
        let may_compress = self.deflate.is_some() && begins;
        if header.rsv2 || header.rsv3 || (header.rsv1 && !may_compress) {
            return Err(Fault::protocol("a reserved bit that no extension gives a meaning"));
        }
        match (self.role, header.mask) {
            (Role::Server, None) => return Err(Fault::protocol("a frame without a mask")),
            (Role::Client, Some(_)) => return Err(Fault::protocol("a masked frame, as a server")),
            _ => {}
        }
        self.check_size(&header, length)?;
        let start = at + cursor.position() as usize;
        Ok(Some(Head { header, payload: start..start.saturating_add(length as usize) }))
    }

    /// Holds the limits, before anything is kept or reserved for the frame (RUSTSEC-2022-0035).
    /// They compare as `u64`: 2^63 bytes are no small number on a 32-bit target either.
    fn check_size(&self, header: &FrameHeader, length: u64) -> Result<(), Fault> {
        if let OpCode::Control(_) = header.opcode {
            if !header.is_final {
                return Err(Fault::protocol("a control frame in fragments"));
            }
            if length > MAX_CONTROL as u64 {
                return Err(Fault::protocol(format!("a control frame of {length} bytes")));
            }
            return Ok(());
        }
        let Limits { frame, message, .. } = self.limits;
        if length > frame as u64 {
            return Err(Fault::too_big("a frame", length, frame, "frame_limit"));
        }
        // Of a compressed message counts what comes out of it, when it comes out. Nobody needs to
        // send much more than that: what DEFLATE adds to bytes that cannot be compressed.
        let (so_far, limit) = if header.rsv1 || self.compressed {
            (0, (message as u64).saturating_add(message as u64 / 8 + 1024))
        } else {
            (self.partial.len() as u64, message as u64)
        };
        let size = length.saturating_add(so_far);
        if size > limit {
            return Err(Fault::too_big("a message", size, message, "message_limit"));
        }
        Ok(())
    }

    /// The kind of the message that begins with this frame; none if it continues one.
    fn begin(&self, data: Data) -> Result<Option<MessageKind>, Fault> {
        match (data, self.message) {
            (Data::Continue, Some(_)) => Ok(None),
            (Data::Continue, None) => {
                Err(Fault::protocol("a continuation, and there is no message to continue"))
            }
            (_, Some(_)) => Err(Fault::protocol("a new message in the middle of another")),
            (Data::Text, None) => Ok(Some(MessageKind::Text)),
            (Data::Binary, None) => Ok(Some(MessageKind::Binary)),
            (Data::Reserved(code), None) => Err(Fault::protocol(format!("the opcode {code}"))),
        }
    }

    /// Takes what has arrived of a frame's payload. Returns how much that was.
    fn take(&mut self, mut frame: Arriving, rest: &mut [u8]) -> Result<usize, Fault> {
        let now = frame.left.min(rest.len());
        let payload = &mut rest[..now];
        if let Some(mask) = frame.mask {
            mask::apply(payload, mask, frame.taken);
        }
        if let (true, Some(deflate)) = (self.compressed, &mut self.deflate) {
            let limit = self.limits.message;
            deflate.inflate(payload, &mut self.partial, limit)?;
            if frame.last && now == frame.left {
                deflate.finish()?;
            }
        } else {
            self.partial.extend_from_slice(payload);
        }
        frame.taken += now;
        frame.left -= now;
        self.arriving = (frame.left > 0).then_some(frame);
        self.check_partial()?;
        Ok(now)
    }

    /// Refuses text at the first byte that cannot be UTF-8, not only at the message's end. A code
    /// point may be cut anywhere; only its beginning is looked at again.
    fn check_partial(&mut self) -> Result<(), Fault> {
        if self.message == Some(MessageKind::Text) {
            match std::str::from_utf8(&self.partial[self.checked..]) {
                Ok(_) => self.checked = self.partial.len(),
                Err(fault) if fault.error_len().is_none() => self.checked += fault.valid_up_to(),
                Err(_) => return Err(Fault::not_utf8("a text message")),
            }
        }
        Ok(())
    }

    /// Hands on the message that is now whole.
    fn finish(&mut self, unit: &mut Vec<u8>) -> Result<MessageKind, Fault> {
        let kind = self.message.take().unwrap_or_default();
        if kind == MessageKind::Text && self.checked < self.partial.len() {
            return Err(Fault::not_utf8("a text message"));
        }
        self.checked = 0;
        self.compressed = false;
        if unit.is_empty() && self.partial.len() > KEPT {
            // The driver gets the buffer itself instead of a copy.
            std::mem::swap(unit, &mut self.partial);
        } else {
            unit.extend_from_slice(&self.partial);
        }
        self.partial.clear();
        if self.partial.capacity() > KEPT {
            self.partial = Vec::new();
        }
        Ok(kind)
    }

    /// The peer's Close: replied to with the same code, unless it is itself the reply.
    fn closed(
        &mut self,
        cx: &mut LayerContext<'_>,
        payload: &mut [u8],
        mask: Option<[u8; 4]>,
        reply: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        mask::apply(payload, mask.unwrap_or_default(), 0);
        let said = PeerClose::parse(payload)?;
        let code = said.code().map(u16::to_be_bytes);
        self.close_once(cx, code.as_ref().map_or(&[], |code| code), reply);
        self.closing = Closing::Done;
        self.peer_close = Some(said);
        Ok(())
    }

    /// As `Layer::encode`.
    pub(super) fn encode(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        let unencodable = |what| Err(LayerError::new(NAME, LayerErrorKind::Unencodable, what));
        match self.closing {
            Closing::Open => {}
            Closing::Ours => return unencodable("a message behind this side's Close frame"),
            // The peer reads no more. That is no error of the sender, which may be sending to a
            // whole room; and the connection is ending.
            Closing::Done => return Ok(()),
        }
        let text = match kind {
            MessageKind::Text => true,
            MessageKind::Binary => false,
            MessageKind::Default => self.limits.default_text,
        };
        if text && std::str::from_utf8(message).is_err() {
            return unencodable("a text message that is not UTF-8");
        }
        let data = if text { Data::Text } else { Data::Binary };
        let opcode = OpCode::Data(data);
        match self.deflate.as_mut().and_then(|deflate| deflate.deflate(message)) {
            Some(shorter) => write(cx, self.role, opcode, true, shorter, wire),
            None => write(cx, self.role, opcode, false, message, wire),
        }
        Ok(())
    }

    /// Appends a Ping (RFC 6455 section 5.5.2); what is over 125 bytes is cut off.
    pub(super) fn ping(&mut self, cx: &mut LayerContext<'_>, payload: &[u8], wire: &mut Vec<u8>) {
        if self.closing == Closing::Open {
            let payload = &payload[..payload.len().min(MAX_CONTROL)];
            write(cx, self.role, OpCode::Control(Control::Ping), false, payload, wire);
        }
    }

    /// As `Layer::end`.
    pub(super) fn end(
        &mut self,
        cx: &mut LayerContext<'_>,
        end: &LayerEnd<'_>,
        wire: &mut Vec<u8>,
    ) {
        self.close_once(cx, &close::payload(end), wire);
    }

    /// As `Layer::wire_class`.
    pub(super) fn wire_class(&self) -> Option<WireClass> {
        let remembers = self.deflate.as_ref().is_some_and(|deflate| !deflate.forgets());
        if self.role == Role::Client || remembers || self.closing != Closing::Open {
            return None;
        }
        let class = WireClass::of::<WebSocket>()
            .with(self.deflate.is_some().into())
            .with(self.limits.default_text.into());
        Some(class)
    }

    /// As `Layer::wire_ended`.
    pub(super) fn wire_ended(&self, left: usize) -> Result<(), LayerError> {
        let unfinished = left > 0 || self.message.is_some();
        match self.closing {
            Closing::Done => Ok(()),
            // It received our Close and did not reply: nothing is lost.
            Closing::Ours if !unfinished => Ok(()),
            _ if unfinished => {
                Err(LayerError::truncated(NAME, "the stream ended in the middle of a message"))
            }
            _ => Err(LayerError::truncated(
                NAME,
                "the stream ended without a Close frame (the RFC's code 1006)",
            )),
        }
    }

    /// One Close frame for each side, and nothing behind it.
    fn close_once(&mut self, cx: &mut LayerContext<'_>, payload: &[u8], wire: &mut Vec<u8>) {
        if self.closing == Closing::Open {
            write(cx, self.role, OpCode::Control(Control::Close), false, payload, wire);
            self.closing = Closing::Ours;
        }
    }
}

fn check_text(kind: MessageKind, message: &[u8]) -> Result<(), Fault> {
    if kind == MessageKind::Text && std::str::from_utf8(message).is_err() {
        return Err(Fault::not_utf8("a text message"));
    }
    Ok(())
}
