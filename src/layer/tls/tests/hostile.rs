use super::*;
use LayerErrorKind::{Malformed, Refused, RefusedByPeer, TooLarge, Truncated};

const DECODE_ERROR: u8 = 50;
const ILLEGAL_PARAMETER: u8 = 47;

fn lone_server() -> Side {
    Side::new(World::new().server().build().unwrap().layer())
}

/// A handshake message in records of `size` bytes.
fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    message
        .chunks(size)
        .flat_map(|piece| {
            let len = u16::try_from(piece.len()).unwrap().to_be_bytes();
            [&[22, 3, 1, len[0], len[1]], piece].concat()
        })
        .collect()
}

/// A ClientHello's header that announces `len` bytes, and so many of them.
fn hello_of(len: usize, sent: usize) -> Vec<u8> {
    let announced = u32::try_from(len).unwrap().to_be_bytes();
    [&[1, announced[1], announced[2], announced[3]], &vec![0; sent][..]].concat()
}

#[test]
fn an_http_request_is_called_one_and_an_alert_answers_it() {
    for chunk in [1, 3, 1000] {
        let mut server = lone_server();
        b"GET /chat HTTP/1.1\r\nHost: x\r\n\r\n".chunks(chunk).for_each(|b| server.receive(b));
        server.refused(Malformed, "an HTTP request without TLS: \"GET /");
        assert_eq!(plain_alert(&server.out), Some(DECODE_ERROR));
    }
}

#[test]
fn garbage_is_malformed_at_once_and_an_alert_answers_it() {
    for garbage in
        [&[0_u8; 5][..], b"SSH-2.0-OpenSSH", b"\xff\xff\xff\xff\xff", b"\x16\x02\0\0\x01"]
    {
        let mut server = lone_server();
        server.receive(garbage);
        server.refused(Malformed, "expected a TLS ClientHello");
        assert_eq!(plain_alert(&server.out), Some(DECODE_ERROR), "{garbage:?}");
    }
    for seed in 0..2000 {
        let mut server = lone_server_of(&CONFIG.with(Clone::clone));
        let bytes = noise(seed + 60);
        server.receive(&bytes[seed..]);
        assert!(!server.tls.is_ready());
    }
}

thread_local! {
    static CONFIG: TlsServerConfig = World::new().server().build().unwrap();
}

fn lone_server_of(config: &TlsServerConfig) -> Side {
    Side::new(config.layer())
}

#[test]
fn a_client_says_what_answered_instead_of_tls() {
    let world = World::new();
    let client = world.client().build().unwrap();
    for (answer, text) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "an HTTP response without TLS"),
        (b"220 mail.example ESMTP\r\n", "text: \"220 mail.example ESMTP\""),
    ] {
        let mut side = Side::new(client.layer("localhost").unwrap());
        side.out.clear();
        side.receive(answer);
        side.refused(Malformed, text);
        assert_eq!(plain_alert(&side.out), Some(DECODE_ERROR));
    }
}

#[test]
fn a_client_hello_in_tiny_records_is_put_together() {
    // RUSTSEC-2024-0399
    let world = World::new();
    for size in [1, 2, 7, 100] {
        let mut pair = world.pair();
        let hello = mem::take(&mut pair.client.out);
        assert_eq!(hello[0], 22);
        let pieces = in_records(&hello[5..], size);
        for chunk in [1, 6, 50, usize::MAX] {
            let mut server = Side::new(world.server().build().unwrap().layer());
            pieces.chunks(chunk.min(pieces.len())).for_each(|b| server.receive(b));
            assert!(server.error.is_none(), "{:?}", server.error);
            assert!(server.out.len() > 500, "its flight");
            assert!(server.tls.held.is_empty() && server.tls.held.capacity() == 0);
        }
        pair.server.receive(&pieces);
        pair.ready();
    }
}

