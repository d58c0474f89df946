//! The game and its bots in a simulated network: `cargo test --all-features --example game`.

use std::time::Duration;

use tidegate::layer::Lines;
use tidegate::sim::Fault::Loss;
use tidegate::sim::{Faults, Host, Link, Sim, check};
use tidegate::{Address, Connect, Context, Error, Handler, HandlerResult, Input, Net};

use crate::bots::{self, Bots};
use crate::game::{self, Game};

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// In a simulation the ticks are a timer: it has its own loop. That of `main.rs` asks the system for the
/// time; turns that keep deadlines are simulated in `tests/sim`, in hosts whose every turn may be cut.
fn tick(game: &mut Game, net: &mut Net<Game>) {
    game.tick(net);
    net.run_after(crate::TICK, tick);
}

fn start(sim: &mut Sim, chat: bool) -> Result<(Host<Game>, Vec<Host<Bots>>), Error> {
    let game = sim.host("game", |net| {
        let at = ["0.0.0.0:4000", "0.0.0.0:4001", "0.0.0.0:4002"];
        net.run_after(crate::TICK, tick);
        game::open(net, at)
    })?;
    let bots = |sim: &mut Sim, name| {
        sim.host(name, move |net| bots::start(net, "game:4000", chat.then_some("game:4001"), 2))
    };
    let all = ["ada", "bob", "cleo"].into_iter().map(|name| bots(sim, name));
    Ok((game, all.collect::<Result<_, _>>()?))
}

fn total(sim: &Sim, bots: &[Host<Bots>], figure: fn(&Bots) -> u64) -> u64 {
    bots.iter().map(|&bots| figure(sim.state(bots))).sum()
}

#[test]
fn snapshots_survive_loss_and_jitter_and_the_chat_is_whole() {
    check(0..8, |sim| {
        let link = Link::new().latency(ms(10)..ms(60)).loss(0.05).duplicates(0.02);
        sim.default_link(link)?;
        let (_, bots) = start(sim, true)?;
        sim.run_for(ms(5_000))?;
        assert_eq!(total(sim, &bots, |bots| bots.playing.into()), 6);
        assert_eq!(total(sim, &bots, |bots| bots.wrong), 0);
        // Six bots for five seconds at 17 ms a tick.
        let snapshots = total(sim, &bots, |bots| bots.snapshots);
        let lost = total(sim, &bots, |bots| bots.lost);
        assert!((1_200..1_850).contains(&snapshots), "{snapshots} snapshots");
        assert!((10..500).contains(&lost), "{lost} are lost of {snapshots}");
        assert!(total(sim, &bots, |bots| bots.said) > 6);
        // Everybody hears everything, whatever of it is on its way.
        sim.run_until(ms(20_000), |sim| {
            let said = total(sim, &bots, |bots| bots.said);
            total(sim, &bots, |bots| bots.heard) == 6 * said
        })?;
        Ok(())
    });
}

/// Counts the lines of the chat that it gets.
struct Slow;

impl Handler<u64> for Slow {
    fn on_data(&mut self, cx: &mut Context<'_, u64>, input: &mut Input<'_>) -> HandlerResult {
        *cx.state += u64::from(input.take_all().starts_with(b"<"));
        Ok(())
    }
}

#[test]
fn a_slow_member_of_the_chat_delays_nobody() {
    check(0..4, |sim| {
        let (game, bots) = start(sim, true)?;
        let slow = sim.host("slow", |net| {
            net.connect(Connect::tcp("game:4001").layer(Lines::new()), Slow)?;
            Ok(0)
        })?;
        // Three lines of 33 bytes a second, and their headers, are more than it gets.
        sim.link("game", "slow", Link::new().bytes_per_second(60))?;
        sim.run_for(ms(10_000))?;
        let before = total(sim, &bots, |bots| bots.snapshots);
        sim.run_for(ms(10_000))?;
        let (said, heard) = (total(sim, &bots, |b| b.said), total(sim, &bots, |b| b.heard));
        let (snapshots, lines) = (total(sim, &bots, |b| b.snapshots) - before, *sim.state(slow));
        assert!(said > 40 && heard + 36 >= 6 * said, "{heard} heard of {said} lines");
        assert!(lines < said - 10, "it has heard {lines} of {said}, and is not slow");
        assert!(snapshots > 3_400, "{snapshots} of 3,600");
        assert_eq!(total(sim, &bots, |bots| bots.wrong), 0);
        let members = sim.with(game, |game, net| net.members(game.chat).len());
        assert_eq!(members, 7, "nobody is closed");
        Ok(())
    });
}

#[test]
fn whoever_was_cut_off_plays_again() {
    check(0..8, |sim| {
        sim.faults(Faults::swarm().with(Loss, 0.1).until(ms(5_000)));
        let (game, bots) = start(sim, false)?;
        sim.run_for(ms(5_000))?;
        // Who was stopped is back, and whom the game has forgotten has shown a cookie again.
        sim.run_until(ms(60_000), |sim| {
            let back = sim.is_running(game) && bots.iter().all(|&bots| sim.is_running(bots));
            back && total(sim, &bots, |bots| bots.playing.into()) == 6
        })?;
        let before = total(sim, &bots, |bots| bots.snapshots);
        sim.run_until(ms(60_000), |sim| total(sim, &bots, |bots| bots.snapshots) > before + 300)?;
        assert_eq!(total(sim, &bots, |bots| bots.wrong), 0);
        Ok(())
    });
}

#[test]
fn no_datagram_ends_a_session_or_is_newer_than_all_of_the_player() {
    check(0..4, |sim| {
        let (game, bots) = start(sim, true)?;
        sim.run_for(ms(500))?;
        let eve = sim.peer("eve")?;
        let to = (sim.ip("game")?, 4000).into();
        // In the name of every bot: what is no input, and one of a number far ahead.
        let ports: Vec<_> = sim.with(game, |game, net| {
            net.sessions(game.sockets[0]).iter().filter_map(|&bot| net.peer_addr(bot)).collect()
        });
        let far = [&u32::MAX.to_be_bytes()[..], &[0; 8]].concat();
        for from in &ports {
            let Address::Ip(from) = *from else { unreachable!("they come over UDP") };
            for bytes in [&b""[..], b"short", &[7; 13], &[7; 25], &[7; 1_000], &far] {
                sim.raw(eve).send_datagram(from, to, bytes)?;
            }
        }
        assert_eq!(ports.len(), 6);
        sim.run_for(ms(100))?;
        let before = total(sim, &bots, |bots| bots.answers.count());
        sim.run_for(ms(1_000))?;
        assert_eq!(total(sim, &bots, |bots| bots.playing.into()), 6);
        assert_eq!(total(sim, &bots, |bots| bots.wrong), 0);
        // Their inputs still count: nearly sixty answers each.
        let answers = total(sim, &bots, |bots| bots.answers.count()) - before;
        assert!(answers > 240, "{answers}");
        let stats = sim.with(game, |game, net| net.session_stats(game.sockets[0]));
        assert!(stats.is_some_and(|stats| (stats.open, stats.accepted) == (6, 6)), "{stats:?}");
        Ok(())
    });
}
