use super::*;
use crate::layer::tls::rustls::version::TLS12;

/// A client that talks TLS 1.2 only: the builder has no such option, so it goes the long way.
fn client_of_tls12(world: &World) -> TlsClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    world.authority.pem().add_roots(&mut roots).unwrap();
    TlsClientConfig::from_rustls(
        rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth(),
    )
}

#[test]
fn both_sides_become_ready_and_know_what_was_agreed() {
    let world = World::new();
    let pair = world.pair().ready();
    for side in [&pair.client, &pair.server] {
        assert_eq!(side.info().version(), TlsVersion::V1_3);
        assert!(side.info().cipher_suite().starts_with("TLS13_"), "{:?}", side.info());
        assert_eq!(side.info().server_name(), Some("localhost"));
        assert_eq!(side.info().alpn(), None);
        assert!(!side.info().is_resumed());
    }
    assert_eq!(pair.client.info().peer_certificate(), Some(&world.identity.der[..]));
    assert_eq!(pair.client.info().peer_fingerprint(), Some(Fingerprint::of(&world.identity.der)));
    assert_eq!(pair.server.info().peer_certificates().len(), 0);
}

#[test]
fn no_fact_before_the_handshake_is_done_and_none_of_other_types() {
    let world = World::new();
    let pair = world.pair();
    assert!(pair.client.tls.layer_info(TypeId::of::<TlsInfo>()).is_none());
    let pair = pair.ready();
    assert!(pair.client.tls.layer_info(TypeId::of::<String>()).is_none());
}

#[test]
fn tls12_is_spoken_unless_refused() {
    let world = World::new();
    let client = client_of_tls12(&world);
    let pair = Pair::of(&world.server().build().unwrap(), &client).ready();
    assert_eq!(pair.server.info().version(), TlsVersion::V1_2);
    assert_eq!(pair.client.info().version(), TlsVersion::V1_2);
    assert!(pair.client.info().cipher_suite().starts_with("TLS_ECDHE_"));

    let mut pair = Pair::of(&world.server().only_tls13().build().unwrap(), &client);
    pair.run();
    pair.server.refused(LayerErrorKind::Refused, "a TLS version");
    pair.client.refused(LayerErrorKind::RefusedByPeer, "no TLS version in common");
}

#[test]
fn a_server_prefers_aes_with_short_keys_unless_it_takes_the_order_of_its_client() {
    let world = World::new();
    let suite = |server: TlsServerBuilder, client: &TlsClientConfig| {
        let pair = Pair::of(&server.build().unwrap(), client).ready();
        pair.client.info().cipher_suite().to_owned()
    };
    let client = world.client().build().unwrap();
    assert_eq!(suite(world.server(), &client), "TLS13_AES_128_GCM_SHA256");
    assert_eq!(suite(world.server().client_cipher_order(), &client), "TLS13_AES_256_GCM_SHA384");
    let old = client_of_tls12(&world);
    assert!(suite(world.server(), &old).contains("AES_128"), "{}", suite(world.server(), &old));
    // A provider of one's own decides by itself.
    let mut own = rustls::crypto::ring::default_provider();
    own.cipher_suites.reverse();
    own.cipher_suites.retain(|suite| suite.suite().as_str().unwrap().starts_with("TLS13_CHACHA"));
    assert_eq!(
        suite(world.server().crypto_provider(own.clone()), &client),
        "TLS13_CHACHA20_POLY1305_SHA256"
    );
    let client = world.client().crypto_provider(own).build().unwrap();
    assert_eq!(suite(world.server(), &client), "TLS13_CHACHA20_POLY1305_SHA256");
}

