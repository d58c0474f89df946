//! Compressed messages (RFC 7692).

use super::*;

/// The first frame of a compressed text, whole.
const TEXT_SHORT: u8 = TEXT | 0x40;

fn offer(extension: &str) -> Vec<u8> {
    let head = REQUEST.strip_suffix(b"\r\n").expect("an empty line ends it");
    [head, b"Sec-WebSocket-Extensions: ", extension.as_bytes(), b"\r\n\r\n"].concat()
}

/// A server that has agreed on compression.
fn open(settings: &WebSocketServer) -> End {
    let mut end = End::new(settings.clone().deflate(true).layer());
    end.feed(&offer("permessage-deflate; client_max_window_bits"));
    assert!(end.layer_info::<Upgrade>().expect("it is open").is_compressed());
    end.out.clear();
    end
}

#[test]
fn offers_are_chosen_by_what_can_be_kept() {
    let answer = |offers: &str| {
        let mut end = End::new(WebSocket::server().deflate(true).layer());
        end.feed(&offer(offers));
        let said = String::from_utf8(end.said()).expect("text");
        said.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Extensions: ").map(str::to_owned))
    };
    let plain = Some("permessage-deflate".to_owned());
    assert_eq!(answer("permessage-deflate"), plain);
    assert_eq!(answer("permessage-deflate; client_max_window_bits=10"), plain);
    assert_eq!(
        answer("x-webkit-deflate-frame, permessage-deflate; a=b, permessage-deflate"),
        plain
    );
    assert_eq!(
        answer("permessage-deflate;server_max_window_bits=10, permessage-deflate;server_no_context_takeover; client_no_context_takeover; server_max_window_bits=\"15\"").as_deref(),
        Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15")
    );
    for none in [
        "permessage-bzip2",
        "permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=09",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
    ] {
        assert_eq!(answer(none), None, "{none}");
    }
    let mut off = End::new(WebSocket::server().layer());
    off.feed(&offer("permessage-deflate"));
    assert_eq!(off.out, SWITCHED);
}

#[test]
fn a_client_takes_only_an_answer_to_its_offer() {
    let settings = WebSocket::client("h", "/").deflate(true);
    for (field, fine) in [
        ("permessage-deflate", true),
        ("permessage-deflate; server_max_window_bits=9; server_no_context_takeover", true),
        ("permessage-deflate; client_no_context_takeover", true),
        ("permessage-deflate; client_max_window_bits=12", false),
        ("permessage-deflate, permessage-deflate", false),
        ("permessage-deflate; what", false),
        ("foo", false),
    ] {
        let (mut client, mut server) =
            (End::new(settings.layer()), End::new(WebSocket::server().layer()));
        server.feed(&client.said());
        let answer = String::from_utf8(server.said()).expect("text");
        let field = format!("\r\nSec-WebSocket-Extensions: {field}\r\n\r\n");
        client.feed(answer.replace("\r\n\r\n", &field).as_bytes());
        assert_eq!(client.layer.is_ready(), fine, "{field}");
    }
}

#[test]
fn the_examples_of_the_rfc_inflate_in_every_split() {
    // RFC 7692 section 7.2.3: plain, again with the window kept, without compression, with a last
    // block, in two blocks; and 7.2.3.1 in two fragments with a ping between them.
    let wire = [
        masked(TEXT_SHORT, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]),
        masked(TEXT_SHORT, &[0xf2, 0x00, 0x11, 0x00, 0x00]),
        masked(TEXT_SHORT, b"\x00\x05\x00\xfa\xffHello\x00"),
        masked(TEXT_SHORT, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]),
        masked(TEXT_SHORT, b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"),
        masked(TEXT_OPEN | 0x40, &[0xf2, 0x48, 0xcd]),
        masked(PING, b"p"),
        masked(LAST, &[0xc9, 0xc9, 0x07, 0x00]),
        masked(TEXT, b"plain"),
        masked(TEXT_SHORT, &[0x00]),
    ]
    .concat();
    let (seen, out) = every_split(&wire, || open(&WebSocket::server()));
    let mut expected = vec![text("Hello"); 6];
    expected.extend([text("plain"), text("")]);
    assert_eq!(seen, expected);
    assert_eq!(out, plain(PONG, b"p"));
}

