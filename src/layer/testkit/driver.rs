//! One layer, driven in memory.

use std::ops::Range;
use std::time::Duration;

use super::super::{
    Delivery, Item, Layer, LayerContext, LayerEnd, LayerError, LayerErrorKind, MessageKind, Step,
};
use super::environment::Environment;

/// The limit on steps in a row that yield and consume nothing; more of them count as a loop.
const IDLE_STEPS: usize = 10_000;

/// The default for [`Driver::slack`]: a layer may reserve a block to decode into.
const SLACK: usize = 64 * 1024;

/// From this size on a message leaves without a copy where the layer can do that.
const LONG: usize = 16 * 1024;

/// One unit that a layer yielded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Text or binary.
    pub kind: MessageKind,
    /// The fields that the layer named, as ranges of `bytes`.
    pub fields: Vec<Range<usize>>,
}

/// Runs one layer by the [contract](crate::layer), as a connection would, and checks that the layer
/// keeps it.
///
/// It panics when a layer
/// * consumes more than it was given, or yields a slice beyond what it consumes,
/// * changes bytes that it does not consume,
/// * names fields without a unit, or beyond it,
/// * leaves bytes in `unit` without yielding [`Item::Unit`], or takes back what it has replied,
/// * yields a unit before it is ready,
/// * yields a unit without any bytes to decode, though [`Layer::holds_input`] reported that it held
///   none; or anything at all behind a unit that used up all bytes,
/// * keeps returning [`Item::Progress`] without ever consuming or yielding anything,
/// * finds something more when asked again after [`Item::Nothing`] without new bytes
///   ([`ask_again`](Driver::ask_again)),
/// * appends to the wire and then fails to encode,
/// * reserves memory in `unit` or `reply` beyond what it puts there ([`slack`](Driver::slack)).
///
/// An error of the layer is no panic: it is kept, and nothing is fed from then on.
#[derive(Debug)]
pub struct Driver<L> {
    layer: L,
    environment: Environment,
    /// Arrived and not consumed.
    arrived: Vec<u8>,
    /// For the peer: replies and encoded messages in the order in which they were made.
    wire: Vec<u8>,
    unit: Vec<u8>,
    units: Vec<Unit>,
    /// The last step was a unit.
    behind_unit: bool,
    wire_ended: bool,
    ended: bool,
    error: Option<LayerError>,
    slack: usize,
}

impl<L: Layer> Driver<L> {
    /// Takes a layer and starts it, in a new [`Environment`].
    pub fn new(layer: L) -> Self {
        Driver::within(Environment::new(), layer)
    }

    /// Takes a layer and starts it in this environment.
    pub fn within(environment: Environment, layer: L) -> Self {
        let mut driver = Driver {
            layer,
            environment,
            arrived: Vec::new(),
            wire: Vec::new(),
            unit: Vec::new(),
            units: Vec::new(),
            behind_unit: false,
            wire_ended: false,
            ended: false,
            error: None,
            slack: SLACK,
        };
        driver.error = driver.layer.start(&mut driver.environment.cx(), &mut driver.wire).err();
        driver
    }

    /// How much capacity beyond twice its content a step may add to a buffer, in bytes. 64 KiB by
    /// default; a layer with a limit far above that, and transcripts that announce much and bring
    /// little, show whether it allocates what is merely announced.
    #[must_use]
    pub fn slack(mut self, bytes: usize) -> Self {
        self.slack = bytes;
        self
    }

    /// Lets `bytes` arrive, and pulls until the layer returns [`Item::Nothing`].
    pub fn feed(&mut self, bytes: &[u8]) {
        self.push(bytes);
        self.pull();
    }

