//! Messages from another thread: closures that count, and typed messages. A closure without captures is boxed without an allocation, so
//! that the queues are compared and not the allocator.

use divan::Bencher;
use divan::counter::ItemsCount;
use std::sync::mpsc;
use tidegate::{Channel, Config, PostError, Reactor};

type Call = Box<dyn FnOnce(&mut u64) + Send>;

const FLOODS: [u64; 2] = [100_000, 10_000_000];

/// One thread posts, then the same one takes all of it: what both ends of a message cost.
#[divan::bench(args = [1_000, 100_000], sample_count = 50, sample_size = 1)]
fn one_thread(bencher: Bencher<'_, '_>, posts: u64) {
    let mut reactor = reactor();
    let remote = reactor.remote();
    bencher.counter(ItemsCount::new(posts)).bench_local(|| {
        for _ in 0..posts {
            remote.post(|count, _net| *count += 1).expect("there is room");
        }
        let before = *reactor.state();
        let _ = reactor.turn(None).expect("the poll works");
        assert_eq!(*reactor.state() - before, posts);
    });
}

fn reactor() -> Reactor<u64> {
    let config = Config::new().posts_per_turn(usize::MAX);
    Reactor::build(config, |_| Ok(0)).expect("a poll can be made")
}

/// A message that a channel carries.
struct Add(u64);

fn channel(reactor: &Reactor<u64>) -> Channel<u64, Add> {
    reactor.remote().channel(|count, _net, Add(number)| *count += number)
}

/// As `one_thread`, with typed messages: one at a time, and `BURST` under one lock.
#[divan::bench(args = [1_000, 100_000], sample_count = 50, sample_size = 1)]
fn one_thread_typed(bencher: Bencher<'_, '_>, posts: u64) {
    let mut reactor = reactor();
    let channel = channel(&reactor);
    bencher.counter(ItemsCount::new(posts)).bench_local(|| {
        for _ in 0..posts {
            assert!(channel.send(Add(1)).is_ok(), "there is room");
        }
        let _ = reactor.turn(None).expect("the poll works");
    });
}

#[divan::bench(args = [1_000, 100_000], sample_count = 50, sample_size = 1)]
fn one_thread_typed_bursts(bencher: Bencher<'_, '_>, posts: u64) {
    let mut reactor = reactor();
    let channel = channel(&reactor);
    let mut burst = Vec::with_capacity(BURST as usize);
    bencher.counter(ItemsCount::new(posts)).bench_local(|| {
        for _ in 0..posts.div_ceil(BURST) {
            burst.extend((0..BURST).map(|_| Add(1)));
            channel.send_all(&mut burst).expect("there is room");
        }
        let _ = reactor.turn(None).expect("the poll works");
    });
}

/// How many messages a thread has at a time.
const BURST: u64 = 64;

/// Floods with typed messages, as `flood` with closures.
#[divan::bench(args = FLOODS, sample_count = 5, sample_size = 1)]
fn flood_typed(bencher: Bencher<'_, '_>, posts: u64) {
    typed(bencher, posts, move |channel| {
        for _ in 0..posts {
            let mut message = Add(1);
            while let Err(PostError::Full(back)) = channel.send(message) {
                message = back;
                std::thread::yield_now();
            }
        }
    });
}

#[divan::bench(args = FLOODS, sample_count = 5, sample_size = 1)]
fn flood_typed_bursts(bencher: Bencher<'_, '_>, posts: u64) {
    typed(bencher, posts, move |channel| {
        let mut burst = Vec::with_capacity(BURST as usize);
        let mut left = posts;
        while left > 0 {
            let now = left.min(BURST);
            burst.extend((0..now).map(|_| Add(1)));
            while channel.send_all(&mut burst).is_err() {
                std::thread::yield_now();
            }
            left -= now;
        }
    });
}

fn typed(
    bencher: Bencher<'_, '_>,
    posts: u64,
    flood: impl FnOnce(Channel<u64, Add>) + Clone + Send + 'static,
) {
    bencher.counter(ItemsCount::new(posts)).with_inputs(reactor).bench_local_values(
        |mut reactor| {
            let (channel, flood) = (channel(&reactor), flood.clone());
            let poster = std::thread::spawn(move || flood(channel));
            while *reactor.state() < posts {
                let _ = reactor.turn(None).expect("the poll works");
            }
            poster.join().expect("the poster ends");
            assert_eq!(*reactor.state(), posts, "nothing is lost, nothing comes twice");
        },
    );
}

/// A second thread posts as fast as it can, while this one handles what comes. The default limit of waiting messages
/// holds: who finds it reached tries again.
#[divan::bench(args = FLOODS, sample_count = 5, sample_size = 1)]
fn flood(bencher: Bencher<'_, '_>, posts: u64) {
    let mut wakes = Vec::new();
    bencher.counter(ItemsCount::new(posts)).with_inputs(reactor).bench_local_values(
        |mut reactor| {
            let remote = reactor.remote();
            let before = write_calls();
            let poster = std::thread::spawn(move || {
                for _ in 0..posts {
                    let mut call = |count: &mut u64, _net: &mut tidegate::Net<u64>| *count += 1;
                    while let Err(PostError::Full(back)) = remote.post(call) {
                        call = back;
                        std::thread::yield_now();
                    }
                }
            });
            while *reactor.state() < posts {
                let _ = reactor.turn(None).expect("the poll works");
            }
            poster.join().expect("the poster ends");
            assert_eq!(*reactor.state(), posts, "nothing is lost, nothing comes twice");
            wakes.push(write_calls() - before);
        },
    );
    eprintln!("wakes in floods of {posts}: {wakes:?}");
}

/// Write calls of this process so far. Here only the waker makes any.
fn write_calls() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let calls = io.lines().find_map(|line| line.strip_prefix("syscw: "));
    calls.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[divan::bench(args = FLOODS, sample_count = 5, sample_size = 1)]
fn flood_std_channel(bencher: Bencher<'_, '_>, posts: u64) {
    bencher.counter(ItemsCount::new(posts)).bench_local(|| {
        let (sender, receiver) = mpsc::channel::<Call>();
        let poster = std::thread::spawn(move || {
            for _ in 0..posts {
                sender.send(Box::new(|count| *count += 1)).expect("it is received");
            }
        });
        let mut count = 0;
        while let Ok(call) = receiver.recv() {
            call(&mut count);
        }
        poster.join().expect("the poster ends");
        assert_eq!(count, posts);
    });
}

#[divan::bench(args = FLOODS, sample_count = 5, sample_size = 1)]
fn flood_tokio_channel(bencher: Bencher<'_, '_>, posts: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime can be made");
    bencher.counter(ItemsCount::new(posts)).bench_local(|| {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<Call>();
        let poster = std::thread::spawn(move || {
            for _ in 0..posts {
                assert!(sender.send(Box::new(|count| *count += 1)).is_ok());
            }
        });
        let count = runtime.block_on(async {
            let mut count = 0;
            while let Some(call) = receiver.recv().await {
                call(&mut count);
            }
            count
        });
        poster.join().expect("the poster ends");
        assert_eq!(count, posts);
    });
}