#[test]
fn an_oversized_client_hello_is_refused_before_it_has_come() {
    // Announced in one go: refused by its header.
    let mut server = lone_server();
    server.receive(&in_records(&hello_of(0xff_ffff, 100), 50));
    server.refused(TooLarge, "HandshakePayloadTooLarge");
    assert_eq!(plain_alert(&server.out), Some(DECODE_ERROR));

    // Below that, in pieces of which each costs more than it brings: refused by the sum.
    let mut server = lone_server();
    server.receive(&in_records(&hello_of(60_000, 60_000), 1));
    server.refused(TooLarge, "65536 bytes at most");
    assert_eq!(plain_alert(&server.out), Some(ILLEGAL_PARAMETER));
    assert!(server.tls.held.capacity() <= 2 * HANDSHAKE_LIMIT);
}

#[test]
fn whoever_is_refused_for_the_size_of_its_hello_gets_an_alert() {
    let sizes = [65_000, 65_480, 65_511, 65_512, 65_516, 65_531, 65_532, 65_536, 66_000, 90_000];
    for (size, record) in sizes.iter().flat_map(|&size| [100, 4000, 16_384].map(|r| (size, r))) {
        let mut server = lone_server();
        for piece in in_records(&hello_of(size, size), record).chunks(1500) {
            server.receive(piece);
        }
        // Some are read, and are no ClientHello; the others are too large.
        assert!(server.error.is_some(), "{size} bytes in records of {record}");
        assert!(plain_alert(&server.out).is_some(), "{size}, {record}: {:?}", server.error);
    }
}

#[test]
fn the_handshake_limit_can_be_set_on_both_sides_and_needs_only_the_header() {
    let world = World::new();
    let (server, client) = (world.server().build().unwrap(), world.client().build().unwrap());
    let connecting = || client.layer("localhost").unwrap();
    let mut pair = Pair::between(server.layer().handshake_limit(100), connecting());
    let hello = mem::take(&mut pair.client.out);
    pair.server.receive(&hello[..5]);
    pair.server.refused(TooLarge, "100 bytes at most");
    assert_eq!(plain_alert(&pair.server.out), Some(ILLEGAL_PARAMETER));
    pair.run();
    pair.client.refused(RefusedByPeer, "IllegalParameter");

    let mut pair = Pair::between(server.layer(), connecting().handshake_limit(300));
    pair.run();
    pair.client.refused(TooLarge, "300 bytes at most");
}

#[test]
fn the_limit_does_not_count_what_follows_the_handshake() {
    let world = World::new();
    let server = world.server().build().unwrap();
    let client = world.client().without_resumption().build().unwrap();
    let measured = Pair::of(&server, &client).ready().server.tls.received;
    let accepting = server.layer().handshake_limit(measured + 64);
    let mut pair = Pair::between(accepting, client.layer("localhost").unwrap()).ready();
    pair.client.send(&noise(100_000));
    pair.run();
    assert_eq!(pair.server.got.len(), 100_000);
}

/// A ready pair whose client is taken apart, so that records of one's own can be made with its
/// keys: handshake messages in pieces of one byte, say, which no client of rustls would send.
fn forge(world: &World) -> (Side, impl FnMut(&[u8]) -> Vec<u8> + use<>) {
    use rustls::crypto::cipher::{AeadKey, OutboundChunks, OutboundPlainMessage};

    let mut roots = rustls::RootCertStore::empty();
    world.authority.pem().add_roots(&mut roots).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    config.enable_secret_extraction = true;
    let client = TlsClientConfig::from_rustls(config);
    // A key as long as the one of this type.
    let server = world.server().client_cipher_order().build().unwrap();
    let mut pair = Pair::of(&server, &client).ready();

    let Some(Session::Client(conn)) = pair.client.tls.session.take() else { unreachable!() };
    let suite = conn.negotiated_cipher_suite().unwrap().tls13().unwrap();
    let (secrets, _) = conn.dangerous_into_kernel_connection().unwrap();
    let (mut sequence, rustls::ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
        panic!("expected AES-256-GCM");
    };
    let key: [u8; 32] = key.as_ref().try_into().unwrap();
    let mut encrypter = suite.aead_alg.encrypter(AeadKey::from(key), iv);
    let seal = move |payload: &[u8]| {
        let message = OutboundPlainMessage {
            typ: rustls::ContentType::Handshake,
            version: rustls::ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::from(payload),
        };
        sequence += 1;
        encrypter.encrypt(message, sequence - 1).unwrap().encode()
    };
    (pair.server, seal)
}

