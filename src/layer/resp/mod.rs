//! RESP2 and RESP3, the protocol of Redis: [`Resp`] is the layer, [`Command`] and [`Value`] are what
//! is in a message.
//!
//! Through the crate [`redis-protocol`](https://docs.rs/redis-protocol), behind a guard. That codec
//! decodes what is whole, and nothing else is given to it. By itself (6.0.0, measured) it begins
//! anew whenever more has come, so that an array of 32,768 strings in pieces of 1 KiB takes 0.5 s
//! and one of twice the length four times as long; it recurses without a limit, so that 400 KB of
//! `*1\r\n` overflow the stack; and it does not look at the line end of a bulk string. So this layer
//! finds the end of a message, with limits, in one pass over its types and lengths; it never looks
//! into the bytes of a bulk string. A command needs no codec at all: the layer names its words
//! ([`Input::fields`](crate::Input::fields)).
//!
//! The parser of the crate `redis` resumes and has a limit on depth, but copies every string and
//! takes no commands.

mod command;
mod inline;
mod scan;
mod value;

use std::borrow::Cow;

pub use command::Command;
pub use value::{Value, Version};

use scan::{Limits, Scan};

use super::{Item, Layer, LayerContext, LayerError, LayerErrorKind, MessageKind, Step, WireClass};

const NAME: &str = "resp";

/// The default limit on a message.
const MAX_MESSAGE: usize = 1024 * 1024;

/// The default limit on the words of a command.
const MAX_WORDS: usize = 1024;

/// The default limit on the elements of what a server sends.
const MAX_ELEMENTS: usize = 64 * 1024;

/// The default limit on the depth of what a server sends.
const MAX_DEPTH: usize = 16;

/// No more depth than this, whatever the options say: values are trees, and walks over them recurse.
const DEEPEST: usize = 128;

/// RESP2 and RESP3, the protocol of [Redis](https://redis.io/docs/latest/develop/reference/protocol-spec/)
/// and its kin.
///
/// One message is one whole value in its wire form, types and lengths included, in both directions.
/// [`Command`] and [`Value`] read it without a copy, and write it. The layer of a server takes
/// commands, that of a client takes any value.
///
/// **Commands** are arrays of bulk strings. As Redis does, a server also takes a line of words (an
/// *inline command*: `PING`, for people with `nc`), with quotes and escapes; the handler gets it in
/// the form of an array, so that it never notices. Empty lines and empty arrays are skipped. A line
/// that begins with `POST` or `Host:` is refused: it is a browser that somebody has pointed here.
///
/// **Fields.** [`Input::fields`](crate::Input::fields) are the words of a command. Of what a server
/// sends they are the elements of the outermost array, push, set or map (keys and values in turn), or
/// the one scalar. An element that is itself an aggregate is there with all its bytes, as is the null
/// of RESP2 (`$-1\r\n`); a scalar without its type, length and line end. A value with attributes
/// (`|`) has no fields.
///
/// **Limits** on what is received, each [`LayerErrorKind::TooLarge`] as soon as it is announced:
///
/// | | default | reason |
/// |---|---|---|
/// | [`message_limit`](Self::message_limit) | 1 MiB, with types and lengths | far above a message that is meant to be quick, little enough for a thousand peers; as [`LengthPrefixed`](super::LengthPrefixed) |
/// | [`element_limit`](Self::element_limit), server | 1,024 words | `MSET` of 500 pairs; their places take 16 KiB |
/// | [`element_limit`](Self::element_limit), client | 65,536, at all depths together | a page of a long list; as [`Value`]s they take up to 10 MiB |
/// | [`depth_limit`](Self::depth_limit), client | 16 | the deepest reply of Redis 7 has 9 (hiredis refuses more than 9) |
/// | an inline command | 64 KiB | that of Redis |
///
/// Memory follows what has come, never what is announced. Every byte is looked at once, however the
/// stream is cut, and those of a bulk string not at all.
///
/// **Sending.** The message is one whole value or several, as [`Command::encode`] and
/// [`Value::encode`] write them. Any other bytes are refused ([`LayerErrorKind::Unencodable`]): the
/// peer would take all that follows for something else. What is sent is not held to the limits. A
/// large one is not copied.
///
/// **Errors.** A server that closes for an error says so first: `-ERR Protocol error: …`. Streamed
/// strings and aggregates of RESP3 (`$?`, `*?`), which no Redis sends, are not taken.
///
/// **End of stream** inside of a message is [`LayerErrorKind::Truncated`].
///
/// ```
/// use tidegate::layer::resp::{Command, Resp, Value, Version};
/// use tidegate::layer::testkit::{Driver, Pair};
/// use tidegate::layer::MessageKind;
///
/// let mut server = Driver::new(Resp::server());
/// server.feed(b"*2\r\n$3\r\nGET\r\n$4\r\nti");
/// server.feed(b"de\r\nGET 'high tide'\r\n");
/// let units = server.take_units();
/// let words = |at: usize| Command::new(&units[at].bytes, &units[at].fields);
/// assert!(words(0).words().eq([b"GET", &b"tide"[..]]));
/// assert!(words(1).words().eq([b"GET", &b"high tide"[..]]));
///
/// server.send(&Value::Bulk(b"in").encode(Version::Resp2), MessageKind::Default)?;
/// let mut client = Driver::new(Resp::client());
/// client.feed(&server.take_wire());
/// assert_eq!(Value::parse(&client.take_messages()[0])?, Value::Bulk(b"in"));
/// # Ok::<(), tidegate::layer::LayerError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Resp {
    limits: Limits,
    scan: Scan,
    /// No line feed in so many bytes of the inline command that arrives.
    searched: usize,
}

