//! UDP in bursts. What waits together moves together, many datagrams a call, where the `udp-batch`
//! feature is on; without it one after the other. Each is told, sent and blamed by itself either way.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::rc::Rc;

use socket2::SockRef;
use tidegate::{
    Config, Context, Datagram, DatagramHandler, HandlerResult, Reactor, SendStatus, Udp,
};

use crate::support::datagrams::{Heard, Rig, address, datagram, received, rig, rig_that, socket};
use crate::support::sockets::assert_sleeps;
use crate::support::{PATIENCE, address_of, settle, until};

/// The loopback addresses that this system has.
fn loopbacks() -> Vec<&'static str> {
    let mut all = vec!["127.0.0.1:0", "[::1]:0"];
    all.retain(|at| UdpSocket::bind(at).is_ok());
    all
}

/// A blocking socket whose receives give up rather than hang, with all the room it may have.
fn peer(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    SockRef::from(&socket).set_recv_buffer_size(1 << 20).unwrap();
    socket
}

/// Datagrams of these lengths, no two alike but for the empty ones.
fn row(lengths: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    lengths.into_iter().enumerate().map(|(number, len)| vec![number as u8 + 1; len]).collect()
}

/// Lengths that begin and end trains in every way there is: more than one train holds, a shorter
/// last one, an empty one between, a longer one, two of one length before one of another.
fn lengths() -> Vec<usize> {
    let mut lengths = vec![10; 150];
    lengths.extend([7, 0, 10, 10, 10, 11, 10, 10, 4, 4, 4, 0, 0, 4, 1]);
    lengths
}

struct Echo;

impl DatagramHandler for Echo {
    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        assert_eq!(cx.send_to(datagram.from, datagram.bytes), SendStatus::Queued);
        Ok(())
    }
}

// row 72
#[test]
fn a_burst_of_many_peers_is_answered_each_to_its_own() {
    let mut reactor = Reactor::new().unwrap();
    let mut peers = Vec::new();
    for at in loopbacks() {
        // Sockets of both families take turns in one reactor.
        let socket = reactor.net().bind_udp(at, Echo).unwrap();
        let to = address_of(&mut reactor, socket);
        peers.extend((0..5).map(|_| (peer(at), to)));
    }
    let of = |peer: usize, number: usize| {
        let len = if number.is_multiple_of(3) { 20 } else { (peer + 1) * number };
        vec![(peer * 40 + number) as u8; len]
    };
    for number in 0..40 {
        for (index, (peer, to)) in peers.iter().enumerate() {
            peer.send_to(&of(index, number), to).unwrap();
        }
    }
    settle(&mut reactor);
    for (index, (peer, to)) in peers.iter().enumerate() {
        peer.connect(to).unwrap(); // what comes from elsewhere does not count
        for number in 0..40 {
            assert_eq!(received(peer), of(index, number), "peer {index}");
        }
    }
    assert_sleeps(&mut reactor);
}

// row 72
#[test]
fn a_row_of_datagrams_arrives_as_it_was_sent() {
    for at in loopbacks() {
        for connected in [true, false] {
            let peer = peer(at);
            let to = address(&peer);
            let udp = Udp::bind(at);
            let mut rig = rig(if connected { udp.connect(to) } else { udp });
            for row in [row(lengths()), row([30_000, 30_000, 30_000, 65_507, 1])] {
                for bytes in &row {
                    assert_eq!(rig.send_to(to, bytes), SendStatus::Queued);
                }
                settle(&mut rig.reactor);
                for bytes in &row {
                    assert!(received(&peer) == *bytes, "{} bytes", bytes.len());
                }
            }
            assert_eq!(rig.heard(), [Heard::Open]);
            assert_eq!(rig.reactor.net().queued(rig.token), 0);
        }
    }
}

// row 72
#[test]
fn an_error_of_one_datagram_in_a_burst_is_told_with_its_address_and_the_others_leave() {
    let peer = socket();
    let to = address(&peer);
    let nowhere = SocketAddr::new(to.ip(), 0);
    let forbidden = SocketAddr::new(Ipv4Addr::new(127, 255, 255, 255).into(), to.port());
    let mut rig = rig("127.0.0.1:0");
    let too_long = vec![0; 65_508];
    let burst: &[(SocketAddr, &[u8])] = &[
        (to, b"one"),
        (to, b"two"),
        (nowhere, b"six"),
        (nowhere, b"ten"),
        (nowhere, b"x"),
        (to, b"and three"),
        (to, &too_long),
        (forbidden, b"all"),
        (forbidden, b"all"),
        (to, b"4"),
        (to, b"5"),
    ];
    for (to, bytes) in burst {
        assert_eq!(rig.send_to(*to, bytes), SendStatus::Queued);
    }
    let heard = Rc::clone(&rig.heard);
    until(&mut rig.reactor, "the errors", |_| heard.borrow().len() == 7);
    for bytes in [&b"one"[..], b"two", b"and three", b"4", b"5"] {
        assert_eq!(received(&peer), bytes);
    }
    assert_sleeps(&mut rig.reactor);
    let blamed = rig.heard().into_iter().skip(1).map(|heard| match heard {
        Heard::Error(_, at) => at,
        other => panic!("{other:?}"),
    });
    let blamed: Vec<_> = blamed.flatten().collect();
    assert_eq!(blamed, [nowhere, nowhere, nowhere, to, forbidden, forbidden]);
}

