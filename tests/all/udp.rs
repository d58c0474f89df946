//! UDP: what is data, what is an error, and that the socket lives through both.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tidegate::{
    Config, Context, Datagram, DatagramError, DatagramHandler, HandlerResult, MulticastInterface,
    Reactor, SendStatus, SocketOptions, Udp,
};

use crate::support::datagrams::{
    Ear, Heard, address, datagram, nobody, received, refused, rig, rig_that, socket,
};
use crate::support::sockets::assert_sleeps;
use crate::support::{PATIENCE, address_of, settle, until, with_client};

// row 48
#[test]
fn a_datagram_of_length_zero_is_data_both_ways() {
    let mut rig = rig("127.0.0.1:0");
    let peer = socket();
    let to = rig.address();
    for bytes in [&b""[..], b"a", b"", b"", b"b"] {
        peer.send_to(bytes, to).unwrap();
    }
    rig.expect(&[
        Heard::Open,
        datagram(b""),
        datagram(b"a"),
        datagram(b""),
        datagram(b""),
        datagram(b"b"),
    ]);
    let back = address(&peer);
    assert_eq!(rig.send_to(back, b""), SendStatus::Queued);
    assert_eq!(rig.send_to(back, b"c"), SendStatus::Queued);
    settle(&mut rig.reactor);
    assert_eq!([received(&peer), received(&peer)], [b"".to_vec(), b"c".to_vec()]);
    assert!(rig.reactor.net().is_open(rig.token));
}

/// A connected socket with a datagram to read and an ICMP error pending.
fn with_datagram_and_error_pending() -> UdpSocket {
    let ours = socket();
    let peer = socket();
    ours.connect(address(&peer)).unwrap();
    peer.send_to(b"data", address(&ours)).unwrap();
    drop(peer);
    ours.send(b"to nobody").unwrap();
    ours
}

// row 49
#[test]
fn closing_inside_the_first_callback_leaves_a_pending_error_unheard() {
    for close_at in [Heard::Open, refused(), datagram(b"data")] {
        let at = close_at.clone();
        let udp = Udp::adopt(with_datagram_and_error_pending());
        let mut rig = rig_that(udp, Config::default(), move |cx, heard| {
            if *heard == at {
                cx.close();
            }
        });
        let closed = Heard::Close("closed".to_owned());
        rig.until_heard(&closed);
        assert_sleeps(&mut rig.reactor);
        let heard = rig.heard();
        let tail = &heard[heard.len() - 2..];
        assert_eq!(tail, [close_at, closed], "nothing between, nothing after: {heard:?}");
        assert_eq!(rig.reactor.net().send(rig.token, b"x"), SendStatus::Gone);
    }
}

// row 49
#[test]
fn an_error_pending_before_a_datagram_hides_nothing() {
    let mut rig = rig(Udp::adopt(with_datagram_and_error_pending()));
    rig.until_heard(&datagram(b"data"));
    assert_sleeps(&mut rig.reactor);
    assert_eq!(rig.heard(), [Heard::Open, refused(), datagram(b"data")]);
}

// row 50
#[test]
fn an_error_pending_on_an_idle_socket_is_told_once_and_does_not_spin() {
    let ours = socket();
    let gone = nobody();
    ours.connect(gone).unwrap();
    ours.send(b"to nobody").unwrap();
    let to = address(&ours);
    let mut rig = rig(Udp::adopt(ours));
    rig.expect(&[Heard::Open, refused()]);
    assert_sleeps(&mut rig.reactor);
    let peer = UdpSocket::bind(gone).unwrap();
    peer.send_to(b"here now", to).unwrap();
    rig.expect(&[Heard::Open, refused(), datagram(b"here now")]);
}