impl Resp {
    /// The server's side: takes commands.
    pub fn server() -> Self {
        let (bytes, elements) = (MAX_MESSAGE, MAX_WORDS);
        Resp::new(Limits { bytes, elements, depth: 1, commands: true })
    }

    /// The client's side: takes replies and pushes, any value of RESP2 and RESP3.
    pub fn client() -> Self {
        let (bytes, elements, depth) = (MAX_MESSAGE, MAX_ELEMENTS, MAX_DEPTH);
        Resp::new(Limits { bytes, elements, depth, commands: false })
    }

    fn new(limits: Limits) -> Self {
        Resp { limits, scan: Scan::default(), searched: 0 }
    }

    /// Refuses a received message of more than `bytes`, types and lengths included. 1 MiB by default.
    ///
    /// Bytes of an unfinished message stay unread with the connection: give
    /// [`StreamOptions::unread_limit`](crate::StreamOptions::unread_limit) as much
    /// ([`messages_up_to`](crate::StreamOptions::messages_up_to)).
    #[must_use]
    pub fn message_limit(mut self, bytes: usize) -> Self {
        self.limits.bytes = bytes;
        self
    }

    /// Refuses a received message with more elements than this, in all its aggregates together (a
    /// map has two for each pair). 1,024 for a server, 65,536 for a client.
    #[must_use]
    pub fn element_limit(mut self, elements: usize) -> Self {
        self.limits.elements = elements;
        self
    }

    /// Refuses a received value with more aggregates within each other than this. 16 by default, 128
    /// at most; a command has 1, whatever is set here.
    #[must_use]
    pub fn depth_limit(mut self, depth: usize) -> Self {
        if !self.limits.commands {
            self.limits.depth = depth.min(DEEPEST);
        }
        self
    }

