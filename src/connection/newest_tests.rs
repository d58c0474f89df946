//! The line of values against a naive model.

use super::*;

#[allow(unreachable_pub, dead_code, clippy::duplicate_mod)] // tests elsewhere use the same file
#[path = "../../tests/support/xorshift.rs"]
mod xorshift;
use xorshift::Xorshift;

/// The values in line, as pairs.
#[derive(Default)]
struct Model {
    line: Vec<(u64, MessageKind, Vec<u8>)>,
    replaced: u64,
    dropped: u64,
}

impl Model {
    fn cost(&self) -> usize {
        self.line.iter().map(|(_, _, bytes)| bytes.len() + PLACE).sum()
    }

    fn put(&mut self, key: u64, kind: MessageKind, bytes: &[u8], room: usize) -> Put {
        let cost = self.cost();
        match self.line.iter_mut().find(|value| value.0 == key) {
            Some(value) => {
                let after = cost - value.2.len() + bytes.len();
                if after > cost && after > room {
                    return Put::Full;
                }
                (value.1, value.2) = (kind, bytes.to_vec());
                self.replaced += 1;
                Put::Replaced
            }
            None if cost + bytes.len() + PLACE > room => Put::Full,
            None => {
                self.line.push((key, kind, bytes.to_vec()));
                Put::New
            }
        }
    }
}

// row 171
#[test]
fn random_operations_agree_with_a_naive_model() {
    const KINDS: [MessageKind; 3] = [MessageKind::Default, MessageKind::Text, MessageKind::Binary];
    for seed in 0..200 {
        let mut random = Xorshift::new(seed);
        let keys = [1, 5, 300][random.below(3)];
        let (mut newest, mut model) = (Newest::default(), Model::default());
        for step in 0..2_000_u32 {
            match random.below(100) {
                0..60 => {
                    let key = (random.below(keys) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    let kind = KINDS[random.below(3)];
                    let mut bytes = step.to_be_bytes().to_vec();
                    bytes.resize(random.below(40), b'v');
                    let room = [usize::MAX, 4_000, 0][random.below(3)];
                    let expected = model.put(key, kind, &bytes, room);
                    assert_eq!(newest.put(key, None, kind, &bytes, room), expected);
                }
                60..99 => {
                    for _ in 0..random.below(keys / 2 + 2) {
                        let taken = newest.take().map(|v| (v.key, v.kind, v.bytes));
                        let expected = (!model.line.is_empty()).then(|| model.line.remove(0));
                        assert_eq!(taken, expected);
                    }
                }
                _ => {
                    model.dropped += model.line.len() as u64;
                    assert_eq!(newest.discard(), model.line.len());
                    model.line.clear();
                }
            }
            assert_eq!(newest.is_empty(), model.line.is_empty());
            assert_eq!(newest.cost(), model.cost());
            let stats = newest.stats();
            assert_eq!(stats.waiting, model.line.len());
            assert_eq!(stats.waiting_bytes + stats.waiting * PLACE, model.cost());
            assert_eq!((stats.replaced, stats.dropped), (model.replaced, model.dropped));
            assert_eq!(newest.places.len(), newest.line.len());
        }
    }
}

#[test]
fn a_replaced_value_gives_back_what_its_predecessor_was_longer() {
    let mut newest = Newest::default();
    assert_eq!(newest.put(7, None, MessageKind::Default, &[1; 100_000], usize::MAX), Put::New);
    assert_eq!(newest.put(7, None, MessageKind::Default, b"short", usize::MAX), Put::Replaced);
    let value = newest.take().unwrap();
    assert!(value.bytes.capacity() < 200 && value.bytes == b"short");
}

#[test]
fn an_empty_line_gives_its_memory_back() {
    let mut newest = Newest::default();
    for key in 0..10_000 {
        newest.put(key, None, MessageKind::Default, b"value", usize::MAX);
    }
    while newest.take().is_some() {}
    assert!(newest.line.capacity() <= KEPT_PLACES && newest.places.capacity() <= 2 * KEPT_PLACES);
    // The numbers of the places go on.
    newest.put(1, None, MessageKind::Default, b"a", usize::MAX);
    assert_eq!(newest.put(1, None, MessageKind::Default, b"b", usize::MAX), Put::Replaced);
    assert_eq!(newest.take().unwrap().bytes, b"b");
}
