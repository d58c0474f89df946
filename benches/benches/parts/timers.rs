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
    /// Delays are in milliseconds. Many at a time, as a callback does it: what must be looked up for the first one
    /// (the network, the runtime) is there for the others.
    fn insert(&mut self, delays: impl Iterator<Item = u64>, keys: &mut Vec<Self::Key>);
    fn rearm(&mut self, timers: impl Iterator<Item = (Self::Key, u64)>);
    fn cancel(&mut self, keys: impl Iterator<Item = Self::Key>);
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
    let mut keys = Vec::new();
    kept.insert((0..timers).map(delay), &mut keys);
    (kept, keys)
}

#[divan::bench(types = [Wheel, Net, DelayQueue], args = COUNTS, sample_count = 30, sample_size = 1)]
fn insert<T: Timers>(bencher: Bencher<'_, '_>, timers: usize) {
    let kept = RefCell::new(filled::<T>(timers, later).0);
    let added = RefCell::new(Vec::with_capacity(BATCH));
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| kept.borrow_mut().cancel(added.borrow_mut().drain(..)))
        .bench_local_values(|()| {
            kept.borrow_mut().insert((0..BATCH).map(later), &mut added.borrow_mut());
        });
}

#[divan::bench(types = [Wheel, Net, DelayQueue], args = COUNTS, sample_count = 30, sample_size = 1)]
fn rearm<T: Timers>(bencher: Bencher<'_, '_>, timers: usize) {
    let (mut kept, keys) = filled::<T>(timers, later);
    let mut round = 0;
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        round += BATCH;
        let chosen = |number| (keys[scattered(number) as usize % timers], later(number + 1));
        kept.rearm((round..round + BATCH).map(chosen));
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
            kept.insert((0..chosen.len()).map(later), &mut keys);
            chosen
        })
        .bench_local_values(|chosen| {
            kept.borrow_mut().cancel(chosen.into_iter());
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

    fn insert(&mut self, delays: impl Iterator<Item = u64>, keys: &mut Vec<Self::Key>) {
        for delay in delays {
            let owner = self.free.pop().unwrap_or_else(|| {
                self.chains.push(timer::Chain::default());
                self.chains.len() as u32 - 1
            });
            let chain = &mut self.chains[owner as usize];
            let payload = Owner { chain: owner, _tag: delay };
            keys.push((owner, self.wheel.insert(chain, delay, payload)));
        }
    }

    fn rearm(&mut self, timers: impl Iterator<Item = (Self::Key, u64)>) {
        for ((_, key), delay) in timers {
            assert!(self.wheel.rearm(key, delay));
        }
    }

    fn cancel(&mut self, keys: impl Iterator<Item = Self::Key>) {
        for (owner, key) in keys {
            assert!(self.wheel.cancel(&mut self.chains[owner as usize], key).is_some());
            self.free.push(owner);
        }
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
        let config = Config::new().timers_per_turn(usize::MAX);
        let mut reactor = Reactor::build(config, |_| Ok(())).expect("a poll can be made");
        let fired = Rc::<Cell<usize>>::default();
        let counts = Counts(Rc::clone(&fired));
        let owner = reactor.net().bind_udp("127.0.0.1:0", counts).expect("UDP can be bound");
        turn(&mut reactor);
        Self { reactor, owner, fired }
    }

    fn insert(&mut self, delays: impl Iterator<Item = u64>, keys: &mut Vec<Timer>) {
        let (owner, net) = (self.owner, self.reactor.net());
        keys.extend(delays.map(|delay| net.set_timer(owner, Duration::from_millis(delay), delay)));
    }

    fn rearm(&mut self, timers: impl Iterator<Item = (Timer, u64)>) {
        let net = self.reactor.net();
        for (timer, delay) in timers {
            assert!(net.rearm_timer(timer, Duration::from_millis(delay)));
        }
    }

    fn cancel(&mut self, keys: impl Iterator<Item = Timer>) {
        let net = self.reactor.net();
        for timer in keys {
            assert!(net.cancel_timer(timer));
        }
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

    fn insert(&mut self, delays: impl Iterator<Item = u64>, keys: &mut Vec<Self::Key>) {
        let _entered = self.runtime.enter();
        let queue = &mut self.queue;
        keys.extend(delays.map(|delay| queue.insert(delay, Duration::from_millis(delay))));
    }

    fn rearm(&mut self, timers: impl Iterator<Item = (Self::Key, u64)>) {
        let _entered = self.runtime.enter();
        for (key, delay) in timers {
            self.queue.reset(&key, Duration::from_millis(delay));
        }
    }

    fn cancel(&mut self, keys: impl Iterator<Item = Self::Key>) {
        for key in keys {
            self.queue.remove(&key);
        }
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
