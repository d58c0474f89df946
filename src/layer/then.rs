//! Two layers, one upon the other.

use std::any::{Any, TypeId};

use super::backlog::{Backlog, recycle};
use super::{Delivery, Item, Kind, Layer, LayerError, LayerErrorKind, Step};

/// Two layers as one: `Outer` is nearer to the wire, `Inner` nearer to the handler.
///
/// What the outer layer yields is a stream of bytes to the inner one, whatever its boundaries
/// were; what the inner layer says, its replies too, goes through the outer one's
/// [`encode`](Layer::encode), with [`Kind::Default`]. Made by [`Layer::then`]; stacks of more
/// layers are stacks of stacks, in either nesting.
///
/// * The inner layer starts when the outer one is ready; the stack is ready when both are.
/// * The inner layer is pulled dry before the outer one is asked for more, so that no more lies
///   between the two than one unit of the outer and one unfinished unit of the inner layer: the
///   limits of the two are the limit of the stack.
/// * The end travels inward: when the outer layer yields [`Item::End`], or agrees that the wire
///   ended in order, the inner one is told that its stream ended, gives out what it still has,
///   and may object. An [`Item::End`] of the inner layer is the stack's.
/// * [`end`](Layer::end) ends the inner layer, then the outer one.
/// * A fact is the outer layer's if it has one of that type, else the inner one's.
/// * A message that the inner layer refuses does no harm. When the *outer* layer cannot encode what
///   the inner one has said, the inner one's side of the conversation has a hole: that fails as
///   [`LayerErrorKind::OutOfStep`], with the outer layer's reason as the source, and so does every
///   later message.
///
/// ```
/// use tidegate::layer::{Kind, Layer, LengthPrefixed, Lines};
///
/// // Lines inside of length-prefixed blocks.
/// let mut stack = LengthPrefixed::new(2).then(Lines::new());
/// let mut wire = Vec::new();
/// stack.start(&mut wire)?;
/// stack.encode(b"hello", Kind::Default, &mut wire)?;
/// assert_eq!(wire, b"\x00\x06hello\n");
/// # Ok::<(), tidegate::layer::LayerError>(())
/// ```
#[derive(Debug)]
pub struct Then<Outer, Inner> {
    outer: Outer,
    inner: Inner,
    /// Yielded by the outer layer, not yet consumed by the inner one.
    between: Backlog,
    /// Said by the inner layer, on its way through the outer one; empty between calls.
    said: Vec<u8>,
    below: Below,
    /// The inner layer has been started (here, or before it was put into this stack).
    inner_started: bool,
    /// The outer layer is ready and the inner one started: units and words pass.
    open: bool,
    /// The inner layer has said `Nothing` to all that lies between.
    dry: bool,
    /// The outer layer refused words of the inner one.
    broken: bool,
}

