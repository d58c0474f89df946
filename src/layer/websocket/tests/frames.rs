//! Messages, pings and closing, on an open socket.

use super::*;

/// What a server sees of these frames, and what it answers, in every split.
fn serve(frames: &[Vec<u8>]) -> (Vec<Seen>, Vec<u8>) {
    every_split(&frames.concat(), || server(&WebSocket::server()))
}

/// What a fault comes to: its kind, and the code in the Close frame.
fn fault(kind: LayerErrorKind, code: u16) -> (Vec<Seen>, Vec<u8>) {
    (vec![Seen::Failed(kind)], close_frame(code))
}

#[test]
fn messages_come_out_as_they_went_in() {
    let long = "ä".repeat(70);
    let frames = [
        masked(TEXT, b"hello"),
        masked(BINARY, &[0, 255, 1]),
        masked(TEXT, b""),
        masked(TEXT, long.as_bytes()),
    ];
    let (seen, out) = serve(&frames);
    assert_eq!(seen, [text("hello"), binary(&[0, 255, 1]), text(""), text(&long)]);
    assert!(out.is_empty());
}

#[test]
fn large_messages_come_in_pieces() {
    for size in [4096, 4097, 65535, 65536, 1 << 20] {
        let message: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        for piece in [1000, 16384, 3 << 20] {
            let mut end = server(&WebSocket::server());
            for piece in masked(BINARY, &message).chunks(piece) {
                end.feed(piece);
                assert_eq!(frames(&end).held(), 0, "a frame stays where it came until it is whole");
            }
            assert_eq!((end.seen, end.tail.len()), (vec![binary(&message)], 0));
        }
    }
}

#[test]
fn fragments_are_put_together_with_pings_between_them() {
    let (seen, out) = serve(&[
        masked(TEXT_OPEN, b"Hel"),
        masked(PING, b"a"),
        masked(CONTINUED, "lo, w\u{f6}".as_bytes()),
        masked(PONG, b"unasked"),
        masked(CONTINUED, b""),
        masked(PING, b""),
        masked(LAST, b"rld"),
        masked(BINARY_OPEN, b""),
        masked(LAST, b""),
    ]);
    assert_eq!(seen, [text("Hello, w\u{f6}rld"), binary(b"")]);
    assert_eq!(out, [plain(PONG, b"a"), plain(PONG, b"")].concat());
}

#[test]
fn fragments_out_of_order_are_refused() {
    let malformed = fault(LayerErrorKind::Malformed, 1002);
    assert_eq!(serve(&[masked(CONTINUED, b"x")]), malformed);
    assert_eq!(serve(&[masked(LAST, b"x")]), malformed);
    assert_eq!(serve(&[masked(TEXT_OPEN, b"x"), masked(TEXT, b"y")]), malformed);
    assert_eq!(serve(&[masked(TEXT_OPEN, b"x"), masked(BINARY_OPEN, b"y")]), malformed);
    assert_eq!(serve(&[masked(PING & 0x7f, b"")]), malformed);
    assert_eq!(serve(&[masked(CLOSE & 0x7f, b"")]), malformed);
}

#[test]
fn reserved_bits_and_opcodes_are_refused() {
    for bits in [0x40, 0x20, 0x10] {
        assert_eq!(serve(&[masked(TEXT | bits, b"x")]), fault(LayerErrorKind::Malformed, 1002));
        assert_eq!(serve(&[masked(PING | bits, b"x")]), fault(LayerErrorKind::Malformed, 1002));
    }
    for opcode in (3..8).chain(11..16) {
        assert_eq!(serve(&[masked(0x80 | opcode, b"")]), fault(LayerErrorKind::Malformed, 1002));
    }
}

#[test]
fn masks_are_for_clients_alone() {
    for first in [TEXT, PING, CLOSE] {
        assert_eq!(serve(&[plain(first, b"")]), fault(LayerErrorKind::Malformed, 1002));
        let (_, mut client) = pair(&WebSocket::server(), &WebSocket::client("h", "/"));
        client.feed(&masked(first, b""));
        assert_eq!(client.seen, [Seen::Failed(LayerErrorKind::Malformed)]);
    }
}

