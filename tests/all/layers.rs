//! What the reactor owes a layer, and a handler behind one.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::layer::{
    Delivery, Item, Layer, LayerContext, LayerError, LengthPrefixed, Lines, MessageKind, Step,
};
use tidegate::{
    Config, Connect, Context, Handler, HandlerResult, Input, Listen, Overflow, Peer, Reactor,
    SendStatus, StreamOptions, Token,
};

use crate::support::sockets::{small_client, small_options};
use crate::support::through::Through;
use crate::support::{
    Log, Probe, Told, address_of, client, listening, read_all, read_n, reset, settle, until,
    with_client,
};

/// Swallows everything at once and gives out one byte a call: what it holds, no read brings.
#[derive(Default)]
struct Hoarder {
    held: std::collections::VecDeque<u8>,
}

impl Layer for Hoarder {
    fn name(&self) -> &'static str {
        "hoarder"
    }

    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        _reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        self.held.extend(&*wire);
        unit.extend(self.held.pop_front());
        let item = if unit.is_empty() { Item::Nothing } else { Item::Unit };
        Ok(Step::new(wire.len(), item))
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.extend_from_slice(message);
        Ok(())
    }

    fn holds_input(&self) -> bool {
        !self.held.is_empty()
    }
}

fn serve<L: Layer + 'static>(
    options: StreamOptions,
    mut layer: impl FnMut() -> L + 'static,
    mut handler: impl FnMut() -> Probe + 'static,
) -> (Reactor, Token, std::net::SocketAddr) {
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(options).layer(move |_| layer());
    let listener = reactor.net().listen(listen, move |_| handler()).unwrap();
    let address = address_of(&mut reactor, listener);
    (reactor, listener, address)
}

// row 67
#[test]
fn what_a_layer_holds_is_delivered_after_resuming_without_a_new_read() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = serve(StreamOptions::new(), Hoarder::default, move || {
        Probe::new(&of_handler)
            .data(|cx, input| {
                input.take_all();
                cx.pause();
                Ok(())
            })
            .notify(|cx, _| {
                cx.resume();
                Ok(())
            })
    });
    let mut peer = client(address);
    peer.write_all(b"abc").unwrap();
    for so_far in [&b"a"[..], b"ab", b"abc"] {
        until(&mut reactor, "the next byte", |_| log.data() == so_far);
        settle(&mut reactor);
        assert_eq!(log.data(), so_far, "a paused handler gets nothing");
        let token = log.opened()[0];
        assert!(reactor.net().notify(token, ()));
    }
    drop(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.eofs(), 1);
}

// row 67
#[test]
fn what_a_layer_holds_comes_before_the_end_of_the_stream() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) =
        serve(StreamOptions::new(), Hoarder::default, move || Probe::new(&of_handler));
    let mut peer = client(address);
    peer.write_all(&[7; 5_000]).unwrap();
    drop(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.data().len(), 5_000);
    assert_eq!(log.told()[5_001], Told::Eof);
}

#[test]
fn a_last_line_without_its_line_feed_is_delivered_before_the_end() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) =
        serve(StreamOptions::new(), Lines::new, move || Probe::new(&of_handler));
    let mut peer = client(address);
    peer.write_all(b"one\ntwo").unwrap();
    drop(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    let lines = [Told::Data(b"one".to_vec()), Told::Data(b"two".to_vec()), Told::Eof];
    assert_eq!(log.told()[1..4], lines);
}

#[test]
fn an_unfinished_frame_at_the_end_closes_as_truncated() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) =
        serve(StreamOptions::new(), || LengthPrefixed::new(2), move || Probe::new(&of_handler));
    let mut peer = client(address);
    peer.write_all(b"\x00\x05abc").unwrap();
    drop(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.eofs(), 0);
    assert!(log.reasons()[0].contains("truncated"), "{:?}", log.reasons());
}

