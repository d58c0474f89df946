//! Names that are kept by the engine: where this process is in each, and who waits for what was said.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::envelope::Publisher;
use crate::layer::MessageKind;
use crate::message::Message;
use crate::token::Token;

/// So many messages of this process are remembered for a name until they have been read back. Beyond it
/// the oldest are forgotten, and somebody who joins in that moment misses them.
const UNREAD: usize = 1024;

/// Of how many publishers a name remembers the last number.
const PUBLISHERS: usize = 1024;

/// How many entries one read asks for, at first. Half as many after an answer that was too large.
const PAGE: usize = 1024;

/// After so many answers that were not, twice as many.
const GOOD: u32 = 16;

/// How long a name is left alone that the engine refuses to read: another type, an ACL.
const REFUSED: Duration = Duration::from_secs(60);

/// The place of an entry: milliseconds and a number.
pub(super) type Id = (u64, u64);

pub(super) fn parse_id(text: &[u8]) -> Option<Id> {
    let (milliseconds, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
    Some((milliseconds.parse().ok()?, number.parse().ok()?))
}

pub(super) fn show_id((milliseconds, number): Id) -> String {
    format!("{milliseconds}-{number}")
}

/// Somebody who joins a name, and is first sent what was said there.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub(super) token: Token,
    pub(super) name: Box<[u8]>,
    pub(super) count: usize,
}

/// A message of this process that has not been read back.
#[derive(Debug)]
struct Unread {
    number: u64,
    kind: MessageKind,
    bytes: Vec<u8>,
}

impl Unread {
    fn cost(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }
}

/// A name with members here.
#[derive(Debug, Default)]
struct Stream {
    /// The last entry that was read; `None` until it is known where to begin.
    cursor: Option<Id>,
    heard: HashMap<Publisher, u64>,
    /// Messages of this process that have not been read back.
    unread: VecDeque<Unread>,
    /// The number of the first that was: what was said later and was not read before another one is not there.
    first_read: Option<u64>,
    /// The program waits for what was said before.
    untold: bool,
    /// Up to where that goes, if somebody was told a history first: what follows comes as it is said.
    told_from: Option<Id>,
    /// The engine refused a read with this name in it, and may have meant another one.
    doubted: bool,
    /// The engine refuses it; when it is tried again.
    refused: Option<Instant>,
    /// So many wait for its history: they are to hear what is said meanwhile, whoever leaves.
    waiting: usize,
}

impl Stream {
    /// Whether it is read alone, to know where it is or whether it can be read.
    fn is_looked_at(&self, now: Instant) -> bool {
        match self.refused {
            Some(until) => until <= now,
            None => self.doubted || self.cursor.is_none(),
        }
    }

    fn is_readable(&self) -> bool {
        self.refused.is_none()
    }

    /// Whether a message of another process is new.
    fn hear(&mut self, (publisher, number): (Publisher, u64)) -> bool {
        if self.heard.len() >= PUBLISHERS && !self.heard.contains_key(&publisher) {
            // Some publishers of the past; the worst of it is a message twice.
            self.heard.clear();
        }
        let last = self.heard.entry(publisher).or_default();
        let new = *last < number;
        *last = number.max(*last);
        new
    }
}

/// What the reader does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Tell a newcomer what was said.
    History(Newcomer),
    /// Find out where a name begins for this process.
    Begin(Box<[u8]>),
    /// Wait for what is said in these names behind these places, so many of each.
    Read(Vec<(Box<[u8]>, Id)>, usize),
    Nothing,
}

#[derive(Debug)]
pub(super) struct Streams {
    /// Names that begin so are kept; and how many entries of each.
    kept: Option<(Vec<u8>, usize)>,
    open: BTreeMap<Box<[u8]>, Stream>,
    newcomers: VecDeque<Newcomer>,
    /// There is something else to do than what the reader waits for.
    pub(super) changed: bool,
    /// What all unread messages take, and may take.
    unread_bytes: usize,
    unread_limit: usize,
    page: usize,
    /// So many answers in a row were not too large.
    good: u32,
    /// Where the next read begins, if one cannot hold all names.
    turn: usize,
}

impl Streams {
    pub(super) fn new(kept: Option<(Vec<u8>, usize)>, unread_limit: usize) -> Self {
        Streams {
            kept,
            open: BTreeMap::new(),
            newcomers: VecDeque::new(),
            changed: false,
            unread_bytes: 0,
            unread_limit,
            page: PAGE,
            good: 0,
            turn: 0,
        }
    }

    pub(super) fn is_used(&self) -> bool {
        self.kept.is_some()
    }

    /// How names begin that are kept.
    pub(super) fn beginning(&self) -> Option<&[u8]> {
        self.kept.as_ref().map(|(beginning, _)| &**beginning)
    }

    /// How many entries of this name are kept; `None` for a name that is not.
    pub(super) fn keeps(&self, name: &[u8]) -> Option<usize> {
        let (prefix, keep) = self.kept.as_ref()?;
        name.starts_with(prefix).then_some(*keep)
    }

