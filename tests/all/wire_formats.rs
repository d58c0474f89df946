//! One handler, every wire: the same handlers, without a line changed, pass the same tests over raw
//! sockets and over each wire format.

use tidegate::layer::Layer;
use tidegate::{Connect, Context, Listen, Reactor, StreamOptions, Token};

use crate::support::{Log, Probe, until};

type MakeLayer = fn() -> Box<dyn Layer>;

/// A way to talk: over which sockets, in which format on either side.
struct Wire {
    unix: bool,
    layers: Option<(MakeLayer, MakeLayer)>,
}

impl Wire {
    const TCP: Wire = Wire { unix: false, layers: None };
    #[cfg(unix)]
    const UNIX: Wire = Wire { unix: true, layers: None };

    /// The same format on both sides.
    const fn both(layer: MakeLayer) -> Wire {
        Wire { unix: false, layers: Some((layer, layer)) }
    }

    /// A server's and a client's side.
    #[allow(dead_code)] // not with every set of features
    const fn sides(server: MakeLayer, client: MakeLayer) -> Wire {
        Wire { unix: false, layers: Some((server, client)) }
    }
}

/// Two parties on one reactor, over one wire.
struct Stage {
    reactor: Reactor,
    wire: Wire,
    server: Log,
    client: Log,
    listener: Token,
    options: StreamOptions,
    path: Option<std::path::PathBuf>,
}

impl Stage {
    fn set(wire: Wire, serve: impl FnMut(&Log) -> Probe + 'static) -> Stage {
        Self::with_options(wire, StreamOptions::new(), serve)
    }

    fn with_options(
        wire: Wire,
        options: StreamOptions,
        mut serve: impl FnMut(&Log) -> Probe + 'static,
    ) -> Stage {
        let mut reactor = Reactor::new().unwrap();
        let server = Log::new();
        let path = wire.unix.then(|| {
            let unique = format!("tidegate-{}-{:p}.sock", std::process::id(), &raw const reactor);
            std::env::temp_dir().join(unique)
        });
        let mut listen = match &path {
            #[cfg(unix)]
            Some(path) => Listen::unix(path),
            _ => Listen::tcp("127.0.0.1:0"),
        };
        listen = listen.options(options.clone());
        if let Some((layer, _)) = wire.layers {
            listen = listen.layer(move |_| layer());
        }
        let log = server.clone();
        let listener = reactor.net().listen(listen, move |_| serve(&log)).unwrap();
        Stage { reactor, wire, server, client: Log::new(), listener, options, path }
    }

    fn connect(&mut self, client: Probe) -> Token {
        let mut connect = match &self.path {
            #[cfg(unix)]
            Some(path) => Connect::unix(path),
            _ => {
                let address =
                    self.reactor.net().local_addr(self.listener).unwrap().socket_addr().unwrap();
                Connect::tcp(address)
            }
        };
        // The clients here talk without being asked: they must go on reading whatever they have queued.
        connect = connect.options(self.options.clone().auto_pause(false));
        if let Some((_, layer)) = self.wire.layers {
            connect = connect.layer(layer());
        }
        self.reactor.net().connect(connect, client).unwrap()
    }

    #[track_caller]
    fn until(&mut self, what: &str, mut done: impl FnMut(&Log, &Log) -> bool) {
        let (server, client) = (self.server.clone(), self.client.clone());
        until(&mut self.reactor, what, |_| done(&server, &client));
    }
}

/// A message of `n` letters: what every format can carry.
fn letters(n: usize, seed: usize) -> Vec<u8> {
    (0..n).map(|i| b'a' + ((i * 7 + i / 26 + seed) % 26) as u8).collect()
}

