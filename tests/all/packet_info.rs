//! What the system tells of a datagram, and datagrams from a chosen address or with a mark.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::SystemTime;

use socket2::SockRef;
use tidegate::{
    Admission, Context, Datagram, DatagramError, DatagramHandler, Ecn, HandlerResult, PacketInfo,
    Reactor, SendStatus, SendTo, SessionOptions, Token, Udp,
};

use crate::support::datagrams::{address, received, socket};
use crate::support::sockets::assert_sleeps;
use crate::support::{PATIENCE, address_of, settle, until};

/// What was heard: the bytes and what was told of them.
type Heard = Rc<RefCell<Vec<(Vec<u8>, Option<PacketInfo>)>>>;

/// Answers from the address that was asked, with the mark that came.
#[derive(Clone, Default)]
struct Answers {
    heard: Heard,
    errors: Rc<RefCell<Vec<String>>>,
    /// It listens only.
    silent: Rc<Cell<bool>>,
}

impl DatagramHandler for Answers {
    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        self.heard.borrow_mut().push((datagram.bytes.to_vec(), datagram.info.copied()));
        if self.silent.get() {
            return Ok(());
        }
        let mut to = SendTo::reply(&datagram);
        if let Some(mark) = datagram.info.and_then(|info| info.ecn) {
            to = to.ecn(mark);
        }
        cx.send_datagram(to, datagram.bytes);
        Ok(())
    }

    fn on_error(&mut self, _: &mut Context<'_>, error: DatagramError) -> HandlerResult {
        self.errors.borrow_mut().push(error.to_string());
        Ok(())
    }
}

struct Rig {
    reactor: Reactor,
    token: Token,
    port: u16,
    answers: Answers,
}

fn rig(udp: Udp) -> Rig {
    let mut reactor = Reactor::new().unwrap();
    let answers = Answers::default();
    let token = reactor.net().bind_udp(udp, answers.clone()).unwrap();
    let port = address_of(&mut reactor, token).port();
    Rig { reactor, token, port, answers }
}

impl Rig {
    /// Turns until so many datagrams were heard.
    fn hears(&mut self, count: usize) {
        let heard = Rc::clone(&self.answers.heard);
        until(&mut self.reactor, "datagrams", |_| heard.borrow().len() >= count);
    }

    fn info(&self, index: usize) -> PacketInfo {
        self.answers.heard.borrow()[index].1.expect("the socket asks for it")
    }
}

fn any() -> Udp {
    Udp::bind("0.0.0.0:0").packet_info(true)
}

/// Connected: it hears an answer from that address alone.
fn asks(to: (&str, u16)) -> UdpSocket {
    let client = socket();
    client.connect(to).unwrap();
    client
}

// row 154
#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let mut rig = rig(any());
    for (index, asked) in ["127.0.0.1", "127.0.0.2", "127.9.9.9"].into_iter().enumerate() {
        let client = asks((asked, rig.port));
        client.send(b"who are you?").unwrap();
        rig.hears(index + 1);
        assert_eq!(rig.info(index).local, Some(asked.parse().unwrap()));
        assert_eq!(rig.info(index).interface, Some(1), "loopback");
        assert_eq!(received(&client), b"who are you?");
    }
    assert_sleeps(&mut rig.reactor);
}

// row 154
#[test]
fn a_socket_of_both_families_answers_ipv4_from_the_address_that_was_asked() {
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return; // a machine without IPv6
    }
    let options = tidegate::SocketOptions::new().only_v6(false);
    let mut rig = rig(Udp::bind("[::]:0").socket_options(options).packet_info(true));
    let client = asks(("127.0.0.2", rig.port));
    client.send(b"4").unwrap();
    rig.hears(1);
    let local = rig.info(0).local.unwrap();
    assert_eq!(local.to_canonical(), "127.0.0.2".parse::<IpAddr>().unwrap());
    assert_eq!(received(&client), b"4");

    let client = UdpSocket::bind("[::1]:0").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(("::1", rig.port)).unwrap();
    client.send(b"6").unwrap();
    rig.hears(2);
    assert_eq!(rig.info(1).local, Some(Ipv6Addr::LOCALHOST.into()));
    assert_eq!(received(&client), b"6");
}