#[test]
fn both_ends_shorten_what_gets_shorter() {
    let forgetting = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";
    for (offered, forget) in [("permessage-deflate", false), (forgetting, true)] {
        let settings = WebSocket::client("h", "/").deflate(true).deflate_threshold(32);
        let mut client = End::new(settings.layer());
        let settings = WebSocket::server().deflate(true).deflate_threshold(32);
        let mut server = End::new(settings.layer());
        let asked = String::from_utf8(client.said()).expect("text");
        server.feed(asked.replace("permessage-deflate", offered).as_bytes());
        client.feed(&server.said());
        let sentence = b"the tide comes in, the tide goes out, the tide comes in again".to_vec();
        let random: Vec<u8> = (0..5000).map(|_| rand::random()).collect();
        let (short, long) = (b"short".to_vec(), vec![b'z'; 300_000]);
        let mut lengths = Vec::new();
        for message in [&sentence, &sentence, &random, &sentence, &short, &long] {
            client
                .layer
                .encode(&mut Environment::new().cx(), message, MessageKind::Binary, &mut client.out)
                .expect("it is anything");
            lengths.push(client.out.len());
            for piece in client.said().chunks(1000) {
                server.feed(piece);
            }
            assert_eq!(server.seen.pop(), Some(binary(message)), "{}", server.why());
            server
                .layer
                .encode(&mut Environment::new().cx(), message, MessageKind::Binary, &mut server.out)
                .expect("it is anything");
            client.feed(&server.said());
            assert_eq!(client.seen.pop(), Some(binary(message)), "{}", client.why());
        }
        assert!(lengths[0] < sentence.len(), "{lengths:?}");
        assert_eq!(lengths[1] < lengths[0], !forget, "the window is kept: {lengths:?}");
        assert_eq!(lengths[2], random.len() + 8, "what would grow is sent as it is");
        assert_eq!(lengths[4], short.len() + 6);
        assert!(lengths[5] < 2000, "{lengths:?}");
    }
}

#[test]
fn a_bomb_costs_what_the_limit_allows() {
    let mut stream = flate2::Compress::new(flate2::Compression::best(), false);
    let mut bomb = vec![0; 1 << 20];
    stream
        .compress(&vec![0; 10 << 20], &mut bomb, flate2::FlushCompress::Sync)
        .expect("it compresses");
    bomb.truncate(stream.total_out() as usize);
    assert!(bomb.len() < 20_000);
    let mut end = open(&WebSocket::server().message_limit(10_000));
    end.feed(&masked(BINARY | 0x40, &bomb));
    assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::TooLarge)]);
    assert_eq!(end.out, close_frame(1009));
    assert!(frames(&end).held() <= 32_768, "{}", frames(&end).held());
}

#[test]
fn a_compressed_frame_is_not_announced_without_limit() {
    for length in [1200 << 10, 1 << 63, u64::MAX] {
        let mut end = open(&WebSocket::server());
        end.feed(&[header(BINARY | 0x40, length, 0x80), vec![1, 2, 3, 4]].concat());
        assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::TooLarge)]);
    }
    // Bytes that cannot be compressed, in stored blocks of 65,535, are a little longer.
    let mut stream = flate2::Compress::new(flate2::Compression::none(), false);
    let message = vec![7; 1 << 20];
    let mut stored = vec![0; 2 << 20];
    stream.compress(&message, &mut stored, flate2::FlushCompress::Sync).expect("there is room");
    stored.truncate(stream.total_out() as usize - 4);
    assert!(stored.len() > message.len());
    let mut end = open(&WebSocket::server());
    end.feed(&masked(BINARY | 0x40, &stored));
    assert_eq!(end.seen, [binary(&message)]);
}

