//! The compression rate, counted.

/// How much a compressing layer saved on one connection, each direction by itself.
///
/// On a connection with a `Deflate` or `Lz4` layer `cx.layer_info::<CompressionRate>()` returns it
/// ([`Context::layer_info`](crate::Context::layer_info)).
///
/// The **compression rate** is compressed size / original size, as the field's textbooks define
/// it: **less is better**, 0.25 means a quarter of the bytes, and above 1 the wire carried more
/// than the application said (the headers of messages that do not shrink).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompressionRate {
    sent: CompressionVolume,
    received: CompressionVolume,
}

impl CompressionRate {
    /// What this side encoded. Counted when it is encoded, not when it has left.
    pub fn sent(&self) -> CompressionVolume {
        self.sent
    }

    /// What the peer sent and this side decoded without an error.
    pub fn received(&self) -> CompressionVolume {
        self.received
    }

    pub(in crate::layer) fn count_sent(&mut self, original: usize, wire: usize, stored: bool) {
        self.sent.count(original, wire, stored);
    }

    pub(in crate::layer) fn count_received(&mut self, original: usize, wire: usize, stored: bool) {
        self.received.count(original, wire, stored);
    }
}

/// The messages of one direction: what they were, and what they were on the wire.
///
/// The counts begin with the connection, all messages are in them (those sent as they are too),
/// and they wrap after 2^64.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompressionVolume {
    messages: u64,
    stored: u64,
    original: u64,
    wire: u64,
}

impl CompressionVolume {
    /// How many messages.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// How many of them went as they are, since they were short or would not have shrunk.
    pub fn stored(&self) -> u64 {
        self.stored
    }

    /// Bytes as the application knows them: the sum of the messages' lengths.
    pub fn original_bytes(&self) -> u64 {
        self.original
    }

    /// Bytes as the layer below knows them: bodies **and** this layer's frame headers. What lies
    /// below (TLS, TCP) adds its own, which are not in here.
    pub fn wire_bytes(&self) -> u64 {
        self.wire
    }

    /// `wire_bytes / original_bytes`; `None` while there was not one original byte.
    pub fn rate(&self) -> Option<f64> {
        (self.original > 0).then(|| self.wire as f64 / self.original as f64)
    }

    fn count(&mut self, original: usize, wire: usize, stored: bool) {
        self.messages = self.messages.wrapping_add(1);
        self.stored = self.stored.wrapping_add(u64::from(stored));
        self.original = self.original.wrapping_add(original as u64);
        self.wire = self.wire.wrapping_add(wire as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_wire_over_original_and_less_is_better() {
        let mut rate = CompressionRate::default();
        assert_eq!(rate.sent().rate(), None);
        rate.count_sent(0, 1, true);
        assert_eq!(rate.sent().rate(), None, "no original byte, no rate");
        rate.count_sent(100, 24, false);
        assert_eq!(rate.sent().rate(), Some(0.25));
        assert_eq!((rate.sent().messages(), rate.sent().stored()), (2, 1));
        assert_eq!(rate.received(), CompressionVolume::default(), "directions apart");
    }
}
