//! The opening handshake, on both sides.

use super::*;

fn request(line: &str, fields: &[&str]) -> Vec<u8> {
    format!("{line}\r\nHost: h\r\n{}\r\n\r\n", fields.join("\r\n")).into_bytes()
}

const UPGRADE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// What a server says to one request, and what its driver sees.
fn ask(settings: &WebSocketServer, request: &[u8]) -> (String, End) {
    let mut end = End::new(settings.layer());
    end.feed(request);
    (String::from_utf8(end.said()).expect("text"), end)
}

#[test]
fn an_upgrade_is_answered_in_every_split_and_frames_behind_it_are_not_lost() {
    let transcript = [REQUEST, &masked(TEXT, b"early"), &masked(CLOSE, &[3, 232])].concat();
    let (seen, out) = every_split(&transcript, || End::new(WebSocket::server().layer()));
    assert_eq!(seen, [text("early"), Seen::End]);
    assert_eq!(out, [SWITCHED, &close_frame(1000)].concat());
}

#[test]
fn the_request_is_a_fact() {
    let end = server(&WebSocket::server());
    let request = end.fact::<HttpRequest>().expect("the request is known");
    assert_eq!(request.method(), "GET");
    assert_eq!(request.target(), "/chat?room=7");
    assert_eq!((request.path(), request.query()), ("/chat", Some("room=7")));
    assert_eq!(request.header("hOST"), Some("localhost:8080"));
    assert_eq!(request.header("Cookie"), None);
    assert_eq!(request.headers().count(), 6);
    assert_eq!(end.fact::<Upgrade>().expect("it is open").subprotocol(), None);
    assert!(end.fact::<PeerClose>().is_none());
    assert!(!format!("{request:?}").contains("dGhlIHNhbXBsZSBub25jZQ"));
}

#[test]
fn the_target_in_absolute_form_has_a_path() {
    for (line, path) in [
        ("GET http://h/a/b?c HTTP/1.1", "/a/b"),
        ("GET http://h HTTP/1.1", "/"),
        ("GET /x?u=http://y/z HTTP/1.1", "/x"),
        ("OPTIONS * HTTP/1.1", "*"),
    ] {
        let (_, end) = ask(&WebSocket::server(), &request(line, &["A: b"]));
        assert_eq!(end.fact::<HttpRequest>().expect("it was read").path(), path, "{line}");
    }
}

