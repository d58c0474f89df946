//! The server's half of the opening handshake (RFC 6455 section 4.2).

use data_encoding::BASE64;
use sha1_smol::Sha1;

use crate::layer::{LayerError, LayerErrorKind};

use super::config::{Origins, ServerSettings};
use super::http::{HeadFault, HttpRequest, HttpResponse};
use super::{NAME, Upgrade, extension};

/// The one version there is (RFC 6455; those before it were drafts).
pub(super) const VERSION: &str = "13";

/// What a key is answered with (RFC 6455 section 1.3). SHA-1 hides nothing here: it shows that the other
/// side knows the protocol.
pub(super) fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64.encode(&hash.digest().bytes())
}

/// The result of a request that was understood.
#[derive(Debug)]
pub(super) enum Answered {
    /// The socket is open.
    Open(Upgrade),
    /// It was no upgrade, and has its response.
    Served,
}

/// Parses a head that is whole, and appends the response.
pub(super) fn answer(
    settings: &ServerSettings,
    head: &[u8],
    reply: &mut Vec<u8>,
) -> Result<(HttpRequest, Result<Answered, LayerError>), LayerError> {
    let request = HttpRequest::parse(head).inspect_err(|fault| refuse_head(fault, reply))?;
    let answered = open(settings, &request).map(|(answer, answered)| {
        match answer {
            Words::Switch(head) => reply.extend_from_slice(head.as_bytes()),
            Words::Http(response) => response.write(request.method() == "HEAD", reply),
        }
        answered
    });
    let answered = answered.map_err(|refusal| {
        refusal.response.write(request.method() == "HEAD", reply);
        refusal.error
    });
    Ok((request, answered))
}

/// Appends the response to a first line that is no request's.
pub(super) fn check_first_line(line: &[u8], reply: &mut Vec<u8>) -> Result<(), LayerError> {
    HttpRequest::check_first_line(line).inspect_err(|fault| refuse_head(fault, reply))
}

/// Appends the response to a head that is refused before it is parsed.
pub(super) fn refuse_unparsed(fault: &HeadFault, limit: usize, reply: &mut Vec<u8>) -> LayerError {
    let error = match fault {
        HeadFault::TooLong => LayerError::too_large(
            NAME,
            format!("the HTTP head has no end within {limit} bytes (header_limit)"),
        ),
        // The first byte of every TLS record with a handshake in it (RFC 8446 section 5.1).
        HeadFault::NotHttp(0x16) => LayerError::malformed(
            NAME,
            "expected an HTTP request, got what looks like TLS: is the address wss:// and the \
             port a plain one?",
        ),
        HeadFault::NotHttp(byte) => LayerError::malformed(
            NAME,
            format!(
                "expected an HTTP request, got a byte {byte:#04x}, which no HTTP head holds there"
            ),
        ),
    };
    refuse_head(&error, reply);
    error
}

fn refuse_head(fault: &LayerError, reply: &mut Vec<u8>) {
    let response = if fault.kind() == LayerErrorKind::TooLarge {
        HttpResponse::text(431, "The request's head is too large.\n")
    } else {
        HttpResponse::text(400, "This is not an HTTP/1.1 request.\n")
    };
    response.write(false, reply);
}

enum Words {
    Switch(String),
    Http(HttpResponse),
}

struct Refusal {
    response: HttpResponse,
    error: LayerError,
}

impl Refusal {
    fn malformed(what: &'static str) -> Refusal {
        Refusal {
            response: HttpResponse::text(400, format!("{what}.\n")),
            error: LayerError::malformed(NAME, what),
        }
    }

    fn refused(response: HttpResponse, what: String) -> Refusal {
        Refusal { response, error: LayerError::new(NAME, LayerErrorKind::Refused, what) }
    }
}

