//! What the reactor owes a layer, and a handler behind one.

use std::io::Write;

use tidegate::layer::{Item, Kind, Layer, LayerError, LengthPrefixed, Lines, Step};
use tidegate::{Connect, Listen, Reactor, SendStatus, StreamOptions, Token};

mod support;
use support::{Log, Probe, Told, client, read_all, read_n, settle, until, with_client};

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
        wire: &[u8],
        unit: &mut Vec<u8>,
        _reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        self.held.extend(wire);
        unit.extend(self.held.pop_front());
        let item = if unit.is_empty() { Item::Nothing } else { Item::Unit };
        Ok(Step::new(wire.len(), item))
    }

    fn encode(&mut self, message: &[u8], _: Kind, wire: &mut Vec<u8>) -> Result<(), LayerError> {
        wire.extend_from_slice(message);
        Ok(())
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
    let address = support::address_of(&mut reactor, listener);
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
            .signal(|cx, _| {
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
        assert!(reactor.net().signal(token, ()));
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
        let config = tidegate::Config { messages_per_turn: 3, ..tidegate::Config::default() };
        Reactor::with_config((), config).unwrap()
    };
    let log = Log::new();
    let of_handler = log.clone();
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| Lines::new());
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
    let address = support::address_of(&mut reactor, listener);
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
    let options = StreamOptions::new().marks(10_000, 40_000);
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
            _wire: &[u8],
            _unit: &mut Vec<u8>,
            reply: &mut Vec<u8>,
        ) -> Result<Step, LayerError> {
            reply.extend_from_slice(b"no");
            Err(LayerError::malformed("refuser", "expected nothing at all"))
        }
        fn encode(&mut self, _: &[u8], _: Kind, _: &mut Vec<u8>) -> Result<(), LayerError> {
            Ok(())
        }
    }

    let told = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let of_hook = std::rc::Rc::clone(&told);
    let log = Log::new();
    let of_handler = log.clone();
    let mut reactor = Reactor::new().unwrap();
    let listen = Listen::tcp("127.0.0.1:0").layer(|_| Refuser).on_failed(move |_, reason, ()| {
        of_hook.borrow_mut().push(reason.to_string());
    });
    let listener = reactor.net().listen(listen, move |_| Probe::new(&of_handler)).unwrap();
    let address = support::address_of(&mut reactor, listener);

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
    let impatient = StreamOptions::new().handshake_timeout(std::time::Duration::from_millis(30));
    let connect = Connect::tcp(address).options(impatient).layer(Refuser);
    reactor.net().connect(connect, Probe::new(&of_client)).unwrap();
    until(&mut reactor, "the deadline", |_| log.closes() == 1);
    assert_eq!((log.opens(), log.told().len()), (0, 1));
    assert!(log.reasons()[0].contains("handshake"), "{:?}", log.reasons());
}