#[test]
fn what_is_no_upgrade_is_served_and_is_no_fault() {
    let (said, end) = ask(&WebSocket::server(), &request("GET / HTTP/1.1", &["Accept: */*"]));
    assert!(said.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{said}");
    assert!(said.contains("\r\nUpgrade: websocket\r\n"));
    assert!(said.contains("\r\nConnection: close, upgrade\r\n"));
    assert_eq!(end.seen, [Seen::End]);
    assert!(!end.layer.is_ready());

    let page = WebSocket::server().answer(|request| match request.path() {
        "/" => HttpResponse::html("<p>ä"),
        _ => HttpResponse::text(404, "none").with_header("X", "a\r\nSet-Cookie: b=c"),
    });
    let whole = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\
                 Content-Length: 5\r\nConnection: close\r\n\r\n<p>ä";
    assert_eq!(ask(&page, &request("GET / HTTP/1.1", &["A: b"])).0, whole);
    assert_eq!(ask(&page, b"GET / HTTP/1.0\r\n\r\n").0, whole);
    let head = whole.strip_suffix("<p>ä").expect("there is a body");
    let (said, mut end) = ask(&page, &request("HEAD / HTTP/1.1", &["A: b"]));
    assert_eq!(said, head);
    assert!(end.layer.wire_ended(&mut Environment::new().cx(), 0).is_ok());
    let (said, _) = ask(&page, &request("GET /x HTTP/1.1", &["A: b"]));
    assert!(said.starts_with("HTTP/1.1 404 Not Found\r\n"));
    assert!(said.contains("\r\nX: a  Set-Cookie: b=c\r\n"), "{said}");
}

#[test]
fn a_response_holds_no_field_of_the_layers_own_and_no_interim_status() {
    let response = HttpResponse::new(100)
        .with_header("Content-Length", "9")
        .with_header("Transfer-Encoding", "chunked")
        .with_header("X\r\nY: z", "1");
    assert_eq!(response.status(), 500);
    let mut wire = Vec::new();
    response.write(false, &mut wire);
    let said = String::from_utf8(wire).expect("text");
    assert!(said.contains("Content-Length: 0\r\n") && !said.contains("chunked"));
    assert!(said.contains("\r\nXYz: 1\r\n"), "{said}");
    let mut wire = Vec::new();
    HttpResponse::new(204).write(false, &mut wire);
    assert!(!String::from_utf8(wire).expect("text").contains("Content-Length"));
}

#[test]
fn an_upgrade_that_breaks_a_rule_is_refused_with_its_status() {
    let with = |change: &[(usize, &'static str)]| {
        let mut fields = UPGRADE;
        for &(at, field) in change {
            fields[at] = field;
        }
        request("GET / HTTP/1.1", &fields)
    };
    let cases: [(Vec<u8>, &str, LayerErrorKind); 9] = [
        (with(&[(2, "Sec-WebSocket-Version: 8")]), "426", LayerErrorKind::Refused),
        (with(&[(2, "A: b")]), "426", LayerErrorKind::Refused),
        (with(&[(3, "A: b")]), "400", LayerErrorKind::Malformed),
        (with(&[(3, "Sec-WebSocket-Key: c2hvcnQ=")]), "400", LayerErrorKind::Malformed),
        (request("POST / HTTP/1.1", &UPGRADE), "400", LayerErrorKind::Malformed),
        (
            request("GET / HTTP/1.1", &[&UPGRADE[..], &["Content-Length: 5"]].concat()),
            "400",
            LayerErrorKind::Malformed,
        ),
        (
            request("GET / HTTP/1.1", &[&UPGRADE[..], &[UPGRADE[3]]].concat()),
            "400",
            LayerErrorKind::Malformed,
        ),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n".into(), "400", LayerErrorKind::Malformed),
        (
            request("GET / HTTP/1.1", &[&UPGRADE[..], &["Host: other"]].concat()),
            "400",
            LayerErrorKind::Malformed,
        ),
    ];
    for (request, status, kind) in cases {
        let (said, mut end) = ask(&WebSocket::server(), &request);
        let asked = String::from_utf8_lossy(&request);
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{asked}\n{said}");
        assert_eq!(said.contains("Sec-WebSocket-Version: 13"), status == "426");
        assert_eq!(end.seen, [Seen::Failed(kind)], "{asked}");
        assert!(end.fact::<HttpRequest>().is_some(), "a refused request can be logged");
        assert!(
            end.layer
                .encode(&mut Environment::new().cx(), b"x", Kind::Text, &mut Vec::new())
                .is_err()
        );
        end.layer.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut end.out);
        assert!(end.out.is_empty());
    }
}

#[test]
fn origins_are_checked() {
    let ask = |settings: &WebSocketServer, origins: &[&str]| {
        let fields: Vec<String> = origins.iter().map(|o| format!("Origin: {o}")).collect();
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let (said, end) =
            ask(settings, &request("GET / HTTP/1.1", &[&UPGRADE[..], &fields[..]].concat()));
        assert_eq!(said.starts_with("HTTP/1.1 403 "), !end.layer.is_ready(), "{said}");
        assert_eq!(
            end.seen.contains(&Seen::Failed(LayerErrorKind::Refused)),
            !end.layer.is_ready()
        );
        end.layer.is_ready()
    };
    let same = WebSocket::server();
    assert!(ask(&same, &[]) && ask(&same, &["http://h"]) && ask(&same, &["https://H"]));
    for foreign in ["http://evil", "null", "http://h.evil", "http://h:81", "h", ""] {
        assert!(!ask(&same, &[foreign]), "{foreign}");
    }
    assert!(!ask(&same, &["http://h", "http://evil"]));
    let listed = WebSocket::server().allow_origins(["https://chat.example"]);
    assert!(ask(&listed, &["https://CHAT.example"]) && ask(&listed, &[]));
    assert!(!ask(&listed, &["http://h"]) && !ask(&listed, &["https://chat.example.evil"]));
    assert!(ask(&WebSocket::server().allow_any_origin(), &["http://evil"]));
}

#[test]
fn a_filter_refuses_with_its_own_response() {
    let settings = WebSocket::server().filter(|request| match request.path() {
        "/socket" => Ok(()),
        _ => Err(HttpResponse::text(404, "no socket here")),
    });
    assert!(ask(&settings, &request("GET /socket HTTP/1.1", &UPGRADE)).1.layer.is_ready());
    let (said, end) = ask(&settings, &request("GET /other HTTP/1.1", &UPGRADE));
    assert!(said.starts_with("HTTP/1.1 404 ") && said.ends_with("no socket here"));
    assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::Refused)]);
    assert!(end.why().contains("404") && end.why().contains("/other"), "{}", end.why());
}