// row 154
#[test]
fn sessions_answer_from_the_address_at_which_their_peer_was_admitted() {
    struct Echo;
    impl DatagramHandler for Echo {
        fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
            cx.send(datagram.bytes);
            Ok(())
        }
    }
    let mut reactor = Reactor::new().unwrap();
    let admit = |hello: &tidegate::Hello<'_>| {
        assert!(hello.info.is_some_and(|info| info.local.is_some()));
        match hello.bytes {
            b"refused" => Admission::reply(*b"no"),
            _ => Admission::accept(Echo),
        }
    };
    let token = reactor.net().bind_sessions(any(), SessionOptions::new(), admit).unwrap();
    let port = address_of(&mut reactor, token).port();
    let clients = [asks(("127.0.0.2", port)), asks(("127.0.0.3", port))];
    for client in &clients {
        client.set_nonblocking(true).unwrap();
        for question in [&b"refused"[..], b"first", b"second"] {
            client.send(question).unwrap();
            let mut answer = [0; 16];
            let mut len = None;
            until(&mut reactor, "an answer", |_| {
                len = client.recv(&mut answer).ok();
                len.is_some()
            });
            let expected = if question == b"refused" { b"no" } else { question };
            assert_eq!(&answer[..len.unwrap()], expected);
        }
    }
}

// row 155
#[test]
fn marks_and_times_are_those_of_the_system() {
    let mut rig = rig(any());
    let before = SystemTime::now();
    for (index, (tos, mark)) in
        [(0, None), (2, Some(Ecn::Ect0)), (1, Some(Ecn::Ect1)), (3, Some(Ecn::Ce))]
            .into_iter()
            .enumerate()
    {
        let client = asks(("127.0.0.1", rig.port));
        SockRef::from(&client).set_tos_v4(tos).unwrap();
        client.send(b"x").unwrap();
        rig.hears(index + 1);
        assert_eq!(rig.info(index).ecn, mark);
        received(&client);
    }
    let after = SystemTime::now();
    for index in 0..4 {
        if let Some(received) = rig.info(index).received {
            assert!(before <= received && received <= after, "{received:?}");
        }
    }
    let told = rig.info(0).received.is_some();
    assert!(told || !cfg!(any(target_os = "linux", target_os = "android")));
}

// row 155
#[cfg(target_os = "linux")]
#[test]
fn each_datagram_of_a_train_has_its_mark() {
    use tidegate::SocketOptions;

    let mut theirs = rig(any());
    theirs.answers.silent.set(true);
    let mut reactor = Reactor::new().unwrap();
    let marked = SocketOptions::new().traffic_class(3);
    let udp = Udp::bind("127.0.0.1:0").connect(("127.0.0.1", theirs.port)).socket_options(marked);
    let token = reactor.net().bind_udp(udp, Answers::default()).unwrap();
    for number in 0..20 {
        // One train with `udp-batch`.
        reactor.net().send(token, [number; 1_000]);
    }
    settle(&mut reactor);
    theirs.hears(20);
    for (number, (bytes, info)) in theirs.answers.heard.borrow().iter().enumerate() {
        assert_eq!(*bytes, [number as u8; 1_000]);
        assert_eq!(info.unwrap().ecn, Some(Ecn::Ce));
    }
}

// row 154
#[cfg(target_os = "linux")]
#[test]
fn an_answer_to_a_broadcast_leaves_from_an_own_address() {
    let mut rig = rig(any());
    let client = socket();
    client.set_broadcast(true).unwrap();
    if client.send_to(b"who is there?", ("127.255.255.255", rig.port)).is_err() {
        return; // a machine whose loopback has another network
    }
    rig.hears(1);
    assert_eq!(rig.info(0).local, Some([127, 255, 255, 255].into()));
    assert_eq!(received(&client), b"who is there?");
}

