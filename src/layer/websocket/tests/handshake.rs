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

/// An upgrade with one more field, of any bytes.
fn with_bytes(field: &[u8]) -> Vec<u8> {
    let request = request("GET / HTTP/1.1", &UPGRADE);
    [request.strip_suffix(b"\r\n").expect("an empty line ends it"), field, b"\r\n\r\n"].concat()
}

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
    let end = server(&WebSocket::server().keep_request(true));
    let request = end.layer_info::<HttpRequest>().expect("the request is known");
    assert_eq!(request.method(), "GET");
    assert_eq!(request.target(), "/chat?room=7");
    assert_eq!((request.path(), request.query()), ("/chat", Some("room=7")));
    assert_eq!(request.header("hOST"), Some("localhost:8080"));
    assert_eq!(request.header("Cookie"), None);
    assert_eq!(request.headers().count(), 6);
    assert_eq!(end.layer_info::<Upgrade>().expect("it is open").subprotocol(), None);
    assert!(end.layer_info::<PeerClose>().is_none());
    assert!(!format!("{request:?}").contains("dGhlIHNhbXBsZSBub25jZQ"));
}

#[test]
fn the_request_is_given_back_behind_the_opening() {
    let mut end = End::new(WebSocket::server().layer());
    let decode = |end: &mut End, wire: &mut [u8]| {
        let (mut unit, mut reply) = (Vec::new(), Vec::new());
        end.layer.decode(&mut Environment::new().cx(), wire, &mut unit, &mut reply).expect("right")
    };
    let _ = decode(&mut end, &mut REQUEST.to_vec());
    assert!(end.layer.is_ready());
    assert_eq!(end.layer_info::<HttpRequest>().expect("it opened").path(), "/chat");
    let _ = decode(&mut end, &mut []);
    assert!(end.layer_info::<HttpRequest>().is_none());
    assert!(end.layer_info::<Upgrade>().is_some());
}

#[test]
fn the_target_is_read_in_each_of_its_forms() {
    // The target, and its path, its query and its host; the Host field says `h`.
    for (line, path, query, host) in [
        ("GET / HTTP/1.1", "/", None, "h"),
        ("GET /a/b?c=/d?e HTTP/1.1", "/a/b", Some("c=/d?e"), "h"),
        ("GET /x?u=http://y/z HTTP/1.1", "/x", Some("u=http://y/z"), "h"),
        ("GET /a://b HTTP/1.1", "/a://b", None, "h"),
        ("GET //double HTTP/1.1", "//double", None, "h"),
        ("GET /a? HTTP/1.1", "/a", Some(""), "h"),
        ("GET http://other/a/b?c HTTP/1.1", "/a/b", Some("c"), "other"),
        ("GET http://other HTTP/1.1", "/", None, "other"),
        ("GET ws://other:81/ HTTP/1.1", "/", None, "other:81"),
        ("GET http://other?next=/room HTTP/1.1", "/", Some("next=/room"), "other"),
        ("GET http://other?x HTTP/1.1", "/", Some("x"), "other"),
        ("GET http://me:word@other/a HTTP/1.1", "/a", None, "other"),
        ("OPTIONS * HTTP/1.1", "*", None, "h"),
        ("CONNECT other:443 HTTP/1.1", "", None, "other:443"),
    ] {
        let (_, end) = ask(&WebSocket::server(), &request(line, &["A: b"]));
        let request =
            end.layer_info::<HttpRequest>().unwrap_or_else(|| panic!("{line}: {}", end.why()));
        assert_eq!((request.path(), request.query()), (path, query), "{line}");
        assert_eq!(request.host(), Some(host), "{line}");
    }
    for line in [
        "GET a HTTP/1.1",
        "GET ?a HTTP/1.1",
        "GET h:80 HTTP/1.1",
        "GET 1://h/ HTTP/1.1",
        "GET ://h/ HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http://me@/a HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "CONNECT /a HTTP/1.1",
    ] {
        let (said, end) = ask(&WebSocket::server(), &request(line, &UPGRADE));
        assert!(said.starts_with("HTTP/1.1 400 "), "{line}\n{said}");
        assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::Malformed)], "{line}");
    }
}

#[test]
fn an_origin_is_compared_with_the_host_that_the_target_names() {
    let asked = |origin| {
        let fields = [&UPGRADE[..], &[origin]].concat();
        ask(&WebSocket::server(), &request("GET http://other/ HTTP/1.1", &fields)).1
    };
    assert!(asked("Origin: http://other").layer.is_ready());
    assert!(!asked("Origin: http://h").layer.is_ready());
}

#[test]
fn empty_lines_before_a_request_are_passed_over() {
    for empty in ["\r\n", "\r\n\r\n", "\n\n\n", "\r\n\r\n\r\n\r\n"] {
        let transcript = [empty.as_bytes(), REQUEST].concat();
        let (seen, out) = every_split(&transcript, || End::new(WebSocket::server().layer()));
        assert_eq!((seen, out), (vec![], SWITCHED.to_vec()));
    }
    let (said, _) = ask(&WebSocket::server(), &b"\r\n".repeat(20_000));
    assert!(said.starts_with("HTTP/1.1 431 "), "they count towards the limit: {said}");
}