#[test]
fn the_first_known_subprotocol_is_chosen() {
    let settings = WebSocket::server().subprotocols(["v1", "v2"]);
    for (offered, chosen) in
        [(&["v3, v2", "v1"][..], Some("v2")), (&["v3"], None), (&["V1"], None), (&[], None)]
    {
        let client = WebSocket::client("h", "/").subprotocols(
            offered.join(",").split(',').filter(|p| !p.is_empty()).map(|p| p.trim().to_owned()),
        );
        let (server, client) = pair(&settings, &client);
        for end in [server, client] {
            assert_eq!(end.fact::<Upgrade>().expect("open").subprotocol(), chosen);
        }
    }
}

#[test]
fn a_client_opens_in_every_split() {
    let settings = WebSocket::client("localhost:8080", "/chat?room=7").header("Cookie", "a=b");
    let mut client = End::new(settings.layer());
    let asked = String::from_utf8(client.said()).expect("text");
    assert!(asked.starts_with("GET /chat?room=7 HTTP/1.1\r\nHost: localhost:8080\r\n"));
    assert!(asked.contains("\r\nCookie: a=b\r\n") && asked.ends_with("\r\n\r\n"));
    let mut server = End::new(WebSocket::server().layer());
    server.feed(asked.as_bytes());
    assert_eq!(server.fact::<HttpRequest>().expect("read").header("Cookie"), Some("a=b"));
    // The key is another one each time, so one end gets its own answer byte by byte.
    let answer = [server.said(), plain(TEXT, b"early")].concat();
    for byte in answer {
        client.feed(&[byte]);
    }
    assert_eq!(client.seen, [text("early")]);
}

#[test]
fn a_client_refuses_what_is_no_proper_answer() {
    let settings = WebSocket::client("h", "/").subprotocols(["v1"]);
    let run = |change: &dyn Fn(String) -> String| {
        let mut client = End::new(settings.layer());
        let mut server = End::new(WebSocket::server().subprotocols(["v1"]).layer());
        server.feed(&client.said());
        let answer = change(String::from_utf8(server.said()).expect("text"));
        client.feed(answer.as_bytes());
        assert!(!client.layer.is_ready() && client.out.is_empty());
        (client.seen.clone(), client.why())
    };
    let bad = |from: &'static str, to: &'static str| {
        let (seen, why) = run(&move |answer| {
            assert!(answer.contains(from));
            answer.replace(from, to)
        });
        assert_eq!(seen, [Seen::Failed(LayerErrorKind::Malformed)], "{to}: {why}");
    };
    bad("Accept: ", "Accept: x");
    bad("Upgrade: websocket", "Upgrade: h2c");
    bad("Connection: Upgrade", "Connection: close");
    bad("Protocol: v1", "Protocol: v2");
    bad("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
    bad("HTTP/1.1", "SMTP/1.1");
    bad("HTTP/1.1", "\0HTTP/1.1");
    let (seen, why) = run(&|_| {
        "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 9\r\n\r\nlog in\r\n\x1b".into()
    });
    assert_eq!(seen, [Seen::Failed(LayerErrorKind::RefusedByPeer)]);
    assert!(why.contains("302") && why.contains("/login") && why.contains("log in"), "{why}");
    assert!(!why.contains('\x1b') && !why.contains('\n'), "{why}");
}

#[test]
fn a_client_asks_nothing_that_ends_a_line() {
    for settings in [
        WebSocket::client("h\r\nX: y", "/"),
        WebSocket::client("", "/"),
        WebSocket::client("h", "/ HTTP/1.1\r\nX: y"),
        WebSocket::client("h", "chat"),
        WebSocket::client("h", "/").header("X", "a\r\nY: z"),
        WebSocket::client("h", "/").header("X: y\r\nZ", "a"),
        WebSocket::client("h", "/").header("Sec-WebSocket-Key", "a"),
        WebSocket::client("h", "/").subprotocols(["a b"]),
    ] {
        let mut wire = Vec::new();
        let error = settings
            .layer()
            .start(&mut Environment::new().cx(), &mut wire)
            .expect_err("it cannot start");
        assert_eq!(error.kind(), LayerErrorKind::Unencodable);
        assert!(wire.is_empty());
    }
    assert!(
        WebSocket::client("h", "")
            .layer()
            .start(&mut Environment::new().cx(), &mut Vec::new())
            .is_ok()
    );
}

#[test]
fn an_end_in_the_middle_of_the_handshake_is_truncated() {
    for mut layer in [WebSocket::server().layer(), WebSocket::client("h", "/").layer()] {
        let error =
            layer.wire_ended(&mut Environment::new().cx(), 3).expect_err("it is no proper end");
        assert_eq!(error.kind(), LayerErrorKind::Truncated);
        let mut wire = Vec::new();
        layer.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut wire);
        layer.ping(&mut Environment::new().cx(), b"x", &mut wire);
        assert!(wire.is_empty());
    }
}
