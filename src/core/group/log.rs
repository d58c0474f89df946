//! The messages of one group that some member has not been given yet.

use std::ops::Range;
use std::rc::Rc;

use super::NONE;
use super::form::{Form, Forms, Lent, Mark};
use crate::layer::{MessageKind, WireClass};
use crate::token::Group;

/// One message: where it ends in the bytes, and what is known of it.
#[derive(Debug)]
pub(super) struct Entry {
    /// Counts the messages of all groups: the order in which they were published.
    number: u64,
    pub(super) end: usize,
    /// The member that does not get it, or [`NONE`].
    except: u32,
    /// The entry before this one that excludes the same member, or [`NONE`].
    previous: u32,
    pub(super) kind: MessageKind,
}

/// What one message takes beside its bytes. It counts towards `Config::group_log`, so that empty
/// messages fill a log too.
pub(super) const ENTRY: usize = size_of::<Entry>();

/// Some bytes of a batch: one message, or several of which the kinds do not matter.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) kind: MessageKind,
    /// The group of the message; of several, one of theirs.
    pub(crate) group: Group,
}

/// Messages one behind the other, named by their index.
///
/// Indices hold until [`finish`](Self::finish), which comes when no member waits for any of it.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The queues of slow members may share it. Then the next message goes into a copy.
    bytes: Rc<Vec<u8>>,
    entries: Vec<Entry>,
    /// The keys of those messages that have one, with their numbers, in order. Those of messages that
    /// are gone may still be here: nothing has their numbers any more. So a message without a key costs
    /// nothing for this.
    keys: Vec<(u64, u64)>,
    /// The same messages in wire form, for members with layers.
    forms: Forms,
}

/// A log as the members of one kind see it: the messages as they were published, or those that have a
/// wire form.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    log: &'a Log,
    source: Source<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    Plain,
    Form(&'a Form),
    /// No message has the form yet.
    Nothing,
}

impl<'a> View<'a> {
    /// How many messages there are, or how many have this form already.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        match self.source {
            Source::Plain => self.log.len(),
            Source::Form(form) => form.len(),
            Source::Nothing => 0,
        }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &'a Rc<Vec<u8>> {
        match self.source {
            Source::Form(form) => form.bytes(),
            Source::Plain | Source::Nothing => &self.log.bytes,
        }
    }

    #[inline]
    pub(super) fn end(&self, index: u32) -> usize {
        match self.source {
            Source::Form(form) => form.end(index),
            Source::Plain | Source::Nothing => self.log.end(index),
        }
    }

    /// Where a message begins; for the index after the last one, where the log ends.
    #[inline]
    pub(super) fn start(&self, index: u32) -> usize {
        index.checked_sub(1).map_or(0, |before| self.end(before))
    }

    /// The message that the byte at `at` belongs to.
    pub(super) fn message_at(&self, at: usize) -> u32 {
        match self.source {
            Source::Form(form) => form.message_at(at),
            Source::Plain | Source::Nothing => {
                self.log.entries.partition_point(|entry| entry.end <= at) as u32
            }
        }
    }

    /// Calls `run` with the bytes from message `from` on without those that exclude a member, whose
    /// latest such message is `last_excluding`: the last run first. Costs as much as there are runs,
    /// however many messages.
    pub(super) fn runs(&self, from: u32, last_excluding: u32, mut run: impl FnMut(usize, usize)) {
        let len = self.len();
        if from >= len {
            return;
        }
        let mut end = self.end(len - 1);
        let mut excluding = last_excluding;
        while excluding != NONE && excluding >= from {
            if excluding < len {
                if self.end(excluding) < end {
                    run(self.end(excluding), end);
                }
                end = self.start(excluding);
            }
            excluding = self.log.entries[excluding as usize].previous;
        }
        if self.start(from) < end {
            run(self.start(from), end);
        }
    }

    /// Whether there is anything out of the ordinary about any message.
    #[inline]
    pub(super) fn has_marks(&self) -> bool {
        matches!(self.source, Source::Form(form) if form.has_marks())
    }

    /// What is out of the ordinary about those of these messages that are for the member.
    pub(super) fn marked(&self, messages: Range<u32>, member: u32) -> Marked {
        let mut marked = Marked::default();
        let Source::Form(form) = self.source else { return marked };
        for &(index, mark) in form.marked(messages) {
            if !self.log.excludes(index, member) {
                match mark {
                    Mark::Unencodable => marked.lost += 1,
                    Mark::Told => marked.told = true,
                }
            }
        }
        marked
    }
}

/// What one member's messages have out of the ordinary.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marked {
    /// How many its format cannot carry.
    pub(super) lost: u64,
    /// Its layers must know that they leave.
    pub(super) told: bool,
}

