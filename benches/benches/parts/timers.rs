//! Timers: the wheel alone, the public API around it, and tokio-util's `DelayQueue`, all with the same delays.

use crate::turn;
use divan::Bencher;
use divan::counter::ItemsCount;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;
use tidegate::{Config, Context, DatagramHandler, HandlerResult, Reactor, Timer, Token};
use tokio_util::time::delay_queue;

/// The library's own source: the module is private there, and counts in ticks without a clock.
#[allow(dead_code, unused_imports, reason = "the library and its tests use more of it")]
#[path = "../../../src/timer/mod.rs"]
mod timer;

const COUNTS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// How many timers one sample sets, moves or cancels beside those that are there already.
const BATCH: usize = 1_000;
/// All delays of timers that are to fire, in milliseconds.
const SOON: u64 = 500;

/// One way to keep timers.
trait Timers {
    type Key: Copy;
    fn new() -> Self;
    /// Delays are in milliseconds.
    fn insert(&mut self, delay: u64) -> Self::Key;
    fn rearm(&mut self, key: Self::Key, delay: u64);
    fn cancel(&mut self, key: Self::Key);
    /// Until all timers of up to `SOON` are due.
    fn wait(&mut self) {
        std::thread::sleep(Duration::from_millis(SOON + 10));
    }
    /// Fires what is due; tells how many that were.
    fn fire(&mut self) -> usize;
}

/// Numbers without order, the same ones in each run.
fn scattered(number: usize) -> u64 {
    (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32
}

/// Between a second and a minute, as the deadlines of many connections are.
fn later(number: usize) -> u64 {
    1_000 + scattered(number) % 59_000
}

fn filled<T: Timers>(timers: usize, delay: fn(usize) -> u64) -> (T, Vec<T::Key>) {
    let mut kept = T::new();
    let keys = (0..timers).map(|number| kept.insert(delay(number))).collect();
    (kept, keys)
}

#[divan::bench(types = [Wheel, Net, DelayQueue], args = COUNTS, sample_count = 30, sample_size = 1)]
fn insert<T: Timers>(bencher: Bencher<'_, '_>, timers: usize) {
    let kept = RefCell::new(filled::<T>(timers, later).0);
    let added = RefCell::new(Vec::with_capacity(BATCH));
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| added.borrow_mut().drain(..).for_each(|key| kept.borrow_mut().cancel(key)))
        .bench_local_values(|()| {
            let (mut kept, mut added) = (kept.borrow_mut(), added.borrow_mut());
            added.extend((0..BATCH).map(|number| kept.insert(later(number))));
        });
}

#[divan::bench(types = [Wheel, Net, DelayQueue], args = COUNTS, sample_count = 30, sample_size = 1)]
fn rearm<T: Timers>(bencher: Bencher<'_, '_>, timers: usize) {
    let (mut kept, keys) = filled::<T>(timers, later);
    let mut round = 0;
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        round += BATCH;
        for number in round..round + BATCH {
            kept.rearm(keys[scattered(number) as usize % timers], later(number + 1));
        }
    });
}

/// Here and there among them, as connections close.
#[divan::bench(types = [Wheel, Net, DelayQueue], args = COUNTS, sample_count = 30, sample_size = 1)]
fn cancel<T: Timers>(bencher: Bencher<'_, '_>, timers: usize) {
    let (kept, keys) = filled::<T>(timers, later);
    let (kept, keys) = (RefCell::new(kept), RefCell::new(keys));
    let mut round = 0;
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            round += BATCH;
            let (mut kept, mut keys) = (kept.borrow_mut(), keys.borrow_mut());
            let chosen = |number| {
                let at = scattered(number) as usize % keys.len();
                keys.swap_remove(at)
            };
            let chosen: Vec<_> = (round..round + BATCH.min(timers / 2)).map(chosen).collect();
            keys.extend(chosen.iter().map(|_| kept.insert(later(round))));
            chosen
        })
        .bench_local_values(|chosen| {
            let mut kept = kept.borrow_mut();
            chosen.into_iter().for_each(|key| kept.cancel(key));
        });
}

/// All of them, each handed to its owner.
#[divan::bench(types = [Wheel, Net, DelayQueue], args = COUNTS, sample_count = 5, sample_size = 1)]
fn fire<T: Timers>(bencher: Bencher<'_, '_>, timers: usize) {
    bencher
        .counter(ItemsCount::new(timers))
        .with_inputs(|| {
            let (mut kept, _) = filled::<T>(timers, |number| 1 + scattered(number) % SOON);
            kept.wait();
            kept
        })
        .bench_local_values(|mut kept| {
            assert_eq!(kept.fire(), timers, "each fires, once");
            kept
        });
}

