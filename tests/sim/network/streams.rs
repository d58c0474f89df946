//! Streams.

use std::time::Duration;

use tidegate::sim::{Fault, Faults, Link, Sim};
use tidegate::{Connect, Listen, Net, SocketOptions, StreamOptions};

use crate::kit::{
    DAY, Log, SECOND, Watch, connect, connect_with, idle, listen, ms, patient, refusal,
};

/// Whether something took this long, and a little for system calls.
fn about(time: Duration, expected: Duration) -> bool {
    time >= expected && time < expected + Duration::from_millis(1)
}

#[test]
fn latency_delays_connecting_and_each_piece() {
    let mut sim = Sim::new(1);
    sim.default_link(Link::new().latency(ms(20)..ms(20))).unwrap();
    let server = listen(&mut sim, "server", 7, Watch::echo());
    let client = connect(&mut sim, "client", "server:7", Watch::saying("hello"));
    sim.run_for(SECOND).unwrap();
    let (server, client) = (sim.state(server), sim.state(client));
    assert!(about(client.time_of("open"), ms(40)), "{}", client.text());
    assert!(about(server.time_of("data"), ms(60)), "{}", server.text());
    assert!(about(client.time_of("data"), ms(80)), "{}", client.text());
}

#[test]
fn a_range_of_latencies_gives_different_ones() {
    let mut times = Vec::new();
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        sim.default_link(Link::new().latency(ms(1)..ms(100))).unwrap();
        listen(&mut sim, "server", 7, Watch::default());
        let client = connect(&mut sim, "client", "server:7", Watch::default());
        sim.run_for(SECOND).unwrap();
        times.push(sim.state(client).time_of("open"));
    }
    assert!(times.iter().all(|&time| time >= ms(2) && time < ms(201)), "{times:?}");
    assert!(times.iter().max().unwrap().abs_diff(*times.iter().min().unwrap()) > ms(50));
}

#[test]
fn jitter_delays_some_segments_and_keeps_their_order() {
    let time_and_bytes = |faults: Faults| {
        let mut sim = Sim::new(3);
        sim.faults(faults);
        let server = listen(&mut sim, "server", 7, Watch::default());
        let says: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        connect(&mut sim, "client", "server:7", Watch::saying(says.clone()));
        sim.run_for(60 * SECOND).unwrap();
        let log = sim.state(server);
        assert!(log.bytes == says, "the order changed");
        log.lines.last().unwrap().0
    };
    let quiet = time_and_bytes(Faults::none());
    assert!(time_and_bytes(Faults::none().with(Fault::Jitter, 1.0)) > 2 * quiet);
}

#[test]
fn bandwidth_lets_so_many_bytes_pass_in_a_second() {
    let mut sim = Sim::new(1);
    let server = listen(&mut sim, "server", 7, Watch::default());
    connect(&mut sim, "client", "server:7", Watch::saying(vec![7; 300_000]));
    sim.link("server", "client", Link::new().bytes_per_second(100_000)).unwrap();
    sim.run_for(2 * SECOND).unwrap();
    let after_two = sim.state(server).bytes.len();
    assert!((160_000..=200_000).contains(&after_two), "{after_two}");
    sim.run_for(2 * SECOND).unwrap();
    assert_eq!(sim.state(server).bytes.len(), 300_000);
}

#[test]
fn segments_may_be_small() {
    let largest = |faults: Faults| {
        let mut sim = Sim::new(1);
        sim.faults(faults);
        let server = listen(&mut sim, "server", 7, Watch::default());
        connect(&mut sim, "client", "server:7", Watch::saying(vec![7; 2_000]));
        // Slow enough that each segment comes alone.
        sim.link("server", "client", Link::new().bytes_per_second(10_000)).unwrap();
        sim.run_for(60 * SECOND).unwrap();
        assert_eq!(sim.state(server).bytes.len(), 2_000);
        (sim.state(server).pieces().into_iter().min(), sim.state(server).pieces().into_iter().max())
    };
    assert_eq!(largest(Faults::none()), (Some(2_000), Some(2_000)));
    let (least, most) = largest(Faults::none().with(Fault::SmallSegments, 1.0));
    assert!(least == Some(1) && most <= Some(64), "{least:?} {most:?}");
}

