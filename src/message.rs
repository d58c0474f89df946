//! Messages to send and publish: bytes, with a kind where the wire format distinguishes kinds.

use crate::layer::MessageKind;

/// A message with a kind (text or binary), where bytes alone are not enough.
///
/// Any bytes (`&str`, `String`, `&[u8]`, `Vec<u8>`, arrays) can be sent and published too; an
/// option of the layer then decides the kind.
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
    pub(crate) bytes: B,
    pub(crate) kind: MessageKind,
}

impl<B: AsRef<[u8]>> Message<B> {
    /// A message of the given kind.
    pub fn new(kind: MessageKind, bytes: B) -> Self {
        Message { bytes, kind }
    }

    /// Text, where the wire format distinguishes it from binary. The bytes must be UTF-8; a layer
    /// that checks them reports
    /// [`LayerErrorKind::Unencodable`](crate::layer::LayerErrorKind::Unencodable) otherwise.
    pub fn text(bytes: B) -> Self {
        Message::new(MessageKind::Text, bytes)
    }

    /// Binary, where the wire format distinguishes it from text.
    pub fn binary(bytes: B) -> Self {
        Message::new(MessageKind::Binary, bytes)
    }
}

/// What can be sent and published: bytes, or a [`Message`].
pub trait IntoMessage {
    /// The type that holds the bytes.
    type Bytes: AsRef<[u8]>;

    /// Converts it into a message. Plain bytes get [`MessageKind::Default`].
    fn into_message(self) -> Message<Self::Bytes>;
}

impl<T: AsRef<[u8]>> IntoMessage for T {
    type Bytes = T;

    fn into_message(self) -> Message<T> {
        Message::new(MessageKind::Default, self)
    }
}

impl<B: AsRef<[u8]>> IntoMessage for Message<B> {
    type Bytes = B;

    fn into_message(self) -> Message<B> {
        self
    }
}

impl From<Vec<u8>> for Message<Vec<u8>> {
    fn from(bytes: Vec<u8>) -> Self {
        Message::new(MessageKind::Default, bytes)
    }
}

impl From<&[u8]> for Message<Vec<u8>> {
    fn from(bytes: &[u8]) -> Self {
        Message::from(bytes.to_vec())
    }
}

impl From<&str> for Message<Vec<u8>> {
    fn from(text: &str) -> Self {
        Message::from(text.as_bytes())
    }
}

impl From<String> for Message<Vec<u8>> {
    fn from(text: String) -> Self {
        Message::from(text.into_bytes())
    }
}