// row 72
#[test]
fn a_close_in_the_middle_of_a_burst_ends_it_there() {
    let mut rig = rig_that("127.0.0.1:0", Config::default(), |cx, heard| {
        if *heard == datagram(b"2") {
            cx.close();
        }
    });
    let peer = socket();
    for bytes in [b"1", b"2", b"3", b"4"] {
        peer.send_to(bytes, rig.address()).unwrap();
    }
    let closed = Heard::Close("closed".to_owned());
    rig.expect(&[Heard::Open, datagram(b"1"), datagram(b"2"), closed]);
}

// row 72
#[test]
fn a_budget_holds_in_a_burst() {
    let config = Config::new().datagrams_per_turn(3);
    let mut rig = rig_that("127.0.0.1:0", config, |_, _| {});
    settle(&mut rig.reactor);
    let peer = socket();
    for number in 0..20 {
        peer.send_to(&[number], rig.address()).unwrap();
    }
    let heard = Rc::clone(&rig.heard);
    let mut before = heard.borrow().len();
    until(&mut rig.reactor, "all", |_| {
        let now = heard.borrow().len();
        assert!(now <= before + 3, "more than the budget");
        before = now;
        now == 21
    });
}

// row 72
#[test]
fn a_budget_holds_for_what_waits_to_be_sent() {
    const BUDGET: usize = 4;
    let config = Config::new().datagram_sends_per_turn(BUDGET);
    let mut rig = rig_that("127.0.0.1:0", config, |_, _| {});
    settle(&mut rig.reactor);
    let peer = socket();
    // Some of them come while others wait.
    let mut numbers = 0..120;
    let mut send = |rig: &mut Rig, count| {
        for number in numbers.by_ref().take(count) {
            rig.reactor.net().send_to(rig.token, address(&peer), [number]);
        }
        rig.reactor.net().queued(rig.token)
    };
    let mut waiting = send(&mut rig, 100);
    while waiting > 0 {
        assert_eq!(rig.reactor.turn(Some(PATIENCE)).unwrap(), ControlFlow::Continue(()));
        let left = rig.reactor.net().queued(rig.token);
        // Before its callbacks and behind them, and at the end of the turn.
        assert!(left < waiting && waiting - left <= 3 * BUDGET, "{waiting} waited, then {left}");
        waiting = send(&mut rig, 1);
    }
    for number in 0..120 {
        assert_eq!(received(&peer), [number]);
    }
}

// row 72
#[test]
fn what_arrives_while_a_burst_is_told_is_received_too() {
    let peer = socket();
    let target = Rc::new(RefCell::new(None));
    let to = Rc::clone(&target);
    let ours = peer.try_clone().unwrap();
    let mut rig = rig_that("127.0.0.1:0", Config::default(), move |_, heard| {
        if let (Heard::Datagram(bytes), Some(to)) = (heard, *to.borrow())
            && bytes[0] < 200
        {
            ours.send_to(&[bytes[0] + 1], to).unwrap();
        }
    });
    *target.borrow_mut() = Some(rig.address());
    peer.send_to(&[1], rig.address()).unwrap();
    rig.until_heard(&datagram(&[200]));
    assert_eq!(rig.heard().len(), 201);
    assert_sleeps(&mut rig.reactor);
}

/// Trains that are received as such. Two reactors: what one sends as a train, the other gets as one.
#[cfg(all(feature = "udp-batch", any(target_os = "linux", target_os = "android")))]
mod trains {
    use crate::support::datagrams::{Rig, nobody, refused};
    use socket2::{Domain, Protocol, Socket, Type};
    use tidegate::SocketOptions;

    use super::*;

    fn trains(at: &str) -> Udp {
        let options = SocketOptions::new().receive_buffer(1 << 20);
        Udp::bind(at).socket_options(options).receive_trains(true)
    }