    /// Lets `bytes` arrive without asking the layer for anything.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.is_over() {
            self.arrived.extend_from_slice(bytes);
        }
    }

    /// Pulls until the layer returns [`Item::Nothing`], has ended, or has failed.
    pub fn pull(&mut self) {
        let mut idle = 0;
        while !self.is_over() {
            match self.step() {
                Some(Step { item: Item::Nothing, .. }) | None => break,
                Some(Step { item: Item::Progress, consumed: 0, .. }) => idle += 1,
                Some(_) => idle = 0,
            }
            assert!(
                idle < IDLE_STEPS,
                "{}: said Progress {idle} times without consuming anything",
                self.layer.name()
            );
        }
    }

    /// Asks once more after [`pull`](Driver::pull), without new bytes.
    pub fn ask_again(&mut self) {
        if let Some(step) = self.step() {
            assert_eq!(
                step,
                Step::new(0, Item::Nothing),
                "{}: there was more after Nothing, without new bytes",
                self.layer.name()
            );
        }
    }

    /// One call of [`Layer::decode`]; `None` when the layer has ended or failed, now or before.
    pub fn step(&mut self) -> Option<Step> {
        if self.is_over() {
            return None;
        }
        let name = self.layer.name();
        self.unit.clear();
        let (unit_capacity, wire_capacity) = (self.unit.capacity(), self.wire.capacity());
        let wire_before = self.wire.len();
        let out_of_nothing = self.arrived.is_empty() && !self.layer.holds_input();
        self.environment.take_fields();
        let before = self.arrived.clone();
        let cx = &mut self.environment.cx();
        let result = self.layer.decode(cx, &mut self.arrived, &mut self.unit, &mut self.wire);

        if std::mem::take(&mut self.behind_unit) && out_of_nothing && !self.wire_ended {
            assert!(
                matches!(result, Ok(Step { item: Item::Nothing, .. }))
                    && self.wire.len() == wire_before,
                "{name}: had more behind a unit, having said that it held no input: {result:?}"
            );
        }
        assert!(self.wire.len() >= wire_before, "{name}: took back what was to be sent");
        self.check_growth("unit", &self.unit, unit_capacity);
        self.check_growth("reply", &self.wire, wire_capacity);
        let step = match result {
            Ok(step) => step,
            Err(error) => {
                self.error = Some(error);
                return None;
            }
        };

        let (given, consumed) = (self.arrived.len(), step.consumed);
        assert!(consumed <= given, "{name}: consumed {consumed} bytes of the {given} given");
        assert!(
            self.arrived[consumed..] == before[consumed..],
            "{name}: changed bytes that it did not consume"
        );
        assert!(
            self.unit.is_empty() || step.item == Item::Unit,
            "{name}: {} bytes in `unit`, but said {:?}",
            self.unit.len(),
            step.item
        );
        let bytes = match &step.item {
            Item::Slice(range) => {
                assert!(
                    range.start <= range.end && range.end <= consumed,
                    "{name}: the slice {range:?} is not within the {consumed} bytes consumed"
                );
                Some(self.arrived[range.clone()].to_vec())
            }
            Item::Unit => Some(self.unit.clone()),
            Item::End => {
                self.ended = true;
                None
            }
            Item::Nothing | Item::Progress => None,
        };
        let fields = self.environment.take_fields();
        let len = bytes.as_ref().map_or(0, Vec::len);
        assert!(
            fields.iter().all(|field| field.start <= field.end && field.end <= len),
            "{name}: the fields {fields:?} are not within the {len} bytes of the unit"
        );
        if let Some(bytes) = bytes {
            assert!(self.layer.is_ready(), "{name}: yielded a unit before it was ready");
            assert!(!out_of_nothing, "{name}: yielded a unit, having said that it held no input");
            self.units.push(Unit { bytes, kind: step.kind, fields });
            self.behind_unit = true;
        } else {
            assert!(fields.is_empty(), "{name}: named fields without a unit");
        }
        self.arrived.drain(..consumed);
        Some(step)
    }

    fn check_growth(&self, what: &str, buffer: &Vec<u8>, before: usize) {
        let allowed = (2 * buffer.len() + self.slack).max(before);
        assert!(
            buffer.capacity() <= allowed,
            "{}: reserved {} bytes in `{what}` for the {} it put there",
            self.layer.name(),
            buffer.capacity(),
            buffer.len()
        );
    }

    /// The stream below ends; what only that completes is pulled.
    pub fn end_of_wire(&mut self) {
        self.pull();
        if self.is_over() || self.wire_ended {
            return;
        }
        self.wire_ended = true;
        match self.layer.wire_ended(&mut self.environment.cx(), self.arrived.len()) {
            Ok(()) => self.pull(),
            Err(error) => self.error = Some(error),
        }
    }

    /// Encodes one message; [`take_wire`](Driver::take_wire) has it. A long one, of 16 KiB and more, by
    /// [`Layer::encode_head`] where the layer does that, as a connection does.
    ///
    /// # Errors
    /// The layer refused it.
    ///
    /// # Panics
    /// When the layer is not ready (a driver has to wait), or appended to the wire and
    /// failed.
    pub fn send(&mut self, message: &[u8], kind: MessageKind) -> Result<(), LayerError> {
        let name = self.layer.name();
        assert!(self.layer.is_ready(), "{name}: nothing is encoded before the layer is ready");
        let before = self.wire.len();
        let cx = &mut self.environment.cx();
        let headed = message.len() >= LONG;
        let headed = if headed {
            self.layer.encode_head(cx, message, kind, &mut self.wire)
        } else {
            Ok(false)
        };
        let encoded = match headed {
            Ok(true) => {
                self.wire.extend_from_slice(message);
                Ok(())
            }
            Ok(false) => {
                assert_eq!(self.wire.len(), before, "{name}: no head, but left bytes");
                self.layer.encode(cx, message, kind, &mut self.wire)
            }
            Err(error) => Err(error),
        };
        if encoded.is_err() {
            assert_eq!(self.wire.len(), before, "{name}: failed to encode, but left bytes");
        }
        encoded
    }

    /// This side sends nothing more, for an ordinary reason ([`LayerEnd::Closed`]).
    pub fn end(&mut self) {
        self.end_for(&LayerEnd::Closed);
    }

    /// This side sends nothing more, for the reason given.
    pub fn end_for(&mut self, end: &LayerEnd<'_>) {
        self.layer.end(&mut self.environment.cx(), end, &mut self.wire);
    }

    /// Moves the clock on, and calls the layer if a time has come that it had asked for. Returns
    /// whether it was called.
    pub fn advance(&mut self, by: Duration) -> bool {
        self.environment.advance(by);
        if self.error.is_some() || self.environment.take_due().is_none() {
            return false;
        }
        self.error = self.layer.on_time(&mut self.environment.cx(), &mut self.wire).err();
        true
    }

    /// How long from now the layer wants to be called, if it does.
    pub fn called_in(&self) -> Option<Duration> {
        let at = self.environment.call_at()?;
        Some(at.saturating_duration_since(self.environment.now()))
    }

    /// The environment of one call, for a method of the layer's own.
    pub fn cx(&mut self) -> LayerContext<'_> {
        self.environment.cx()
    }

    /// Replaces the layer by one made from it, and starts the new one, as a connection does to
    /// insert TLS below a running protocol (STARTTLS) with
    /// [`Then::beneath`](crate::layer::Then::beneath).
    ///
    /// # Panics
    /// When bytes have arrived that the old layer has not consumed, or holds: they came before the
    /// switch, and must not be read as if they had come after it.
    #[must_use]
    pub fn switch<M: Layer>(self, make: impl FnOnce(L) -> M) -> Driver<M> {
        assert!(
            self.arrived.is_empty(),
            "{}: {} bytes that came before the switch are not consumed",
            self.layer.name(),
            self.arrived.len()
        );
        assert!(
            !self.layer.holds_input(),
            "{}: it holds bytes that came before the switch",
            self.layer.name()
        );
        let mut driver = Driver {
            layer: make(self.layer),
            environment: self.environment,
            arrived: self.arrived,
            wire: self.wire,
            unit: self.unit,
            units: self.units,
            behind_unit: self.behind_unit,
            wire_ended: self.wire_ended,
            ended: self.ended,
            error: self.error,
            slack: self.slack,
        };
        if driver.error.is_none() {
            driver.error = driver.layer.start(&mut driver.environment.cx(), &mut driver.wire).err();
        }
        driver
    }

    /// The units yielded since they were last taken.
    pub fn take_units(&mut self) -> Vec<Unit> {
        let mut units = std::mem::take(&mut self.units);
        if self.layer.delivery() == Delivery::Stream && !units.is_empty() {
            // A stream has no boundaries to compare.
            let bytes = units.iter().flat_map(|unit| &unit.bytes).copied().collect();
            units = vec![Unit { bytes, kind: MessageKind::Default, fields: Vec::new() }];
        }
        units
    }

    /// The bytes of the units yielded since they were last taken. Those of a
    /// [`Delivery::Stream`] come joined.
    pub fn take_messages(&mut self) -> Vec<Vec<u8>> {
        self.take_units().into_iter().map(|unit| unit.bytes).collect()
    }

    /// What is to be sent to the peer since it was last taken: replies and encoded messages.
    pub fn take_wire(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.wire)
    }

    /// How many bytes have arrived and are not consumed.
    pub fn left(&self) -> usize {
        self.arrived.len()
    }

    /// Whether the layer is ready.
    pub fn is_ready(&self) -> bool {
        self.layer.is_ready()
    }

    /// Whether the layer has yielded [`Item::End`].
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing more is decoded: the layer has ended or failed.
    pub fn is_over(&self) -> bool {
        self.ended || self.error.is_some()
    }

    /// Why the layer failed, if it has.
    pub fn error(&self) -> Option<&LayerError> {
        self.error.as_ref()
    }

    /// Of what sort the layer's failure was, if it has failed.
    pub fn error_kind(&self) -> Option<LayerErrorKind> {
        self.error.as_ref().map(LayerError::kind)
    }

    /// The layer itself.
    pub fn layer(&self) -> &L {
        &self.layer
    }

    /// The layer itself, to change.
    pub fn layer_mut(&mut self) -> &mut L {
        &mut self.layer
    }
}
