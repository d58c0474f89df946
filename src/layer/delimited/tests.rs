use super::super::testkit::{Driver, Ending, Environment, every_split, outcome_of};
use super::*;

/// All strings of `length` letters of "ab".
fn strings(length: u32) -> impl Iterator<Item = Vec<u8>> {
    (0..1_u32 << length)
        .map(move |bits| (0..length).map(|i| b'a' + (bits >> i & 1) as u8).collect())
}

#[test]
fn messages_end_at_the_delimiter_however_the_stream_is_cut() {
    let outcome = every_split(|| Delimited::new(b"--"), b"a--b-c----d---e--", Ending::Ended);
    assert_eq!(outcome.messages(), [&b"a"[..], b"b-c", b"", b"d", b"-e"]);
    assert_eq!(outcome.error, None);
}

#[test]
fn a_delimiter_can_be_one_byte() {
    let outcome = every_split(|| Delimited::new([0]), b"one\0\0two\0", Ending::Ended);
    assert_eq!(outcome.messages(), [&b"one"[..], b"", b"two"]);
}

#[test]
fn the_search_agrees_with_a_naive_one() {
    for delimiter in (1..=4).flat_map(strings) {
        let search = Search::new(&delimiter);
        for text in (0..=9).flat_map(strings) {
            let naive = text.windows(delimiter.len()).position(|window| window == delimiter);
            let found = search.run(&mut 0, &text);
            assert_eq!(found, naive.map(|at| at + delimiter.len()), "{delimiter:?} in {text:?}");
        }
    }
}

#[test]
fn what_can_be_sent_arrives_and_what_could_not_is_refused() {
    for delimiter in (1..=4).flat_map(strings) {
        for message in (0..=6).flat_map(strings) {
            let mut wire = Vec::new();
            let sent = Delimited::new(&delimiter).encode(
                &mut Environment::new().cx(),
                &message,
                MessageKind::Default,
                &mut wire,
            );
            let naive: Vec<u8> = [&message[..], &delimiter].concat();
            let arrives = outcome_of(Delimited::new(&delimiter), [&naive[..]], Ending::Open);
            if arrives.messages() == [&message[..]] {
                sent.unwrap();
                assert_eq!(wire, naive);
            } else {
                assert_eq!(sent.unwrap_err().kind(), LayerErrorKind::Unencodable);
                assert!(wire.is_empty());
            }
        }
    }
}

#[test]
fn the_limit_counts_the_message_without_the_delimiter() {
    let make = || Delimited::new(b"aab").message_limit(4);
    for fits in [&b"aaaaaab"[..], b"xxxxaab", b"xxxx", b"aaaa"] {
        let outcome = every_split(make, fits, Ending::Ended);
        assert_eq!(outcome.messages(), [&fits[..4]], "{}", fits.escape_ascii());
        assert_eq!(outcome.error, None);
    }
    for too_long in [&b"xxxxxaab"[..], b"aaaaaaab", b"xxxxx", b"xxxxaa", b"xxxxaaxaab", b"xxxxxxxx"]
    {
        let outcome = every_split(make, too_long, Ending::Ended);
        assert_eq!(outcome.error_kind(), Some(LayerErrorKind::TooLarge), "{too_long:?}");
        assert!(outcome.units.is_empty());
    }
}

#[test]
fn a_message_without_end_is_refused_as_soon_as_it_is_too_long() {
    let mut driver = Driver::new(Delimited::new(b";;"));
    driver.feed(&[b'x'; MAX_MESSAGE]);
    driver.feed(b";");
    assert!(driver.error().is_none(), "this may still be the delimiter");
    driver.feed(b"x");
    assert_eq!(
        driver.error().expect("too long").to_string(),
        "delimited: too large: expected the delimiter ;; after at most 8192 bytes, a longer message came"
    );
}

#[test]
fn a_rest_at_the_end_is_a_message_unless_refused() {
    let outcome = every_split(|| Delimited::new(b";;"), b"a;;b;", Ending::Ended);
    assert_eq!(outcome.messages(), [&b"a"[..], b"b;"]);
    assert_eq!(outcome.error, None);

    let make = || Delimited::new(b";;").refuse_unterminated();
    let outcome = every_split(make, b"a;;b;", Ending::Ended);
    assert_eq!(outcome.messages(), [b"a"]);
    assert_eq!(outcome.error_kind(), Some(LayerErrorKind::Truncated));
    assert_eq!(every_split(make, b"a;;", Ending::Ended).error, None);
}

#[test]
fn the_worst_delimiter_takes_linear_time() {
    // Quadratic, this would be 2^38 comparisons.
    let mut delimiter = vec![b'a'; 1 << 18];
    delimiter.push(b'b');
    let wire = vec![b'a'; 1 << 20];
    let make = Delimited::new(&delimiter).message_limit(usize::MAX);
    let outcome = outcome_of(make, wire.chunks(1 << 14), Ending::Ended);
    assert_eq!(outcome.messages(), [&wire]);
}

#[test]
#[should_panic(expected = "at least one byte")]
fn an_empty_delimiter_is_a_mistake() {
    let _ = Delimited::new(b"");
}
