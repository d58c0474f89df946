//! Partitions: nothing passes, in one direction or in both, until they are healed.

use tidegate::Udp;
use tidegate::sim::{Fault, Faults, Host, Sim};

use crate::kit::{DAY, Log, SECOND, Watch, connect, connect_with, listen, ms, patient};

/// An open connection between two hosts.
fn pair(sim: &mut Sim) -> (Host<Log>, Host<Log>) {
    let server = listen(sim, "server", 7, Watch::echo());
    let client = connect(sim, "client", "10.0.0.1:7", Watch::saying("one "));
    sim.run_for(SECOND).unwrap();
    assert_eq!(sim.state(client).bytes, b"one ");
    (server, client)
}

fn say(sim: &mut Sim, host: Host<Log>, bytes: &[u8]) {
    let token = sim.state(host).token.unwrap();
    sim.with(host, |_, net| net.send(token, bytes.to_vec()));
}

#[test]
fn after_a_partition_data_arrives_in_order() {
    let mut sim = Sim::new(1);
    let (server, client) = pair(&mut sim);
    sim.partition(&["server"], &["client"]).unwrap();
    say(&mut sim, client, b"two ");
    sim.run_for(5 * SECOND).unwrap();
    say(&mut sim, client, b"three");
    sim.run_for(5 * SECOND).unwrap();
    assert_eq!(sim.state(server).bytes, b"one ");
    sim.heal(&["server"], &["client"]).unwrap();
    sim.run_for(30 * SECOND).unwrap();
    assert_eq!(sim.state(server).bytes, b"one two three");
    assert_eq!(sim.state(client).bytes, b"one two three");
}

#[test]
fn a_partition_in_one_direction_lets_the_other_pass() {
    let mut sim = Sim::new(1);
    let (server, client) = pair(&mut sim);
    sim.partition_one_way(&["server"], &["client"]).unwrap();
    say(&mut sim, client, b"two");
    sim.run_for(SECOND).unwrap();
    assert_eq!(sim.state(server).bytes, b"one two");
    assert_eq!(sim.state(client).bytes, b"one ");
    sim.heal(&["server"], &["client"]).unwrap();
    sim.run_for(30 * SECOND).unwrap();
    assert_eq!(sim.state(client).bytes, b"one two");
}