#[test]
fn a_separator_inside_of_a_quoted_string_separates_nothing() {
    let answer = |offers: &str| {
        let fields = [&UPGRADE[..], &[offers]].concat();
        ask(&WebSocket::server().deflate(true), &request("GET / HTTP/1.1", &fields)).1
    };
    let compressed = |end: &End| end.layer_info::<Upgrade>().expect("it is open").is_compressed();
    for foreign in [
        r#"Sec-WebSocket-Extensions: x; a="b, permessage-deflate, c""#,
        r#"Sec-WebSocket-Extensions: x; a="b\", permessage-deflate, c""#,
        r#"Sec-WebSocket-Extensions: x; a="b, permessage-deflate"#,
        r#"Sec-WebSocket-Extensions: permessage-deflate; a="b; server_no_context_takeover""#,
        r#"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=15""#,
    ] {
        assert!(!compressed(&answer(foreign)), "{foreign}");
    }
    for ours in [
        r#"Sec-WebSocket-Extensions: x; a="b, c", permessage-deflate"#,
        r#"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits="15""#,
    ] {
        assert!(compressed(&answer(ours)), "{ours}");
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
    let cases: [(Vec<u8>, &str, LayerErrorKind); 13] = [
        (
            request("GET / HTTP/1.1", &[&UPGRADE[..], &["Sec-WebSocket-Version: 8"]].concat()),
            "426",
            LayerErrorKind::Refused,
        ),
        (
            request(
                "GET / HTTP/1.1",
                &[&UPGRADE[..], &["Content-Length: 0", "Content-Length: 5"]].concat(),
            ),
            "400",
            LayerErrorKind::Malformed,
        ),
        (with_bytes(b"Transfer-Encoding: \xff"), "400", LayerErrorKind::Malformed),
        (with_bytes(b"Content-Length: \xff"), "400", LayerErrorKind::Malformed),
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
        assert!(end.layer_info::<HttpRequest>().is_some(), "a refused request can be logged");
        assert!(
            end.layer
                .encode(&mut Environment::new().cx(), b"x", MessageKind::Text, &mut Vec::new())
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
            assert_eq!(end.layer_info::<Upgrade>().expect("open").subprotocol(), chosen);
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
    let mut server = End::new(WebSocket::server().keep_request(true).layer());
    server.feed(asked.as_bytes());
    assert_eq!(server.layer_info::<HttpRequest>().expect("read").header("Cookie"), Some("a=b"));
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
        WebSocket::client("h", "?room=7"),
        WebSocket::client("h", "/chat#room"),
        WebSocket::client("h/chat", "/"),
        WebSocket::client("h#", "/"),
        WebSocket::client("me@h", "/"),
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

/// A client that offers a subprotocol and compression, and gets what `answer` makes of the right
/// `Sec-WebSocket-Accept`, byte by byte.
fn answered(answer: impl Fn(&str) -> String) -> End {
    let settings = WebSocket::client("h", "/").subprotocols(["v1", "v2"]).deflate(true);
    let mut client = End::new(settings.layer());
    let asked = String::from_utf8(client.said()).expect("text");
    let key = asked.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let accept = server::accept_key(key.expect("there is one"));
    for byte in answer(&accept).as_bytes() {
        client.feed(&[*byte]);
    }
    client
}

#[test]
fn the_fields_of_an_answer_are_lists() {
    let open = |fields: &str| {
        answered(|accept| {
            format!(
                "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n{fields}\r\n"
            )
        })
    };
    for fine in [
        "Connection: Upgrade\r\n",
        "Connection: keep-alive, Upgrade\r\n",
        "Connection: keep-alive\r\nConnection: Upgrade\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\n",
    ] {
        let end = open(fine);
        assert!(end.layer.is_ready(), "{fine}: {}", end.why());
    }
    let up = "Connection: Upgrade\r\n";
    let both = open(&format!(
        "{up}Sec-WebSocket-Protocol: v2\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    ));
    let agreed = both.layer_info::<Upgrade>().expect("it is open");
    assert_eq!((agreed.subprotocol(), agreed.is_compressed()), (Some("v2"), true));
    for wrong in [
        "Connection: keep-alive\r\n".to_owned(),
        format!("{up}Sec-WebSocket-Protocol: v1\r\nSec-WebSocket-Protocol: x\r\n"),
        format!("{up}Sec-WebSocket-Protocol: v1\r\nSec-WebSocket-Protocol: v2\r\n"),
        format!("{up}Sec-WebSocket-Protocol: v1, v2\r\n"),
        format!(
            "{up}Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Extensions: x\r\n"
        ),
        format!("{up}Sec-WebSocket-Accept: other\r\n"),
    ] {
        let end = open(&wrong);
        assert_eq!(end.seen, [Seen::Failed(LayerErrorKind::Malformed)], "{wrong}");
    }
}

#[test]
fn interim_answers_are_passed_over_and_the_final_one_counts() {
    let fine = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let before = |interim: &str| {
        answered(|accept| {
            format!("{interim}HTTP/1.1 101 S\r\n{fine}Sec-WebSocket-Accept: {accept}\r\n\r\n")
        })
    };
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n",
    ] {
        let end = before(interim);
        assert!(end.layer.is_ready(), "{interim}: {}", end.why());
    }
    let refused = answered(|_| "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 None\r\n\r\n".into());
    assert_eq!(refused.seen, [Seen::Failed(LayerErrorKind::RefusedByPeer)]);
    // A server that goes on with them for ever.
    let endless = before(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000));
    assert_eq!(endless.seen, [Seen::Failed(LayerErrorKind::TooLarge)]);
}
