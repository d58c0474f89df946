//! STARTTLS: lines in clear, then TLS beneath the same lines, on one connection (RFC 3207).
#![cfg(feature = "tls")]

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tidegate::layer::tls::{TlsInfo, TlsVersion, rustls};
use tidegate::layer::{Layer, LayerErrorKind, LengthPrefixed, Lines};
use tidegate::{
    CloseInfo, CloseReason, Connect, Context, Deadline, HandlerResult, Input, Listen, Reactor,
    SendStatus, StreamOptions,
};

use crate::support::through::Through;
use crate::support::{Log, Probe, Told, address_of, client, read_all, secure, until, with_client};

/// What the tests ask about the ends: the kind of a layer's error, or the text of another reason.
type Ends = Rc<RefCell<Vec<Result<LayerErrorKind, String>>>>;

fn note(ends: &Ends) -> impl FnMut(&mut Context<'_>, &CloseInfo) + 'static {
    let ends = Rc::clone(ends);
    move |_, closed| {
        ends.borrow_mut().push(match &closed.reason {
            CloseReason::Layer(e) => Ok(e.kind()),
            CloseReason::TimedOut(Deadline::Handshake) => Err("handshake".into()),
            other => Err(other.to_string()),
        });
    }
}

/// The server's side of the protocol: `STARTTLS` is answered in clear, everything else is echoed.
fn serve(cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
    match input.take_all() {
        b"STARTTLS" if cx.layer_info::<TlsInfo>().is_none() => {
            cx.send("220 go ahead");
            cx.net.start_layer(cx.token, secure::server());
        }
        line => {
            cx.send(line);
        }
    }
    Ok(())
}

struct Stage {
    reactor: Reactor,
    address: SocketAddr,
    log: Log,
    ends: Ends,
}

fn stage() -> Stage {
    stage_over(StreamOptions::new(), Lines::new)
}

fn stage_over<L: Layer + 'static>(
    options: StreamOptions,
    mut layer: impl FnMut() -> L + 'static,
) -> Stage {
    let mut reactor = Reactor::new().unwrap();
    let (log, ends) = (Log::new(), Ends::default());
    let (of_handlers, of_ends) = (log.clone(), Rc::clone(&ends));
    let listen = Listen::tcp("127.0.0.1:0").options(options).layer(move |_| layer());
    let make =
        move |_: &tidegate::Peer<'_>| Probe::new(&of_handlers).data(serve).close(note(&of_ends));
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    Stage { reactor, address, log, ends }
}

/// A client of ours: asks for TLS, and says `secret` at once when it may ask for the handshake.
fn upgrading(log: &Log, ends: &Ends) -> Probe {
    Probe::new(log)
        .open(|cx| {
            assert!(cx.layer_info::<TlsInfo>().is_none());
            cx.send("hello");
            cx.send("STARTTLS");
            Ok(())
        })
        .data(|cx, input| {
            match input.take_all() {
                b"220 go ahead" => {
                    assert!(cx.net.start_layer(cx.token, secure::client()));
                    // It waits until the handshake is done, and leaves encrypted.
                    assert_eq!(cx.send("secret"), SendStatus::Queued);
                }
                b"secret" => {
                    assert_eq!(cx.layer_info::<TlsInfo>().unwrap().version(), TlsVersion::V1_3);
                    cx.close();
                }
                _ => {}
            }
            Ok(())
        })
        .close(note(ends))
}

#[test]
fn lines_go_on_over_tls_on_the_same_connection() {
    let mut stage = stage();
    let log = Log::new();
    let probe = upgrading(&log, &stage.ends);
    let connect = Connect::tcp(stage.address).layer(Lines::new());
    stage.reactor.net().connect(connect, probe).unwrap();
    let ends = Rc::clone(&stage.ends);
    until(&mut stage.reactor, "both ends", |_| ends.borrow().len() == 2);
    assert_eq!(stage.log.data(), b"helloSTARTTLSsecret");
    assert_eq!(log.data(), b"hello220 go aheadsecret");
    for end in ends.borrow().iter() {
        let orderly = ["both sides ended", "closed"].map(|text| Err(text.to_owned()));
        assert!(orderly.contains(end), "{end:?}");
    }
    assert_eq!((stage.log.opens(), log.opens()), (1, 1), "it opens once, before the switch");
    assert_eq!((stage.log.eofs(), log.eofs()), (1, 0));
}