// row 51
#[test]
fn an_unreachable_port_is_reported_and_the_socket_works_on() {
    let gone = nobody();
    let mut rig = rig(Udp::bind("127.0.0.1:0").connect(gone));
    for round in 1..4 {
        assert_eq!(rig.reactor.net().send(rig.token, b"anybody?"), SendStatus::Queued);
        let heard = Rc::clone(&rig.heard);
        until(&mut rig.reactor, "the error", |_| heard.borrow().len() == 1 + round);
        assert_eq!(rig.heard()[round], refused());
    }
    assert_sleeps(&mut rig.reactor);
    let peer = UdpSocket::bind(gone).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    rig.reactor.net().send(rig.token, b"anybody?");
    settle(&mut rig.reactor);
    assert_eq!(received(&peer), b"anybody?");
    peer.send_to(b"me", rig.address()).unwrap();
    rig.until_heard(&datagram(b"me"));
}

// row 51
#[test]
fn a_datagram_behind_a_pending_error_is_sent_all_the_same() {
    let gone = nobody();
    let ours = socket();
    ours.connect(gone).unwrap();
    ours.send(b"to nobody").unwrap();
    let peer = UdpSocket::bind(gone).unwrap(); // too late for that one
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rig = rig_that(Udp::adopt(ours), Config::default(), |cx, heard| {
        if *heard == Heard::Open {
            cx.send(b"first"); // meets the error that is pending
            cx.send(b"second");
        }
    });
    rig.until_heard(&refused());
    settle(&mut rig.reactor);
    assert_eq!([received(&peer), received(&peer)], [b"first".to_vec(), b"second".to_vec()]);
}

// row 52
#[test]
fn a_datagram_that_is_too_large_is_reported_with_its_address_and_the_next_is_sent() {
    let mut rig = rig("127.0.0.1:0");
    let peer = socket();
    let to = address(&peer);
    rig.send_to(to, vec![1; 65_507]); // the most that UDP carries over IPv4
    rig.send_to(to, vec![2; 65_508]);
    rig.send_to(to, b"next");
    let heard = Rc::clone(&rig.heard);
    until(&mut rig.reactor, "the error", |_| heard.borrow().len() == 2);
    assert!(matches!(rig.heard()[1], Heard::Error(_, Some(at)) if at == to), "{:?}", rig.heard());
    assert_eq!(received(&peer).len(), 65_507);
    assert_eq!(received(&peer), b"next");
    assert_sleeps(&mut rig.reactor);
    assert_eq!(rig.heard().len(), 2);
}

// row 53
#[test]
fn a_thousand_sends_to_an_unreachable_peer_never_stall() {
    for connected in [true, false] {
        for turns in [1, 1000] {
            let gone = nobody();
            let udp = Udp::bind("127.0.0.1:0");
            let mut rig = rig(if connected { udp.connect(gone) } else { udp });
            for _ in 0..turns {
                for _ in 0..1000 / turns {
                    assert_eq!(rig.send_to(gone, b"anybody?"), SendStatus::Queued);
                }
                let _ = rig.reactor.turn(Some(Duration::ZERO)).unwrap();
            }
            assert_sleeps(&mut rig.reactor);
            assert_eq!(rig.reactor.net().queued(rig.token), 0);
            let heard = rig.heard();
            let errors = heard.iter().filter(|heard| **heard == refused()).count();
            assert_eq!(errors, heard.len() - 1, "nothing else is told");
            assert_eq!(errors > 0, connected, "an unconnected socket is not told (ip(7))");
            let peer = UdpSocket::bind(gone).unwrap();
            peer.set_read_timeout(Some(PATIENCE)).unwrap();
            rig.send_to(gone, b"at last");
            settle(&mut rig.reactor);
            assert_eq!(received(&peer), b"at last");
        }
    }
}

