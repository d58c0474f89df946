//! Datagrams.

use std::net::IpAddr;

use tidegate::sim::{Fault, Faults, Host, Link, Sim};
use tidegate::{Config, MulticastInterface, SocketOptions, Udp};

use crate::kit::{DAY, Log, SECOND, Watch, idle, ms};

/// A host with a socket on a port.
fn bind(sim: &mut Sim, name: &str, on: &'static str, watch: Watch) -> Host<Log> {
    bind_with(sim, name, move || Udp::bind(on), watch)
}

fn bind_with(
    sim: &mut Sim,
    name: &str,
    udp: impl Fn() -> Udp + 'static,
    watch: Watch,
) -> Host<Log> {
    sim.host(name, move |net| {
        let token = net.bind_udp(udp(), watch.clone())?;
        let mut log = Log::new(net);
        log.token = Some(token);
        Ok(log)
    })
    .unwrap()
}

/// Sends so many datagrams of one byte, each with its number.
fn send(sim: &mut Sim, from: Host<Log>, to: &str, count: u8) {
    let to = to.parse().unwrap();
    let token = sim.state(from).token.unwrap();
    sim.with(from, |_, net| {
        for number in 0..count {
            net.send_to(token, to, [number]);
        }
    });
}

#[test]
fn a_datagram_takes_the_latency_of_the_way() {
    let mut sim = Sim::new(1);
    sim.default_link(Link::new().latency(ms(20)..ms(20))).unwrap();
    let server = bind(&mut sim, "server", "0.0.0.0:53", Watch::echo());
    let client = bind(&mut sim, "client", "0.0.0.0:0", Watch::default());
    send(&mut sim, client, "10.0.0.1:53", 1);
    sim.settle(SECOND).unwrap();
    let (there, back) = (sim.state(server), sim.state(client));
    assert!(there.time_of("datagram 1 from 10.0.0.2:49152").as_millis() == 20, "{}", there.text());
    assert!(back.time_of("datagram 1 from 10.0.0.1:53").as_millis() == 40, "{}", back.text());
}

#[test]
fn a_lossy_way_loses_its_share() {
    let arrived = |link: Link, faults: Faults| {
        let mut sim = Sim::new(1);
        sim.faults(faults);
        sim.default_link(link).unwrap();
        let server = bind(&mut sim, "server", "0.0.0.0:53", Watch::default());
        let client = bind(&mut sim, "client", "0.0.0.0:0", Watch::default());
        send(&mut sim, client, "10.0.0.1:53", 200);
        sim.settle(SECOND).unwrap();
        sim.state(server).bytes.len()
    };
    let none = Faults::none;
    assert_eq!(arrived(Link::new(), none()), 200);
    assert_eq!(arrived(Link::new().loss(1.0), none()), 0);
    assert_eq!(arrived(Link::new(), none().with(Fault::Loss, 1.0)), 0);
    assert!((60..140).contains(&arrived(Link::new().loss(0.5), none())));
    assert_eq!(arrived(Link::new().duplicates(1.0), none()), 400);
    assert_eq!(arrived(Link::new(), none().with(Fault::Duplicates, 1.0)), 400);
}

#[test]
fn datagrams_overtake_each_other() {
    let order = |link: Link, faults: Faults| {
        let mut sim = Sim::new(1);
        sim.faults(faults);
        sim.default_link(link).unwrap();
        let server = bind(&mut sim, "server", "0.0.0.0:53", Watch::default());
        let client = bind(&mut sim, "client", "0.0.0.0:0", Watch::default());
        send(&mut sim, client, "10.0.0.1:53", 50);
        sim.settle(SECOND).unwrap();
        let mut bytes = sim.state(server).bytes.clone();
        let in_order = bytes.is_sorted();
        bytes.sort_unstable();
        assert!(bytes.iter().copied().eq(0..50));
        in_order
    };
    assert!(order(Link::new(), Faults::none()));
    assert!(!order(Link::new().latency(ms(1)..ms(50)), Faults::none()));
    assert!(!order(Link::new(), Faults::none().with(Fault::Jitter, 0.5)));
}