#[test]
fn nothing_said_after_the_switch_is_seen_on_the_wire() {
    // A wire in the middle that keeps what passes.
    let mut stage = stage();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (middle, server) = (listener.local_addr().unwrap(), stage.address);
    let tap = std::thread::spawn(move || {
        let (from_client, _) = listener.accept().unwrap();
        let to_server = client(server);
        let mut back = (to_server.try_clone().unwrap(), from_client.try_clone().unwrap());
        let other = std::thread::spawn(move || pass(&mut back.0, &mut back.1));
        let (mut from_client, mut to_server) = (from_client, to_server);
        let seen = pass(&mut from_client, &mut to_server);
        [seen, other.join().unwrap()]
    });
    let log = Log::new();
    let probe = upgrading(&log, &stage.ends);
    stage.reactor.net().connect(Connect::tcp(middle).layer(Lines::new()), probe).unwrap();
    let ends = Rc::clone(&stage.ends);
    until(&mut stage.reactor, "both ends", |_| ends.borrow().len() == 2);
    until(&mut stage.reactor, "the wire's end", |_| tap.is_finished());
    assert!(log.data().ends_with(b"secret"));
    for (seen, clear) in
        tap.join().unwrap().iter().zip([&b"hello\nSTARTTLS\n"[..], b"hello\n220 go ahead\n"])
    {
        assert!(seen.starts_with(clear), "{}", String::from_utf8_lossy(seen));
        assert_eq!(seen[clear.len()], 22, "a handshake record follows at once");
        assert!(!seen.windows(6).any(|w| w == b"secret"));
    }
}

fn pass(from: &mut TcpStream, to: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                seen.extend(&buffer[..n]);
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
    seen
}

fn rustls_client() -> rustls::ClientConnection {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(secure::roots())
        .with_no_client_auth();
    rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
}

#[test]
fn a_client_of_another_making_is_understood() {
    let mut stage = stage();
    let address = stage.address;
    let line = with_client(&mut stage.reactor, move || {
        let mut stream = client(address);
        stream.write_all(b"STARTTLS\n").unwrap();
        assert_eq!(crate::support::read_n(&mut stream, 13), b"220 go ahead\n");
        let mut tls = rustls_client();
        let mut secured = rustls::Stream::new(&mut tls, &mut stream);
        secured.write_all(b"secret\n").unwrap();
        let mut line = String::new();
        BufReader::new(&mut secured).read_line(&mut line).unwrap();
        tls.send_close_notify();
        tls.complete_io(&mut stream).unwrap();
        line
    });
    assert_eq!(line, "secret\n");
    let ends = Rc::clone(&stage.ends);
    until(&mut stage.reactor, "the end", |_| ends.borrow().len() == 1);
    assert!(ends.borrow()[0].is_err(), "{ends:?}");
}

/// Says `bytes` in clear, answers what came back, and how it ended on the server.
fn in_clear(stage: &mut Stage, bytes: &[u8]) -> (Vec<u8>, Result<LayerErrorKind, String>) {
    let (address, bytes) = (stage.address, bytes.to_vec());
    let said = with_client(&mut stage.reactor, move || {
        let mut stream = client(address);
        stream.write_all(&bytes).unwrap();
        read_all(&mut stream)
    });
    let ends = Rc::clone(&stage.ends);
    until(&mut stage.reactor, "the end", |_| ends.borrow().len() == 1);
    (said, ends.take().remove(0))
}

/// What somebody on the line pipelines behind the command must not be read as if it had come
/// through TLS (CVE-2011-0411).
#[test]
fn clear_text_behind_the_command_is_refused() {
    let mut stage = stage();
    let (said, end) = in_clear(&mut stage, b"STARTTLS\nDELETE EVERYTHING\n");
    assert_eq!(end, Ok(LayerErrorKind::Malformed));
    assert_eq!(said, [&b"220 go ahead\n"[..], &[21, 3, 3, 0, 2, 2, 50]].concat(), "and an alert");
    assert_eq!(stage.log.data(), b"STARTTLS", "the handler never saw it");
}

