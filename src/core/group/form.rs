//! The messages of a log as the layers of one class encode them: once, for all members of that class.

use std::rc::Rc;

use super::log::Entry;
use super::work;
use crate::layer::{LayerError, LayerErrorKind, MessageKind, WireClass};

/// How many forms one log has at most, so that its memory has a bound. Members of further classes get
/// each message through their own layers.
const MOST: usize = 8;

/// One form of a log.
#[derive(Debug)]
pub(super) struct Form {
    class: Rc<WireClass>,
    /// The queues of slow members may share it. Then the next message goes into a copy.
    bytes: Rc<Vec<u8>>,
    /// Where each message ends; as many as are encoded so far.
    ends: Vec<usize>,
    /// The indices of the messages that this format cannot carry.
    unencodable: Vec<u32>,
}

impl Form {
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

    /// The messages from index `from` on that this format cannot carry.
    pub(super) fn unencodable(&self, from: u32) -> impl Iterator<Item = u32> {
        self.unencodable.iter().copied().filter(move |&index| index >= from)
    }

    /// Encodes the messages of `plain` that are not encoded yet, until that has cost `limit`; one at least.
    /// Returns what it cost. An error of any other kind than `Unencodable` is the error of the layer that
    /// was lent for it: the messages before that one are encoded.
    fn encode(
        &mut self,
        (plain, entries): (&[u8], &[Entry]),
        limit: usize,
        mut encode: impl FnMut(&[u8], MessageKind, &mut Vec<u8>) -> Result<(), LayerError>,
    ) -> Result<usize, LayerError> {
        let mut cost = 0;
        if self.ends.len() < entries.len() && Rc::get_mut(&mut self.bytes).is_none() {
            cost += work::bytes(self.bytes.len());
            self.bytes = Rc::new(self.bytes.to_vec());
        }
        let Some(bytes) = Rc::get_mut(&mut self.bytes) else { return Ok(0) };
        let done = self.ends.len();
        let mut start = done.checked_sub(1).map_or(0, |last| entries[last].end);
        for entry in &entries[done..] {
            if cost >= limit && self.ends.len() > done {
                break;
            }
            let before = bytes.len();
            if let Err(error) = encode(&plain[start..entry.end], entry.kind, bytes) {
                bytes.truncate(before);
                if error.kind() != LayerErrorKind::Unencodable {
                    return Err(error);
                }
                log::debug!("a group's message is not sent to the members of one format: {error}");
                self.unencodable.push(self.ends.len() as u32);
            }
            cost += work::ENCODED + work::bytes(entry.end - start);
            start = entry.end;
            self.ends.push(bytes.len());
        }
        Ok(cost)
    }

    fn finish(&mut self) {
        self.ends.clear();
        self.unencodable.clear();
    }

    fn recycle(&mut self, kept: usize) {
        if self.ends.capacity().saturating_mul(size_of::<usize>()) > kept {
            self.ends = Vec::new();
        }
        match Rc::get_mut(&mut self.bytes) {
            Some(bytes) if bytes.capacity() <= kept => bytes.clear(),
            _ => self.bytes = Rc::default(),
        }
    }
}

/// The forms of one log. Those of earlier messages stay, for their memory and because their classes are
/// found by their addresses.
#[derive(Debug, Default)]
pub(super) struct Forms(Vec<Form>);

impl Forms {
    /// The form of a class, if its members have been served before.
    #[inline]
    pub(super) fn find(&self, class: &Rc<WireClass>) -> Option<&Form> {
        self.0.iter().find(|form| Rc::ptr_eq(&form.class, class))
    }

    /// The form of a class, which [`encode`](Self::encode) has made. A member of several groups knows one
    /// of several equal classes.
    pub(super) fn of(&self, class: &Rc<WireClass>) -> &Form {
        let equal = || self.0.iter().find(|form| form.class == *class);
        self.find(class).or_else(equal).expect("the form has been made")
    }

    /// Where the form of a class is; makes it if there is none. Of equal classes the caller gets the one
    /// object that is found by its address. `None` if there are too many forms.
    fn place(&mut self, class: &mut Rc<WireClass>) -> Option<usize> {
        if let Some(place) = self.0.iter().position(|form| form.class == *class) {
            *class = Rc::clone(&self.0[place].class);
            return Some(place);
        }
        let form = Form {
            class: Rc::clone(class),
            bytes: Rc::default(),
            ends: Vec::new(),
            unencodable: Vec::new(),
        };
        if self.0.len() < MOST {
            self.0.push(form);
            return Some(self.0.len() - 1);
        }
        // One that no message of this log has been encoded for.
        let unused = self.0.iter().position(|form| form.ends.is_empty())?;
        self.0[unused] = form;
        Some(unused)
    }

    /// Encodes messages of the log that have no form for this class yet, until that has cost `limit`.
    /// Returns what it cost; `Ok(None)` if there are too many forms.
    pub(super) fn encode(
        &mut self,
        class: &mut Rc<WireClass>,
        log: (&[u8], &[Entry]),
        limit: usize,
        encode: impl FnMut(&[u8], MessageKind, &mut Vec<u8>) -> Result<(), LayerError>,
    ) -> Result<Option<usize>, LayerError> {
        match self.place(class) {
            Some(place) => self.0[place].encode(log, limit, encode).map(Some),
            None => Ok(None),
        }
    }

    /// The messages of the log are forgotten.
    #[inline]
    pub(super) fn finish(&mut self) {
        for form in &mut self.0 {
            form.finish();
        }
    }

    /// The log is empty: each form keeps memory for `kept` bytes at most.
    #[inline]
    pub(super) fn recycle(&mut self, kept: usize) {
        for form in &mut self.0 {
            form.recycle(kept);
        }
    }

    /// The group has no members: nothing needs a form.
    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }
}
