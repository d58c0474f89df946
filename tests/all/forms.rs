//! Groups of members with layers: a message is encoded once for all whose wire forms are equal.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use tidegate::layer::{
    Item, Layer, LayerContext, LayerError, LengthPrefixed, MessageKind, Step, WireClass,
};
use tidegate::{Config, Overflow, SendStatus, StreamOptions};

use crate::groups::Room;
use crate::support::counted::Counted;
use crate::support::rolling::{Rolling, rolled};
use crate::support::until;

/// A room whose members have these layers, in turn.
fn room(
    members: usize,
    config: Config,
    mut layer: impl FnMut(usize) -> Box<dyn Layer> + 'static,
) -> Room {
    let mut accepted = 0;
    Room::with(members, config, move |listen| {
        listen.layer(move |_| {
            accepted += 1;
            layer(accepted - 1)
        })
    })
}

fn counter() -> Rc<Cell<usize>> {
    Rc::default()
}

fn turn(room: &mut Room) {
    let _ = room.reactor.turn(Some(Duration::ZERO)).unwrap();
}

// row 202
#[test]
fn a_message_is_encoded_once_for_each_class_and_once_for_each_member_without_one() {
    let counts = [counter(), counter(), counter()];
    let of_layers = counts.clone();
    let mut room = room(12, Config::default(), move |n| {
        Box::new(Counted::of([Some(0), Some(1), None][n % 3], &of_layers[n % 3]))
    });
    let group = room.group(12);
    for message in ["one", "two", "three"] {
        room.net().publish(group, message);
        turn(&mut room);
    }
    // Several in one turn, and one that not all get.
    let speaker = room.tokens[0];
    room.net().publish_except(group, speaker, "four");
    room.net().publish(group, "five");
    turn(&mut room);
    assert_eq!(counts.map(|count| count.get()), [5, 5, 4 * 5]);
    for (n, heard) in room.heard().into_iter().enumerate() {
        let class = if n % 3 == 1 { 1 } else { 0 };
        let mut expected = Vec::new();
        for message in ["one", "two", "three", "four", "five"] {
            if n > 0 || message != "four" {
                expected.extend([class, message.len() as u8]);
                expected.extend_from_slice(message.as_bytes());
            }
        }
        assert_eq!(heard, expected, "member {n}");
    }
}

// row 203
#[test]
fn a_stream_layer_gets_the_touching_messages_of_a_turn_as_one_run() {
    let (streams, frames) = (counter(), counter());
    let (of_streams, of_frames) = (Rc::clone(&streams), Rc::clone(&frames));
    let mut room = room(4, Config::default(), move |n| {
        let stream = Rolling::counted(&of_streams);
        // Two of them have messages within the stream.
        if n < 2 { Box::new(stream) } else { Box::new(stream.then(Counted::of(7, &of_frames))) }
    });
    let group = room.group(4);
    for n in 0..20 {
        room.net().publish(group, [n]);
    }
    turn(&mut room);
    assert_eq!((streams.get(), frames.get()), (4, 20));
    for (n, heard) in room.heard().into_iter().enumerate() {
        let each = |n| if n < 2 { |m: u8| vec![m] } else { |m: u8| vec![7, 1, m] };
        let plain: Vec<u8> = (0..20).flat_map(each(n)).collect();
        assert_eq!(heard, rolled(&plain, 0), "member {n}");
    }
}

#[test]
fn a_message_that_a_format_cannot_carry_counts_for_each_of_its_members() {
    let count = counter();
    let of_layers = Rc::clone(&count);
    let mut room = room(5, Config::default(), move |n| match n {
        0 => Box::new(LengthPrefixed::new(2)),
        1 | 2 => Box::new(Counted::of(1, &of_layers)),
        3 => Box::new(Rolling::default().then(Counted::of(2, &counter()))),
        _ => Box::new(Counted::of(None, &counter())),
    });
    let group = room.group(5);
    let (long, without) = (vec![b'l'; 300], room.tokens[2]);
    room.net().publish(group, "before");
    room.net().publish(group, &long);
    // Not for this one, so that it does not miss it.
    room.net().publish_except(group, without, &long);
    room.net().publish(group, "after");
    turn(&mut room);
    assert_eq!(room.net().group_stats(group).unwrap().dropped, 2 + 1 + 2 + 2);
    assert_eq!(room.net().publish(group, "").dropped, 7);
    assert_eq!(count.get(), 4, "encoded more than once");
    let heard = room.heard();
    for (n, member) in heard.iter().enumerate() {
        let text = if n == 3 { rolled(member, 0) } else { member.clone() };
        let has = |what: &[u8]| text.windows(what.len()).any(|window| window == what);
        assert_eq!((has(b"before"), has(b"after"), has(b"ll")), (true, true, n == 0), "member {n}");
    }
}