#[cfg(feature = "tls-aws-lc")]
#[test]
fn aws_lc_and_ring_understand_each_other() {
    let world = World::new();
    for (server_has_it, client_has_it) in [(true, true), (true, false), (false, true)] {
        let server = world.server();
        let server = if server_has_it { server.aws_lc() } else { server };
        let client = world.client();
        let client = if client_has_it { client.aws_lc() } else { client };
        let (server, client) = (server.build().unwrap(), client.build().unwrap());
        for resumed in [false, true] {
            let mut pair = Pair::of(&server, &client).ready();
            assert_eq!(pair.server.info().cipher_suite(), "TLS13_AES_128_GCM_SHA256");
            assert_eq!(pair.server.info().is_resumed(), resumed);
            pair.client.send(b"to the server");
            pair.server.send(b"to the client");
            pair.run();
            assert_eq!(pair.server.got, b"to the server");
            assert_eq!(pair.client.got, b"to the client");
        }
    }
}

#[test]
fn every_chunk_size_comes_to_the_same() {
    let world = World::new();
    let clients = [world.client().without_resumption().build().unwrap(), client_of_tls12(&world)];
    let server = world.server().build().unwrap();
    let up = noise(300);
    for client in &clients {
        for chunk in (1..64).chain((64..4000).step_by(131)) {
            let mut pair = Pair::of(&server, client);
            pair.run_in(chunk);
            pair.client.send(&up);
            pair.server.send(b"down");
            pair.run_in(chunk);
            pair.client.tls.end(
                &mut Environment::new().cx(),
                &LayerEnd::Closed,
                &mut pair.client.out,
            );
            pair.server.tls.end(
                &mut Environment::new().cx(),
                &LayerEnd::Closed,
                &mut pair.server.out,
            );
            pair.run_in(chunk);
            assert!(pair.client.error.is_none(), "chunk {chunk}: {:?}", pair.client.error);
            assert!(pair.server.error.is_none(), "chunk {chunk}: {:?}", pair.server.error);
            assert_eq!(pair.server.got, up, "chunk {chunk}");
            assert_eq!(pair.client.got, b"down", "chunk {chunk}");
            assert!(pair.client.ended && pair.server.ended, "chunk {chunk}");
        }
    }
}

#[test]
fn every_split_in_two_of_every_flight_comes_to_the_same() {
    let world = World::new();
    let server = world.server().build().unwrap();
    let client = world.client().without_resumption().build().unwrap();
    let mut at = 0;
    loop {
        let mut pair = Pair::of(&server, &client);
        let mut longest = 0;
        while !(pair.client.out.is_empty() && pair.server.out.is_empty()) {
            longest = longest.max(carry_split(&mut pair.client, &mut pair.server, at));
            longest = longest.max(carry_split(&mut pair.server, &mut pair.client, at));
        }
        assert!(pair.client.tls.is_ready() && pair.server.tls.is_ready(), "split at {at}");
        at += 1;
        if at > longest {
            break;
        }
    }
    assert!(at > 300, "the flights are longer than that");
}

/// Carries one flight in two parts, and tells its length.
fn carry_split(from: &mut Side, to: &mut Side, at: usize) -> usize {
    let flight = mem::take(&mut from.out);
    let (first, second) = flight.split_at(at.min(flight.len()));
    to.receive(first);
    to.receive(second);
    flight.len()
}

#[test]
fn data_that_comes_with_the_last_flight_waits_for_the_handshake() {
    let world = World::new();
    let mut pair = world.pair();
    let hello = mem::take(&mut pair.client.out);
    pair.server.receive(&hello);
    let flight = mem::take(&mut pair.server.out);
    pair.client.receive(&flight);
    assert!(pair.client.tls.is_ready());
    pair.client.send(b"first words");
    let mut all = mem::take(&mut pair.client.out);

    let mut unit = Vec::new();
    let step = pair
        .server
        .tls
        .decode(&mut Environment::new().cx(), &mut all, &mut unit, &mut pair.server.out)
        .unwrap();
    assert_eq!(step.item, Item::Progress);
    assert!(pair.server.tls.is_ready() && unit.is_empty());
    pair.server.receive(&all[step.consumed..]);
    assert_eq!(pair.server.got, b"first words");
}

