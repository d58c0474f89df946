//! The slots of a Redis Cluster, and what its nodes say about them.
//!
//! A key or a channel lies in one of 16,384 slots, and a slot on one node and its replicas
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>).

use crate::layer::resp::Value;

/// How many there are.
pub(super) const SLOTS: u16 = 16384;

/// Of CRC-16/XMODEM, for one byte.
const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// What decides about the slot: what stands in the first braces, if anything does, or all.
fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let inside = &key[open + 1..];
    match inside.iter().position(|&byte| byte == b'}') {
        Some(length) if length > 0 => &inside[..length],
        _ => key,
    }
}

/// Where a key or a channel lies.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let step = |crc: u16, &byte: &u8| crc << 8 ^ TABLE[usize::from(crc >> 8 ^ u16::from(byte))];
    tag(key).iter().fold(0, step) % SLOTS
}

/// Whether all keys that begin so lie in one slot.
pub(super) fn has_tag(beginning: &[u8]) -> bool {
    tag(beginning).len() < beginning.len()
}

/// Where a node can be reached. The cluster says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    /// `HOST:PORT`, as it stands behind a MOVED. Without a host it is that of the node that said so.
    fn parse(text: &str, said_by: &str) -> Option<Endpoint> {
        let (host, port) = text.rsplit_once(':')?;
        let host = if host.is_empty() || host == "?" { said_by } else { host };
        let port = port.parse().ok().filter(|&port| port > 0)?;
        Some(Endpoint { host: host.to_owned(), port })
    }
}

/// `MOVED SLOT HOST:PORT`: the node of a slot is another one.
pub(super) fn moved(why: &str, said_by: &str) -> Option<(u16, Endpoint)> {
    let mut words = why.strip_prefix("MOVED ")?.split(' ');
    let slot = words.next()?.parse().ok().filter(|&slot| slot < SLOTS)?;
    Some((slot, Endpoint::parse(words.next()?, said_by)?))
}

/// The answer to CLUSTER SLOTS: first and last slot, and the master that has them. `None` if it is none.
pub(super) fn slot_map(value: &Value<'_>, said_by: &str) -> Option<Vec<(u16, u16, Endpoint)>> {
    let range = |value: &Value<'_>| {
        let [Value::Integer(first), Value::Integer(last), master, ..] = value.as_array()? else {
            return None;
        };
        let [host, Value::Integer(port), ..] = master.as_array()? else { return None };
        let host = host.as_bytes().map(|host| String::from_utf8_lossy(host)).unwrap_or_default();
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        let master = Endpoint::parse(&format!("{host}:{port}"), said_by)?;
        (first <= last && last < SLOTS).then_some((first, last, master))
    };
    value.as_array()?.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_that_of_the_tag_if_there_is_one() {
        // As `CLUSTER KEYSLOT` of Redis 7.0.15 says.
        for (key, slot) in [
            ("123456789", 0x31c3),
            ("", 0),
            ("foo", 12182),
            ("bar", 5061),
            ("{foo}bar", 12182),
            ("a{foo}{bar}", 12182),
            ("{}foo", 9500),
            ("{{foo}}", 13308),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        assert!(has_tag(b"chat/{room}/") && has_tag(b"{}{a}") == has_tag(b"{}"));
        assert!(!has_tag(b"chat/") && !has_tag(b"chat/{room") && !has_tag(b"{}"));
    }

    #[test]
    fn a_node_says_where_a_slot_is() {
        let at = |host: &str, port| Endpoint { host: host.into(), port };
        let moved = |why| moved(why, "here");
        assert_eq!(moved("MOVED 3999 127.0.0.1:6381"), Some((3999, at("127.0.0.1", 6381))));
        assert_eq!(moved("MOVED 1 ::1:6381"), Some((1, at("::1", 6381))));
        assert_eq!(moved("MOVED 1 :6381"), Some((1, at("here", 6381))));
        assert_eq!(moved("MOVED 1 ?:6381"), Some((1, at("here", 6381))));
        for none in [
            "ERR no",
            "MOVED",
            "MOVED 1",
            "MOVED x h:1",
            "MOVED 16384 h:1",
            "MOVED 1 h:0",
            "MOVED 1 h",
        ] {
            assert_eq!(moved(none), None, "{none}");
        }
    }

    #[test]
    fn a_slot_map_has_ranges_and_masters() {
        let of = |text: &[u8]| slot_map(&Value::parse(text).unwrap(), "here");
        let map = b"*2\r\n*4\r\n:0\r\n:9\r\n*4\r\n$2\r\nh1\r\n:7000\r\n$2\r\nid\r\n*0\r\n*2\r\n$1\r\nr\r\n:1\r\n\
                    *3\r\n:10\r\n:16383\r\n*2\r\n_\r\n:7001\r\n";
        let at = |host: &str, port| Endpoint { host: host.into(), port };
        assert_eq!(of(map).unwrap(), [(0, 9, at("h1", 7000)), (10, 16383, at("here", 7001))]);
        for none in
            [&b":1\r\n"[..], b"*1\r\n:1\r\n", b"*1\r\n*3\r\n:9\r\n:1\r\n*2\r\n_\r\n:7001\r\n"]
        {
            assert_eq!(of(none), None);
        }
    }
}
