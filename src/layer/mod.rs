//! Wire formats between socket and handler.
//!
//! A [`Layer`] has no I/O. It decodes the bytes that arrived into one unit at a time, and encodes what
//! a handler sends into bytes for the wire. Its driver (a connection, a test, a fuzzer)
//! owns every buffer and every socket. That is why one layer works the same over TCP, a Unix
//! socket or inside a test, and why layers stack: [`Then`] feeds the units of the outer one (the
//! one nearer to the wire) as bytes to the inner one (nearer to the handler).
//!
//! Framing needs no feature: [`Lines`], [`LengthPrefixed`], [`Delimited`], [`FixedSize`].
//! [`testkit`] tests the built-in layers and is there for your own; `docs/layers.md` has a complete
//! example.
//!
//! # The contract between a layer and its driver
//!
//! 1. Each call gets a [`LayerContext`]: the time, randomness, a timer, the fields of a unit. A layer
//!    has no other source of time or randomness.
//! 2. [`start`](Layer::start) is called once, before anything else, when the layer below is ready.
//! 3. [`decode`](Layer::decode) is *pulled*: each call yields one unit at most. The driver calls
//!    again with the bytes that were not consumed until the layer returns [`Item::Nothing`], which
//!    means that the layer holds nothing back and needs bytes it has not seen (called again without
//!    such bytes, it returns the same again). Any step may consume, this one too. A driver may stop
//!    pulling at any unit (back-pressure) and go on later without a new read. It need not ask behind a
//!    unit that used up all bytes, if the layer does not [hold](Layer::holds_input) any: the answer
//!    would be `Nothing`.
//! 4. `decode` may change the bytes that it consumes, in place. It leaves the others as they were.
//! 5. What a layer reads is a stream of bytes, at every place in a stack: message boundaries
//!    below it carry no meaning.
//! 6. `reply` is what the layer itself sends (a handshake, an alert, a pong, a close frame). It is
//!    sent also when `decode` fails, before the connection is closed for it, and always before
//!    anything that is encoded later (a cipher counts records).
//! 7. Until [`is_ready`](Layer::is_ready) nothing is encoded, and no unit is yielded.
//! 8. A driver encodes message by message. Where a layer [takes runs](Layer::takes_runs) it may join
//!    the bytes of several sends into one call of [`encode`](Layer::encode) (a run), and cut them
//!    anywhere. Where several layers have equal [classes](Layer::wire_class), it may let one of them
//!    [encode a message for all](Layer::encode_shared) and send the same bytes to the peers of the
//!    others, whose `encode` is not called; the one may be asked for a message that its own peer does
//!    not get. Where the answer was that the layers must know of it, each whose peer gets the message
//!    [is told so](Layer::sent_shared), between what it encodes that leaves before it and behind it.
//! 9. After an error of `decode`, `wire_ended` or `on_time`, or after [`Item::End`], neither `decode`
//!    nor `wire_ended` is called again. `encode`, `on_time` and `end` may be called after
//!    [`Item::End`]; after an error only `end` is.
//! 10. [`end`](Layer::end) is called once at most, in any state, when this side sends nothing more;
//!     neither `encode` nor `on_time` is called after it. [`wire_ended`](Layer::wire_ended) is called
//!     once at most, when the stream below has ended, and after `decode` returned [`Item::Nothing`]
//!     for all that came before. When `wire_ended` agrees, `decode` is pulled again, with the bytes
//!     that are left, until [`Item::Nothing`] or [`Item::End`]: what only the end completes comes out
//!     there (a last line without its line feed), and in a stack the end travels inward there, so an
//!     error may come of it.
//! 11. A layer allocates for what it has received, never for what a peer merely announces, and each
//!     has a limit on the size of a unit that is on by default.
//! 12. A layer that holds input (decoded units that it has not yielded, consumed parts of one, an end
//!     or an error that comes behind a unit) reports it in [`holds_input`](Layer::holds_input). Between two calls of `decode` TLS may be
//!     inserted below it, and the input that it holds then arrived in clear.

use std::any::{Any, TypeId};
use std::ops::Range;

mod backlog;
#[cfg(any(feature = "deflate", feature = "lz4"))]
mod compression;
mod context;
#[cfg(feature = "deflate")]
mod deflate;
mod delimited;
mod end;
mod error;
mod fixed_size;
#[cfg(any(feature = "deflate", feature = "websocket"))]
mod inflate;
mod length_prefixed;
mod lines;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "resp")]
pub mod resp;
mod scan;
pub mod testkit;
mod then;
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(feature = "websocket")]
pub mod websocket;
mod wire_class;

