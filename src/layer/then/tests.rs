use super::super::testkit::{Driver, Ending, Environment, Pair, every_split, outcome_of};
use super::super::{Delimited, FixedSize, LengthPrefixed, Lines};
use super::*;

mod layers;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use layers::{ALERT, END, Polite, PoliteFact, Quiet, Veil, VeilFact};

type Boxed = Box<dyn Layer>;

fn boxed(layer: impl Layer + 'static) -> Boxed {
    Box::new(layer)
}

/// What a client's veil makes of `plain`, handshake and all.
fn veiled(plain: &[u8], end: bool) -> Vec<u8> {
    let mut wire = b"knock\n".to_vec();
    let mut veil = Veil { ready: true, ..Veil::client() };
    veil.encode(&mut Environment::new().cx(), plain, MessageKind::Default, &mut wire).unwrap();
    if end {
        veil.end(&mut Environment::new().cx(), &LayerEnd::Closed, &mut wire);
    }
    wire
}

/// What a server's veil said, in clear: behind its `enter`, and without its end or alert.
fn unveiled(wire: &[u8]) -> Vec<u8> {
    let client = Veil { client: true, ..Veil::default() };
    let mut driver = Driver::new(client);
    driver.feed(wire);
    driver.take_messages().concat()
}

const MESSAGES: [&[u8]; 5] =
    [b"hello", b"", b"a rather long line that takes more than one record", b"x", b"the end"];

#[test]
fn a_stack_carries_messages_in_chunks_of_any_size() {
    for (up, down) in [(1, 1), (1, 7), (2, 3), (5, 1), (64, 64), (usize::MAX, usize::MAX)] {
        let mut pair =
            Pair::new(Veil::client().then(Lines::new()), Veil::server().then(Lines::new()))
                .chunks(up, down);
        pair.handshake();
        pair.carries(&MESSAGES);
        pair.carries(&MESSAGES);
        pair.close();
    }
}

#[test]
fn stacks_nest_either_way_and_in_boxes() {
    let left = |veil: Veil| boxed(veil.then(LengthPrefixed::new(2)).then(Lines::new()));
    let right = |veil: Veil| boxed(veil.then(LengthPrefixed::new(2).then(Lines::new())));
    let boxes = |veil: Veil| {
        boxed(boxed(veil).then(boxed(boxed(LengthPrefixed::new(2)).then(boxed(Lines::new())))))
    };
    let makes: [&dyn Fn(Veil) -> Boxed; 3] = [&left, &right, &boxes];
    for client in makes {
        for server in makes {
            let mut pair = Pair::new(client(Veil::client()), server(Veil::server())).chunks(3, 2);
            pair.handshake();
            pair.carries(&MESSAGES);
            pair.close();
        }
    }
}

#[test]
fn handshakes_nest() {
    let stack = |outer: Veil, inner: Veil| outer.then(inner).then(Lines::new());
    for chunk in [1, 2, 1000] {
        let mut pair =
            Pair::new(stack(Veil::client(), Veil::client()), stack(Veil::server(), Veil::server()))
                .chunks(chunk, 1);
        let outer_done = pair.client.take_wire();
        pair.server.feed(&outer_done);
        let outer_done = pair.server.take_wire();
        pair.client.feed(&outer_done);
        let handshakes = pair.client.layer().outer();
        assert_eq!((handshakes.outer().is_ready(), handshakes.is_ready()), (true, false));
        pair.handshake();
        pair.carries(&MESSAGES);
        pair.close();
    }
}

#[test]
fn the_result_does_not_depend_on_the_cut() {
    let wire = veiled(b"ping\none\r\n\ntwo\nping\nthree", true);
    let outcome = every_split(|| Veil::server().then(Polite::default()), &wire, Ending::Ended);
    assert_eq!(outcome.messages(), [&b"one"[..], b"", b"two", b"three"]);
    assert!(outcome.ready && outcome.ended);
    assert_eq!(outcome.error, None);
    assert_eq!(&outcome.replies[..6], b"enter\n");
    assert_eq!(unveiled(&outcome.replies), b"hi\npong\npong\n");
}

