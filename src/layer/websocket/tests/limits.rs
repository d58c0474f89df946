//! What a hostile peer costs.

use super::*;

#[test]
fn a_message_over_its_limit_is_refused_when_the_header_says_so() {
    let settings = WebSocket::server().message_limit(100);
    let too_large = (vec![Seen::Failed(LayerErrorKind::TooLarge)], close_frame(1009));
    let fresh = || server(&settings);
    assert_eq!(every_split(&masked(TEXT, &[b'x'; 100]), fresh).0.len(), 1);
    assert_eq!(every_split(&header(TEXT, 101, 0x80), fresh).0, [], "the mask is a part of it");
    assert_eq!(every_split(&masked(TEXT, &[b'x'; 101])[..6], fresh), too_large);
    let fragments = [masked(TEXT_OPEN, &[b'x'; 60]), masked(LAST, &[b'x'; 41])].concat();
    assert_eq!(every_split(&fragments, fresh), too_large);
    let settings = WebSocket::server().frame_limit(10);
    let fragments = [masked(TEXT_OPEN, &[b'x'; 10]), masked(LAST, &[b'x'; 10])].concat();
    assert_eq!(every_split(&fragments, || server(&settings)).0, [text(&"x".repeat(20))]);
    assert_eq!(every_split(&masked(TEXT, &[b'x'; 11]), || server(&settings)), too_large);
}

#[test]
fn what_is_announced_is_not_allocated() {
    for length in [(1 << 20) + 1, 1 << 32, 1 << 63, u64::MAX] {
        let mut end = server(&WebSocket::server());
        end.feed(&[header(BINARY, length, 0x80), vec![1, 2, 3, 4]].concat());
        assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::TooLarge)]);
        assert_eq!(end.out, close_frame(1009));
        assert!(end.why().contains(&length.to_string()), "{}", end.why());
    }
    // Within the limits, and with all limits off: room for what came.
    for (settings, length) in [
        (WebSocket::server(), 1 << 20),
        (WebSocket::server().message_limit(usize::MAX), u64::MAX >> 1),
        (WebSocket::server().message_limit(usize::MAX), u64::MAX),
    ] {
        let mut end = server(&settings);
        end.feed(&[header(BINARY, length, 0x80), vec![0; 104]].concat());
        assert!(frames(&end).held() <= 256, "{} bytes for 100", frames(&end).held());
    }
}

#[test]
fn an_idle_connection_keeps_no_large_buffer() {
    let mut end = server(&WebSocket::server());
    for _ in 0..3 {
        for piece in masked(BINARY, &vec![0; 1 << 20]).chunks(16384) {
            end.feed(piece);
        }
        assert!(frames(&end).held() <= 4096, "{}", frames(&end).held());
    }
    assert_eq!(end.seen.len(), 3);
}

#[test]
fn a_flood_of_pings_costs_little() {
    let mut end = server(&WebSocket::server());
    // Ten at once, as a tester of the protocol sends them, have an answer each.
    let ping = |n: u32| masked(PING, &[n.to_be_bytes().as_slice(), &[b'.'; 121]].concat());
    end.feed(&(0..10).flat_map(ping).collect::<Vec<u8>>());
    assert_eq!(end.said().len(), 10 * 127);
    let flood: Vec<u8> = (0..10_000).flat_map(ping).collect();
    end.feed(&flood);
    let out = end.said();
    assert_eq!(out.len(), 33 * 127);
    let last = &out[out.len() - 125..];
    assert_eq!(last[..4], 9999_u32.to_be_bytes(), "the latest one has its answer");
    assert_eq!(end.seen, []);
    // A message behind them still comes, and the pong before it is sent.
    end.feed(&[flood, masked(TEXT, b"x")].concat());
    assert_eq!((end.said().len(), end.seen.len()), (33 * 127, 1));
}

