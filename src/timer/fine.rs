//! Deadlines finer than a tick: a heap beside the wheel.
//!
//! The wheel holds each of these timers too, far in the future, so that owners, keys and cancelling are
//! the same for all. Its deadline there is a number that no other deadline has. An entry of the heap
//! counts only while the wheel has its number: a timer that was cancelled or moved leaves its old entry
//! behind, which is dropped when it is met, or when such entries are the greater part.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

use super::{Chain, Key, Owned, Wheel};

/// The deadlines of these timers in the wheel begin here, after 292 million years.
const FIRST: u64 = 1 << 63;

/// The deadline in the wheel of one that is due: over, whatever the time is.
const RELEASED: u64 = 0;

/// Below so many entries none are looked for that no longer count.
const FEW: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Fine {
    heap: BinaryHeap<Reverse<Entry>>,
    /// How many deadlines there have been.
    count: u64,
    /// Whether it is kept when those that wait to be fired were due: somebody asks how late they are.
    pub(crate) noted: bool,
    /// That, in their order. Some of them may have been cancelled or moved since.
    released: VecDeque<(Key, Instant)>,
}

/// In the order of the deadlines; of equal ones in that in which they were set.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Instant,
    place: u64,
    key: Key,
}

impl Fine {
    /// The earliest deadline; one that no longer counts may be earlier.
    #[inline]
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Sets a timer.
    pub(crate) fn insert<T: Owned>(
        &mut self,
        wheel: &mut Wheel<T>,
        chain: &mut Chain,
        at: Instant,
        payload: T,
    ) -> Key {
        let place = self.place();
        let key = wheel.insert(chain, place, payload);
        self.push(wheel, Entry { at, place, key });
        key
    }

    /// Moves a timer that was set here. `false` if it has ended.
    pub(crate) fn rearm<T: Owned>(&mut self, wheel: &mut Wheel<T>, key: Key, at: Instant) -> bool {
        let place = self.place();
        let moved = wheel.rearm(key, place);
        if moved {
            self.released.retain(|&(released, _)| released != key);
            self.push(wheel, Entry { at, place, key });
        }
        moved
    }

    /// Makes those that are due by `now` due at the wheel's next advance, in their order.
    pub(crate) fn release<T: Owned>(&mut self, wheel: &mut Wheel<T>, now: Instant) {
        while self.next().is_some_and(|at| at <= now) {
            let Some(Reverse(Entry { place, key, at })) = self.heap.pop() else { return };
            if wheel.is_set_for(key, place) {
                if self.noted {
                    if !wheel.is_any_at_hand() {
                        self.released.clear(); // all of them have fired or ended
                    }
                    self.released.push_back((key, at));
                }
                wheel.rearm(key, RELEASED);
            }
        }
    }

    /// When one that was just handed out was due; `None` if it is no timer of these, or its time was not
    /// noted.
    #[cold]
    #[cfg(any(test, feature = "histograms"))]
    pub(crate) fn was_due<T: Owned>(&mut self, wheel: &Wheel<T>, key: Key) -> Option<Instant> {
        if wheel.deadline_of(key) != RELEASED {
            return None;
        }
        // They fire in this order: the ones before it have ended otherwise.
        let place = self.released.iter().position(|&(released, _)| released == key)?;
        self.released.drain(..=place).next_back().map(|(_, at)| at)
    }

    fn place(&mut self) -> u64 {
        self.count += 1;
        FIRST + self.count
    }

    fn push<T: Owned>(&mut self, wheel: &Wheel<T>, entry: Entry) {
        // Each look at all of them is paid for by as many that were set since the last one.
        if self.heap.len() >= FEW && self.heap.len() == self.heap.capacity() {
            self.heap.retain(|Reverse(entry)| wheel.is_set_for(entry.key, entry.place));
        }
        self.heap.push(Reverse(entry));
    }