#[test]
fn a_late_handshake_message_may_come_in_pieces() {
    let world = World::new();
    for chunk in [1, 10, 1000] {
        let (mut server, mut seal) = forge(&world);
        // key_update, update_requested (RFC 8446 section 4.6.3)
        let wire: Vec<u8> = [24, 0, 0, 1, 1].iter().flat_map(|&byte| seal(&[byte])).collect();
        wire.chunks(chunk).for_each(|bytes| server.receive(bytes));
        assert!(server.error.is_none(), "{:?}", server.error);
        assert_eq!(server.tls.held.capacity(), 0);
        // The answer goes before the next words.
        let said = server.out.len();
        server.send(b"x");
        assert!(server.out.len() - said > 2 * 22, "{}", server.out.len() - said);
    }
}

#[test]
fn one_can_send_while_a_late_handshake_message_is_in_pieces() {
    let world = World::new();
    let (mut server, mut seal) = forge(&world);
    server.receive(&seal(&[24, 0]));
    assert!(!server.tls.held.is_empty());
    server.send(b"in between");
    server.receive(&seal(&[0, 1, 0]));
    assert!(server.error.is_none() && server.tls.held.is_empty());
    server.receive(&seal(&[24]));
    server.tls.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut server.out);
    assert!(server.tls.wire_ended(&mut Environment::new().cx(), 0).is_err());
}

#[test]
fn pieces_of_a_late_handshake_message_are_limited() {
    let world = World::new();
    let (mut server, mut seal) = forge(&world);
    server.receive(&seal(&hello_of(60_000, 0)));
    for _ in 0..60_000 {
        server.receive(&seal(&[0]));
        assert!(server.tls.held.len() <= HANDSHAKE_LIMIT);
        if server.error.is_some() {
            return server.refused(TooLarge, "65536 bytes at most, got");
        }
    }
    panic!("never refused");
}

#[test]
fn an_oversized_record_is_refused_by_its_header() {
    let world = World::new();
    let mut pair = world.pair().ready();
    pair.server.receive(&[23, 3, 3, 0x48, 0x01]);
    pair.server.refused(TooLarge, "MessageTooLarge");
    assert!(!pair.server.out.is_empty());
}

#[test]
fn an_empty_record_flood_is_refused() {
    let mut server = lone_server();
    server.receive(&[23, 3, 3, 0, 0].repeat(1000));
    assert!(server.error.is_some());
}

#[test]
fn an_end_in_the_middle_of_the_handshake_is_a_truncation() {
    let world = World::new();
    let mut pair = world.pair();
    let hello = mem::take(&mut pair.client.out);
    pair.server.receive(&hello[..50]);
    let left = pair.server.unread.len();
    let error = pair.server.tls.wire_ended(&mut Environment::new().cx(), left).unwrap_err();
    assert_eq!(error.kind(), Truncated);
    assert!(error.to_string().contains("after 50 bytes"), "{error}");
}

#[test]
fn every_single_flipped_byte_of_a_handshake_is_survived() {
    let world = World::new();
    let server = world.server().build().unwrap();
    let client = world.client().without_resumption().build().unwrap();
    let length = Pair::of(&server, &client).client.out.len();
    let mut refused = 0;
    for at in 0..length {
        let mut pair = Pair::of(&server, &client);
        pair.client.out[at] ^= 0x55;
        pair.run();
        refused += usize::from(!(pair.server.tls.is_ready() && pair.client.tls.is_ready()));
    }
    // The record's version is ignored by design, the rest is not.
    assert!(refused >= length - 3, "{refused} of {length}");
}