#[cfg(any(feature = "deflate", feature = "lz4"))]
pub use compression::{CompressionRate, CompressionVolume};
pub use context::LayerContext;
#[cfg(feature = "deflate")]
pub use deflate::Deflate;
pub use delimited::Delimited;
pub use end::LayerEnd;
pub use error::{LayerError, LayerErrorKind};
pub use fixed_size::FixedSize;
pub use length_prefixed::LengthPrefixed;
pub use lines::Lines;
#[cfg(feature = "lz4")]
pub use lz4::Lz4;
#[cfg(feature = "resp")]
pub use resp::Resp;
pub use then::Then;
pub use wire_class::WireClass;

/// Whether a message is text or binary, where the wire format distinguishes them (WebSocket does,
/// RFC 6455 section 5.6). Other formats ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum MessageKind {
    /// An option of the layer decides. The bytes are never inspected for it.
    #[default]
    Default,
    /// Text in UTF-8, which the layer checks.
    Text,
    /// Binary.
    Binary,
}

/// What a layer hands to its handler: a stream, or messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Bytes without boundaries (TLS). What a handler does not take is offered to it again.
    Stream,
    /// Whole messages (framing, WebSocket). Each is consumed when the callback returns.
    Messages,
}

/// What one call of [`Layer::decode`] yielded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Nothing whole: more bytes are needed, and nothing is held back.
    Nothing,
    /// No unit, but progress (a handshake step, a control frame): call again.
    Progress,
    /// One unit lies whole in the bytes that were given to `decode`, at this range, which lies
    /// within those the step consumes: it is handed on without a copy.
    Slice(Range<usize>),
    /// One unit has been appended to `unit` (which stays empty in every other case).
    Unit,
    /// The peer has ended its side in the format's own terms (a `close_notify`, a Close frame).
    End,
}

/// The result of one call of [`Layer::decode`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Step {
    /// How many of the given bytes are finished. The others are given again, with more behind them.
    pub consumed: usize,
    /// What the call yielded.
    pub item: Item,
    /// Text or binary, for [`Item::Slice`] and [`Item::Unit`].
    pub kind: MessageKind,
}

impl Step {
    /// A step that consumed `consumed` bytes and came to `item`, of the default kind.
    pub fn new(consumed: usize, item: Item) -> Self {
        Step { consumed, item, kind: MessageKind::Default }
    }

    /// # Panics
    /// When the step is not one of these bytes: the layer broke its contract.
    pub(crate) fn assert_within(&self, given: &[u8]) {
        let (consumed, len) = (self.consumed, given.len());
        assert!(consumed <= len, "a step consumed {consumed} bytes of the {len} given");
        if let Item::Slice(range) = &self.item {
            let inside = range.start <= range.end && range.end <= consumed;
            assert!(inside, "a unit at {range:?} of the {consumed} bytes consumed");
        }
    }

    /// The same step, its unit marked as text or binary.
    pub fn with_kind(mut self, kind: MessageKind) -> Self {
        self.kind = kind;
        self
    }
}

/// A wire format, without I/O. The [module's page](self) has the contract.
pub trait Layer {
    /// The name of the layer in log lines and errors: `"tls"`, `"lines"`.
    fn name(&self) -> &'static str;

    /// Whether the handler gets a stream or messages. It is asked once, when the layer is ready.
    fn delivery(&self) -> Delivery {
        Delivery::Messages
    }

    /// The layer below is ready. Appends the first bytes that this side sends, if any, to `wire`.
    ///
    /// # Errors
    /// The layer cannot begin; the connection is closed with the error as its reason.
    fn start(&mut self, cx: &mut LayerContext<'_>, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        let _ = (cx, wire);
        Ok(())
    }

    /// Whether the handshake is done. A format without a handshake is ready at once.
    fn is_ready(&self) -> bool {
        true
    }