#[test]
fn what_a_client_sends_is_masked_and_never_with_the_same_key() {
    let (mut server, mut client) = pair(&WebSocket::server(), &WebSocket::client("h", "/"));
    let mut environment = Environment::new();
    let mut send = |message: &[u8]| {
        let mut wire = Vec::new();
        client
            .layer
            .encode(&mut environment.cx(), message, MessageKind::Text, &mut wire)
            .expect("it is text");
        wire
    };
    let (first, second) = (send(b"0123456789"), send(b"0123456789"));
    assert_ne!(first, second);
    assert_eq!((first[0], first[1]), (TEXT, 0x80 | 10));
    server.feed(&[first, second].concat());
    assert_eq!(server.seen, [text("0123456789"), text("0123456789")]);
}

#[test]
fn a_whole_message_of_a_server_is_handed_on_without_a_copy() {
    let (_, mut client) = pair(&WebSocket::server(), &WebSocket::client("h", "/"));
    let mut wire = [plain(PING, b"p"), plain(TEXT, b"hello")].concat();
    let (mut unit, mut reply) = (Vec::new(), Vec::new());
    let step = client
        .layer
        .decode(&mut Environment::new().cx(), &mut wire, &mut unit, &mut reply)
        .expect("it is right");
    assert_eq!(step, Step::new(wire.len(), Item::Slice(5..10)).with_kind(MessageKind::Text));
    assert_eq!(reply.len(), 2 + 4 + 1, "and the ping has its masked pong");
}

#[test]
fn text_that_is_no_utf8_is_refused_at_the_first_wrong_byte() {
    let refused = fault(LayerErrorKind::Malformed, 1007);
    assert_eq!(serve(&[masked(TEXT, b"a\xff")]), refused);
    // A code point that no message finishes.
    assert_eq!(serve(&[masked(TEXT, b"\xe2\x82")]), refused);
    assert_eq!(serve(&[masked(TEXT_OPEN, b"\xe2\x82"), masked(LAST, b"")]), refused);
    // One that is cut between two fragments, and goes on wrongly; a surrogate; an overlong one.
    assert_eq!(serve(&[masked(TEXT_OPEN, b"\xe2\x82"), masked(LAST, b"x")]), refused);
    assert_eq!(serve(&[masked(TEXT_OPEN, b"\xed"), masked(LAST, b"\xa0\x80")]), refused);
    assert_eq!(serve(&[masked(TEXT_OPEN, b"\xc0"), masked(LAST, b"\xaf")]), refused);
    let (seen, _) =
        serve(&[masked(TEXT_OPEN, b"\xe2"), masked(CONTINUED, b"\x82"), masked(LAST, b"\xac")]);
    assert_eq!(seen, [text("€")]);
    // In a long text whose frame comes in pieces, each character cut somewhere.
    let long = "aé€😀".repeat(300);
    let (seen, _) = serve(&[masked(TEXT, long.as_bytes()), masked(TEXT, b"next")]);
    assert_eq!(seen, [text(&long), text("next")]);
    let wrong = [long.as_bytes(), b"\xe2\x28", long.as_bytes()].concat();
    let mut end = server(&WebSocket::server());
    for (at, byte) in masked(TEXT, &wrong).iter().enumerate() {
        end.feed(&[*byte]);
        assert_eq!(end.over(), at > 8 + long.len(), "byte {at}");
        if end.over() {
            break;
        }
    }
    // The rest of the message need not come.
    let mut end = server(&WebSocket::server());
    end.feed(&masked(TEXT, &[b"\xf4\x90".as_slice(), &[b'x'; 100]].concat())[..8]);
    assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::Malformed)]);
    assert_eq!(serve(&[masked(BINARY, b"a\xff")]).0, [binary(b"a\xff")]);
}

