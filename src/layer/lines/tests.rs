use super::super::testkit::{Driver, Ending, Environment, every_split, outcome_of};
use super::*;

fn unencodable(lines: &mut Lines, message: &[u8]) {
    let mut wire = b"before".to_vec();
    let error = lines
        .encode(&mut Environment::new().cx(), message, MessageKind::Default, &mut wire)
        .unwrap_err();
    assert_eq!(error.kind(), LayerErrorKind::Unencodable, "{error}");
    assert_eq!(wire, b"before");
}

#[test]
fn both_ends_of_line_are_accepted_line_by_line() {
    let outcome = every_split(Lines::new, b"one\r\ntwo\n\nthree\r\n\r\n", Ending::Ended);
    assert_eq!(outcome.messages(), [&b"one"[..], b"two", b"", b"three", b""]);
    assert_eq!(outcome.error, None);
}

#[test]
fn one_end_of_line_is_stripped_and_no_more() {
    let outcome = every_split(Lines::new, b"a\r\r\n\rb\r\n\r\r", Ending::Ended);
    assert_eq!(outcome.messages(), [&b"a\r"[..], b"\rb", b"\r"]);
}

#[test]
fn a_last_line_without_its_end_is_a_line() {
    for (wire, last) in [(&b"one\ntwo"[..], &b"two"[..]), (b"one\ntwo\r", b"two")] {
        let outcome = every_split(Lines::new, wire, Ending::Ended);
        assert_eq!(outcome.messages(), [b"one", last]);
        assert_eq!(outcome.error, None);
        assert_eq!(every_split(Lines::new, wire, Ending::Open).messages(), [b"one"]);
    }
}

#[test]
fn a_last_line_without_its_end_can_be_refused() {
    let make = || Lines::new().refuse_unterminated();
    let outcome = every_split(make, b"one\ntwo", Ending::Ended);
    assert_eq!(outcome.messages(), [b"one"]);
    assert_eq!(outcome.error_kind(), Some(LayerErrorKind::Truncated));
    assert_eq!(every_split(make, b"one\n", Ending::Ended).error, None);
}

#[test]
fn the_limit_counts_the_line_without_its_end() {
    let make = || Lines::new().line_limit(4);
    for fits in [&b"four\n"[..], b"four\r\n", b"four", b"four\r"] {
        let outcome = every_split(make, fits, Ending::Ended);
        assert_eq!(outcome.messages(), [b"four"], "{}", fits.escape_ascii());
        assert_eq!(outcome.error, None);
    }
    for too_long in
        [&b"fives\n"[..], b"fives\r\n", b"fives", b"four\rx", b"four\r\r\n", b"xxxxxxxxx"]
    {
        let outcome = every_split(make, too_long, Ending::Ended);
        assert!(outcome.units.is_empty());
        assert_eq!(outcome.error_kind(), Some(LayerErrorKind::TooLarge));
    }
}

#[test]
fn a_line_without_end_is_refused_as_soon_as_it_is_too_long() {
    let mut driver = Driver::new(Lines::new());
    driver.feed(&[b'x'; MAX_LINE]);
    driver.feed(b"\r");
    assert!(driver.error().is_none(), "this may still be CRLF");
    driver.feed(b"x");
    let error = driver.error().expect("too long");
    assert_eq!(
        error.to_string(),
        "lines: too large: expected a line of at most 8192 bytes, a longer one came"
    );
}

#[test]
fn a_limit_of_all_there_is_does_not_overflow() {
    let make = || Lines::new().line_limit(usize::MAX);
    assert_eq!(every_split(make, b"a\nb", Ending::Ended).messages(), [b"a", b"b"]);
}

#[test]
fn no_byte_is_scanned_twice() {
    // Only the position is kept, so it shows what was scanned.
    let mut lines = Lines::new();
    let (mut unit, mut reply) = (Vec::new(), Vec::new());
    let _ = lines
        .decode(&mut Environment::new().cx(), &mut b"abcdef".to_vec(), &mut unit, &mut reply)
        .unwrap();
    assert_eq!(lines.scanned, 6);
    let step = lines
        .decode(&mut Environment::new().cx(), &mut b"abcdef\ngh".to_vec(), &mut unit, &mut reply)
        .unwrap();
    assert_eq!((step.consumed, step.item), (7, Item::Slice(0..6)));
    assert_eq!(lines.scanned, 0);
}

#[test]
fn fewer_bytes_than_before_are_scanned_anew() {
    let mut lines = Lines::new();
    let (mut unit, mut reply) = (Vec::new(), Vec::new());
    let _ = lines
        .decode(&mut Environment::new().cx(), &mut b"abcdef".to_vec(), &mut unit, &mut reply)
        .unwrap();
    let step = lines
        .decode(&mut Environment::new().cx(), &mut b"a\nb".to_vec(), &mut unit, &mut reply)
        .unwrap();
    assert_eq!((step.consumed, step.item), (2, Item::Slice(0..1)));
}

#[test]
fn a_message_is_one_line() {
    unencodable(&mut Lines::new(), b"one\ntwo");
    unencodable(&mut Lines::new(), b"one\n");
    unencodable(&mut Lines::new().crlf(), b"one\r\ntwo");
    unencodable(&mut Lines::new().crlf(), b"one\rtwo");
}

#[test]
fn every_line_received_can_be_sent_on() {
    let received = outcome_of(Lines::new(), [&b"a\rb\r\r\n\r\n\xff\x00\n"[..]], Ending::Ended);
    for line in received.messages() {
        Lines::new()
            .encode(&mut Environment::new().cx(), line, MessageKind::Default, &mut Vec::new())
            .unwrap();
    }
}

#[test]
fn crlf_is_sent_where_it_is_asked_for() {
    let mut wire = Vec::new();
    Lines::new().encode(&mut Environment::new().cx(), b"lf", MessageKind::Text, &mut wire).unwrap();
    Lines::new()
        .crlf()
        .encode(&mut Environment::new().cx(), b"crlf", MessageKind::Binary, &mut wire)
        .unwrap();
    assert_eq!(wire, b"lf\ncrlf\r\n");
}