/// What is sent comes back, whatever its size, and both sides close in order, once.
fn echoes(wire: Wire) {
    let mut stage = Stage::set(wire, Probe::echo);
    let messages: Vec<Vec<u8>> =
        [1, 2, 63, 64, 500, 1_000, 4_000, 8_000].iter().map(|&n| letters(n, n)).collect();
    let all = messages.concat();
    let (expected, mut left) = (all.clone(), all.len());
    let client = Probe::new(&stage.client)
        .open(move |cx| {
            for message in &messages {
                cx.send(message);
            }
            Ok(())
        })
        .data(move |cx, input| {
            left -= input.take_all().len();
            if left == 0 {
                cx.close();
            }
            Ok(())
        });
    stage.connect(client);
    stage.until("both closes", |server, client| server.closes() == 1 && client.closes() == 1);
    assert!(
        stage.client.data() == expected,
        "{:?} {:?}",
        stage.client.reasons(),
        stage.server.reasons()
    );
    assert!(
        stage.server.data() == expected,
        "{:?} {:?}",
        stage.client.reasons(),
        stage.server.reasons()
    );
    for log in [&stage.server, &stage.client] {
        assert_eq!((log.opens(), log.closes()), (1, 1), "{:?}", log.told());
        let reason = log.reasons().remove(0);
        assert!(reason == "both sides ended" || reason == "closed", "{reason}");
    }
}

/// What is sent before the connection stands, handshakes included, goes out when it does.
fn sends_before_the_opening(wire: Wire) {
    let mut stage = Stage::set(wire, Probe::echo);
    let probe = Probe::new(&stage.client);
    let token = stage.connect(probe);
    for i in 0..10 {
        assert!(stage.reactor.net().send(token, letters(20, i)).is_accepted());
    }
    stage.until("the echo", |_, client| client.data().len() == 200);
    let expected: Vec<u8> = (0..10).flat_map(|i| letters(20, i)).collect();
    assert!(
        stage.client.data() == expected,
        "{:?} {:?}",
        stage.client.reasons(),
        stage.server.reasons()
    );
}

/// A server that says much and closes is heard to the end.
fn a_close_loses_nothing(wire: Wire) {
    const MESSAGES: usize = 200;
    let mut stage = Stage::set(wire, |log| {
        Probe::new(log).open(|cx| {
            for i in 0..MESSAGES {
                assert!(cx.send(letters(1_000, i)).is_accepted());
            }
            cx.close();
            Ok(())
        })
    });
    let probe = Probe::new(&stage.client);
    stage.connect(probe);
    stage.until("both closes", |server, client| server.closes() == 1 && client.closes() == 1);
    let expected: Vec<u8> = (0..MESSAGES).flat_map(|i| letters(1_000, i)).collect();
    assert!(
        stage.client.data() == expected,
        "{:?} {:?}",
        stage.client.reasons(),
        stage.server.reasons()
    );
    assert_eq!(stage.client.eofs(), 1);
}