    /// The next unit, without what is said about an error to the peer.
    fn step(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &[u8],
        unit: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        if self.limits.commands && wire.first().is_some_and(|&byte| byte != b'*') {
            return self.inline(cx, wire, unit);
        }
        // What a scan of a part has named is gone when the rest comes. So one that was resumed is
        // done again: twice over the types and lengths, once in a message's life.
        let resumed = self.scan.is_resumed();
        if self.limits.commands && !resumed {
            if let Some(len) = scan::command(wire, &self.limits, |field| cx.field(field)) {
                return Ok(Step::new(len, Item::Slice(0..len)));
            }
            cx.clear_fields();
        }
        let named = !resumed && wire.first() != Some(&b'|');
        let found = if named {
            self.scan.run(wire, &self.limits, |field| cx.field(field))?
        } else {
            self.scan.run(wire, &self.limits, |_| {})?
        };
        let Some(whole) = found else {
            cx.clear_fields();
            return Ok(Step::new(0, Item::Nothing));
        };
        if resumed && wire.first() != Some(&b'|') {
            self.scan.run(wire, &self.limits, |field| cx.field(field))?;
        }
        if self.limits.commands && whole.elements == 0 {
            return Ok(Step::new(whole.len, Item::Progress));
        }
        Ok(Step::new(whole.len, Item::Slice(0..whole.len)))
    }

    fn inline(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &[u8],
        unit: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let max = self.limits.bytes.min(inline::MAX_LINE);
        let searched = if self.searched <= wire.len() { self.searched } else { 0 };
        let Some(line) = inline::line(wire, searched, max)? else {
            self.searched = wire.len();
            return Ok(Step::new(0, Item::Nothing));
        };
        self.searched = 0;
        let words = inline::words(&wire[..line.len], self.limits.elements)?;
        if words.is_empty() {
            return Ok(Step::new(line.consumed, Item::Progress));
        }
        Command::write(&words, unit, |field| cx.field(field));
        Ok(Step::new(line.consumed, Item::Unit))
    }
}

impl Layer for Resp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn decode(
        &mut self,
        cx: &mut LayerContext<'_>,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<Step, LayerError> {
        let step = self.step(cx, wire, unit);
        if let (Err(error), true) = (&step, self.limits.commands) {
            cx.clear_fields();
            let what = format!("ERR Protocol error: {error}");
            Value::Error(what.as_bytes()).encode_into(Version::Resp2, reply);
        }
        step
    }

    fn encode(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        wire: &mut Vec<u8>,
    ) -> Result<(), LayerError> {
        check_whole(message)?;
        wire.extend_from_slice(message);
        Ok(())
    }

    fn encode_head(
        &mut self,
        _: &mut LayerContext<'_>,
        message: &[u8],
        _: MessageKind,
        _: &mut Vec<u8>,
    ) -> Result<bool, LayerError> {
        check_whole(message).map(|()| true)
    }

    fn wire_class(&self) -> Option<WireClass> {
        Some(WireClass::of::<Resp>())
    }

    fn wire_ended(&mut self, _: &mut LayerContext<'_>, left: usize) -> Result<(), LayerError> {
        if left > 0 {
            return Err(LayerError::truncated(
                NAME,
                format!("the stream ended {left} bytes into a message"),
            ));
        }
        Ok(())
    }
}

/// Values of any size: what this side sends is its own business.
const UNLIMITED: Limits =
    Limits { bytes: usize::MAX, elements: usize::MAX, depth: DEEPEST, commands: false };

fn check_whole(message: &[u8]) -> Result<(), LayerError> {
    let unencodable =
        |what: Cow<'static, str>| LayerError::new(NAME, LayerErrorKind::Unencodable, what);
    if scan::is_plain(message) {
        return Ok(());
    }
    let (mut scan, mut rest) = (Scan::default(), message);
    loop {
        match scan.run(rest, &UNLIMITED, |_| {}) {
            Ok(Some(whole)) if whole.len == rest.len() => return Ok(()),
            Ok(Some(whole)) => rest = &rest[whole.len..],
            Ok(None) => {
                return Err(unencodable(
                    format!(
                        "expected a whole value of RESP, {} bytes end inside of one: \
                         `Command::encode` and `Value::encode` write whole ones",
                        message.len()
                    )
                    .into(),
                ));
            }
            Err(error) => {
                return Err(unencodable(
                    "expected a whole value of RESP, as `Command::encode` and `Value::encode` write it".into(),
                )
                .with_source(error));
            }
        }
    }
}

fn too_large(what: impl Into<Cow<'static, str>>) -> LayerError {
    LayerError::too_large(NAME, what)
}

#[cfg(test)]
mod tests;
