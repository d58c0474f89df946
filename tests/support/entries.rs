//! Streams as an engine of a backplane keeps and sends them.

use std::collections::HashMap;

use tidegate::layer::resp::{Value, Version};

/// The entries of a stream: their numbers and what was added.
pub(crate) type Entries = Vec<(u64, Vec<u8>)>;

/// Keys of streams, and behind which entry each is read.
pub(crate) type Places = Vec<(Vec<u8>, u64)>;

fn entry(id: u64, payload: &[u8]) -> Vec<u8> {
    let fields = Value::Array(vec![Value::Bulk(b"m"), Value::Bulk(payload)]);
    let id = format!("{id}-0");
    Value::Array(vec![Value::Bulk(id.as_bytes()), fields]).encode(Version::Resp3)
}

/// What XREVRANGE answers: the last entries, the newest first.
pub(crate) fn newest(entries: &[(u64, Vec<u8>)], count: usize) -> Vec<u8> {
    let head = format!("*{}\r\n", count.min(entries.len())).into_bytes();
    let last = entries.iter().rev().take(count);
    head.into_iter().chain(last.flat_map(|(id, payload)| entry(*id, payload))).collect()
}

/// What XREAD answers, if there is anything: of each stream so many entries.
pub(crate) fn behind(
    streams: &HashMap<Vec<u8>, Entries>,
    places: &[(Vec<u8>, u64)],
    count: usize,
) -> Option<Vec<u8>> {
    let (mut answer, mut keys) = (Vec::new(), 0);
    for (key, from) in places {
        let all = streams.get(key).map_or(&[][..], Vec::as_slice);
        let new: Vec<_> = all.iter().filter(|(id, _)| id > from).take(count).collect();
        if new.is_empty() {
            continue;
        }
        keys += 1;
        answer.extend(Value::Bulk(key).encode(Version::Resp3));
        answer.extend(format!("*{}\r\n", new.len()).bytes());
        answer.extend(new.iter().flat_map(|(id, payload)| entry(*id, payload)));
    }
    (keys > 0).then(|| [format!("%{keys}\r\n").as_bytes(), &answer].concat())
}

/// The places that XREAD names behind STREAMS: keys, and as many numbers of entries.
pub(crate) fn places(words: &[&[u8]]) -> Places {
    let (keys, ids) = words.split_at(words.len() / 2);
    let number = |id: &[u8]| {
        let text = std::str::from_utf8(id).unwrap();
        text.strip_suffix("-0").unwrap().parse().unwrap()
    };
    keys.iter().zip(ids).map(|(key, id)| (key.to_vec(), number(id))).collect()
}
