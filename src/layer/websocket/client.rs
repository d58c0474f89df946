//! The client's half of the opening handshake (RFC 6455 section 4.1).

use data_encoding::BASE64;

use crate::layer::{LayerContext, LayerError, LayerErrorKind};

use super::config::ClientSettings;
use super::http::{HeadFault, MAX_FIELDS, QUOTED_BEGINNING, elements, head_error, is_token};
use super::server::{VERSION, accept_key};
use super::{NAME, Upgrade, extension};

/// So much of a refusal's body is quoted in the error, in bytes.
const QUOTED: usize = 200;

/// What every response begins with (RFC 9112 section 4).
const ANSWER: &[u8] = b"HTTP/1.";

/// Fields that only the handshake writes.
const OWN_FIELDS: [&str; 7] = [
    "host",
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
];

/// Appends the request. Returns the value of `Sec-WebSocket-Accept` that must come back.
pub(super) fn request(
    cx: &mut LayerContext<'_>,
    settings: &ClientSettings,
    wire: &mut Vec<u8>,
) -> Result<String, LayerError> {
    check(settings)?;
    let mut nonce = [0; 16];
    cx.random(&mut nonce);
    let key = BASE64.encode(&nonce);
    let mut head = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: {VERSION}\r\nSec-WebSocket-Key: {key}\r\n",
        settings.path, settings.host
    );
    if !settings.subprotocols.is_empty() {
        let names = settings.subprotocols.join(", ");
        head.push_str(&format!("Sec-WebSocket-Protocol: {names}\r\n"));
    }
    if settings.limits.deflate {
        head.push_str(&format!("Sec-WebSocket-Extensions: {}\r\n", extension::OFFER));
    }
    for (name, value) in &settings.fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    wire.extend_from_slice(head.as_bytes());
    Ok(accept_key(&key))
}

/// Nothing that was set may end a line of the head, and so begin another.
fn check(settings: &ClientSettings) -> Result<(), LayerError> {
    let unencodable = |what: String| LayerError::new(NAME, LayerErrorKind::Unencodable, what);
    let visible = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if !visible(&settings.host) || settings.host.contains(['/', '?', '#', '@']) {
        let host = &settings.host;
        return Err(unencodable(format!("expected a host, or host:port, in ASCII, got {host:?}")));
    }
    // A fragment is never sent (RFC 6455 section 3).
    if !visible(&settings.path) || !settings.path.starts_with('/') || settings.path.contains('#') {
        let path = &settings.path;
        return Err(unencodable(format!(
            "expected a path that begins with a slash, without a fragment, got {path:?}"
        )));
    }
    for name in &settings.subprotocols {
        if name.is_empty() || !name.chars().all(is_token) {
            return Err(unencodable(format!("expected a subprotocol's name, got {name:?}")));
        }
    }
    for (name, value) in &settings.fields {
        let own = OWN_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own));
        if own || name.is_empty() || !name.chars().all(is_token) {
            return Err(unencodable(format!("a field of the name {name:?} cannot be added")));
        }
        if value.chars().any(|c| c.is_control() && c != '\t') {
            return Err(unencodable(format!("the field {name} has a control character in it")));
        }
    }
    Ok(())
}

/// Refuses what is no response at its first wrong byte: a server that speaks another protocol may
/// never send the empty line that ends a head, and be waited for in vain.
pub(super) fn check_beginning(wire: &[u8]) -> Result<(), LayerError> {
    if wire.iter().zip(ANSWER).all(|(came, expected)| came == expected) {
        return Ok(());
    }
    // A TLS alert (RFC 8446 section 6): 21, a version 3.x.
    if let [21, 3, ..] = wire {
        return Err(LayerError::malformed(
            NAME,
            "expected an HTTP response, got what looks like TLS: is the address ws:// and the port \
             a secured one?",
        ));
    }
    let came = wire[..wire.len().min(QUOTED_BEGINNING)].escape_ascii();
    Err(LayerError::malformed(NAME, format!("expected an HTTP response, got \"{came}\"")))
}