#[test]
fn acknowledgements_that_a_partition_keeps_back_come_when_it_is_healed() {
    let mut sim = Sim::new(1);
    let server = listen(&mut sim, "server", 7, Watch::default());
    let client = connect(&mut sim, "client", "10.0.0.1:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    sim.partition_one_way(&["server"], &["client"]).unwrap();
    let token = sim.state(client).token.unwrap();
    sim.with(client, |_, net| net.send(token, vec![7; 600_000]));
    sim.run_for(10 * SECOND).unwrap();
    let before = sim.state(server).bytes.len();
    assert!(before > 0 && before < 300_000, "window and buffer, and no more: {before}");
    sim.heal(&["server"], &["client"]).unwrap();
    sim.run_for(60 * SECOND).unwrap();
    assert_eq!(sim.state(server).bytes.len(), 600_000);
    assert_eq!(sim.state(client).count("close"), 0);
}

#[test]
fn a_sender_that_nobody_acknowledges_gives_up() {
    for both in [false, true] {
        let mut sim = Sim::new(1);
        let (_, client) = pair(&mut sim);
        if both {
            sim.partition(&["server"], &["client"]).unwrap();
        } else {
            sim.partition_one_way(&["server"], &["client"]).unwrap();
        }
        say(&mut sim, client, b"two");
        sim.run_for(2_000 * SECOND).unwrap();
        let closed = sim.state(client).time_of("close timed out");
        assert!(closed > 500 * SECOND && closed < 1_500 * SECOND, "{closed:?}");
    }
}

#[test]
fn a_reset_does_not_pass_a_partition() {
    let mut sim = Sim::new(1);
    let (server, client) = pair(&mut sim);
    sim.partition(&["server"], &["client"]).unwrap();
    let token = sim.state(client).token.unwrap();
    sim.with(client, |_, net| net.abort(token));
    sim.run_for(60 * SECOND).unwrap();
    assert_eq!(sim.state(server).count("close"), 0, "it cannot know");
    sim.heal(&["server"], &["client"]).unwrap();
    sim.run_for(60 * SECOND).unwrap();
    assert_eq!(sim.state(server).count("close"), 0, "nobody repeats a reset");
}

#[test]
fn connecting_across_a_partition_succeeds_when_it_is_healed() {
    for one_way in [None, Some(["client", "server"]), Some(["server", "client"])] {
        let mut sim = Sim::new(1);
        let server = listen(&mut sim, "server", 7, Watch::default());
        let peer = sim.peer("other").unwrap();
        let _ = peer;
        let client = crate::kit::idle(&mut sim, "client");
        match one_way {
            None => sim.partition(&["server"], &["client"]).unwrap(),
            Some([from, to]) => sim.partition_one_way(&[from], &[to]).unwrap(),
        }
        sim.with(client, |_, net| {
            let to = tidegate::Connect::tcp("10.0.0.1:7").options(patient());
            net.connect(to, Watch::saying("hello")).map(drop)
        })
        .unwrap();
        sim.run_for(6 * SECOND).unwrap();
        assert_eq!(sim.state(client).count("open"), 0, "{one_way:?}");
        sim.heal(&["server"], &["client"]).unwrap();
        sim.run_for(20 * SECOND).unwrap();
        assert_eq!(sim.state(server).bytes, b"hello", "{one_way:?}");
    }
}

#[test]
fn connecting_across_a_partition_without_end_times_out() {
    for one_way in [["client", "server"], ["server", "client"]] {
        let mut sim = Sim::new(1);
        let server = listen(&mut sim, "server", 7, Watch::default());
        let client = crate::kit::idle(&mut sim, "client");
        sim.partition_one_way(&[one_way[0]], &[one_way[1]]).unwrap();
        sim.with(client, |_, net| {
            let to = tidegate::Connect::tcp("10.0.0.1:7").options(patient());
            net.connect(to, Watch::default()).map(drop)
        })
        .unwrap();
        sim.settle(DAY).unwrap();
        let closed = sim.state(client).time_of("close");
        assert!(closed > 100 * SECOND && closed < 160 * SECOND, "{closed:?}");
        // The server's system forgets what was never confirmed.
        assert_eq!(sim.state(server).count("open"), sim.state(server).count("close"));
    }
}

#[test]
fn datagrams_do_not_pass() {
    let mut sim = Sim::new(1);
    let server = sim
        .host("server", |net| {
            net.bind_udp("0.0.0.0:53", Watch::default())?;
            Ok(Log::new(net))
        })
        .unwrap();
    let client = sim
        .host("client", |net| {
            let token = net.bind_udp(Udp::bind("0.0.0.0:0"), Watch::default())?;
            let mut log = Log::new(net);
            log.token = Some(token);
            Ok(log)
        })
        .unwrap();
    let token = sim.state(client).token.unwrap();
    for blocked in [true, false] {
        if blocked {
            sim.partition_one_way(&["client"], &["server"]).unwrap();
        } else {
            sim.heal(&["client"], &["server"]).unwrap();
        }
        sim.with(client, |_, net| net.send_to(token, "10.0.0.1:53".parse().unwrap(), "x"));
        sim.settle(SECOND).unwrap();
        assert_eq!(sim.state(server).bytes.len(), usize::from(!blocked));
    }
}

#[test]
fn partitions_of_the_seed_heal_by_themselves() {
    let mut sim = Sim::new(1);
    let (server, client) = pair(&mut sim);
    sim.faults(Faults::none().with(Fault::Partitions, 1.0).until(2 * SECOND));
    say(&mut sim, client, b"two");
    sim.run_for(ms(5)).unwrap();
    assert_eq!(sim.state(server).bytes, b"one ");
    sim.run_for(60 * SECOND).unwrap();
    assert_eq!(sim.state(client).bytes, b"one two");
}

#[test]
fn a_third_host_is_not_concerned() {
    let mut sim = Sim::new(1);
    let (server, _) = pair(&mut sim);
    let third = connect_with(&mut sim, "third", "10.0.0.1:7", patient(), Watch::saying("three"));
    sim.partition(&["server"], &["client"]).unwrap();
    sim.run_for(SECOND).unwrap();
    assert_eq!(sim.state(third).bytes, b"three");
    assert_eq!(sim.state(server).bytes, b"one three");
}
