//! Messages that are all of one size.

use super::{Item, Layer, LayerContext, LayerError, LayerErrorKind, MessageKind, Step, WireClass};

/// Every message is the same number of bytes: records of a feed, samples of a device.
///
/// The size is the limit. A stream that ends inside of a message is truncated
/// ([`LayerErrorKind::Truncated`]); a message of another size cannot be sent
/// ([`LayerErrorKind::Unencodable`]).
///
/// ```
/// use tidegate::layer::{FixedSize, testkit::Driver};
///
/// let mut samples = Driver::new(FixedSize::new(4));
/// samples.feed(b"0001000");
/// samples.feed(b"2");
/// assert_eq!(samples.take_messages(), [b"0001", b"0002"]);
/// ```
#[derive(Debug, Clone)]
pub struct FixedSize {
    size: usize,
}

impl FixedSize {
    /// Messages of `size` bytes.
    ///
    /// # Panics
    /// When `size` is 0: a stream of empty messages would have no end.
    pub fn new(size: usize) -> Self {
        assert!(size > 0, "a message has at least one byte");
        FixedSize { size }
    }
}

impl Layer for FixedSize {
    fn name(&self) -> &'static str {
        "fixed-size"
    }

    fn decode(
        &mut self,
        _: &mut LayerContext<'_>,
        wire: &mut [u8],
        _unit: &mut Vec<u8>,
        _reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        if wire.len() < self.size {
            return Ok(Step::new(0, Item::Nothing));
        }
        Ok(Step::new(self.size, Item::Slice(0..self.size)))
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        if message.len() != self.size {
            return Err(LayerError::new(
                "fixed-size",
                LayerErrorKind::Unencodable,
                format!("expected a message of {} bytes, one of {} came", self.size, message.len()),
            ));
        }
        wire.extend_from_slice(message);
        Ok(())
    }

    fn wire_class(&self) -> Option<WireClass> {
        Some(WireClass::of::<FixedSize>().with(self.size as u64))
    }

    fn wire_ended(&mut self, _: &mut LayerContext<'_>, left: usize) -> Result<(), LayerError> {
        if left > 0 {
            return Err(LayerError::truncated(
                "fixed-size",
                format!("the stream ended after {left} of the {} bytes of a message", self.size),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::LayerErrorKind;
    use super::super::testkit::{Ending, Environment, every_split};
    use super::*;

    #[test]
    fn whole_messages_come_out_however_the_stream_is_cut() {
        let outcome = every_split(|| FixedSize::new(3), b"abcdefghi", Ending::Ended);
        assert_eq!(outcome.messages(), [b"abc", b"def", b"ghi"]);
        assert_eq!(outcome.error_kind(), None);
    }

    #[test]
    fn a_rest_at_the_end_is_truncated() {
        let outcome = every_split(|| FixedSize::new(4), b"abcdefg", Ending::Ended);
        assert_eq!(outcome.messages(), [b"abcd"]);
        assert_eq!(outcome.error_kind(), Some(LayerErrorKind::Truncated));
    }

    #[test]
    fn only_its_size_can_be_sent() {
        let mut layer = FixedSize::new(2);
        let mut wire = Vec::new();
        for wrong in [&b""[..], b"a", b"abc"] {
            let error = layer
                .encode(&mut Environment::new().cx(), wrong, MessageKind::Default, &mut wire)
                .unwrap_err();
            assert_eq!(error.kind(), LayerErrorKind::Unencodable);
        }
        layer.encode(&mut Environment::new().cx(), b"ab", MessageKind::Default, &mut wire).unwrap();
        assert_eq!(wire, b"ab");
    }

    #[test]
    #[should_panic(expected = "at least one byte")]
    fn a_size_of_nothing_is_a_mistake() {
        let _ = FixedSize::new(0);
    }
}
