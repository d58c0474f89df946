//! A turn does as much work as its budget says, whatever peers send: counted, not timed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::layer::{Item, Layer, LayerContext, LayerError, MessageKind, Step};
use tidegate::{
    Config, Context, Group, Handler, HandlerResult, Input, Listen, Peer, Reactor, StreamOptions,
    Token,
};

use crate::support::{PATIENCE, address_of, client, read_n, settle, until, with_client};

/// A call counts a unit, and each KiB of its bytes another.
#[derive(Default)]
struct Counts {
    units: Cell<usize>,
    bytes: RefCell<HashMap<Token, usize>>,
}

struct Counting(Rc<Counts>);

impl Handler for Counting {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        let n = input.take_all().len();
        self.0.units.set(self.0.units.get() + 1 + n / 1024);
        *self.0.bytes.borrow_mut().entry(cx.token).or_default() += n;
        Ok(())
    }
}

struct Stage {
    reactor: Reactor,
    counts: Rc<Counts>,
    clients: Vec<TcpStream>,
}

const BUDGET: usize = 100;

fn stage<L: Layer + 'static>(peers: usize, layer: impl Fn() -> L + 'static) -> Stage {
    stage_with(BUDGET, peers, layer)
}

fn stage_with<L: Layer + 'static>(
    budget: usize,
    peers: usize,
    layer: impl Fn() -> L + 'static,
) -> Stage {
    let counts = Rc::new(Counts::default());
    let of_handlers = Rc::clone(&counts);
    let config = Config::new().work_per_turn(budget);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let listen = Listen::tcp("127.0.0.1:0").layer(move |_| layer());
    let make = move |_: &Peer<'_>| Counting(Rc::clone(&of_handlers));
    let listener = reactor.net().listen(listen, make).unwrap();
    let address = address_of(&mut reactor, listener);
    let clients: Vec<_> = (0..peers).map(|_| client(address)).collect();
    until(&mut reactor, "all to be accepted", |r| r.net().connection_count() == peers);
    settle(&mut reactor);
    Stage { reactor, counts, clients }
}

impl Stage {
    /// Every client says `wire`, which comes to `bytes` in messages of up to `largest`.
    fn run(mut self, wire: &[u8], bytes: usize, largest: usize) {
        for client in &mut self.clients {
            client.set_nonblocking(true).unwrap();
            assert_eq!(client.write(wire).unwrap(), wire.len(), "all of it waits in the system");
        }
        let all = bytes * self.clients.len();
        let most = BUDGET + 1 + largest / 1024;
        // Each has one turn at most to itself before the others have theirs.
        let rounds = self.clients.len() + 1;
        let mut behind = HashMap::new();
        let start = Instant::now();
        let mut heard = HashMap::new();
        while heard.values().sum::<usize>() < all {
            assert!(start.elapsed() < PATIENCE, "waited in vain for all messages");
            self.counts.units.set(0);
            let _ = self.reactor.turn(Some(Duration::from_millis(1))).unwrap();
            let did = self.counts.units.get();
            assert!(did <= most, "{did} units in a turn, of {BUDGET}");
            let now = self.counts.bytes.borrow().clone();
            for (&token, &bytes_now) in &now {
                let waited = behind.entry(token).or_insert(0);
                let served = heard.get(&token) != Some(&bytes_now);
                *waited = if served || bytes_now == bytes { 0 } else { *waited + 1 };
                assert!(*waited <= rounds, "{token} was passed over in {waited} turns");
            }
            heard = now;
        }
    }
}

#[cfg(feature = "deflate")]
mod bombs {
    use tidegate::layer::testkit::Driver;
    use tidegate::layer::{Deflate, MessageKind};

    use super::*;

    /// Zeros that compress by a thousand.
    fn bomb(messages: usize, size: usize) -> Vec<u8> {
        let mut deflate = Driver::new(Deflate::new());
        for _ in 0..messages {
            deflate.send(&vec![0; size], MessageKind::Default).unwrap();
        }
        deflate.take_wire()
    }

