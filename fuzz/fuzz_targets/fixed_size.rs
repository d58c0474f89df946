#![no_main]
//! Option: the size.

use libfuzzer_sys::fuzz_target;
use tidegate::layer::FixedSize;
use tidegate_fuzz::{Options, check_sent_on};

fuzz_target!(|input: &[u8]| {
    let mut options = Options::new(input);
    let size = 1 + options.below(64);
    let make = || FixedSize::new(size);
    let outcome = options.transcript().check(make);
    assert_eq!(check_sent_on(make, &outcome.messages()), 0);
});