    /// Takes the next unit out of `wire`, the bytes that have arrived and are not consumed yet
    /// (possibly none: a layer may hold decoded bytes back). `unit` is empty when called; its
    /// capacity is kept by the driver. A reply of the layer itself is appended to `reply`.
    ///
    /// The layer may change in place the bytes of `wire` that this step consumes, for instance to
    /// unmask them, and yield them as [`Item::Slice`] without a copy. Bytes that the step does not
    /// consume must be left as they were: the driver gives them again. After an error nothing is
    /// given again.
    ///
    /// # Errors
    /// The peer broke the format or a limit. What is in `reply` is sent, then the connection is
    /// closed with the error as its reason.
    fn decode(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError>;

    /// Appends the wire form of one message to `wire`; with [`Delivery::Stream`], that of a run of
    /// bytes.
    ///
    /// # Errors
    /// The message cannot be expressed in this format (too long, text that is not UTF-8):
    /// [`LayerErrorKind::Unencodable`], and the connection can go on without it. After an error of
    /// any other sort it cannot. Nothing has been appended in either case.
    fn encode(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError>;

    /// The same for a large message whose wire form is some bytes with the message, as it is, behind
    /// them: appends those bytes only and returns true. The driver writes the message's own bytes
    /// behind them, without a copy; it asks for messages of 16 KiB and more. `false`, the default,
    /// appends nothing: the message is given to [`encode`](Layer::encode).
    ///
    /// # Errors
    /// As of [`encode`](Layer::encode).
    fn encode_head(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        let _ = (cx, message, kind, wire);
        Ok(false)
    }

    /// This side sends nothing more, for the reason `end`. Appends what the format sends at its
    /// end, if anything. It may be called in any state, also before the layer is ready and after an
    /// error of any other call. It appends nothing if the peer could not understand it, or was
    /// already sent an end (an alert, a Close frame).
    fn end(&mut self, cx: &mut LayerContext<'_>, end: &LayerEnd<'_>, wire: &mut Vec<u8>) {
        let _ = (cx, end, wire);
    }

    /// The time that the layer asked for with [`LayerContext::call_at`] has come. The driver
    /// cleared the request before this call: a layer that wants another call asks again. What the
    /// layer sends (for example a ping) is appended to `reply`.
    ///
    /// # Errors
    /// The layer gives up the connection (the peer did not reply in time): the content of `reply`
    /// is sent, then the connection is closed with the error as its reason.
    fn on_time(
        &mut self,
        cx: &mut LayerContext<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        let _ = (cx, reply);
        Ok(())
    }

    /// The stream below has ended, `left` bytes of it undecoded. If that is in order, `decode` is
    /// pulled again afterwards, with those bytes: a layer for which the end completes a unit
    /// remembers here that there was an end, and yields the unit there.
    ///
    /// # Errors
    /// The end came in the middle of a unit, or without the format's own end where it demands one:
    /// a truncated stream, as distinct from a proper end.
    fn wire_ended(&mut self, cx: &mut LayerContext<'_>, left: usize) -> Result<(), LayerError> {
        let _ = cx;
        if left == 0 {
            Ok(())
        } else {
            Err(LayerError::truncated(
                self.name(),
                format!("the stream ended {left} bytes into an unfinished unit"),
            ))
        }
    }

    /// Whether the layer holds input: decoded units that it has not yielded, consumed parts of
    /// one, or an end or an error that it returns in its next step. The driver asks behind a unit that
    /// used up all bytes, to know whether more comes without new ones; and before it inserts another
    /// layer below in mid-stream, because input that
    /// arrived in clear must not be read as if it had come through that layer (CVE-2011-0411). A
    /// layer that consumes only whole units, one per step, holds none and keeps this default. Every
    /// other layer must report what it has consumed. The [test kit](testkit) checks this as far as
    /// it is visible from outside.
    fn holds_input(&self) -> bool {
        false
    }

    /// What the shared wire form of a message depends on: two layers with equal classes
    /// [encode](Self::encode_shared) every message to the same bytes, or to bytes that decode to the same.
    /// The driver asks once the layer is ready; the value holds until `decode` returns [`Item::End`] or
    /// an error, or `end` is called. `None`, the default, is for a layer that cannot do without the
    /// state of its own encoder (TLS).
    fn wire_class(&self) -> Option<WireClass> {
        None
    }

    /// Appends the wire form of one message that is right for the peers of all layers of this one's
    /// [class](Self::wire_class). A layer whose encoder has state (compression with a window) must not
    /// use or change it here, nor may this layer take it that its own peer gets the message. By default
    /// as [`encode`](Self::encode).
    ///
    /// Returns whether the layers must know of the message: then [`sent_shared`](Self::sent_shared) of each
    /// is called for whose peer it leaves, this one included. `false`, the default, is free.
    ///
    /// # Errors
    /// As of [`encode`](Self::encode).
    fn encode_shared(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        self.encode(cx, message, kind, wire).map(|()| false)
    }

    /// This layer's peer is sent messages that [`encode_shared`](Self::encode_shared) of some layer of the
    /// class has made, and of which it said that the others must know. It is called when all is encoded that
    /// leaves before them, and before anything that leaves behind them: once at least, and once for all
    /// messages that leave together. A compressor resets its window here: it would refer to bytes that are
    /// no longer where it thinks.
    fn sent_shared(&mut self) {}

    /// Whether a driver may join the bytes of several sends into one call of [`encode`](Self::encode): a
    /// run, and cut it anywhere. By default where [`delivery`](Self::delivery) is a stream, and in a stack
    /// where the outermost layer is one. A layer that takes runs can encode any bytes.
    fn takes_runs(&self) -> bool {
        self.delivery() == Delivery::Stream
    }

    /// Of a stack whose outer layer [takes runs](Self::takes_runs) and encodes each in a way of its own (TLS): the
    /// [class](Self::wire_class) of what lies within. [`Then`] answers; no other layer needs this. Where
    /// it is `Some`, a driver may encode a message to many members in two steps: once for all of a class
    /// with [`encode_inner`](Self::encode_inner), then for each with [`encode_run`](Self::encode_run).
    /// [`sent_shared`](Self::sent_shared) is as with one step.
    fn inner_class(&self) -> Option<WireClass> {
        None
    }

    /// The first step of two, see [`inner_class`](Self::inner_class): appends what the inner layers make
    /// of one message, as [`encode_shared`](Self::encode_shared) does, and returns the same.
    ///
    /// # Errors
    /// As of [`encode`](Self::encode).
    fn encode_inner(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        inner: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        self.encode_shared(cx, message, kind, inner)
    }

    /// The second step of two, see [`inner_class`](Self::inner_class): appends the wire form of a run of
    /// what the first step has made.
    ///
    /// # Errors
    /// Any error ends the connection.
    fn encode_run(
        &mut self,
        cx: &mut LayerContext<'_>,
        run: &[u8],
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        self.encode(cx, run, MessageKind::Default, wire)
    }

    /// What the layer knows about the peer, by type. Each layer documents the types that it returns
    /// (a TLS layer its certificate and protocol, a WebSocket layer its HTTP request).
    fn layer_info(&self, info: TypeId) -> Option<&dyn Any> {
        let _ = info;
        None
    }

    /// Stacks `inner` between this layer and the handler: `tls.then(Lines::new())`.
    fn then<Inner: Layer>(self, inner: Inner) -> Then<Self, Inner>
    where
        Self: Sized,
    {
        Then::new(self, inner)
    }
}

impl Layer for Box<dyn Layer> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn delivery(&self) -> Delivery {
        (**self).delivery()
    }
    fn start(&mut self, cx: &mut LayerContext<'_>, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        (**self).start(cx, wire)
    }
    fn is_ready(&self) -> bool {
        (**self).is_ready()
    }
    fn decode(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        (**self).decode(cx, wire, unit, reply)
    }
    fn encode(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        (**self).encode(cx, message, kind, wire)
    }
    fn encode_head(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        (**self).encode_head(cx, message, kind, wire)
    }
    fn end(&mut self, cx: &mut LayerContext<'_>, end: &LayerEnd<'_>, wire: &mut Vec<u8>) {
        (**self).end(cx, end, wire);
    }
    fn on_time(
        &mut self,
        cx: &mut LayerContext<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        (**self).on_time(cx, reply)
    }
    fn wire_ended(&mut self, cx: &mut LayerContext<'_>, left: usize) -> Result<(), LayerError> {
        (**self).wire_ended(cx, left)
    }
    fn wire_class(&self) -> Option<WireClass> {
        (**self).wire_class()
    }
    fn encode_shared(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        (**self).encode_shared(cx, message, kind, wire)
    }
    fn sent_shared(&mut self) {
        (**self).sent_shared();
    }
    fn takes_runs(&self) -> bool {
        (**self).takes_runs()
    }
    fn inner_class(&self) -> Option<WireClass> {
        (**self).inner_class()
    }
    fn encode_inner(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        inner: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        (**self).encode_inner(cx, message, kind, inner)
    }
    fn encode_run(
        &mut self,
        cx: &mut LayerContext<'_>,
        run: &[u8],
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        (**self).encode_run(cx, run, wire)
    }
    fn holds_input(&self) -> bool {
        (**self).holds_input()
    }
    fn layer_info(&self, info: TypeId) -> Option<&dyn Any> {
        (**self).layer_info(info)
    }
}

/// Compiles and runs the example in the guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/layers.md")]
struct Guide;