    // row 103
    #[test]
    fn one_connection_with_much_that_decompresses() {
        let size = 1 << 20;
        stage(1, Deflate::new).run(&bomb(32, size), 32 * size, size);
    }

    // row 103
    #[test]
    fn twenty_connections_with_much_that_decompresses() {
        let size = 64 << 10;
        stage(20, Deflate::new).run(&bomb(20, size), 20 * size, size);
    }
}

// row 103
#[test]
fn many_connections_that_talk() {
    let line = b"say something in the room\n";
    let lines = 100;
    let wire = line.repeat(lines);
    stage(20, tidegate::layer::Lines::new).run(&wire, lines * (line.len() - 1), line.len());
}

// row 103
#[test]
fn input_of_no_format_counts_too() {
    struct Taking(Rc<Counts>);
    impl Handler for Taking {
        fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
            if input.take(10).is_some() {
                self.0.units.set(self.0.units.get() + 1);
                *self.0.bytes.borrow_mut().entry(cx.token).or_default() += 10;
            }
            Ok(())
        }
    }
    let counts = Rc::new(Counts::default());
    let of_handlers = Rc::clone(&counts);
    let config = Config::new().work_per_turn(BUDGET);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let make = move |_: &Peer<'_>| Taking(Rc::clone(&of_handlers));
    let listener = reactor.net().listen("127.0.0.1:0", make).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut clients: Vec<_> = (0..20).map(|_| client(address)).collect();
    until(&mut reactor, "all to be accepted", |r| r.net().connection_count() == 20);
    for client in &mut clients {
        client.write_all(&[b'x'; 10 * 100]).unwrap();
    }
    let start = Instant::now();
    while counts.bytes.borrow().values().sum::<usize>() < 20 * 10 * 100 {
        assert!(start.elapsed() < PATIENCE, "waited in vain for all");
        counts.units.set(0);
        let _ = reactor.turn(Some(Duration::from_millis(1))).unwrap();
        assert!(counts.units.get() <= BUDGET + 1, "{}", counts.units.get());
    }
}

/// Takes what comes and yields none of it.
struct Holds;

impl Layer for Holds {
    fn name(&self) -> &'static str {
        "holds"
    }

    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        Ok(Step::new(wire.len(), Item::Nothing))
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

    fn holds_input(&self) -> bool {
        true
    }
}

/// Peers send `piece` twice, which completes no message. A read is a unit, and 16 KiB of it another.
fn pieces_of_messages<L: Layer + 'static>(layer: impl Fn() -> L + 'static, piece: &[u8]) {
    const FEW: usize = 10;
    const PEERS: usize = 4 * FEW;
    let Stage { mut reactor, counts, mut clients } = stage_with(FEW, PEERS, layer);
    for round in 1..=2 {
        for client in &mut clients {
            client.write_all(piece).unwrap();
        }
        let all = (round * PEERS * piece.len()) as u64;
        let start = Instant::now();
        let mut before = reactor.net().stats();
        while before.bytes_read < all {
            assert!(start.elapsed() < PATIENCE, "waited in vain for all");
            let _ = reactor.turn(Some(Duration::from_millis(1))).unwrap();
            let now = reactor.net().stats();
            let (reads, bytes) =
                (now.reads - before.reads, (now.bytes_read - before.bytes_read) as usize);
            assert!(reads <= FEW as u64, "{reads} reads in a turn of {FEW} units");
            // The last read may exceed what is left of them.
            let most = FEW * 16 * 1024 + piece.len();
            assert!(bytes <= most, "{bytes} bytes in a turn of {FEW} units");
            before = now;
        }
    }
    assert_eq!(counts.units.get(), 0, "there is no message");
}

// row 103
#[test]
fn reads_that_complete_no_message_count() {
    pieces_of_messages(tidegate::layer::Lines::new, b"a");
}

// row 103
#[test]
fn bytes_of_a_large_message_count_as_they_come() {
    let limits = || tidegate::layer::LengthPrefixed::new(4).frame_limit(1 << 30);
    let piece = vec![1; 40 * 1024]; // announces 16 MiB
    pieces_of_messages(limits, &piece);
}

