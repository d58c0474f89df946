use super::super::testkit::{Driver, Ending, Environment, every_split, outcome_of};
use super::*;

fn encoded(format: &LengthPrefixed, message: &[u8]) -> Result<Vec<u8>, LayerError> {
    let mut wire = b"before".to_vec();
    let result = format.clone().encode(
        &mut Environment::new().cx(),
        message,
        MessageKind::Default,
        &mut wire,
    );
    let added = wire.split_off(6);
    assert_eq!(wire, b"before");
    assert!(result.is_ok() || added.is_empty(), "failed, but left {added:?}");
    result.map(|()| added)
}

fn unencodable(format: &LengthPrefixed, message: &[u8]) {
    let error = encoded(format, message).unwrap_err();
    assert_eq!(error.kind(), LayerErrorKind::Unencodable, "{error}");
}

/// The messages that come of `wire`, the same for every split, and how it failed.
fn decoded(format: &LengthPrefixed, wire: &[u8]) -> (Vec<Vec<u8>>, Option<LayerErrorKind>) {
    let outcome = every_split(|| format.clone(), wire, Ending::Ended);
    let messages = outcome.messages().into_iter().map(<[u8]>::to_vec).collect();
    (messages, outcome.error_kind())
}

#[track_caller]
fn fails(format: &LengthPrefixed, wire: &[u8], kind: LayerErrorKind) {
    assert_eq!(decoded(format, wire), (vec![], Some(kind)));
}

#[test]
fn every_width_and_byte_order_goes_there_and_back() {
    let messages = [&b"hello"[..], b"", b"world", &[7; 200]];
    for width in 1..=9 {
        let big = if width == 9 { LengthPrefixed::varint() } else { LengthPrefixed::new(width) };
        for format in [big.clone(), big.little_endian()] {
            let wire: Vec<u8> =
                messages.iter().flat_map(|m| encoded(&format, m).unwrap()).collect();
            assert_eq!(decoded(&format, &wire), (messages.map(<[u8]>::to_vec).to_vec(), None));
        }
    }
}

#[test]
fn the_wire_form_is_what_others_read() {
    let hello = b"hello";
    assert_eq!(encoded(&LengthPrefixed::new(1), hello).unwrap(), b"\x05hello");
    assert_eq!(encoded(&LengthPrefixed::new(3), hello).unwrap(), b"\0\0\x05hello");
    assert_eq!(
        encoded(&LengthPrefixed::new(4).little_endian(), hello).unwrap(),
        b"\x05\0\0\0hello"
    );
    assert_eq!(&encoded(&LengthPrefixed::varint(), &[0; 300]).unwrap()[..2], b"\xac\x02");
}

