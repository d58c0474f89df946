//! Whole and in pieces; what peers do wrong; the reference implementation as the counterpart.

use std::error::Error;

use super::Lz4;
use crate::layer::compression::kit::{
    Reader, decode, encode, every_damage, every_split, every_truncation, frame, hex, noise,
    rate_of, trade,
};
use crate::layer::testkit::Environment;
use crate::layer::{Layer, LayerErrorKind, MessageKind};

fn mixed() -> Vec<Vec<u8>> {
    let (text, incompressible) = (trade(1).repeat(3), noise(90, 1));
    vec![text, vec![], b"hi".to_vec(), trade(2), incompressible, vec![b'a'; 700]]
}

fn slices(messages: &[Vec<u8>]) -> Vec<&[u8]> {
    messages.iter().map(Vec::as_slice).collect()
}

#[test]
fn messages_survive_every_split() {
    let messages = mixed();
    let wire = encode(&mut Lz4::new(), &slices(&messages));
    every_split(Lz4::new, &wire, &slices(&messages));
    every_truncation(Lz4::new, &wire);
}

#[test]
fn small_and_large_messages_alternate() {
    // Across the change of hash tables at 64 KiB, and back.
    let (mut sender, mut receiver) = (Lz4::new(), Lz4::new());
    for len in [100, 65_534, 65_535, 65_536, 200, 1 << 20, 300] {
        let message: Vec<u8> = (0..).flat_map(trade).take(len).collect();
        let wire = encode(&mut sender, &[&message]);
        assert!(wire.len() <= len + 2);
        assert_eq!(decode(&mut receiver, &wire).unwrap(), [message]);
    }
    assert!(rate_of(&sender).sent().rate().unwrap() < 0.7);
    assert_eq!(rate_of(&sender).sent(), rate_of(&receiver).received());
}

#[test]
fn what_would_not_shrink_is_sent_as_it_is() {
    let mut layer = Lz4::new();
    let (below, at, incompressible) = (vec![b'x'; 127], vec![b'x'; 128], noise(1000, 3));
    assert_eq!(encode(&mut layer, &[&below]), frame(0, &below));
    assert_eq!(encode(&mut layer, &[&at])[0] & 3, 1);
    assert_eq!(encode(&mut layer, &[&incompressible]), frame(0, &incompressible));
    assert_eq!(rate_of(&layer).sent().stored(), 2);
    assert_eq!(encode(&mut layer.threshold(0), &[b"", b"x"]), [0, 4, b'x']);
}

#[test]
fn a_bomb_is_refused_before_anything_is_allocated_for_it() {
    // One literal, then a match of 4 + 15 + 255 * 4,000 bytes: a megabyte from four kilobytes.
    let mut bomb = vec![0x1f, b'a', 1, 0];
    bomb.extend([255; 4000]);
    bomb.extend([0, 0x50, b'b', b'b', b'b', b'b', b'b']);
    let (mut layer, mut reader) = (Lz4::new().message_limit(100_000), Reader::default());
    let error = reader.feed(&mut layer, &frame(1, &bomb)).unwrap_err();
    assert_eq!(error.kind(), LayerErrorKind::TooLarge, "{error}");
    assert_eq!(reader.unit_capacity(), 0);
    // It is a proper block.
    assert_eq!(decode(&mut Lz4::new(), &frame(1, &bomb)).unwrap()[0].len(), 1_020_025);
}

#[test]
fn a_message_exactly_at_the_cap_passes_and_one_byte_more_does_not() {
    for cap in [200, 4096, 65_536] {
        let (at, over) = (vec![b'z'; cap], vec![b'z'; cap + 1]);
        let wire = encode(&mut Lz4::new().message_limit(cap), &[&at]);
        let mut reader = Reader::default();
        reader.feed(&mut Lz4::new().message_limit(cap), &wire).unwrap();
        assert_eq!(reader.messages, [at]);
        assert!(reader.unit_capacity() <= cap);

        let wire = encode(&mut Lz4::new(), &[&over]);
        let refused = decode(&mut Lz4::new().message_limit(cap), &wire);
        assert_eq!(refused, Err(LayerErrorKind::TooLarge));
    }
}