#[test]
fn what_is_no_deflate_stream_is_refused() {
    for payload in [&b"\x07\x07\x07"[..], b"\xff\xff\xff\xff", b"\x00\x05\x00\x00\x00Hello"] {
        let mut end = open(&WebSocket::server());
        end.feed(&masked(TEXT_SHORT, payload));
        assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::Malformed)]);
        assert_eq!(end.out, close_frame(1002));
    }
    // The bit belongs to the first frame of a message, and to no control frame.
    for frames in
        [[masked(TEXT_OPEN, b"x"), masked(LAST | 0x40, b"y")].concat(), masked(PING | 0x40, b"")]
    {
        let mut end = open(&WebSocket::server());
        end.feed(&frames);
        assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::Malformed)]);
    }
    // Text is checked as it comes out.
    let mut end = open(&WebSocket::server());
    end.feed(&masked(TEXT_SHORT, b"\x00\x02\x00\xfd\xff\xc3\x28\x00"));
    assert_eq!((end.seen.len(), end.out), (1, close_frame(1007)));
}

/// The same text compressed twice with one window, the flush's tail left out.
fn twice(text: &[u8]) -> [Vec<u8>; 2] {
    let mut sender = flate2::Compress::new(flate2::Compression::best(), false);
    [(); 2].map(|()| {
        let mut out = Vec::with_capacity(1000);
        sender.compress_vec(text, &mut out, flate2::FlushCompress::Sync).expect("there is room");
        out.truncate(out.len() - 4);
        out
    })
}

#[test]
fn a_message_that_refers_to_bytes_that_were_never_sent_is_refused() {
    let sentence = b"secret-one-secret-two-secret-one-secret-two";
    let [first, second] = twice(sentence);
    // The first message is left out.
    for pieces in [1, 2, second.len()] {
        let mut end = open(&WebSocket::server());
        let size = second.len().div_ceil(pieces);
        for (at, piece) in second.chunks(size).enumerate() {
            let first = if at == 0 { TEXT_OPEN | 0x40 } else { 0 };
            let last = if at + 1 == second.chunks(size).len() { 0x80 } else { 0 };
            end.feed(&masked(first | last, piece));
        }
        assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::Malformed)], "{pieces} frames");
        assert_eq!(end.out, close_frame(1002));
    }
    // With both, it is fine.
    let mut end = open(&WebSocket::server());
    end.feed(&[masked(TEXT_SHORT, &first), masked(TEXT_SHORT, &second)].concat());
    let sentence = std::str::from_utf8(sentence).expect("text");
    assert_eq!(end.seen, [text(sentence), text(sentence)]);
}

#[test]
fn who_has_agreed_to_forget_cannot_refer_to_an_earlier_message() {
    let [first, second] = twice(b"secret-one-secret-two-secret-one-secret-two");
    let mut server = End::new(WebSocket::server().deflate(true).layer());
    server.feed(&offer("permessage-deflate; client_no_context_takeover"));
    server.out.clear();
    server.feed(&[masked(TEXT_SHORT, &first), masked(TEXT_SHORT, &first)].concat());
    assert_eq!(server.seen.len(), 2, "each by itself is right");
    server.feed(&masked(TEXT_SHORT, &second));
    assert_eq!(server.seen[2], Seen::Failed(LayerErrorKind::Malformed));
    assert_eq!(server.out, close_frame(1002));
}

#[test]
fn a_compressed_message_that_ends_in_the_middle_of_a_block_is_refused() {
    let stored = |content: &[u8]| [b"\x00\x05\x00\xfa\xff", content].concat();
    let [whole, _] = twice(b"one two one two one two three");
    // "H" and the four bytes that the receiver puts in again would be five.
    let mut cut = vec![stored(b"H"), stored(b"Hell"), stored(b""), whole[..1].to_vec()];
    cut.extend((2..whole.len()).map(|end| whole[..end].to_vec()));
    for payload in cut {
        let mut end = open(&WebSocket::server());
        end.feed(&masked(BINARY | 0x40, &payload));
        assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::Malformed)], "{payload:02x?}");
        assert_eq!(end.out, close_frame(1002));
    }
}