/// Much data both ways through small marks: back-pressure holds, and nothing is lost.
fn back_pressure_loses_nothing(wire: Wire) {
    const MESSAGES: usize = 400;
    const SIZE: usize = 4_000;
    let options = StreamOptions::new().low_water(4_096).high_water(16_384);
    let mut stage = Stage::with_options(wire, options, Probe::echo);
    let mut sent = 0;
    let mut fill = move |cx: &mut Context<'_>| {
        while sent < MESSAGES {
            let status = cx.send(letters(SIZE, sent));
            assert!(status.is_accepted());
            sent += 1;
            if status == tidegate::SendStatus::AboveHighWater {
                break;
            }
        }
        Ok(())
    };
    let fill = std::rc::Rc::new(std::cell::RefCell::new(move |cx: &mut Context<'_>| fill(cx)));
    let again = std::rc::Rc::clone(&fill);
    let mut got = 0;
    let client = Probe::new(&stage.client)
        .open(move |cx| fill.borrow_mut()(cx))
        .drain(move |cx| again.borrow_mut()(cx))
        .data(move |cx, input| {
            got += input.take_all().len();
            if got == MESSAGES * SIZE {
                cx.close();
            }
            Ok(())
        });
    stage.connect(client);
    stage.until("both closes", |server, client| server.closes() == 1 && client.closes() == 1);
    let expected: Vec<u8> = (0..MESSAGES).flat_map(|i| letters(SIZE, i)).collect();
    assert!(stage.client.data() == expected, "what came back is not what was sent");
    assert!(stage.client.count(|told| *told == crate::support::Told::Drain) > 0);
}

/// A paused handler gets nothing; a resumed one gets all, then the end.
fn pausing_holds_back(wire: Wire) {
    let mut stage = Stage::set(wire, |log| {
        Probe::new(log)
            .open(|cx| {
                cx.pause();
                Ok(())
            })
            .notify(|cx, _| {
                cx.resume();
                Ok(())
            })
    });
    let client = Probe::new(&stage.client).open(|cx| {
        for i in 0..50 {
            cx.send(letters(100, i));
        }
        cx.close();
        Ok(())
    });
    stage.connect(client);
    stage.until("the opening", |server, _| server.opens() == 1);
    crate::support::settle(&mut stage.reactor);
    assert_eq!(stage.server.data(), b"");
    let paused = stage.server.opened()[0];
    assert!(stage.reactor.net().notify(paused, ()));
    stage.until("the close", |server, _| server.closes() == 1);
    let expected: Vec<u8> = (0..50).flat_map(|i| letters(100, i)).collect();
    assert!(
        stage.server.data() == expected,
        "{:?} {:?}",
        stage.client.reasons(),
        stage.server.reasons()
    );
    assert_eq!(stage.server.eofs(), 1);
}

/// One message to a group reaches every member, in each one's own format, in order with what is
/// sent to it directly.
fn groups_reach_everybody(wire: Wire) {
    let mut stage = Stage::set(wire, Probe::new);
    for _ in 0..3 {
        let probe = Probe::new(&stage.client);
        stage.connect(probe);
    }
    stage.until("the openings", |server, client| server.opens() == 3 && client.opens() == 3);
    let net = stage.reactor.net();
    let group = net.create_group();
    let members = stage.server.opened();
    for &member in &members {
        assert!(net.join(group, member));
    }
    assert_eq!(net.publish(group, "one").members, 3);
    assert!(net.send(members[0], "two").is_accepted());
    assert_eq!(net.publish_except(group, members[1], "three").members, 2);
    stage.until("all of it", |_, client| client.data().len() == 3 * 3 + 3 + 2 * 5);
    let mut heard: Vec<String> = stage
        .client
        .opened()
        .into_iter()
        .map(|token| {
            let data = stage.client.of(token).into_iter().filter_map(|told| match told {
                crate::support::Told::Data(bytes) => Some(bytes),
                _ => None,
            });
            String::from_utf8(data.flatten().collect()).unwrap()
        })
        .collect();
    heard.sort();
    assert_eq!(heard, ["one", "onethree", "onetwothree"]);
}

/// One connection's violent end leaves its neighbours as they are.
fn an_abort_costs_one_connection(wire: Wire) {
    let mut stage = Stage::set(wire, Probe::echo);
    let first = Probe::new(&stage.client);
    let first = stage.connect(first);
    let second = Probe::new(&stage.client);
    let second = stage.connect(second);
    stage.until("the openings", |server, client| server.opens() == 2 && client.opens() == 2);
    stage.reactor.net().abort(first);
    stage.until("the end of one", |server, client| server.closes() == 1 && client.closes() == 1);
    assert!(stage.reactor.net().send(second, "still here").is_accepted());
    stage.until("the echo", |_, client| client.data() == b"still here");
}

/// A handler's error reaches its own `on_close`, after what it sent has been flushed.
fn an_error_closes_with_its_reason(wire: Wire) {
    let mut stage = Stage::set(wire, |log| {
        Probe::new(log).data(|cx, input| {
            input.take_all();
            cx.send("goodbye");
            Err("no more of this".into())
        })
    });
    let client = Probe::new(&stage.client).open(|cx| {
        cx.send("hello");
        Ok(())
    });
    stage.connect(client);
    stage.until("both closes", |server, client| server.closes() == 1 && client.closes() == 1);
    assert_eq!(stage.server.reasons(), ["no more of this"]);
    assert_eq!(stage.client.data(), b"goodbye");
}

/// Makes a module of tests for each wire.
macro_rules! over {
    ($($(#[$attribute:meta])* $name:ident: $wire:expr;)*) => {$(
        $(#[$attribute])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            over!(@tests $wire; echoes, sends_before_the_opening, a_close_loses_nothing,
                back_pressure_loses_nothing, pausing_holds_back, groups_reach_everybody,
                an_abort_costs_one_connection, an_error_closes_with_its_reason);
        }
    )*};
    (@tests $wire:expr; $($test:ident),*) => {$(
        #[test]
        fn $test() {
            super::$test($wire);
        }
    )*};
}

use tidegate::layer::{Delimited, LengthPrefixed, Lines};

over! {
    tcp: Wire::TCP;
    #[cfg(unix)]
    unix: Wire::UNIX;
    lines: Wire::both(|| Box::new(Lines::new()));
    lines_crlf: Wire::both(|| Box::new(Lines::new().crlf()));
    length_prefixed: Wire::both(|| Box::new(LengthPrefixed::new(4)));
    varint_prefixed: Wire::both(|| Box::new(LengthPrefixed::varint()));
    delimited: Wire::both(|| Box::new(Delimited::new("\0\0")));
    length_prefixed_lines: Wire::both(|| Box::new(LengthPrefixed::new(2).then(Lines::new())));
}

#[cfg(feature = "deflate")]
over! {
    deflate: Wire::both(|| Box::new(tidegate::layer::Deflate::new()));
    deflate_per_message: Wire::both(|| Box::new(tidegate::layer::Deflate::per_message()));
    deflate_lines: Wire::both(|| Box::new(tidegate::layer::Deflate::new().then(Lines::new())));
}

#[cfg(feature = "lz4")]
over! {
    lz4: Wire::both(|| Box::new(tidegate::layer::Lz4::new()));
    prefixed_lz4: Wire::both(|| Box::new(LengthPrefixed::new(4).then(tidegate::layer::Lz4::new())));
}

#[cfg(feature = "tls")]
mod secure {
    use std::sync::OnceLock;

    use tidegate::layer::tls::{Pem, Tls, TlsClientConfig, TlsServerConfig};

    /// One self-signed certificate for all tests of a run.
    fn configs() -> &'static (TlsServerConfig, TlsClientConfig) {
        static CONFIGS: OnceLock<(TlsServerConfig, TlsClientConfig)> = OnceLock::new();
        CONFIGS.get_or_init(|| {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let certificate = made.cert.pem();
            let key = made.signing_key.serialize_pem();
            let server = TlsServerConfig::builder()
                .certificate(Pem::bytes(certificate.clone()), Pem::bytes(key))
                .build()
                .unwrap();
            let client = TlsClientConfig::builder().roots(Pem::bytes(certificate)).build().unwrap();
            (server, client)
        })
    }

    pub(super) fn server() -> Tls {
        configs().0.layer()
    }

    pub(super) fn client() -> Tls {
        configs().1.layer("localhost").unwrap()
    }
}