/// The same, where the command and what stands behind it came out of one unit of a layer below.
#[test]
fn clear_text_that_a_layer_holds_is_refused() {
    for behind in ["DELETE EVERYTHING\n", "DELETE EVERY"] {
        let mut stage =
            stage_over(StreamOptions::new(), || LengthPrefixed::new(1).then(Lines::new()));
        let address = stage.address;
        with_client(&mut stage.reactor, move || {
            let mut stream = client(address);
            let words = format!("STARTTLS\n{behind}");
            stream.write_all(&[&[words.len() as u8], words.as_bytes()].concat()).unwrap();
            let said = crate::support::read_n(&mut stream, 14);
            assert_eq!(said, b"\x0d220 go ahead\n");
            // An honest client goes on, and knows nothing of what was slipped in.
            let mut tls = rustls_client();
            let mut secured = rustls::Stream::new(&mut tls, &mut stream);
            let _ = secured.write_all(b"\x07THING!\n");
            let _ = secured.read(&mut [0; 64]);
        });
        let ends = Rc::clone(&stage.ends);
        until(&mut stage.reactor, "the end", |_| ends.borrow().len() == 1);
        assert_eq!(stage.log.data(), b"STARTTLS", "the handler never saw it");
        assert_eq!(ends.borrow()[0], Ok(LayerErrorKind::Malformed));
    }
}

#[test]
fn on_a_stream_without_layers_too_what_is_left_belongs_to_tls() {
    let mut reactor = Reactor::new().unwrap();
    let (log, ends) = (Log::new(), Ends::default());
    let (of_handlers, of_ends) = (log.clone(), Rc::clone(&ends));
    let make = move |_: &tidegate::Peer<'_>| {
        Probe::new(&of_handlers)
            .data(|cx, input| {
                if cx.layer_info::<TlsInfo>().is_some() {
                    cx.send(input.take_all());
                } else if input.take_until(b'\n') == Some(b"STARTTLS") {
                    cx.send("220 go ahead\n");
                    assert!(cx.net.start_layer(cx.token, secure::server()));
                }
                Ok(())
            })
            .close(note(&of_ends))
    };
    let listener = reactor.net().listen("127.0.0.1:0", make).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut stage = Stage { reactor, address, log, ends };
    let heard = with_client(&mut stage.reactor, move || {
        let mut stream = client(address);
        // An impatient client: its ClientHello comes with the command.
        let mut tls = rustls_client();
        let mut opening = b"STARTTLS\n".to_vec();
        tls.write_tls(&mut opening).unwrap();
        stream.write_all(&opening).unwrap();
        assert_eq!(crate::support::read_n(&mut stream, 13), b"220 go ahead\n");
        let mut secured = rustls::Stream::new(&mut tls, &mut stream);
        secured.write_all(b"secret").unwrap();
        let mut heard = [0; 6];
        secured.read_exact(&mut heard).unwrap();
        heard
    });
    assert_eq!(&heard, b"secret");
    let ends = Rc::clone(&stage.ends);
    until(&mut stage.reactor, "the end", |_| ends.borrow().len() == 1);
    assert_eq!(ends.take(), [Ok(LayerErrorKind::Truncated)], "it left without close_notify");
    let seen: Vec<_> = stage.log.told();
    assert!(seen.contains(&Told::Data(b"secret".to_vec())), "{seen:?}");

    let (_, end) = in_clear(&mut stage, b"STARTTLS\nDELETE EVERYTHING\n");
    assert_eq!(end, Ok(LayerErrorKind::Malformed));
}

