use super::*;
use LayerErrorKind::{Malformed, Truncated, Unencodable};

#[test]
fn a_mebibyte_both_ways_in_units_of_16_kib() {
    let world = World::new();
    let mut pair = world.pair().ready();
    let (up, down) = (noise(1 << 20), noise((1 << 20) + 77));
    pair.client.send(&up);
    pair.server.send(&down);
    pair.run_in(64 * 1024);
    assert!(pair.server.got == up && pair.client.got == down);
    assert_eq!(pair.server.largest_unit, 16 * 1024);
    assert!(pair.server.unread.is_empty());
}

#[test]
fn small_records_come_as_one_unit() {
    let world = World::new();
    let mut pair = world.pair().ready();
    for i in 0..100_u8 {
        pair.client.send(&[i; 10]);
    }
    let mut wire = mem::take(&mut pair.client.out);
    let mut unit = Vec::new();
    let step = pair
        .server
        .tls
        .decode(&mut Environment::new().cx(), &mut wire, &mut unit, &mut Vec::new())
        .unwrap();
    assert_eq!(step, Step::new(wire.len(), Item::Unit));
    assert_eq!(unit.len(), 1000);
}

#[test]
fn an_empty_send_is_nothing_on_the_wire() {
    let world = World::new();
    let mut pair = world.pair().ready();
    pair.client.send(b"");
    assert!(pair.client.out.is_empty());
}

#[test]
fn close_notify_is_a_proper_end_and_each_direction_has_its_own() {
    let world = World::new();
    let mut pair = world.pair().ready();
    pair.client.send(b"last words");
    pair.client.tls.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut pair.client.out);
    pair.run();
    assert_eq!(pair.server.got, b"last words");
    assert!(pair.server.ended && !pair.client.ended);
    assert!(pair.server.tls.wire_ended(&mut Environment::new().cx(), 0).is_ok());

    pair.server.send(b"and mine");
    pair.server.tls.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut pair.server.out);
    pair.run();
    assert_eq!(pair.client.got, b"and mine");
    assert!(pair.client.ended);
    assert!(pair.client.tls.wire_ended(&mut Environment::new().cx(), 0).is_ok());

    let error = pair
        .client
        .tls
        .encode(&mut Environment::new().cx(), b"x", MessageKind::Default, &mut pair.client.out)
        .unwrap_err();
    assert_eq!(error.kind(), Unencodable);
    assert!(pair.client.out.is_empty());
}

#[test]
fn what_follows_close_notify_in_the_same_bytes_is_left_alone() {
    let world = World::new();
    let mut pair = world.pair().ready();
    pair.client.tls.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut pair.client.out);
    pair.client.out.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
    pair.run();
    assert!(pair.server.ended && pair.server.error.is_none());
}

#[test]
fn an_end_without_close_notify_is_a_truncation() {
    let world = World::new();
    let mut pair = world.pair().ready();
    pair.client.send(b"all is w");
    pair.run();
    let error = pair.server.tls.wire_ended(&mut Environment::new().cx(), 0).unwrap_err();
    assert_eq!(error.kind(), Truncated);
    assert!(error.to_string().contains("close_notify"), "{error}");

    let mut pair = world.pair().ready();
    pair.client.send(b"all is well");
    let wire = mem::take(&mut pair.client.out);
    pair.server.receive(&wire[..wire.len() - 1]);
    let left = pair.server.unread.len();
    let error = pair.server.tls.wire_ended(&mut Environment::new().cx(), left).unwrap_err();
    assert!(error.to_string().contains("rest of a record"), "{error}");
    assert!(pair.server.got.is_empty());
}

#[test]
fn a_missing_close_notify_can_be_accepted_but_not_half_a_record() {
    let world = World::new();
    let (server, client) = (world.server().build().unwrap(), world.client().build().unwrap());
    let between = || {
        Pair::between(
            server.layer().accept_missing_close_notify(),
            client.layer("localhost").unwrap().accept_missing_close_notify(),
        )
    };
    let mut pair = between().ready();
    assert!(pair.server.tls.wire_ended(&mut Environment::new().cx(), 0).is_ok());
    assert!(pair.client.tls.wire_ended(&mut Environment::new().cx(), 0).is_ok());
    let mut pair = between().ready();
    assert_eq!(
        pair.server.tls.wire_ended(&mut Environment::new().cx(), 3).unwrap_err().kind(),
        Truncated
    );
    // A handshake has to come to its end in any case.
    let mut pair = between();
    assert_eq!(
        pair.server.tls.wire_ended(&mut Environment::new().cx(), 0).unwrap_err().kind(),
        Truncated
    );
    assert_eq!(
        pair.client.tls.wire_ended(&mut Environment::new().cx(), 0).unwrap_err().kind(),
        Truncated
    );
}

