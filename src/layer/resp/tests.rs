use super::*;
use crate::layer::testkit::{Driver, Ending, Outcome, Pair, Unit, every_split};

fn words(unit: &Unit) -> Vec<String> {
    let command = Command::new(&unit.bytes, &unit.fields);
    command.words().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn commands(outcome: &Outcome) -> Vec<Vec<String>> {
    outcome.units.iter().map(words).collect()
}

// row 244
#[test]
fn a_server_gets_commands_with_their_words_however_they_are_cut() {
    let wire = b"*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$4\r\na\r\nb\r\n$0\r\n\r\n*0\r\n*-1\r\n*2\r\n$3\r\nGET\r\n$1\r\nx\r\n";
    let outcome = every_split(Resp::server, wire, Ending::Ended);
    assert_eq!(outcome.error_kind(), None);
    assert_eq!(
        commands(&outcome),
        [&["PING"][..], &["SET", "a\r\nb", ""], &["GET", "x"]].map(<[_]>::to_vec)
    );
    assert_eq!(outcome.messages()[0], b"*1\r\n$4\r\nPING\r\n");
}

// row 244
#[test]
fn a_server_takes_a_line_of_words_for_a_command() {
    let wire = b"PING\r\n\r\n  set  a  'b c' \n\necho \"x\\x41\\n\\\"\" 'it\\'s' \"\"\r\n*1\r\n$4\r\nQUIT\r\n";
    let outcome = every_split(Resp::server, wire, Ending::Ended);
    assert_eq!(outcome.error_kind(), None);
    assert_eq!(
        commands(&outcome),
        [&["PING"][..], &["set", "a", "b c"], &["echo", "xA\n\"", "it's", ""], &["QUIT"]]
            .map(<[_]>::to_vec)
    );
    // The handler sees no difference.
    assert_eq!(outcome.messages()[0], b"*1\r\n$4\r\nPING\r\n");
}

/// One of each sort, and what it is.
fn values() -> Vec<(&'static [u8], Value<'static>)> {
    let text = Value::Bulk;
    vec![
        (b"+OK\r\n", Value::Simple(b"OK")),
        (b"-ERR no\r\n", Value::Error(b"ERR no")),
        (b":-42\r\n", Value::Integer(-42)),
        (b"$5\r\na\r\nbc\r\n", text(b"a\r\nbc")),
        (b"$0\r\n\r\n", text(b"")),
        (b"$-1\r\n", Value::Null),
        (b"*-1\r\n", Value::Null),
        (b"*0\r\n", Value::Array(vec![])),
        (
            b"*3\r\n:1\r\n*2\r\n$1\r\na\r\n*0\r\n+b\r\n",
            Value::Array(vec![
                Value::Integer(1),
                Value::Array(vec![text(b"a"), Value::Array(vec![])]),
                Value::Simple(b"b"),
            ]),
        ),
        (b"_\r\n", Value::Null),
        (b"#t\r\n", Value::Boolean(true)),
        (b",-1.5\r\n", Value::Double(-1.5)),
        (b",inf\r\n", Value::Double(f64::INFINITY)),
        (
            b"(3492890328409238509324850943850943825024385\r\n",
            Value::BigNumber(b"3492890328409238509324850943850943825024385"),
        ),
        (b"!21\r\nSYNTAX invalid syntax\r\n", Value::Error(b"SYNTAX invalid syntax")),
        (b"=8\r\ntxt:tide\r\n", Value::Verbatim(b"tide")),
        (
            b"%1\r\n+k\r\n*1\r\n_\r\n",
            Value::Map(vec![(Value::Simple(b"k"), Value::Array(vec![Value::Null]))]),
        ),
        (b"~1\r\n:7\r\n", Value::Set(vec![Value::Integer(7)])),
        (
            b">3\r\n+message\r\n$4\r\nroom\r\n$2\r\nhi\r\n",
            Value::Push(vec![Value::Simple(b"message"), text(b"room"), text(b"hi")]),
        ),
        (b"|1\r\n+ttl\r\n:3\r\n*1\r\n+x\r\n", Value::Array(vec![Value::Simple(b"x")])),
    ]
}

// row 244
#[test]
fn a_client_gets_every_value_of_both_versions_however_they_are_cut() {
    let mut wire = Vec::new();
    for (bytes, value) in values() {
        let outcome = every_split(Resp::client, bytes, Ending::Ended);
        assert_eq!(outcome.messages(), [bytes]);
        assert_eq!(Value::parse(bytes).unwrap(), value);
        wire.extend_from_slice(bytes);
    }
    let outcome = every_split(Resp::client, &wire, Ending::Ended);
    assert_eq!(outcome.error_kind(), None);
    let all: Vec<_> = values().into_iter().map(|(bytes, _)| bytes).collect();
    assert_eq!(outcome.messages(), all);
}

#[test]
fn fields_are_the_elements_of_the_outermost_aggregate() {
    for (wire, expected) in [
        (&b">3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$2\r\nhi\r\n"[..], &["message", "room", "hi"][..]),
        (
            b"*4\r\n:1\r\n*2\r\n+a\r\n*1\r\n+b\r\n$-1\r\n*0\r\n",
            &["1", "*2\r\n+a\r\n*1\r\n+b\r\n", "$-1\r\n", "*0\r\n"],
        ),
        (b"%1\r\n+k\r\n,1.5\r\n", &["k", "1.5"]),
        (b"-ERR no\r\n", &["ERR no"]),
        (b"$2\r\nhi\r\n", &["hi"]),
        (b"_\r\n", &[""]),
        (b"*0\r\n", &[]),
        (b"|1\r\n+k\r\n+v\r\n*1\r\n+x\r\n", &[]),
    ] {
        let outcome = every_split(Resp::client, wire, Ending::Ended);
        assert_eq!(words(&outcome.units[0]), expected);
    }
}

// row 245
#[test]
fn what_is_malformed_is_refused_with_what_was_expected_and_what_came() {
    for (wire, expected) in [
        (&b"x"[..], "expected a type of RESP, 'x' came"),
        (b"$5\r\nabcdeXY", "expected CRLF behind 5 bytes of a string, 'X' 'Y' came"),
        (b"$-5\r\n", "expected a length in digits and CRLF, \"-5\\r\" came"),
        (b"$5\n", "expected a length in digits and CRLF, \"5\" came"),
        (b"*+1\r\n", "expected a length in digits and CRLF, \"+1\\r\" came"),
        (b"*?\r\n", "streamed strings and aggregates are not taken"),
        (b"!-1\r\n", "expected a length of 0 or more, -1 came"),
        (b"%-1\r\n", "expected a length of 0 or more, -1 came"),
        (b"+OK\n", "expected CRLF at the end of a line, a line feed alone came"),
        (b"$1111111111111111111111111", "expected a length and CRLF, 23 bytes without"),
    ] {
        let wire = [b"+before\r\n", wire].concat();
        let outcome = every_split(Resp::client, &wire, Ending::Open);
        assert_eq!(outcome.messages(), [b"+before\r\n"]);
        assert_eq!(outcome.error_kind(), Some(LayerErrorKind::Malformed), "{wire:?}");
        let mut driver = Driver::new(Resp::client());
        driver.feed(&wire);
        let said = driver.error().unwrap().to_string();
        assert!(said.contains(expected), "{said}");
        assert_eq!(driver.take_wire(), b"", "a client has nothing to say");
    }
}

// row 245
#[test]
fn a_server_says_what_was_wrong_before_it_closes() {
    for (wire, kind, said) in [
        (
            &b"*1\r\n:1\r\n"[..],
            LayerErrorKind::Malformed,
            "expected '$', a word of a command, ':' came",
        ),
        (b"*1\r\n$-1\r\n", LayerErrorKind::Malformed, "expected a length of 0 or more, -1 came"),
        (b"*1\r\n*1\r\n", LayerErrorKind::Malformed, "expected '$'"),
        (b"*1025\r\n", LayerErrorKind::TooLarge, "at most 1024 elements in one message, 1025"),
        (b"*1000000000\r\n", LayerErrorKind::TooLarge, "at most 1024 elements"),
        (b"*99999999999999999999\r\n", LayerErrorKind::TooLarge, "at most 1024 elements"),
        (b"*1\r\n$999999999\r\n", LayerErrorKind::TooLarge, "at most 1048576 bytes in one message"),
        (b"set \"a\r\n", LayerErrorKind::Malformed, "expected a quote at the end of a word"),
        (b"set \"a\"b\r\n", LayerErrorKind::Malformed, "expected a space behind a quote"),
        (b"POST / HTTP/1.1\r\n", LayerErrorKind::Malformed, "a request of HTTP came"),
        (b"*1\r\n$1\r\na\r", LayerErrorKind::Truncated, "17 bytes"),
        (b"PING", LayerErrorKind::Truncated, "4 bytes"),
    ] {
        let wire = [b"PING\r\n", wire].concat();
        let outcome = every_split(Resp::server, &wire, Ending::Ended);
        assert_eq!(commands(&outcome), [["PING"]]);
        assert_eq!(outcome.error_kind(), Some(kind), "{wire:?}");
        if kind != LayerErrorKind::Truncated {
            let mut driver = Driver::new(Resp::server());
            driver.feed(&wire);
            let reply = String::from_utf8(driver.take_wire()).unwrap();
            assert!(reply.starts_with("-ERR Protocol error: ") && reply.contains(said), "{reply}");
            assert_eq!(
                Value::parse(reply.as_bytes()).unwrap(),
                Value::Error(reply[1..].trim().as_bytes())
            );
        }
    }
}

// row 245
#[test]
fn limits_hold_to_the_byte() {
    let wire = b"*2\r\n$1\r\na\r\n+b\r\n";
    let whole = wire.len();
    for (make, kind) in [
        (Resp::client().message_limit(whole), None),
        (Resp::client().message_limit(whole - 1), Some(LayerErrorKind::TooLarge)),
        (Resp::client().element_limit(2), None),
        (Resp::client().element_limit(1), Some(LayerErrorKind::TooLarge)),
        (Resp::client().depth_limit(1), None),
        (Resp::client().depth_limit(0), Some(LayerErrorKind::TooLarge)),
    ] {
        let outcome = every_split(|| make.clone(), wire, Ending::Ended);
        assert_eq!(outcome.error_kind(), kind, "{make:?}");
    }
    let deep = |depth: usize| [&b"*1\r\n".repeat(depth)[..], b":1\r\n"].concat();
    for (depth, kind) in [(16, None), (17, Some(LayerErrorKind::TooLarge))] {
        assert_eq!(every_split(Resp::client, &deep(depth), Ending::Ended).error_kind(), kind);
    }
    // Whatever is asked for: a walk over a value recurses.
    let outcome = every_split(|| Resp::client().depth_limit(1_000_000), &deep(200), Ending::Open);
    assert_eq!(outcome.error_kind(), Some(LayerErrorKind::TooLarge));
    assert!(Value::parse(&deep(128)).is_ok());
    assert!(Value::parse(&deep(100_000)).is_err(), "without a limit this overflows the stack");
    let line = |len: usize| [&b"a".repeat(len)[..], b"\r\n"].concat();
    for (len, kind) in [(100, None), (101, Some(LayerErrorKind::TooLarge))] {
        let make = || Resp::server().message_limit(100);
        assert_eq!(every_split(make, &line(len), Ending::Open).error_kind(), kind);
        let wire = [b"+", &line(len - 3)[..]].concat();
        let make = || Resp::client().message_limit(100);
        assert_eq!(every_split(make, &wire, Ending::Open).error_kind(), kind);
    }
}

// row 245
#[test]
fn announced_sizes_reserve_nothing() {
    for wire in [&b"*65536\r\n"[..], b"$1000000\r\n", b"%32768\r\n:1\r\n", b"*1\r\n"] {
        let mut driver = Driver::new(Resp::client()).slack(256);
        driver.feed(wire);
        assert!(driver.error().is_none());
        assert_eq!(driver.left(), wire.len());
    }
}

/// Lets `wire` arrive in pieces; `check` sees the layer and how much has come after each that leaves it
/// unfinished.
fn in_pieces(resp: Resp, wire: &[u8], piece: usize, check: impl Fn(&Resp, usize)) {
    let (mut resp, mut unit, mut reply) = (resp, Vec::new(), Vec::new());
    let mut environment = crate::layer::testkit::Environment::new();
    let mut bytes = wire.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        at = (at + piece).min(bytes.len());
        let arrived = &mut bytes[..at];
        let step = resp.decode(&mut environment.cx(), arrived, &mut unit, &mut reply).unwrap();
        if at < bytes.len() {
            assert_eq!(step, Step::new(0, Item::Nothing));
            check(&resp, at);
        } else {
            assert_eq!(step, Step::new(at, Item::Slice(0..at)));
        }
    }
}