impl Log {
    /// The messages as they were published; or, with a class, those that have its form.
    #[inline]
    pub(super) fn view(&self, class: Option<&Rc<WireClass>>) -> View<'_> {
        let source = match class {
            None => Source::Plain,
            Some(class) => self.forms.find(class).map_or(Source::Nothing, Source::Form),
        };
        View { log: self, source }
    }

    /// The messages in the form of a class, if all of them have it already.
    #[inline]
    pub(super) fn whole_form(&self, class: &Rc<WireClass>) -> Option<View<'_>> {
        let view = self.view(Some(class));
        (view.len() == self.len()).then_some(view)
    }

    /// Encodes messages before index `until` that have no form of this class yet, as far as what is lent
    /// may cost.
    pub(super) fn encode(&mut self, until: u32, lent: &mut Lent<'_>) {
        self.forms.encode(&self.bytes, &self.entries, until, lent);
    }

    /// The group has no members any more.
    pub(super) fn forget_forms(&mut self) {
        self.forms.clear();
    }

    /// Gives the message that was published last its key.
    pub(super) fn set_key(&mut self, number: u64, key: u64) {
        if !self.has_keys() {
            self.keys.clear();
        }
        self.keys.push((number, key));
    }

    /// Whether some message has a key.
    #[inline]
    pub(super) fn has_keys(&self) -> bool {
        let last = self.keys.last();
        last.is_some_and(|last| self.entries.first().is_some_and(|first| first.number <= last.0))
    }

    /// The key of a message.
    pub(super) fn key(&self, index: u32) -> Option<u64> {
        let number = self.entries[index as usize].number;
        // Mostly all messages have one, or none.
        match self.keys.get(index as usize) {
            Some(&(of, key)) if of == number => Some(key),
            _ => {
                let place = self.keys.binary_search_by_key(&number, |&(of, _)| of).ok()?;
                Some(self.keys[place].1)
            }
        }
    }

    /// What the keys take, for `Config::group_log`.
    pub(super) fn cost_of_keys(&self) -> usize {
        if self.has_keys() { size_of_val(&*self.keys) } else { 0 }
    }

    /// How many messages.
    pub(super) fn len(&self) -> u32 {
        // Cannot truncate: `is_full` keeps one entry's index free.
        self.entries.len() as u32
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether `more` bytes as one message would take the log over `limit`. An empty log takes one
    /// message of any size.
    pub(super) fn is_full(&self, more: usize, limit: usize) -> bool {
        let cost = self.bytes.len() + (self.entries.len() + 1) * ENTRY;
        !self.is_empty()
            && (cost.saturating_add(more) > limit || self.entries.len() >= NONE as usize - 1)
    }

    /// Appends a message. Returns how many bytes had to be copied, because a queue shares the log.
    pub(super) fn push(
        &mut self,
        number: u64,
        bytes: &[u8],
        kind: MessageKind,
        except: u32,
        previous: u32,
    ) -> usize {
        if self.is_empty() {
            self.recycle(usize::MAX);
            self.forms.begin();
        }
        let mut copied = 0;
        if Rc::get_mut(&mut self.bytes).is_none() {
            // Once a turn at most: only a hand-over to a slow member shares the log.
            copied = self.bytes.len();
            let mut copy = Vec::with_capacity(copied * 2 + bytes.len());
            copy.extend_from_slice(&self.bytes);
            self.bytes = Rc::new(copy);
        }
        if let Some(own) = Rc::get_mut(&mut self.bytes) {
            own.extend_from_slice(bytes);
        }
        self.entries.push(Entry { number, end: self.bytes.len(), except, previous, kind });
        copied
    }

    pub(super) fn bytes(&self) -> &Rc<Vec<u8>> {
        &self.bytes
    }

    /// Where a message begins; for the index after the last one, where the log ends.
    pub(super) fn start(&self, index: u32) -> usize {
        index.checked_sub(1).map_or(0, |before| self.entries[before as usize].end)
    }

    pub(super) fn end(&self, index: u32) -> usize {
        self.entries[index as usize].end
    }

    pub(super) fn number(&self, index: u32) -> Option<u64> {
        self.entries.get(index as usize).map(|entry| entry.number)
    }

    pub(super) fn kind(&self, index: u32) -> MessageKind {
        self.entries[index as usize].kind
    }

    pub(super) fn excludes(&self, index: u32, member: u32) -> bool {
        self.entries[index as usize].except == member
    }

    /// No member waits for any of it: forgets the messages.
    pub(super) fn finish(&mut self) {
        self.entries.clear();
        self.forms.finish();
    }

    /// Empties a log without messages. Memory for `kept` bytes at most stays for the next ones; what
    /// a queue shares is left to it.
    pub(super) fn recycle(&mut self, kept: usize) {
        if self.entries.capacity().saturating_mul(ENTRY) > kept {
            self.entries = Vec::new();
            self.keys = Vec::new();
        }
        match Rc::get_mut(&mut self.bytes) {
            Some(bytes) if bytes.capacity() <= kept => bytes.clear(),
            _ => self.bytes = Rc::default(),
        }
        self.forms.recycle(kept);
    }

    #[cfg(test)]
    /// The memory that is reserved, in bytes.
    pub(super) fn reserved(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * ENTRY + self.forms.reserved()
    }
}
