//! The test kit has to notice what it is there to notice.

use std::time::Duration;

use super::super::{
    Delivery, Item, Layer, LayerContext, LayerEnd, LayerError, LayerErrorKind, MessageKind, Step,
};
use super::*;

type Decode = fn(&[u8], &mut Vec<u8>, &mut Vec<u8>) -> Result<Step, LayerError>;

/// A layer that does in `decode` whatever the test says.
#[derive(Debug)]
struct Does {
    decode: Decode,
    ready: bool,
    delivery: Delivery,
}

fn does(decode: Decode) -> Does {
    Does { decode, ready: true, delivery: Delivery::Messages }
}

impl Layer for Does {
    fn name(&self) -> &'static str {
        "does"
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
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        (self.decode)(wire, unit, reply)
    }
    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        wire.extend_from_slice(message);
        if message == b"no" {
            return Err(LayerError::new("does", LayerErrorKind::Unencodable, "no"));
        }
        Ok(())
    }
}

/// Yields whatever has arrived: right for a stream, wrong for messages.
fn all_there_is(wire: &[u8], _: &mut Vec<u8>, _: &mut Vec<u8>) -> Result<Step, LayerError> {
    let item = if wire.is_empty() { Item::Nothing } else { Item::Slice(0..wire.len()) };
    Ok(Step::new(wire.len(), item))
}

fn feed(decode: Decode) {
    Driver::new(does(decode)).feed(b"abc");
}

#[test]
#[should_panic(expected = "consumed 4 bytes of the 3 given")]
fn consuming_too_much_is_noticed() {
    feed(|_, _, _| Ok(Step::new(4, Item::Progress)));
}

#[test]
#[should_panic(expected = "the slice 0..3 is not within the 2 bytes consumed")]
fn a_slice_that_is_not_consumed_is_noticed() {
    feed(|_, _, _| Ok(Step::new(2, Item::Slice(0..3))));
}

#[test]
#[should_panic(expected = "1 bytes in `unit`, but said Nothing")]
fn a_unit_that_is_not_yielded_is_noticed() {
    feed(|_, unit, _| {
        unit.push(1);
        Ok(Step::new(0, Item::Nothing))
    });
}

#[test]
#[should_panic(expected = "said Progress 10000 times")]
fn progress_without_end_is_noticed() {
    feed(|_, _, _| Ok(Step::new(0, Item::Progress)));
}

#[test]
#[should_panic(expected = "took back what was to be sent")]
fn a_reply_taken_back_is_noticed() {
    let mut driver = Driver::new(does(|_, _, reply| {
        reply.clear();
        Ok(Step::new(0, Item::Nothing))
    }));
    driver.send(b"x", MessageKind::Default).unwrap();
    driver.feed(b"abc");
}

#[test]
#[should_panic(expected = "reserved 1048576 bytes in `unit` for the 0 it put there")]
fn memory_for_what_is_merely_announced_is_noticed() {
    feed(|_, unit, _| {
        unit.reserve_exact(1 << 20);
        Ok(Step::new(0, Item::Nothing))
    });
}

#[test]
#[should_panic(expected = "yielded a unit before it was ready")]
fn a_unit_before_the_handshake_is_noticed() {
    Driver::new(Does { ready: false, ..does(all_there_is) }).feed(b"abc");
}

#[test]
#[should_panic(expected = "nothing is encoded before the layer is ready")]
fn sending_before_the_handshake_is_noticed() {
    let _ =
        Driver::new(Does { ready: false, ..does(all_there_is) }).send(b"", MessageKind::Default);
}

#[test]
#[should_panic(expected = "failed to encode, but left bytes")]
fn half_a_message_is_noticed() {
    let _ = Driver::new(does(all_there_is)).send(b"no", MessageKind::Default);
}

#[test]
#[should_panic(expected = "there was more after Nothing")]
fn more_after_nothing_is_noticed() {
    let mut driver =
        Driver::new(does(|wire, _, _| Ok(Step::new(wire.len().min(1), Item::Nothing))));
    driver.feed(b"abc");
    driver.ask_again();
}