// row 103
#[test]
fn bytes_that_a_layer_holds_count() {
    pieces_of_messages(|| Holds, b"a");
}

// row 140
#[test]
fn what_a_callback_publishes_counts() {
    /// Publishes each byte and answers it.
    struct Talking {
        group: Group,
        calls: Rc<Cell<usize>>,
        lines: Rc<Cell<usize>>,
    }
    impl Handler for Talking {
        fn on_open(&mut self, cx: &mut Context<'_>) -> HandlerResult {
            cx.net.join(self.group, cx.token);
            Ok(())
        }

        fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
            self.calls.set(self.calls.get() + 1);
            for line in input.take_all().chunks(1) {
                self.lines.set(self.lines.get() + 1);
                cx.net.publish(self.group, line);
                cx.send(b"+");
            }
            Ok(())
        }
    }
    const PEERS: usize = 40;
    const LINES: usize = 256;
    let (calls, lines) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let config = Config::new().work_per_turn(BUDGET);
    let mut reactor = Reactor::build(config, |_| Ok(())).unwrap();
    let group = reactor.net().create_group();
    let counts = (Rc::clone(&calls), Rc::clone(&lines));
    let make = move |_: &Peer<'_>| Talking {
        group,
        calls: Rc::clone(&counts.0),
        lines: Rc::clone(&counts.1),
    };
    let listener = reactor.net().listen("127.0.0.1:0", make).unwrap();
    let address = address_of(&mut reactor, listener);
    let mut peers: Vec<_> = (0..PEERS).map(|_| client(address)).collect();
    until(&mut reactor, "all to join", |reactor| reactor.net().members(group).len() == PEERS);
    for peer in &mut peers {
        peer.write_all(&[b'x'; LINES]).unwrap();
    }
    // A call stands for a unit, and each line for two sixteenths: it is published, and what was
    // published before it goes to the queue of the peer that is answered.
    let each = 1 + LINES * 2 / 16;
    while lines.get() < PEERS * LINES {
        let before = calls.get();
        let _ = reactor.turn(Some(PATIENCE)).unwrap();
        let made = calls.get() - before;
        assert!(made <= BUDGET / each + 1, "{made} calls in one turn");
    }
    assert_eq!(lines.get(), PEERS * LINES);
    for peer in &mut peers {
        // Every line of every peer, and an answer to each of its own.
        let reader = peer.try_clone().unwrap();
        let all = with_client(&mut reactor, move || {
            let mut reader = reader;
            read_n(&mut reader, PEERS * LINES + LINES)
        });
        assert_eq!(all.iter().filter(|&&byte| byte == b'+').count(), LINES);
    }
}

/// Twenty connections with two hundred lines each, and a trunk with what it is given.
struct Crowd {
    stage: Stage,
    trunk: (TcpStream, Rc<Counts>),
}

impl Crowd {
    fn with(largest: usize, wire: &[u8]) -> Self {
        let lines = move || tidegate::layer::Lines::new().line_limit(largest);
        let mut stage = stage(20, lines);
        let (counts, options) = (Rc::new(Counts::default()), StreamOptions::new().trunk(true));
        let of_trunk = Rc::clone(&counts);
        let listen = Listen::tcp("127.0.0.1:0").options(options).layer(move |_| lines());
        let make = move |_: &Peer<'_>| Counting(Rc::clone(&of_trunk));
        let listener = stage.reactor.net().listen(listen, make).unwrap();
        let mut trunk = client(address_of(&mut stage.reactor, listener));
        until(&mut stage.reactor, "the trunk", |r| r.net().connection_count() == 21);
        settle(&mut stage.reactor);
        for client in &mut stage.clients {
            assert_eq!(client.write(&b"x\n".repeat(200)).unwrap(), 400);
        }
        trunk.set_nonblocking(true).unwrap();
        assert_eq!(trunk.write(wire).unwrap(), wire.len(), "all of it waits in the system");
        Crowd { stage, trunk: (trunk, counts) }
    }