/// The driver of the session takes all that is to be said before anything is sent. If it did not, nothing
/// would be lost.
#[test]
fn what_rustls_has_still_to_say_goes_before_what_is_sent() {
    use rustls::unbuffered::ConnectionState;

    let mut pair = World::new().pair();
    let hello = mem::take(&mut pair.client.out);
    pair.server.receive(&hello);
    let flight = mem::take(&mut pair.server.out);
    pair.client.receive(&flight);
    let mut finished = mem::take(&mut pair.client.out);

    let mut session = pair.server.tls.session.take().expect("it has begun");
    let Session::Server(conn) = &mut session else { unreachable!() };
    let (mut used, mut said) = (0, vec![0; 10_000]);
    let first = loop {
        let status = conn.process_tls_records(&mut finished[used..]);
        used += status.discard;
        match status.state.expect("it is in order") {
            ConnectionState::EncodeTlsData(mut ticket) => break ticket.encode(&mut said).unwrap(),
            ConnectionState::TransmitTlsData(data) => data.done(),
            _ => assert!(used < finished.len(), "the server says nothing behind the handshake"),
        }
    };
    said.truncate(first);
    assert!(session.is_ready());
    session.encrypt(&mut [], b"hello", &mut said).expect("it is open");
    pair.client.receive(&said);
    assert_eq!(pair.client.got, b"hello");
}

#[test]
fn alpn_agrees_on_the_servers_first_choice_or_refuses() {
    let world = World::new();
    let server = world.server().alpn(["chat/2", "chat/1"]).build().unwrap();
    let client = |names: &[&str]| world.client().alpn(names).build().unwrap();

    let pair = Pair::of(&server, &client(&["chat/1", "chat/2"])).ready();
    assert_eq!(pair.client.info().alpn(), Some(&b"chat/2"[..]));
    assert_eq!(pair.server.info().alpn(), Some(&b"chat/2"[..]));

    let pair = Pair::of(&server, &world.client().build().unwrap()).ready();
    assert_eq!(pair.server.info().alpn(), None);

    let mut pair = Pair::of(&server, &client(&["h2"]));
    pair.run();
    pair.server.refused(LayerErrorKind::Refused, "ALPN");
    pair.client.refused(LayerErrorKind::RefusedByPeer, "ALPN");
}

#[test]
fn sessions_are_resumed_by_default_and_keep_what_was_known() {
    let world = World::new();
    let person = world.authority.client("ann");
    let server = world.server().require_client_certificate(world.authority.pem()).build().unwrap();
    let client =
        world.client().certificate(person.chain.clone(), person.key.clone()).build().unwrap();
    for (attempt, resumed) in [(1, false), (2, true), (3, true)] {
        let pair = Pair::of(&server, &client).ready();
        for side in [&pair.client, &pair.server] {
            assert_eq!(side.info().is_resumed(), resumed, "attempt {attempt}");
            assert_eq!(side.info().server_name(), Some("localhost"));
        }
        assert_eq!(pair.client.info().peer_certificate(), Some(&world.identity.der[..]));
        assert_eq!(pair.server.info().peer_certificate(), Some(&person.der[..]));
    }
}

#[test]
fn tls12_sessions_are_resumed_too() {
    let world = World::new();
    let server = world.server().build().unwrap();
    let client = client_of_tls12(&world);
    assert!(!Pair::of(&server, &client).ready().server.info().is_resumed());
    let again = Pair::of(&server, &client).ready();
    assert!(again.server.info().is_resumed() && again.client.info().is_resumed());
    assert_eq!(again.server.info().server_name(), Some("localhost"));
}

#[test]
fn either_side_can_turn_resumption_off() {
    let world = World::new();
    let (on, off) = (world.server().build().unwrap(), world.server().without_resumption());
    let off = off.build().unwrap();
    let client = world.client().build().unwrap();
    let forgetful = world.client().without_resumption().build().unwrap();
    for (server, client) in [(&off, &client), (&on, &forgetful)] {
        for _ in 0..3 {
            assert!(!Pair::of(server, client).ready().client.info().is_resumed());
        }
    }
}

#[test]
fn another_servers_ticket_means_a_full_handshake() {
    let world = World::new();
    let client = world.client().build().unwrap();
    for _ in 0..2 {
        let server = world.server().build().unwrap(); // its own ticket keys
        assert!(!Pair::of(&server, &client).ready().client.info().is_resumed());
    }
}
