//! Two layers stacked.

use std::any::{Any, TypeId};
use std::time::Instant;

use super::backlog::{Backlog, recycle};
use super::{
    Delivery, Item, Layer, LayerContext, LayerEnd, LayerError, LayerErrorKind, MessageKind, Step,
    WireClass,
};

/// Two layers as one: `Outer` is nearer to the wire, `Inner` nearer to the handler.
///
/// What the outer layer yields is a stream of bytes to the inner one, whatever its boundaries
/// were; what the inner layer sends, its replies too, goes through the outer one's
/// [`encode`](Layer::encode), with [`MessageKind::Default`]. Made by [`Layer::then`]; stacks of more
/// layers are stacks of stacks, in either nesting.
///
/// * The inner layer starts when the outer one is ready; the stack is ready when both are.
/// * The inner layer is pulled dry before the outer one is asked for more, so that no more lies
///   between the two than one unit of the outer and one unfinished unit of the inner layer: the
///   limits of the two are the limit of the stack.
/// * The end travels inward: when the outer layer yields [`Item::End`], or agrees that the wire
///   ended in order, the inner one is called with the end of its stream, yields what it still has,
///   and may object. An [`Item::End`] of the inner layer is the stack's.
/// * [`end`](Layer::end) ends the inner layer, then the outer one.
/// * [`layer_info`](Layer::layer_info) returns the outer layer's if it has that type, else the inner
///   one's.
/// * A message that the inner layer refuses is lost alone. When the *outer* layer cannot encode bytes
///   that the inner one sends, the peer's inner layer misses a part of its stream: that fails as
///   [`LayerErrorKind::OutOfStep`], with the outer layer's reason as the source, and so does every
///   later message. It ends the connection, whether the message was sent to it or published to a group.
///
/// ```
/// use tidegate::layer::testkit::Driver;
/// use tidegate::layer::{MessageKind, Layer, LengthPrefixed, Lines};
///
/// // Lines inside of length-prefixed blocks.
/// let mut stack = Driver::new(LengthPrefixed::new(2).then(Lines::new()));
/// stack.send(b"hello", MessageKind::Default)?;
/// assert_eq!(stack.take_wire(), b"\x00\x06hello\n");
/// # Ok::<(), tidegate::layer::LayerError>(())
/// ```
#[derive(Debug)]
pub struct Then<Outer, Inner> {
    outer: Outer,
    inner: Inner,
    /// Yielded by the outer layer, not yet consumed by the inner one.
    between: Backlog,
    /// Bytes that the inner layer sends, not yet encoded by the outer one; empty between calls.
    said: Vec<u8>,
    below: Below,
    /// The inner layer has been started (here, or before it was put into this stack).
    inner_started: bool,
    /// The outer layer is ready and the inner one started: bytes pass both ways.
    open: bool,
    /// The inner layer has returned `Nothing` for all that lies between.
    dry: bool,
    /// The outer layer refused bytes that the inner one sends.
    broken: bool,
    /// When each of the two asked to be called.
    outer_at: Option<Instant>,
    inner_at: Option<Instant>,
}

/// How far the end of the stream has travelled inward.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Below {
    /// No end yet.
    Running,
    /// The wire has ended, the outer layer agreed and yields what it still has.
    Draining,
    /// The inner layer was called with the end. It yields what it still has, then the stack yields
    /// this.
    Ended(Item),
}

impl<Outer: Layer, Inner: Layer> Then<Outer, Inner> {
    /// Stacks two layers of which neither has been started.
    pub fn new(outer: Outer, inner: Inner) -> Self {
        Then {
            outer,
            inner,
            between: Backlog::default(),
            said: Vec::new(),
            below: Below::Running,
            inner_started: false,
            open: false,
            dry: false,
            broken: false,
            outer_at: None,
            inner_at: None,
        }
    }

    /// Puts `outer`, which has not been started, below an `inner` layer that is already running
    /// (STARTTLS: RFC 3207, RFC 2595, RFC 7817).
    ///
    /// The driver calls [`start`](Layer::start) on the stack as on any other, which starts the
    /// outer layer only; until that is ready, so is the stack not, and nothing is encoded.
    ///
    /// **From here on, input from the wire belongs to `outer`.** Bytes that arrived before the
    /// switch, in clear, must not be read as if they had arrived after it (command injection,
    /// CVE-2011-0411): a driver refuses the switch, or closes, while it holds bytes that the inner
    /// layer has not consumed. In every STARTTLS protocol both sides wait for the reply of the
    /// other before they continue, so an honest peer leaves none.
    pub fn beneath(outer: Outer, inner: Inner) -> Self {
        Then { inner_started: true, ..Then::new(outer, inner) }
    }