#[test]
fn a_message_the_format_cannot_say_is_refused_alone() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) =
        serve(StreamOptions::new(), Lines::new, move || Probe::new(&of_handler));
    let mut peer = client(address);
    until(&mut reactor, "the opening", |_| log.opens() == 1);
    let token = log.opened()[0];
    let net = reactor.net();
    let group = net.create_group();
    net.join(group, token);
    assert_eq!(net.send(token, "two\nlines"), SendStatus::Unencodable);
    assert_eq!(net.send(token, "one line"), SendStatus::Queued);
    net.publish(group, "again\ntwo");
    net.publish(group, "last");
    let heard = with_client(&mut reactor, move || read_n(&mut peer, 14));
    assert_eq!(heard, b"one line\nlast\n");
}

#[test]
fn messages_beyond_the_budget_of_a_turn_come_in_the_next_ones() {
    let mut reactor = {
        let config = Config::new().messages_per_turn(3);
        Reactor::build(config, |_| Ok(())).unwrap()
    };
    let log = Log::new();
    let of_handler = log.clone();
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| Lines::new());
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut peer = client(address);
    peer.write_all("x\n".repeat(1_000).as_bytes()).unwrap();
    drop(peer);
    until(&mut reactor, "the close", |_| log.closes() == 1);
    assert_eq!(log.data().len(), 1_000);
}

#[test]
fn a_slow_reader_behind_a_layer_holds_its_own_questions_back() {
    // Each question of one byte is answered with 10,000; the client asks a thousand times and does
    // not read. Nothing of it may be lost, and the queue must stay near its mark.
    let log = Log::new();
    let of_handler = log.clone();
    let options = StreamOptions::new().low_water(10_000).high_water(40_000);
    let (mut reactor, _, address) = serve(options, Lines::new, move || {
        Probe::new(&of_handler).data(|cx, input| {
            input.take_all();
            cx.send("y".repeat(9_999));
            assert!(cx.net.queued(cx.token) < 60_000, "{}", cx.net.queued(cx.token));
            Ok(())
        })
    });
    let answers = with_client(&mut reactor, move || {
        let mut peer = client(address);
        let mut asking = peer.try_clone().unwrap();
        asking.write_all("x\n".repeat(1_000).as_bytes()).unwrap();
        asking.shutdown(std::net::Shutdown::Write).unwrap();
        read_all(&mut peer).len()
    });
    assert_eq!(answers, 1_000 * 10_000);
}

// row 66
#[test]
fn a_failed_handshake_announces_nobody() {
    /// Never ready, and refuses the first byte.
    struct Refuser;
    impl Layer for Refuser {
        fn name(&self) -> &'static str {
            "refuser"
        }
        fn is_ready(&self) -> bool {
            false
        }
        fn decode(
            &mut self,
            _: &mut LayerContext<'_>,
            _wire: &mut [u8],
            _unit: &mut Vec<u8>,
            reply: &mut Vec<u8>,
        ) -> Result<Step, LayerError> {
            reply.extend_from_slice(b"no");
            Err(LayerError::malformed("refuser", "expected nothing at all"))
        }
        fn encode(
            &mut self,
            _: &mut LayerContext<'_>,
            _: &[u8],
            _: MessageKind,
            _: &mut Vec<u8>,
        ) -> Result<(), LayerError> {
            Ok(())
        }
    }

    let told = Rc::new(RefCell::new(Vec::new()));
    let of_hook = Rc::clone(&told);
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| Refuser).on_unopened(move |_, reason, ()| {
        of_hook.borrow_mut().push(reason.to_string());
    });
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
    let address = address_of(&mut reactor, listener);

    let said = with_client(&mut reactor, move || {
        let mut peer = client(address);
        peer.write_all(b"hello?").unwrap();
        read_all(&mut peer)
    });
    assert_eq!(said, b"no", "what the layer had to say leaves first");
    until(&mut reactor, "the hook", |_| told.borrow().len() == 1);
    assert_eq!(*told.borrow(), ["refuser: malformed: expected nothing at all"]);
    assert_eq!(log.told(), [], "neither open nor close reaches a handler that never opened");

    // An outgoing one has its handler already: one `on_close`, and nothing before it.
    let of_client = log.clone();
    let connect = Connect::tcp(address).layer(Refuser);
    reactor.net().connect(connect, Probe::new(&of_client)).unwrap();
    let impatient = StreamOptions::new().handshake_timeout(Duration::from_millis(30));
    let connect = Connect::tcp(address).options(impatient).layer(Refuser);
    reactor.net().connect(connect, Probe::new(&of_client)).unwrap();
    until(&mut reactor, "the deadline", |_| log.closes() == 1);
    assert_eq!((log.opens(), log.told().len()), (0, 1));
    assert!(log.reasons()[0].contains("handshake"), "{:?}", log.reasons());
}