#[test]
fn a_datagram_above_the_size_of_the_buffer_is_cut() {
    let mut sim = Sim::new(1);
    sim.config(Config::new().datagram_size(10));
    let server = bind(&mut sim, "server", "0.0.0.0:53", Watch::default());
    let client = bind(&mut sim, "client", "0.0.0.0:0", Watch::default());
    let token = sim.state(client).token.unwrap();
    sim.with(client, |_, net| {
        net.send_to(token, "10.0.0.1:53".parse().unwrap(), [7; 10]);
        net.send_to(token, "10.0.0.1:53".parse().unwrap(), [7; 11]);
        net.send_to(token, "10.0.0.1:53".parse().unwrap(), []);
    });
    sim.settle(SECOND).unwrap();
    let log = sim.state(server);
    assert_eq!(log.count("datagram 10 from"), 1, "{}", log.text());
    assert_eq!(log.count("datagram 10 cut from"), 1, "{}", log.text());
    assert_eq!(log.count("datagram 0 from"), 1, "{}", log.text());
}

#[test]
fn a_connected_socket_learns_that_nobody_is_there() {
    let mut sim = Sim::new(1);
    idle(&mut sim, "server");
    let connected = || Udp::bind("0.0.0.0:0").connect("server:53");
    let knows = bind_with(&mut sim, "knows", connected, Watch::default());
    let does_not = bind(&mut sim, "does-not", "0.0.0.0:0", Watch::default());
    send(&mut sim, does_not, "10.0.0.1:53", 1);
    let token = sim.state(knows).token.unwrap();
    sim.with(knows, |_, net| net.send(token, "anybody?"));
    sim.settle(SECOND).unwrap();
    assert!(sim.state(knows).text().contains("error connection refused"));
    assert_eq!(sim.state(does_not).text(), "");
}

#[test]
fn icmp_errors_come_without_a_reason() {
    let mut sim = Sim::new(1);
    sim.faults(Faults::none().with(Fault::IcmpErrors, 1.0));
    let server = bind(&mut sim, "server", "0.0.0.0:53", Watch::default());
    let connected = || Udp::bind("0.0.0.0:0").connect("server:53");
    let client = bind_with(&mut sim, "client", connected, Watch::default());
    let token = sim.state(client).token.unwrap();
    sim.with(client, |_, net| net.send(token, "hello"));
    sim.settle(SECOND).unwrap();
    assert_eq!(sim.state(server).bytes, b"hello");
    assert!(sim.state(client).text().contains("error connection refused"));
}

#[test]
fn a_datagram_above_the_mtu_is_refused() {
    let mut sim = Sim::new(1);
    sim.default_link(Link::new().mtu(1500)).unwrap();
    let server = bind(&mut sim, "server", "0.0.0.0:53", Watch::default());
    let client = bind(&mut sim, "client", "0.0.0.0:0", Watch::default());
    let token = sim.state(client).token.unwrap();
    sim.with(client, |_, net| {
        net.send_to(token, "10.0.0.1:53".parse().unwrap(), [7; 1473]);
        net.send_to(token, "10.0.0.1:53".parse().unwrap(), [7; 1472]);
    });
    sim.settle(SECOND).unwrap();
    assert_eq!(sim.state(server).bytes.len(), 1472);
    let text = sim.state(client).text();
    assert!(text.contains("error sending to 10.0.0.1:53"), "{text}");
}

#[test]
fn multicast_reaches_those_that_have_joined() {
    let mut sim = Sim::new(1);
    let group: IpAddr = "239.1.2.3".parse().unwrap();
    let hosts: Vec<Host<Log>> = ["a", "b", "c"]
        .iter()
        .map(|name| bind(&mut sim, name, "0.0.0.0:5000", Watch::default()))
        .collect();
    let change = |sim: &mut Sim, host: Host<Log>, joins: bool| {
        let token = sim.state(host).token.unwrap();
        sim.with(host, |_, net| {
            if joins {
                net.join_multicast(token, group, MulticastInterface::Default)
            } else {
                net.leave_multicast(token, group, MulticastInterface::Default)
            }
        })
    };
    change(&mut sim, hosts[0], true).unwrap();
    change(&mut sim, hosts[1], true).unwrap();
    assert!(change(&mut sim, hosts[1], true).is_err(), "twice");
    send(&mut sim, hosts[0], "239.1.2.3:5000", 1);
    sim.settle(SECOND).unwrap();
    let counts = |sim: &Sim| -> Vec<usize> {
        hosts.iter().map(|&host| sim.state(host).count("datagram 1 from 10.0.0.1:5000")).collect()
    };
    assert_eq!(counts(&sim), [1, 1, 0], "its own, too (IP_MULTICAST_LOOP)");
    change(&mut sim, hosts[1], false).unwrap();
    assert!(change(&mut sim, hosts[1], false).is_err(), "twice");
    send(&mut sim, hosts[0], "239.1.2.3:5000", 1);
    sim.settle(SECOND).unwrap();
    assert_eq!(counts(&sim), [2, 1, 0]);
}

