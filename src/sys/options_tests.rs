//! Options seen on sockets that a user of the crate has no descriptor of: connected and accepted.

use std::net::{SocketAddr, TcpStream};

use super::*;
use crate::address::Address;
use crate::sys::{self, Stream};

fn all() -> SocketOptions {
    SocketOptions::new()
        .keepalive(Duration::from_secs(33))
        .keepalive_probes(Duration::from_secs(7), 4)
        .send_buffer(20_000)
        .receive_buffer(30_000)
        .traffic_class(46 << 2)
        .ttl(9)
        .user_timeout(Duration::from_millis(12_345))
        .linger(Duration::from_secs(3))
        .not_sent_low_water(16_384)
}

#[track_caller]
fn assert_all(stream: &Stream, v4: bool) {
    let Stream::Tcp(tcp) = stream else { panic!("{stream:?}") };
    let seen = SockRef::from(tcp);
    assert!(seen.tcp_nodelay().unwrap());
    assert!(seen.keepalive().unwrap());
    assert_eq!(seen.tcp_keepalive_time().unwrap(), Duration::from_secs(33));
    assert_eq!(seen.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
    assert_eq!(seen.tcp_keepalive_retries().unwrap(), 4);
    assert!((20_000..=40_000).contains(&seen.send_buffer_size().unwrap()));
    assert!((30_000..=60_000).contains(&seen.recv_buffer_size().unwrap()));
    assert_eq!(seen.linger().unwrap(), Some(Duration::from_secs(3)));
    if v4 {
        assert_eq!(seen.tos_v4().unwrap(), 46 << 2);
        assert_eq!(seen.ttl_v4().unwrap(), 9);
    } else {
        assert_eq!(seen.tclass_v6().unwrap(), 46 << 2);
        assert_eq!(seen.unicast_hops_v6().unwrap(), 9);
    }
    #[cfg(target_os = "linux")]
    {
        assert_eq!(seen.tcp_user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
        assert_eq!(seen.tcp_notsent_lowat().unwrap(), 16_384);
    }
}

/// Accepts one, when it has come.
fn accepted(listener: &sys::Listener, options: &SocketOptions, adopted: bool) -> Stream {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.apply_accepted(options, adopted).unwrap();
                return stream;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_connecting_socket_has_its_options_from_the_start() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Address::Ip(listener.local_addr().unwrap());
    assert_all(&sys::connect(&to, None, &all()).unwrap(), true);
}

#[test]
fn an_accepted_socket_inherits_every_option_of_its_listener() {
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let on: SocketAddr = any.parse().unwrap();
        let Ok(listener) = sys::listen(&Address::Ip(on), 10, &all(), false) else {
            assert!(on.is_ipv6(), "no {any}");
            continue;
        };
        let at = listener.local_addr().unwrap().socket_addr().unwrap();
        let _client = TcpStream::connect(at).unwrap();
        assert_all(&accepted(&listener, &all(), false), on.is_ipv4());
    }
}

#[test]
fn who_waits_at_an_adopted_listener_gets_every_option_too() {
    for any in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = std::net::TcpListener::bind(any) else {
            assert!(any.starts_with('['), "no {any}");
            continue;
        };
        let at = listener.local_addr().unwrap();
        let _early = TcpStream::connect(at).unwrap();
        let listener = sys::adopt_tcp_listener(listener).unwrap();
        let options = all().reuse_port(true);
        listener.apply(&options).unwrap();
        let _late = TcpStream::connect(at).unwrap();
        for _ in 0..2 {
            assert_all(&accepted(&listener, &options, true), at.is_ipv4());
        }
    }
}

#[cfg(unix)]
#[test]
fn an_accepted_unix_socket_gets_its_buffers() {
    let path = std::env::temp_dir().join(format!("tidegate-options-{}", std::process::id()));
    let on = Address::Unix(Some(path.clone()));
    let listener = sys::listen(&on, 10, &all(), false).unwrap();
    let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let Stream::Unix(unix) = accepted(&listener, &all(), false) else { panic!() };
    let seen = SockRef::from(&unix);
    assert!((20_000..=40_000).contains(&seen.send_buffer_size().unwrap()));
    assert!((30_000..=60_000).contains(&seen.recv_buffer_size().unwrap()));
}

