//! The environment of a call of a layer.

use std::fmt;
use std::ops::Range;
use std::time::Instant;

/// The environment of one call of a [`Layer`](super::Layer): time, randomness, a timer, and the
/// fields of the unit that is being decoded.
///
/// A layer reads no clock and draws no random numbers of its own: a driver can then replay a
/// connection exactly. The driver makes one for each call, which costs a few stores; it reads no
/// clock for it and draws nothing.
///
/// Tests take one from [`testkit::Environment`](super::testkit::Environment). A driver of one's own
/// makes it with [`new`](LayerContext::new):
///
/// ```
/// use std::time::Instant;
/// use tidegate::layer::{MessageKind, Layer, LayerContext, Lines};
///
/// let (mut call_at, mut fields) = (None, Vec::new());
/// let mut cx = LayerContext::new(Instant::now(), &mut call_at, &mut fields);
/// let mut wire = Vec::new();
/// Lines::new().encode(&mut cx, b"hello", MessageKind::Default, &mut wire)?;
/// assert_eq!(wire, b"hello\n");
/// assert_eq!(call_at, None); // lines ask for no timer
/// # Ok::<(), tidegate::layer::LayerError>(())
/// ```
pub struct LayerContext<'a> {
    now: Instant,
    call_at: &'a mut Option<Instant>,
    /// `None` where nothing is decoded.
    fields: Option<&'a mut Vec<Range<usize>>>,
    #[cfg(feature = "random")]
    random: &'a dyn Fn(&mut [u8]),
}

impl<'a> LayerContext<'a> {
    /// An environment whose time is `now`.
    ///
    /// `call_at` belongs to the connection and keeps its value from call to call: the time at which
    /// the driver calls [`Layer::on_time`](super::Layer::on_time), which it clears before that call.
    /// `fields` receives the fields of a unit; the driver clears it before each
    /// [`decode`](super::Layer::decode), and may share it between connections.
    pub fn new(
        now: Instant,
        call_at: &'a mut Option<Instant>,
        fields: &'a mut Vec<Range<usize>>,
    ) -> Self {
        LayerContext { fields: Some(fields), ..LayerContext::without_fields(now, call_at) }
    }

    /// The environment of a call that decodes nothing.
    pub(crate) fn without_fields(now: Instant, call_at: &'a mut Option<Instant>) -> Self {
        LayerContext {
            now,
            call_at,
            fields: None,
            #[cfg(feature = "random")]
            random: &crate::sys::random::fill,
        }
    }

    /// The same environment with another source of randomness, for a driver that has to be
    /// reproducible. The default is the system's (a generator for cryptography that the system
    /// seeds).
    #[cfg(feature = "random")]
    #[must_use]
    pub fn with_random(mut self, fill: &'a dyn Fn(&mut [u8])) -> Self {
        self.random = fill;
        self
    }

    /// The time of the turn that makes this call. It is the same for all calls of one turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Fills `bytes` with random bytes that are fit for keys. Available with the feature `random`,
    /// which `websocket` turns on.
    #[cfg(feature = "random")]
    pub fn random(&mut self, bytes: &mut [u8]) {
        (self.random)(bytes);
    }

    /// Asks for a call of [`Layer::on_time`](super::Layer::on_time) at a time, not before it and as
    /// soon after it as the driver's timers allow (the reactor's have a resolution of a
    /// millisecond). A layer has one such time: a later call replaces it, `None` withdraws it. A
    /// time in the past means the next turn.
    ///
    /// A layer that never calls this costs no timer.
    pub fn call_at(&mut self, time: impl Into<Option<Instant>>) {
        *self.call_at = time.into();
    }

    /// Names a range of the unit that this call of [`decode`](super::Layer::decode) yields, counted
    /// from the unit's first byte. The handler finds the ranges in this order in
    /// [`Input::fields`](crate::Input::fields), and need not parse the unit again. What they mean is
    /// part of the layer's documentation.
    ///
    /// In a stack only the fields of the innermost layer reach the handler.
    pub fn field(&mut self, range: Range<usize>) {
        if let Some(fields) = &mut self.fields {
            fields.push(range);
        }
    }

    /// The same environment for a layer inside a stack, which has a timer of its own.
    pub(super) fn with_call_at<'b>(
        &'b mut self,
        call_at: &'b mut Option<Instant>,
    ) -> LayerContext<'b> {
        LayerContext {
            now: self.now,
            call_at,
            fields: self.fields.as_deref_mut(),
            #[cfg(feature = "random")]
            random: self.random,
        }
    }

    /// Drops the fields that a layer further out has named: they are not ranges of the unit that
    /// the stack yields.
    pub(super) fn clear_fields(&mut self) {
        if let Some(fields) = &mut self.fields {
            fields.clear();
        }
    }
}

impl fmt::Debug for LayerContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerContext")
            .field("now", &self.now)
            .field("call_at", &self.call_at)
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}