/// The deadline counts from when the handshake begins, however long the turn has lasted by then.
#[test]
fn a_handshake_that_begins_behind_a_slow_callback_has_all_its_time() {
    let time = Duration::from_millis(100);
    let begun = Rc::new(Cell::new(Instant::now()));
    let lasted = Rc::new(Cell::new(None));
    let (begins, ends, note) = (Rc::clone(&begun), Rc::clone(&begun), Rc::clone(&lasted));
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0")
        .options(StreamOptions::new().handshake_timeout(time))
        .layer(move |_| {
            begins.set(Instant::now());
            Knock::new()
        })
        .on_unopened(move |_, _, ()| note.set(Some(ends.get().elapsed())));
    let listener = reactor.net().listen(listen, |_| Probe::new(&Log::new())).unwrap();
    let _silent = client(address_of(&mut reactor, listener));
    reactor.remote().post(move |(), _| std::thread::sleep(time * 9 / 10)).unwrap();
    until(&mut reactor, "the deadline", |_| lasted.get().is_some());
    assert!(lasted.get().unwrap() >= time, "{:?}", lasted.get());
}

/// Ready when a `!` has come; then every line is a message. Each byte before it is answered with
/// `answer` bytes, each line with as many.
struct Knock {
    ready: bool,
    answer: usize,
    delivery: Delivery,
}

impl Knock {
    fn new() -> Self {
        Knock { ready: false, answer: 0, delivery: Delivery::Messages }
    }
    fn open() -> Self {
        Knock { ready: true, ..Self::new() }
    }
}

impl Layer for Knock {
    fn name(&self) -> &'static str {
        "knock"
    }
    fn delivery(&self) -> Delivery {
        self.delivery
    }
    fn is_ready(&self) -> bool {
        self.ready
    }
    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        if wire.is_empty() {
            return Ok(Step::new(0, Item::Nothing));
        }
        reply.resize(self.answer, b'.');
        if !self.ready {
            self.ready = wire[0] == b'!';
            return Ok(Step::new(1, Item::Progress));
        }
        match wire.iter().position(|&b| b == b'\n') {
            Some(0) => Ok(Step::new(1, Item::Progress)),
            Some(at) => Ok(Step::new(at + 1, Item::Slice(0..at))),
            None => Ok(Step::new(0, Item::Nothing)),
        }
    }
    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.push(b'<');
        wire.extend_from_slice(message);
        wire.push(b'>');
        Ok(())
    }
}

#[test]
fn the_end_of_the_write_side_waits_for_a_layer_to_be_ready() {
    for ready in [true, false] {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let log = Log::new();
        let mut reactor = Reactor::new().unwrap();
        let to = Connect::tcp(server.local_addr().unwrap()).layer(Knock { ready, ..Knock::new() });
        let token = reactor.net().connect(to, Probe::new(&log)).unwrap();
        reactor.net().send(token, "hello");
        reactor.net().half_close(token);
        let peer = std::thread::spawn(move || {
            let mut peer = server.accept().unwrap().0;
            peer.write_all(b"!\n").unwrap();
            read_all(&mut peer)
        });
        until(&mut reactor, "the peer", |_| peer.is_finished());
        assert_eq!(peer.join().unwrap(), b"<hello>", "{ready}");
        until(&mut reactor, "the close", |_| log.closes() == 1);
        assert_eq!(log.reasons(), ["both sides ended"]);
    }
}

