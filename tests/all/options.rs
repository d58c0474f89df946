//! Socket options: seen on the real socket, inherited, refused with a clear error. What a test
//! cannot reach from outside (an accepted socket) is seen in `src/socket_options_tests.rs`.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tidegate::{
    Adopt, Connect, Context, Datagram, DatagramHandler, HandlerResult, Listen, Reactor,
    SocketOptions, StreamOptions, Udp,
};

use crate::support::sockets::{small_client, stream_bytes};
use crate::support::{
    Log, PATIENCE, Probe, address_of, client, listening, read_n, until, with_client,
};

/// Adopts one end of a connection with these options; answers that end's double and the other end.
fn adopted(options: SocketOptions) -> (Reactor, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    let seen = ours.try_clone().unwrap();
    let mut reactor = Reactor::new().unwrap();
    let adopt = Adopt::from(ours).options(StreamOptions::new().socket_options(options));
    reactor.net().adopt(adopt, Probe::new(&Log::new())).unwrap();
    (reactor, seen, peer)
}

#[test]
fn nodelay_is_the_default_and_can_be_switched_off() {
    let (_reactor, seen, _peer) = adopted(SocketOptions::new());
    assert!(seen.nodelay().unwrap());
    let (_reactor, seen, _peer) = adopted(SocketOptions::new().nodelay(false));
    assert!(!seen.nodelay().unwrap());
}

#[test]
fn an_adopted_sockets_own_options_stay_unless_some_are_given() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let seen = ours.try_clone().unwrap();
    let mut reactor = Reactor::new().unwrap();
    reactor.net().adopt(ours, Probe::new(&Log::new())).unwrap();
    assert!(!seen.nodelay().unwrap());
}

#[test]
fn keepalive_sets_all_three_times() {
    let (_reactor, seen, _peer) = adopted(
        SocketOptions::new()
            .keepalive_probes(Duration::from_secs(7), 4)
            .keepalive(Duration::from_secs(33)),
    );
    let seen = SockRef::from(&seen);
    assert!(seen.keepalive().unwrap());
    assert_eq!(seen.tcp_keepalive_time().unwrap(), Duration::from_secs(33));
    assert_eq!(seen.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
    assert_eq!(seen.tcp_keepalive_retries().unwrap(), 4);
}

#[test]
fn a_fraction_of_a_second_is_rounded_up_where_the_system_counts_seconds() {
    let (_reactor, seen, _peer) = adopted(
        SocketOptions::new()
            .keepalive(Duration::from_millis(1))
            .keepalive_probes(Duration::from_millis(1500), 2)
            .linger(Duration::from_millis(1)),
    );
    let seen = SockRef::from(&seen);
    assert_eq!(seen.tcp_keepalive_time().unwrap(), Duration::from_secs(1));
    assert_eq!(seen.tcp_keepalive_interval().unwrap(), Duration::from_secs(2));
    // Zero would make every close a reset.
    assert_eq!(seen.linger().unwrap(), Some(Duration::from_secs(1)));
}

#[test]
fn buffer_sizes_are_set() {
    let (_reactor, seen, _peer) =
        adopted(SocketOptions::new().send_buffer(20_000).receive_buffer(30_000));
    let seen = SockRef::from(&seen);
    // Linux doubles them for its own bookkeeping (socket(7)).
    assert!((20_000..=40_000).contains(&seen.send_buffer_size().unwrap()));
    assert!((30_000..=60_000).contains(&seen.recv_buffer_size().unwrap()));
}

#[test]
fn traffic_class_and_ttl_are_set_on_ipv4() {
    let (_reactor, seen, _peer) = adopted(SocketOptions::new().traffic_class(46 << 2).ttl(9));
    assert_eq!(SockRef::from(&seen).tos_v4().unwrap(), 46 << 2);
    assert_eq!(seen.ttl().unwrap(), 9);
}

#[test]
fn traffic_class_and_hops_are_set_on_ipv6() {
    let Ok(socket) = UdpSocket::bind("[::1]:0") else {
        return eprintln!("no IPv6 here: not tested");
    };
    let seen = socket.try_clone().unwrap();
    let udp = Udp::adopt(socket).socket_options(SocketOptions::new().traffic_class(46 << 2).ttl(9));
    Reactor::new().unwrap().net().bind_udp(udp, Deaf).unwrap();
    assert_eq!(SockRef::from(&seen).tclass_v6().unwrap(), 46 << 2);
    assert_eq!(SockRef::from(&seen).unicast_hops_v6().unwrap(), 9);
}

#[cfg(target_os = "linux")]
#[test]
fn what_only_linux_knows_is_set_there() {
    let (_reactor, seen, _peer) = adopted(
        SocketOptions::new().user_timeout(Duration::from_millis(12_345)).not_sent_low_water(16_384),
    );
    let seen = SockRef::from(&seen);
    assert_eq!(seen.tcp_user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
    assert_eq!(seen.tcp_notsent_lowat().unwrap(), 16_384);
}

struct Deaf;

impl DatagramHandler for Deaf {
    fn on_datagram(&mut self, _: &mut Context<'_>, _: Datagram<'_>) -> HandlerResult {
        Ok(())
    }
}

#[test]
fn a_udp_sockets_options_are_set() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let seen = socket.try_clone().unwrap();
    let options = SocketOptions::new()
        .broadcast(true)
        .multicast_hops(3)
        .multicast_loop(false)
        .multicast_interface_v4(Ipv4Addr::LOCALHOST)
        .receive_buffer(30_000);
    let udp = Udp::adopt(socket).socket_options(options.reuse_address(true));
    Reactor::new().unwrap().net().bind_udp(udp, Deaf).unwrap();
    assert!(seen.broadcast().unwrap());
    assert_eq!(seen.multicast_ttl_v4().unwrap(), 3);
    assert!(!seen.multicast_loop_v4().unwrap());
    let seen = SockRef::from(&seen);
    assert_eq!(seen.multicast_if_v4().unwrap(), Ipv4Addr::LOCALHOST);
    assert!(seen.reuse_address().unwrap());
    assert!((30_000..=60_000).contains(&seen.recv_buffer_size().unwrap()));
}

#[test]
fn several_udp_sockets_share_a_port_where_both_say_so() {
    for options in [false, true] {
        let mut reactor = Reactor::new().unwrap();
        let share = |address: &str| {
            Udp::bind(address.to_owned().as_str())
                .socket_options(SocketOptions::new().reuse_port(options))
        };
        let first = reactor.net().bind_udp(share("127.0.0.1:0"), Deaf).unwrap();
        let at = address_of(&mut reactor, first).to_string();
        assert_eq!(reactor.net().bind_udp(share(&at), Deaf).is_ok(), options);
    }
}

#[test]
fn an_adopted_listener_gets_the_options_of_its_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let seen = listener.try_clone().unwrap();
    let options = StreamOptions::new().socket_options(SocketOptions::new().ttl(9));
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::adopt(listener).options(options);
    reactor.net().listen(listen, |_| Probe::new(&Log::new())).unwrap();
    assert_eq!(seen.ttl().unwrap(), 9);
    assert!(SockRef::from(&seen).tcp_nodelay().unwrap(), "the default");
}

