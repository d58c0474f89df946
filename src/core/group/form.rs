//! The messages of a log as the layers of one class encode them: once, for all members of that class.

use std::ops::Range;
use std::rc::Rc;

use super::log::Entry;
use super::work;
use crate::layer::{LayerError, LayerErrorKind, MessageKind, WireClass};

/// How many forms one log has at most, so that its memory has a bound. Members of further classes get
/// each message through their own layers.
const MOST: usize = 8;

type Encode<'a> = &'a mut dyn FnMut(&[u8], MessageKind, &mut Vec<u8>) -> Result<bool, LayerError>;

/// What a member's layers are lent for: they encode messages for all members of their class.
pub(crate) struct Lent<'a> {
    pub(super) class: Rc<WireClass>,
    /// Appends the form of a message. Returns whether the layers of all who get it must know of it.
    pub(super) encode: Encode<'a>,
    /// About what it may cost; one message is encoded whatever it costs.
    pub(super) limit: usize,
    pub(super) cost: usize,
    /// How many bytes of the form the member may be given.
    pub(super) room: usize,
    /// They are more, or the log has no room for one more form: it gets each message through its own layers.
    pub(super) refused: bool,
    /// The member is given messages that its layers must know of.
    pub(super) told: bool,
    /// The layers have failed, and are not to be used any more.
    pub(super) failed: Option<LayerError>,
}

impl Lent<'_> {
    fn is_done(&self) -> bool {
        self.failed.is_some() || self.cost > 0 && self.cost >= self.limit
    }
}

/// One form of a log.
#[derive(Debug)]
pub(super) struct Form {
    class: Rc<WireClass>,
    /// The queues of slow members may share it. Then the next message goes into a copy.
    bytes: Rc<Vec<u8>>,
    /// Where each message ends; as many as are encoded so far.
    ends: Vec<usize>,
    /// The indices of the messages that are out of the ordinary, in order. In most forms there is none.
    marked: Vec<(u32, Mark)>,
    /// A message of this log, or of the one before, has it.
    used: bool,
}

/// What is out of the ordinary about a message in one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// This format cannot carry it.
    Unencodable,
    /// The layers of each member that gets it must know of it ([`Layer::sent_shared`](crate::layer::Layer)).
    Told,
}

impl Form {
    fn new(class: &Rc<WireClass>) -> Self {
        Form {
            class: Rc::clone(class),
            bytes: Rc::default(),
            ends: Vec::new(),
            marked: Vec::new(),
            used: true,
        }
    }

    pub(super) fn bytes(&self) -> &Rc<Vec<u8>> {
        &self.bytes
    }

    /// How many messages are encoded.
    pub(super) fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    pub(super) fn end(&self, index: u32) -> usize {
        self.ends[index as usize]
    }

    /// The message that the byte at `at` belongs to.
    pub(super) fn message_at(&self, at: usize) -> u32 {
        self.ends.partition_point(|&end| end <= at) as u32
    }

    #[inline]
    pub(super) fn has_marks(&self) -> bool {
        !self.marked.is_empty()
    }

    /// Those of `messages` that are out of the ordinary.
    pub(super) fn marked(&self, messages: Range<u32>) -> &[(u32, Mark)] {
        let place = |index| self.marked.partition_point(|&(one, _)| one < index);
        &self.marked[place(messages.start)..place(messages.end)]
    }