#[test]
fn broadcast_needs_its_option_and_reaches_everybody() {
    let mut sim = Sim::new(1);
    let others: Vec<Host<Log>> = ["a", "b"]
        .iter()
        .map(|name| bind(&mut sim, name, "0.0.0.0:5000", Watch::default()))
        .collect();
    let not = bind(&mut sim, "not", "0.0.0.0:0", Watch::default());
    let may = || Udp::bind("0.0.0.0:0").socket_options(SocketOptions::new().broadcast(true));
    let may = bind_with(&mut sim, "may", may, Watch::default());
    send(&mut sim, not, "255.255.255.255:5000", 1);
    sim.settle(SECOND).unwrap();
    assert!(sim.state(not).text().contains("permission denied"), "{}", sim.state(not).text());
    send(&mut sim, may, "255.255.255.255:5000", 1);
    sim.settle(SECOND).unwrap();
    assert!(others.iter().all(|&host| sim.state(host).text() == "datagram 1 from 10.0.0.4:49152"));
}

#[test]
fn a_socket_waits_for_a_slow_way_and_then_drains() {
    let mut sim = Sim::new(1);
    sim.default_link(Link::new().bytes_per_second(10_000)).unwrap();
    let server = bind(&mut sim, "server", "0.0.0.0:53", Watch::default());
    let small = || {
        Udp::bind("0.0.0.0:0")
            .socket_options(SocketOptions::new().send_buffer(2_000))
            .queue_limit(1_000_000)
    };
    let client = bind_with(&mut sim, "client", small, Watch::default());
    let token = sim.state(client).token.unwrap();
    sim.with(client, |_, net| {
        for _ in 0..50 {
            net.send_to(token, "10.0.0.1:53".parse().unwrap(), [7; 1000]);
        }
    });
    sim.run_for(SECOND).unwrap();
    let queued = sim.with(client, |_, net| net.queued(token));
    assert!(queued > 30_000, "{queued}");
    sim.settle(DAY).unwrap();
    assert_eq!(sim.state(server).bytes.len(), 50_000);
    assert!(sim.state(server).lines.last().unwrap().0 > 5 * SECOND);
    assert_eq!(sim.state(client).count("drain"), 1, "{}", sim.state(client).text());
}

#[test]
fn a_full_receive_buffer_drops_what_comes() {
    let mut sim = Sim::new(1);
    let small =
        || Udp::bind("0.0.0.0:53").socket_options(SocketOptions::new().receive_buffer(5_000));
    let server = bind_with(&mut sim, "server", small, Watch::default());
    let client = bind(&mut sim, "client", "0.0.0.0:0", Watch::default());
    sim.run_for(SECOND).unwrap();
    sim.pause("server", SECOND).unwrap();
    let token = sim.state(client).token.unwrap();
    sim.with(client, |_, net| {
        for _ in 0..20 {
            net.send_to(token, "10.0.0.1:53".parse().unwrap(), [7; 1000]);
        }
    });
    sim.settle(DAY).unwrap();
    assert_eq!(sim.state(server).bytes.len(), 3_000);
}