    fn send(from: &mut Rig, to: SocketAddr, row: &[Vec<u8>]) {
        for bytes in row {
            assert_eq!(from.send_to(to, bytes), SendStatus::Queued);
        }
        settle(&mut from.reactor);
    }

    fn heard(row: Vec<Vec<u8>>) -> Vec<Heard> {
        std::iter::once(Heard::Open).chain(row.into_iter().map(Heard::Datagram)).collect()
    }

    // row 72
    #[test]
    fn a_train_is_told_datagram_by_datagram() {
        for at in loopbacks() {
            let (mut sender, mut receiver) = (rig(at), rig(trains(at)));
            let row = row(lengths());
            send(&mut sender, receiver.address(), &row);
            receiver.expect(&heard(row));
            assert_sleeps(&mut receiver.reactor);
            let large = vec![vec![b'l'; 30_000], vec![b'l'; 30_000], vec![b'm'; 65_507]];
            send(&mut sender, receiver.address(), &large);
            receiver.until_heard(&datagram(&large[2]));
            assert_eq!(receiver.heard()[166..], heard(large)[1..]);
        }
    }

    // row 72
    #[test]
    fn what_is_too_long_in_a_train_is_cut_and_flagged() {
        let config = Config::new().datagram_size(10);
        let mut receiver = rig_that(trains("127.0.0.1:0"), config, |_, _| {});
        let row = row([11, 11, 11, 10, 10, 10, 3, 40, 0]);
        send(&mut rig("127.0.0.1:0"), receiver.address(), &row);
        let told = row.iter().map(|bytes| match &bytes[..] {
            long if long.len() > 10 => Heard::Truncated(long[..10].to_vec()),
            whole => datagram(whole),
        });
        receiver.expect(&std::iter::once(Heard::Open).chain(told).collect::<Vec<_>>());
    }

    // row 72
    #[test]
    fn a_close_in_the_middle_of_a_train_ends_it_there() {
        let row = row([5; 20]);
        let at = datagram(&row[2]);
        let mut receiver = rig_that(trains("127.0.0.1:0"), Config::default(), move |cx, heard| {
            if *heard == at {
                cx.close();
            }
        });
        send(&mut rig("127.0.0.1:0"), receiver.address(), &row);
        let mut told = heard(row[..3].to_vec());
        told.push(Heard::Close("closed".to_owned()));
        receiver.expect(&told);
    }

    // row 72
    #[test]
    fn a_train_goes_over_the_budget_once_and_the_next_one_waits() {
        let config = Config::new().datagrams_per_turn(4);
        let mut receiver = rig_that(trains("127.0.0.1:0"), config, |_, _| {});
        settle(&mut receiver.reactor);
        let row = row((0..5).flat_map(|train| [10 + train; 20]));
        send(&mut rig("127.0.0.1:0"), receiver.address(), &row);
        let told = Rc::clone(&receiver.heard);
        let mut before = told.borrow().len();
        until(&mut receiver.reactor, "all", |_| {
            let now = told.borrow().len();
            assert!(now <= before + 20, "{before} and then {now}");
            before = now;
            now == 101
        });
        assert_eq!(receiver.heard(), heard(row));
    }

    // row 72
    #[test]
    fn an_unreachable_peer_is_told_and_a_socket_that_receives_trains_lives_on() {
        let gone = nobody();
        let mut rig = rig(trains("127.0.0.1:0").connect(gone));
        for _ in 0..10 {
            assert_eq!(rig.reactor.net().send(rig.token, b"anybody?"), SendStatus::Queued);
        }
        rig.until_heard(&refused());
        assert_sleeps(&mut rig.reactor);
        let peer = UdpSocket::bind(gone).unwrap();
        peer.send_to(b"me", rig.address()).unwrap();
        rig.until_heard(&datagram(b"me"));
    }

    // row 72
    #[test]
    fn a_socket_that_can_send_no_trains_loses_nothing() {
        // UDP-Lite (RFC 3828) is such a one: its checksums are not the network card's to make.
        let lite = || {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDPLITE)).ok()?;
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).ok()?;
            Some(UdpSocket::from(socket))
        };
        let (Some(ours), Some(peer)) = (lite(), lite()) else {
            return eprintln!("this system has no UDP-Lite: not tested");
        };
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rig = rig(Udp::adopt(ours));
        for _ in 0..2 {
            let row = row(lengths());
            send(&mut rig, address(&peer), &row);
            for bytes in &row {
                assert_eq!(received(&peer), *bytes);
            }
        }
        assert_eq!(rig.heard(), [Heard::Open]);
    }
}
