//! What is published: bytes, with a kind where the wire format tells kinds apart.

use crate::layer::Kind;

/// A message with what belongs to it, for those who want more than bytes.
///
/// Everything that is bytes (`&str`, `String`, `&[u8]`, `Vec<u8>`, arrays) is a message too, of the
/// kind that the layer's own option decides.
///
/// ```no_run
/// # use tidegate::{Group, Message, Net};
/// # fn example(net: &mut Net, group: Group) {
/// net.publish(group, "plain");
/// net.publish(group, Message::text("a text message, for WebSocket members"));
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Message<B> {
    bytes: B,
    kind: Kind,
}

impl<B: AsRef<[u8]>> Message<B> {
    /// A message of a kind.
    pub fn new(kind: Kind, bytes: B) -> Self {
        Message { bytes, kind }
    }

    /// Text, where the wire format tells it from binary. It has to be UTF-8.
    pub fn text(bytes: B) -> Self {
        Message::new(Kind::Text, bytes)
    }

    /// Binary, where the wire format tells it from text.
    pub fn binary(bytes: B) -> Self {
        Message::new(Kind::Binary, bytes)
    }
}

/// What can be published: bytes, or a [`Message`].
pub trait AsMessage {
    /// The bytes.
    fn bytes(&self) -> &[u8];

    /// Whether it is text or binary.
    fn kind(&self) -> Kind;
}

impl<T: AsRef<[u8]>> AsMessage for T {
    fn bytes(&self) -> &[u8] {
        self.as_ref()
    }

    fn kind(&self) -> Kind {
        Kind::Default
    }
}

impl<B: AsRef<[u8]>> AsMessage for Message<B> {
    fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    fn kind(&self) -> Kind {
        self.kind
    }
}