// row 54
#[test]
fn what_does_not_fit_is_cut_and_flagged() {
    let mut rig = rig_that("127.0.0.1:0", Config::new().datagram_size(10), |_, _| {});
    let peer = socket();
    let to = rig.address();
    for n in [9, 10, 11, 5000, 10, 0] {
        peer.send_to(&vec![b'x'; n], to).unwrap();
    }
    let whole = |n| Heard::Datagram(vec![b'x'; n]);
    let cut = Heard::Truncated(vec![b'x'; 10]);
    rig.expect(&[Heard::Open, whole(9), whole(10), cut.clone(), cut, whole(10), whole(0)]);
}

// row 54
#[test]
fn more_datagrams_than_one_turn_takes_all_arrive_in_order() {
    let config = Config::new().datagrams_per_turn(4).datagram_size(10);
    let mut rig = rig_that("127.0.0.1:0", config, |_, _| {});
    let peer = socket();
    let to = rig.address();
    let mut expected = vec![Heard::Open];
    for number in 0..100_u32 {
        peer.send_to(&number.to_be_bytes(), to).unwrap();
        expected.push(datagram(&number.to_be_bytes()));
    }
    rig.expect(&expected);
    assert_sleeps(&mut rig.reactor);
}

// row 55
#[test]
fn a_connected_socket_hears_its_peer_alone() {
    let peer = socket();
    let stranger = socket();
    let mut rig = rig(Udp::bind("127.0.0.1:0").connect(address(&peer)));
    let to = rig.address();
    stranger.send_to(b"stranger", to).unwrap();
    peer.send_to(b"peer", to).unwrap();
    rig.expect(&[Heard::Open, datagram(b"peer")]);
    let at = rig.reactor.net().peer_addr(rig.token).and_then(|at| at.socket_addr());
    assert_eq!(at, Some(address(&peer)));
    rig.reactor.net().send(rig.token, b"to the peer");
    settle(&mut rig.reactor);
    assert_eq!(received(&peer), b"to the peer");
}

// row 55
#[test]
fn an_unconnected_socket_hears_everybody_and_must_name_whom_it_sends_to() {
    let mut rig = rig("127.0.0.1:0");
    let to = rig.address();
    let peers = [socket(), socket()];
    for peer in &peers {
        peer.send_to(b"hello", to).unwrap();
        assert_eq!(rig.send_to(address(peer), b"hello you"), SendStatus::Queued);
    }
    assert_eq!(rig.reactor.net().peer_addr(rig.token), None);
    // Whom to? The system says that it needs to know (EDESTADDRREQ).
    assert_eq!(rig.reactor.net().send(rig.token, b"whom to?"), SendStatus::Queued);
    let heard = Rc::clone(&rig.heard);
    until(&mut rig.reactor, "all", |_| heard.borrow().len() == 4);
    settle(&mut rig.reactor);
    let heard = rig.heard();
    assert_eq!(heard.iter().filter(|heard| **heard == datagram(b"hello")).count(), 2);
    assert_eq!(heard.iter().filter(|h| matches!(h, Heard::Error(_, None))).count(), 1);
    for peer in &peers {
        assert_eq!(received(peer), b"hello you");
    }
}

// row 55
#[test]
fn an_adopted_socket_can_be_given_a_peer_and_options() {
    let ours = socket();
    let seen = ours.try_clone().unwrap();
    let peer = socket();
    let options = SocketOptions::new().broadcast(true);
    let mut rig = rig(Udp::adopt(ours).connect(address(&peer)).socket_options(options));
    rig.reactor.net().send(rig.token, b"hello");
    settle(&mut rig.reactor);
    assert_eq!(received(&peer), b"hello");
    assert!(seen.broadcast().unwrap());
}