#[test]
fn the_end_of_the_write_side_waits_for_a_layer_put_on_in_mid_stream() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).open(|cx| {
            assert!(cx.net.start_layer(cx.token, Knock::new()));
            cx.send("hello");
            cx.half_close();
            Ok(())
        })
    });
    let mut peer = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    settle(&mut reactor);
    peer.write_all(b"!").unwrap();
    let peer = std::thread::spawn(move || read_all(&mut peer));
    until(&mut reactor, "the peer", |_| peer.is_finished());
    assert_eq!(peer.join().unwrap(), b"<hello>");
}

#[test]
fn messages_that_wait_for_a_handshake_are_bounded_however_small_they_are() {
    let cap = 64 * 1024;
    let place = size_of::<(MessageKind, usize)>();
    for message in ["", "x", &"x".repeat(1000)] {
        let most = cap / (place + message.len());
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let log = Log::new();
        let mut reactor = Reactor::new().unwrap();
        let to = Connect::tcp(server.local_addr().unwrap())
            .options(StreamOptions::new().output_limit(cap))
            .layer(Knock::new());
        let token = reactor.net().connect(to, Probe::new(&log)).unwrap();
        let mut taken = 0;
        while reactor.net().send(token, message).is_accepted() {
            taken += 1;
            assert!(taken <= most + 1, "{taken} messages of {} bytes wait", message.len());
        }
        assert_eq!(reactor.net().queued(token), taken * message.len());
        until(&mut reactor, "the close", |_| log.closes() == 1);
        assert_eq!(log.reasons(), ["more queued output than the limit of 65536 bytes"]);
        let unsent =
            log.count(|told| matches!(told, Told::Close(_, n) if *n == taken * message.len()));
        assert_eq!(unsent, 1, "{:?}", log.told());
    }
}

#[test]
fn what_waits_for_a_handshake_is_held_to_the_marks() {
    // Of an outgoing connection, and of one that gets its layer late: what is queued for that must
    // not keep its handshake from being read.
    for late in [false, true] {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let log = Log::new();
        let mut reactor = Reactor::new().unwrap();
        let mut to = Connect::tcp(server.local_addr().unwrap());
        if !late {
            to = to.layer(Knock::new());
        }
        let token = reactor.net().connect(to, Probe::new(&log)).unwrap();
        if late {
            until(&mut reactor, "the open", |_| log.opens() == 1);
            assert!(reactor.net().start_layer(token, Knock::new()));
        }
        let small = [b'x'; 1000];
        assert_eq!(reactor.net().send(token, small), SendStatus::Queued);
        let status = std::iter::repeat_with(|| reactor.net().send(token, small));
        let above = status.take(200).position(|status| status == SendStatus::AboveHighWater);
        assert!(matches!(above, Some(60..70)), "64 KiB, {above:?}");
        settle(&mut reactor);
        assert_eq!(log.count(|told| *told == Told::Drain), 0);

        let peer = std::thread::spawn(move || {
            let mut peer = server.accept().unwrap().0;
            peer.write_all(b"!").unwrap();
            read_n(&mut peer, 1002 * (above.unwrap() + 2));
            peer // its end would be a reason to close, and may be seen before the drain is told
        });
        until(&mut reactor, "the peer", |_| peer.is_finished());
        let _peer = peer.join().unwrap();
        until(&mut reactor, "the drain", |_| log.count(|told| *told == Told::Drain) == 1);
        assert_eq!(log.told()[0], Told::Open);
    }
}

// Whoever was refused is owed a drain, and is not read until then: but for a handshake.
#[test]
fn what_a_full_queue_drops_does_not_hold_a_late_handshake_back() {
    let log = Log::new();
    let of_handler = log.clone();
    // Between the marks: it is the refusal that makes it wait for the drain.
    let options = StreamOptions::new().overflow(Overflow::Drop).output_limit(30_000);
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").options(options);
    let make = move |_: &Peer<'_>| {
        Probe::new(&of_handler).open(|cx| {
            assert!(cx.net.start_layer(cx.token, Knock::new()));
            while cx.send("x".repeat(1000)).is_accepted() {}
            Ok(())
        })
    };
    let listener = reactor.net().listen(listen, make).unwrap();
    let mut peer = client(address_of(&mut reactor, listener));
    until(&mut reactor, "the open", |_| log.opens() == 1);
    peer.write_all(b"!hello\n").unwrap();
    until(&mut reactor, "the line, or an end", |_| !log.data().is_empty() || log.closes() > 0);
    assert_eq!(log.data(), b"hello", "{:?}", log.told());
    until(&mut reactor, "the drain", |_| log.count(|told| *told == Told::Drain) == 1);
    let heard = with_client(&mut reactor, move || read_n(&mut peer, 29 * 1002));
    assert!(heard.starts_with(b"<xxx"));
}