    #[cfg(test)]
    pub(crate) fn entries(&self) -> usize {
        self.heap.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    impl Owned for u32 {
        type Owner = ();

        fn owner(&self) {}
    }

    struct Rig {
        fine: Fine,
        wheel: Wheel<u32>,
        chain: Chain,
        start: Instant,
        /// When those that have fired were due.
        due: Vec<u64>,
    }

    impl Rig {
        fn new() -> Self {
            let (fine, chain) = (Fine { noted: true, ..Fine::default() }, Chain::default());
            let (start, due) = (Instant::now(), Vec::new());
            Rig { fine, wheel: Wheel::with_capacity(0), chain, start, due }
        }

        fn at(&self, micros: u64) -> Instant {
            self.start + Duration::from_micros(micros)
        }

        fn set(&mut self, micros: u64, payload: u32) -> Key {
            let at = self.at(micros);
            self.fine.insert(&mut self.wheel, &mut self.chain, at, payload)
        }

        fn fire(&mut self, micros: u64) -> Vec<u32> {
            let now = self.at(micros);
            self.fine.release(&mut self.wheel, now);
            self.wheel.advance(micros / 1_000);
            let mut fired = Vec::new();
            while let Some((key, _)) = self.wheel.pop_due() {
                let due = self.fine.was_due(&self.wheel, key);
                self.due.extend(due.map(|at| (at - self.start).as_micros() as u64));
                fired.extend(self.wheel.finish(&mut self.chain, key));
            }
            fired
        }
    }

    #[test]
    fn timers_fire_in_the_order_of_their_deadlines_and_ties_in_that_of_the_calls() {
        let mut rig = Rig::new();
        for (micros, payload) in [(30, 3), (10, 1), (20, 2), (10, 4)] {
            rig.set(micros, payload);
        }
        assert_eq!(rig.fire(9), []);
        assert_eq!(rig.fire(10), [1, 4]);
        assert_eq!(rig.fire(1_000), [2, 3]);
        assert_eq!(rig.fine.next(), None);
    }

    #[test]
    fn one_that_was_cancelled_or_moved_does_not_fire_at_its_old_time() {
        let mut rig = Rig::new();
        let (cancelled, moved) = (rig.set(10, 1), rig.set(10, 2));
        assert_eq!(rig.wheel.cancel(&mut rig.chain, cancelled), Some(1));
        let later = rig.at(50);
        assert!(rig.fine.rearm(&mut rig.wheel, moved, later));
        assert!(!rig.fine.rearm(&mut rig.wheel, cancelled, later));
        assert_eq!(rig.fire(49), []);
        assert_eq!(rig.fire(50), [2]);
    }

    // row 215
    #[test]
    fn it_is_known_when_each_was_due() {
        let mut rig = Rig::new();
        let due = [(10, 1), (20, 2), (30, 3), (40, 4), (2_000, 5), (2_001, 6)];
        let keys = due.map(|(at, n)| rig.set(at, n));
        // Due, and then cancelled or moved before they fire; the others fire long after that.
        let now = rig.at(35);
        rig.fine.release(&mut rig.wheel, now);
        rig.wheel.advance(0);
        assert_eq!(rig.wheel.cancel(&mut rig.chain, keys[1]), Some(2));
        let later = rig.at(36);
        assert!(rig.fine.rearm(&mut rig.wheel, keys[0], later));
        assert_eq!(rig.fire(1_500), [3, 1, 4]);
        assert_eq!(rig.due, [30, 36, 40]);
        // One of the wheel's own among them.
        rig.wheel.insert(&mut rig.chain, 0, 7);
        assert_eq!(rig.fire(3_000), [7, 5, 6]);
        assert_eq!(rig.due, [30, 36, 40, 2_000, 2_001]);
        rig.set(3_001, 8);
        rig.set(3_002, 9);
        assert_eq!(rig.fire(4_000), [8, 9]);
        assert_eq!(rig.due[5..], [3_001, 3_002]);
        assert!(rig.fine.released.is_empty());
    }

    #[test]
    fn entries_that_no_longer_count_do_not_pile_up() {
        let mut rig = Rig::new();
        let key = rig.set(1, 1);
        for n in 0..100_000 {
            let at = rig.at(1_000 + n);
            assert!(rig.fine.rearm(&mut rig.wheel, key, at));
        }
        assert!(rig.fine.entries() <= 2 * FEW, "{} entries for one timer", rig.fine.entries());
        assert_eq!(rig.fire(200_000), [1]);
    }
}