/// Two bytes are a unit. The first one is consumed at once, and kept in `held` until the other comes.
#[derive(Default)]
struct Halves {
    held: Option<u8>,
    owns_up: bool,
}

impl Layer for Halves {
    fn name(&self) -> &'static str {
        "halves"
    }
    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let Some(&byte) = wire.first() else { return Ok(Step::new(0, Item::Nothing)) };
        let Some(first) = self.held.take() else {
            self.held = Some(byte);
            return Ok(Step::new(1, Item::Progress));
        };
        unit.extend([first, byte]);
        Ok(Step::new(1, Item::Unit))
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
    fn wire_ended(&mut self, _: &mut LayerContext<'_>, _: usize) -> Result<(), LayerError> {
        let whole = self.held.is_none();
        whole.then_some(()).ok_or_else(|| LayerError::truncated("halves", "one is missing"))
    }
    fn holds_input(&self) -> bool {
        self.owns_up && self.held.is_some()
    }
}

#[test]
#[should_panic(expected = "halves: said that it held no input after 1 bytes")]
fn half_a_unit_that_is_held_in_silence_is_noticed() {
    every_split(Halves::default, b"abcd", Ending::Ended);
}

#[test]
fn half_a_unit_may_be_held_by_who_says_so() {
    let make = || Halves { owns_up: true, ..Halves::default() };
    let outcome = every_split(make, b"abcd", Ending::Ended);
    assert_eq!(outcome.messages(), [b"ab", b"cd"]);
    let mut driver = Driver::new(make());
    driver.feed(b"ab");
    driver.switch(|halves| halves).feed(b"cd");
}

#[test]
#[should_panic(expected = "halves: it holds bytes that came before the switch")]
fn half_a_unit_is_not_read_on_the_other_side_of_a_switch() {
    let mut driver = Driver::new(Halves { owns_up: true, ..Halves::default() });
    driver.feed(b"a");
    let _ = driver.switch(|halves| halves);
}

#[test]
#[should_panic(expected = "yielded a unit, having said that it held no input")]
fn a_unit_that_was_held_in_silence_is_noticed() {
    // Says of nothing that it is an empty message.
    feed(|wire, _, _| {
        let item = if wire.is_empty() { Item::Unit } else { Item::Progress };
        Ok(Step::new(wire.len(), item))
    });
}

#[test]
#[should_panic(expected = "byte by byte")]
fn a_result_that_depends_on_the_cut_is_noticed() {
    every_split(|| does(all_there_is), b"abc", Ending::Open);
}

#[test]
fn a_stream_has_no_boundaries_to_compare() {
    let make = || Does { delivery: Delivery::Stream, ..does(all_there_is) };
    let outcome = every_split(make, b"abc", Ending::Ended);
    assert_eq!(outcome.messages(), [b"abc"]);
    let mut pair = Pair::new(make(), make()).chunks(2, 1);
    pair.carries(&[b"one", b"two"]);
}

#[test]
fn a_long_transcript_is_cut_at_some_places_only() {
    let make = || Does { delivery: Delivery::Stream, ..does(all_there_is) };
    every_split(make, &vec![0; 10_000], Ending::Open);
}

#[test]
#[should_panic(expected = "the layers go on replying to each other")]
fn layers_that_never_fall_silent_are_noticed() {
    let parrot: Decode = |wire, _, reply| {
        reply.extend_from_slice(wire);
        Ok(Step::new(wire.len(), if wire.is_empty() { Item::Nothing } else { Item::Progress }))
    };
    let mut pair = Pair::new(does(parrot), does(parrot));
    pair.client.send(b"x", MessageKind::Default).unwrap();
    pair.run();
}

#[test]
#[should_panic(expected = "the handshake failed")]
fn a_handshake_that_does_not_come_to_an_end_is_told() {
    let unready = || Does { ready: false, ..does(all_there_is) };
    Pair::new(unready(), unready()).handshake();
}

/// Masked words with a space behind each, and a ping of its own: what a layer may do with its
/// environment.
#[derive(Debug, Default)]
struct Words {
    /// Changes one byte more than it consumes.
    greedy: bool,
    /// Names a field beyond its unit.
    wide: bool,
}