/// Joins, hears, leaves, hears nothing.
fn joins_and_leaves(
    bind: &str,
    group: IpAddr,
    interface: MulticastInterface,
    options: SocketOptions,
) {
    let mut reactor = Reactor::new().unwrap();
    let heard: Rc<RefCell<Vec<Heard>>> = Rc::default();
    let ear =
        |heard: &Rc<RefCell<Vec<Heard>>>| Ear { heard: Rc::clone(heard), act: Box::new(|_, _| {}) };
    let member = reactor.net().bind_udp(bind, ear(&heard)).unwrap();
    let sender = Udp::bind(bind).socket_options(options);
    let sender = reactor.net().bind_udp(sender, ear(&Rc::default())).unwrap();
    reactor.net().join_multicast(member, group, interface).unwrap();
    let port = address_of(&mut reactor, member).port();
    let to_group = SocketAddr::new(group, port);
    let local = if group.is_ipv4() { "127.0.0.1" } else { "::1" };
    let to_member = SocketAddr::new(local.parse().unwrap(), port);
    reactor.net().send_to(sender, to_group, b"to the group");
    reactor.net().send_to(sender, to_member, b"one");
    until(&mut reactor, "the first", |_| heard.borrow().contains(&datagram(b"one")));
    reactor.net().leave_multicast(member, group, interface).unwrap();
    reactor.net().send_to(sender, to_group, b"to the group");
    reactor.net().send_to(sender, to_member, b"two");
    until(&mut reactor, "the second", |_| heard.borrow().contains(&datagram(b"two")));
    assert_eq!(
        *heard.borrow(),
        [Heard::Open, datagram(b"to the group"), datagram(b"one"), datagram(b"two")]
    );
    let error = reactor.net().leave_multicast(member, group, interface).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot leave {group}: ")), "{error}");
}

// row 55
#[test]
fn multicast_is_joined_and_left_on_ipv4() {
    let loopback = Ipv4Addr::LOCALHOST;
    let options = SocketOptions::new().multicast_interface_v4(loopback).multicast_loop(true);
    let group = Ipv4Addr::new(239, 255, 77, 88).into();
    joins_and_leaves("0.0.0.0:0", group, MulticastInterface::V4(loopback), options);
}

// row 55
#[test]
fn multicast_is_joined_and_left_on_ipv6() {
    let group = "ff01::7788".parse().unwrap();
    let Some(index) = (1..16).find(|&index| has_multicast_v6(group, index)) else {
        return eprintln!("no interface here has IPv6 multicast: not tested");
    };
    let options = SocketOptions::new().multicast_interface_v6(index).multicast_loop(true);
    joins_and_leaves("[::]:0", group.into(), MulticastInterface::Index(index), options);
}

/// Whether a plain socket can send to the group through this interface. The loopback interface of
/// many systems cannot: it has no route for it.
fn has_multicast_v6(group: Ipv6Addr, index: u32) -> bool {
    let Ok(socket) = UdpSocket::bind("[::]:0") else { return false };
    SockRef::from(&socket).set_multicast_if_v6(index).is_ok()
        && socket.send_to(b"", (group, 9)).is_ok()
}

// row 55
#[test]
fn joining_what_cannot_be_joined_is_a_clear_error() {
    let mut rig = rig("127.0.0.1:0");
    let group = Ipv4Addr::new(239, 255, 77, 88).into();
    let listener = rig
        .reactor
        .net()
        .listen("127.0.0.1:0", |_| crate::support::Probe::new(&crate::support::Log::new()));
    let net = rig.reactor.net();
    let error =
        net.join_multicast(listener.unwrap(), group, MulticastInterface::Default).unwrap_err();
    assert_eq!(error.to_string(), "cannot join 239.255.77.88: the token names no UDP socket");
    let error = net.join_multicast(rig.token, group, MulticastInterface::Index(1)).unwrap_err();
    assert!(error.to_string().contains("must be an address for an IPv4 group"), "{error}");
    let nowhere = MulticastInterface::V4(Ipv4Addr::new(203, 0, 113, 77));
    assert!(net.join_multicast(rig.token, group, nowhere).is_err());
    let unicast = Ipv4Addr::new(192, 0, 2, 77).into();
    assert!(net.join_multicast(rig.token, unicast, MulticastInterface::Default).is_err());
}