    /// A name has its first member here, or has lost the last. Whether it is open from now on, and was not.
    pub(super) fn want(&mut self, name: &[u8], wanted: bool) -> bool {
        if !wanted {
            if self.open.get(name).is_some_and(|stream| stream.waiting > 0) {
                return false;
            }
            if let Some(stream) = self.open.remove(name) {
                self.unread_bytes -= stream.unread.iter().map(Unread::cost).sum::<usize>();
                self.changed = true;
            }
        } else if !self.open.contains_key(name) {
            self.open.insert(name.into(), Stream::default());
            self.changed = true;
            return true;
        }
        false
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Those with members here.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.open.keys().map(|name| &**name)
    }

    /// Somebody waits for a name. From now on it is remembered what is said here: they are to hear it.
    pub(super) fn greet(&mut self, newcomer: Newcomer) {
        self.open.entry(newcomer.name.clone()).or_default().waiting += 1;
        self.newcomers.push_back(newcomer);
        self.changed = true;
    }

    /// Somebody who waited for a name waits no longer.
    pub(super) fn greeted(&mut self, name: &[u8]) {
        if let Some(stream) = self.open.get_mut(name) {
            stream.waiting = stream.waiting.saturating_sub(1);
        }
    }

    /// The same for somebody who has waited already, in vain.
    pub(super) fn greet_first(&mut self, newcomer: Newcomer) {
        self.newcomers.push_front(newcomer);
        self.changed = true;
    }

    /// The reader is gone: nobody waits for it any longer.
    pub(super) fn take_newcomers(&mut self) -> VecDeque<Newcomer> {
        std::mem::take(&mut self.newcomers)
    }

    /// The program is told what was said to a name before anything else is.
    pub(super) fn tell_history(&mut self, name: &[u8]) {
        self.open.entry(name.into()).or_default().untold = true;
        self.changed = true;
    }

    pub(super) fn next(&mut self, now: Instant) -> Next {
        self.changed = false;
        let untold = |stream: &Stream| stream.untold && stream.refused.is_none();
        if let Some((name, _)) = self.open.iter().find(|(_, stream)| untold(stream)) {
            self.changed = !self.newcomers.is_empty();
            return Next::Begin(name.clone());
        }
        if let Some(newcomer) = self.newcomers.pop_front() {
            self.changed = !self.newcomers.is_empty();
            return Next::History(newcomer);
        }
        if let Some((name, _)) = self.open.iter().find(|(_, stream)| stream.is_looked_at(now)) {
            return Next::Begin(name.clone());
        }
        let readable = self.readable();
        if readable == 0 {
            return Next::Nothing;
        }
        let count = readable.min(self.page);
        let begin = if count < readable { self.turn % readable } else { 0 };
        self.turn = begin + count;
        let names = self
            .open
            .iter()
            .filter(|(_, stream)| stream.is_readable())
            .cycle()
            .skip(begin)
            .take(count);
        let names = names.map(|(name, stream)| (name.clone(), stream.cursor.unwrap_or_default()));
        Next::Read(names.collect(), (self.page / readable).max(1))
    }

    fn readable(&self) -> usize {
        self.open.values().filter(|stream| stream.is_readable()).count()
    }

    /// Whether one read cannot hold all names: it must not wait for long.
    pub(super) fn takes_turns(&self) -> bool {
        self.readable() > self.page
    }

    /// An answer was larger than the limit: ask for less. `false` if it was one entry of one name, which can
    /// only be left alone.
    pub(super) fn ask_for_less(&mut self) -> bool {
        self.good = 0;
        let was_least = self.page == 1;
        self.page = if was_least { PAGE } else { self.page / 2 };
        !was_least
    }

    /// An answer was not: after some of them ask for more again.
    pub(super) fn could_ask_for_more(&mut self) {
        if self.page == PAGE {
            return;
        }
        self.good += 1;
        if self.good == GOOD {
            (self.good, self.page) = (0, (self.page * 2).min(PAGE));
        }
    }

    /// The next entry of a name is too long to be read: it is left alone for a while, and begins anew behind it.
    /// Whether that is news.
    pub(super) fn skip(&mut self, name: &[u8], now: Instant) -> bool {
        if let Some(stream) = self.open.get_mut(name) {
            stream.cursor = None;
        }
        self.refuse(name, now)
    }

    /// The place where a name begins for this process, if that is not known yet. `Some` says up to where the program
    /// is to be told what was said.
    pub(super) fn begin(&mut self, name: &[u8], id: Id) -> Option<Id> {
        let stream = self.open.get_mut(name)?;
        stream.cursor.get_or_insert(id);
        (stream.doubted, stream.refused) = (false, None);
        let told_from = stream.told_from.take().unwrap_or(id);
        std::mem::take(&mut stream.untold).then_some(told_from)
    }

    /// The engine refused a read of several names, and does not say which one it means.
    pub(super) fn doubt(&mut self) {
        self.open.values_mut().for_each(|stream| stream.doubted = true);
    }

