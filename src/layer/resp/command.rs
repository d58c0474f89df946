//! A command: its words.

use std::fmt;
use std::ops::Range;

/// One command that a [server](super::Resp::server) received: its words, where they lie in the message.
///
/// ```
/// use tidegate::layer::resp::{Command, Value, Version};
/// use tidegate::{Context, Handler, HandlerResult, Input};
///
/// struct Session;
///
/// impl Handler for Session {
///     fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
///         let command = Command::new(input.take_all(), input.fields());
///         let reply = match (command.uppercase_name(&mut [0; 16]), command.word(1)) {
///             (b"PING", None) => Value::Simple(b"PONG"),
///             (b"ECHO", Some(text)) => Value::Bulk(text),
///             _ => Value::Error(b"ERR unknown command"),
///         };
///         cx.send(reply.encode(Version::Resp2));
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Command<'a> {
    message: &'a [u8],
    words: &'a [Range<usize>],
}

impl<'a> Command<'a> {
    /// The command of this message, whose words are at these ranges:
    /// `Command::new(input.take_all(), input.fields())`.
    pub fn new(message: &'a [u8], fields: &'a [Range<usize>]) -> Self {
        Command { message, words: fields }
    }

    /// How many words it has, its name included: never 0 in a message of the layer.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// A word; the name is word 0.
    pub fn word(&self, at: usize) -> Option<&'a [u8]> {
        self.message.get(self.words.get(at)?.clone())
    }

    /// All words, the name first.
    pub fn words(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let message = self.message;
        self.words.iter().map(move |word| message.get(word.clone()).unwrap_or_default())
    }

    /// The name, as it came: Redis takes upper and lower case for the same.
    pub fn name(&self) -> &'a [u8] {
        self.word(0).unwrap_or_default()
    }

    /// The name in upper case, in a buffer of the caller that is as long as the longest name that it
    /// knows; a longer one comes back empty.
    pub fn uppercase_name<'b>(&self, buffer: &'b mut [u8]) -> &'b [u8] {
        let name = self.name();
        let Some(upper) = buffer.get_mut(..name.len()) else { return &[] };
        upper.copy_from_slice(name);
        upper.make_ascii_uppercase();
        upper
    }

    /// The wire form of a command, for a [client](super::Resp::client) to send: an array of bulk
    /// strings.
    ///
    /// ```
    /// # use tidegate::layer::resp::Command;
    /// assert_eq!(Command::encode(&["GET", "tide"]), b"*2\r\n$3\r\nGET\r\n$4\r\ntide\r\n");
    /// ```
    pub fn encode(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
        let mut wire = Vec::new();
        Command::encode_into(words, &mut wire);
        wire
    }

    /// The same behind what is in `wire`: several commands can be sent at once.
    pub fn encode_into(words: &[impl AsRef<[u8]>], wire: &mut Vec<u8>) {
        Command::write(words, wire, |_| {});
    }

    pub(super) fn write(
        words: &[impl AsRef<[u8]>],
        wire: &mut Vec<u8>,
        mut field: impl FnMut(Range<usize>),
    ) {
        wire.reserve(16 + words.iter().map(|word| word.as_ref().len() + 16).sum::<usize>());
        number(wire, b'*', words.len() as i64);
        for word in words {
            let word = word.as_ref();
            number(wire, b'$', word.len() as i64);
            field(wire.len()..wire.len() + word.len());
            wire.extend_from_slice(word);
            wire.extend_from_slice(b"\r\n");
        }
    }
}

/// A type with a number behind it, as a line.
pub(super) fn number(wire: &mut Vec<u8>, kind: u8, number: i64) {
    // The formatting of the standard library costs several times as much for the small ones.
    let mut text = [0; 1 + 20 + 2];
    let (mut at, mut left) = (text.len() - 2, number.unsigned_abs());
    text[at..].copy_from_slice(b"\r\n");
    loop {
        at -= 1;
        text[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        text[at] = b'-';
    }
    at -= 1;
    text[at] = kind;
    wire.extend_from_slice(&text[at..]);
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.words().map(String::from_utf8_lossy)).finish()
    }
}