#[test]
fn a_close_is_answered_with_its_code() {
    for code in [1000_u16, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1014, 3000, 4999] {
        let payload = [code.to_be_bytes().as_slice(), "bye ä".as_bytes()].concat();
        let (seen, out) = serve(&[masked(CLOSE, &payload)]);
        assert_eq!((seen, out), (vec![Seen::End], close_frame(code)));
    }
    assert_eq!(serve(&[masked(CLOSE, b"")]), (vec![Seen::End], plain(CLOSE, b"")));
    let mut end = server(&WebSocket::server());
    end.feed(&[masked(CLOSE, b"\x0f\xa1bye"), masked(TEXT, b"late")].concat());
    let said = end.layer_info::<PeerClose>().expect("it closed");
    assert_eq!((said.code(), said.reason()), (Some(4001), "bye"));
    assert_eq!(end.seen, [Seen::End], "nothing counts behind a Close");
    assert!(end.layer.wire_ended(&mut Environment::new().cx(), end.tail.len()).is_ok());
}

#[test]
fn a_close_that_breaks_a_rule_is_a_fault() {
    let malformed = fault(LayerErrorKind::Malformed, 1002);
    assert_eq!(serve(&[masked(CLOSE, b"\x03")]), malformed);
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        assert_eq!(serve(&[masked(CLOSE, &code.to_be_bytes())]), malformed, "{code}");
    }
    let refused = fault(LayerErrorKind::Malformed, 1007);
    assert_eq!(serve(&[masked(CLOSE, b"\x03\xe8\xff")]), refused);
    assert_eq!(serve(&[masked(CLOSE, &[b'x'; 126])]), malformed);
}

#[test]
fn this_side_closes_and_the_peer_answers() {
    let mut end = server(&WebSocket::server());
    end.layer.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut end.out);
    assert_eq!(end.said(), close_frame(1000));
    let refused =
        end.layer.encode(&mut Environment::new().cx(), b"x", MessageKind::Text, &mut end.out);
    assert_eq!(refused.expect_err("it said it was done").kind(), LayerErrorKind::Unencodable);
    // What was on its way still arrives; nothing is said any more, to a ping neither.
    end.feed(&[masked(PING, b"p"), masked(TEXT, b"late")].concat());
    assert!(end.layer.wire_ended(&mut Environment::new().cx(), 0).is_ok(), "nothing was lost");
    end.feed(&masked(CLOSE, &[3, 232]));
    assert_eq!(end.seen, [text("late"), Seen::End]);
    assert!(end.out.is_empty());
}

#[test]
fn nothing_is_said_after_the_answer_to_a_close_or_after_a_fault() {
    for last in [masked(CLOSE, &[3, 232]), masked(TEXT, b"\xff")] {
        let mut end = server(&WebSocket::server());
        end.feed(&last);
        end.out.clear();
        // A whole room is sent to; this member has just left.
        assert!(
            end.layer
                .encode(&mut Environment::new().cx(), b"x", MessageKind::Text, &mut end.out)
                .is_ok()
        );
        end.layer.ping(&mut Environment::new().cx(), b"x", &mut end.out);
        end.layer.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut end.out);
        assert!(end.out.is_empty());
    }
    let mut end = server(&WebSocket::server());
    end.layer.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut end.out);
    end.out.clear();
    end.feed(&masked(TEXT, b"\xff"));
    assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::Malformed)]);
    assert!(end.out.is_empty(), "there is one Close frame at most");
}

#[test]
fn an_end_without_a_close_is_truncated() {
    for bytes in [&b""[..], &masked(TEXT, b"hello")[..7], &masked(TEXT_OPEN, b"hello")] {
        let mut end = server(&WebSocket::server());
        end.feed(bytes);
        let error = end
            .layer
            .wire_ended(&mut Environment::new().cx(), end.tail.len())
            .expect_err("no Close came");
        assert_eq!(error.kind(), LayerErrorKind::Truncated);
        end.layer.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut end.out);
        assert_eq!(
            end.layer.wire_ended(&mut Environment::new().cx(), end.tail.len()).is_ok(),
            bytes.is_empty()
        );
    }
}