/// How far the end of the stream has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Below {
    /// No end yet.
    Running,
    /// The wire has ended, the outer layer agreed and is giving out what it still has.
    Draining,
    /// The inner layer knows. It gives out what it still has, then the stack answers with this.
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
        }
    }

    /// Puts `outer`, which has not been started, beneath an `inner` layer that is already running
    /// (STARTTLS: RFC 3207, RFC 2595, RFC 7817).
    ///
    /// The driver calls [`start`](Layer::start) on the stack as on any other, which starts the
    /// outer layer only; until that is ready, so is the stack not, and nothing is encoded.
    ///
    /// **From here on, what comes from the wire belongs to `outer`.** Bytes that came before the
    /// switch, in clear, must not be read as if they had come after it (command injection,
    /// CVE-2011-0411): a driver refuses the switch, or closes, while it holds bytes that the inner
    /// layer has not consumed. Both sides of every STARTTLS protocol wait for the other's word
    /// before they go on, so an honest peer leaves none.
    pub fn beneath(outer: Outer, inner: Inner) -> Self {
        Then { inner_started: true, ..Then::new(outer, inner) }
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
    fn try_open(&mut self, wire: &mut Vec<u8>) -> Result<bool, LayerError> {
        if self.open || !self.outer.is_ready() {
            return Ok(false);
        }
        self.open = true;
        if !self.inner_started {
            self.inner_started = true;
            let started = self.inner.start(&mut self.said);
            let said = self.pass_on_said(wire);
            started.and(said)?;
        }
        Ok(true)
    }

    /// What the inner layer said goes through the outer one.
    fn pass_on_said(&mut self, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        if self.said.is_empty() {
            return Ok(());
        }
        let encoded = self.outer.encode(&self.said, Kind::Default, wire);
        recycle(&mut self.said);
        encoded.map_err(|error| {
            self.broken = true;
            self.out_of_step("refused what was said above it").with_source(error)
        })
    }

    fn out_of_step(&self, what: &'static str) -> LayerError {
        LayerError::new(self.outer.name(), LayerErrorKind::OutOfStep, what)
    }

    /// One step of the inner layer over what lies between, its slice copied out to `unit`.
    fn step_inner(
        &mut self,
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(Item, Kind), LayerError> {
        let step = self.inner.decode(self.between.as_slice(), unit, &mut self.said);
        let said = self.pass_on_said(reply);
        let Step { consumed, item, kind } = step?;
        said?;
        let item = match item {
            Item::Slice(range) => {
                unit.extend_from_slice(&self.between.as_slice()[range]);
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
        block: &[u8],
        start: usize,
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<(Item, Kind), LayerError> {
        let step = self.inner.decode(block, unit, &mut self.said);
        let said = self.pass_on_said(reply);
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

    /// The stream of the inner layer has ended; when it has given out all, the stack says `last`.
    fn end_inner_stream(&mut self, last: Item) -> Result<(), LayerError> {
        self.below = Below::Ended(last);
        if self.open {
            self.inner.wire_ended(self.between.len())?;
            self.dry = false;
        }
        Ok(())
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

    fn start(&mut self, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        self.outer.start(wire)?;
        self.try_open(wire)?;
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.open && self.inner.is_ready()
    }

    fn decode(
        &mut self,
        wire: &[u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let mut consumed = 0;
        loop {
            // What is there already comes first; the inner layer may also hold units back.
            if self.open && !self.dry {
                let (item, kind) = self.step_inner(unit, reply)?;
                if item != Item::Nothing {
                    return Ok(Step { consumed, item, kind });
                }
            }
            if let Below::Ended(last) = &self.below {
                return Ok(Step::new(consumed, last.clone()));
            }

            let rest = &wire[consumed..];
            // Straight into the empty backlog where that can be, else by way of `unit`.
            let straight = self.between.is_empty();
            let buffer = self.between.empty_buffer().unwrap_or(unit);
            let step = self.outer.decode(rest, buffer, reply)?;
            let before = consumed;
            consumed += step.consumed;
            let opened = self.try_open(reply)?;

            match step.item {
                Item::Slice(range) if straight && self.open => {
                    let (block, start) = (&rest[range.clone()], before + range.start);
                    let (item, kind) = self.step_inner_in_place(block, start, unit, reply)?;
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
                Item::End => self.end_inner_stream(Item::End)?,
                // A running inner layer may hold units back: it is asked before this is the answer.
                Item::Nothing if opened => {}
                Item::Nothing if self.below == Below::Draining => {
                    self.end_inner_stream(Item::Nothing)?;
                }
                Item::Nothing => return Ok(Step::new(consumed, Item::Nothing)),
            }
        }
    }

    fn encode(&mut self, message: &[u8], kind: Kind, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        if self.broken {
            return Err(self.out_of_step("refused what was said before, so nothing can follow"));
        }
        self.inner.encode(message, kind, &mut self.said)?;
        self.pass_on_said(wire)
    }

    fn end(&mut self, wire: &mut Vec<u8>) {
        if self.open && !self.broken {
            self.inner.end(&mut self.said);
            // There is nobody left to tell: the outer layer's own end still follows.
            let _ = self.pass_on_said(wire);
        }
        self.outer.end(wire);
    }

    fn wire_ended(&mut self, left: usize) -> Result<(), LayerError> {
        self.outer.wire_ended(left)?;
        self.below = Below::Draining;
        Ok(())
    }

    fn holds_input(&self) -> bool {
        !self.between.is_empty() || self.outer.holds_input() || self.inner.holds_input()
    }

    fn fact(&self, fact: TypeId) -> Option<&dyn Any> {
        self.outer.fact(fact).or_else(|| self.inner.fact(fact))
    }
}

#[cfg(test)]
mod tests;