// row 155
#[test]
fn a_mark_arrives_as_it_was_sent() {
    let mut ours = rig(any());
    ours.answers.silent.set(true);
    let mut theirs = rig(any());
    let to = SocketAddr::from(([127, 0, 0, 1], theirs.port));
    for mark in [Ecn::Ect1, Ecn::Ect0, Ecn::Ce] {
        let sent = ours.reactor.net().send_datagram(ours.token, SendTo::peer(to).ecn(mark), b"x");
        assert_eq!(sent, SendStatus::Queued);
        ours.answers.heard.borrow_mut().clear();
        theirs.answers.heard.borrow_mut().clear();
        settle(&mut ours.reactor);
        theirs.hears(1);
        assert_eq!(theirs.info(0).ecn, Some(mark));
        settle(&mut theirs.reactor);
        // It has answered with the same mark.
        ours.hears(1);
        assert_eq!(ours.info(0).ecn, Some(mark));
        assert_eq!(ours.info(0).local, Some([127, 0, 0, 1].into()));
    }
}

// row 156
#[test]
fn datagrams_of_all_sizes_keep_their_borders_and_are_cut_at_the_limit() {
    let config = tidegate::Config::new().datagram_size(1000);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let heard: Rc<RefCell<Vec<(usize, bool)>>> = Rc::default();
    struct Sizes(Rc<RefCell<Vec<(usize, bool)>>>);
    impl DatagramHandler for Sizes {
        fn on_datagram(&mut self, _: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
            assert!(datagram.info.is_some());
            self.0.borrow_mut().push((datagram.bytes.len(), datagram.truncated));
            Ok(())
        }
    }
    let token = reactor.net().bind_udp(any(), Sizes(Rc::clone(&heard))).unwrap();
    let client = asks(("127.0.0.1", address_of(&mut reactor, token).port()));
    let sizes = [0, 1, 999, 1000, 1001, 0, 9_000, 0, 2];
    for size in sizes {
        client.send(&vec![7; size]).unwrap();
    }
    until(&mut reactor, "all of them", |_| heard.borrow().len() >= sizes.len());
    let expected: Vec<_> = sizes.iter().map(|&size| (size.min(1000), size > 1000)).collect();
    assert_eq!(*heard.borrow(), expected);
    assert_sleeps(&mut reactor);
}

// row 156
#[test]
fn a_choice_that_cannot_be_kept_is_refused() {
    let mut plain = rig(Udp::bind("127.0.0.1:0"));
    let to = address(&socket());
    let net = plain.reactor.net();
    let chosen = SendTo::peer(to).local([127, 0, 0, 1].into());
    assert_eq!(net.send_datagram(plain.token, chosen, "x"), SendStatus::Unencodable);
    let marked = SendTo::peer(to).ecn(Ecn::Ect0);
    assert_eq!(net.send_datagram(plain.token, marked, "x"), SendStatus::Unencodable);
    assert_eq!(net.send_datagram(plain.token, SendTo::peer(to), "x"), SendStatus::Queued);
    // A reply chooses nothing where nothing is known.
    let unknown = Datagram { bytes: b"?", from: to, truncated: false, info: None };
    assert_eq!(net.send_datagram(plain.token, SendTo::reply(&unknown), "x"), SendStatus::Queued);

    let mut rig = rig(any());
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let foreign: [(SendTo, &str); 3] = [
        (SendTo::peer(to).local([203, 0, 113, 1].into()), "a foreign address"),
        (SendTo::peer(to).local(Ipv6Addr::LOCALHOST.into()), "another family"),
        (SendTo::peer(nowhere).ecn(Ecn::Ect0), "port 0"),
    ];
    for (number, (choice, what)) in foreign.into_iter().enumerate() {
        rig.reactor.net().send_datagram(rig.token, choice, "x");
        let errors = Rc::clone(&rig.answers.errors);
        until(&mut rig.reactor, what, |_| errors.borrow().len() > number);
        assert!(rig.reactor.net().is_open(rig.token));
        // Marks leave as before.
        let mut other = self::rig(any());
        let to = SocketAddr::from(([127, 0, 0, 1], other.port));
        rig.reactor.net().send_datagram(rig.token, SendTo::peer(to).ecn(Ecn::Ce), "y");
        settle(&mut rig.reactor);
        other.hears(1);
        assert_eq!(other.info(0).ecn, Some(Ecn::Ce), "behind {what}");
        assert_eq!(other.info(0).local, Some([127, 0, 0, 1].into()));
    }
}