const PING_AFTER: Duration = Duration::from_secs(30);

impl Layer for Words {
    fn name(&self) -> &'static str {
        "words"
    }
    fn start(&mut self, cx: &mut LayerContext<'_>, _: &mut Vec<u8>) -> Result<(), LayerError> {
        cx.call_at(cx.now() + PING_AFTER);
        Ok(())
    }
    fn decode(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let Some(end) = wire.iter().position(|&byte| byte == b' ') else {
            return Ok(Step::new(0, Item::Nothing));
        };
        wire[..end].make_ascii_uppercase();
        if self.greedy && end + 1 < wire.len() {
            wire[end + 1] = b'!';
        }
        let half = end / 2;
        cx.field(0..half);
        cx.field(half..end + usize::from(self.wide));
        Ok(Step::new(end + 1, Item::Slice(0..end)))
    }
    fn encode(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        cx.call_at(cx.now() + PING_AFTER);
        wire.extend_from_slice(message);
        wire.push(b' ');
        Ok(())
    }
    fn end(&mut self, cx: &mut LayerContext<'_>, end: &LayerEnd<'_>, wire: &mut Vec<u8>) {
        cx.call_at(None);
        if let LayerEnd::Chosen { code, reason } = end {
            wire.extend_from_slice(format!("{code}:{reason} ").as_bytes());
        }
    }
    fn on_time(
        &mut self,
        cx: &mut LayerContext<'_>,
        reply: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        reply.extend_from_slice(b"ping ");
        cx.call_at(cx.now() + PING_AFTER);
        Ok(())
    }
}

#[test]
fn a_layer_changes_what_it_consumes_and_names_fields_of_it() {
    let outcome = every_split(Words::default, b"ab cdef ", Ending::Ended);
    assert_eq!(outcome.messages(), [&b"AB"[..], b"CDEF"]);
    assert_eq!(outcome.units[0].fields, [0..1, 1..2]);
    assert_eq!(outcome.units[1].fields, [0..2, 2..4]);
}

#[test]
#[should_panic(expected = "words: changed bytes that it did not consume")]
fn notices_a_change_of_bytes_that_come_again() {
    Driver::new(Words { greedy: true, ..Words::default() }).feed(b"one two ");
}

#[test]
#[should_panic(expected = "words: the fields [0..1, 1..4] are not within the 3 bytes")]
fn notices_a_field_beyond_the_unit() {
    Driver::new(Words { wide: true, ..Words::default() }).feed(b"one ");
}

#[test]
fn a_layer_is_called_at_the_last_time_it_asked_for_and_not_before() {
    let mut driver = Driver::new(Words::default());
    let second = Duration::from_secs(1);
    assert!(!driver.advance(20 * second));
    driver.send(b"a", MessageKind::Default).unwrap();
    assert_eq!(driver.called_in(), Some(PING_AFTER));
    assert!(!driver.advance(PING_AFTER - second));
    assert_eq!(driver.take_wire(), b"a ");
    assert!(driver.advance(second));
    assert_eq!(driver.take_wire(), b"ping ");
    assert_eq!(driver.called_in(), Some(PING_AFTER), "it asked again");
    driver.end_for(&LayerEnd::Chosen { code: 7, reason: "bye" });
    assert_eq!(driver.take_wire(), b"7:bye ");
    assert_eq!(driver.called_in(), None, "it withdrew its wish");
    assert!(!driver.advance(PING_AFTER));
}

#[cfg(feature = "random")]
#[test]
fn the_random_numbers_of_a_test_are_the_same_each_time_and_no_two_of_them_alike() {
    let draw = |environment: &mut Environment| {
        let mut bytes = [0; 20];
        environment.cx().random(&mut bytes);
        bytes
    };
    let (mut one, mut same, mut other) =
        (Environment::new(), Environment::new(), Environment::new().seed(1));
    let first = draw(&mut one);
    assert_eq!(first, draw(&mut same));
    assert_ne!(first, draw(&mut one));
    assert_ne!(first, draw(&mut other));
}