fn open(settings: &ServerSettings, request: &HttpRequest) -> Result<(Words, Answered), Refusal> {
    if request.is_http_11() && request.fields_named("Host").count() != 1 {
        return Err(Refusal::malformed("expected one Host field, got none or several"));
    }
    if !wants_upgrade(request) {
        let response = match &settings.answer {
            Some(answer) => answer(request),
            None => upgrade_required("This is a WebSocket endpoint.\n"),
        };
        return Ok((Words::Http(response), Answered::Served));
    }
    let key = checked_key(request)?;
    check_origin(&settings.origins, request)?;
    if let Some(filter) = &settings.filter {
        filter(request).map_err(|response| {
            let what = format!(
                "the filter returned {} to an upgrade of {:?}",
                response.status(),
                request.target()
            );
            Refusal::refused(response, what)
        })?;
    }
    let subprotocol = request
        .list("Sec-WebSocket-Protocol")
        .find(|offered| settings.subprotocols.iter().any(|known| known == offered))
        .map(Box::from);
    let offers = request.list("Sec-WebSocket-Extensions");
    let (deflate, field) =
        settings.limits.deflate.then(|| extension::choose(offers)).flatten().unzip();
    let head = switching(key, subprotocol.as_deref(), field.as_deref());
    Ok((Words::Switch(head), Answered::Open(Upgrade { subprotocol, deflate })))
}

/// Both fields must say so: a proxy that does not know WebSocket takes one of them away.
fn wants_upgrade(request: &HttpRequest) -> bool {
    let has = |name, token: &str| request.list(name).any(|t| t.eq_ignore_ascii_case(token));
    request.is_http_11() && has("Upgrade", "websocket") && has("Connection", "upgrade")
}

/// The client's key, of a request that keeps the rules of RFC 6455 section 4.2.1.
fn checked_key(request: &HttpRequest) -> Result<&str, Refusal> {
    if request.method() != "GET" {
        return Err(Refusal::malformed("expected an upgrade by GET, got another method"));
    }
    let body = request.fields_named("Content-Length").any(|length| length.trim_ascii() != b"0");
    if body || request.fields_named("Transfer-Encoding").next().is_some() {
        // Its bytes would be read as frames.
        return Err(Refusal::malformed("expected an upgrade without a body, got one with"));
    }
    // Only a response lists several; a request names one.
    let versions: Vec<&str> = request.list("Sec-WebSocket-Version").collect();
    if versions != [VERSION] {
        let what = format!("expected Sec-WebSocket-Version: {VERSION}, got {versions:?}");
        let response = upgrade_required("This endpoint speaks version 13 (RFC 6455).\n");
        return Err(Refusal::refused(response, what));
    }
    let mut keys = request.fields_named("Sec-WebSocket-Key");
    match (keys.next().and_then(|key| std::str::from_utf8(key).ok()), keys.next()) {
        (Some(key), None) if is_key(key) => Ok(key),
        _ => Err(Refusal::malformed("expected one Sec-WebSocket-Key of 16 bytes in base64")),
    }
}

/// 16 bytes in base64 are 22 digits and two signs for padding (RFC 4648 section 4).
fn is_key(key: &str) -> bool {
    let digit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    key.len() == 24 && key.ends_with("==") && key.bytes().take(22).all(digit)
}

fn check_origin(origins: &Origins, request: &HttpRequest) -> Result<(), Refusal> {
    let Some(origin) = request.fields_named("Origin").next() else { return Ok(()) };
    let origin = String::from_utf8_lossy(origin);
    let allowed = match origins {
        Origins::Any => true,
        Origins::These(these) => these.iter().any(|one| one.eq_ignore_ascii_case(&origin)),
        Origins::Same => {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.zip(request.host()).is_some_and(|(a, h)| a.eq_ignore_ascii_case(h))
        }
    };
    // Two of them: one could be checked and the other be the page's.
    if allowed && request.fields_named("Origin").count() == 1 {
        return Ok(());
    }
    Err(Refusal::refused(
        HttpResponse::text(403, "This page's origin may not open a socket here.\n"),
        format!("the origin {origin:?} is not allowed (allow_origins, allow_any_origin)"),
    ))
}

fn upgrade_required(text: &'static str) -> HttpResponse {
    HttpResponse::text(426, text)
        .with_header("Upgrade", "websocket")
        .with_header("Sec-WebSocket-Version", VERSION)
}

fn switching(key: &str, subprotocol: Option<&str>, extensions: Option<&str>) -> String {
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        accept_key(key)
    );
    if let Some(subprotocol) = subprotocol {
        head.push_str(&format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"));
    }
    if let Some(extensions) = extensions {
        head.push_str(&format!("Sec-WebSocket-Extensions: {extensions}\r\n"));
    }
    head.push_str("\r\n");
    head
}