#[cfg(feature = "tls")]
over! {
    tls: Wire::sides(|| Box::new(secure::server()), || Box::new(secure::client()));
    tls_lines: Wire::sides(
        || Box::new(secure::server().then(Lines::new())),
        || Box::new(secure::client().then(Lines::new())),
    );
}

#[cfg(feature = "websocket")]
mod web {
    use tidegate::layer::websocket::WebSocket;

    pub(super) fn server() -> WebSocket {
        WebSocket::server().layer()
    }

    pub(super) fn client() -> WebSocket {
        WebSocket::client("localhost", "/").layer()
    }

    pub(super) fn server_deflate() -> WebSocket {
        WebSocket::server().deflate(true).deflate_threshold(32).layer()
    }

    pub(super) fn client_deflate() -> WebSocket {
        WebSocket::client("localhost", "/").deflate(true).deflate_threshold(32).layer()
    }
}

#[cfg(feature = "websocket")]
over! {
    websocket: Wire::sides(|| Box::new(web::server()), || Box::new(web::client()));
    websocket_deflate: Wire::sides(
        || Box::new(web::server_deflate()),
        || Box::new(web::client_deflate()),
    );
    websocket_lines: Wire::sides(
        || Box::new(web::server().then(Lines::new())),
        || Box::new(web::client().then(Lines::new())),
    );
}

#[cfg(all(feature = "tls", feature = "websocket"))]
over! {
    tls_websocket: Wire::sides(
        || Box::new(secure::server().then(web::server())),
        || Box::new(secure::client().then(web::client())),
    );
}

#[cfg(all(feature = "tls", feature = "deflate"))]
over! {
    tls_deflate: Wire::sides(
        || Box::new(secure::server().then(tidegate::layer::Deflate::new())),
        || Box::new(secure::client().then(tidegate::layer::Deflate::new())),
    );
}