/// The result of a server's response.
pub(super) enum Answer {
    /// An interim one (100, 102, 103): the final one follows (RFC 9110 section 15.2).
    Interim,
    Open(Upgrade),
}

/// Reads a server's response, its head whole; `behind` is what came after it.
pub(super) fn accept(
    settings: &ClientSettings,
    expected: &str,
    head: &[u8],
    behind: &[u8],
) -> Result<Answer, LayerError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => {
            return Err(LayerError::malformed(NAME, "expected a status line, got none"));
        }
        Err(fault) => return Err(head_error(fault)),
    }
    let fields = &*response.headers;
    let values = |name: &'static str| {
        let named = fields.iter().filter(move |f| f.name.eq_ignore_ascii_case(name));
        // Bytes that are no text are nothing that was offered or expected.
        named.map(|f| std::str::from_utf8(f.value).unwrap_or("\u{fffd}").trim())
    };
    // A field may come in several lines, which are one list (RFC 9110 section 5.3).
    let list = |name: &'static str| values(name).flat_map(elements);
    match response.code.unwrap_or_default() {
        101 => {}
        100..=199 => return Ok(Answer::Interim),
        status => return Err(refused(status, values("Location").next(), behind)),
    }
    let says = |name, token: &str| list(name).any(|t| t.eq_ignore_ascii_case(token));
    if !says("Upgrade", "websocket") || !says("Connection", "upgrade") {
        return Err(LayerError::malformed(
            NAME,
            "the server responded 101, but its Upgrade and Connection fields say nothing of a \
             websocket",
        ));
    }
    // A server that does not know WebSocket, or a cache, cannot have worked this out.
    let accepts: Vec<&str> = values("Sec-WebSocket-Accept").collect();
    if accepts != [expected] {
        return Err(LayerError::malformed(
            NAME,
            format!("expected Sec-WebSocket-Accept: {expected}, got {accepts:?}"),
        ));
    }
    let mut deflate = None;
    if list("Sec-WebSocket-Extensions").next().is_some() {
        let chosen = list("Sec-WebSocket-Extensions");
        deflate = extension::accepted(chosen).filter(|_| settings.limits.deflate);
        if deflate.is_none() {
            let chosen: Vec<&str> = list("Sec-WebSocket-Extensions").collect();
            return Err(LayerError::malformed(
                NAME,
                format!("the server chose the extensions {chosen:?}, which were not offered"),
            ));
        }
    }
    let mut chosen = list("Sec-WebSocket-Protocol");
    let subprotocol = chosen.next();
    if let Some(chosen) = subprotocol.filter(|one| !settings.subprotocols.iter().any(|o| o == one))
    {
        return Err(LayerError::malformed(
            NAME,
            format!("the server chose the subprotocol {chosen:?}, which was not offered"),
        ));
    }
    if let Some(second) = chosen.next() {
        return Err(LayerError::malformed(
            NAME,
            format!("the server chose a second subprotocol, {second:?}"),
        ));
    }
    Ok(Answer::Open(Upgrade { subprotocol: subprotocol.map(Box::from), deflate }))
}

/// A head that is refused before it is parsed.
pub(super) fn refuse_unparsed(fault: &HeadFault, limit: usize) -> LayerError {
    match fault {
        HeadFault::TooLong => LayerError::too_large(
            NAME,
            format!("the server's response has no end within {limit} bytes (header_limit)"),
        ),
        HeadFault::NotHttp(byte) => LayerError::malformed(
            NAME,
            format!(
                "expected an HTTP response, got a byte {byte:#04x}, which no HTTP head holds there"
            ),
        ),
    }
}

fn refused(status: u16, location: Option<&str>, body: &[u8]) -> LayerError {
    let mut what = format!("expected status 101, got {status}");
    if let Some(location) = location {
        what.push_str(&format!(", which points to {location:?} (redirects are not followed)"));
    }
    let body = String::from_utf8_lossy(&body[..body.len().min(QUOTED)]);
    if !body.trim().is_empty() {
        what.push_str(&format!(": {:?}", body.trim()));
    }
    LayerError::new(NAME, LayerErrorKind::RefusedByPeer, what)
}
