//! Sessions in simulated networks: forged addresses, queues that are full, a game's worth of snapshots.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::context::Context;
use crate::cookies::Cookies;
use crate::core::Entity;
use crate::datagram::Udp;
use crate::error::HandlerResult;
use crate::handler::{Datagram, DatagramHandler};
use crate::net::Net;
use crate::session::{Admission, Hello, SessionOptions};
use crate::sim::{Host, Link, Sim};
use crate::token::Token;
use crate::{SendStatus, SocketOptions};

const HELLO: [u8; 20] = [b'h'; 20];

/// What a host counts.
#[derive(Default)]
struct Counts {
    socket: Option<Token>,
    came: u64,
    bytes: u64,
    refused: u64,
    drains: u64,
    /// In which turn each was.
    drained_in: Vec<u64>,
    cookie: Vec<u8>,
}

struct Count;

impl DatagramHandler<Counts> for Count {
    fn on_datagram(&mut self, cx: &mut Context<'_, Counts>, input: Datagram<'_>) -> HandlerResult {
        cx.state.came += 1;
        cx.state.bytes += input.bytes.len() as u64;
        cx.state.cookie = input.bytes.to_vec();
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Counts>) -> HandlerResult {
        cx.state.drains += 1;
        cx.state.drained_in.push(cx.net.stats().turns);
        Ok(())
    }
}

fn client(net: &mut Net<Counts>) -> Result<Token, crate::Error> {
    net.bind_udp(Udp::bind("0.0.0.0:0").connect("server:53"), Count)
}

// row 190
#[test]
fn ten_thousand_forged_hellos_keep_nothing_and_gain_nothing() {
    let mut sim = Sim::new(1);
    let server = sim
        .host("server", |net| {
            let cookies = Cookies::new(net);
            let admit = move |hello: &Hello<'_>| {
                if cookies.is_valid(hello.from, hello.now, hello.bytes) {
                    Admission::accept(Count).skip(Cookies::LEN)
                } else {
                    Admission::reply(cookies.make(hello.from, hello.now))
                }
            };
            let socket = net.bind_sessions("0.0.0.0:53", SessionOptions::new(), admit)?;
            Ok(Counts { socket: Some(socket), ..Counts::default() })
        })
        .unwrap();
    sim.host("victim", |_| Ok(())).unwrap();
    let to = SocketAddr::new(sim.ip("server").unwrap(), 53);
    let victim = sim.ip("victim").unwrap();
    // The thief gets a cookie of its own.
    let thief = sim
        .host("thief", |net| {
            let socket = Some(client(net)?);
            Ok(Counts { socket, ..Counts::default() })
        })
        .unwrap();
    let say = |sim: &mut Sim, bytes: &[u8]| {
        sim.with(thief, |counts, net| net.send(counts.socket.unwrap(), bytes));
        sim.run_for(Duration::from_millis(200)).unwrap();
    };
    say(&mut sim, &HELLO);
    let cookie = sim.state(thief).cookie.clone();
    assert_eq!(cookie.len(), Cookies::LEN);

    let eve = sim.peer("eve").unwrap();
    let entities = sim.with(server, |_, net| net.core.tokens().len());
    for n in 0..10_000_u32 {
        // Every one from another address; half of them with the thief's cookie, some the thief's own
        // address with another port.
        let ip = match n % 3 {
            0 => victim,
            1 => sim.ip("thief").unwrap(),
            _ => IpAddr::from((0xc633_0000 + n).to_be_bytes()),
        };
        let from = SocketAddr::new(ip, 1_000 + (n % 20_000) as u16);
        let bytes = if n % 2 == 0 { &HELLO[..] } else { &cookie };
        sim.raw(eve).send_datagram(from, to, bytes).unwrap();
        if n % 50 == 0 {
            sim.run_for(Duration::from_millis(5)).unwrap();
        }
    }
    sim.run_for(Duration::from_secs(1)).unwrap();
    sim.with(server, |counts, net| {
        let socket = counts.socket.unwrap();
        let stats = net.session_stats(socket).unwrap();
        assert_eq!((stats.open, stats.accepted, stats.refused), (0, 0, 0));
        assert!(stats.replied > 9_000, "{stats:?}");
        assert_eq!(net.core.tokens().len(), entities, "nothing is kept");
        assert_eq!(net.queued(socket), 0);
        let Some(Entity::SessionSocket(owner)) = net.core.entity(socket) else { panic!() };
        assert!(owner.socket.errors.len() <= 64);
    });
    // Who returns its own cookie gets in.
    let mut question = cookie;
    question.extend(b"question");
    say(&mut sim, &question);
    assert_eq!((sim.state(server).came, sim.state(server).bytes), (1, 8));
}