#[test]
fn writes_may_be_short_down_to_one_byte() {
    let mut least = usize::MAX;
    for seed in 0..40 {
        let mut sim = Sim::new(seed);
        sim.faults(Faults::none().with(Fault::ShortWrites, 1.0));
        let server = listen(&mut sim, "server", 7, Watch::default());
        connect(&mut sim, "client", "server:7", Watch::saying("12345"));
        sim.run_for(SECOND).unwrap();
        assert_eq!(sim.state(server).bytes, b"12345");
        let pieces = sim.state(server).pieces();
        assert!(pieces.len() > 1, "{pieces:?}");
        least = least.min(pieces[0]);
    }
    assert_eq!(least, 1);
}

#[test]
fn data_and_end_come_in_one_edge() {
    let mut sim = Sim::new(1);
    let server = listen(&mut sim, "server", 7, Watch::default());
    let peer = sim.peer("peer").unwrap();
    sim.raw(peer).connect("server:7").unwrap();
    sim.raw(peer).send(b"bye");
    sim.raw(peer).end();
    sim.run_for(SECOND).unwrap();
    let log = sim.state(server);
    assert_eq!(log.time_of("data"), log.time_of("eof"), "the same turn");
}

#[test]
fn a_read_stops_at_an_urgent_byte() {
    let pieces = |urgent: f64| {
        let mut sim = Sim::new(1);
        let server = listen(&mut sim, "server", 7, Watch::default());
        let peer = sim.peer("peer").unwrap();
        sim.raw(peer).connect("server:7").unwrap();
        sim.run_for(SECOND).unwrap();
        sim.faults(Faults::none().with(Fault::Urgent, urgent));
        sim.pause("server", ms(100)).unwrap(); // so that it finds both
        sim.raw(peer).send(b"first");
        sim.faults(Faults::none());
        sim.raw(peer).send(b"second");
        sim.run_for(SECOND).unwrap();
        assert_eq!(sim.state(server).bytes, b"firstsecond");
        sim.state(server).pieces()
    };
    assert_eq!(pieces(0.0), [11]);
    assert_eq!(pieces(1.0), [5, 6]);
}