#[test]
fn the_inner_layer_starts_when_the_outer_is_ready() {
    let mut driver = Driver::new(Veil::server().then(Polite::default()));
    assert_eq!((driver.is_ready(), driver.layer().name()), (false, "veil"));
    driver.feed(b"knock");
    assert_eq!(driver.take_wire(), b"");
    driver.feed(b"\n");
    assert_eq!((driver.is_ready(), driver.layer().name()), (true, "polite"));
    assert_eq!(unveiled(&driver.take_wire()), b"hi\n");

    // An outer layer without a handshake is ready at once.
    let mut driver = Driver::new(LengthPrefixed::new(1).then(Polite::default()));
    assert_eq!(driver.take_wire(), b"\x03hi\n");
}

#[test]
fn replies_leave_also_when_decoding_fails() {
    let wire = veiled(b"ping\nbad\nnever", false);
    let outcome = every_split(|| Veil::server().then(Polite::default()), &wire, Ending::Open);
    assert_eq!(outcome.error, Some(("polite", LayerErrorKind::Malformed)));
    assert_eq!(unveiled(&outcome.replies), b"hi\npong\nwhy?\n");

    let mut wire = veiled(b"ping\none\n", false);
    wire.push(100);
    let mut driver = Driver::new(Veil::server().then(Polite::default()));
    driver.feed(&wire);
    assert_eq!(driver.error().map(LayerError::layer), Some("veil"));
    assert_eq!(driver.take_wire().last(), Some(&ALERT));

    let outcome = every_split(|| Veil::server().then(Lines::new()), b"GET / HTTP", Ending::Open);
    assert_eq!(outcome.error, Some(("veil", LayerErrorKind::Malformed)));
    assert_eq!((outcome.replies, outcome.ready), (vec![ALERT], false));
}

#[test]
fn the_outer_layers_end_is_the_end_of_the_inner_ones_stream() {
    let wire = veiled(b"12345", true);
    let outcome = every_split(|| Veil::server().then(FixedSize::new(5)), &wire, Ending::Ended);
    assert_eq!(outcome.messages(), [b"12345"]);
    assert!(outcome.ended);
    assert_eq!(outcome.error, None);

    let outcome = every_split(|| Veil::server().then(FixedSize::new(4)), &wire, Ending::Ended);
    assert_eq!(outcome.messages(), [b"1234"]);
    assert_eq!(outcome.error, Some(("fixed-size", LayerErrorKind::Truncated)));

    let outcome = every_split(Veil::server, b"knock\n\0", Ending::Ended);
    assert!(outcome.ended);
}

#[test]
fn a_truncated_stream_is_the_outer_layers_to_judge() {
    // The last line came without its end: with a truncated stream below, it is not a line.
    let wire = veiled(b"one\ntwo", false);
    let outcome = every_split(|| Veil::server().then(Lines::new()), &wire, Ending::Ended);
    assert_eq!(outcome.messages(), [b"one"]);
    assert_eq!(outcome.error, Some(("veil", LayerErrorKind::Truncated)));
}

#[test]
fn the_end_of_the_wire_travels_inward() {
    let make = || Delimited::new(b";").then(Lines::new());
    let outcome = every_split(make, b"one\nt;wo\nth;ree", Ending::Ended);
    assert_eq!(outcome.messages(), [&b"one"[..], b"two", b"three"]);
    assert!(!outcome.ended);
    assert_eq!(outcome.error, None);

    let make = || Delimited::new(b";").then(LengthPrefixed::new(1));
    let outcome = every_split(make, b"\x02a;b\x02c", Ending::Ended);
    assert_eq!(outcome.messages(), [b"ab"]);
    assert_eq!(outcome.error, Some(("length-prefixed", LayerErrorKind::Truncated)));

    let make = || LengthPrefixed::new(1).then(Lines::new()).then(Lines::new());
    let outcome = every_split(make, b"\x02a\n\x01b", Ending::Ended);
    assert_eq!(outcome.messages(), [b"ab"]);
}