/// A server that accepts everybody, whose way to its clients takes `rate` bytes a second.
fn crowd(seed: u64, clients: usize, rate: Option<u64>) -> (Sim, Host<Counts>, Host<Counts>) {
    let mut sim = Sim::new(seed);
    let server = sim
        .host("server", move |net| {
            let options = SessionOptions::new().max_per_address(clients);
            let small = SocketOptions::new().send_buffer(1_000);
            let udp =
                Udp::bind("0.0.0.0:53").queue_limit(if rate.is_some() { 1_000 } else { 256 << 10 });
            let udp = if rate.is_some() { udp.socket_options(small) } else { udp };
            let socket = net.bind_sessions(udp, options, |_| Admission::accept(Count))?;
            Ok(Counts { socket: Some(socket), ..Counts::default() })
        })
        .unwrap();
    let all = sim
        .host("clients", move |net| {
            for _ in 0..clients {
                let socket = client(net)?;
                net.send(socket, HELLO);
            }
            Ok(Counts::default())
        })
        .unwrap();
    sim.run_for(Duration::from_secs(1)).unwrap();
    if let Some(rate) = rate {
        sim.default_link(Link::new().bytes_per_second(rate)).unwrap();
    }
    assert_eq!(sim.state(server).came, clients as u64);
    (sim, server, all)
}

// row 195
#[test]
fn who_was_refused_is_told_when_the_queue_is_empty() {
    let (mut sim, server, _) = crowd(2, 3, Some(10_000));
    sim.with(server, |counts, net| {
        let sessions = net.sessions(counts.socket.unwrap()).to_vec();
        // The system takes some, the queue some, and then nobody does.
        while net.send(sessions[0], [7; 100]) == SendStatus::Queued {}
        for session in [sessions[0], sessions[1], sessions[1]] {
            assert_eq!(net.send(session, [7; 100]), SendStatus::Full);
            counts.refused += 1;
        }
        assert_eq!(net.send(sessions[2], [7; 2_000]), SendStatus::Full, "more than it ever holds");
        assert_eq!(counts.drains, 0);
    });
    sim.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(sim.state(server).drains, 3, "once for each that was refused");
    // What is dropped makes room, which is told as well.
    sim.with(server, |counts, net| {
        let sessions = net.sessions(counts.socket.unwrap()).to_vec();
        while net.send(sessions[1], [7; 100]) == SendStatus::Queued {}
        assert!(net.clear_queue(sessions[1]) > 0);
        assert_eq!(net.queued(sessions[1]), 0);
    });
    sim.run_for(Duration::from_millis(10)).unwrap();
    assert_eq!(sim.state(server).drains, 4);
    sim.run_for(Duration::from_secs(1)).unwrap();
}

// row 216
#[test]
fn a_deadline_comes_between_the_drains_of_two_sessions() {
    let (mut sim, server, _) = crowd(5, 4, Some(10_000));
    sim.keep_deadlines(server, Duration::ZERO);
    sim.with(server, |counts, net| {
        let sessions = net.sessions(counts.socket.unwrap()).to_vec();
        while net.send(sessions[0], [7; 100]) == SendStatus::Queued {}
        for &session in &sessions {
            assert_eq!(net.send(session, [7; 100]), SendStatus::Full);
        }
    });
    sim.run_for(Duration::from_secs(1)).unwrap();
    let turns = &sim.state(server).drained_in;
    assert_eq!(turns.len(), 4, "each is told once");
    assert!(turns.windows(2).all(|two| two[0] < two[1]), "one in a turn: {turns:?}");
}

// row 193: 60 snapshots of 1.2 KB a second for 200 players, for five seconds
#[test]
fn no_snapshot_of_a_game_is_lost() {
    const TICK: Duration = Duration::from_micros(16_667);
    fn tick(counts: &mut Counts, net: &mut Net<Counts>, left: u32) {
        for session in net.sessions(counts.socket.unwrap()).to_vec() {
            let sent = net.send(session, [1; 1_200]);
            counts.refused += u64::from(sent != SendStatus::Queued);
        }
        if left > 1 {
            net.run_after(TICK, move |counts, net| tick(counts, net, left - 1));
        }
    }
    let (mut sim, server, clients) = crowd(3, 200, None);
    sim.with(server, |counts, net| tick(counts, net, 300));
    sim.run_for(Duration::from_secs(6)).unwrap();
    assert_eq!((sim.state(server).refused, sim.state(clients).came), (0, 60_000));
    let stats = sim.with(server, |counts, net| net.session_stats(counts.socket.unwrap()).unwrap());
    assert_eq!((stats.open, stats.errors), (200, 0));
}

// row 185
#[test]
fn sessions_that_end_in_any_order_leave_the_others_in_their_places() {
    let (mut sim, server, _) = crowd(4, 100, None);
    let socket = sim.state(server).socket.unwrap();
    let mut live = sim.with(server, |_, net| net.sessions(socket).to_vec());
    let mut at = 0;
    while !live.is_empty() {
        at = (at + 37) % live.len();
        let ends = live.swap_remove(at);
        sim.with(server, |_, net| net.close(ends));
        sim.run_for(Duration::from_millis(1)).unwrap();
        let mut left = sim.with(server, |_, net| {
            let peer = |token| net.peer_addr(token).unwrap().socket_addr().unwrap();
            for &token in net.sessions(socket) {
                assert_eq!(net.session_of(socket, peer(token)), Some(token));
            }
            net.sessions(socket).to_vec()
        });
        left.sort();
        let mut expected = live.clone();
        expected.sort();
        assert_eq!(left, expected);
    }
}
