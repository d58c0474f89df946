//! Both modes, whole and in pieces; what peers do wrong; Python's zlib as the counterpart.

use flate2::{Compress, Compression, FlushCompress};

use super::Deflate;
use crate::layer::compression::kit::{
    Reader, decode, encode, every_damage, every_split, every_truncation, frame, hex, noise,
    rate_of, trade,
};
use crate::layer::testkit::Environment;
use crate::layer::{Layer, LayerErrorKind, MessageKind};

/// Short, empty, alike, incompressible, alike again.
fn mixed() -> Vec<Vec<u8>> {
    let incompressible = noise(90, 1);
    let mut messages = vec![
        trade(1),
        trade(9).repeat(2),
        vec![],
        b"hi".to_vec(),
        trade(2),
        incompressible.clone(),
    ];
    messages.extend([incompressible, trade(3), vec![b'a'; 700]]);
    messages
}

fn slices(messages: &[Vec<u8>]) -> Vec<&[u8]> {
    messages.iter().map(Vec::as_slice).collect()
}

/// Raw DEFLATE without this layer: what a peer may put into a body.
fn raw(message: &[u8], flush: FlushCompress) -> Vec<u8> {
    let mut out = vec![0; message.len() + 1000];
    let mut stream = Compress::new(Compression::best(), false);
    stream.compress(message, &mut out, flush).unwrap();
    out.truncate(stream.total_out() as usize);
    out
}

fn context_body(message: &[u8]) -> Vec<u8> {
    let mut body = raw(message, FlushCompress::Sync);
    assert_eq!(body.split_off(body.len() - 4), [0, 0, 0xff, 0xff]);
    body
}

#[test]
fn both_modes_survive_every_split() {
    let messages = mixed();
    for make in [Deflate::new, Deflate::per_message] {
        let wire = encode(&mut make(), &slices(&messages));
        every_split(make, &wire, &slices(&messages));
        every_truncation(make, &wire);
    }
}

#[test]
fn the_receiver_needs_no_mode_and_the_modes_may_alternate() {
    let (mut context, mut alone) = (Deflate::new(), Deflate::per_message().level(9));
    let messages: Vec<_> = (0..40).map(trade).collect();
    let mut wire = Vec::new();
    for pair in messages.chunks(2) {
        wire.extend(encode(&mut context, &[&pair[0]]));
        wire.extend(encode(&mut alone, &[&pair[1]]));
    }
    assert_eq!(decode(&mut Deflate::per_message(), &wire).unwrap(), messages);
}

#[test]
fn every_level_round_trips_and_a_higher_one_is_no_larger_by_much() {
    let messages: Vec<_> = (0..200).map(trade).collect();
    let mut sizes = Vec::new();
    for level in 0..=10 {
        let wire = encode(&mut Deflate::new().level(level), &slices(&messages));
        assert_eq!(decode(&mut Deflate::new(), &wire).unwrap(), messages);
        sizes.push(wire.len());
    }
    assert!(sizes[9] < sizes[1], "{sizes:?}");
    assert_eq!((sizes[0], sizes[10]), (sizes[1], sizes[9]), "the nearer of 1 and 9");
}

#[test]
fn the_context_is_kept_over_1000_messages() {
    // 1 MiB and more: the 32 KiB window goes round many times.
    let messages: Vec<_> =
        (0..1000).map(|n| [trade(n), noise(900, n.into()), trade(n + 1)].concat()).collect();
    let (mut sender, mut receiver, mut reader) =
        (Deflate::new(), Deflate::new(), Reader::default());
    for message in &messages {
        reader.feed(&mut receiver, &encode(&mut sender, &[message])).unwrap();
        assert_eq!(reader.messages.pop().as_ref(), Some(message));
    }
    assert_eq!(rate_of(&sender).sent(), rate_of(&receiver).received());

    // And it helps: against messages by themselves, a small fraction.
    let messages: Vec<_> = (0..1000).map(trade).collect();
    let size = |mut layer: Deflate| encode(&mut layer, &slices(&messages)).len();
    let (with, without) = (size(Deflate::new()), size(Deflate::per_message().threshold(64)));
    assert!(with * 3 < without, "{with} with a context, {without} without");
}

