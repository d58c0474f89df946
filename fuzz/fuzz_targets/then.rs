#![no_main]
//! Options: how many layers, then for each which one and its limit; how they are nested.

use libfuzzer_sys::fuzz_target;
use tidegate::layer::{Delimited, FixedSize, Layer, LengthPrefixed, Lines};
use tidegate_fuzz::Options;

fn layer(which: usize, limit: usize) -> Box<dyn Layer> {
    match which {
        0 => Box::new(Lines::new().line_limit(limit)),
        1 => Box::new(Lines::new().line_limit(limit).crlf().refuse_unterminated()),
        2 => Box::new(LengthPrefixed::new(1).frame_limit(limit)),
        3 => Box::new(LengthPrefixed::varint().frame_limit(limit)),
        4 => Box::new(Delimited::new(b";").message_limit(limit)),
        5 => Box::new(Delimited::new(b"aab").message_limit(limit)),
        _ => Box::new(FixedSize::new(limit + 1)),
    }
}

/// The same layers, nested to the left or to the right: it must make no difference.
fn stack(layers: &[(usize, usize)], left: bool) -> Box<dyn Layer> {
    let mut made = layers.iter().map(|&(which, limit)| layer(which, limit));
    let join = |outer: Box<dyn Layer>, inner| -> Box<dyn Layer> { Box::new(outer.then(inner)) };
    if left {
        made.reduce(join)
    } else {
        let last = made.next_back();
        made.rfold(last, |inner, outer| inner.map(|inner| join(outer, inner)))
    }
    .expect("there is at least one layer")
}

fuzz_target!(|input: &[u8]| {
    let mut options = Options::new(input);
    let layers: Vec<(usize, usize)> =
        (0..1 + options.below(4)).map(|_| (options.below(7), options.below(32))).collect();
    let transcript = options.transcript();
    let outcome = transcript.check(|| stack(&layers, true));
    assert_eq!(transcript.check(|| stack(&layers, false)), outcome);
});
