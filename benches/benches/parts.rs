//! The reactor's parts, one at a time, through the public API: `cargo bench --bench parts`.
//!
//! What a user pays is measured, so that each figure has a little more in it than the part itself: setting a timer
//! reads the clock (it is reckoned from that moment), a turn polls the system once.

use divan::Bencher;
use divan::counter::ItemsCount;
use std::net::TcpStream;
use std::time::Duration;
use tidegate::{
    Adopt, Config, Context, DatagramHandler, Handler, HandlerResult, Input, Overflow, Reactor,
    StreamOptions, Timer, Token,
};

fn main() {
    divan::main();
}

const COUNTS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// How many timers one sample sets, moves or cancels beside those that are there already.
const BATCH: usize = 1_000;

struct Silent;

impl Handler for Silent {
    fn on_data(&mut self, _cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        input.take_all();
        Ok(())
    }
}

impl DatagramHandler for Silent {
    fn on_datagram(
        &mut self,
        _cx: &mut Context<'_>,
        _datagram: tidegate::Datagram<'_>,
    ) -> HandlerResult {
        Ok(())
    }
}

/// A reactor, and a UDP socket of it whom the timers belong to.
fn with_owner(config: Config) -> (Reactor, Token) {
    let mut reactor = Reactor::with_config((), config).expect("a poll can be made");
    let owner = reactor.net().bind_udp("127.0.0.1:0", Silent).expect("UDP can be bound");
    turn(&mut reactor);
    (reactor, owner)
}

fn turn(reactor: &mut Reactor) {
    let _ = reactor.turn(Some(Duration::ZERO)).expect("the poll works");
}

/// Between a second and a minute, scattered as the deadlines of many connections are.
fn delay(number: usize) -> Duration {
    let scattered = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    Duration::from_millis(1_000 + scattered % 59_000)
}

fn set(reactor: &mut Reactor, owner: Token, timers: usize) -> Vec<Timer> {
    let net = reactor.net();
    (0..timers).map(|n| net.set_timer(owner, delay(n), n as u64)).collect()
}

#[divan::bench(args = COUNTS, sample_count = 30, sample_size = 1)]
fn timer_insert(bencher: Bencher<'_, '_>, timers: usize) {
    let (mut reactor, owner) = with_owner(Config::default());
    set(&mut reactor, owner, timers);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| set(&mut reactor, owner, BATCH));
}

#[divan::bench(args = COUNTS, sample_count = 30, sample_size = 1)]
fn timer_rearm(bencher: Bencher<'_, '_>, timers: usize) {
    let (mut reactor, owner) = with_owner(Config::default());
    let set = set(&mut reactor, owner, timers);
    let mut round = 0;
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        round += 1;
        let net = reactor.net();
        for n in 0..BATCH {
            let timer = set[(n * 7_919 + round * BATCH) % timers];
            assert!(net.rearm_timer(timer, delay(n + round)));
        }
    });
}

#[divan::bench(args = COUNTS, sample_count = 30, sample_size = 1)]
fn timer_cancel(bencher: Bencher<'_, '_>, timers: usize) {
    let (mut reactor, owner) = with_owner(Config::default());
    let mut waiting = set(&mut reactor, owner, timers + 100 * BATCH);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        let net = reactor.net();
        for timer in waiting.drain(waiting.len() - BATCH..) {
            assert!(net.cancel_timer(timer));
        }
    });
}

/// All fire in one turn, each into `on_timer` of a handler.
#[divan::bench(args = COUNTS, sample_count = 5, sample_size = 1)]
fn timer_fire(bencher: Bencher<'_, '_>, timers: usize) {
    let config = Config { timers_per_turn: usize::MAX, ..Config::default() };
    bencher
        .counter(ItemsCount::new(timers))
        .with_inputs(|| {
            let (mut reactor, owner) = with_owner(config.clone());
            let net = reactor.net();
            for n in 0..timers {
                net.set_timer(owner, Duration::from_millis(n as u64 % 64), 0);
            }
            std::thread::sleep(Duration::from_millis(70));
            reactor
        })
        .bench_local_values(|mut reactor| {
            turn(&mut reactor);
            reactor
        });
}

/// One thread posts, then the reactor takes all of it: what both ends of a message cost.
#[divan::bench(args = [1_000, 100_000], sample_count = 50, sample_size = 1)]
fn remote_posts(bencher: Bencher<'_, '_>, posts: usize) {
    let config = Config { posts_per_turn: usize::MAX, ..Config::default() };
    let mut reactor = Reactor::with_config(0_usize, config).expect("a poll can be made");
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

/// `send` to a peer that does not read: queued, counted, coalesced.
#[divan::bench(args = [64, 1_024, 8_192], sample_count = 50, sample_size = 1)]
fn output_queue(bencher: Bencher<'_, '_>, size: usize) {
    const SENDS: usize = 256;
    let message = vec![7; size];
    bencher
        .counter(ItemsCount::new(SENDS))
        .with_inputs(|| {
            connection(StreamOptions::new().output_cap(1 << 30).overflow(Overflow::Drop))
        })
        .bench_local_values(|(mut reactor, token, peer)| {
            let net = reactor.net();
            for _ in 0..SENDS {
                net.send(token, &message);
            }
            (reactor, peer)
        });
}

fn connection(options: StreamOptions) -> (Reactor, Token, TcpStream) {
    let mut reactor = Reactor::new().expect("a poll can be made");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("TCP can be bound");
    let peer = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
    let (socket, _) = listener.accept().expect("somebody knocks");
    let adopt = Adopt::from(socket).options(options);
    let token = reactor.net().adopt(adopt, Silent).expect("a connected socket can be adopted");
    turn(&mut reactor);
    (reactor, token, peer)
}

/// The look-up of a token, among so many.
/// The look-up of a token, among so many.
#[divan::bench(args = [1_000, 10_000], sample_count = 50)]
fn token_table(bencher: Bencher<'_, '_>, sockets: usize) {
    let mut reactor = Reactor::new().expect("a poll can be made");
    let net = reactor.net();
    let bind = |_| net.bind_udp("127.0.0.1:0", Silent).expect("UDP can be bound");
    let tokens: Vec<_> = (0..sockets).map(bind).collect();
    bencher.counter(ItemsCount::new(sockets)).bench_local(|| {
        let net = reactor.net();
        tokens.iter().filter(|&&token| net.is_open(token)).count()
    });
}