#[test]
fn the_inner_layers_end_is_the_stacks() {
    let wire = veiled(b"one\nbye\ntwo\n", false);
    let outcome = every_split(|| Veil::server().then(Polite::default()), &wire, Ending::Ended);
    assert_eq!(outcome.messages(), [b"one"]);
    assert!(outcome.ended, "and a truncated stream no longer matters");
    assert_eq!(outcome.error, None);
}

#[test]
fn ending_goes_outward() {
    let mut pair =
        Pair::new(Veil::client().then(Polite::default()), Veil::server().then(Polite::default()));
    pair.handshake();
    let _ = (pair.client.take_messages(), pair.server.take_messages());
    pair.client.end();
    assert_eq!(pair.client.take_wire().last(), Some(&END));

    // Before the handshake is done only the outer layer has words.
    let mut driver = Driver::new(Veil::server().then(Polite::default()));
    driver.end();
    assert_eq!(driver.take_wire(), [END]);
}

#[test]
fn a_layer_goes_beneath_a_running_one() {
    for chunk in [1, 4, 1000] {
        let mut pair = Pair::new(boxed(Lines::new()), boxed(Lines::new())).chunks(chunk, chunk);
        pair.carries(&[b"EHLO", b"STARTTLS"]);
        let mut pair = Pair::of(
            pair.client.switch(|inner| Then::beneath(boxed(Veil::client()), inner)),
            pair.server.switch(|inner| Then::beneath(boxed(Veil::server()), inner)),
        )
        .chunks(chunk, chunk);
        assert!(!pair.client.is_ready());
        pair.handshake();
        pair.carries(&MESSAGES);
        pair.close();
    }
}

#[test]
fn a_running_layer_is_not_started_again() {
    let mut driver = Driver::new(Polite::default());
    assert_eq!(driver.take_wire(), b"hi\n");
    let mut driver = driver.switch(|inner| Then::beneath(Veil::server(), inner));
    driver.feed(&veiled(b"one\n", false));
    assert_eq!(driver.take_wire(), b"enter\n");
    assert_eq!(driver.take_messages(), [b"one"]);
}

#[test]
fn units_a_running_layer_held_come_out_when_the_new_one_is_ready() {
    let running = Veil { ready: true, held: b"held".to_vec(), ..Veil::server() };
    let mut driver = Driver::new(Then::beneath(Quiet::default(), running));
    driver.pull();
    assert_eq!(driver.take_messages(), [b""; 0]);
    driver.feed(b"!");
    assert_eq!(driver.take_messages(), [b"held"]);
}

#[test]
fn what_was_said_in_clear_is_not_read_as_if_it_came_through_the_new_layer() {
    let mut driver = Driver::new(Lines::new());
    driver.feed(b"STARTTLS\n");
    let mut driver = driver.switch(|inner| Then::beneath(Veil::server(), inner));
    driver.feed(b"RSET\nMAIL\n");
    assert_eq!(driver.take_messages(), [b"STARTTLS"]);
    assert_eq!(driver.error().map(LayerError::layer), Some("veil"));
}

#[test]
#[should_panic(expected = "3 bytes that came before the switch")]
fn a_driver_refuses_to_switch_in_the_middle() {
    let mut driver = Driver::new(Lines::new());
    driver.feed(b"STARTTLS\nRSE");
    let _ = driver.switch(|inner| Then::beneath(Veil::server(), inner));
}