#[test]
fn a_message_that_would_grow_is_sent_as_it_is_and_still_enters_the_context() {
    // Also one that is longer than the window, of which the end alone can be referred to.
    for len in [64, 1000, 32 * 1024, 32 * 1024 + 1, 100_000] {
        let message = noise(len, 7);
        let end = &message[len - 64..];
        let mut sender = Deflate::new();
        let first = encode(&mut sender, &[&message]);
        assert_eq!(first[0] & 3, 2, "stored, in the context");
        assert!(first.ends_with(&message));
        assert_eq!(rate_of(&sender).sent().stored(), 1);
        let again = encode(&mut sender, &[end]);
        assert!(again.len() < 32, "{} bytes for what was just said", again.len());

        let (mut receiver, mut reader) = (Deflate::new(), Reader::default());
        reader.feed(&mut receiver, &[first, again].concat()).unwrap();
        assert_eq!(reader.messages, [&message[..], end]);
        assert_eq!(reader.slices, 1, "handed on without a copy");
    }
}

#[test]
fn short_messages_are_sent_as_they_are_outside_the_context() {
    let mut layer = Deflate::new();
    let (below, at) = (vec![b'x'; 63], vec![b'x'; 64]);
    assert_eq!(encode(&mut layer, &[&below]), frame(0, &below));
    assert_eq!(encode(&mut layer, &[&at])[0] & 3, 1);
    assert_eq!(encode(&mut layer.threshold(0), &[b""]), [0], "an empty one is never compressed");
    assert_eq!(encode(&mut Deflate::per_message().threshold(0), &[b"x"]), frame(0, b"x"));
    let (below, at) = (vec![b'x'; 127], vec![b'x'; 128]);
    assert_eq!(encode(&mut Deflate::per_message(), &[&below]), frame(0, &below));
    assert_eq!(encode(&mut Deflate::per_message(), &[&at])[0] & 3, 3);
}

#[test]
fn a_bomb_stops_at_the_cap() {
    let (cap, zeros) = (2000, vec![0; 4 << 20]);
    let (streamed, alone) = (context_body(&zeros), raw(&zeros, FlushCompress::Finish));
    for (form, body) in [(1, streamed), (3, alone)] {
        // Within the cap on bodies, so that it is the output that is refused.
        let body = &body[..cap];
        let (mut layer, mut reader) = (Deflate::new().message_limit(cap), Reader::default());
        let error = reader.feed(&mut layer, &frame(form, body)).unwrap_err();
        assert_eq!(error.kind(), LayerErrorKind::TooLarge, "{error}");
        assert!(reader.unit_capacity() <= cap);
    }
}

#[test]
fn a_message_exactly_at_the_cap_passes_and_one_byte_more_does_not() {
    for make in [Deflate::new, Deflate::per_message] {
        for cap in [200, 4095, 4096, 4097, 65_536] {
            let at = vec![b'z'; cap];
            let wire = encode(&mut make().message_limit(cap), &[&at]);
            let mut reader = Reader::default();
            reader.feed(&mut make().message_limit(cap), &wire).unwrap();
            assert_eq!(reader.messages, [at]);
            assert!(reader.unit_capacity() <= cap);

            let over = vec![b'z'; cap + 1];
            let wire = encode(&mut make(), &[&over]);
            let refused = decode(&mut make().message_limit(cap), &wire);
            assert_eq!(refused, Err(LayerErrorKind::TooLarge));
        }
    }
}

#[test]
fn a_message_over_the_cap_is_not_sent() {
    let mut layer = Deflate::new().message_limit(100);
    let mut wire = b"before".to_vec();
    let error = layer
        .encode(&mut Environment::new().cx(), &[0; 101], MessageKind::Default, &mut wire)
        .unwrap_err();
    assert_eq!(error.kind(), LayerErrorKind::Unencodable);
    assert_eq!(wire, b"before");
    assert_eq!(rate_of(&layer).sent().messages(), 0);
}