#[test]
fn the_handshake_of_a_late_layer_has_a_deadline() {
    let options = StreamOptions::new().handshake_timeout(Duration::from_millis(60));
    let mut stage = stage_over(options, Lines::new);
    let address = stage.address;
    // Long before the switch there is none.
    let mut silent = client(address);
    let log = stage.log.clone();
    until(&mut stage.reactor, "the opening", |_| log.opens() == 1);
    std::thread::sleep(Duration::from_millis(80));
    silent.write_all(b"hello\n").unwrap();
    until(&mut stage.reactor, "the line", |_| log.data() == b"hello");
    assert_eq!(crate::support::read_n(&mut silent, 6), b"hello\n");

    let (said, end) = in_clear(&mut stage, b"STARTTLS\n");
    // TLS says its end in the handshake too (RFC 8446, section 6.1): an alert, close_notify.
    let alert = [21, 3, 3, 0, 2, 1, 0];
    let expected = [&b"220 go ahead\n"[..], &alert].concat();
    assert_eq!((said, end), (expected, Err("handshake".into())));
    // Half a ClientHello makes no difference.
    let (_, end) = in_clear(&mut stage, b"STARTTLS\n\x16\x03\x01\x01\x00");
    assert_eq!(end, Err("handshake".into()));
    assert_eq!(stage.reactor.net().connection_count(), 1, "the other one lives on");
}

#[test]
fn a_finished_late_handshake_has_none_left() {
    let options = StreamOptions::new().handshake_timeout(Duration::from_millis(60));
    let mut stage = stage_over(options, Lines::new);
    let address = stage.address;
    let line = with_client(&mut stage.reactor, move || {
        let mut stream = client(address);
        stream.write_all(b"STARTTLS\n").unwrap();
        crate::support::read_n(&mut stream, 13);
        let mut tls = rustls_client();
        let mut secured = rustls::Stream::new(&mut tls, &mut stream);
        secured.flush().unwrap();
        let mut heard = [0; 2];
        secured.write_all(b"1\n").unwrap();
        secured.read_exact(&mut heard).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        secured.write_all(b"2\n").unwrap();
        secured.read_exact(&mut heard).unwrap();
        heard
    });
    assert_eq!(&line, b"2\n");
}

#[test]
fn a_connection_that_is_closing_takes_no_layer() {
    let mut stage = stage();
    let log = Log::new();
    let probe = Probe::new(&log).open(|cx| {
        let token = cx.token;
        cx.close();
        assert!(!cx.net.start_layer(token, secure::client()));
        Ok(())
    });
    stage.reactor.net().connect(stage.address, probe).unwrap();
    until(&mut stage.reactor, "the close", |_| log.closes() == 1);
    let gone = log.all()[0].0;
    assert!(!stage.reactor.net().start_layer(gone, Lines::new()));
}

/// The switch may come later than the command: after a look into a database, say. Until then nothing
/// may come.
#[test]
fn a_switch_outside_of_on_data_refuses_what_waits() {
    for (behind, expected) in [("", None), ("DELETE EVERYTHING\n", Some(LayerErrorKind::Malformed))]
    {
        let mut reactor = Reactor::new().unwrap();
        let (log, ends) = (Log::new(), Ends::default());
        let (of_handlers, of_ends) = (log.clone(), Rc::clone(&ends));
        let make = move |_: &tidegate::Peer<'_>| {
            Probe::new(&of_handlers)
                .data(|cx, input| {
                    if input.take_all() == b"STARTTLS" {
                        cx.pause();
                    }
                    Ok(())
                })
                .notify(|cx, _| {
                    cx.send("220 go ahead");
                    cx.net.start_layer(cx.token, secure::server());
                    cx.resume();
                    Ok(())
                })
                .close(note(&of_ends))
        };
        let listen = Listen::tcp("127.0.0.1:0").layer(|_| Lines::new());
        let listener = reactor.net().listen(listen, make).unwrap();
        let mut stream = client(address_of(&mut reactor, listener));
        stream.write_all(format!("STARTTLS\n{behind}").as_bytes()).unwrap();
        until(&mut reactor, "the command", |_| log.data() == b"STARTTLS");
        let paused = log.opened()[0];
        assert!(reactor.net().notify(paused, ()));
        until(&mut reactor, "the switch", |_| log.told().contains(&Told::Notification));
        let finished = with_client(&mut reactor, move || {
            crate::support::read_n(&mut stream, 13);
            let mut tls = rustls_client();
            let finished = tls.complete_io(&mut stream).is_ok();
            tls.send_close_notify();
            let _ = tls.complete_io(&mut stream);
            finished
        });
        assert_eq!(finished, expected.is_none());
        until(&mut reactor, "the end", |_| ends.borrow().len() == 1);
        assert_eq!(ends.take().remove(0).ok(), expected);
        assert_eq!(log.data(), b"STARTTLS");
    }
}