// row 55
#[test]
fn broadcast_needs_its_option() {
    let mut ear = rig("0.0.0.0:0");
    let to = SocketAddr::new(Ipv4Addr::new(127, 255, 255, 255).into(), ear.address().port());
    let mut without = rig("127.0.0.1:0");
    without.send_to(to, b"all");
    without.expect(&[Heard::Open, Heard::Error(ErrorKind::PermissionDenied, Some(to))]);
    let mut with =
        rig(Udp::bind("127.0.0.1:0").socket_options(SocketOptions::new().broadcast(true)));
    with.send_to(to, b"all");
    settle(&mut with.reactor);
    assert_eq!(with.heard(), [Heard::Open]);
    ear.expect(&[Heard::Open, datagram(b"all")]);
}

#[test]
fn a_datagram_over_the_queue_cap_is_dropped_whole_and_a_drain_follows() {
    let peer = socket();
    let to = address(&peer);
    let statuses = Rc::new(RefCell::new(Vec::new()));
    let noted = Rc::clone(&statuses);
    let udp = Udp::bind("127.0.0.1:0").queue_limit(100);
    let mut rig = rig_that(udp, Config::default(), move |cx, heard| {
        if *heard == Heard::Open {
            for n in [60, 41, 40, 1] {
                noted.borrow_mut().push(cx.send_to(to, vec![b'x'; n]));
            }
        }
    });
    rig.expect(&[Heard::Open, Heard::Drain]);
    use SendStatus::{Full, Queued};
    assert_eq!(*statuses.borrow(), [Queued, Full, Queued, Full]);
    assert_eq!([received(&peer).len(), received(&peer).len()], [60, 40]);
    assert_sleeps(&mut rig.reactor);
    assert_eq!(rig.heard().len(), 2, "told once");
}

#[test]
fn empty_datagrams_fill_the_queue_too() {
    let udp = Udp::bind("127.0.0.1:0").queue_limit(100);
    let full = Rc::new(RefCell::new(0));
    let counted = Rc::clone(&full);
    let to = nobody();
    let mut rig = rig_that(udp, Config::default(), move |cx, heard| {
        if *heard == Heard::Open {
            for _ in 0..1000 {
                *counted.borrow_mut() += usize::from(cx.send_to(to, b"") == SendStatus::Full);
            }
        }
    });
    rig.until_heard(&Heard::Open);
    assert_eq!(*full.borrow(), 900);
}

// row 41: what waits does not keep the loop awake
#[test]
fn a_paused_socket_receives_nothing_until_it_is_resumed() {
    // What one batch brought would be told all the same.
    let one_by_one = Config::new().datagrams_per_turn(1);
    let mut rig = rig_that("127.0.0.1:0", one_by_one, |cx, heard| {
        if matches!(heard, Heard::Datagram(_)) {
            cx.pause();
        }
    });
    let (from, to) = (socket(), rig.address());
    rig.reactor.net().pause(rig.token);
    let mut expected = vec![Heard::Open];
    for n in 0..3 {
        // One at a time: what has come in one batch is told to its end.
        from.send_to(&[n], to).unwrap();
        rig.expect(&expected);
        assert_sleeps(&mut rig.reactor);
        rig.expect(&expected);
        rig.reactor.net().resume(rig.token);
        expected.push(datagram(&[n]));
        rig.expect(&expected);
    }
    assert!(rig.send_to(address(&from), b"heard").is_accepted(), "sending goes on");
    let _ = rig.reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(received(&from), b"heard");
}

#[test]
fn a_bind_that_fails_says_what_and_why() {
    let taken = socket();
    let at = address(&taken);
    let ear = || Ear { heard: Rc::default(), act: Box::new(|_, _| {}) };
    let mut reactor = Reactor::new().unwrap();
    let error = reactor.net().bind_udp(at, ear()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with(&format!("cannot bind UDP {at}: ")), "{error}");
}