#[test]
fn kinds_are_the_callers_or_the_options_never_guessed() {
    let send = |end: &mut End, message: &[u8], kind| {
        let result = end
            .layer
            .encode(&mut Environment::new().cx(), message, kind, &mut end.out)
            .map_err(|e| e.kind());
        result.map(|()| end.said()[0])
    };
    let mut end = server(&WebSocket::server());
    assert_eq!(send(&mut end, b"x", MessageKind::Default), Ok(BINARY));
    assert_eq!(send(&mut end, b"x", MessageKind::Text), Ok(TEXT));
    assert_eq!(send(&mut end, b"\xff", MessageKind::Default), Ok(BINARY));
    assert_eq!(send(&mut end, b"\xff", MessageKind::Text), Err(LayerErrorKind::Unencodable));
    assert!(end.out.is_empty());
    let mut end = server(&WebSocket::server().default_kind(MessageKind::Text));
    assert_eq!(send(&mut end, b"x", MessageKind::Default), Ok(TEXT));
    assert_eq!(send(&mut end, b"x", MessageKind::Binary), Ok(BINARY));
    assert_eq!(send(&mut end, b"\xff", MessageKind::Default), Err(LayerErrorKind::Unencodable));
}

#[test]
fn both_ends_talk_ping_and_part() {
    let (mut server, mut client) = pair(&WebSocket::server(), &WebSocket::client("h", "/"));
    for size in [0, 1, 125, 126, 65535, 65536, 1 << 20] {
        let message = vec![b'm'; size];
        client
            .layer
            .encode(&mut Environment::new().cx(), &message, MessageKind::Text, &mut client.out)
            .expect("it is text");
        server.feed(&client.said());
        server
            .layer
            .encode(&mut Environment::new().cx(), &message, MessageKind::Binary, &mut server.out)
            .expect("it is anything");
        client.feed(&server.said());
        assert_eq!(server.seen.pop(), Some(Seen::Message(MessageKind::Text, message.clone())));
        assert_eq!(client.seen.pop(), Some(binary(&message)));
    }
    client.layer.ping(&mut Environment::new().cx(), &[b'p'; 200], &mut client.out);
    server.feed(&client.said());
    assert_eq!(server.out, plain(PONG, &[b'p'; 125]));
    client.feed(&server.said());
    client.layer.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut client.out);
    server.feed(&client.said());
    client.feed(&server.said());
    assert_eq!((server.seen, client.seen), (vec![Seen::End], vec![Seen::End]));
    assert!(
        server.layer.wire_ended(&mut Environment::new().cx(), 0).is_ok()
            && client.layer.wire_ended(&mut Environment::new().cx(), 0).is_ok()
    );
    assert!(client.out.is_empty());
}

#[test]
fn the_close_code_says_why_this_side_ends() {
    let long = "é".repeat(80);
    let cases: [(LayerEnd<'_>, Vec<u8>); 10] = [
        (LayerEnd::Closed, close_frame(1000)),
        (LayerEnd::GoingAway, close_frame(1001)),
        (LayerEnd::TimedOut, close_frame(1001)),
        (LayerEnd::LimitExceeded, close_frame(1008)),
        (LayerEnd::LayerFailed, close_frame(1008)),
        (LayerEnd::HandlerFailed, close_frame(1011)),
        (LayerEnd::Chosen { code: 4001, reason: "bye" }, plain(CLOSE, b"\x0f\xa1bye")),
        // 123 bytes at most, and no half of a character.
        (
            LayerEnd::Chosen { code: 3000, reason: &long },
            plain(CLOSE, &[b"\x0b\xb8", &long.as_bytes()[..122]].concat()),
        ),
        // Codes that no frame may carry (RFC 6455 section 7.4).
        (LayerEnd::Chosen { code: 1006, reason: "cut" }, plain(CLOSE, b"")),
        (LayerEnd::Chosen { code: 5000, reason: "" }, plain(CLOSE, b"")),
    ];
    for (end, frame) in cases {
        let mut ours = server(&WebSocket::server());
        ours.layer.end(&mut Environment::new().cx(), &end, &mut ours.out);
        assert_eq!(ours.out, frame, "{end:?}");
        ours.layer.end(&mut Environment::new().cx(), &end, &mut ours.out);
        assert_eq!(ours.out, frame, "once");
    }
}

#[test]
fn a_close_frame_that_was_sent_for_an_error_is_the_only_one() {
    let mut ours = server(&WebSocket::server());
    ours.feed(&masked(0x83, b"x"));
    assert_eq!(ours.out, close_frame(1002));
    ours.layer.end(&mut Environment::new().cx(), &LayerEnd::LayerFailed, &mut ours.out);
    assert_eq!(ours.out, close_frame(1002));
}