#[test]
fn damage_is_refused_or_harmless() {
    let messages = mixed();
    for make in [Deflate::new, Deflate::per_message] {
        let wire = encode(&mut make(), &slices(&messages));
        every_damage(|| make().message_limit(1000), &wire, 1000);
    }
}

#[test]
fn what_is_no_deflate_is_malformed() {
    let text = b"one two one two one two";
    let whole = raw(text, FlushCompress::Finish);
    let unfinished = context_body(text);
    let trailing = [&whole[..], b"x"].concat();
    for (what, form, body) in [
        ("a reserved block type", 1, &[0x07][..]),
        ("a reserved block type", 3, &[0x07]),
        ("a stored block whose length is not confirmed", 1, &[0, 5, 0, 5, 0]),
        ("a final block in the context", 1, &whole),
        ("a message of its own without a final block", 3, &unfinished),
        ("bytes after the final block", 3, &trailing),
    ] {
        let kind = decode(&mut Deflate::new(), &frame(form, body));
        assert_eq!(kind, Err(LayerErrorKind::Malformed), "{what}");
    }
}

#[test]
fn a_match_before_the_beginning_is_malformed_and_brings_back_nothing_of_earlier_messages() {
    // `compressobj(9, DEFLATED, -15, zdict=b"a secret of the last message")`, python3's zlib 1.2.13:
    // an `a`, then one match of 27 bytes, 28 bytes back, to where a dictionary would be.
    let reaching_back = hex("174bc4230700");
    let secret = b"a secret of the last message";
    let mut wire = frame(3, &raw(&secret.repeat(9), FlushCompress::Finish));
    wire.extend(&reaching_back);
    let (mut layer, mut reader) = (Deflate::new(), Reader::default());
    let error = reader.feed(&mut layer, &wire).unwrap_err();
    assert_eq!(error.kind(), LayerErrorKind::Malformed, "{error}");
    assert_eq!(reader.messages, [secret.repeat(9)], "the one before it, and no other");
}

/// The body of a flushed message that is one match: three bytes, so far back (RFC 1951 sections
/// 3.2.5 and 3.2.6).
fn one_match(distance: u16) -> Vec<u8> {
    let mut bits = vec![0, 1, 0]; // not the last block, fixed codes
    bits.extend([0, 0, 0, 0, 0, 0, 1]); // length 3
    let offset = distance - 1;
    let (code, extra) = match offset {
        0..=3 => (offset, 0),
        _ => {
            let exponent = offset.ilog2() as u16;
            (2 * exponent + (offset >> (exponent - 1) & 1), exponent - 1)
        }
    };
    bits.extend((0..5).rev().map(|bit| code >> bit & 1));
    bits.extend((0..extra).map(|bit| offset >> bit & 1));
    bits.extend([0; 7]); // the end of the block
    bits.extend([0; 3]); // the stored block of the flush
    bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |all, bit| all << 1 | *bit as u8)).collect()
}

#[test]
fn a_match_reaches_back_to_the_first_byte_received_and_no_further() {
    let kept = |before: &[Vec<u8>], distance| {
        let wire = [&before.concat()[..], &frame(1, &one_match(distance))].concat();
        decode(&mut Deflate::new(), &wire).map(|messages| messages.last().cloned())
    };
    for distance in [3, 4, 5, 40, 257, 5000, 32_767, 32_768] {
        let bytes = noise(distance.into(), 3);
        let (all, first) = (&bytes[..], Ok(Some(bytes[..3].to_vec())));
        let compressed = frame(1, &context_body(all));
        assert_eq!(kept(&[compressed], distance), first, "{distance}");
        assert_eq!(kept(&[frame(2, all)], distance), first, "{distance}, learned");
        for (what, before) in [
            ("nothing", vec![]),
            ("one byte less", vec![frame(2, &all[1..])]),
            ("outside of the context", vec![frame(0, all)]),
            ("by itself", vec![frame(3, &raw(all, FlushCompress::Finish))]),
        ] {
            let refused = kept(&before, distance);
            assert_eq!(refused, Err(LayerErrorKind::Malformed), "{distance}, {what}");
        }
    }
}