#[test]
fn a_fact_is_the_outer_layers_or_the_inner_ones() {
    let stack = Veil { fact: VeilFact(7), ..Veil::server() }.then(Polite::default());
    let veil = stack.layer_info(TypeId::of::<VeilFact>()).and_then(|fact| fact.downcast_ref());
    assert_eq!(veil, Some(&VeilFact(7)));
    assert!(stack.layer_info(TypeId::of::<PoliteFact>()).is_some());
    assert!(stack.layer_info(TypeId::of::<u8>()).is_none());
    let both = stack.then(Veil { fact: VeilFact(8), ..Veil::server() });
    let veil = both.layer_info(TypeId::of::<VeilFact>()).and_then(|fact| fact.downcast_ref());
    assert_eq!(veil, Some(&VeilFact(7)));
}

#[test]
fn what_is_delivered_is_what_the_inner_layer_delivers() {
    let stack = Veil::server().then(Polite::default());
    assert_eq!(stack.delivery(), Delivery::Messages);
    assert_eq!(Lines::new().then(Veil::server()).delivery(), Delivery::Stream);
}

#[test]
fn a_message_the_inner_layer_refuses_does_no_harm() {
    let mut driver = Driver::new(LengthPrefixed::new(1).then(Lines::new()));
    assert!(driver.send(b"two\nlines", MessageKind::Default).is_err());
    driver.send(b"one", MessageKind::Default).unwrap();
    assert_eq!(driver.take_wire(), b"\x04one\n");
}

#[test]
fn words_the_outer_layer_refuses_are_the_last() {
    let veil = Veil { most: Some(4), ..Veil::server() };
    let mut driver = Driver::new(veil.then(Polite::default()));
    driver.feed(b"knock\n");
    driver.send(b"one", MessageKind::Default).unwrap();
    let _ = driver.take_wire();
    let refused = driver.send(b"four", MessageKind::Default).unwrap_err();
    assert_eq!((refused.layer(), refused.kind()), ("veil", LayerErrorKind::OutOfStep));
    assert_eq!(
        std::error::Error::source(&refused).expect("why").to_string(),
        "veil: cannot be encoded: too much at once"
    );
    let later = driver.send(b"two", MessageKind::Default).unwrap_err();
    assert_eq!((later.layer(), later.kind()), ("veil", LayerErrorKind::OutOfStep));
    driver.end();
    assert_eq!(driver.take_wire(), [END], "the outer layer still ends in order");
}

/// However the layers are nested, and also where the message goes to a group.
#[test]
fn words_a_middle_layer_refuses_are_the_last_in_each_nesting() {
    fn refuses<L: Layer>(stack: L) {
        let mut driver = Driver::new(stack);
        driver.feed(b"knock\n");
        let mut encode_inner = |message: &[u8]| {
            let (mut environment, mut inner) = (Environment::new(), Vec::new());
            let cx = &mut environment.cx();
            let encoded =
                driver.layer_mut().encode_inner(cx, message, MessageKind::Default, &mut inner);
            encoded.map(|_| inner).map_err(|error| error.kind())
        };
        assert_eq!(encode_inner(b"one"), Ok(b"\x04one\n".to_vec()));
        assert_eq!(encode_inner(b"t\nwo"), Err(LayerErrorKind::Unencodable), "lost alone");
        assert_eq!(encode_inner(&[b'x'; 300]), Err(LayerErrorKind::OutOfStep));
        assert_eq!(encode_inner(b"two"), Err(LayerErrorKind::OutOfStep));
        let sent = driver.send(b"two", MessageKind::Default).unwrap_err();
        assert_eq!(sent.kind(), LayerErrorKind::OutOfStep);
    }
    refuses(Veil::server().then(LengthPrefixed::new(1)).then(Lines::new()));
    refuses(Veil::server().then(LengthPrefixed::new(1).then(Lines::new())));
}

