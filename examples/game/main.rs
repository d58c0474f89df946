//! A game server: a loop of its own at 60 Hz, UDP for what is new, TCP and WebSocket for a chat.
//!
//! Here is the loop, which embeds the reactor; `game.rs` is the game, `bots.rs` players to try it with.

mod bots;
mod game;
#[cfg(all(test, feature = "sim"))]
mod simulated;
#[path = "../support/mod.rs"]
mod support;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tidegate::stats::Histogram;
use tidegate::{Config, Reactor};

const HELP: &str = "game - a game server with a loop of its own, and bots that play
Usage: cargo run --release --features cookies,histograms,timerfd,udp-batch --example game [ADDRESS] [OPTIONS]
    ADDRESS          for players, over UDP (default 127.0.0.1:4000)
    --chat ADDRESS   the chat, lines over TCP (default 127.0.0.1:4001)
    --web ADDRESS    the chat, for browsers (default 127.0.0.1:4002)
    --spin MICROS    how long to wait awake before each tick (default 0)
    --seconds S      end after so long, with a line about all ticks; by default never
       ... game bots [ADDRESS] [--chat ADDRESS] [--players N] [--seconds S]
    N bots (default 20) play at ADDRESS, chat if an address is given, and end after S seconds
    (default 10) with a line of what they have seen
Try it: bots in one terminal, nc 127.0.0.1 4001 in another.";

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    support::main_with_options(HELP, |arguments| {
        let seconds = arguments.option("--seconds")?.map(Duration::from_secs);
        let chat: Option<String> = arguments.option("--chat")?;
        if arguments.flag("bots") {
            let players = arguments.option("--players")?.unwrap_or(20);
            let [address] = arguments.rest(["127.0.0.1:4000"])?;
            return play(&address, chat.as_deref(), players, seconds.unwrap_or(TICK * 600));
        }
        let chat = chat.unwrap_or("127.0.0.1:4001".to_owned());
        let web = arguments.option("--web")?.unwrap_or("127.0.0.1:4002".to_owned());
        let spin = arguments.option("--spin")?.map_or(Duration::ZERO, Duration::from_micros);
        let [players] = arguments.rest(["127.0.0.1:4000"])?;
        serve([&players, &chat, &web], spin, seconds.unwrap_or(Duration::MAX))
    })
}

const RATE: u64 = 60; // snapshots a second for each player
const TICK: Duration = Duration::from_nanos(1_000_000_000 / RATE);

/// The loop. A turn waits for events until the next tick at most, and does not work for longer; the game
/// moves between two turns. It waits for nothing else, so it needs neither `as_fd()` nor `next_deadline()`,
/// with which a loop waits for other things too: the guide has such a program ("A loop of your own").
fn serve(at: [&str; 3], spin: Duration, length: Duration) -> Outcome {
    let config = Config::new().spin_before_deadline(spin);
    let mut reactor = Reactor::build(config, |net| game::open(net, at))?;
    let (game, net) = reactor.parts();
    for (socket, what) in game.sockets.into_iter().zip(["players", "chat lines", "browsers"]) {
        for at in net.local_addrs(socket) {
            support::say(format!("game: listening on {at}, {what}"))?;
        }
    }
    // How late each tick began: since the last report, and ever.
    let (mut late, mut ever) = (Histogram::new(), Histogram::new());
    let mut before = reactor.net().stats();
    let begun = Instant::now();
    let (mut next, mut until) = (begun + TICK, begun + TICK);
    while begun.elapsed() < length {
        if reactor.turn_until(until)?.is_break() {
            break; // somebody has called `stop`
        }
        let now = Instant::now();
        if now < until {
            continue;
        }
        late.record(now - next);
        next = if now - next < TICK { next } else { now } + TICK; // missed ticks are left out
        let (game, net) = reactor.parts();
        game.tick(net);
        until = next.max(Instant::now() + TICK / 8); // players are served also by a late loop
        if late.count() == 5 * RATE {
            let passed = net.stats() - before;
            support::say(format!(
                "game: {} players, {} chat; {late} late; {} datagrams in, {} out, {} bytes of chat",
                net.sessions(game.sockets[0]).len(),
                net.members(game.chat).len(),
                passed.datagrams_received,
                passed.datagrams_sent,
                passed.bytes_written,
            ))?;
            before = net.stats();
            ever.add(&std::mem::take(&mut late));
        }
    }
    ever.add(&late);
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|at| ever.value_at(at).as_secs_f64() * 1e6);
    let ticks = ever.count();
    Ok(support::say(format!("ticks {ticks} late_us p50 {p50:.1} p99 {p99:.1} max {max:.1}"))?)
}

/// Bots need no loop of their own.
fn play(game: &str, chat: Option<&str>, players: u32, length: Duration) -> Outcome {
    let mut reactor = Reactor::build(Config::new(), |net| bots::start(net, game, chat, players))?;
    reactor.net().run_after(length, |_, net| net.stop());
    reactor.run()?;
    let bots::Bots { playing, snapshots, lost, wrong, chatting, said, heard, answers } =
        reactor.state();
    support::say(format!(
        "playing {playing} snapshots {snapshots} lost {lost} wrong {wrong} chatting {chatting} \
         said {said} heard {heard} answers: {answers}"
    ))?;
    if (*playing, *chatting, *wrong) != (players, chat.map_or(0, |_| players), 0) {
        return Err("not every bot plays or chats, or something is wrong".into());
    }
    Ok(())
}