#[test]
fn a_layer_that_fails_while_it_encodes_for_its_class_ends_its_own_connection_alone() {
    for panics in [false, true] {
        // The last ones are served first.
        let mut room = room(4, Config::default(), move |n| {
            let fails_at = (n >= 2).then_some(&b"bad"[..]);
            Box::new(Counted { class: Some(1), fails_at, panics, ..Counted::default() })
        });
        let group = room.group(4);
        for message in ["good", "bad", "last"] {
            room.net().publish(group, message);
        }
        turn(&mut room);
        assert_eq!(room.net().members(group).len(), 2, "those that failed");
        let reasons = room.log.reasons();
        let what = if panics { "panicked" } else { "no more" };
        assert!(reasons.len() == 2 && reasons.iter().all(|r| r.contains(what)), "{reasons:?}");
        let heard = room.heard();
        let all = [&[1, 4][..], b"good", &[1, 3], b"bad", &[1, 4], b"last"].concat();
        assert_eq!((&heard[0], &heard[1]), (&all, &all));
        assert!(heard[2..].iter().all(Vec::is_empty), "{heard:?}");
    }
}

#[test]
fn a_layer_that_takes_away_what_others_wait_for_ends_its_own_connection_alone() {
    // The last one is served first, and encodes for all.
    let mut room = room(3, Config::default(), |n| {
        let fails_at = (n == 2).then_some(&b"bad"[..]);
        let class = Some(1);
        Box::new(Counted { class, fails_at, takes_away: true, ..Counted::default() })
    });
    let group = room.group(3);
    for message in ["good", "bad", "last"] {
        room.net().publish(group, message);
    }
    turn(&mut room);
    let reasons = room.log.reasons();
    assert!(reasons.len() == 1 && reasons[0].contains("taken bytes away"), "{reasons:?}");
    let all = [&[1, 4][..], b"good", &[1, 3], b"bad", &[1, 4], b"last"].concat();
    assert_eq!(room.heard()[..2], [all.clone(), all]);
}

/// Drops what it is to encode once its peer has said something, and has no class then: as WebSocket does
/// behind a Close.
struct Quits(Counted, bool);

impl Layer for Quits {
    fn name(&self) -> &'static str {
        "quits"
    }

    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _: &mut Vec<u8>,
        _: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        self.1 |= !wire.is_empty();
        let len = wire.len();
        Ok(Step::new(len, if len == 0 { Item::Nothing } else { Item::Slice(0..len) }))
    }

    fn encode(
        &mut self,
        cx: &mut LayerContext<'_>,
        message: &[u8],
        kind: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        if self.1 { Ok(()) } else { self.0.encode(cx, message, kind, wire) }
    }

    fn wire_class(&self) -> Option<WireClass> {
        self.0.wire_class().filter(|_| !self.1)
    }
}

#[test]
fn a_layer_is_asked_again_after_it_has_decoded_something() {
    let mut room =
        room(3, Config::default(), |_| Box::new(Quits(Counted::of(1, &counter()), false)));
    let group = room.group(3);
    room.net().publish(group, "a");
    turn(&mut room);
    // The one that is served first.
    room.streams[2].write_all(b"x").unwrap();
    let reads = room.net().stats().bytes_read;
    until(&mut room.reactor, "the quitter's byte", |reactor| {
        reactor.net().stats().bytes_read > reads
    });
    room.net().publish(group, "b");
    turn(&mut room);
    let heard = room.heard();
    assert_eq!(heard, [&b"\x01\x01a\x01\x01b"[..], b"\x01\x01a\x01\x01b", b"\x01\x01a"]);
}

#[test]
fn a_queue_stays_below_its_limit_where_the_form_is_longer_than_the_message() {
    let mut heard = Vec::new();
    for direct in [true, false] {
        let options = StreamOptions::new().output_limit(4096).overflow(Overflow::Drop);
        let config = Config::new().work_per_turn(1 << 20);
        let mut accepted = room(2, config, |_| Box::new(Counted::of(1, &counter())));
        let (group, member) = (accepted.group(1), accepted.tokens[0]);
        assert!(accepted.net().set_options(member, options));
        for n in 0..2_000_u32 {
            if direct {
                accepted.net().send(member, [n as u8]);
            } else {
                accepted.net().publish(group, [n as u8]);
            }
        }
        turn(&mut accepted);
        heard.push(accepted.heard().remove(0));
    }
    for heard in &heard {
        assert!((4090..=4099).contains(&heard.len()), "{} bytes", heard.len());
    }
}

