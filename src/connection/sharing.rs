//! What the layers of a connection have in common with those of others, for the messages of groups.

use std::rc::Rc;

use super::wire::{OwnSide, PeerSide};
use super::{Conn, Phase};
use crate::error::CloseReason;
use crate::guard::guarded;
use crate::layer::{Layer, LayerContext, LayerError, MessageKind, WireClass};

/// The longest run that is encoded at once, in bytes. With what TLS adds it fits into a buffer that is kept.
const RUN: usize = 48 * 1024;

/// How many classes are known at a time, so that their memory has a bound.
const MOST_CLASSES: usize = 32;

/// How a group's messages get through the layers of one member.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sharing {
    /// Each is encoded for this member alone.
    Nothing,
    /// As a stream: touching messages are encoded as one run.
    Runs,
    /// All members of this class have the same wire form.
    Whole(Rc<WireClass>),
    /// What lies within the outermost layer is the same for all members of this class. That layer encodes
    /// runs of it.
    Inner(Rc<WireClass>),
}

/// The classes of all connections, each as one object: equal ones are known by their address.
#[derive(Debug, Default)]
pub(crate) struct Classes(Vec<Rc<WireClass>>);

impl Classes {
    /// `None` if there are too many.
    fn intern(&mut self, class: WireClass) -> Option<Rc<WireClass>> {
        if let Some(known) = self.0.iter().find(|known| ***known == class) {
            return Some(Rc::clone(known));
        }
        if self.0.len() >= MOST_CLASSES {
            self.0.retain(|class| Rc::strong_count(class) > 1);
        }
        if self.0.len() >= MOST_CLASSES {
            return None;
        }
        self.0.push(Rc::new(class));
        self.0.last().cloned()
    }

    #[cold]
    fn ask(&mut self, layer: &dyn Layer) -> Sharing {
        let asked = guarded(|| {
            if let Some(class) = layer.wire_class() {
                self.intern(class).map(Sharing::Whole)
            } else if let Some(class) = layer.inner_class() {
                self.intern(class).map(Sharing::Inner)
            } else {
                layer.takes_runs().then_some(Sharing::Runs)
            }
        });
        asked.ok().flatten().unwrap_or(Sharing::Nothing)
    }
}

impl Conn<'_> {
    /// How a group's messages get through its layers now.
    #[inline]
    pub(crate) fn sharing(&mut self, classes: &mut Classes) -> Sharing {
        let open = self.stream.phase() == Phase::Open;
        match self.stream.wire_mut() {
            Some(wire) if open && wire.own == OwnSide::Ready && wire.peer == PeerSide::Open => {
                if std::mem::take(&mut wire.sharing_is_old) {
                    wire.sharing = classes.ask(&*wire.layer);
                }
                wire.sharing.clone()
            }
            _ => Sharing::Nothing,
        }
    }

    /// Appends the form of a message that all connections of this one's class have: the wire form, or that
    /// of the inner layers. Returns whether the layers of all who get it must know of it.
    pub(crate) fn encode_shared(
        &mut self,
        inner: bool,
        (message, kind): (&[u8], MessageKind),
        form: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        let now = self.work.now;
        let Some(wire) = self.stream.wire_mut() else { return Ok(false) };
        let called_at = wire.call_at;
        let mut fields = Vec::new(); // nothing is decoded
        let mut cx = LayerContext::new(now, &mut wire.call_at, &mut fields);
        let encoded = guarded(|| match inner {
            true => wire.layer.encode_inner(&mut cx, message, kind, form),
            false => wire.layer.encode_shared(&mut cx, message, kind, form),
        })
        .unwrap_or_else(|text| Err(LayerError::panicked(wire.layer.name(), text)));
        if wire.call_at != called_at {
            self.watch();
        }
        encoded
    }

    /// Tells its layers that messages leave which another one's have encoded for all.
    #[cold]
    pub(crate) fn sent_shared(&mut self) {
        let Some(wire) = self.stream.wire_mut() else { return };
        if let Err(text) = guarded(|| wire.layer.sent_shared()) {
            let error = LayerError::panicked(wire.layer.name(), text);
            self.encode_failed(error);
        }
    }

    /// Queues the wire form of a run: of the form that the inner layers have made, or of bytes, for a
    /// stream layer. An error ends the connection; returns how many bytes of the run are lost by it.
    pub(crate) fn queue_run(&mut self, inner: bool, run: &[u8]) -> usize {
        let mut left = run;
        while !left.is_empty() {
            let (next, behind) = left.split_at(left.len().min(RUN));
            let queued = self.write_with_layer(|layer, cx, buffer| match inner {
                true => layer.encode_run(cx, next, buffer),
                false => layer.encode(cx, next, MessageKind::Default, buffer),
            });
            if let Err(error) = queued {
                if error.kind() == crate::layer::LayerErrorKind::Panicked {
                    self.stream.disable_layers();
                }
                self.finish(CloseReason::Layer(error));
                return left.len();
            }
            left = behind;
        }
        self.queued_more();
        0
    }
}