/// How a handler above a stream format comes to its `STARTTLS`.
#[derive(Debug, Clone, Copy)]
enum Reads {
    /// It takes the line and leaves what is behind it.
    Line,
    /// It looks at the line first and takes it afterwards.
    LineAfterwards,
    /// It has left the line once, so that what is behind it came in another read.
    LineAtSecondSight,
    /// It is paused when it comes, and offered to it when it is resumed.
    LineAfterAPause,
}

// row 97
#[test]
fn clear_text_that_a_stream_format_has_decoded_is_refused_however_the_handler_left_it() {
    use Reads::{Line, LineAfterAPause, LineAfterwards, LineAtSecondSight};
    for reads in [Line, LineAfterwards, LineAtSecondSight, LineAfterAPause] {
        let mut reactor = Reactor::new().unwrap();
        let (log, ends) = (Log::new(), Ends::default());
        let (of_handlers, of_ends) = (log.clone(), Rc::clone(&ends));
        let upgraded = Rc::new(std::cell::Cell::new(false));
        let upgrades = Rc::clone(&upgraded);
        let make = move |_: &tidegate::Peer<'_>| {
            let upgrades = Rc::clone(&upgrades);
            let mut calls = 0;
            Probe::new(&of_handlers)
                .data(move |cx, input| {
                    calls += 1;
                    assert!(!upgrades.get(), "{reads:?}: called with clear text behind the switch");
                    match reads {
                        LineAtSecondSight if calls == 1 => return Ok(()),
                        LineAfterAPause if calls == 1 => {
                            cx.pause();
                            cx.set_timer(Duration::ZERO, 0);
                            return Ok(());
                        }
                        _ => {}
                    }
                    if !matches!(reads, LineAfterwards) {
                        assert_eq!(input.take_until(b'\n'), Some(&b"STARTTLS"[..]));
                    }
                    // Another stream format: no cipher finds out what was slipped in.
                    upgrades.set(cx.net.start_layer(cx.token, Through));
                    if matches!(reads, LineAfterwards) {
                        assert_eq!(input.take_until(b'\n'), Some(&b"STARTTLS"[..]));
                    }
                    Ok(())
                })
                .timer(|cx, _| {
                    cx.resume();
                    Ok(())
                })
                .close(note(&of_ends))
        };
        let listen = Listen::tcp("127.0.0.1:0").layer(|_| Through);
        let listener = reactor.net().listen(listen, make).unwrap();
        let address = address_of(&mut reactor, listener);
        let mut stream = client(address);
        match reads {
            LineAtSecondSight => {
                stream.write_all(b"STARTTLS").unwrap();
                until(&mut reactor, "a part", |_| log.data() == b"STARTTLS");
                stream.write_all(b"\nDELETE EVERYTHING\n").unwrap();
            }
            _ => stream.write_all(b"STARTTLS\nDELETE EVERYTHING\n").unwrap(),
        }
        drop(stream);
        until(&mut reactor, "the end", |_| ends.borrow().len() == 1);
        assert_eq!(*ends.borrow(), [Ok(LayerErrorKind::Malformed)], "{reads:?}");
    }
}

// row 97: the second record is not decoded yet when the layer changes, and TLS finds out what it is
#[test]
fn clear_text_in_a_record_of_its_own_is_refused_by_tls() {
    let mut reactor = Reactor::new().unwrap();
    let (log, ends) = (Log::new(), Ends::default());
    let (of_handlers, of_ends) = (log.clone(), Rc::clone(&ends));
    let make =
        move |_: &tidegate::Peer<'_>| Probe::new(&of_handlers).data(serve).close(note(&of_ends));
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| LengthPrefixed::new(1));
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.write_all(b"\x08STARTTLS\x06DELETE").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    until(&mut reactor, "the end", |_| ends.borrow().len() == 1);
    assert_eq!(*ends.borrow(), [Ok(LayerErrorKind::Malformed)]);
    assert_eq!(log.data(), b"STARTTLS");
}