#[test]
fn options_for_binding_are_not_set_on_what_is_accepted() {
    let Ok(listener) = std::net::TcpListener::bind("[::1]:0") else {
        return eprintln!("no IPv6 here: not tested");
    };
    let at = listener.local_addr().unwrap();
    let listener = sys::adopt_tcp_listener(listener).unwrap();
    let _client = TcpStream::connect(at).unwrap();
    // The system refuses to change it on a socket that has an address.
    accepted(&listener, &SocketOptions::new().only_v6(false), true);
}

#[test]
fn delay_is_inherited_too() {
    let on = Address::Ip("127.0.0.1:0".parse().unwrap());
    for delay in [true, false] {
        let options = SocketOptions::new().nodelay(!delay);
        let listener = sys::listen(&on, 10, &options, false).unwrap();
        let _client =
            TcpStream::connect(listener.local_addr().unwrap().socket_addr().unwrap()).unwrap();
        let Stream::Tcp(tcp) = accepted(&listener, &options, false) else { panic!() };
        assert_eq!(tcp.nodelay().unwrap(), !delay);
    }
}

#[test]
fn an_ipv6_listener_can_leave_the_ipv4_port_to_others_or_take_it() {
    let on = Address::Ip("[::]:0".parse().unwrap());
    if sys::listen(&on, 10, &SocketOptions::new(), false).is_err() {
        return eprintln!("no IPv6 here: not tested");
    }
    for only in [true, false] {
        // Whether IPv4 is left alone. Another process may have the port there: then on another one.
        let is_left = |_| {
            let listener = sys::listen(&on, 10, &SocketOptions::new().only_v6(only), false);
            let port =
                listener.as_ref().unwrap().local_addr().unwrap().socket_addr().unwrap().port();
            TcpStream::connect(("127.0.0.1", port)).is_err()
        };
        assert_eq!((0..10).any(is_left), only);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn busy_polling_is_set_where_the_privilege_is_there() {
    let on = Address::Ip("127.0.0.1:0".parse().unwrap());
    match sys::listen(&on, 10, &SocketOptions::new().busy_poll(50), false) {
        Ok(sys::Listener::Tcp(tcp)) => assert_eq!(SockRef::from(&tcp).busy_poll().unwrap(), 50),
        Ok(other) => panic!("{other:?}"),
        Err(e) => assert!(e.to_string().starts_with("setting SO_BUSY_POLL: "), "{e}"),
    }
}

#[test]
fn times_are_rounded_up_to_whole_seconds() {
    for (millis, seconds) in [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2)] {
        assert_eq!(whole_seconds(Duration::from_millis(millis)), Duration::from_secs(seconds));
    }
    assert_eq!(whole_seconds(Duration::MAX), Duration::from_secs(u64::MAX));
}

// D7
#[cfg(all(feature = "udp-batch", target_os = "linux"))]
#[test]
fn a_port_that_the_system_chooses_is_chosen_when_the_destination_is_known() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = Address::Ip(server.local_addr().unwrap());
    let from = Some("127.0.0.1:0".parse().unwrap());
    let stream = sys::connect(&to, from, &SocketOptions::new()).unwrap();
    let Stream::Tcp(tcp) = &stream else { panic!("{stream:?}") };
    let late = nix::sys::socket::sockopt::IpBindAddressNoPort;
    assert!(nix::sys::socket::getsockopt(tcp, late).unwrap());
}

// D7
#[cfg(not(windows))]
#[test]
fn a_fixed_local_port_may_be_in_time_wait() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let to = Address::Ip(server.local_addr().unwrap());
    let stream = sys::connect(&to, Some(free), &SocketOptions::new()).unwrap();
    let Stream::Tcp(tcp) = &stream else { panic!("{stream:?}") };
    assert!(SockRef::from(tcp).reuse_address().unwrap());
}

// D6
#[cfg(target_os = "linux")]
#[test]
fn a_dual_stack_socket_has_its_options_for_peers_of_both_families() {
    let on = Address::Ip("[::]:0".parse().unwrap());
    for only in [false, true] {
        let options = SocketOptions::new().traffic_class(46 << 2).ttl(9).only_v6(only);
        let Ok(listener) = sys::listen(&on, 10, &options, false) else { return };
        let sys::Listener::Tcp(tcp) = &listener else { panic!("{listener:?}") };
        let seen = SockRef::from(tcp);
        assert_eq!((seen.tclass_v6().unwrap(), seen.unicast_hops_v6().unwrap()), (46 << 2, 9));
        let both = (seen.tos_v4().unwrap(), seen.ttl_v4().unwrap()) == (46 << 2, 9);
        assert_eq!(both, !only, "IPv4 peers, where it has any");
    }
}
