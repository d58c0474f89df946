//! The web's way into the room: one page, and the socket that it opens.

use std::net::IpAddr;

use data_encoding::BASE64;
use tidegate::MessageKind;
use tidegate::layer::tls::Fingerprint;
use tidegate::layer::websocket::{HttpRequest, HttpResponse, WebSocket, WebSocketServer};

use crate::room::MAX_LINE;

const PAGE: &str = include_str!("page.html");

/// `GET /` gets the page, an upgrade of `/room` is a member, all else is not found.
///
/// The layer lets a browser open the socket only for a page whose `Origin` is the `Host` that the
/// request names. That alone does not stop a foreign page whose name resolves to this machine (DNS
/// rebinding): there the two agree. So the `Host` has to be an IP address,
/// `localhost` or the `name` that was given.
pub(crate) fn server(name: Option<String>) -> WebSocketServer {
    let policy = content_security_policy();
    WebSocket::server()
        .default_kind(MessageKind::Text)
        .message_limit(MAX_LINE)
        .answer(move |request| answer(request, &policy))
        .filter(move |request| match request.path() {
            "/room" if is_ours(request.host(), name.as_deref()) => Ok(()),
            "/room" => {
                Err(HttpResponse::text(403, "The chat is not known by this name (--name).\n"))
            }
            _ => Err(not_found()),
        })
}

/// Whether a request for this host may open the socket. Browsers always name one.
fn is_ours(host: Option<&str>, name: Option<&str>) -> bool {
    let Some(host) = host else { return true };
    // Without the port. The colons of an IPv6 address are in brackets.
    let host = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => host,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || name.is_some_and(|name| host.eq_ignore_ascii_case(name))
}

fn answer(request: &HttpRequest, policy: &str) -> HttpResponse {
    let response = match (request.path(), request.method()) {
        ("/", "GET" | "HEAD") => {
            HttpResponse::html(PAGE).with_header("Content-Security-Policy", policy)
        }
        ("/", _) => HttpResponse::text(405, "There is only a page to get.\n")
            .with_header("Allow", "GET, HEAD"),
        _ => not_found(),
    };
    response
        .with_header("Cache-Control", "no-store") // the next start may bring another page
        .with_header("X-Content-Type-Options", "nosniff")
        .with_header("Referrer-Policy", "no-referrer")
}

fn not_found() -> HttpResponse {
    HttpResponse::text(404, "There is no such page. The chat is at /\n")
}

/// The page's own script and style may run, known by their hashes, and its socket may be opened.
/// Nothing else may: should a line of text ever become markup, it would still do nothing.
fn content_security_policy() -> String {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash_of("script"),
        hash_of("style")
    )
}

fn hash_of(element: &str) -> String {
    let (_, rest) = PAGE.split_once(&format!("<{element}>")).unwrap_or_default();
    let (content, _) = rest.split_once(&format!("</{element}>")).unwrap_or_default();
    // A certificate's fingerprint is a SHA-256, and here is none for other things.
    let sha256 = Fingerprint::of(content.as_bytes());
    format!("sha256-{}", BASE64.encode(sha256.as_bytes()))
}