#[test]
fn addresses_of_sockets_that_cannot_be() {
    let mut sim = Sim::new(1);
    let host = bind(&mut sim, "host", "0.0.0.0:53", Watch::default());
    bind(&mut sim, "other", "0.0.0.0:53", Watch::default());
    sim.with(host, |_, net| {
        let mut refused = |on: &str| net.bind_udp(on, Watch::default()).unwrap_err().to_string();
        assert!(refused("127.0.0.1:53").contains("address in use"));
        assert!(refused("10.0.0.2:54").contains("address not available"));
        net.bind_udp("127.0.0.1:54", Watch::default()).unwrap();
    });
    // From the loopback interface to another host.
    let token = sim.with(host, |_, net| net.bind_udp("127.0.0.1:0", Watch::default()).unwrap());
    sim.with(host, |_, net| net.send_to(token, "10.0.0.2:53".parse().unwrap(), "x"));
    sim.settle(SECOND).unwrap();
    assert!(sim.state(host).text().contains("invalid input"), "{}", sim.state(host).text());
}

#[test]
fn a_machine_that_is_off_swallows_datagrams() {
    let mut sim = Sim::new(1);
    bind(&mut sim, "server", "0.0.0.0:53", Watch::default());
    let connected = || Udp::bind("0.0.0.0:0").connect("10.0.0.1:53");
    let client = bind_with(&mut sim, "client", connected, Watch::default());
    sim.power_off("server").unwrap();
    let token = sim.state(client).token.unwrap();
    sim.with(client, |_, net| net.send(token, "hello"));
    sim.settle(SECOND).unwrap();
    assert_eq!(sim.state(client).text(), "");
    // The machine is there again and nobody listens.
    sim.restart("server").unwrap();
    sim.crash("server").unwrap();
    sim.with(client, |_, net| net.send(token, "hello"));
    sim.settle(SECOND).unwrap();
    assert!(sim.state(client).text().contains("connection refused"));
}

#[cfg(feature = "packet-info")]
#[test]
fn packet_information_is_that_of_the_network() {
    use std::time::UNIX_EPOCH;

    use tidegate::{Context, Datagram, DatagramHandler, Ecn, HandlerResult, PacketInfo, SendTo};

    /// Answers from the address that was asked, and keeps what it is told.
    struct Answers;

    impl DatagramHandler<Vec<PacketInfo>> for Answers {
        fn on_datagram(
            &mut self,
            cx: &mut Context<'_, Vec<PacketInfo>>,
            datagram: Datagram<'_>,
        ) -> HandlerResult {
            cx.state.push(*datagram.info.expect("the socket asks for it"));
            cx.send_datagram(SendTo::reply(&datagram).ecn(Ecn::Ce), "answer");
            Ok(())
        }
    }

    /// Asks at one address after the other, and hears that one alone.
    struct Asks;

    impl DatagramHandler<Vec<PacketInfo>> for Asks {
        fn on_open(&mut self, cx: &mut Context<'_, Vec<PacketInfo>>) -> HandlerResult {
            cx.send_datagram(SendTo::connected_peer().ecn(Ecn::Ect0), "question");
            Ok(())
        }

        fn on_datagram(
            &mut self,
            cx: &mut Context<'_, Vec<PacketInfo>>,
            datagram: Datagram<'_>,
        ) -> HandlerResult {
            cx.state.push(*datagram.info.expect("the socket asks for it"));
            Ok(())
        }
    }

    let mut sim = Sim::new(1);
    let options = SocketOptions::new().only_v6(false);
    let server = sim
        .host("server", move |net| {
            let udp = Udp::bind("[::]:53").socket_options(options.clone()).packet_info(true);
            net.bind_udp(udp, Answers)?;
            Ok(Vec::new())
        })
        .unwrap();
    let client = sim
        .host("client", |net| {
            for (from, to) in [("0.0.0.0:0", "10.0.0.1:53"), ("[::]:0", "[fd00::1]:53")] {
                net.bind_udp(Udp::bind(from).connect(to).packet_info(true), Asks)?;
            }
            Ok(Vec::new())
        })
        .unwrap();
    sim.settle(SECOND).unwrap();
    let asked: Vec<IpAddr> =
        sim.state(server).iter().map(|info| info.local.unwrap().to_canonical()).collect();
    assert_eq!(asked, ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    assert!(sim.state(server).iter().all(|info| info.ecn == Some(Ecn::Ect0)));
    let answers = sim.state(client);
    assert_eq!(answers.len(), 2, "each answer comes from the address that was asked");
    assert!(answers.iter().all(|info| info.ecn == Some(Ecn::Ce)));
    assert!(answers.iter().all(|info| info.received.is_some_and(|at| at > UNIX_EPOCH)));
}