#[test]
fn an_announced_length_over_the_limit_is_refused_at_once() {
    let mut driver = Driver::new(LengthPrefixed::new(8)).slack(0);
    driver.feed(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert!(driver.error().is_none());
    driver.feed(&[0xff]);
    assert_eq!(
        driver.error().expect("too large").to_string(),
        "length-prefixed: too large: expected at most 1048576 bytes behind the length, \
         9223372036854775807 are announced"
    );
}

#[test]
fn the_limit_itself_is_allowed() {
    let format = LengthPrefixed::new(1).frame_limit(4);
    assert_eq!(decoded(&format, b"\x04four"), (vec![b"four".to_vec()], None));
    fails(&format, b"\x05fives", LayerErrorKind::TooLarge);
}

#[test]
fn what_is_sent_is_held_to_the_field_and_not_to_the_limit() {
    let format = LengthPrefixed::new(1).frame_limit(4);
    assert_eq!(encoded(&format, &[0; 255]).unwrap().len(), 256);
    unencodable(&format, &[0; 256]);
}

#[test]
fn the_stream_may_end_only_between_frames() {
    let format = LengthPrefixed::new(2);
    fails(&format, b"\0", LayerErrorKind::Truncated);
    fails(&format, b"\0\x05hell", LayerErrorKind::Truncated);
    assert_eq!(decoded(&format, b"\0\x01a\0\x00"), (vec![b"a".to_vec(), vec![]], None));
    assert_eq!(decoded(&format, b""), (vec![], None));
}

// The six examples on the page of Netty's LengthFieldBasedFrameDecoder.
#[test]
fn the_examples_of_netty_come_out_as_there() {
    let hello = "HELLO, WORLD";
    let frame = |head: &[u8]| [head, hello.as_bytes()].concat();
    let cases = [
        (LengthPrefixed::new(2).strip(0), frame(b"\x00\x0c"), frame(b"\x00\x0c")),
        (LengthPrefixed::new(2), frame(b"\x00\x0c"), frame(b"")),
        (
            LengthPrefixed::new(2).length_adjustment(-2).strip(0),
            frame(b"\x00\x0e"),
            frame(b"\x00\x0e"),
        ),
        (
            LengthPrefixed::new(3).length_field_offset(2).strip(0),
            frame(b"\xca\xfe\x00\x00\x0c"),
            frame(b"\xca\xfe\x00\x00\x0c"),
        ),
        (
            LengthPrefixed::new(3).length_adjustment(2).strip(0),
            frame(b"\x00\x00\x0c\xca\xfe"),
            frame(b"\x00\x00\x0c\xca\xfe"),
        ),
        (
            LengthPrefixed::new(2).length_field_offset(1).length_adjustment(1).strip(3),
            frame(b"\xca\x00\x0c\xfe"),
            frame(b"\xfe"),
        ),
        (
            LengthPrefixed::new(2).length_field_offset(1).length_adjustment(-3).strip(3),
            frame(b"\xca\x00\x10\xfe"),
            frame(b"\xfe"),
        ),
    ];
    for (format, wire, message) in cases {
        assert_eq!(decoded(&format, &wire), (vec![message.clone()], None), "{format:?}");
        let back = format.clone().header(vec![0xca; format.offset]);
        assert_eq!(encoded(&back, &message).unwrap(), wire, "{format:?}");
    }
}

#[test]
fn arithmetic_at_the_edges_is_refused_and_not_wrapped() {
    use LayerErrorKind::{Malformed, TooLarge};
    let format = LengthPrefixed::new(8).frame_limit(usize::MAX);
    fails(&format, &[0xff; 8], TooLarge);
    fails(&format.clone().length_adjustment(i64::MAX), &[0xff; 8], TooLarge);
    fails(&format.clone().length_adjustment(-9), &[0, 0, 0, 0, 0, 0, 0, 8], Malformed);
    fails(&format.clone().length_adjustment(i64::MIN), &[0; 8], Malformed);
    // The body fits a usize, the frame does not.
    fails(&format, &(usize::MAX as u64).to_be_bytes(), TooLarge);
    unencodable(&format.clone().length_adjustment(1), b"");
    unencodable(&format.clone().length_adjustment(i64::MAX), b"abc");
    let most = encoded(&format.length_adjustment(i64::MIN), b"a").unwrap();
    assert_eq!(&most[..8], &((1_u64 << 63) + 1).to_be_bytes());
}

#[test]
fn a_frame_shorter_than_what_is_stripped_is_malformed() {
    let format = LengthPrefixed::new(1).strip(4);
    assert_eq!(decoded(&format, b"\x05abcde"), (vec![b"de".to_vec()], None));
    assert_eq!(decoded(&format, b"\x03abc"), (vec![vec![]], None));
    fails(&format, b"\x02ab", LayerErrorKind::Malformed);
    unencodable(&format, b"de");
}

#[test]
fn whole_frames_are_checked_before_they_are_sent() {
    for format in [LengthPrefixed::new(1).strip(0), LengthPrefixed::varint().strip(0)] {
        assert_eq!(encoded(&format, b"\x02ab").unwrap(), b"\x02ab");
        for wrong in [&b""[..], b"\x02a", b"\x02abc"] {
            unencodable(&format, wrong);
        }
    }
    unencodable(&LengthPrefixed::varint().strip(0), b"\x80\x00");
    let small = LengthPrefixed::new(1).strip(0).frame_limit(1);
    assert_eq!(encoded(&small, b"\x02ab").unwrap(), b"\x02ab");
}

#[test]
fn a_header_has_to_be_given_where_there_is_one() {
    let format = LengthPrefixed::new(1).length_field_offset(2);
    assert_eq!(decoded(&format, b"XY\x01a"), (vec![b"a".to_vec()], None));
    unencodable(&format, b"a");
    unencodable(&format.clone().header(*b"ABC"), b"a");
    assert_eq!(encoded(&format.header(*b"AB"), b"a").unwrap(), b"AB\x01a");
}

#[test]
fn a_varint_is_bounded_and_the_shortest() {
    use LayerErrorKind::{Malformed, TooLarge};
    let format = LengthPrefixed::varint();
    fails(&format, &[0x80; 9], LayerErrorKind::Truncated);
    fails(&format, &[0x80; 10], Malformed);
    fails(&format, b"\x80\x00", Malformed);
    fails(&format, b"\x85\x80\x00hello", Malformed);
    fails(&format, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", Malformed);
    fails(&format, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", TooLarge);
    assert_eq!(
        read_varint(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").unwrap(),
        Some((u64::MAX, 10))
    );
}

#[test]
fn every_edge_of_a_varint_goes_there_and_back() {
    for value in (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit]).chain([u64::MAX]) {
        let mut bytes = Vec::new();
        LengthPrefixed::varint().write_field(value, &mut bytes);
        assert_eq!(read_varint(&bytes).unwrap(), Some((value, bytes.len())));
    }
}

#[test]
fn frames_are_handed_on_without_a_copy() {
    let mut unit = Vec::new();
    let step = LengthPrefixed::new(2)
        .decode(
            &mut Environment::new().cx(),
            &mut b"\0\x03abcxyz".to_vec(),
            &mut unit,
            &mut Vec::new(),
        )
        .unwrap();
    assert_eq!((step.consumed, step.item), (5, Item::Slice(2..5)));
    assert_eq!(unit.capacity(), 0);
}

#[test]
fn random_bytes_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..2_000_u32 {
        let bytes: Vec<u8> = (0..24)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8 & if round % 2 == 0 { 0x83 } else { 0xff }
            })
            .collect();
        let format = LengthPrefixed::new(1 + round as usize % 8)
            .length_field_offset(round as usize % 3)
            .length_adjustment(state as i64 % 5);
        let _ = outcome_of(format, bytes.chunks(5), Ending::Ended);
        let _ = outcome_of(LengthPrefixed::varint(), bytes.chunks(5), Ending::Ended);
    }
}

#[test]
#[should_panic(expected = "1 to 8 bytes, not 9")]
fn a_field_of_nine_bytes_is_a_mistake() {
    let _ = LengthPrefixed::new(9);
}