    /// The engine refuses to read this name: it is left alone for a while. Whether that is news.
    pub(super) fn refuse(&mut self, name: &[u8], now: Instant) -> bool {
        let Some(stream) = self.open.get_mut(name) else { return false };
        stream.doubted = false;
        stream.refused.replace(now + REFUSED).is_none()
    }

    /// A newcomer joins: what was said up to this place is told to them, and all else to the name's group.
    pub(super) fn join(&mut self, name: &[u8], newest: Id) -> Id {
        let stream = self.open.entry(name.into()).or_default();
        let cursor = *stream.cursor.get_or_insert(newest);
        if stream.untold {
            stream.told_from.get_or_insert(cursor);
        }
        cursor
    }

    /// An entry was read. Whether the members here do not have it yet.
    pub(super) fn is_new(
        &mut self,
        name: &[u8],
        id: Id,
        sent: Option<(Publisher, u64)>,
        own: &Publisher,
        is_to_go_out: impl Fn(u64) -> bool,
    ) -> bool {
        let Some(stream) = self.open.get_mut(name) else { return false };
        if stream.cursor.is_some_and(|cursor| cursor >= id) {
            return false;
        }
        stream.cursor = Some(id);
        let Some((publisher, number)) = sent else { return true };
        if publisher == *own {
            let first = *stream.first_read.get_or_insert(number);
            self.read_back(name, number, |number| number > first && is_to_go_out(number));
            return false;
        }
        stream.hear((publisher, number))
    }

    /// An entry is in the history that somebody here is told. If it went out twice, the second one is not new.
    pub(super) fn was_told(&mut self, name: &[u8], sent: (Publisher, u64)) {
        if let Some(stream) = self.open.get_mut(name) {
            stream.hear(sent);
        }
    }

    /// A message of this process was said here, and is not read back yet.
    pub(super) fn said(&mut self, name: &[u8], number: u64, message: Message<&[u8]>) {
        let Some(stream) = self.open.get_mut(name) else { return };
        let said = Unread { number, kind: message.kind, bytes: message.bytes.to_vec() };
        self.unread_bytes += said.cost();
        stream.unread.push_back(said);
        if stream.unread.len() > UNREAD
            && let Some(oldest) = stream.unread.pop_front()
        {
            self.unread_bytes -= oldest.cost();
        }
        while self.unread_bytes > self.unread_limit {
            let with_some = self.open.values_mut().filter(|stream| !stream.unread.is_empty());
            let oldest = with_some.min_by_key(|stream| stream.unread.front().map(|u| u.number));
            let Some(oldest) = oldest.and_then(|stream| stream.unread.pop_front()) else { break };
            self.unread_bytes -= oldest.cost();
        }
    }

    /// A message of this process does not go out: nobody can read it back.
    pub(super) fn forget(&mut self, number: u64) {
        if self.unread_bytes == 0 {
            return;
        }
        for stream in self.open.values_mut() {
            if let Ok(at) = stream.unread.binary_search_by_key(&number, |unread| unread.number)
                && let Some(unread) = stream.unread.remove(at)
            {
                self.unread_bytes -= unread.cost();
                return;
            }
        }
    }

    /// A message of this process goes out under another number, as the newest.
    pub(super) fn renumber(&mut self, old: u64, new: u64) {
        for stream in self.open.values_mut() {
            if let Ok(at) = stream.unread.binary_search_by_key(&old, |unread| unread.number)
                && let Some(unread) = stream.unread.remove(at)
            {
                stream.unread.push_back(Unread { number: new, ..unread });
                return;
            }
        }
    }

    /// A message of this process has been read, and with it all before, but for those that were refused and
    /// are still to go out.
    pub(super) fn read_back(
        &mut self,
        name: &[u8],
        number: u64,
        is_to_go_out: impl Fn(u64) -> bool,
    ) {
        let Some(stream) = self.open.get_mut(name) else { return };
        let behind = stream.unread.partition_point(|unread| unread.number <= number);
        let later = stream.unread.split_off(behind);
        stream.unread.retain(|unread| {
            let stays = unread.number < number && is_to_go_out(unread.number);
            self.unread_bytes -= if stays { 0 } else { unread.cost() };
            stays
        });
        stream.unread.extend(later);
    }

    /// Whether a message of this process is remembered until it has been read back.
    pub(super) fn is_unread(&self, name: &[u8], number: u64) -> bool {
        let unread = self.open.get(name).map(|stream| &stream.unread);
        unread.is_some_and(|all| all.binary_search_by_key(&number, |said| said.number).is_ok())
    }

    /// What members here have got already, but nobody could read yet.
    pub(super) fn unread(&self, name: &[u8]) -> Vec<Message<Vec<u8>>> {
        let Some(stream) = self.open.get(name) else { return Vec::new() };
        let messages = stream.unread.iter();
        messages.map(|unread| Message::new(unread.kind, unread.bytes.clone())).collect()
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
