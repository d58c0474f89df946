//! Frames and messages, once the socket is open (RFC 6455 sections 5 and 6).
//!
//! A message in one frame stays where the driver has it until it is whole, then it is unmasked in place
//! and handed on without a copy. Fragments, and what is compressed, gather in a buffer of this side.

use crate::layer::{
    Item, LayerContext, LayerEnd, LayerError, LayerErrorKind, MessageKind, Step, WireClass,
};

use super::close::{self, PeerClose};
use super::config::Limits;
use super::deflate::Deflate;
use super::extension::Agreed;
use super::fault::Fault;
use super::head::{self, Head, opcode};
use super::send::{MAX_CONTROL, Ping, Pongs, Role, write};
use super::{NAME, WebSocket, mask};

/// Room for messages in pieces that is kept from one to the next, in bytes for each connection.
const KEPT: usize = 4096;

/// Text of a frame that is not whole is unmasked in pieces of so many bytes, to be checked.
const PIECE: usize = 1024;

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
    /// Turned so that it begins with the key of the next byte.
    mask: Option<[u8; 4]>,
    left: usize,
    last: bool,
}

/// The state of one open socket.
#[derive(Debug)]
pub(super) struct Frames {
    role: Role,
    closing: Closing,
    /// The limit on a message in one frame.
    limit: u64,
    /// The message that is arriving in pieces, if one is.
    message: Option<MessageKind>,
    /// Whether it is compressed (RFC 7692 section 6).
    compressed: bool,
    /// What there is of it, unmasked and inflated. Empty whenever `message` is `None`.
    partial: Vec<u8>,
    /// So much of it, or of a frame that is not whole, is known to be whole UTF-8, if it is text.
    checked: usize,
    /// The frame whose payload comes next. Only while `message` is `Some`.
    arriving: Option<Arriving>,
    peer_close: Option<Box<PeerClose>>,
    deflate: Option<Box<Deflate>>,
}

impl Frames {
    pub(super) fn new(role: Role, limits: &Limits, deflate: Option<Agreed>) -> Frames {
        Frames {
            role,
            closing: Closing::Open,
            limit: limits.frame.min(limits.message) as u64,
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
        self.peer_close.as_deref()
    }

    /// Whether a message is arriving in pieces.
    pub(super) fn is_within_message(&self) -> bool {
        self.message.is_some()
    }

    #[cfg(test)]
    pub(super) fn has_compressor(&self) -> bool {
        self.deflate.as_ref().is_some_and(|deflate| deflate.idle_at().is_some())
    }

    /// Bytes that are reserved for compressed messages.
    #[cfg(test)]
    pub(super) fn held_by_deflate(&self) -> usize {
        self.deflate.as_ref().map_or(0, |deflate| deflate.reserved())
    }

    /// Bytes that are kept for messages in pieces.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.partial.capacity()
    }

    /// As `Layer::decode`. A fault leaves as a Close frame with its code.
    pub(super) fn decode(
        &mut self,
        limits: &Limits,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let step = match self.whole_message(wire) {
            Some(Ok(step)) => return Ok(step),
            Some(Err(fault)) => Err(fault),
            None => self.next(limits, cx, wire, unit, reply),
        };
        step.map_err(|fault| {
            self.close_once(cx, &fault.code.to_be_bytes(), reply);
            self.closing = Closing::Done;
            fault.error
        })
    }

    /// The common case: a message in one frame that has arrived whole and keeps the rules of a head.
    /// `None`, and nothing done, in any other case.
    #[inline(always)]
    fn whole_message(&mut self, wire: &mut [u8]) -> Option<Result<Step, Fault>> {
        let head = Head::parse(wire)?;
        let kind = head.kind_of_whole()?;
        let masked = head.mask.is_some() == (self.role == Role::Server);
        if !masked || self.message.is_some() || head.payload > self.limit {
            return None;
        }
        let range = head.len..head.len.saturating_add(head.payload as usize);
        let payload = wire.get_mut(range.clone())?;
        if let Some(mask) = head.mask {
            mask::apply(payload, mask);
        }
        if kind == MessageKind::Text {
            let checked = std::mem::take(&mut self.checked).min(payload.len());
            if !is_text(&payload[checked..]) {
                return Some(Err(Fault::not_utf8("a text message")));
            }
        }
        Some(Ok(Step::new(range.end, Item::Slice(range)).with_kind(kind)))
    }

