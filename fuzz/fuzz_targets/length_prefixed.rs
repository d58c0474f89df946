#![no_main]
//! Options: width, byte order, maximum, offset, adjustment, strip.

use libfuzzer_sys::fuzz_target;
use tidegate::layer::LengthPrefixed;
use tidegate_fuzz::{Options, check_sent_on};

fuzz_target!(|input: &[u8]| {
    let mut options = Options::new(input);
    let width = options.below(9);
    let format = if width == 0 { LengthPrefixed::varint() } else { LengthPrefixed::new(width) };
    let format = if options.flag() { format.little_endian() } else { format };
    let max = match options.byte() {
        255 => usize::MAX,
        small => usize::from(small),
    };
    let offset = options.below(5);
    let adjustment = match options.byte() as i8 {
        i8::MIN => i64::MIN,
        i8::MAX => i64::MAX,
        small => i64::from(small),
    };
    let strip = options.byte();
    let format = format
        .frame_limit(max)
        .length_field_offset(offset)
        .length_adjustment(adjustment)
        .header(vec![b'H'; offset]);
    let format = if strip < 8 { format.strip(usize::from(strip)) } else { format };
    let make = || format.clone();

    let outcome = options.transcript().check(make);
    let refused = check_sent_on(make, &outcome.messages());
    // What was received fits the field that it came with.
    assert!(refused == 0 || (1..8).contains(&strip), "{refused} cannot be sent on: {format:?}");
});