    /// What the trunk and the others did in one turn.
    fn turn(&mut self) -> (usize, usize) {
        let _ = self.stage.reactor.turn(Some(Duration::from_millis(1))).unwrap();
        (self.trunk.1.units.take(), self.stage.counts.units.take())
    }
}

// row 278
#[test]
fn a_trunk_is_served_first_and_leaves_a_quarter_to_the_others() {
    let mut crowd = Crowd::with(100, &b"x\n".repeat(3000));
    let start = Instant::now();
    // Until some have used up their share, all are served in the order of their events.
    while crowd.turn() != (75, 25) {
        assert!(start.elapsed() < PATIENCE);
    }
    let (mut of_trunk, mut of_others) = (0, 0);
    loop {
        match crowd.turn() {
            (75, 25) => (of_trunk, of_others) = (of_trunk + 75, of_others + 25),
            (last, others) => {
                assert_eq!(last + others, BUDGET, "what it leaves is theirs");
                break;
            }
        }
    }
    assert!(of_trunk > 2000 && of_others == of_trunk / 3, "{of_trunk} and {of_others}");
    assert_eq!(crowd.turn(), (0, BUDGET));
}

// row 278
#[test]
fn long_messages_on_a_trunk_leave_every_second_turn_to_the_others() {
    let message = [&[b'x'; 150 << 10][..], b"\n"].concat();
    let mut crowd = Crowd::with(1 << 20, &message.repeat(8));
    let start = Instant::now();
    let (mut messages, mut turns_of_trunk, mut before) = (0, 0, false);
    while messages < 8 {
        assert!(start.elapsed() < PATIENCE);
        let (trunk, others) = crowd.turn();
        assert!(trunk > 0 || others > 0);
        messages += trunk / 150;
        // The first turns, in which what was not a message yet was read, count as well.
        assert!(!before || others > 0, "two turns of the trunk alone");
        before = trunk > 0 && others == 0;
        turns_of_trunk += usize::from(before);
    }
    assert!(turns_of_trunk >= 7, "{turns_of_trunk}");
}

/// Takes its time, and says in a group that something has come.
struct Slow(Rc<Counts>, Group);

impl Handler for Slow {
    fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
        self.0.units.set(self.0.units.get() + 1);
        input.take_all();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_micros(100) {
            std::hint::spin_loop();
        }
        cx.net.publish(self.1, "news");
        Ok(())
    }
}

// row 278
#[test]
fn others_are_served_beside_a_trunk_in_turns_with_a_deadline() {
    const MESSAGES: usize = 1500;
    let mut stage = stage(5, tidegate::layer::Lines::new);
    let group = stage.reactor.net().create_group();
    let counts = Rc::new(Counts::default());
    let of_trunk = Rc::clone(&counts);
    let options = StreamOptions::new().trunk(true);
    let lines = |_: &Peer<'_>| tidegate::layer::Lines::new();
    let listen = Listen::tcp("127.0.0.1:0").options(options).layer(lines);
    let make = move |_: &Peer<'_>| Slow(Rc::clone(&of_trunk), group);
    let listener = stage.reactor.net().listen(listen, make).unwrap();
    let mut trunk = client(address_of(&mut stage.reactor, listener));
    until(&mut stage.reactor, "the trunk", |r| r.net().connection_count() == 6);
    settle(&mut stage.reactor);
    // A group that always has something to flush: a step of its own in such a turn.
    let (near, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    let member = stage.reactor.net().adopt(near, Counting(Rc::default())).unwrap();
    assert!(stage.reactor.net().join(group, member));
    trunk.write_all(&b"x\n".repeat(MESSAGES)).unwrap();
    let mut turns = 0;
    while counts.units.get() < MESSAGES {
        for client in &mut stage.clients {
            client.write_all(b"y\n").unwrap();
        }
        let until = Instant::now() + Duration::from_millis(2);
        let _ = stage.reactor.turn_until(until).unwrap();
        turns = if stage.counts.units.take() == 0 { turns + 1 } else { 0 };
        assert!(turns < 30, "{turns} turns without the others");
    }
}