#[test]
fn a_head_over_its_limit_is_431() {
    let bomb = [b"GET / HTTP/1.1\r\nHost: h\r\nA: ".as_slice(), &[b'a'; 20_000]].concat();
    let many =
        [b"GET / HTTP/1.1\r\nHost: h\r\n".as_slice(), &b"A: b\r\n".repeat(101), b"\r\n"].concat();
    for request in [bomb, many] {
        let (mut end, mut whole) =
            (End::new(WebSocket::server().layer()), End::new(WebSocket::server().layer()));
        whole.feed(&request);
        for byte in &request {
            end.feed(&[*byte]);
            if end.over() {
                break;
            }
        }
        assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::TooLarge)]);
        assert_eq!((&end.seen, &end.out), (&whole.seen, &whole.out));
        assert!(end.out.starts_with(b"HTTP/1.1 431 "));
        assert!(end.tail.len() <= 16385);
    }
    // Exactly at the limit it is taken; and so many fields too.
    let few =
        [b"GET / HTTP/1.1\r\nHost: h\r\n".as_slice(), &b"A: b\r\n".repeat(99), b"\r\n"].concat();
    let mut end = End::new(WebSocket::server().header_limit(few.len()).layer());
    end.feed(&few);
    assert_eq!(end.seen, [Seen::End]);
    let mut end = End::new(WebSocket::server().header_limit(few.len() - 1).layer());
    end.feed(&few);
    assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::TooLarge)]);
    let mut client = End::new(WebSocket::client("h", "/").layer());
    client.feed(&[b"HTTP/1.1 101 Switching\r\nA: ".as_slice(), &[b'a'; 20_000]].concat());
    assert_eq!(client.seen, [Seen::Failed(LayerErrorKind::TooLarge)]);
}

#[test]
fn a_slow_head_is_looked_at_once() {
    let mut scan = HeadScan::default();
    let head = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 1 << 20], b"\r\n\r\n"].concat();
    // Byte by byte a scan from the start would look at 5 * 10^11 of them.
    for end in 0..head.len() {
        match scan.find(&head[..end], usize::MAX) {
            Ok(Scanned::FirstLine(16)) if end == 16 => {}
            scanned => assert_eq!(scanned, Ok(Scanned::Part)),
        }
    }
    assert_eq!(scan.find(&head, usize::MAX), Ok(Scanned::Whole(head.len())));
}

#[test]
fn what_is_no_http_is_refused_at_its_first_wrong_byte_or_line() {
    for (bytes, hint) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], "TLS"),
        (b"\0\0\0\0", "0x00"),
        (b"\x05\x01\x00", "0x05"),
        (b"GET / \x7f", "0x7f"),
        (b"\x81\x05hello", "0x81"),
        (b" GET / HTTP/1.1", "0x20"),
        (b"hello\n", "got a line \"hello\\n\""),
        (b"EHLO mail.example\r\n", "EHLO"),
        (b"GET /\r\n", "GET /\\r"), // HTTP/0.9
        (b"PRI * HTTP/2.0\r\n", "HTTP/2.0"),
        (b"\r\nEHLO mail.example\r\n", "EHLO"),
        (b"\n\x81\x05hello", "0x81"),
        (b"GET / HTTP/1.1\r\nA b: c\r\n\r\n", ""),
        (b"GET / HTTP/1.1\r\n folded: c\r\n\r\n", ""),
    ] {
        let mut end = End::new(WebSocket::server().layer());
        end.feed(bytes);
        if hint.is_empty() {
            end.feed(b"\n\n");
        }
        assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::Malformed)], "{bytes:?}");
        assert!(end.out.starts_with(b"HTTP/1.1 400 "));
        assert!(end.why().contains(hint), "{}", end.why());
    }
}

#[test]
fn what_is_no_http_answer_is_refused_at_its_first_wrong_byte() {
    for (bytes, hint) in [
        (&b"S"[..], "\"S\""),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "\"SSH-2.0-OpenSSH_9.2\\r\\n\""),
        (b"220 mail.example ESMTP\r\n", "220 mail"),
        (b"HTTP/2", "HTTP/2"),
        (b"\r\nHTTP/1.1 101 ", "\\r\\n"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "TLS"),
        (b"HTTP/1.1 \x00", "0x00"),
    ] {
        let mut end = End::new(WebSocket::client("h", "/").layer());
        end.feed(bytes);
        assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::Malformed)], "{bytes:?}");
        assert!(end.why().contains(hint), "{}", end.why());
    }
    // What may still become an answer is waited for.
    let mut end = End::new(WebSocket::client("h", "/").layer());
    end.feed(b"HTTP/1.");
    assert_eq!(end.seen, []);
}

#[test]
fn bare_line_feeds_end_lines_too() {
    let request: Vec<u8> = REQUEST.iter().copied().filter(|&byte| byte != b'\r').collect();
    let (seen, out) = every_split(&[request, masked(TEXT, b"x")].concat(), || {
        End::new(WebSocket::server().layer())
    });
    assert_eq!((seen, out), (vec![text("x")], SWITCHED.to_vec()));
}