#[test]
fn what_is_kept_for_a_quiet_connection_is_nothing() {
    let world = World::new();
    let mut pair = world.pair().ready();
    pair.client.send(&noise(100_000));
    pair.run();
    for side in [&pair.client, &pair.server] {
        assert_eq!(side.tls.held.capacity(), 0);
        assert!(side.unread.is_empty());
    }
    assert!(size_of::<Tls>() <= 256, "{}", size_of::<Tls>());
}

#[test]
fn a_server_that_lacks_a_common_cipher_says_so() {
    let world = World::new();
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites.retain(|suite| {
        suite.suite() == rustls::CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    });
    let mut roots = rustls::RootCertStore::empty();
    world.authority.pem().add_roots(&mut roots).unwrap();
    let client = TlsClientConfig::from_rustls(
        rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    );
    // The server's key is ECDSA, and the client takes RSA only.
    let mut pair = Pair::of(&world.server().build().unwrap(), &client);
    pair.run();
    pair.server.refused(Refused, "in common");
    pair.client.refused(RefusedByPeer, "nothing in common");
}

/// What `side` says at its end, for a layer of the connection that failed.
fn last_words(side: &mut Side) -> Vec<u8> {
    side.out.clear();
    side.tls.end(&mut Environment::new().cx(), &LayerEnd::LayerFailed, &mut side.out);
    let said = mem::take(&mut side.out);
    side.tls.end(&mut Environment::new().cx(), &LayerEnd::LayerFailed, &mut side.out);
    assert!(side.out.is_empty(), "once");
    said
}

#[test]
fn the_end_may_be_said_in_every_state_and_says_nothing_behind_an_alert() {
    let world = World::new();
    let close_notify = [21, 3, 3, 0, 2, 1, 0];

    // Before anything came: in clear text. In the middle of a handshake: later, or never.
    let mut pair = world.pair();
    assert_eq!(last_words(&mut pair.server), close_notify);
    let mut pair = world.pair();
    let hello = mem::take(&mut pair.client.out);
    pair.server.receive(&hello);
    assert!(last_words(&mut pair.server).is_empty());

    // Another layer of the connection failed: the peer gets close_notify.
    let mut pair = world.pair().ready();
    let said = last_words(&mut pair.server);
    pair.client.receive(&said);
    assert!(pair.client.tls.peer_closed && pair.client.error.is_none());

    // This one failed, and said so in an alert.
    let mut pair = world.pair().ready();
    pair.server.receive(&[23, 3, 3, 0, 40].into_iter().chain([7; 40]).collect::<Vec<u8>>());
    assert!(pair.server.error.is_some() && !pair.server.out.is_empty());
    assert!(last_words(&mut pair.server).is_empty());
    let mut server = lone_server();
    server.receive(b"GET / HTTP/1.1\r\n\r\n");
    assert!(plain_alert(&server.out).is_some());
    assert!(last_words(&mut server).is_empty());

    // The peer said why it goes: nobody is left to be told.
    let mut pair = world.pair().ready();
    pair.client.receive(&[23, 3, 3, 0, 40].into_iter().chain([7; 40]).collect::<Vec<u8>>());
    let alert = mem::take(&mut pair.client.out);
    pair.server.receive(&alert);
    pair.server.refused(RefusedByPeer, "alert");
    assert!(last_words(&mut pair.server).is_empty());

    // A limit of this side's that `rustls` knows nothing of: it can still say its end.
    let (mut server, mut seal) = forge(&world);
    server.tls = server.tls.handshake_limit(100);
    server.receive(&seal(&hello_of(90, 50)));
    server.receive(&seal(&[0; 30]));
    server.refused(TooLarge, "100 bytes at most");
    assert!(server.out.is_empty(), "no alert");
    assert!(!last_words(&mut server).is_empty());
}