#[test]
fn a_slice_of_a_slice_is_not_copied() {
    let mut stack = LengthPrefixed::new(1).then(Lines::new());
    let (mut unit, mut reply) = (Vec::new(), Vec::new());
    stack.start(&mut Environment::new().cx(), &mut reply).unwrap();
    let step = stack
        .decode(
            &mut Environment::new().cx(),
            &mut b"\x04one\n\x04two\n".to_vec(),
            &mut unit,
            &mut reply,
        )
        .unwrap();
    assert_eq!((step.consumed, step.item), (5, Item::Slice(1..4)));
    assert_eq!((unit.capacity(), stack.between.len()), (0, 0));
}

#[test]
fn the_outer_layer_waits_until_the_inner_one_is_dry() {
    let mut stack = LengthPrefixed::new(1).then(FixedSize::new(2));
    let (mut unit, mut reply) = (Vec::new(), Vec::new());
    stack.start(&mut Environment::new().cx(), &mut reply).unwrap();
    let mut wire = [[6].as_slice(), &[b'x'; 6]].concat().repeat(100);
    let mut consumed = 0;
    for n in 0..300 {
        unit.clear();
        let step = stack
            .decode(&mut Environment::new().cx(), &mut wire[consumed..], &mut unit, &mut reply)
            .unwrap();
        assert_ne!(step.item, Item::Nothing, "at {n}");
        consumed += step.consumed;
        assert!(stack.between.len() <= 4);
    }
    assert_eq!(consumed, wire.len());
}

#[test]
fn an_idle_stack_gives_large_buffers_back() {
    let mut pair = Pair::new(
        Veil::client().then(LengthPrefixed::new(4)),
        Veil::server().then(LengthPrefixed::new(4)),
    );
    pair.handshake();
    pair.carries(&[&vec![1; 200_000]]);
    for stack in [pair.client.layer_mut(), pair.server.layer_mut()] {
        assert!(stack.between.is_empty());
        assert_eq!(stack.between.empty_buffer().map(|b| b.capacity()), Some(0));
        assert_eq!(stack.said.capacity(), 0);
    }
}