// row 246
#[test]
fn a_large_message_in_small_pieces_is_looked_at_once() {
    let large = Resp::client().message_limit(64 << 20).element_limit(1 << 20);
    let length = 16 << 20;
    let bulk = [format!("${length}\r\n").as_bytes(), &vec![b'x'; length], b"\r\n"].concat();
    in_pieces(large.clone(), &bulk, 1024, |resp, _| {
        assert_eq!(resp.scan.needed, bulk.len(), "not looked at before it is whole");
    });

    let array = [&b"*262144\r\n"[..], &b"$3\r\nabc\r\n".repeat(262_144)].concat();
    in_pieces(large, &array, 1024, |resp, arrived| {
        assert!(arrived - resp.scan.at < 9, "only the element that is not whole comes again");
    });

    let line = [&b"+"[..], &vec![b'x'; 1 << 20], b"\r\n"].concat();
    in_pieces(Resp::client().message_limit(2 << 20), &line, 1000, |resp, arrived| {
        assert_eq!(resp.scan.searched, arrived);
    });

    let mut server = Driver::new(Resp::server());
    server.feed(&[b'x'; 5000]);
    assert_eq!(server.layer().searched, 5000);
}

// row 244
#[test]
fn values_are_read_as_they_were_written() {
    for (bytes, value) in values() {
        if bytes[0] != b'|' {
            let wire = value.encode(Version::Resp3);
            assert_eq!(Value::parse(&wire).unwrap(), value, "{bytes:?}");
        }
        let wire = value.encode(Version::Resp2);
        let read = Value::parse(&wire).unwrap();
        assert_eq!(read.encode(Version::Resp2), wire);
    }
    assert_eq!(Value::Error(b"ERR a\r\nb").encode(Version::Resp2), b"-ERR a  b\r\n");
    assert_eq!(Value::Integer(i64::MIN).encode(Version::Resp2), b":-9223372036854775808\r\n");
    for none in
        [&b""[..], b"+OK", b"+OK\r\n+OK\r\n", b":x\r\n", b"#x\r\n", b"*1\r\n", b"%1\r\n*0\r\n_\r\n"]
    {
        assert_eq!(Value::parse(none).unwrap_err().kind(), LayerErrorKind::Malformed, "{none:?}");
    }
}