// ---- refused ----

#[test]
fn an_option_the_system_refuses_is_a_clear_error_of_the_call() {
    let options = || StreamOptions::new().socket_options(SocketOptions::new().ttl(1000));
    let mut reactor = Reactor::new().unwrap();
    let refused = "setting IP_TTL/IPV6_UNICAST_HOPS: Invalid argument (os error 22)";

    let listen = Listen::tcp("127.0.0.1:0").options(options());
    let error = reactor.net().listen(listen, |_| Probe::new(&Log::new())).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on 127.0.0.1:0: {refused}"));
    assert_eq!(error.kind(), ErrorKind::InvalidInput);

    let udp = Udp::bind("127.0.0.1:0").socket_options(SocketOptions::new().ttl(1000));
    let error = reactor.net().bind_udp(udp, Deaf).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot bind UDP 127.0.0.1:0: {refused}"));

    let (_other, _, address) = listening(|| Probe::new(&Log::new()));
    let ours = client(address);
    let adopt = Adopt::from(ours).options(options());
    let error = reactor.net().adopt(adopt, Probe::new(&Log::new())).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot adopt the socket: {refused}"));

    let log = Log::new();
    let connect = Connect::tcp("127.0.0.1:9").options(options());
    reactor.net().connect(connect, Probe::new(&log)).unwrap();
    until(&mut reactor, "the failure", |_| log.closes() == 1);
    assert_eq!(log.reasons(), [format!("cannot connect to 127.0.0.1:9: {refused}")]);
    assert_eq!(reactor.net().connection_count(), 0);
}

#[test]
fn a_multicast_interface_this_host_does_not_have_is_a_clear_error() {
    let options = SocketOptions::new().multicast_interface_v4(Ipv4Addr::new(203, 0, 113, 77));
    let udp = Udp::bind("127.0.0.1:0").socket_options(options);
    let error = Reactor::new().unwrap().net().bind_udp(udp, Deaf).unwrap_err();
    assert!(error.to_string().contains("setting IP_MULTICAST_IF: "), "{error}");
}