#[test]
fn good_bytes_before_a_damaged_record_are_delivered_first() {
    let world = World::new();
    let mut pair = world.pair().ready();
    pair.client.send(b"good");
    pair.client.send(b"bad");
    let mut wire = mem::take(&mut pair.client.out);
    *wire.last_mut().unwrap() ^= 1;

    let (mut unit, mut reply) = (Vec::new(), Vec::new());
    let step = pair
        .server
        .tls
        .decode(&mut Environment::new().cx(), &mut wire, &mut unit, &mut reply)
        .unwrap();
    assert_eq!((step.item, &unit[..]), (Item::Unit, &b"good"[..]));
    assert!(!reply.is_empty(), "the alert");
    // The handler answers meanwhile: that goes nowhere, and hides nothing.
    let said = reply.len();
    pair.server
        .tls
        .encode(&mut Environment::new().cx(), b"thanks", MessageKind::Default, &mut reply)
        .unwrap();
    pair.server.tls.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut reply);
    assert_eq!(reply.len(), said);

    unit.clear();
    let error = pair
        .server
        .tls
        .decode(&mut Environment::new().cx(), &mut wire[step.consumed..], &mut unit, &mut reply)
        .unwrap_err();
    assert_eq!(error.kind(), Malformed);
    assert!(unit.is_empty());
    pair.client.receive(&reply);
    pair.client.refused(LayerErrorKind::RefusedByPeer, "BadRecordMac");
}

#[test]
fn a_record_out_of_order_or_twice_is_refused() {
    let world = World::new();
    for twice in [false, true] {
        let mut pair = world.pair().ready();
        pair.client.send(b"first");
        let first = mem::take(&mut pair.client.out);
        pair.client.send(b"second");
        let second = mem::take(&mut pair.client.out);
        if twice {
            pair.server.receive(&first);
            pair.server.receive(&first);
        } else {
            pair.server.receive(&second);
        }
        pair.server.refused(Malformed, "agreed keys");
    }
}

#[test]
fn nothing_is_encoded_before_the_handshake_is_done() {
    let world = World::new();
    let mut pair = world.pair();
    let mut wire = Vec::new();
    let error = pair
        .client
        .tls
        .encode(&mut Environment::new().cx(), b"too soon", MessageKind::Default, &mut wire)
        .unwrap_err();
    assert_eq!(error.kind(), Unencodable);
    assert!(wire.is_empty());
}

#[test]
fn an_end_during_the_handshake_is_said_where_it_can_be() {
    let world = World::new();
    let mut pair = world.pair();
    pair.server.tls.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut pair.server.out);
    assert_eq!(pair.server.out, [21, 3, 3, 0, 2, 1, 0]);
    // In its middle it waits until the handshake is done.
    let mut pair = world.pair();
    let hello = mem::take(&mut pair.client.out);
    pair.server.receive(&hello);
    let said = pair.server.out.len();
    pair.server.tls.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut pair.server.out);
    assert_eq!(pair.server.out.len(), said);
    pair.run();
    assert!(pair.client.tls.is_ready() && pair.client.ended);
}

#[test]
fn keys_are_updated_on_the_way() {
    // Cipher suites that allow 8 records for a key: a key update has to come in between.
    let world = World::new();
    let mut provider = rustls::crypto::ring::default_provider();
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let limited: &'static rustls::Tls13CipherSuite =
        Box::leak(Box::new(rustls::Tls13CipherSuite {
            common: rustls::crypto::CipherSuiteCommon {
                suite: suite.common.suite,
                hash_provider: suite.common.hash_provider,
                confidentiality_limit: 8,
            },
            hkdf_provider: suite.hkdf_provider,
            aead_alg: suite.aead_alg,
            quic: None,
        }));
    provider.cipher_suites = vec![rustls::SupportedCipherSuite::Tls13(limited)];
    let mut roots = rustls::RootCertStore::empty();
    world.authority.pem().add_roots(&mut roots).unwrap();
    let client = TlsClientConfig::from_rustls(
        rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    );
    let mut pair = Pair::of(&world.server().build().unwrap(), &client).ready();
    let mut sent = Vec::new();
    for i in 0..50_u8 {
        let message = noise(usize::from(i) * 1000 + 1);
        pair.client.send(&message);
        pair.server.send(&message);
        sent.extend_from_slice(&message);
        pair.run_in(1009);
    }
    assert!(pair.client.error.is_none() && pair.server.error.is_none());
    assert!(pair.server.got == sent && pair.client.got == sent);
}