#[test]
fn connecting_is_refused_where_nobody_listens() {
    let mut sim = Sim::new(1);
    idle(&mut sim, "server");
    let client = connect(&mut sim, "client", "server:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    let log = sim.state(client);
    assert!(log.text().contains("refused"), "{}", log.text());
    assert!(log.time_of("close") < ms(10));
    sim.settle(DAY).unwrap();
}

#[test]
fn connecting_to_an_address_without_a_host_is_unreachable() {
    let mut sim = Sim::new(1);
    let client = connect(&mut sim, "client", "10.0.0.99:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    let log = sim.state(client);
    assert!(log.text().contains("host unreachable"), "{}", log.text());
    assert!(log.time_of("close") < ms(10));
}

#[test]
fn a_name_without_a_host_does_not_resolve() {
    let mut sim = Sim::new(1);
    let client = connect(&mut sim, "client", "nobody:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    let text = sim.state(client).text();
    assert!(text.contains("cannot resolve nobody:7") && text.contains("no host"), "{text}");
}

#[test]
fn connecting_to_a_machine_that_is_off_meets_silence() {
    let mut sim = Sim::new(1);
    listen(&mut sim, "server", 7, Watch::default());
    sim.power_off("server").unwrap();
    let options = patient().connect_timeout(5 * SECOND);
    let hasty = connect_with(&mut sim, "hasty", "10.0.0.1:7", options, Watch::default());
    let patient = connect(&mut sim, "patient", "10.0.0.1:7", Watch::default());
    sim.run_for(6 * SECOND).unwrap();
    let closed = sim.state(hasty).time_of("close");
    assert!(closed >= 5 * SECOND && closed < 5 * SECOND + ms(2), "{closed:?}");
    assert_eq!(sim.state(patient).lines.len(), 0);
    // Its system gives up at last (tcp_syn_retries).
    sim.run_for(300 * SECOND).unwrap();
    let closed = sim.state(patient).time_of("close");
    assert!(closed > 100 * SECOND && closed < 160 * SECOND, "{closed:?}");
    assert!(sim.state(patient).text().contains("timed out"), "{}", sim.state(patient).text());
}

#[test]
fn a_machine_that_comes_back_is_found_by_the_next_syn() {
    let mut sim = Sim::new(1);
    let server = listen(&mut sim, "server", 7, Watch::default());
    sim.power_off("server").unwrap();
    let client = connect(&mut sim, "client", "10.0.0.1:7", Watch::saying("hello"));
    sim.at(2 * SECOND, |sim| sim.restart("server").unwrap());
    sim.run_for(10 * SECOND).unwrap();
    let opened = sim.state(client).time_of("open");
    assert!(opened > 2 * SECOND && opened < 5 * SECOND, "{opened:?}");
    assert_eq!(sim.state(server).bytes, b"hello");
}

#[test]
fn a_syn_on_its_way_to_a_machine_that_stops_is_sent_again() {
    let mut sim = Sim::new(1);
    sim.default_link(Link::new().latency(ms(50)..ms(50))).unwrap();
    listen(&mut sim, "server", 7, Watch::default());
    let client = connect(&mut sim, "client", "10.0.0.1:7", Watch::default());
    sim.at(ms(10), |sim| sim.power_off("server").unwrap());
    sim.at(ms(20), |sim| sim.restart("server").unwrap());
    sim.run_for(10 * SECOND).unwrap();
    let opened = sim.state(client).time_of("open");
    assert!(opened > SECOND && opened < 3 * SECOND, "{opened:?}");
}

#[test]
fn a_reset_ends_a_connection_at_any_moment() {
    for half_closes in [false, true] {
        let mut sim = Sim::new(1);
        let peer = sim.peer("peer").unwrap();
        sim.raw(peer).listen("0.0.0.0:7").unwrap();
        let watch = Watch { says: b"hello".to_vec(), half_closes, ..Watch::default() };
        let client = connect(&mut sim, "client", "peer:7", watch);
        sim.run_for(SECOND).unwrap();
        assert_eq!(sim.raw(peer).has_ended(), half_closes);
        assert!(sim.state(client).when("close").is_none(), "half closed is not closed");
        sim.raw(peer).reset();
        sim.run_for(SECOND).unwrap();
        let text = sim.state(client).text();
        assert!(text.contains("close connection reset"), "{text}");
    }
}

#[test]
fn the_network_itself_resets_connections() {
    let mut sim = Sim::new(1);
    listen(&mut sim, "server", 7, Watch::echo());
    let client = connect(&mut sim, "client", "server:7", Watch::saying("hello"));
    sim.faults(Faults::none().with(Fault::Resets, 1.0));
    sim.run_for(SECOND).unwrap();
    assert!(sim.state(client).text().contains("close connection reset"));
}

#[test]
fn a_reset_may_discard_what_was_not_read() {
    let heard = |discards: f64| {
        let mut sim = Sim::new(1);
        let server = listen(&mut sim, "server", 7, Watch::default());
        let peer = sim.peer("peer").unwrap();
        sim.raw(peer).connect("server:7").unwrap();
        sim.run_for(SECOND).unwrap();
        sim.faults(Faults::none().with(Fault::DiscardingResets, discards));
        sim.pause("server", SECOND).unwrap();
        sim.raw(peer).send(b"last words");
        sim.at(ms(1_500), move |sim| sim.raw(peer).reset());
        sim.run_for(3 * SECOND).unwrap();
        sim.state(server).bytes.len()
    };
    assert_eq!(heard(0.0), 10);
    assert_eq!(heard(1.0), 0);
}

#[test]
fn an_end_leaves_the_other_direction_open() {
    let mut sim = Sim::new(1);
    let watch = Watch { answers_end: Some(b"an answer"), ..Watch::default() };
    let server = listen(&mut sim, "server", 7, watch);
    let watch = Watch { says: b"a question".to_vec(), half_closes: true, ..Watch::default() };
    let client = connect(&mut sim, "client", "server:7", watch);
    sim.settle(DAY).unwrap();
    assert_eq!(sim.state(server).bytes, b"a question");
    assert_eq!(sim.state(client).bytes, b"an answer");
    assert!(sim.state(client).text().ends_with("both sides ended"), "{}", sim.state(client).text());
}

#[test]
fn an_end_towards_a_peer_that_has_closed_in_order_is_no_reset() {
    let mut sim = Sim::new(1);
    let first = sim.peer("first").unwrap();
    let second = sim.peer("second").unwrap();
    sim.raw(first).listen("0.0.0.0:7").unwrap();
    sim.raw(second).connect("first:7").unwrap();
    sim.run_for(SECOND).unwrap();
    sim.raw(first).close();
    sim.run_for(SECOND).unwrap();
    assert!(sim.raw(second).has_ended());
    sim.raw(second).end();
    sim.settle(DAY).unwrap();
    assert_eq!(sim.raw(second).error(), None);
    // But bytes are: nobody will ever read them.
    let third = sim.peer("third").unwrap();
    sim.raw(third).connect("first:7").unwrap();
    sim.run_for(SECOND).unwrap();
    sim.raw(first).close();
    sim.run_for(SECOND).unwrap();
    sim.raw(third).send(b"too late");
    sim.settle(DAY).unwrap();
    sim.raw(third).send(b"again");
    assert!(sim.raw(third).error().is_some());
}

#[test]
fn closing_with_unread_input_resets() {
    let mut sim = Sim::new(1);
    let peer = sim.peer("peer").unwrap();
    sim.raw(peer).listen("0.0.0.0:7").unwrap();
    sim.raw(peer).deaf(true); // there is no connection yet
    let client = connect(&mut sim, "client", "peer:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    sim.raw(peer).deaf(true);
    let token = sim.state(client).token.unwrap();
    sim.with(client, |_, net| net.send(token, "nobody reads this"));
    sim.run_for(SECOND).unwrap();
    sim.raw(peer).close();
    sim.run_for(SECOND).unwrap();
    assert!(sim.state(client).text().contains("close connection reset"));
}

#[test]
fn a_peer_that_never_reads_fills_buffers_and_holds_the_sender_back() {
    let mut sim = Sim::new(1);
    let peer = sim.peer("peer").unwrap();
    sim.raw(peer).listen("0.0.0.0:7").unwrap();
    let small = SocketOptions::new().send_buffer(10_000);
    let options = patient().high_water(50_000).output_limit(1 << 20).socket_options(small);
    let says = Watch::saying(vec![7; 500_000]);
    let client = connect_with(&mut sim, "client", "peer:7", options, says);
    sim.run_until(SECOND, |sim| sim.state(client).when("open").is_some()).unwrap();
    sim.raw(peer).deaf(true);
    sim.run_for(60 * SECOND).unwrap();
    let token = sim.state(client).token.unwrap();
    let before = sim.with(client, |_, net| net.queued(token));
    assert!(before > 300_000, "{before} bytes wait, after window and buffer are full");
    assert_eq!(sim.state(client).count("drain"), 0);
    sim.raw(peer).deaf(false);
    sim.run_for(60 * SECOND).unwrap();
    assert_eq!(sim.raw(peer).received().len(), 500_000);
    assert_eq!(sim.state(client).count("drain"), 1);
}

#[test]
fn a_peer_that_never_reads_runs_into_the_stall_timeout() {
    let mut sim = Sim::new(1);
    let peer = sim.peer("peer").unwrap();
    sim.raw(peer).listen("0.0.0.0:7").unwrap();
    let options = patient().stall_timeout(5 * SECOND).output_limit(1 << 20);
    let says = Watch::saying(vec![7; 900_000]);
    let client = connect_with(&mut sim, "client", "peer:7", options, says);
    sim.run_until(SECOND, |sim| sim.state(client).when("open").is_some()).unwrap();
    sim.raw(peer).deaf(true);
    sim.run_for(60 * SECOND).unwrap();
    let text = sim.state(client).text();
    assert!(text.contains("timed out: the peer took no output"), "{text}");
}

#[test]
fn small_buffers_take_their_time_and_lose_nothing() {
    let mut sim = Sim::new(5);
    sim.faults(Faults::none().with(Fault::SmallBuffers, 1.0));
    let server = listen(&mut sim, "server", 7, Watch::echo());
    let client = connect(&mut sim, "client", "server:7", Watch::saying(vec![7; 20_000]));
    sim.run_for(600 * SECOND).unwrap();
    assert_eq!(sim.state(client).bytes.len(), 20_000);
    assert!(sim.state(server).pieces().into_iter().max().unwrap() <= 8192);
    assert!(sim.state(server).pieces().len() > 2);
}

#[test]
fn a_full_backlog_drops_syns_which_come_again() {
    let mut sim = Sim::new(1);
    let server = sim
        .host("server", |net| {
            net.listen(Listen::tcp("0.0.0.0:7").backlog(2), |_| Watch::default())?;
            Ok(Log::new(net))
        })
        .unwrap();
    sim.run_for(ms(10)).unwrap();
    sim.pause("server", 10 * SECOND).unwrap();
    let client = sim
        .host("client", |net| {
            for _ in 0..10 {
                net.connect(Connect::tcp("server:7").options(patient()), Watch::default())?;
            }
            Ok(Log::new(net))
        })
        .unwrap();
    sim.run_for(9 * SECOND).unwrap();
    // Linux' queue holds one more than it is told.
    assert_eq!(sim.state(client).count("open"), 3, "its system accepts while it is stopped");
    sim.run_for(60 * SECOND).unwrap();
    assert_eq!(sim.state(client).count("open"), 10);
    assert_eq!(sim.state(server).count("open"), 10);
}

#[cfg(unix)]
#[test]
fn unix_sockets_connect_within_a_host() {
    let mut sim = Sim::new(1);
    let host = sim
        .host("host", |net| {
            net.listen(Listen::unix("/run/echo"), |_| Watch::echo())?;
            net.connect(Connect::unix("/run/echo"), Watch::saying("hello"))?;
            net.connect(Connect::unix("/run/none"), Watch::default())?;
            Ok(Log::new(net))
        })
        .unwrap();
    let other = sim
        .host("other", |net| {
            net.connect(Connect::unix("/run/echo"), Watch::default())?;
            Ok(Log::new(net))
        })
        .unwrap();
    sim.run_for(SECOND).unwrap();
    assert_eq!(sim.state(host).bytes, b"hellohello", "once there, once back");
    assert_eq!(sim.state(host).count("close cannot connect"), 1);
    assert_eq!(sim.state(other).count("close cannot connect"), 1, "{}", sim.state(other).text());
}

#[test]
fn names_and_addresses_of_both_families() {
    let mut sim = Sim::new(1);
    let server = listen(&mut sim, "server", 7, Watch::default());
    sim.host("four", |net| net.listen("0.0.0.0:7", |_| Nothing).map(drop)).unwrap();
    for (number, (to, seen)) in [
        ("server:7", "[::ffff:10.0.0.3]"),
        ("10.0.0.1:7", "[::ffff:10.0.0.4]"),
        ("[fd00::1]:7", "[fd00::5]"),
        ("[::ffff:10.0.0.1]:7", "[::ffff:10.0.0.6]"),
        ("four:7", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let client = connect(&mut sim, &format!("client{number}"), to, Watch::default());
        let before = sim.state(server).lines.len();
        sim.run_for(SECOND).unwrap();
        assert_eq!(sim.state(client).count("open"), 1, "{to}: {}", sim.state(client).text());
        if !seen.is_empty() {
            let lines = &sim.state(server).lines[before..];
            // A server sees an IPv4 peer as such, whatever its socket is.
            let plain = seen.replace("[::ffff:", "").replace(']', "");
            let line = &lines[0].1;
            assert!(line.contains(seen) || line.contains(&plain), "{to}: {line}");
        }
    }
    // IPv4 only: the IPv6 address is refused, and the name finds the other.
    let client = connect(&mut sim, "client9", "[fd00::2]:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    assert!(sim.state(client).text().contains("refused"), "{}", sim.state(client).text());
    assert_eq!(sim.ip("server").unwrap().to_string(), "10.0.0.1");
    assert_eq!(sim.ip_v6("server").unwrap().to_string(), "fd00::1");
}

struct Nothing;

impl tidegate::Handler for Nothing {
    fn on_data(
        &mut self,
        _: &mut tidegate::Context<'_>,
        input: &mut tidegate::Input<'_>,
    ) -> tidegate::HandlerResult {
        input.take_all();
        Ok(())
    }
}

#[test]
fn localhost_is_the_host_itself() {
    let mut sim = Sim::new(1);
    listen(&mut sim, "other", 7, Watch::default());
    let host = listen(&mut sim, "host", 7, Watch::default());
    sim.with(host, |_, net| {
        for to in ["localhost:7", "127.0.0.1:7", "[::1]:7"] {
            net.connect(Connect::tcp(to).options(patient()), Watch::default()).unwrap();
        }
    });
    sim.run_for(SECOND).unwrap();
    assert_eq!(sim.state(host).count("open"), 6, "{}", sim.state(host).text());
    assert!(sim.state(host).text().contains("127.0.0.1:7"));
}

#[test]
fn addresses_in_use_and_of_others_are_refused() {
    let mut sim = Sim::new(1);
    let host = listen(&mut sim, "host", 7, Watch::default());
    idle(&mut sim, "other");
    sim.with(host, |_, net: &mut Net<Log>| {
        let mut bind = |on: &str| refusal(net.listen(on, |_| Watch::default()));
        assert!(bind("0.0.0.0:7").contains("address in use"), "{}", bind("0.0.0.0:7"));
        assert!(bind("127.0.0.1:7").contains("address in use"));
        assert!(bind("10.0.0.2:8").contains("address not available"), "{}", bind("10.0.0.2:8"));
        net.listen("10.0.0.1:8", |_| Watch::default()).unwrap();
        net.listen("127.0.0.1:8", |_| Watch::default()).unwrap();
        // A port is free again when its listener is gone.
        let token = net.listen("0.0.0.0:9", |_| Watch::default()).unwrap();
        net.close(token);
    });
    sim.run_for(SECOND).unwrap();
    sim.with(host, |_, net| net.listen("0.0.0.0:9", |_| Watch::default()).map(drop)).unwrap();
    // A local address that is not the host's, or cannot reach the peer.
    for (local, expected) in
        [("10.0.0.2:0", "address not available"), ("127.0.0.1:0", "invalid input parameter")]
    {
        let to = Connect::tcp("10.0.0.2:7").local_addr(local.parse().unwrap());
        sim.with(host, |_, net| net.connect(to, Watch::default()).map(drop)).unwrap();
        sim.run_for(SECOND).unwrap();
        let text = sim.state(host).text();
        assert!(text.contains(expected), "{local}: {text}");
    }
}

#[test]
fn local_addresses_and_ephemeral_ports() {
    let mut sim = Sim::new(1);
    let server = listen(&mut sim, "server", 7, Watch::default());
    let client = sim
        .host("client", |net| {
            for _ in 0..3 {
                net.connect(Connect::tcp("10.0.0.1:7").options(patient()), Watch::default())?;
            }
            let to = Connect::tcp("10.0.0.1:7").local_addr("10.0.0.2:4444".parse().unwrap());
            net.connect(to.options(patient()), Watch::default())?;
            Ok(Log::new(net))
        })
        .unwrap();
    sim.run_for(SECOND).unwrap();
    for port in [49_152, 49_153, 49_154, 4_444] {
        let line = format!("open Some(\"10.0.0.2:{port}\") from Some(\"10.0.0.1:7\")");
        assert_eq!(sim.state(client).count(&line), 1, "{}", sim.state(client).text());
        assert!(sim.state(server).text().contains(&format!("10.0.0.2:{port}")));
    }
    // The same four numbers a second time.
    let to = Connect::tcp("10.0.0.1:7").local_addr("10.0.0.2:4444".parse().unwrap());
    sim.with(client, |_, net| net.connect(to, Watch::default()).map(drop)).unwrap();
    sim.run_for(SECOND).unwrap();
    let text = sim.state(client).text();
    assert!(text.contains("address not available"), "{text}");
    // A listener without a port of its own.
    let server = sim.with(server, |_, net| {
        let token = net.listen("0.0.0.0:0", |_| Watch::default()).unwrap();
        net.local_addr(token).unwrap().to_string()
    });
    assert!(server.starts_with("0.0.0.0:49"), "{server}");
}

#[test]
fn edges_over_poll_come_back_after_would_block_only() {
    for seed in 0..10 {
        let mut sim = Sim::new(seed);
        sim.faults(Faults::none().with(Fault::PollLike, 1.0).with(Fault::SmallBuffers, 1.0));
        listen(&mut sim, "server", 7, Watch::echo());
        let options: StreamOptions = patient().high_water(100);
        let says = Watch::saying(vec![7; 5_000]);
        let client = connect_with(&mut sim, "client", "server:7", options, says);
        sim.run_for(600 * SECOND).unwrap();
        assert_eq!(sim.state(client).bytes.len(), 5_000);
    }
}

#[test]
fn what_a_server_says_first_comes_behind_the_answer_to_the_syn() {
    for seed in 0..30 {
        let mut sim = Sim::new(seed);
        sim.default_link(Link::new().latency(ms(1)..ms(50))).unwrap();
        let watch = Watch { says: vec![7; 400_000], half_closes: true, ..Watch::default() };
        let server = listen(&mut sim, "server", 7, watch);
        let client = connect(&mut sim, "client", "10.0.0.1:7", Watch::default());
        sim.settle(DAY).unwrap();
        // Every acknowledgement finds its way: the window goes on.
        assert_eq!(sim.state(client).bytes.len(), 400_000, "{seed}");
        assert!(sim.state(server).text().ends_with("both sides ended"), "{seed}");
    }
}

#[test]
fn a_link_can_change_while_it_is_used() {
    let mut sim = Sim::new(1);
    listen(&mut sim, "server", 7, Watch::echo());
    let client = connect(&mut sim, "client", "10.0.0.1:7", Watch::default());
    sim.run_for(SECOND).unwrap();
    let token = sim.state(client).token.unwrap();
    let round_trip = |sim: &mut Sim| {
        let (began, before) = (sim.now(), sim.state(client).bytes.len());
        sim.with(client, |_, net| net.send(token, "x"));
        sim.run_until(SECOND, |sim| sim.state(client).bytes.len() > before).unwrap();
        sim.now() - began
    };
    assert!(about(round_trip(&mut sim), ms(1)));
    // Nobody has described this way: the default is that of now.
    sim.default_link(Link::new().latency(ms(50)..ms(50))).unwrap();
    assert!(about(round_trip(&mut sim), ms(100)));
    sim.link_from("server", "client", Link::new().latency(ms(10)..ms(10))).unwrap();
    assert!(about(round_trip(&mut sim), ms(60)));
    // And this direction has a description, which stays.
    sim.default_link(Link::new().latency(ms(20)..ms(20))).unwrap();
    assert!(about(round_trip(&mut sim), ms(30)));
}
