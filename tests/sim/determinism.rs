//! Same seed, same trace: in one process, in every build, with any features.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::Duration;

use tidegate::layer::websocket::WebSocket;
use tidegate::sim::{Faults, Link, ScenarioResult, Sim, try_check};
use tidegate::{Connect, Listen};

use crate::kit::{DAY, Log, SECOND, Watch, connect, idle, listen, ms, patient};
use crate::scenarios::{chat, echo, proxy, udp};

type Scenario = fn(&mut Sim) -> ScenarioResult;

fn hash_of(seed: u64, scenario: Scenario) -> u64 {
    let mut sim = Sim::new(seed);
    scenario(&mut sim).unwrap();
    sim.hash()
}

const SCENARIOS: [(&str, Scenario); 4] =
    [("chat", chat::run), ("echo", echo::run), ("proxy", proxy::run), ("udp", udp::run)];

#[test]
fn the_same_seed_gives_the_same_hash() {
    for (name, scenario) in SCENARIOS {
        for seed in [1, 2, 3] {
            assert_eq!(hash_of(seed, scenario), hash_of(seed, scenario), "{name} {seed}");
        }
        assert_ne!(hash_of(1, scenario), hash_of(2, scenario), "{name}");
    }
}

#[cfg(feature = "backplane")]
#[test]
fn a_backplane_does_what_the_seed_says() {
    use crate::scenarios::backplane;
    for seed in 1..6 {
        assert_eq!(hash_of(seed, backplane::run), hash_of(seed, backplane::run), "{seed}");
    }
    assert_ne!(hash_of(1, backplane::run), hash_of(2, backplane::run));
}

/// Debug and release, with any set of features, on every platform: the same. A change of what the
/// library does on the wire, or of how often it asks for the time, changes them; then these are the
/// numbers to replace, once it is clear that the change was meant.
#[test]
fn hashes_are_those_of_every_other_build() {
    let expected = [
        ("chat", 7, 0xfb87_3715_37f8_c151),
        ("chat", 8, 0x91d5_7a2b_79c5_d5de),
        ("echo", 7, 0x86e5_ef44_f63f_e2af),
        ("echo", 8, 0x9bbe_b530_5293_cac6),
        ("proxy", 7, 0x3267_81b5_9050_8a17),
        ("proxy", 8, 0x9230_4328_83bc_b7c4),
        ("udp", 7, 0xd3c9_a841_f733_758a),
        ("udp", 8, 0xc40f_ae45_0cd2_b226),
        ("websocket", 7, 0xb45d_dc37_f413_6b91),
        ("websocket", 8, 0xb91d_b7b3_2e9b_f0cb),
    ];
    let found = expected.map(|(name, seed, _)| {
        let named = SCENARIOS.iter().find(|(other, _)| *other == name);
        let scenario = named.map_or(websocket as Scenario, |&(_, scenario)| scenario);
        (name, seed, hash_of(seed, scenario))
    });
    assert_eq!(found, expected, "{found:#x?}");
}

#[test]
fn simulations_on_one_thread_do_not_disturb_each_other() {
    let start = |seed| {
        let mut sim = Sim::new(seed);
        sim.faults(Faults::swarm());
        sim.default_link(Link::new().latency(ms(1)..ms(20))).unwrap();
        listen(&mut sim, "server", 7, Watch::echo());
        for name in ["ada", "bob"] {
            connect(&mut sim, name, "server:7", Watch::saying(vec![7; 20_000]));
        }
        sim
    };
    let seeds = 0..10;
    let alone: Vec<u64> = seeds
        .clone()
        .map(|seed| {
            let mut sim = start(seed);
            for _ in 0..50 {
                sim.run_for(ms(10)).unwrap();
            }
            sim.hash()
        })
        .collect();
    let mut together: Vec<Sim> = seeds.map(start).collect();
    for _ in 0..50 {
        together.iter_mut().for_each(|sim| sim.run_for(ms(10)).unwrap());
    }
    let together: Vec<u64> = together.iter().map(Sim::hash).collect();
    assert_eq!(alone, together);
}

