//! What no simulation can do: the error says what was expected.

use std::time::Duration;

use tidegate::sim::{Fault, Faults, Link, Sim};

use crate::kit::{SECOND, Watch, idle, listen, ms, refusal};

#[test]
fn hosts_that_do_not_exist() {
    let mut sim = Sim::new(1);
    idle(&mut sim, "server");
    idle(&mut sim, "client");
    let known = "no host is called \"sever\": expected one of server, client";
    assert_eq!(refusal(sim.link("sever", "client", Link::new())), known);
    assert_eq!(refusal(sim.partition(&["sever"], &["client"])), known);
    assert_eq!(refusal(sim.heal(&["client"], &["sever"])), known);
    assert_eq!(refusal(sim.crash("sever")), known);
    assert_eq!(refusal(sim.power_off("sever")), known);
    assert_eq!(refusal(sim.restart("sever")), known);
    assert_eq!(refusal(sim.pause("sever", SECOND)), known);
    assert_eq!(refusal(sim.set_clock_back("sever", SECOND)), known);
    assert_eq!(refusal(sim.ip("sever")), known);
}

#[test]
fn names_that_cannot_be() {
    let mut sim = Sim::new(1);
    idle(&mut sim, "server");
    let twice = sim.peer("server");
    assert!(refusal(twice).contains("expected a name that no other host has"));
    for name in ["", "a b", "a:1", "localhost", "räuber"] {
        let text = refusal(sim.peer(name));
        assert!(text.contains("expected a name of letters, digits"), "{text}");
    }
}

#[test]
fn names_that_would_be_addresses() {
    let mut sim = Sim::new(1);
    let text = refusal(sim.peer("10.0.0.7"));
    assert!(text.contains("expected a name, got an address"), "{text}");
}

#[test]
fn links_that_cannot_be() {
    let mut sim = Sim::new(1);
    idle(&mut sim, "a");
    idle(&mut sim, "b");
    let mut expect = |link: Link, expected: &str| {
        let text = refusal(sim.link("a", "b", link.clone()));
        assert!(
            text.starts_with("cannot link a to b: expected ") && text.contains(expected),
            "{text}"
        );
        assert!(refusal(sim.default_link(link)).contains(expected));
    };
    expect(Link::new().bytes_per_second(0), "bandwidth above zero");
    expect(Link::new().loss(2.0), "probability between 0 and 1");
    expect(Link::new().loss(f64::NAN), "probability between 0 and 1");
    expect(Link::new().duplicates(-0.1), "probability between 0 and 1");
    expect(Link::new().mtu(27), "MTU above 28");
    expect(Link::new().mtu(28), "MTU above 28");
    expect(Link::new().latency(ms(2)..ms(1)), "begins before it ends");
    assert!(refusal(sim.link("a", "a", Link::new())).contains("expected two hosts"));
    assert!(refusal(sim.partition(&["a", "b"], &["b"])).contains("without a host in common"));
}

#[test]
#[should_panic(expected = "resets: expected a probability between 0 and 1, got 2")]
fn a_fault_that_is_more_than_certain() {
    let _ = Faults::none().with(Fault::Resets, 2.0);
}

#[test]
fn restarting_what_runs() {
    let mut sim = Sim::new(1);
    idle(&mut sim, "a");
    sim.peer("raw").unwrap();
    let text = refusal(sim.restart("a"));
    assert_eq!(text, "cannot restart a: expected a host that does not run");
    assert!(refusal(sim.restart("raw")).contains("expected a host"));
    assert!(refusal(sim.crash("raw")).contains("expected a host with a reactor"));
    assert!(refusal(sim.power_off("raw")).contains("expected a host with a reactor"));
    assert!(
        refusal(sim.pause("raw", SECOND)).starts_with("cannot pause raw: expected a host with")
    );
    assert!(refusal(sim.descriptor_limit("raw", 1)).contains("expected a host with a reactor"));
}

#[test]
fn crashing_twice_is_crashing_once() {
    let mut sim = Sim::new(1);
    listen(&mut sim, "a", 7, Watch::default());
    sim.crash("a").unwrap();
    sim.crash("a").unwrap();
    sim.power_off("a").unwrap();
    sim.power_off("a").unwrap();
    sim.restart("a").unwrap();
    sim.run_for(SECOND).unwrap();
}

#[test]
#[should_panic(expected = "expected a host of this simulation")]
fn a_host_of_another_simulation() {
    let mut other = Sim::new(1);
    let host = idle(&mut other, "a");
    let mut sim = Sim::new(1);
    idle(&mut sim, "a");
    let _ = sim.state(host);
}

#[test]
#[should_panic(expected = "but a is down")]
fn the_state_of_a_host_that_is_down() {
    let mut sim = Sim::new(1);
    let host = idle(&mut sim, "a");
    sim.crash("a").unwrap();
    let _ = sim.state(host);
}

#[test]
fn raw_peers_get_errors_for_what_they_cannot_do() {
    let mut sim = Sim::new(1);
    let peer = sim.peer("peer").unwrap();
    assert!(refusal(sim.raw(peer).connect("nobody:7")).contains("no host"));
    assert!(refusal(sim.raw(peer).connect("server")).contains("expected name:port"));
    sim.raw(peer).listen("0.0.0.0:7").unwrap();
    assert!(refusal(sim.raw(peer).listen("0.0.0.0:7")).contains("address in use"));
    // Without a connection there is nothing to end, and no error.
    sim.raw(peer).send(b"x");
    sim.raw(peer).end();
    sim.raw(peer).reset();
    sim.raw(peer).close();
    assert_eq!(sim.raw(peer).received(), b"");
    sim.raw(peer).connect("10.0.0.1:9").unwrap();
    sim.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(sim.raw(peer).error(), Some(std::io::ErrorKind::ConnectionRefused));
}

#[cfg(feature = "tcp-info")]
#[test]
fn what_a_simulated_network_cannot_tell() {
    let mut sim = Sim::new(1);
    idle(&mut sim, "server");
    let client = sim.host("client", |net| net.connect("server:7", tidegate::Relayed)).unwrap();
    let text = refusal(sim.with(client, |&mut token, net| net.tcp_info(token)));
    assert!(text.ends_with("has no TCP_INFO; expected a reactor of the system"), "{text}");
}
