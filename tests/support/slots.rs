//! Where the slots of a cluster lie.

/// The slot of a channel or key, without a table.
pub(crate) fn slot_of(channel: &[u8]) -> u16 {
    let mut braced = channel.split(|&byte| byte == b'{' || byte == b'}');
    let tag = if channel.contains(&b'{') { braced.nth(1).unwrap() } else { channel };
    let mut crc = 0_u16;
    for &byte in tag {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    crc % 16384
}
