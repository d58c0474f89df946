//! The wheel against single cases, and against a model: a sorted map.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use super::*;

/// Owner and tag, as the reactor uses it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tag(u64, u64);

impl Owned for Tag {
    type Owner = u64;
    fn owner(&self) -> u64 {
        self.0
    }
}

/// Every edge at which a timer changes its level, and both sides of it.
fn edges() -> Vec<u64> {
    let powers = (0..=10).map(|digit| 1_u64 << (6 * digit));
    let mut edges: Vec<u64> = powers.flat_map(|p| [p - 1, p, p + 1, p * 3 - 1, p * 3]).collect();
    edges.extend([0, 2, 62, u64::MAX - 64, u64::MAX - 1, u64::MAX]);
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// Fires all that is due, and gives the tags in order.
fn fire(wheel: &mut Wheel<Tag>, chain: &mut Chain) -> Vec<u64> {
    let mut fired = Vec::new();
    while let Some((key, &payload)) = wheel.pop_due() {
        assert_eq!(wheel.finish(chain, key), Some(payload));
        fired.push(payload.1);
    }
    fired
}

fn wheel_at(now: u64) -> (Wheel<Tag>, Chain) {
    let mut wheel = Wheel::with_capacity(0);
    wheel.advance(now);
    (wheel, Chain::default())
}

#[test]
fn a_timer_is_small() {
    assert_eq!(size_of::<Entry<Tag>>() + size_of::<Link>(), 48);
    // The slab's mark of free entries finds room in the entry.
    enum Slot {
        _Free(usize),
        _Used(Entry<Tag>),
    }
    assert_eq!(size_of::<Slot>(), size_of::<Entry<Tag>>());
    assert_eq!(size_of::<Option<Key>>(), 8);
    assert_eq!(size_of::<Chain>(), 4);
}

#[test]
fn at_every_edge_a_timer_fires_exactly_then() {
    for start in edges() {
        for deadline in edges().into_iter().filter(|&deadline| deadline > start) {
            let (mut wheel, mut chain) = wheel_at(start);
            wheel.insert(&mut chain, deadline, Tag(0, 1));
            // Follow the wakes: each is on the way, the last is the deadline.
            let mut wakes = 0;
            loop {
                let wake = wheel.next_wake().unwrap();
                assert!(wake <= deadline, "{start} {deadline}: woke late, at {wake}");
                wheel.advance(wake);
                if wake == deadline {
                    break;
                }
                assert_eq!(fire(&mut wheel, &mut chain), [], "{start} {deadline}: fired early");
                // Beyond the range, it may take as many ranges as there are: jump close.
                wheel.advance(floor_to(deadline, RANGE_BITS));
                wakes += 1;
                assert!(wakes <= LEVELS + 1, "{start} {deadline}: too many wakes");
            }
            assert_eq!(fire(&mut wheel, &mut chain), [1], "{start} {deadline}");
            assert!(wheel.next_wake().is_none() && wheel.len() == 0 && chain.is_empty());
        }
    }
}

#[test]
fn a_jump_fires_in_the_order_of_deadlines_and_ties_in_that_of_insertion() {
    let mut deadlines: Vec<u64> = edges().into_iter().filter(|&d| d > 0).collect();
    deadlines.reverse();
    let (mut wheel, mut chain) = wheel_at(0);
    for round in 0..2 {
        for &deadline in &deadlines {
            wheel.insert(&mut chain, deadline, Tag(0, deadline / 2 * 2 + round));
        }
    }
    wheel.advance(u64::MAX);
    let fired = fire(&mut wheel, &mut chain);
    let mut expected: Vec<(u64, u64)> = deadlines.iter().map(|&d| (d, d / 2 * 2)).collect();
    expected.extend(deadlines.iter().map(|&d| (d, d / 2 * 2 + 1)));
    expected.sort_by_key(|&(deadline, _)| deadline);
    assert_eq!(fired, expected.iter().map(|&(_, tag)| tag).collect::<Vec<_>>());
}

#[test]
fn ties_keep_their_order_when_they_were_set_from_different_levels() {
    let (mut wheel, mut chain) = wheel_at(0);
    let deadline = 1 << 20;
    for (tag, now) in
        [0, 1 << 19, (1 << 20) - 4096, (1 << 20) - 64, (1 << 20) - 1].iter().enumerate()
    {
        wheel.advance(*now);
        wheel.insert(&mut chain, deadline, Tag(0, tag as u64));
    }
    wheel.advance(deadline);
    assert_eq!(fire(&mut wheel, &mut chain), [0, 1, 2, 3, 4]);
}

#[test]
fn a_timer_that_is_put_off_keeps_its_key_until_it_is_recalled() {
    const FAR_OFF: u64 = u64::MAX - 1;
    let (mut wheel, mut chain) = wheel_at(100);
    let keys: Vec<Key> = (0..5).map(|tag| wheel.insert(&mut chain, 101, Tag(0, tag))).collect();
    let never = wheel.insert(&mut chain, u64::MAX, Tag(0, 9));
    wheel.advance(101);
    while let Some((key, _)) = wheel.pop_due() {
        wheel.put_off(key, FAR_OFF);
    }
    wheel.advance(1 << 40);
    assert_eq!(fire(&mut wheel, &mut chain), []);
    assert_eq!(wheel.cancel(&mut chain, keys[1]), Some(Tag(0, 1)));
    assert!(wheel.rearm(keys[3], 1 << 41));
    wheel.recall(&chain, FAR_OFF);
    wheel.advance(1 << 40);
    assert_eq!(fire(&mut wheel, &mut chain), [0, 2, 4]);
    wheel.advance(1 << 41);
    assert_eq!(fire(&mut wheel, &mut chain), [3]);
    assert!(wheel.get(never).is_some());
}

#[test]
fn no_delay_is_due_at_the_next_advance_and_not_in_this_one() {
    let (mut wheel, mut chain) = wheel_at(100);
    for deadline in [100, 3, 0] {
        wheel.insert(&mut chain, deadline, Tag(0, deadline));
        assert_eq!(fire(&mut wheel, &mut chain), []);
        assert_eq!(wheel.next_wake(), Some(100));
    }
    wheel.advance(100);
    let (key, _) = wheel.pop_due().unwrap();
    wheel.finish(&mut chain, key);
    // Set by a timer that fires: again not in this advance, and behind what is still due.
    wheel.insert(&mut chain, 0, Tag(0, 7));
    wheel.advance(100);
    assert_eq!(fire(&mut wheel, &mut chain), [3, 0, 7]);
    assert_eq!(wheel.next_wake(), None);
}

#[test]
fn time_that_goes_backwards_changes_nothing() {
    let (mut wheel, mut chain) = wheel_at(100);
    wheel.insert(&mut chain, 105, Tag(0, 1));
    wheel.advance(50);
    assert_eq!((wheel.next_wake(), fire(&mut wheel, &mut chain)), (Some(105), vec![]));
}

#[test]
fn a_stale_key_is_refused_and_never_hits_the_next_timer() {
    let (mut wheel, mut chain) = wheel_at(0);
    let old = wheel.insert(&mut chain, 5, Tag(0, 1));
    assert_eq!(wheel.cancel(&mut chain, old), Some(Tag(0, 1)));
    let new = wheel.insert(&mut chain, 5, Tag(0, 2));
    assert_eq!(old.index, new.index);
    assert_eq!((wheel.cancel(&mut chain, old), wheel.get(old)), (None, None));
    assert!(!wheel.rearm(old, 1));
    wheel.advance(5);
    assert_eq!(wheel.finish(&mut chain, new), None, "not handed out yet");
    assert_eq!(fire(&mut wheel, &mut chain), [2]);
    assert!(!wheel.rearm(new, 9));
    assert_eq!((wheel.cancel(&mut chain, new), wheel.len()), (None, 0));
}

#[test]
fn generations_wrap_and_are_never_zero() {
    let (mut wheel, mut chain) = wheel_at(0);
    wheel.last_generation = u32::MAX - 1;
    let keys: Vec<Key> = (0..3).map(|tag| wheel.insert(&mut chain, 1, Tag(0, tag))).collect();
    let generations: Vec<u32> = keys.iter().map(|key| key.generation.get()).collect();
    assert_eq!(generations, [u32::MAX, 1, 2]);
}

#[test]
fn what_is_due_can_still_be_cancelled_and_put_off() {
    let (mut wheel, mut chain) = wheel_at(0);
    let keys: Vec<Key> = (0..6).map(|tag| wheel.insert(&mut chain, 5, Tag(0, tag))).collect();
    wheel.advance(5);
    let (popped, &payload) = wheel.pop_due().unwrap();
    assert_eq!((popped, payload), (keys[0], Tag(0, 0)));
    assert!(!wheel.rearm(popped, 9), "handed out: it is firing");
    assert!(wheel.cancel(&mut chain, keys[1]).is_some());
    assert!(wheel.rearm(keys[2], 9));
    assert!(wheel.rearm(keys[3], 5), "due again, but not in this advance");
    assert!(wheel.cancel(&mut chain, keys[5]).is_some());
    assert!(wheel.finish(&mut chain, popped).is_some());
    assert_eq!(fire(&mut wheel, &mut chain), [4]);
    wheel.advance(5);
    assert_eq!(fire(&mut wheel, &mut chain), [3]);
    wheel.advance(8);
    assert_eq!(fire(&mut wheel, &mut chain), []);
    wheel.advance(9);
    assert_eq!(fire(&mut wheel, &mut chain), [2]);
}

#[test]
fn a_handed_out_timer_can_be_cancelled_before_it_is_finished() {
    let (mut wheel, mut chain) = wheel_at(0);
    for _ in 0..2 {
        wheel.insert(&mut chain, 0, Tag(0, 1));
    }
    wheel.advance(0);
    let (first, _) = wheel.pop_due().unwrap();
    let (second, _) = wheel.pop_due().unwrap();
    assert!(wheel.cancel(&mut chain, first).is_some());
    assert_eq!(wheel.finish(&mut chain, first), None);
    wheel.cancel_all(&mut chain);
    assert_eq!(wheel.finish(&mut chain, second), None);
    assert_eq!((wheel.len(), wheel.next_wake(), chain.is_empty()), (0, None, true));
}

#[test]
fn the_chain_of_another_owner_is_refused_and_unharmed() {
    let (mut wheel, mut mine) = wheel_at(0);
    let (mut other, mut empty) = (Chain::default(), Chain::default());
    let keys: Vec<Key> = (0..3).map(|tag| wheel.insert(&mut mine, 1, Tag(0, tag))).collect();
    wheel.insert(&mut other, 1, Tag(1, 9));
    for &key in &keys {
        assert_eq!(wheel.cancel(&mut other, key), None);
        assert_eq!(wheel.cancel(&mut empty, key), None);
    }
    wheel.cancel_all(&mut other);
    assert_eq!(wheel.len(), 3);
    for key in [keys[1], keys[2], keys[0]] {
        assert!(wheel.cancel(&mut mine, key).is_some());
    }
    assert!(mine.is_empty() && wheel.len() == 0);
}

#[test]
fn two_chains_of_one_owner_are_a_mistake_but_do_no_harm() {
    let (mut wheel, mut first) = wheel_at(0);
    let mut second = Chain::default();
    let key = wheel.insert(&mut first, 1, Tag(0, 1));
    wheel.insert(&mut second, 1, Tag(0, 2));
    assert_eq!(wheel.cancel(&mut second, key), None);
    wheel.cancel_all(&mut first);
    wheel.cancel_all(&mut second);
    assert_eq!((wheel.len(), wheel.next_wake()), (0, None));
}

#[test]
fn all_timers_of_an_owner_end_together_wherever_they_are() {
    struct Counted(u64, #[expect(dead_code, reason = "counts by being held")] Rc<()>);
    impl Owned for Counted {
        type Owner = u64;
        fn owner(&self) -> u64 {
            self.0
        }
    }
    let held = Rc::new(());
    let mut wheel = Wheel::with_capacity(0);
    let (mut mine, mut other) = (Chain::default(), Chain::default());
    for deadline in edges() {
        wheel.insert(&mut mine, deadline, Counted(0, held.clone()));
        wheel.insert(&mut other, deadline, Counted(1, held.clone()));
    }
    let each = wheel.len() / 2;
    wheel.advance(64);
    wheel.pop_due().unwrap();
    wheel.insert(&mut mine, 64, Counted(0, held.clone()));
    wheel.cancel_all(&mut mine);
    wheel.cancel_all(&mut mine);
    assert_eq!((wheel.len(), Rc::strong_count(&held)), (each, each + 1));
    wheel.advance(u64::MAX);
    let mut fired = 0;
    while let Some((key, payload)) = wheel.pop_due() {
        assert_eq!(payload.0, 1);
        assert!(wheel.finish(&mut other, key).is_some());
        fired += 1;
    }
    assert_eq!((fired, wheel.len(), Rc::strong_count(&held)), (each, 0, 1));
    assert_eq!((wheel.occupied, wheel.next_wake()), ([0; LEVELS], None));
}

#[test]
fn the_steady_state_does_not_allocate() {
    let (mut wheel, mut chain) = wheel_at(0);
    let mut keys: Vec<Key> = (0..500).map(|i| wheel.insert(&mut chain, i * i, Tag(0, i))).collect();
    let capacity = (wheel.entries.capacity(), wheel.links.capacity());
    let mut random = Random(1);
    for now in 0..20_000 {
        for key in &mut keys {
            if wheel.get(*key).is_none() || random.below(8) == 0 {
                wheel.cancel(&mut chain, *key);
                *key = wheel.insert(&mut chain, now + random.below(9_000), Tag(0, 0));
            }
        }
        wheel.advance(now);
        fire(&mut wheel, &mut chain);
    }
    assert_eq!((wheel.entries.capacity(), wheel.links.capacity()), capacity);
}

/// Marsaglia's xorshift: the same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Each magnitude is as likely as any other, up to 2^bits.
    fn magnitude(&mut self, bits: u64) -> u64 {
        let shift = 63 - self.below(bits);
        self.next() >> shift
    }
}

/// The wheel's promises in the plainest form: one map sorted by deadline and order of insertion.
#[derive(Default)]
struct Model {
    now: u64,
    count: u64,
    waiting: BTreeMap<(u64, u64), u64>,
    due: VecDeque<u64>,
    /// Of each live timer: its key, its owner, and its place in `waiting` (while it is there).
    live: HashMap<u64, (Key, usize, (u64, u64))>,
}

impl Model {
    fn set(&mut self, tag: u64, key: Key, owner: usize, deadline: u64) {
        self.forget(tag);
        self.count += 1;
        let place = (deadline.max(self.now), self.count);
        self.waiting.insert(place, tag);
        self.live.insert(tag, (key, owner, place));
    }

    fn forget(&mut self, tag: u64) {
        if let Some((_, _, place)) = self.live.remove(&tag) {
            self.waiting.remove(&place);
            self.due.retain(|&due| due != tag);
        }
    }

    fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        while let Some(first) = self.waiting.first_entry().filter(|e| e.key().0 <= self.now) {
            self.due.push_back(first.remove());
        }
    }
}