#[test]
fn an_error_of_either_start_is_the_stacks() {
    #[derive(Debug)]
    struct Unwilling;
    impl Layer for Unwilling {
        fn name(&self) -> &'static str {
            "unwilling"
        }
        fn start(
            &mut self,
            _: &mut LayerContext<'_>,
            wire: &mut Vec<u8>,
        ) -> Result<(), LayerError> {
            wire.extend(b"no\n");
            Err(LayerError::new("unwilling", LayerErrorKind::Refused, "not today"))
        }
        fn decode(
            &mut self,
            _: &mut LayerContext<'_>,
            _: &mut [u8],
            _: &mut Vec<u8>,
            _: &mut Vec<u8>,
        ) -> Result<Step, LayerError> {
            panic!("decoded after an error");
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
    let outcome = outcome_of(LengthPrefixed::new(1).then(Unwilling), [], Ending::Ended);
    assert_eq!(outcome.error, Some(("unwilling", LayerErrorKind::Refused)));
    assert_eq!(outcome.replies, b"\x03no\n");
    let outcome = outcome_of(Unwilling.then(Lines::new()), [&b"x\n"[..]], Ending::Ended);
    assert_eq!(outcome.error, Some(("unwilling", LayerErrorKind::Refused)));
}

/// Calls itself every so many seconds and sends its mark then.
#[derive(Debug)]
struct Clockwork(u64, u8);

impl Clockwork {
    fn wind(&self, cx: &mut LayerContext<'_>) {
        cx.call_at(cx.now() + Duration::from_secs(self.0));
    }
}

impl Layer for Clockwork {
    fn name(&self) -> &'static str {
        "clockwork"
    }
    fn delivery(&self) -> Delivery {
        Delivery::Stream
    }
    fn start(&mut self, cx: &mut LayerContext<'_>, _: &mut Vec<u8>) -> Result<(), LayerError> {
        self.wind(cx);
        Ok(())
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
        cx.field(0..wire.len());
        Ok(Step::new(wire.len(), Item::Slice(0..wire.len())))
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
    fn on_time(
        &mut self,
        cx: &mut LayerContext<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        self.wind(cx);
        reply.push(self.1);
        Ok(())
    }
}

#[test]
fn each_layer_of_a_stack_has_its_own_time() {
    let mut stack =
        Driver::new(Clockwork(3, b'a').then(Clockwork(5, b'b')).then(Clockwork(7, b'c')));
    let second = Duration::from_secs(1);
    let mut called = 0;
    for _ in 0..15 {
        called += u32::from(stack.advance(second));
    }
    // At 3, 5, 6, 7, 9, 10, 12, 14 and 15, where two of them are called at once.
    assert_eq!(stack.take_wire(), b"abacabacab");
    assert_eq!(called, 9, "a layer is not called for another one's time");
    assert_eq!(stack.called_in(), Some(3 * second));
}

#[test]
fn the_fields_of_outer_layers_do_not_reach_the_handler() {
    let mut stack = Driver::new(Clockwork(1, b'a').then(Lines::new()));
    stack.feed(b"one\ntwo\n");
    assert!(stack.take_units().iter().all(|unit| unit.fields.is_empty()));
    let mut stack = Driver::new(Lines::new().then(Clockwork(1, b'a')));
    stack.feed(b"one\n");
    assert_eq!(stack.take_units()[0].bytes, b"one");
}

#[test]
fn the_wire_form_of_a_stack_is_that_of_all_its_layers() {
    let class = |layer: &dyn Layer| layer.wire_class();
    let (lines, prefix) = (Lines::new, || LengthPrefixed::new(2));
    let left = prefix().then(prefix()).then(lines());
    let right = prefix().then(prefix().then(lines()));
    assert!(class(&left).is_some());
    assert_eq!(class(&left), class(&right));
    assert_eq!(class(&left), class(&boxed(prefix().then(prefix()).then(lines()))));
    let others: [Boxed; 5] = [
        boxed(lines()),
        boxed(prefix().then(lines())),
        boxed(lines().then(prefix())),
        boxed(prefix().then(prefix()).then(lines().crlf())),
        boxed(LengthPrefixed::new(4).then(prefix()).then(lines())),
    ];
    for (at, other) in others.iter().enumerate() {
        assert_ne!(class(&left), class(other), "number {at}");
        for another in &others[at + 1..] {
            assert_ne!(class(other), class(another));
        }
    }
    assert_eq!(class(&Clockwork(1, b'a').then(lines())), None);
    assert_eq!(class(&lines().then(Clockwork(1, b'a'))), None);
}

/// Encodes for all in another way than for its own peer, and counts how often it hears of it.
#[derive(Default)]
struct Shares(Rc<Cell<u32>>);

impl Layer for Shares {
    fn name(&self) -> &'static str {
        "shares"
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
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.push(b'o');
        wire.extend_from_slice(message);
        Ok(())
    }

    fn wire_class(&self) -> Option<WireClass> {
        Some(WireClass::of::<Shares>())
    }

    fn encode_shared(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        wire.push(b'a');
        wire.extend_from_slice(message);
        Ok(message.ends_with(b"!"))
    }

    fn sent_shared(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn what_a_stack_encodes_for_all_is_what_each_of_its_layers_does() {
    let told = Rc::<Cell<u32>>::default();
    let shares = || Shares(Rc::clone(&told));
    let prefix = || LengthPrefixed::new(1);
    let stacks: [(Boxed, &[u8], &[u8]); 4] = [
        (boxed(shares().then(prefix())), b"o\x02x!", b"a\x02x!"),
        (boxed(prefix().then(shares())), b"\x03ox!", b"\x03ax!"),
        (boxed(prefix().then(shares()).then(prefix())), b"\x04o\x02x!", b"\x04a\x02x!"),
        (boxed(prefix().then(boxed(prefix().then(shares())))), b"\x04\x03ox!", b"\x04\x03ax!"),
    ];
    for (at, (mut stack, own, all)) in stacks.into_iter().enumerate() {
        let mut environment = Environment::new();
        let (cx, kind, mut wire) = (&mut environment.cx(), MessageKind::Default, Vec::new());
        stack.encode(cx, b"x!", kind, &mut wire).unwrap();
        assert_eq!(wire, own, "number {at}");
        wire.clear();
        assert!(stack.encode_shared(cx, b"x!", kind, &mut wire).unwrap(), "number {at}");
        assert_eq!(wire, all, "number {at}");
        assert!(!stack.encode_shared(cx, b"x", kind, &mut wire).unwrap());
        let before = told.get();
        stack.sent_shared();
        assert_eq!(told.get(), before + 1);
    }
}

#[test]
fn what_lies_within_a_stream_layer_is_encoded_for_all_and_hears_of_it() {
    let told = Rc::<Cell<u32>>::default();
    let shares = || Shares(Rc::clone(&told));
    let stacks: [(Boxed, &[u8]); 2] = [
        (boxed(Veil::server().then(shares())), b"ax!"),
        (boxed(Veil::server().then(LengthPrefixed::new(1)).then(shares())), b"\x03ax!"),
    ];
    for (mut stack, all) in stacks {
        let mut environment = Environment::new();
        let (cx, kind, mut inner) = (&mut environment.cx(), MessageKind::Default, Vec::new());
        assert!(stack.inner_class().is_some() && stack.wire_class().is_none());
        assert!(stack.encode_inner(cx, b"x!", kind, &mut inner).unwrap());
        assert_eq!(inner, all);
        let before = told.get();
        stack.sent_shared();
        assert_eq!(told.get(), before + 1);
    }
}

/// Layers with different parameters, each of which changes what is sent; two of each.
#[test]
fn no_two_layers_that_encode_differently_have_the_same_wire_form() {
    let makes: [fn() -> Boxed; 14] = [
        || boxed(Lines::new()),
        || boxed(Lines::new().crlf()),
        || boxed(FixedSize::new(1)),
        || boxed(FixedSize::new(256)),
        || boxed(Delimited::new("\n")),
        || boxed(Delimited::new("\r\n")),
        || boxed(LengthPrefixed::new(1)),
        || boxed(LengthPrefixed::new(2)),
        || boxed(LengthPrefixed::new(2).little_endian()),
        || boxed(LengthPrefixed::new(2).length_adjustment(1)),
        || boxed(LengthPrefixed::new(2).length_adjustment(-1)),
        || boxed(LengthPrefixed::new(2).strip(0)),
        || boxed(LengthPrefixed::new(2).length_field_offset(1).header(b"a")),
        || boxed(LengthPrefixed::new(2).length_field_offset(1).header(b"b")),
    ];
    for (at, make) in makes.iter().enumerate() {
        let class = make().wire_class();
        assert!(class.is_some());
        assert_eq!(class, make().wire_class());
        for other in &makes[at + 1..] {
            assert_ne!(class, other().wire_class(), "number {at}");
        }
    }
}

#[test]
fn a_stack_still_says_its_end_after_one_of_its_layers_failed() {
    let stack = || Driver::new(Veil::server().then(Lines::new().line_limit(3)));
    let mut driver = stack();
    driver.feed(&veiled(b"too long\n", false));
    assert_eq!(driver.error_kind(), Some(LayerErrorKind::TooLarge));
    driver.take_wire();
    driver.end_for(&LayerEnd::LayerFailed);
    assert_eq!(driver.take_wire(), [END], "the inner one failed, the outer one ends");

    // Before the handshake, and at once after it.
    let mut driver = stack();
    driver.end_for(&LayerEnd::TimedOut);
    assert_eq!(driver.take_wire(), [END]);
}