#[cfg(unix)]
#[test]
fn options_a_unix_socket_does_not_know_are_passed_over() {
    let (ours, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let seen = ours.try_clone().unwrap();
    let socket = SocketOptions::new().ttl(9).keepalive(Duration::from_secs(9)).send_buffer(20_000);
    let adopt = Adopt::from(ours).options(StreamOptions::new().socket_options(socket));
    let mut reactor = Reactor::new().unwrap();
    reactor.net().adopt(adopt, Probe::new(&Log::new())).unwrap();
    assert!((20_000..=40_000).contains(&SockRef::from(&seen).send_buffer_size().unwrap()));
}

// ---- effects ----

#[test]
fn a_linger_time_never_blocks_the_loop() {
    let log = Log::new();
    let of_handlers = log.clone();
    let socket = SocketOptions::new().linger(Duration::from_secs(60)).send_buffer(30_000);
    let options = StreamOptions::new()
        .socket_options(socket)
        .output_limit(40_000)
        .close_timeout(Duration::from_millis(10));
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handlers)).unwrap();
    let mut peer = small_client(address_of(&mut reactor, listener));
    until(&mut reactor, "a connection", |_| log.opens() == 1);
    let token = log.opened()[0];
    let start = Instant::now();
    // The peer does not read: the system cannot send it all, and close(2) would wait for it.
    reactor.net().send(token, stream_bytes(0, 15_000));
    let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(reactor.net().queued(token), 0, "the test proves nothing");
    reactor.net().close(token);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert!(start.elapsed() < PATIENCE, "close(2) blocked for {:?}", start.elapsed());
    let got = with_client(&mut reactor, move || read_n(&mut peer, 15_000));
    assert!(got == stream_bytes(0, 15_000), "the system goes on sending");
}

// ---- options of a live connection ----

// row 138
#[test]
fn a_live_connection_gets_another_idle_timeout_and_loses_it_again() {
    let time = Duration::from_millis(80);
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let on = "127.0.0.1:0";
    let listener = reactor.net().listen(on, move |_| Probe::new(&of_handler)).unwrap();
    let _peers = [(); 2].map(|()| client(address_of(&mut reactor, listener)));
    until(&mut reactor, "both to open", |_| log.opens() == 2);
    let [one, other] = log.opened()[..] else { panic!() };
    for token in [one, other] {
        let options = reactor.net().options(token).cloned().unwrap();
        assert!(reactor.net().set_options(token, options.idle_timeout(time)));
    }
    let options = reactor.net().options(other).cloned().unwrap();
    assert!(reactor.net().set_options(other, options.idle_timeout(None)));
    let start = Instant::now();
    until(&mut reactor, "the one to end", |_| log.closes() == 1);
    assert!(start.elapsed() >= time);
    assert_eq!(log.reasons(), ["timed out: no byte moved for too long"]);
    assert_eq!(log.of(one).len(), 2);
    assert!(reactor.net().is_open(other));
    assert_eq!(reactor.next_deadline(), None, "nothing runs for the other one");
    assert!(!reactor.net().set_options(one, StreamOptions::new()), "it is gone");
    assert!(reactor.net().options(one).is_none());
}

// row 138
#[test]
fn a_queue_is_measured_by_the_marks_and_limits_that_its_connection_has_now() {
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0")
        .options(StreamOptions::new().overflow(tidegate::Overflow::Drop).output_limit(200_000));
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut peer = small_client(address);
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    let token = log.opened()[0];
    let net = reactor.net();
    // Until the socket takes no more, and 10,000 bytes are queued.
    while net.queued(token) < 10_000 {
        assert!(net.send(token, vec![7; 5_000]).is_accepted());
    }
    let queued = net.queued(token);
    assert!(!net.is_above_high_water(token));
    let options = net.options(token).cloned().unwrap();
    assert!(net.set_options(token, options.clone().high_water(queued - 1).low_water(0)));
    assert!(net.is_above_high_water(token), "the mark is lower than what is queued");
    assert!(net.set_options(token, options.clone().output_limit(queued)));
    assert_eq!(net.send(token, b"x"), tidegate::SendStatus::Full);
    assert_eq!(net.queued(token), queued, "what is queued stays");
    assert!(net.set_options(token, options.high_water(queued * 2).low_water(queued)));
    assert!(!net.is_above_high_water(token));
    until(&mut reactor, "on_drain", |_| log.told().contains(&crate::support::Told::Drain));
    assert!(read_n(&mut peer, 5_000).iter().all(|&byte| byte == 7));
}