#[test]
fn a_close_tells_what_waited_for_a_late_layer_and_is_lost() {
    for (waits, closed) in [("", "closed"), ("hello", "cancelled before it was open")] {
        let log = Log::new();
        let of_handler = log.clone();
        let (mut reactor, _, address) = listening(move || {
            Probe::new(&of_handler).open(move |cx| {
                assert!(cx.net.start_layer(cx.token, Knock::new()));
                if !waits.is_empty() {
                    cx.send(waits);
                }
                cx.close();
                Ok(())
            })
        });
        let heard = with_client(&mut reactor, move || read_all(&mut client(address)));
        assert_eq!(heard, b"", "neither in clear nor otherwise");
        until(&mut reactor, "the close", |_| log.closes() == 1);
        let close = Told::Close(closed.to_owned(), waits.len());
        assert_eq!(log.told(), [Told::Open, close]);
    }
}

#[test]
fn a_layers_answers_count_as_queued_output() {
    for auto_pause in [true, false] {
        let log = Log::new();
        let of_handler = log.clone();
        let mut reactor = Reactor::new().unwrap();
        let options = small_options().output_limit(1 << 20).auto_pause(auto_pause);
        let listen = Listen::tcp("127.0.0.1:0")
            .options(options)
            .layer(|_| Knock { answer: 1000, ..Knock::open() });
        let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
        let mut peer = small_client(address_of(&mut reactor, listener));
        peer.set_nonblocking(true).unwrap();
        until(&mut reactor, "the open", |_| log.opens() == 1);
        let token = log.opened()[0];
        let start = Instant::now();
        let mut most = 0;
        while start.elapsed() < Duration::from_millis(300) && log.closes() == 0 {
            let _ = peer.write(&[b'\n'; 4096]);
            let _ = reactor.turn(Some(Duration::ZERO)).unwrap();
            most = most.max(reactor.net().queued(token));
        }
        if auto_pause {
            assert!(most <= 70_000, "{most} bytes queued");
        } else {
            assert_eq!(
                log.reasons(),
                ["more queued output than the limit of 1048576 bytes"],
                "{most} bytes queued"
            );
        }
    }
}

// CVE-2011-0411: what came in clear is not read as if it had come through the layer, nor by a
// handler that believes itself behind it.
#[test]
fn what_is_left_when_a_layer_starts_is_the_layers() {
    for in_two in [false, true] {
        let log = Log::new();
        let of_handler = log.clone();
        let (mut reactor, _, address) = listening(move || {
            Probe::new(&of_handler).data(|cx, input| {
                if input.take_until(b'\n') == Some(b"STARTTLS") {
                    assert!(cx.net.start_layer(cx.token, Knock::new()));
                }
                Ok(())
            })
        });
        let mut peer = client(address);
        if in_two {
            peer.write_all(b"START").unwrap();
            until(&mut reactor, "the first half", |_| log.data() == b"START");
            peer.write_all(b"TLS\n!evil\n").unwrap();
        } else {
            peer.write_all(b"STARTTLS\n!evil\n").unwrap();
        }
        until(&mut reactor, "the message", |_| log.data().ends_with(b"evil"));
        let raw = log.count(|told| matches!(told, Told::Data(d) if d.starts_with(b"!")));
        assert_eq!(raw, 0, "{:?}", log.told());
    }
}