#[test]
fn what_is_sent_before_the_close_leaves() {
    let peer = socket();
    let to = address(&peer);
    let mut rig = rig_that("127.0.0.1:0", Config::default(), move |cx, heard| {
        if *heard == Heard::Open {
            cx.send_to(to, b"good-bye");
            cx.close();
            assert_eq!(cx.send_to(to, b"too late"), SendStatus::Gone);
        }
    });
    rig.until_heard(&Heard::Close("closed".to_owned()));
    assert_eq!(received(&peer), b"good-bye");
    assert_eq!(rig.reactor.net().local_addr(rig.token), None);
}

#[test]
fn what_is_unsent_when_a_socket_is_aborted_stays_unsent() {
    let peer = socket();
    let to = address(&peer);
    let mut rig = rig_that("127.0.0.1:0", Config::default(), move |cx, heard| {
        if *heard == Heard::Open {
            cx.send_to(to, b"never");
            cx.abort();
        }
    });
    rig.until_heard(&Heard::Close("aborted".to_owned()));
    socket().send_to(b"afterwards", to).unwrap();
    assert_eq!(received(&peer), b"afterwards");
}

// row 58
#[test]
fn a_long_queue_leaves_in_several_turns() {
    let peer = socket(); // it loses what does not fit
    let config = Config::new().datagram_sends_per_turn(1);
    let mut rig = rig_that("127.0.0.1:0", config, |_, _| {});
    until(&mut rig.reactor, "the opening", |_| !rig.heard.borrow().is_empty());
    let (to, count) = (address(&peer), 10_000);
    for _ in 0..count {
        assert_eq!(rig.send_to(to, b"x"), SendStatus::Queued);
    }
    let mut turns = 0;
    while rig.reactor.net().queued(rig.token) > 0 {
        let _ = rig.reactor.turn(Some(PATIENCE)).unwrap();
        turns += 1;
    }
    // Where datagrams leave in batches, one batch may go over the budget.
    assert!(turns > 1, "all at once");
    assert_sleeps(&mut rig.reactor);
}

/// Fails at every datagram, as its first byte says; keeps what `on_error` is called with.
struct Picky(Rc<RefCell<Vec<DatagramError>>>);

impl DatagramHandler for Picky {
    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        match datagram.bytes {
            b"error" => Err("garbage".into()),
            b"panic" => panic!("a bug"),
            _ => {
                cx.send_to(datagram.from, b"served");
                Ok(())
            }
        }
    }
    fn on_error(&mut self, _: &mut Context<'_>, error: DatagramError) -> HandlerResult {
        self.0.borrow_mut().push(error);
        Ok(())
    }
}

// C10
#[test]
fn an_error_or_a_panic_about_one_datagram_goes_to_on_error_and_the_socket_lives() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut reactor = Reactor::new().unwrap();
    let token = reactor.net().bind_udp("127.0.0.1:0", Picky(Rc::clone(&seen))).unwrap();
    let to = reactor.net().local_addr(token).unwrap().socket_addr().unwrap();
    let hostile = socket();
    for bytes in [b"error", b"panic", b"error"] {
        hostile.send_to(bytes, to).unwrap();
    }
    until(&mut reactor, "the errors", |_| seen.borrow().len() == 3);
    let from = address(&hostile);
    for (error, expected) in seen.borrow().iter().zip(["garbage", "a bug", "garbage"]) {
        assert_eq!(error.peer(), Some(from));
        assert!(error.to_string().ends_with(expected), "{error}");
        let panicked = matches!(error, DatagramError::Panicked { .. });
        assert_eq!(panicked, expected == "a bug", "{error:?}");
    }
    let honest = socket();
    honest.send_to(b"please", to).unwrap();
    let answer = with_client(&mut reactor, move || received(&honest));
    assert_eq!(answer, b"served");
    assert!(reactor.net().is_open(token));
}