// row 244
#[test]
fn only_whole_values_are_sent() {
    let mut driver = Driver::new(Resp::server());
    for (message, sent) in [
        (&b"+OK\r\n"[..], true),
        (b"+OK\r\n:1\r\n", true),
        (b">2\r\n+a\r\n$1\r\nb\r\n", true),
        (b"", false),
        (b"hello", false),
        (b"+OK", false),
        (b"+OK\r\n$3\r\nab", false),
        (b"$1\r\nabc", false),
    ] {
        match driver.send(message, MessageKind::Default) {
            Ok(()) => assert!(sent, "{message:?}"),
            Err(error) => {
                assert!(!sent, "{message:?}: {error}");
                assert_eq!(error.kind(), LayerErrorKind::Unencodable);
            }
        }
        assert_eq!(driver.take_wire(), if sent { message } else { b"" });
    }
}

#[test]
fn a_client_and_a_server_talk() {
    let mut pair = Pair::new(Resp::client(), Resp::server()).chunks(1, 3);
    pair.handshake();
    let command = Command::encode(&["SET", "tide", "high"]);
    pair.client.send(&command, MessageKind::Default).unwrap();
    pair.run();
    assert_eq!(words(&pair.server.take_units()[0]), ["SET", "tide", "high"]);
    let long = Value::Bulk(&[7; 100_000]).encode(Version::Resp3);
    pair.server.send(&long, MessageKind::Default).unwrap();
    pair.run();
    assert_eq!(pair.client.take_messages(), [long]);
    pair.close();
}