    #[inline(never)] // the common case needs no registers for it
    fn next(
        &mut self,
        limits: &Limits,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, Fault> {
        let mut at = 0;
        let mut pongs = Pongs::default();
        let (item, kind) = loop {
            if let Some(frame) = self.arriving {
                at += self.take(limits, frame, &mut wire[at..])?;
                if self.arriving.is_some() {
                    break (Item::Nothing, MessageKind::Default);
                }
                if frame.last {
                    break (Item::Unit, self.finish(unit)?);
                }
            }
            let Some(head) = Head::parse(&wire[at..]) else {
                break (Item::Nothing, MessageKind::Default);
            };
            self.check(limits, &head)?;
            let start = at + head.len;
            // Within the limits, or there is no such slice.
            let end = start.saturating_add(head.payload as usize);
            if head.is_control() {
                let Some(payload) = wire.get_mut(start..end) else {
                    break (Item::Nothing, MessageKind::Default);
                };
                at = end;
                match head.opcode() {
                    opcode::CLOSE => {
                        self.closed(cx, payload, head.mask, reply)?;
                        return Ok(Step::new(at, Item::End));
                    }
                    opcode::PING if self.closing == Closing::Open => {
                        let ping = Ping { payload: start..end, mask: head.mask };
                        pongs.add(cx, self.role, ping, wire, reply);
                    }
                    _ => {}
                }
                continue;
            }
            let kind = self.begin(&head)?;
            if let Some(kind) = kind
                && head.is_final()
                && !head.is_compressed()
            {
                if let Some(step) = self.whole_message(&mut wire[at..]) {
                    at += step?.consumed;
                    break (Item::Slice(start..end), kind);
                }
                if kind == MessageKind::Text {
                    self.check_ahead(&wire[start..], head.mask.unwrap_or_default())?;
                }
                break (Item::Nothing, MessageKind::Default);
            }
            at = start;
            if kind.is_some() {
                self.message = kind;
                self.compressed = head.is_compressed();
                if let (true, Some(deflate)) = (self.compressed, &mut self.deflate) {
                    deflate.begin();
                }
            }
            self.arriving = Some(Arriving {
                mask: head.mask,
                left: head.payload as usize,
                last: head.is_final(),
            });
        };
        pongs.flush(cx, self.role, wire, reply);
        Ok(Step::new(at, item).with_kind(kind))
    }

    /// Checks a frame's head against every rule that needs no payload.
    fn check(&self, limits: &Limits, head: &Head) -> Result<(), Fault> {
        let begins = matches!(head.opcode(), opcode::TEXT | opcode::BINARY);
        if !(begins || head.opcode() == opcode::CONTINUATION || head.is_control()) {
            return Err(Fault::protocol(format!("a frame of the opcode {}", head.opcode())));
        }
        let may_compress = self.deflate.is_some() && begins;
        if head.reserved() != 0 && !(may_compress && head.reserved() == head::RSV1) {
            return Err(Fault::protocol("a reserved bit that no extension gives a meaning"));
        }
        match (self.role, head.mask) {
            (Role::Server, None) => return Err(Fault::protocol("a frame without a mask")),
            (Role::Client, Some(_)) => return Err(Fault::protocol("a masked frame, as a server")),
            _ => {}
        }
        if head.is_control() { check_control(head) } else { self.check_size(limits, head) }
    }

    /// Holds the limits, before anything is kept or reserved for the frame (RUSTSEC-2022-0035).
    /// They compare as `u64`: 2^63 bytes are no small number on a 32-bit target either.
    fn check_size(&self, limits: &Limits, head: &Head) -> Result<(), Fault> {
        let &Limits { frame, message, .. } = limits;
        if head.payload > frame as u64 {
            return Err(Fault::too_big("a frame", head.payload, frame, "frame_limit"));
        }
        // Of a compressed message counts what comes out of it, when it comes out. Nobody needs to
        // send much more than that: what DEFLATE adds to bytes that cannot be compressed.
        let (so_far, limit) = if head.is_compressed() || self.compressed {
            (0, (message as u64).saturating_add(message as u64 / 8 + 1024))
        } else {
            (self.partial.len() as u64, message as u64)
        };
        let size = head.payload.saturating_add(so_far);
        if size > limit {
            return Err(Fault::too_big("a message", size, message, "message_limit"));
        }
        Ok(())
    }

    /// The kind of the message that begins with this frame; none if it continues one.
    fn begin(&self, head: &Head) -> Result<Option<MessageKind>, Fault> {
        match (head.opcode(), self.message) {
            (opcode::CONTINUATION, Some(_)) => Ok(None),
            (opcode::CONTINUATION, None) => {
                Err(Fault::protocol("a continuation, and there is no message to continue"))
            }
            (_, Some(_)) => Err(Fault::protocol("a new message in the middle of another")),
            (opcode::TEXT, None) => Ok(Some(MessageKind::Text)),
            (_, None) => Ok(Some(MessageKind::Binary)),
        }
    }

    /// Refuses text at the first byte that cannot be UTF-8, before its frame is whole. The bytes
    /// stay as they came, so a copy of what is new among them is unmasked.
    fn check_ahead(&mut self, payload: &[u8], mask: [u8; 4]) -> Result<(), Fault> {
        let mut piece = [0; PIECE];
        while let Some(new) = payload.get(self.checked..).filter(|new| !new.is_empty()) {
            let piece = &mut piece[..new.len().min(PIECE)];
            piece.copy_from_slice(&new[..piece.len()]);
            mask::apply_from(self.checked, piece, mask);
            let known = known_text(piece)?;
            self.checked += known;
            if known < piece.len() && piece.len() == new.len() {
                break; // a code point whose end is still to come
            }
        }
        Ok(())
    }

    /// Takes what has arrived of a frame's payload. Returns how much that was.
    fn take(
        &mut self,
        limits: &Limits,
        mut frame: Arriving,
        rest: &mut [u8],
    ) -> Result<usize, Fault> {
        let now = frame.left.min(rest.len());
        let payload = &mut rest[..now];
        if let Some(mask) = &mut frame.mask {
            mask::apply(payload, *mask);
            mask.rotate_left(now % 4);
        }
        if let (true, Some(deflate)) = (self.compressed, &mut self.deflate) {
            deflate.inflate(payload, &mut self.partial, limits.message)?;
            if frame.last && now == frame.left {
                deflate.finish()?;
            }
        } else {
            self.partial.extend_from_slice(payload);
        }
        frame.left -= now;
        self.arriving = (frame.left > 0).then_some(frame);
        if self.message == Some(MessageKind::Text) {
            self.checked += known_text(&self.partial[self.checked..])?;
        }
        Ok(now)
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
        mask::apply(payload, mask.unwrap_or_default());
        let said = PeerClose::parse(payload)?;
        let code = said.code().map(u16::to_be_bytes);
        self.close_once(cx, code.as_ref().map_or(&[], |code| code), reply);
        self.closing = Closing::Done;
        self.peer_close = Some(Box::new(said));
        Ok(())
    }

    /// As `Layer::encode`.
    pub(super) fn encode(
        &mut self,
        limits: &Limits,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        let Some(opcode) = self.opcode_of(limits, message, kind)? else { return Ok(()) };
        if self.deflate.is_some() && message.len() >= limits.deflate_from {
            self.write_deflated(cx, opcode, message, wire);
        } else {
            write(cx, self.role, opcode, 0, message, wire);
        }
        Ok(())
    }

    /// Appends a message compressed, if that makes it shorter.
    #[inline(never)]
    fn write_deflated(
        &mut self,
        cx: &mut LayerContext<'_>,
        opcode: u8,
        message: &[u8],
        wire: &mut Vec<u8>,
    ) {
        let Some(deflate) = &mut self.deflate else { return };
        let was_idle = deflate.idle_at().is_none();
        match deflate.deflate(message, cx.now()) {
            Some(shorter) => write(cx, self.role, opcode, head::RSV1, shorter, wire),
            None => write(cx, self.role, opcode, 0, message, wire),
        }
        deflate.written();
        if was_idle {
            cx.call_at(deflate.idle_at());
        }
    }

    /// As `Layer::encode_shared`. What is not compressed is not in the peers' windows (RFC 7692 section
    /// 7.2.2), so the other layers need not know of it.
    pub(super) fn encode_shared(
        &mut self,
        limits: &Limits,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        let Some(opcode) = self.opcode_of(limits, message, kind)? else { return Ok(false) };
        let Some(deflate) = self.deflate.as_mut().filter(|_| message.len() >= limits.deflate_from)
        else {
            write(cx, self.role, opcode, 0, message, wire);
            return Ok(false);
        };
        let shorter = deflate.deflate_alone(message);
        let compressed = shorter.is_some();
        let bits = if compressed { head::RSV1 } else { 0 };
        write(cx, self.role, opcode, bits, shorter.unwrap_or(message), wire);
        deflate.written();
        Ok(compressed)
    }

    /// As `Layer::sent_shared`.
    pub(super) fn sent_shared(&mut self) {
        if let Some(deflate) = &mut self.deflate {
            deflate.passed_over();
        }
    }

    /// As `Layer::on_time`: gives the compressor back, if it was not used meanwhile.
    pub(super) fn on_time(&mut self, cx: &mut LayerContext<'_>) {
        let Some(deflate) = &mut self.deflate else { return };
        match deflate.idle_at() {
            Some(at) if at <= cx.now() => deflate.rest(),
            later => cx.call_at(later),
        }
    }

    /// As `Layer::encode_head`: what a server sends, and does not compress, is not changed.
    pub(super) fn encode_head(
        &mut self,
        limits: &Limits,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        let compressed = self.deflate.is_some() && message.len() >= limits.deflate_from;
        if self.role == Role::Client || compressed {
            return Ok(false);
        }
        let Some(opcode) = self.opcode_of(limits, message, kind)? else { return Ok(false) };
        head::write(opcode, 0, None, message.len(), wire);
        Ok(true)
    }

    /// The opcode of a message to send; `None` if it is dropped.
    #[inline]
    fn opcode_of(
        &self,
        limits: &Limits,
        message: &[u8],
        kind: MessageKind,
    ) -> Result<Option<u8>, LayerError> {
        match self.closing {
            Closing::Open => {}
            Closing::Ours => return Err(unencodable("a message behind this side's Close frame")),
            // The peer reads no more. That is no error of the sender, which may be sending to a
            // whole room; and the connection is ending.
            Closing::Done => return Ok(None),
        }
        let text = match kind {
            MessageKind::Text => true,
            MessageKind::Binary => false,
            MessageKind::Default => limits.default_text,
        };
        if text && !is_text(message) {
            return Err(unencodable("a text message that is not UTF-8"));
        }
        Ok(Some(if text { opcode::TEXT } else { opcode::BINARY }))
    }

    /// Appends a Ping (RFC 6455 section 5.5.2); what is over 125 bytes is cut off.
    pub(super) fn ping(&mut self, cx: &mut LayerContext<'_>, payload: &[u8], wire: &mut Vec<u8>) {
        if self.closing == Closing::Open {
            let payload = &payload[..payload.len().min(MAX_CONTROL)];
            write(cx, self.role, opcode::PING, 0, payload, wire);
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
    pub(super) fn wire_class(&self, limits: &Limits) -> Option<WireClass> {
        if self.role == Role::Client || self.closing != Closing::Open {
            return None;
        }
        // Whether the peer keeps its window makes no difference: the shared form needs none.
        let class = WireClass::of::<WebSocket>()
            .with(self.deflate.as_ref().map_or(u64::MAX, |_| limits.deflate_from as u64))
            .with(limits.default_text.into());
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
            write(cx, self.role, opcode::CLOSE, 0, payload, wire);
            self.closing = Closing::Ours;
        }
    }
}

#[cold]
fn unencodable(what: &'static str) -> LayerError {
    LayerError::new(NAME, LayerErrorKind::Unencodable, what)
}

/// Whether these bytes are UTF-8. Most text is ASCII, which is found out in a fraction of the time.
#[inline]
fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

/// What only control frames must keep (RFC 6455 section 5.5).
fn check_control(head: &Head) -> Result<(), Fault> {
    let known = matches!(head.opcode(), opcode::CLOSE | opcode::PING | opcode::PONG);
    if !known {
        return Err(Fault::protocol(format!("a frame of the opcode {}", head.opcode())));
    }
    if !head.is_final() {
        return Err(Fault::protocol("a control frame in fragments"));
    }
    if head.payload > MAX_CONTROL as u64 {
        return Err(Fault::protocol(format!("a control frame of {} bytes", head.payload)));
    }
    Ok(())
}

/// How many of these bytes are known to be whole UTF-8. A code point may be cut at their end: only its
/// beginning is looked at again.
fn known_text(bytes: &[u8]) -> Result<usize, Fault> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes.len()),
        Err(fault) if fault.error_len().is_none() => Ok(fault.valid_up_to()),
        Err(_) => Err(Fault::not_utf8("a text message")),
    }
}