/// Each timer has an owner of its own, as a connection's deadline has. Time stands still but for `fire`.
struct Wheel {
    wheel: timer::Wheel<Owner>,
    chains: Vec<timer::Chain>,
    free: Vec<u32>,
}

/// As large as what the reactor keeps for a timer.
#[derive(Clone, Copy)]
struct Owner {
    chain: u32,
    _tag: u64,
}

impl timer::Owned for Owner {
    type Owner = u32;
    fn owner(&self) -> u32 {
        self.chain
    }
}

impl Timers for Wheel {
    type Key = (u32, timer::Key);

    fn new() -> Self {
        Self { wheel: timer::Wheel::with_capacity(0), chains: Vec::new(), free: Vec::new() }
    }

    fn insert(&mut self, delay: u64) -> Self::Key {
        let owner = self.free.pop().unwrap_or_else(|| {
            self.chains.push(timer::Chain::default());
            self.chains.len() as u32 - 1
        });
        let chain = &mut self.chains[owner as usize];
        (owner, self.wheel.insert(chain, delay, Owner { chain: owner, _tag: delay }))
    }

    fn rearm(&mut self, (_, key): Self::Key, delay: u64) {
        assert!(self.wheel.rearm(key, delay));
    }

    fn cancel(&mut self, (owner, key): Self::Key) {
        assert!(self.wheel.cancel(&mut self.chains[owner as usize], key).is_some());
        self.free.push(owner);
    }

    fn wait(&mut self) {}

    fn fire(&mut self) -> usize {
        self.wheel.advance(SOON);
        let mut fired = 0;
        while let Some((key, &Owner { chain: owner, .. })) = self.wheel.pop_due() {
            fired +=
                usize::from(self.wheel.finish(&mut self.chains[owner as usize], key).is_some());
        }
        fired
    }
}

/// Through the reactor, into `on_timer`. All belong to one socket: there can't be a million of those.
struct Net {
    reactor: Reactor,
    owner: Token,
    fired: Rc<Cell<usize>>,
}

struct Counts(Rc<Cell<usize>>);

impl DatagramHandler for Counts {
    fn on_datagram(
        &mut self,
        _cx: &mut Context<'_>,
        _datagram: tidegate::Datagram<'_>,
    ) -> HandlerResult {
        Ok(())
    }

    fn on_timer(&mut self, _cx: &mut Context<'_>, _timer: Timer) -> HandlerResult {
        self.0.set(self.0.get() + 1);
        Ok(())
    }
}

impl Timers for Net {
    type Key = Timer;

    fn new() -> Self {
        let config = Config { timers_per_turn: usize::MAX, ..Config::default() };
        let mut reactor = Reactor::with_config((), config).expect("a poll can be made");
        let fired = Rc::<Cell<usize>>::default();
        let counts = Counts(Rc::clone(&fired));
        let owner = reactor.net().bind_udp("127.0.0.1:0", counts).expect("UDP can be bound");
        turn(&mut reactor);
        Self { reactor, owner, fired }
    }

    fn insert(&mut self, delay: u64) -> Timer {
        self.reactor.net().set_timer(self.owner, Duration::from_millis(delay), delay)
    }

    fn rearm(&mut self, key: Timer, delay: u64) {
        assert!(self.reactor.net().rearm_timer(key, Duration::from_millis(delay)));
    }

    fn cancel(&mut self, key: Timer) {
        assert!(self.reactor.net().cancel_timer(key));
    }

    fn fire(&mut self) -> usize {
        turn(&mut self.reactor);
        self.fired.get()
    }
}

struct DelayQueue {
    runtime: tokio::runtime::Runtime,
    queue: delay_queue::DelayQueue<u64>,
}

impl Timers for DelayQueue {
    type Key = delay_queue::Key;

    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime can be made");
        Self { runtime, queue: delay_queue::DelayQueue::new() }
    }

    fn insert(&mut self, delay: u64) -> Self::Key {
        let _entered = self.runtime.enter();
        self.queue.insert(delay, Duration::from_millis(delay))
    }

    fn rearm(&mut self, key: Self::Key, delay: u64) {
        let _entered = self.runtime.enter();
        self.queue.reset(&key, Duration::from_millis(delay));
    }

    fn cancel(&mut self, key: Self::Key) {
        self.queue.remove(&key);
    }

    fn fire(&mut self) -> usize {
        let queue = &mut self.queue;
        self.runtime.block_on(async {
            let mut fired = 0;
            while poll_fn(|cx| queue.poll_expired(cx)).await.is_some() {
                fired += 1;
            }
            fired
        })
    }
}