#[test]
fn a_message_over_the_cap_is_not_sent() {
    let mut layer = Lz4::new().message_limit(100);
    let mut wire = b"before".to_vec();
    let error = layer
        .encode(&mut Environment::new().cx(), &[0; 101], MessageKind::Default, &mut wire)
        .unwrap_err();
    assert_eq!(error.kind(), LayerErrorKind::Unencodable);
    assert_eq!(wire, b"before");
}

#[test]
fn damage_is_refused_or_harmless() {
    let wire = encode(&mut Lz4::new(), &slices(&mixed()));
    every_damage(|| Lz4::new().message_limit(1000), &wire, 1000);
}

#[test]
fn what_is_no_lz4_is_malformed() {
    for (what, form, body) in [
        ("literals that are not there", 1, &[0x50, b'a'][..]),
        ("a long length that does not end", 1, &[0xf0, 255, 255]),
        ("an offset cut in half", 1, &[0x10, b'a', 1]),
        ("a match at the end, no literals", 1, &[0x10, b'a', 1, 0]),
        ("a match at offset 0", 1, &[0x10, b'a', 0, 0, 0x10, b'b']),
        ("a match before the beginning", 1, &[0x10, b'a', 2, 0, 0x10, b'b']),
        ("forms of a codec with a context", 2, b"a"),
        ("forms of a codec with a context", 3, b"a"),
    ] {
        let kind = decode(&mut Lz4::new(), &frame(form, body));
        assert_eq!(kind, Err(LayerErrorKind::Malformed), "{what}");
    }
}

#[test]
fn a_reused_buffer_never_shows_through() {
    // RUSTSEC-2026-0041: matches outside of what was written gave back what the buffer held.
    let secret = b"the message before ".repeat(40);
    for offset in [5u16, 16, 17, 40, 300, 0xffff] {
        let [a, b] = offset.to_le_bytes();
        // Four literals, a match of 18 bytes further back than that, 25 literals. The lengths are
        // right, and enough lies behind the match for the decoder's fast path.
        let reaching = [&[0x4e, b'z', b'z', b'z', b'z', a, b, 0xf0, 10][..], &[b'z'; 25]].concat();
        let (mut layer, mut reader) = (Lz4::new(), Reader::default());
        let first = encode(&mut layer, &[&secret]);
        reader.feed(&mut layer, &first).unwrap();
        let error = reader.feed(&mut layer, &frame(1, &reaching)).unwrap_err();
        assert_eq!(error.kind(), LayerErrorKind::Malformed);
        assert!(error.source().unwrap().to_string().contains("offset"), "{error}");
    }
}

/// Made with the reference implementation 1.9.4 (Python package `lz4` 4.4.5,
/// `lz4.block.compress(…, store_size=False)`), the frames put together by hand as the wire format
/// says. In turn: a request three times over (form 1), `hi` (0), nothing (0), 300 zeros (1), and
/// the request's first 60 bytes, the zeros and the three requests at `high_compression` 12 (1).
const REFERENCE: &str = "
    f501f214474554202f7072696365732f45555255534420485454502f312e310d0a486f73743a201e00cf2e657861
    6d706c650d0a0d0a35005250650d0a0d0a08686900311f000100ff14500000000000a902f214474554202f707269
    6365732f45555255534420485454502f312e310d0a486f73743a201e00c32e6578616d706c650d0a0d0a35001f00
    0100ff190f6801290f35004b50650d0a0d0a
";

#[test]
fn the_reference_implementation_is_understood() {
    let requests = b"GET /prices/EURUSD HTTP/1.1\r\nHost: prices.example\r\n\r\n".repeat(3);
    let zeros = [0; 300];
    let all = [&requests[..60], &zeros, &requests].concat();
    let messages: [&[u8]; 5] = [&requests, b"hi", b"", &zeros, &all];
    every_split(Lz4::new, &hex(REFERENCE), &messages);
}
