//! What is to go out: what waits, and what the engine has not confirmed.

use std::collections::VecDeque;

/// What happens to a message when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// The oldest that waits is dropped for it: what matters is what is new. The default.
    #[default]
    DropOldest,
    /// It is not taken: what was said first goes out.
    Refuse,
}

/// Commands in the order in which they were published.
///
/// A message leaves this queue when the engine has confirmed it, and not when a socket has taken it: what
/// was on its way when a connection broke goes out again. Receivers know it by its number.
#[derive(Debug)]
pub(super) struct Outbox {
    /// Each with the number of its message.
    sent: VecDeque<(u64, Vec<u8>)>,
    waiting: VecDeque<(u64, Vec<u8>)>,
    /// Of both.
    bytes: usize,
    limit: usize,
    when_full: WhenFull,
}

impl Outbox {
    pub(super) fn new(limit: usize, when_full: WhenFull) -> Self {
        let (sent, waiting) = (VecDeque::new(), VecDeque::new());
        Outbox { sent, waiting, bytes: 0, limit, when_full }
    }

    /// Takes the command of a message. Returns which were dropped, perhaps itself.
    pub(super) fn push(&mut self, number: u64, command: Vec<u8>) -> Vec<u64> {
        let mut dropped = Vec::new();
        while self.bytes + command.len() > self.limit {
            // What the engine may have got already is not dropped: it would not be a loss that anybody
            // could count.
            let oldest = match self.when_full {
                WhenFull::DropOldest if command.len() <= self.limit => self.waiting.pop_front(),
                _ => None,
            };
            let Some((oldest_number, oldest)) = oldest else {
                dropped.push(number);
                return dropped;
            };
            dropped.push(oldest_number);
            self.bytes -= oldest.len();
        }
        self.bytes += command.len();
        self.waiting.push_back((number, command));
        dropped
    }

    /// Appends what waits to `batch`, up to some `bytes` and one command at least. Returns how many.
    pub(super) fn send(&mut self, batch: &mut Vec<u8>, bytes: usize) -> u32 {
        let mut count = 0;
        while batch.len() < bytes {
            let Some(command) = self.waiting.pop_front() else { break };
            batch.extend_from_slice(&command.1);
            self.sent.push_back(command);
            count += 1;
        }
        count
    }

    /// The engine has answered the oldest that was sent.
    pub(super) fn confirmed(&mut self) {
        if let Some((_, command)) = self.sent.pop_front() {
            self.bytes -= command.len();
        }
    }

    /// The connection is gone: what was not confirmed is the first to go out again. Returns how many.
    pub(super) fn unsend(&mut self) -> usize {
        let count = self.sent.len();
        self.sent.append(&mut self.waiting);
        std::mem::swap(&mut self.sent, &mut self.waiting);
        count
    }

    /// Whether something has not been handed to a connection.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn messages(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(outbox: &mut Outbox) -> String {
        let mut batch = Vec::new();
        outbox.send(&mut batch, usize::MAX);
        String::from_utf8(batch).unwrap()
    }

    fn full(when_full: WhenFull) -> Outbox {
        let mut outbox = Outbox::new(4, when_full);
        for text in ["aa", "b", "c"] {
            assert_eq!(outbox.push(7, text.into()).len(), 0);
        }
        outbox
    }

    // row 248
    #[test]
    fn a_full_queue_drops_its_oldest_or_refuses_and_counts() {
        let mut outbox = full(WhenFull::DropOldest);
        assert_eq!(outbox.push(7, "d".into()).len(), 1);
        assert_eq!(outbox.push(7, "ee".into()).len(), 1);
        assert_eq!(outbox.push(7, "too long".into()).len(), 1, "itself, and no other for it");
        assert_eq!(sent(&mut outbox), "cdee");

        let mut outbox = full(WhenFull::Refuse);
        assert_eq!(outbox.push(7, "d".into()).len(), 1);
        assert_eq!(sent(&mut outbox), "aabc");
        assert_eq!(outbox.push(7, "d".into()).len(), 1, "nothing is confirmed");
        outbox.confirmed();
        assert_eq!(outbox.push(7, "dd".into()).len(), 0);
        assert_eq!((outbox.bytes(), outbox.messages()), (4, 3));
    }

    // row 248
    #[test]
    fn what_was_not_confirmed_goes_out_again_before_what_waits() {
        let mut outbox = full(WhenFull::DropOldest);
        let mut batch = Vec::new();
        assert_eq!(outbox.send(&mut batch, 1), 1);
        assert_eq!(outbox.send(&mut batch, 3), 1);
        assert_eq!(batch, b"aab");
        outbox.confirmed();
        assert_eq!(outbox.unsend(), 1);
        assert_eq!(sent(&mut outbox), "bc");
        assert_eq!(outbox.push(7, "ddd".into()).len(), 1, "what is on its way is not dropped");
        outbox.confirmed();
        outbox.confirmed();
        outbox.confirmed();
        assert_eq!((outbox.bytes(), outbox.messages()), (0, 0));
    }
}