#[test]
fn a_match_reaches_back_the_whole_window_however_much_was_received() {
    let mut receiver = Deflate::new();
    let mut reader = Reader::default();
    let all = noise(300_000, 5);
    let mut seen = 0;
    // So long that the receiver's buffer wraps at every place of a message.
    for message in all.chunks(601) {
        reader.feed(&mut receiver, &frame(1, &context_body(message))).unwrap();
        seen += message.len();
        if seen >= 32 * 1024 {
            // Three bytes more, which are part of the window from then on.
            let mut told: Vec<u8> = reader.messages.concat();
            let oldest = told.split_off(told.len() - 32 * 1024)[..3].to_vec();
            reader.feed(&mut receiver, &frame(1, &one_match(32_768))).unwrap();
            assert_eq!(reader.messages.last(), Some(&oldest), "behind {seen} bytes");
        }
    }
}

#[test]
fn a_message_that_ends_in_the_middle_of_a_block_is_malformed() {
    let whole = context_body(b"one two one two one two three");
    let stored = |content: &[u8]| [b"\x00\x05\x00\xfa\xff", content].concat();
    // The last of them would be complete with the four bytes that the receiver puts behind it.
    for content in ["", "H", "Hell", "Hel"] {
        let refused = decode(&mut Deflate::new(), &frame(1, &stored(content.as_bytes())));
        assert_eq!(refused, Err(LayerErrorKind::Malformed), "{content}");
    }
    assert_eq!(
        decode(&mut Deflate::new(), &frame(1, &[&stored(b"Hello")[..], &[0]].concat())),
        Ok(vec![b"Hello".to_vec()])
    );
    for cut in 1..whole.len() {
        let refused = decode(&mut Deflate::new(), &frame(1, &whole[..cut]));
        assert_eq!(refused, Err(LayerErrorKind::Malformed), "{cut} of {} bytes", whole.len());
    }
}

/// Made with python3's zlib 1.2.13, raw (`compressobj(6, DEFLATED, -15)`), each message flushed
/// with `Z_SYNC_FLUSH` and its last four bytes left out, the frames put together by hand as the
/// wire format says. In turn: a trade (form 1), the next (1), `hi` (0), nothing (0), noise that
/// the compressor was given but that is sent as it is (2), the same noise (1), the first trade by
/// itself at level 9 of a new `compressobj` with `flush()` (3), the second trade again (1), and an
/// empty message that was compressed nevertheless (1; RFC 7692 section 7.2.3.6).
const PYTHON: &str = "
    9502aa562aa92c4855b2522a294a4c4955d2512aaecc4dcacf010ab886068506bb004592325394ac0cf50c2c8c0d
    4d7494128bb3613c731da592cc5ca0664373430b0330a8050039aa26c93c5314f32c30cc33ac050008686900c201
    00143666a4f04ab28d11a343f1ad774f9a8e90a0beea246c278bfd7d0ba751093408eadad8e4fe26c10557b725a1
    2bc31122553d009702ab562aa92c4855b2522a294a4c4955d2512aaecc4dcacf010ab886068506bb004592325394
    ac0cf50c2c8c0d4d7494128bb3613c731da592cc5ca0664373430b0330a8050015a2b67b01000500
";

#[test]
fn python_zlib_is_understood() {
    let first =
        br#"{"type":"trade","symbol":"EURUSD","bid":1.08314,"ask":1.08317,"time":1718000000}"#;
    let second =
        br#"{"type":"trade","symbol":"EURUSD","bid":1.08315,"ask":1.08318,"time":1718000001}"#;
    let noise: Vec<u8> = (0..48u32).map(|i| (i * i * 7 + i * 13 + (i >> 3) * 101) as u8).collect();
    let messages: [&[u8]; 9] = [first, second, b"hi", b"", &noise, &noise, first, second, b""];
    every_split(Deflate::new, &hex(PYTHON), &messages);
}