#[test]
fn what_waits_for_a_layer_waits_for_the_next_one_too() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).open(|cx| {
            let own = cx.token;
            assert!(cx.net.start_layer(own, Knock::new()));
            cx.send("hello");
            assert!(cx.net.start_layer(own, Knock::open()));
            Ok(())
        })
    });
    let mut peer = client(address);
    until(&mut reactor, "the open", |_| log.opens() == 1);
    assert_eq!(reactor.net().queued(log.opened()[0]), 5);
    // The outer layer takes lines, the inner one a `!`.
    peer.write_all(b"!\n").unwrap();
    let mut got = [0; 9];
    let reading = std::thread::spawn(move || peer.read_exact(&mut got).map(|()| got));
    until(&mut reactor, "the peer", |_| reading.is_finished());
    assert_eq!(&reading.join().unwrap().unwrap(), b"<<hello>>");
}

#[test]
fn what_was_published_before_a_layer_starts_leaves_as_it_is() {
    let log = Log::new();
    let of_handler = log.clone();
    let (mut reactor, _, address) = listening(move || {
        Probe::new(&of_handler).open(|cx| {
            let own = cx.token;
            let group = cx.net.create_group();
            cx.net.join(group, own);
            cx.net.publish(group, "in clear ");
            assert!(cx.net.start_layer(own, Knock::open()));
            cx.net.publish(group, "hidden");
            Ok(())
        })
    });
    let mut peer = client(address);
    let reading = std::thread::spawn(move || {
        let mut got = [0; 17];
        peer.read_exact(&mut got).map(|()| got)
    });
    until(&mut reactor, "the peer", |_| reading.is_finished());
    assert_eq!(&reading.join().unwrap().unwrap(), b"in clear <hidden>");
}

/// Ready after a `!`; a `?` is refused with an answer, a `p` is served a page and no more.
#[derive(Default)]
struct Door {
    open: bool,
}

impl Layer for Door {
    fn name(&self) -> &'static str {
        "door"
    }
    fn is_ready(&self) -> bool {
        self.open
    }
    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let item = match wire {
            [] => Item::Nothing,
            [..] if self.open => Item::Slice(0..wire.len()),
            [b'?', ..] => {
                reply.extend_from_slice(b"no");
                return Err(LayerError::malformed("door", "expected no question"));
            }
            [b'p', ..] => {
                reply.extend_from_slice(b"page");
                Item::End
            }
            [..] => {
                self.open = true;
                Item::Progress
            }
        };
        Ok(Step::new(wire.len(), item))
    }
    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.extend_from_slice(message);
        Ok(())
    }
}

type Failures = Rc<RefCell<Vec<String>>>;

/// A listener of echoes behind doors, and whatever its hook is told.
fn doors(reactor: &mut Reactor, log: &Log) -> (Token, Failures) {
    let (failures, of_handler) = (Failures::default(), log.clone());
    let hooked = Rc::clone(&failures);
    let listen = Listen::tcp("127.0.0.1:0")
        .layer(|_| Door::default())
        .on_unopened(move |_, reason, ()| hooked.borrow_mut().push(reason.to_string()));
    let listener = reactor.net().listen(listen, move |_| Probe::echo(&of_handler)).unwrap();
    (listener, failures)
}

#[test]
fn a_listener_that_closes_ends_its_handshakes_and_tells_its_hook() {
    let mut reactor = Reactor::new().unwrap();
    let (log, new_log) = (Log::new(), Log::new());
    let (old, failures) = doors(&mut reactor, &log);
    let address = address_of(&mut reactor, old);
    // One is open, one has said nothing, one was refused and one served: these two linger.
    let (mut open, mut silent) = (client(address), client(address));
    let (mut refused, mut served) = (client(address), client(address));
    for (peer, knock) in [(&mut open, b"!"), (&mut refused, b"?"), (&mut served, b"p")] {
        peer.write_all(knock).unwrap();
    }
    let (mut refused, mut served) = with_client(&mut reactor, move || {
        assert_eq!(
            (read_n(&mut refused, 2), read_n(&mut served, 4)),
            (b"no".into(), b"page".into())
        );
        (refused, served)
    });
    until(&mut reactor, "the others", |r| {
        log.opens() == 1 && r.net().listener_stats(old).unwrap().accepted == 4
    });
    assert_eq!(*failures.borrow(), [""; 0]);
    reactor.net().close(old);
    until(&mut reactor, "the hook", |_| failures.borrow().len() == 3);
    failures.borrow_mut().sort();
    assert_eq!(
        *failures.borrow(),
        ["cancelled before it was open", "closed", "door: malformed: expected no question"]
    );
    assert_eq!(read_all(&mut silent), b"");

    // Whoever has its place now hears of none of them, and the open one lives on.
    let (new, new_failures) = doors(&mut reactor, &new_log);
    let index = |token: Token| token.to_string().split_once('.').unwrap().0.to_owned();
    assert_eq!(index(old), index(new), "the test needs the same place");
    assert_eq!((read_all(&mut refused), read_all(&mut served)), (vec![], vec![]));
    drop((refused, served));
    until(&mut reactor, "their ends", |r| r.net().connection_count() == 1);
    open.write_all(b"still served").unwrap();
    let answer = with_client(&mut reactor, move || read_n(&mut open, 12));
    assert_eq!(answer, b"still served");
    settle(&mut reactor);
    assert_eq!((failures.borrow().len(), new_failures.borrow().len()), (3, 0));
    assert_eq!((log.opens(), new_log.told()), (1, vec![]));
}

