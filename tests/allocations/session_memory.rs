//! What sessions of UDP peers cost, and what strangers cost.

use std::net::{SocketAddr, UdpSocket};

use tidegate::{
    Admission, Context, Datagram, DatagramHandler, HandlerResult, Hello, Reactor, SessionOptions,
};

use crate::support::{address_of, settle, until};

struct Echo;

impl DatagramHandler for Echo {
    fn on_datagram(&mut self, cx: &mut Context<'_>, datagram: Datagram<'_>) -> HandlerResult {
        cx.send(datagram.bytes);
        Ok(())
    }
}

fn say(to: SocketAddr, bytes: &[u8]) {
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(bytes, to).unwrap();
}

/// What a session may take beside its handler, in bytes: its state, its slot, its timer, its places in
/// the socket's maps. Tables grow by doubling, so that up to half is reserve.
const MOST: usize = 800;

// row 196
#[test]
fn a_session_costs_some_hundred_bytes_and_a_stranger_none() {
    const COUNT: usize = 2_000;
    let mut reactor = Reactor::new().unwrap();
    let options = SessionOptions::new().max_per_address(COUNT).idle_timeout(None);
    let watched = options.clone().idle_timeout(std::time::Duration::from_secs(3600));
    let mut figures = Vec::new();
    for options in [options, watched] {
        let admit = |hello: &Hello<'_>| match hello.bytes {
            b"join" => Admission::accept(Echo),
            b"ask" => Admission::reply(b"no"),
            _ => Admission::ignore(),
        };
        let socket = reactor.net().bind_sessions("127.0.0.1:0", options, admit).unwrap();
        let to = address_of(&mut reactor, socket);
        let strangers = |reactor: &mut Reactor, count: u64| {
            for n in 0..count {
                say(to, if n % 2 == 0 { b"ask" } else { b"what?" });
                if n % 50 == 49 {
                    settle(reactor);
                }
            }
        };
        strangers(&mut reactor, 50); // the buffers of the loop
        let kept = allocation_counter::measure(|| strangers(&mut reactor, 10_000));
        let stats = reactor.net().session_stats(socket).unwrap();
        assert!(stats.replied + stats.ignored >= 10_000, "{stats:?}");
        assert_eq!((stats.open, kept.bytes_current), (0, 0), "kept for strangers");

        let sessions = allocation_counter::measure(|| {
            until(&mut reactor, "all to join", |reactor| {
                // A port may come twice.
                for _ in 0..50 {
                    if reactor.net().sessions(socket).len() < COUNT {
                        say(to, b"join");
                    }
                    let _ = reactor.turn(Some(std::time::Duration::ZERO)).unwrap();
                }
                reactor.net().sessions(socket).len() >= COUNT
            });
        });
        let each = usize::try_from(sessions.bytes_current).unwrap() / COUNT;
        figures.push(each);
        assert!(each < MOST, "{each} bytes for each session");
        // Sessions that end give back what the socket kept for them.
        reactor.net().close(socket);
        settle(&mut reactor);
    }
    eprintln!("a session costs {} bytes, {} with an idle timeout", figures[0], figures[1]);
}