/// One random history of `steps` operations, with delays and jumps of up to 2^bits ticks.
fn compare_with_model(seed: u64, steps: u64, bits: u64) {
    const OWNERS: usize = 7;
    let mut random = Random(seed);
    let mut model = Model::default();
    let mut wheel = Wheel::with_capacity(0);
    let mut chains: [Chain; OWNERS] = Default::default();
    let mut keys: VecDeque<(u64, Key)> = VecDeque::new();

    for tag in 0..steps {
        // A key out of the last few hundred; some are stale.
        let pick = random.below(keys.len().max(1) as u64) as usize;
        let picked = keys.get(pick).copied();
        let deadline = match random.below(40) {
            0 => u64::MAX,
            1 => model.now.saturating_sub(random.magnitude(bits)),
            _ => model.now.saturating_add(random.magnitude(bits)),
        };
        match (random.below(100), picked) {
            (0..40, _) => {
                let owner = random.below(OWNERS as u64) as usize;
                let key = wheel.insert(&mut chains[owner], deadline, Tag(owner as u64, tag));
                model.set(tag, key, owner, deadline);
                keys.push_back((tag, key));
                if keys.len() > 300 {
                    keys.pop_front();
                }
            }
            (40..55, Some((old, key))) => {
                let known = model.live.get(&old).copied();
                let owner = known.map_or(0, |(_, owner, _)| owner);
                let wrong = &mut chains[(owner + 1) % OWNERS];
                assert_eq!(wheel.cancel(wrong, key), None);
                let expected = known.map(|_| Tag(owner as u64, old));
                assert_eq!(wheel.cancel(&mut chains[owner], key), expected);
                model.forget(old);
            }
            (55..70, Some((old, key))) => {
                let known = model.live.get(&old).copied();
                assert_eq!(wheel.rearm(key, deadline), known.is_some());
                if let Some((key, owner, _)) = known {
                    model.set(old, key, owner, deadline);
                }
            }
            (70, _) => {
                let owner = random.below(OWNERS as u64) as usize;
                wheel.cancel_all(&mut chains[owner]);
                let all = model.live.iter().filter(|(_, live)| live.1 == owner);
                let all: Vec<u64> = all.map(|(&tag, _)| tag).collect();
                all.into_iter().for_each(|tag| model.forget(tag));
            }
            (71..90, _) => {
                let wake = wheel.next_wake().unwrap_or(model.now);
                let now = match random.below(4) {
                    0 => wake,
                    1 => wake.saturating_sub(1),
                    _ => model.now.saturating_add(random.magnitude(bits.min(50))),
                };
                wheel.advance(now);
                model.advance(now);
            }
            _ => {
                // A budget, so that due timers are left over.
                for _ in 0..random.below(20) {
                    let popped = wheel.pop_due().map(|(key, &payload)| (key, payload));
                    let expected = model.due.front().map(|tag| (*tag, model.live[tag]));
                    let Some((tag, (key, owner, _))) = expected else {
                        assert_eq!(popped, None);
                        break;
                    };
                    assert_eq!(popped, Some((key, Tag(owner as u64, tag))));
                    assert!(wheel.finish(&mut chains[owner], key).is_some());
                    model.forget(tag);
                }
            }
        }
        assert_eq!(wheel.len(), model.live.len());
        match (model.due.is_empty(), model.waiting.first_key_value(), wheel.next_wake()) {
            (true, None, wake) => assert_eq!(wake, None),
            (false, _, wake) => assert_eq!(wake, Some(model.now)),
            (true, Some((&(first, _), _)), wake) => {
                let wake = wake.expect("timers wait");
                assert!(wake <= first && wake >= model.now);
                if first >> SLOT_BITS == model.now >> SLOT_BITS {
                    assert_eq!(wake, first, "exact within the first level");
                }
            }
        }
    }
}

#[test]
fn random_histories_agree_with_a_sorted_map() {
    for seed in 1..=10 {
        // Few ticks, so that most collide; the usual; and mostly beyond the range.
        for bits in [5, 14, 26, 64] {
            compare_with_model(seed * 0x9E37_79B9, 10_000, bits);
        }
    }
}
