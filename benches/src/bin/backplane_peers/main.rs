//! Rooms over two processes on tidegate's backplane, beside a server on Node that does the same with `ws` and
//! `ioredis`: one Redis, two servers of each kind, people who speak at the first and listen at the second. The kinds
//! work in turn, round by round. It also measures a cluster of three.
//!
//!     cd benches && (cd peers/node-backplane && npm install)
//!     cargo build --release --features backplane --bin backplane_server --bin backplane_peers
//!     target/release/backplane_peers [ROUNDS [redis|cluster|all]]
//!
//! Needs `node`, `redis-server`, `redis-cli` and `redis-benchmark` (Redis 7). docs/backplane.md has the figures.

mod client;
mod flood;
#[allow(dead_code)] // it needs the CPU clock alone
#[path = "../arena/host.rs"]
mod host;
mod pace;
mod processes;
#[allow(dead_code)]
#[path = "../arena/stats.rs"]
mod stats;

use std::time::Duration;

use flood::{Flood, Flooded};
use pace::{Pace, Paced};
use processes::{PEERS, Pair, Redis};
use stats::{Spread, spread};

type Failure = Box<dyn std::error::Error>;
type Result<T> = std::result::Result<T, Failure>;
/// One figure of a slice.
type Figure<S> = fn(&S) -> f64;

/// How long a flood is.
const SLICE: Duration = Duration::from_secs(1);
/// The messages of a slice at light load, one a millisecond.
const PACED: u64 = 2000;
/// Rounds that do not count: a runtime compiles what is often called.
const WARM: usize = 1;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let rounds = words.next().map_or(Ok(7), |word| word.parse())?;
    let part = words.next().unwrap_or_else(|| "all".into());
    if !["redis", "cluster", "all"].contains(&part.as_str()) {
        return Err("usage: backplane_peers [ROUNDS [redis|cluster|all]]".into());
    }
    println!("load average {}, {rounds} rounds", std::fs::read_to_string("/proc/loadavg")?.trim());
    println!("\n| | tidegate | Node | × | Node, corked | × |\n|---|---:|---:|---:|---:|---:|");
    let redis = Redis::alone()?;
    if part != "cluster" {
        let pairs = start(&redis)?;
        for listeners in [1, 50] {
            flood_all(&format!("{listeners} listening"), &redis, &pairs, 1, listeners, rounds)?;
        }
        pace_all(&pairs, rounds)?;
    }
    for connections in [1, 50] {
        let rates = (0..rounds).map(|_| redis.benchmark(connections, 400_000));
        let rates = tell(spread(rates.collect::<Result<_>>()?), 0);
        println!(
            "| `redis-benchmark -P 64 -c {connections}`, messages a second | {rates} | | | | |"
        );
    }
    if part != "redis" {
        let cluster = Redis::cluster(3)?;
        for (name, redis) in [("one Redis", &redis), ("a cluster of three", &cluster)] {
            let pairs = start(redis)?;
            flood_all(&format!("12 rooms, {name}"), redis, &pairs, 12, 1, rounds)?;
        }
    }
    println!("\nload average {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    Ok(())
}

fn start(redis: &Redis) -> Result<Vec<Pair>> {
    PEERS.iter().map(|name| Pair::start(name, redis)).collect()
}

/// One slice of each in every round, each round beginning with the next one.
fn in_turn<S, T>(
    mut subjects: Vec<S>,
    rounds: usize,
    mut slice: impl FnMut(&mut S) -> Result<T>,
) -> Result<Vec<Vec<T>>> {
    let mut found: Vec<_> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 0..WARM + rounds {
        for turn in 0..subjects.len() {
            let at = (round + turn) % subjects.len();
            let value = slice(&mut subjects[at])
                .map_err(|error| format!("{}, round {round}: {error}", PEERS[at]))?;
            if round >= WARM {
                found[at].push(value);
            }
        }
    }
    Ok(found)
}

fn flood_all(
    name: &str,
    redis: &Redis,
    pairs: &[Pair],
    rooms: usize,
    listeners: usize,
    rounds: usize,
) -> Result<()> {
    let floods = pairs.iter().map(|pair| Flood::new(pair, redis, rooms, listeners));
    let found = in_turn(floods.collect::<Result<_>>()?, rounds, |flood| flood.slice(SLICE))?;
    let figures: [(&str, usize, Figure<Flooded>); 4] = [
        ("messages a second", 0, |slice| slice.rate),
        ("CPU s of both servers, 100,000 messages", 3, |slice| slice.servers),
        ("CPU s of Redis", 3, |slice| slice.redis),
        ("CPU s of the load", 3, |slice| slice.load),
    ];
    for (figure, digits, of) in figures {
        row(&format!("{name}: {figure}"), &found, digits, of);
    }
    Ok(())
}

fn pace_all(pairs: &[Pair], rounds: usize) -> Result<()> {
    let paces = pairs.iter().map(Pace::new);
    let found = in_turn(paces.collect::<Result<_>>()?, rounds, |pace| pace.slice(PACED))?;
    let figures: [(&str, Figure<Paced>); 6] = [
        ("same process, p50 µs", |slice| slice.near.p50),
        ("same process, p99 µs", |slice| slice.near.p99),
        ("through Redis, p50 µs", |slice| slice.far.p50),
        ("through Redis, p99 µs", |slice| slice.far.p99),
        ("added, p50 µs", |slice| slice.added.p50),
        ("added, p99 µs", |slice| slice.added.p99),
    ];
    for (figure, of) in figures {
        row(&format!("1 a millisecond: {figure}"), &found, 0, of);
    }
    Ok(())
}

/// Medians with their quartiles, and those of the ratio to the first in each round.
fn row<T>(name: &str, found: &[Vec<T>], digits: usize, of: impl Fn(&T) -> f64) {
    let all = |at: usize| found[at].iter().map(&of).collect::<Vec<_>>();
    print!("| {name} | {} |", tell(spread(all(0)), digits));
    for at in 1..found.len() {
        let ratios = all(at).iter().zip(all(0)).map(|(other, first)| other / first).collect();
        print!(" {} | {} |", tell(spread(all(at)), digits), tell(spread(ratios), 2));
    }
    println!();
}

fn tell(Spread { low, median, high }: Spread, digits: usize) -> String {
    format!("{median:.digits$} ({low:.digits$}–{high:.digits$})")
}