/// A server and a client that have agreed on compression with these parameters.
fn compressed(server: &WebSocketServer, parameters: &str) -> (End, End) {
    let mut server = End::new(server.clone().deflate(true).layer());
    let mut client = End::new(WebSocket::client("h", "/").deflate(true).layer());
    let asked = String::from_utf8(client.said()).expect("text");
    let offer = format!("permessage-deflate{parameters}");
    server.feed(asked.replace("permessage-deflate", &offer).as_bytes());
    client.feed(&server.said());
    (server, client)
}

#[test]
fn a_short_message_is_not_worth_it() {
    let (mut server, _) = compressed(&WebSocket::server(), "");
    let mut first = |len: usize| {
        let message = vec![b'z'; len];
        let mut environment = Environment::new();
        let cx = &mut environment.cx();
        server.layer.encode(cx, &message, MessageKind::Binary, &mut server.out).expect("any");
        let out = server.said();
        (out[0], out.len())
    };
    assert_eq!(first(1023), (BINARY, 1023 + 4));
    let (byte, len) = first(1024);
    assert!(byte == BINARY | 0x40 && len < 40, "{len}");
}

#[test]
fn a_compressor_that_is_not_used_is_given_back_and_the_peer_goes_on() {
    let (mut server, mut client) = compressed(&WebSocket::server(), "");
    let message = b"the tide comes in, the tide goes out. ".repeat(50);
    let mut environment = Environment::new();
    let mut send = |server: &mut End, environment: &mut Environment| {
        let cx = &mut environment.cx();
        server.layer.encode(cx, &message, MessageKind::Text, &mut server.out).expect("text");
        let wire = server.said();
        client.feed(&wire);
        assert_eq!(client.seen.pop(), Some(Seen::Message(MessageKind::Text, message.clone())));
        wire.len()
    };
    let (first, second) =
        (send(&mut server, &mut environment), send(&mut server, &mut environment));
    assert!(second < first, "it refers to the first: {first}, {second}");
    // Used again shortly before its time: it stays.
    environment.advance(std::time::Duration::from_secs(9));
    send(&mut server, &mut environment);
    environment.advance(std::time::Duration::from_secs(1));
    assert!(environment.take_due().is_some());
    server.layer.on_time(&mut environment.cx(), &mut Vec::new()).expect("no fault");
    assert!(frames(&server).has_compressor());
    environment.advance(std::time::Duration::from_secs(9));
    assert!(environment.take_due().is_some());
    server.layer.on_time(&mut environment.cx(), &mut Vec::new()).expect("no fault");
    assert!(!frames(&server).has_compressor());
    assert_eq!(environment.call_at(), None);
    assert_eq!(send(&mut server, &mut environment), first, "it begins anew");
}

#[test]
fn those_that_forget_share_a_compressor() {
    let forget = "; server_no_context_takeover";
    let mut pairs = [(); 3].map(|()| compressed(&WebSocket::server(), forget));
    for round in 0..3 {
        for (at, (server, client)) in pairs.iter_mut().enumerate() {
            let message = format!("secret {at} in round {round}; ").repeat(80).into_bytes();
            let mut environment = Environment::new();
            let cx = &mut environment.cx();
            server.layer.encode(cx, &message, MessageKind::Text, &mut server.out).expect("text");
            assert!(server.out.len() < message.len() / 4);
            client.feed(&server.said());
            assert_eq!(client.seen.pop(), Some(Seen::Message(MessageKind::Text, message)));
            assert!(!frames(server).has_compressor());
        }
    }
}

/// What this end encodes for its class, and whether all must know.
fn for_all(end: &mut End, message: &[u8]) -> (Vec<u8>, bool) {
    let mut environment = Environment::new();
    let (cx, kind) = (&mut environment.cx(), MessageKind::Binary);
    let told = end.layer.encode_shared(cx, message, kind, &mut end.out).expect("any");
    assert_eq!(environment.call_at(), None, "there is nothing to give back later");
    (end.said(), told)
}