#[test]
fn a_handshake_that_fails_in_the_turn_its_listener_closes_has_its_own_reason() {
    let mut reactor = Reactor::new().unwrap();
    let (listener, failures) = doors(&mut reactor, &Log::new());
    let peer = client(address_of(&mut reactor, listener));
    until(&mut reactor, "the accept", |r| r.net().connection_count() == 1);
    drop(peer);
    reactor.net().close(listener);
    until(&mut reactor, "the hook", |_| failures.borrow().len() == 1);
    assert_eq!(*failures.borrow(), ["unexpected end of file"]);
    settle(&mut reactor);
    assert_eq!(failures.borrow().len(), 1);
}

#[test]
fn a_reactor_that_is_dropped_tells_the_hook_of_its_handshakes() {
    let mut reactor = Reactor::new().unwrap();
    let (listener, failures) = doors(&mut reactor, &Log::new());
    let mut peer = client(address_of(&mut reactor, listener));
    until(&mut reactor, "the accept", |r| r.net().connection_count() == 1);
    // CloseInfo already or not, its hook is there until the last handshake has ended.
    reactor.net().close(listener);
    drop(reactor);
    assert_eq!(*failures.borrow(), ["the reactor was dropped"]);
    assert_eq!(read_all(&mut peer), b"");
}

#[test]
fn a_peer_that_is_gone_has_failed_its_handshake_all_the_same() {
    for how in ["reset", "end", "error"] {
        let failed = Rc::new(RefCell::new(Vec::new()));
        let hooked = Rc::clone(&failed);
        let mut reactor = Reactor::new().unwrap();
        let listen = Listen::tcp("127.0.0.1:0")
            .options(StreamOptions::new().handshake_limit(4))
            .layer(|_| Knock::new())
            .on_unopened(move |peer, reason, ()| {
                hooked.borrow_mut().push((peer.address().socket_addr(), reason.to_string()));
            });
        let log = Log::new();
        let of_handler = log.clone();
        let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
        let mut peer = client(address_of(&mut reactor, listener));
        let from = peer.local_addr().unwrap();
        until(&mut reactor, "the accept", |r| {
            r.net().listener_stats(listener).unwrap().accepted == 1
        });
        match how {
            "reset" => reset(peer),
            "end" => drop(peer),
            _ => {
                peer.write_all(b"12345").unwrap();
                until(&mut reactor, "the end", |r| r.net().connection_count() == 0);
            }
        }
        until(&mut reactor, "the end", |r| r.net().connection_count() == 0);
        let failed = failed.borrow();
        assert_eq!(failed.len(), 1, "{how}");
        assert_eq!(failed[0].0, Some(from), "{how}: {}", failed[0].1);
        assert_eq!(log.told(), vec![]);
    }
}

/// A handshake of five steps of one byte; then bytes are passed on, ranges of them named.
#[derive(Default)]
struct Stairs {
    step: u8,
}

