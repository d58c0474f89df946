#![no_main]
//! Options: maximum, unterminated, length of the delimiter, the delimiter.

use libfuzzer_sys::fuzz_target;
use tidegate::layer::Delimited;
use tidegate::layer::testkit::Ending;
use tidegate_fuzz::{Options, check_sent_on};

fuzz_target!(|input: &[u8]| {
    let mut options = Options::new(input);
    let (max, refuse, length) = (options.below(64), options.flag(), 1 + options.below(6));
    let delimiter = match options.bytes(length) {
        b"" => b"\0",
        delimiter => delimiter,
    };
    let make = || {
        let delimited = Delimited::new(delimiter).message_limit(max);
        if refuse { delimited.refuse_unterminated() } else { delimited }
    };
    let transcript = options.transcript();
    let ended = transcript.ending() == Ending::Ended;
    let outcome = transcript.check(make);
    let messages = outcome.messages();
    for message in &messages {
        assert!(message.len() <= max);
        assert!(!message.windows(delimiter.len()).any(|window| window == delimiter));
    }
    let refused = check_sent_on(make, &messages);
    // Only the rest at the end may run into the delimiter that is put behind it.
    assert!(refused <= usize::from(ended && !refuse));
});