#[test]
fn how_long_a_run_is_cut_into_changes_nothing() {
    let hash = |pieces: u32| {
        let mut sim = Sim::new(1);
        sim.faults(Faults::swarm());
        listen(&mut sim, "server", 7, Watch::echo());
        connect(&mut sim, "client", "server:7", Watch::saying(vec![7; 20_000]));
        for _ in 0..pieces {
            sim.run_for(SECOND / pieces).unwrap();
        }
        sim.hash()
    };
    assert_eq!(hash(1), hash(100));
}

#[test]
fn the_bytes_are_part_of_the_hash() {
    let hash = |says: &str| {
        let mut sim = Sim::new(1);
        listen(&mut sim, "server", 7, Watch::default());
        connect(&mut sim, "client", "server:7", Watch::saying(says));
        sim.run_for(SECOND).unwrap();
        sim.hash()
    };
    assert_ne!(hash("one"), hash("two"));
}

#[test]
fn what_the_seed_does_not_decide_is_found_and_named() {
    thread_local! {
        static RUNS: Cell<u64> = const { Cell::new(0) };
    }
    let failure = try_check(0..3, |sim| {
        let run = RUNS.replace(RUNS.get() + 1);
        let host = idle(sim, "host");
        sim.with(host, |_, net| {
            net.run_after(ms(1 + run), |log: &mut Log, net| log.add(net.now(), "now"));
        });
        sim.note(run);
        sim.settle(SECOND)?;
        Ok(())
    })
    .unwrap_err();
    let text = failure.to_string();
    assert!(text.contains("two runs with this seed differ"), "{text}");
    assert!(
        text.contains("was \"host: note 0 (at") && text.contains("\"host: note 1 (at"),
        "{text}"
    );
    assert_eq!(failure.seed(), 0);
    assert!(text.contains("TIDEGATE_SEED=0"), "{text}");
}

#[test]
fn a_hash_map_that_is_iterated_is_found() {
    // With 64 entries two orders are the same once in 64!.
    let failure = try_check(0..1, |sim| {
        listen(sim, "server", 7, Watch::default());
        let client = idle(sim, "client");
        let names: HashMap<u64, u64> = (0..64).map(|n| (n, n)).collect();
        let says: Vec<u8> = names.keys().map(|&n| n as u8).collect();
        sim.with(client, |_, net| {
            let to = Connect::tcp("server:7").options(patient());
            net.connect(to, Watch::saying(says)).map(drop)
        })?;
        sim.run_for(SECOND)?;
        Ok(())
    })
    .unwrap_err();
    // The length is the same, and the contents are not.
    assert!(failure.what().contains("a HashMap that is iterated?"), "{failure}");
    assert!(failure.what().contains("64 bytes arrive"), "{failure}");
}

fn websocket(sim: &mut Sim) -> ScenarioResult {
    sim.default_link(Link::new().latency(ms(1)..ms(20)))?;
    sim.host("server", |net| {
        let on = Listen::tcp("0.0.0.0:80").options(patient());
        net.listen(on.layer(|_| WebSocket::server().allow_any_origin().layer()), |_| {
            Watch::echo()
        })?;
        Ok(Log::new(net))
    })?;
    let client = sim.host("client", |net| {
        let layer = WebSocket::client("server", "/").layer();
        let to = Connect::tcp("server:80").options(patient()).layer(layer);
        net.connect(to, Watch::saying("a message"))?;
        Ok(Log::new(net))
    })?;
    sim.run_until(SECOND, |sim| sim.state(client).bytes == b"a message")?;
    Ok(())
}

#[test]
fn keys_and_masks_of_web_sockets_come_from_the_seed() {
    assert_eq!(hash_of(1, websocket), hash_of(1, websocket));
    let checked = try_check(0..20, websocket).unwrap();
    assert_eq!((checked.seeds, checked.compared), (20, 2));
}

#[test]
fn a_pause_between_two_steps_of_the_real_time_changes_nothing() {
    let hash = |pause: Duration| {
        let mut sim = Sim::new(1);
        listen(&mut sim, "server", 7, Watch::echo());
        connect(&mut sim, "client", "server:7", Watch::saying(vec![7; 20_000]));
        sim.run_for(ms(1)).unwrap();
        std::thread::sleep(pause);
        sim.run_for(DAY).unwrap();
        sim.hash()
    };
    assert_eq!(hash(Duration::ZERO), hash(ms(20)));
}