    /// The time for which the running inner layer has asked. It is called once the outer one is ready.
    pub(crate) fn inner_at(mut self, at: Option<Instant>) -> Self {
        self.inner_at = at;
        self
    }

    /// The layer nearer to the wire.
    pub fn outer(&self) -> &Outer {
        &self.outer
    }

    /// The layer nearer to the handler.
    pub fn inner(&self) -> &Inner {
        &self.inner
    }

    /// If the outer layer has just become ready: lets units pass, and starts the inner layer if it
    /// is not running already.
    fn try_open(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        if self.open || !self.outer.is_ready() {
            return Ok(false);
        }
        self.open = true;
        if !self.inner_started {
            self.inner_started = true;
            let started =
                self.inner.start(&mut cx.with_call_at(&mut self.inner_at), &mut self.said);
            let said = self.pass_on_said(cx, wire);
            started.and(said)?;
        }
        Ok(true)
    }

    /// Encodes what the inner layer sends with the outer one.
    fn pass_on_said(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        self.pass_on(cx, |outer, cx, said| outer.encode(cx, said, MessageKind::Default, wire))
    }

    /// Hands what the inner layer sends to the outer one, if it is anything.
    fn pass_on<T: Default>(
        &mut self,
        cx: &mut LayerContext<'_>,
        encode: impl FnOnce(&mut Outer, &mut LayerContext<'_>, &[u8]) -> Result<T, LayerError>,
    ) -> Result<T, LayerError> {
        if self.said.is_empty() {
            return Ok(T::default());
        }
        let outer = &mut cx.with_call_at(&mut self.outer_at);
        let encoded = encode(&mut self.outer, outer, &self.said);
        recycle(&mut self.said);
        encoded.map_err(|error| self.refused(error))
    }

    /// The outer layer cannot encode what the inner one says: the peer's inner layer misses it.
    fn refused(&mut self, error: LayerError) -> LayerError {
        self.broken = true;
        self.out_of_step("refused what was said above it").with_source(error)
    }

    fn out_of_step(&self, what: &'static str) -> LayerError {
        LayerError::new(self.outer.name(), LayerErrorKind::OutOfStep, what)
    }

    /// One step of the inner layer over what lies between, its slice copied out to `unit`.
    fn step_inner(
        &mut self,
        cx: &mut LayerContext<'_>,
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(Item, MessageKind), LayerError> {
        cx.clear_fields();
        let inner = &mut cx.with_call_at(&mut self.inner_at);
        let step = self.inner.decode(inner, self.between.as_mut_slice(), unit, &mut self.said);
        let said = self.pass_on_said(cx, reply);
        let Step { consumed, item, kind } = step?;
        said?;
        let item = match item {
            Item::Slice(range) => {
                unit.extend_from_slice(&self.between.as_mut_slice()[range]);
                Item::Unit
            }
            item => item,
        };
        self.between.consume(consumed);
        self.dry = item == Item::Nothing;
        Ok((item, kind))
    }

    /// One step of the inner layer over `block`, which the outer layer found whole in the wire at
    /// `start`: nothing lies between, so a slice of it can be handed on without a copy.
    fn step_inner_in_place(
        &mut self,
        cx: &mut LayerContext<'_>,
        block: &mut [u8],
        start: usize,
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(Item, MessageKind), LayerError> {
        cx.clear_fields();
        let inner = &mut cx.with_call_at(&mut self.inner_at);
        let step = self.inner.decode(inner, block, unit, &mut self.said);
        let said = self.pass_on_said(cx, reply);
        let Step { consumed, item, kind } = step?;
        said?;
        self.between.extend(&block[consumed..]);
        self.dry = item == Item::Nothing;
        let item = match item {
            Item::Slice(range) => Item::Slice(start + range.start..start + range.end),
            item => item,
        };
        Ok((item, kind))
    }

    /// The stream of the inner layer has ended; when it has yielded all, the stack yields `last`.
    fn end_inner_stream(
        &mut self,
        cx: &mut LayerContext<'_>,
        last: Item,
    ) -> Result<(), LayerError> {
        self.below = Below::Ended(last);
        if self.open {
            let inner = &mut cx.with_call_at(&mut self.inner_at);
            self.inner.wire_ended(inner, self.between.len())?;
            self.dry = false;
        }
        Ok(())
    }

    /// One step of the stack.
    fn step(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let mut consumed = 0;
        loop {
            // What is there already comes first; the inner layer may also hold units back.
            if self.open && !self.dry {
                let (item, kind) = self.step_inner(cx, unit, reply)?;
                if item != Item::Nothing {
                    return Ok(Step { consumed, item, kind });
                }
            }
            if let Below::Ended(last) = &self.below {
                return Ok(Step::new(consumed, last.clone()));
            }

            let rest = &mut wire[consumed..];
            // Straight into the empty backlog where that can be, else by way of `unit`.
            let straight = self.between.is_empty();
            let buffer = self.between.empty_buffer().unwrap_or(unit);
            let outer = &mut cx.with_call_at(&mut self.outer_at);
            let step = self.outer.decode(outer, rest, buffer, reply)?;
            let before = consumed;
            consumed += step.consumed;
            let opened = self.try_open(cx, reply)?;

            match step.item {
                Item::Slice(range) if straight && self.open => {
                    let (block, start) = (&mut rest[range.clone()], before + range.start);
                    let (item, kind) = self.step_inner_in_place(cx, block, start, unit, reply)?;
                    if item != Item::Nothing {
                        return Ok(Step { consumed, item, kind });
                    }
                }
                Item::Slice(range) => {
                    self.between.extend(&rest[range]);
                    self.dry = false;
                }
                Item::Unit => {
                    if !straight {
                        self.between.extend(unit);
                        unit.clear();
                    }
                    self.dry = false;
                }
                Item::Progress => return Ok(Step::new(consumed, Item::Progress)),
                Item::End => self.end_inner_stream(cx, Item::End)?,
                // A running inner layer may hold units back: it is pulled before the stack returns.
                Item::Nothing if opened => {}
                Item::Nothing if self.below == Below::Draining => {
                    self.end_inner_stream(cx, Item::Nothing)?;
                }
                Item::Nothing => return Ok(Step::new(consumed, Item::Nothing)),
            }
        }
    }

    /// The stack's wish to be called is the earlier one of its two layers.
    fn pass_on_wishes(&self, cx: &mut LayerContext<'_>) {
        // What the inner one would say cannot be encoded before the outer one is ready.
        match (self.outer_at, self.inner_at.filter(|_| self.open)) {
            (Some(outer), Some(inner)) => cx.call_at(outer.min(inner)),
            (outer, inner) => cx.call_at(outer.or(inner)),
        }
    }
}

impl<Outer: Layer, Inner: Layer> Layer for Then<Outer, Inner> {
    /// The layer that is at work: the outer one until it is ready, the inner one from then on.
    fn name(&self) -> &'static str {
        if self.open { self.inner.name() } else { self.outer.name() }
    }

    fn delivery(&self) -> Delivery {
        self.inner.delivery()
    }

    fn start(&mut self, cx: &mut LayerContext<'_>, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        let started = self.outer.start(&mut cx.with_call_at(&mut self.outer_at), wire);
        let opened = started.and_then(|()| self.try_open(cx, wire));
        self.pass_on_wishes(cx);
        opened.map(|_| ())
    }

    fn is_ready(&self) -> bool {
        self.open && self.inner.is_ready()
    }

    fn decode(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let step = self.step(cx, wire, unit, reply);
        self.pass_on_wishes(cx);
        step
    }

    fn encode(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        if self.broken {
            return Err(self.out_of_step("refused what was said before, so nothing can follow"));
        }
        let inner = &mut cx.with_call_at(&mut self.inner_at);
        let encoded = self.inner.encode(inner, message, kind, &mut self.said);
        let encoded = encoded.and_then(|()| self.pass_on_said(cx, wire));
        self.pass_on_wishes(cx);
        encoded
    }

    fn end(&mut self, cx: &mut LayerContext<'_>, end: &LayerEnd<'_>, wire: &mut Vec<u8>) {
        if self.open && !self.broken {
            self.inner.end(&mut cx.with_call_at(&mut self.inner_at), end, &mut self.said);
            // An error changes nothing any more: the outer layer's own end still follows.
            let _ = self.pass_on_said(cx, wire);
        }
        self.outer.end(&mut cx.with_call_at(&mut self.outer_at), end, wire);
    }

    fn on_time(
        &mut self,
        cx: &mut LayerContext<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        let now = cx.now();
        let mut called = Ok(());
        if self.outer_at.take_if(|at| *at <= now).is_some() {
            called = self.outer.on_time(&mut cx.with_call_at(&mut self.outer_at), reply);
        }
        if called.is_ok() && self.open && self.inner_at.take_if(|at| *at <= now).is_some() {
            let inner = &mut cx.with_call_at(&mut self.inner_at);
            called = self.inner.on_time(inner, &mut self.said);
            let said = self.pass_on_said(cx, reply);
            called = called.and(said);
        }
        self.pass_on_wishes(cx);
        called
    }

    fn wire_ended(&mut self, cx: &mut LayerContext<'_>, left: usize) -> Result<(), LayerError> {
        let ended = self.outer.wire_ended(&mut cx.with_call_at(&mut self.outer_at), left);
        self.pass_on_wishes(cx);
        ended?;
        self.below = Below::Draining;
        Ok(())
    }

    fn holds_input(&self) -> bool {
        !self.between.is_empty()
            || self.below == Below::Ended(Item::End)
            || self.outer.holds_input()
            || self.inner.holds_input()
    }

    fn wire_class(&self) -> Option<WireClass> {
        if self.below != Below::Running {
            return None; // the outer layer may drop what is encoded behind its end
        }
        Some(self.outer.wire_class()?.then(self.inner.wire_class()?))
    }

    fn encode_shared(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        if self.broken {
            return Err(self.out_of_step("refused what was said before, so nothing can follow"));
        }
        let inner = &mut cx.with_call_at(&mut self.inner_at);
        let encoded = self.inner.encode_shared(inner, message, kind, &mut self.said);
        let encoded = encoded.and_then(|told| {
            let encode = |outer: &mut Outer, cx: &mut LayerContext<'_>, said: &[u8]| {
                outer.encode_shared(cx, said, MessageKind::Default, wire)
            };
            Ok(self.pass_on(cx, encode)? || told)
        });
        self.pass_on_wishes(cx);
        encoded
    }

    fn sent_shared(&mut self) {
        self.outer.sent_shared();
        self.inner.sent_shared();
    }

    fn takes_runs(&self) -> bool {
        self.outer.takes_runs() && self.inner.takes_runs()
    }

    /// That of the inner layer, if the outer one takes runs: what the inner one sends is a stream to it.
    fn inner_class(&self) -> Option<WireClass> {
        if self.below != Below::Running {
            None
        } else if self.outer.takes_runs() {
            self.inner.wire_class()
        } else {
            Some(self.outer.inner_class()?.then(self.inner.wire_class()?))
        }
    }

    fn encode_inner(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        inner: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        if self.broken {
            return Err(self.out_of_step("refused what was said before, so nothing can follow"));
        }
        let inner_cx = &mut cx.with_call_at(&mut self.inner_at);
        let encoded = if self.outer.takes_runs() {
            self.inner.encode_shared(inner_cx, message, kind, inner)
        } else {
            self.inner.encode_shared(inner_cx, message, kind, &mut self.said).and_then(|told| {
                let outer_cx = &mut cx.with_call_at(&mut self.outer_at);
                let kind = MessageKind::Default;
                let encoded = self.outer.encode_inner(outer_cx, &self.said, kind, inner);
                recycle(&mut self.said);
                match encoded {
                    Ok(outer_told) => Ok(outer_told || told),
                    Err(error) => Err(self.refused(error)),
                }
            })
        };
        self.pass_on_wishes(cx);
        encoded
    }

    fn encode_run(
        &mut self,
        cx: &mut LayerContext<'_>,
        run: &[u8],
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        if self.broken {
            return Err(self.out_of_step("refused what was said before, so nothing can follow"));
        }
        let outer = &mut cx.with_call_at(&mut self.outer_at);
        let encoded = if self.outer.takes_runs() {
            self.outer.encode(outer, run, MessageKind::Default, wire)
        } else {
            self.outer.encode_run(outer, run, wire)
        };
        self.pass_on_wishes(cx);
        encoded.map_err(|error| self.refused(error))
    }

    fn layer_info(&self, fact: TypeId) -> Option<&dyn Any> {
        self.outer.layer_info(fact).or_else(|| self.inner.layer_info(fact))
    }
}

#[cfg(test)]
mod tests;