    /// Encodes messages of `plain` before index `until` that are not encoded yet.
    fn encode(&mut self, plain: &[u8], entries: &[Entry], until: u32, lent: &mut Lent<'_>) {
        if Rc::get_mut(&mut self.bytes).is_none() {
            lent.cost += work::bytes(self.bytes.len());
            let mut copy = Vec::with_capacity(self.bytes.len() * 2);
            copy.extend_from_slice(&self.bytes);
            self.bytes = Rc::new(copy);
        }
        let Some(bytes) = Rc::get_mut(&mut self.bytes) else { return };
        self.used = true;
        let mut next = self.ends.len();
        let mut start = next.checked_sub(1).map_or(0, |last| entries[last].end);
        while next < until as usize && !lent.is_done() {
            let (entry, before) = (&entries[next], bytes.len());
            lent.cost += work::ENCODED + work::bytes(entry.end - start);
            match (lent.encode)(&plain[start..entry.end], entry.kind, bytes) {
                _ if bytes.len() < before => {
                    // What others wait for is gone: all is encoded anew, by another one's layers.
                    *bytes = Vec::new();
                    self.finish();
                    let what = "has taken bytes away that it had not appended";
                    let kind = LayerErrorKind::OutOfStep;
                    lent.failed =
                        Some(LayerError::new("the layer of a group's member", kind, what));
                    return;
                }
                Ok(false) => {}
                Ok(true) => self.marked.push((next as u32, Mark::Told)),
                Err(error) if error.kind() == LayerErrorKind::Unencodable => {
                    log::debug!("a group's message is not sent to members of one format: {error}");
                    bytes.truncate(before);
                    self.marked.push((next as u32, Mark::Unencodable));
                }
                Err(error) => {
                    bytes.truncate(before);
                    lent.failed = Some(error);
                    return;
                }
            }
            (start, next) = (entry.end, next + 1);
            self.ends.push(bytes.len());
        }
    }

    fn finish(&mut self) {
        self.ends.clear();
        self.marked.clear();
    }

    /// Keeps memory for `kept` bytes at most. Returns how many those are.
    fn recycle(&mut self, kept: usize) -> usize {
        if Rc::get_mut(&mut self.bytes).is_none_or(|bytes| bytes.capacity() > kept) {
            self.bytes = Rc::default();
        }
        if let Some(bytes) = Rc::get_mut(&mut self.bytes) {
            bytes.clear();
        }
        if self.reserved() > kept {
            (self.ends, self.marked) = (Vec::new(), Vec::new());
        }
        self.reserved()
    }

    fn reserved(&self) -> usize {
        self.bytes.capacity()
            + self.ends.capacity() * size_of::<usize>()
            + self.marked.capacity() * size_of::<(u32, Mark)>()
    }
}

/// The forms of one log. Those of the log before stay, for their memory.
#[derive(Debug, Default)]
pub(super) struct Forms(Vec<Form>);

impl Forms {
    /// The form of a class, if there is one.
    #[inline]
    pub(super) fn find(&self, class: &Rc<WireClass>) -> Option<&Form> {
        self.0.iter().find(|form| Rc::ptr_eq(&form.class, class))
    }

    /// Where the form of a class is; makes it if there is none. `None` if there are too many forms.
    fn place(&mut self, class: &Rc<WireClass>) -> Option<usize> {
        let known = self.0.iter().position(|form| Rc::ptr_eq(&form.class, class));
        if known.is_some() || self.0.len() >= MOST {
            return known;
        }
        self.0.push(Form::new(class));
        Some(self.0.len() - 1)
    }

    /// Encodes messages of the log before index `until` that have no form of this class yet, as far as
    /// what is lent may cost.
    pub(super) fn encode(
        &mut self,
        plain: &[u8],
        entries: &[Entry],
        until: u32,
        lent: &mut Lent<'_>,
    ) {
        match self.place(&lent.class) {
            Some(place) if self.0[place].len() < until => {
                self.0[place].encode(plain, entries, until, lent);
            }
            Some(_) => {}
            None => lent.refused = true,
        }
    }

    /// The messages of the log are forgotten.
    #[inline]
    pub(super) fn finish(&mut self) {
        for form in &mut self.0 {
            form.finish();
        }
    }

    /// A log begins: drops the forms that the one before had no use for.
    #[inline]
    pub(super) fn begin(&mut self) {
        if !self.0.is_empty() {
            self.0.retain_mut(|form| std::mem::take(&mut form.used));
        }
    }

    /// The log is empty: all forms together keep memory for `kept` bytes at most.
    #[inline]
    pub(super) fn recycle(&mut self, mut kept: usize) {
        for form in &mut self.0 {
            kept = kept.saturating_sub(form.recycle(kept));
        }
    }

    /// The group has no members: nothing needs a form.
    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.0.iter().map(Form::reserved).sum()
    }
}