impl Layer for Stairs {
    fn name(&self) -> &'static str {
        "stairs"
    }
    fn is_ready(&self) -> bool {
        self.step == 5
    }
    fn decode(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        if wire.is_empty() {
            return Ok(Step::new(0, Item::Nothing));
        }
        if self.step < 5 {
            self.step += 1;
            return Ok(Step::new(1, Item::Progress));
        }
        // A word with a colon in it and a semicolon behind it, handed on in capitals.
        let Some(end) = wire.iter().position(|&byte| byte == b';') else {
            return Ok(Step::new(0, Item::Nothing));
        };
        wire[..end].make_ascii_uppercase();
        if let Some(colon) = wire[..end].iter().position(|&byte| byte == b':') {
            cx.field(0..colon);
            cx.field(colon + 1..end);
        }
        Ok(Step::new(end + 1, Item::Slice(0..end)))
    }
    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.extend_from_slice(message);
        Ok(())
    }
}

type Fields = Rc<RefCell<Vec<(Vec<u8>, Vec<Range<usize>>)>>>;

struct Keeps(Fields);

impl Handler for Keeps {
    fn on_data(&mut self, _: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let fields = input.fields().to_vec();
        self.0.borrow_mut().push((input.take_all().to_vec(), fields));
        Ok(())
    }
}

/// What handlers get of these bytes, which come in one read and are so many messages; or why the
/// handshake failed.
fn up_the_stairs(bytes: &[u8], limit: usize, messages: usize) -> (Fields, Vec<String>) {
    let mut reactor = Reactor::new().unwrap();
    let (fields, failures) = (Fields::default(), Failures::default());
    let (of_handler, hooked) = (Rc::clone(&fields), Rc::clone(&failures));
    let listen = Listen::tcp("127.0.0.1:0")
        .options(StreamOptions::new().handshake_limit(limit))
        .layer(|_| Stairs::default())
        .on_unopened(move |_, reason, ()| hooked.borrow_mut().push(reason.to_string()));
    let listener = reactor.net().listen(listen, move |_| Keeps(Rc::clone(&of_handler))).unwrap();
    let mut peer = client(address_of(&mut reactor, listener));
    peer.write_all(bytes).unwrap();
    until(&mut reactor, "the messages, or a failure", |_| {
        fields.borrow().len() == messages || failures.borrow().len() == 1
    });
    (fields, failures.take())
}

#[test]
fn a_handler_gets_the_fields_of_each_message_and_what_was_changed_in_place() {
    let (fields, failures) = up_the_stairs(b"12345a:bc;none;d:;", 64 * 1024, 3);
    assert_eq!(failures, [""; 0]);
    assert_eq!(
        *fields.borrow(),
        [
            (b"A:BC".to_vec(), vec![0..1, 2..4]),
            (b"NONE".to_vec(), vec![]),
            (b"D:".to_vec(), vec![0..1, 2..2]),
        ]
    );
}

#[test]
fn what_comes_behind_a_handshake_in_the_same_read_does_not_count_as_handshake() {
    // The limit holds the handshake without its last step; ten times as much lies behind it.
    let bulk = [b"12345".as_slice(), &[b'x'; 50], b";"].concat();
    let (fields, failures) = up_the_stairs(&bulk, 4, 1);
    assert_eq!(failures, [""; 0]);
    assert_eq!(*fields.borrow(), [(vec![b'X'; 50], vec![])]);
    let (fields, failures) = up_the_stairs(&bulk, 3, 1);
    assert_eq!((fields.borrow().len(), failures.len()), (0, 1), "{failures:?}");
}

#[test]
fn a_stream_that_a_handler_takes_in_bits_is_offered_again_when_the_budget_was_used_up() {
    let config = Config::new().messages_per_turn(3);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let log = Log::new();
    let of_handler = log.clone();
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| Through);
    let make = move |_: &Peer<'_>| {
        Probe::new(&of_handler).data(|cx, input| {
            let bit = input.take(1).unwrap_or_default();
            cx.send(bit);
            Ok(())
        })
    };
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    let said = with_client(&mut reactor, move || {
        let mut stream = client(address);
        stream.write_all(b"0123456789").unwrap();
        read_n(&mut stream, 10)
    });
    assert_eq!(said, b"0123456789");
}