#[test]
fn what_is_encoded_for_all_depends_on_what_was_agreed_and_not_on_whose_layer_it_is() {
    let (takeover, forget) = ("", "; server_no_context_takeover");
    let settings = WebSocket::server();
    let class = |settings: &WebSocketServer, parameters| {
        let (server, client) = compressed(settings, parameters);
        assert_eq!(client.layer.wire_class(), None, "a client masks");
        server.layer.wire_class().expect("a server has one")
    };
    assert_eq!(class(&settings, takeover), class(&settings, forget));
    assert_ne!(Some(class(&settings, takeover)), server(&settings).layer.wire_class());
    assert_ne!(class(&settings, takeover), class(&settings.clone().deflate_threshold(9), takeover));

    let sentence = b"the tide comes in, the tide goes out. ".repeat(50);
    let random: Vec<u8> = (0..5000).map(|_| rand::random()).collect();
    let mut ends = [takeover, forget].map(|parameters| compressed(&settings, parameters).0);
    for end in &mut ends {
        // What it has sent to its own peer makes no difference.
        let cx = &mut Environment::new();
        end.layer.encode(&mut cx.cx(), &sentence, MessageKind::Binary, &mut end.out).expect("any");
        end.said();
    }
    for (message, compressed) in [(&sentence, true), (&random, false), (&b"short".to_vec(), false)]
    {
        let [one, other] = ends.each_mut().map(|end| for_all(end, message));
        assert_eq!(one, other);
        assert_eq!(one.1, compressed);
        assert_eq!(one.0[0] == BINARY | 0x40, compressed);
    }
}

#[test]
fn a_peer_follows_whatever_mixture_of_its_own_and_shared_messages_it_gets() {
    let settings = WebSocket::server().deflate_threshold(32);
    for parameters in ["", "; server_no_context_takeover"] {
        let (mut one, mut client) = compressed(&settings, parameters);
        let (mut lent, _) = compressed(&settings, "");
        let sentence = |n: usize| format!("the tide {n} comes in, the tide {} goes out. ", n / 2);
        for n in 0..400_usize {
            let message = match n % 7 {
                0 => b"short".to_vec(),
                1 => (0..100).map(|_| rand::random()).collect(),
                more => sentence(n).repeat(more * more).into_bytes(),
            };
            // Its own, another one's, or its own for all.
            match n / 3 % 3 {
                0 => {
                    let cx = &mut Environment::new();
                    let kind = MessageKind::Binary;
                    one.layer.encode(&mut cx.cx(), &message, kind, &mut one.out).expect("any");
                    client.feed(&one.said());
                }
                whose => {
                    let end = if whose == 1 { &mut lent } else { &mut one };
                    let (wire, told) = for_all(end, &message);
                    if told {
                        one.layer.sent_shared();
                    }
                    client.feed(&wire);
                }
            }
            assert_eq!(client.seen.pop(), Some(binary(&message)), "message {n}: {}", client.why());
        }
        assert!(!frames(&lent).has_compressor(), "it has sent nothing of its own");
    }
}

#[test]
fn whoever_encodes_keeps_no_memory_for_a_large_message() {
    let (mut server, _) = compressed(&WebSocket::server(), "");
    let random: Vec<u8> = (0..100_000).map(|_| rand::random()).collect();
    for message in [vec![b'7'; 100_000], random] {
        let (_, told) = for_all(&mut server, &message);
        assert!(frames(&server).held_by_deflate() <= 4096, "shared, shorter: {told}");
        let (cx, kind) = (&mut Environment::new(), MessageKind::Binary);
        server.layer.encode(&mut cx.cx(), &message, kind, &mut server.out).expect("any");
        assert!(frames(&server).held_by_deflate() <= 4096, "its own, shorter: {told}");
    }
}
