#![no_main]
//! Options: maximum, CRLF, unterminated.

use libfuzzer_sys::fuzz_target;
use tidegate::layer::Lines;
use tidegate_fuzz::{Options, check_sent_on};

fuzz_target!(|input: &[u8]| {
    let mut options = Options::new(input);
    let (max, crlf, refuse) = (options.below(64), options.flag(), options.flag());
    let make = || {
        let lines = Lines::new().line_limit(max);
        let lines = if crlf { lines.crlf() } else { lines };
        if refuse { lines.refuse_unterminated() } else { lines }
    };
    let outcome = options.transcript().check(make);
    let messages = outcome.messages();
    assert!(messages.iter().all(|line| line.len() <= max && !line.contains(&b'\n')));

    // A carriage return at the end of a line is the one thing that LF cannot carry.
    let faithful: Vec<&[u8]> =
        messages.iter().filter(|line| crlf || !line.ends_with(b"\r")).copied().collect();
    let refused = check_sent_on(make, &faithful);
    let expected = faithful.iter().filter(|line| crlf && line.contains(&b'\r')).count();
    assert_eq!(refused, expected);
});