#[test]
fn more_classes_than_a_log_has_room_for_are_encoded_member_by_member() {
    let counts: Vec<_> = (0..12).map(|_| counter()).collect();
    let of_layers = counts.clone();
    let mut room = room(24, Config::default(), move |n| {
        Box::new(Counted::of((n % 12) as u8, &of_layers[n % 12]))
    });
    let group = room.group(24);
    for n in 0..10 {
        room.net().publish(group, [n]);
        turn(&mut room);
    }
    let mut counts: Vec<_> = counts.iter().map(|count| count.get()).collect();
    counts.sort_unstable();
    assert!(counts[..8].iter().all(|&count| (10..20).contains(&count)), "{counts:?}");
    assert!(counts[8..].iter().all(|&count| count <= 20), "{counts:?}");
    for (n, heard) in room.heard().into_iter().enumerate() {
        let expected: Vec<u8> = (0..10).flat_map(|m| [(n % 12) as u8, 1, m]).collect();
        assert_eq!(heard, expected, "member {n}");
    }
}

#[test]
fn direct_sends_and_messages_of_several_groups_keep_their_order_in_every_form() {
    let mut room = room(6, Config::default(), |n| match n % 3 {
        0 => Box::new(Counted::of(1, &counter())),
        1 => Box::new(Rolling::default().then(Counted::of(1, &counter()))),
        _ => Box::new(Rolling::default()),
    });
    let (all, some) = (room.group(6), room.group(3));
    let mut expected = vec![Vec::new(); 6];
    for n in 0..200_u8 {
        let heard_by = match n % 5 {
            0 | 3 => {
                room.net().publish(all, [n]);
                0..6
            }
            1 => {
                room.net().publish(some, [n]);
                0..3
            }
            2 => {
                let member = room.tokens[usize::from(n) % 6];
                assert_eq!(room.net().send(member, [n]), SendStatus::Queued);
                usize::from(n) % 6..usize::from(n) % 6 + 1
            }
            _ => {
                if n % 3 == 0 {
                    turn(&mut room);
                }
                0..0
            }
        };
        heard_by.for_each(|member| expected[member].push(n));
    }
    for (n, heard) in room.heard().into_iter().enumerate() {
        let framed = |m: &u8| if n % 3 == 2 { vec![*m] } else { vec![1, 1, *m] };
        let plain: Vec<u8> = expected[n].iter().flat_map(framed).collect();
        let wire = if n % 3 == 0 { plain } else { rolled(&plain, 0) };
        assert_eq!(heard, wire, "member {n}");
    }
}

#[test]
fn a_member_that_counts_or_is_at_its_limit_gets_its_messages_one_by_one() {
    let count = counter();
    let of_layers = Rc::clone(&count);
    let mut room = room(3, Config::default(), move |_| Box::new(Counted::of(1, &of_layers)));
    let group = room.group(3);
    let counting = room.tokens[0];
    assert!(room.net().set_options(counting, StreamOptions::new().statistics(true)));
    for n in 0..4 {
        room.net().publish(group, [n]);
    }
    turn(&mut room);
    // Four for the one that counts, four for the class.
    assert_eq!(count.get(), 8);
    assert_eq!(room.net().connection_stats(counting).unwrap().messages_sent, 4);
    for heard in room.heard() {
        assert_eq!(heard, [1, 1, 0, 1, 1, 1, 1, 1, 2, 1, 1, 3]);
    }
}

/// The budget of a turn. Unix sockets: what was written can be read at once.
#[cfg(unix)]
mod budget {
    use super::counter;
    use crate::groups::budget::Crowd;
    use crate::support::counted::Counted;

    // row 204
    #[test]
    fn a_turn_encodes_no_more_than_its_budget_and_all_of_a_class_wait_for_the_rest() {
        let count = counter();
        // Four units for each message: ten of them in a turn.
        let mut crowd = Crowd::with(3, 40, |_| Some(Counted::of(1, &count)));
        for n in 0..100_u8 {
            crowd.reactor.net().publish(crowd.group, [n]);
        }
        let expected: Vec<u8> = (0..100).flat_map(|n| [1, 1, n]).collect();
        let mut turns = 0;
        while crowd.have(&expected) < 3 {
            let before = count.get();
            crowd.turn();
            turns += 1;
            assert!(count.get() - before <= 11, "{} in one turn", count.get() - before);
            assert!(crowd.heard.iter().all(|heard| expected.starts_with(heard)));
            assert!(turns < 40, "{:?} bytes after {turns} turns", crowd.heard.iter().map(Vec::len));
        }
        assert_eq!(count.get(), 100);
    }
}
