//! What the targets of the two compressing layers share.

use tidegate::layer::testkit::Environment;
use tidegate::layer::{Item, Layer, LayerErrorKind};

/// The cap on a message's size: small, so that the fuzzer finds its way over it.
pub const CAP: usize = 512;

/// Decodes whatever comes, cut wherever the input says. Holds the cap, and that the cuts do not
/// matter. The first byte of `data` is how many of the pieces' lengths follow; the rest is the wire.
pub fn check_codec<L: Layer>(make: impl Fn() -> L, data: &[u8]) {
    let Some((&pieces, rest)) = data.split_first() else { return };
    let (cuts, wire) = rest.split_at(rest.len().min(usize::from(pieces & 15)));
    let whole = decode(make(), wire, &[]);
    let cut = decode(make(), wire, cuts);
    assert_eq!(whole, cut, "how the bytes arrived must not matter");
}

/// The messages, and how it ended.
fn decode(
    mut layer: impl Layer,
    wire: &[u8],
    cuts: &[u8],
) -> (Vec<Vec<u8>>, Option<LayerErrorKind>) {
    let (mut unit, mut reply, mut messages) = (Vec::new(), Vec::new(), Vec::new());
    let mut environment = Environment::new();
    // A layer may change what it consumes.
    let mut wire = wire.to_vec();
    let mut cuts = cuts.iter();
    let (mut done, mut arrived) = (0, 0);
    while arrived < wire.len() {
        let piece = cuts.next().map_or(wire.len(), |&n| usize::from(n) + 1);
        arrived = wire.len().min(arrived + piece);
        loop {
            unit.clear();
            let step = layer.decode(&mut environment.cx(), &mut wire[done..arrived], &mut unit, &mut reply);
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
    (messages, layer.wire_ended(&mut environment.cx(), wire.len() - done).err().map(|e| e.kind()))
}
