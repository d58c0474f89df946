//! Decodes whatever comes, cut wherever the input says. Holds the caps, and that the cuts do not
//! matter.
//!
//! The first byte is how many of the pieces' lengths follow; the rest is the wire.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::layer::{Deflate, Item, Layer, LayerErrorKind};

/// Small, so that the fuzzer finds its way over it.
const CAP: usize = 512;

fuzz_target!(|data: &[u8]| {
    let Some((&pieces, rest)) = data.split_first() else { return };
    let (cuts, wire) = rest.split_at(rest.len().min(usize::from(pieces & 15)));
    let whole = decode(wire, &[]);
    let cut = decode(wire, cuts);
    assert_eq!(whole, cut, "how the bytes arrived must not matter");
});

/// The messages, and how it ended.
fn decode(wire: &[u8], cuts: &[u8]) -> (Vec<Vec<u8>>, Option<LayerErrorKind>) {
    let mut layer = Deflate::new().max_message(CAP);
    let (mut unit, mut reply, mut messages) = (Vec::new(), Vec::new(), Vec::new());
    let mut cuts = cuts.iter();
    let (mut done, mut arrived) = (0, 0);
    while arrived < wire.len() {
        let piece = cuts.next().map_or(wire.len(), |&n| usize::from(n) + 1);
        arrived = wire.len().min(arrived + piece);
        loop {
            unit.clear();
            let step = layer.decode(&wire[done..arrived], &mut unit, &mut reply);
            assert!(reply.is_empty());
            assert!(unit.len() <= CAP && unit.capacity() <= CAP, "over the cap");
            let step = match step {
                Ok(step) => step,
                Err(e) => return (messages, Some(e.kind())),
            };
            let message = match step.item {
                Item::Nothing => break,
                Item::Slice(at) => &wire[done..][at],
                Item::Unit => &unit,
                other => panic!("compression yields no {other:?}"),
            };
            assert!(message.len() <= CAP && step.consumed > 0);
            messages.push(message.to_vec());
            done += step.consumed;
        }
    }
    (messages, layer.wire_ended(wire.len() - done).err().map(|e| e.kind()))
}
