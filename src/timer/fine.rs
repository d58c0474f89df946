//! Deadlines finer than a tick: a heap beside the wheel.
//!
//! The wheel holds each of these timers too, far in the future, so that owners, keys and cancelling are
//! the same for all. Its deadline there is a number that no other deadline has. An entry of the heap
//! counts only while the wheel has its number: a timer that was cancelled or moved leaves its old entry
//! behind, which is dropped when it is met, or when such entries are the greater part.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::{Chain, Key, Owned, Wheel};

/// The deadlines of these timers in the wheel begin here, after 292 million years.
const FIRST: u64 = 1 << 63;

/// Below so many entries none are looked for that no longer count.
const FEW: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Fine {
    heap: BinaryHeap<Reverse<Entry>>,
    /// How many deadlines there have been.
    count: u64,
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
            self.push(wheel, Entry { at, place, key });
        }
        moved
    }

    /// Makes those that are due by `now` due at the wheel's next advance, in their order.
    pub(crate) fn release<T: Owned>(&mut self, wheel: &mut Wheel<T>, now: Instant) {
        while self.next().is_some_and(|at| at <= now) {
            let Some(Reverse(Entry { place, key, .. })) = self.heap.pop() else { return };
            if wheel.is_set_for(key, place) {
                wheel.rearm(key, 0);
            }
        }
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
    }

    impl Rig {
        fn new() -> Self {
            let (fine, chain) = (Fine::default(), Chain::default());
            Rig { fine, wheel: Wheel::with_capacity(0), chain, start: Instant::now() }
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