// D1: peers cause ICMP errors, however many come in a row
#[test]
fn any_number_of_icmp_errors_leaves_the_socket_open() {
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    ours.connect(nobody()).unwrap();
    let beside = ours.try_clone().unwrap();
    let errors = Rc::new(Cell::new(0));
    let counted = Rc::clone(&errors);
    // Each one is followed by the next before the socket is looked at again.
    let mut rig = rig_that(Udp::adopt(ours), Config::default(), move |_, heard| {
        if matches!(heard, Heard::Open | Heard::Error(..)) {
            counted.set(counted.get() + 1);
            beside.send(b"x").unwrap();
        }
    });
    until(&mut rig.reactor, "many errors", |_| errors.get() > 200);
    assert!(rig.reactor.net().is_open(rig.token));
    assert!(rig.heard().iter().all(|heard| matches!(heard, Heard::Open | Heard::Error(..))));
}

// C12
#[test]
fn what_goes_wrong_in_the_last_flush_of_a_close_is_the_reason() {
    let mut rig = rig("127.0.0.1:0");
    rig.until_heard(&Heard::Open);
    let unconnected = rig.token;
    rig.reactor.net().send(unconnected, b"to nobody");
    rig.reactor.net().close(unconnected);
    settle(&mut rig.reactor);
    let heard = rig.heard.borrow();
    let Heard::Close(reason) = &heard[1] else { panic!("{heard:?}") };
    assert!(reason.contains("estination address required"), "{reason}");
}

// D3
#[test]
fn close_frees_the_address_when_it_returns() {
    let ear = || Ear { heard: Rc::default(), act: Box::new(|_, _| {}) };
    let mut reactor = Reactor::new().unwrap();
    let first = reactor.net().bind_udp("127.0.0.1:0", ear()).unwrap();
    let at = reactor.net().local_addr(first).unwrap().socket_addr().unwrap();
    let peer = socket();
    reactor.net().send_to(first, address(&peer), b"before the close");
    reactor.net().close(first);
    assert_eq!(received(&peer), b"before the close", "what waits is flushed");
    let second = reactor.net().bind_udp(at, ear()).unwrap();
    assert_eq!(reactor.net().local_addr(second).unwrap().socket_addr(), Some(at));
    assert_eq!(reactor.net().local_addr(first), None);
}

// D2
#[test]
fn a_peer_with_several_addresses_is_reached_at_the_first_that_works() {
    let peer = socket();
    let v6: SocketAddr = "[::1]:9".parse().unwrap();
    let mut rig = rig(Udp::bind("127.0.0.1:0").connect([v6, address(&peer)]));
    rig.reactor.net().send(rig.token, b"reached");
    let _ = rig.reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(received(&peer), b"reached");
}

// C15
#[test]
fn a_loop_that_turns_once_a_tick_loses_nothing_that_fits_the_queue() {
    let peer = socket();
    let mut rig = rig("127.0.0.1:0");
    rig.until_heard(&Heard::Open);
    for _ in 0..10 {
        for _ in 0..200 {
            let sent = rig.reactor.net().send_to(rig.token, address(&peer), [0; 1_200]);
            assert_eq!(sent, SendStatus::Queued);
        }
        let _ = rig.reactor.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(rig.reactor.net().queued(rig.token), 0);
    }
    let config = Config::new().datagram_sends_per_turn(3);
    let mut rig = rig_that("127.0.0.1:0", config, |_, _| {});
    rig.until_heard(&Heard::Open);
    for _ in 0..20 {
        rig.reactor.net().send_to(rig.token, address(&peer), b"x");
    }
    let _ = rig.reactor.turn(Some(Duration::ZERO)).unwrap();
    assert!(rig.reactor.net().queued(rig.token) > 0);
    let due = rig.reactor.next_deadline().expect("a queue that waits is due");
    assert!(due <= rig.reactor.net().now());
}
