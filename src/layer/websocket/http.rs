//! The little of HTTP/1.1 that an opening handshake needs (RFC 9112, RFC 6455 section 4): where a
//! head ends, a request that was read, a response to send.

use std::borrow::Cow;
use std::fmt;

use crate::layer::LayerError;

use super::NAME;

/// Header fields in a head, at most: what Apache allows by default, and four times what a browser
/// sends. They are parsed into an array of this size on the stack.
pub(super) const MAX_FIELDS: usize = 100;

/// So much of what came instead of HTTP is quoted in the error, in bytes.
pub(super) const QUOTED_BEGINNING: usize = 40;

/// Finds the end of a head that arrives in pieces. Each byte is looked at once, however small the
/// pieces are: parsing from the start at each read costs the square of the head's length
/// (RUSTSEC-2023-0065).
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// Bytes of the head that need no second look.
    seen: usize,
    /// The first line that is not empty has begun. Empty ones may come before it (RFC 9112 section
    /// 2.2).
    begun: bool,
    /// Its end was reported.
    first_line: bool,
}

/// How far a head has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// More of it is needed.
    Part,
    /// Its first line is whole, and ends there. Reported once, before the rest is scanned.
    FirstLine(usize),
    /// It is whole, and is so long, its empty line included.
    Whole(usize),
}

/// Why a head is refused before it is parsed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadFault {
    /// No end within the limit.
    TooLong,
    /// A byte that no HTTP head holds in that place.
    NotHttp(u8),
}

impl HeadScan {
    /// Looks at what has come since the last call; `wire` begins with the head. A bare LF ends a
    /// line too (RFC 9112 section 2.2 allows it, and `httparse` takes it).
    pub(super) fn find(&mut self, wire: &[u8], limit: usize) -> Result<Scanned, HeadFault> {
        let within = &wire[..wire.len().min(limit)];
        while let Some(&byte) = within.get(self.seen) {
            if byte == b'\n' {
                if !self.begun {
                    self.seen += 1;
                    continue;
                }
                if !std::mem::replace(&mut self.first_line, true) {
                    return Ok(Scanned::FirstLine(self.seen + 1));
                }
                match within[self.seen + 1..] {
                    [b'\n', ..] => return Ok(Scanned::Whole(self.seen + 2)),
                    [b'\r', b'\n', ..] => return Ok(Scanned::Whole(self.seen + 3)),
                    [] | [b'\r'] => break,
                    _ => {}
                }
            } else if byte != b'\r' {
                let first = !std::mem::replace(&mut self.begun, true);
                if is_bad(byte) || first && !is_token(byte.into()) {
                    return Err(HeadFault::NotHttp(byte));
                }
            }
            self.seen += 1;
        }
        if wire.len() > limit { Err(HeadFault::TooLong) } else { Ok(Scanned::Part) }
    }
}

/// A control character that no head holds.
fn is_bad(byte: u8) -> bool {
    byte.is_ascii_control() && byte != b'\t'
}

/// A stretch of the head.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    /// Where `part` lies in `whole`, of which it is a slice.
    fn of(part: &[u8], whole: &[u8]) -> Span {
        let start = part.as_ptr() as usize - whole.as_ptr() as usize;
        Span { start, end: start + part.len() }
    }
}

/// The request that a server's layer received. `cx.layer_info::<HttpRequest>()` returns it
/// ([`Context::layer_info`](crate::Context::layer_info)), and the hooks of
/// [`WebSocketServer`](super::WebSocketServer) get it.
///
/// It keeps the head as it came (16 KiB at most, unless the limit was raised), in two allocations.
#[derive(Clone)]
pub struct HttpRequest {
    head: Box<[u8]>,
    method: Span,
    target: Target,
    minor_version: u8,
    fields: Box<[(Span, Span)]>,
}

impl HttpRequest {
    /// Refuses a first line that is no request's: a peer that speaks another protocol may never send
    /// the empty line that ends a head, and be waited for in vain. Empty lines before it are passed
    /// over.
    pub(super) fn check_first_line(line: &[u8]) -> Result<(), LayerError> {
        match httparse::Request::new(&mut []).parse(line) {
            Ok(_) => Ok(()),
            Err(_) => {
                let came = line[..line.len().min(QUOTED_BEGINNING)].escape_ascii();
                Err(LayerError::malformed(
                    NAME,
                    format!("expected an HTTP/1.1 request, got a line \"{came}\""),
                ))
            }
        }
    }

    /// Parses a whole head.
    pub(super) fn parse(head: &[u8]) -> Result<HttpRequest, LayerError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => {
                return Err(LayerError::malformed(NAME, "expected a request line, got none"));
            }
            Err(fault) => return Err(head_error(fault)),
        }
        let (Some(method), Some(target), Some(minor_version)) =
            (request.method, request.path, request.version)
        else {
            return Err(LayerError::malformed(NAME, "the request line is not whole"));
        };
        let Some(parts) = Target::parse(target, method == "CONNECT") else {
            let target = target.as_bytes().escape_ascii();
            return Err(LayerError::malformed(
                NAME,
                format!("expected a request target (RFC 9112 section 3.2), got \"{target}\""),
            ));
        };
        Ok(HttpRequest {
            method: Span::of(method.as_bytes(), head),
            target: parts.within(Span::of(target.as_bytes(), head).start),
            minor_version,
            fields: request
                .headers
                .iter()
                .map(|field| (Span::of(field.name.as_bytes(), head), Span::of(field.value, head)))
                .collect(),
            head: head.into(),
        })
    }

    /// The method, as it came: `GET`.
    pub fn method(&self) -> &str {
        self.str(self.method)
    }

    /// The request target, as it came: `/chat?room=7`. Nothing in it is decoded.
    pub fn target(&self) -> &str {
        self.str(self.target.whole)
    }

    /// The path of the target: what is before its `?`, without scheme and authority if it came in
    /// absolute form (RFC 9112 section 3.2.2), where a path that is left out is `/`. It is `*` for an
    /// `OPTIONS` that asks about the server, and empty for a `CONNECT`, whose target is an authority.
    /// Percent signs are not decoded.
    pub fn path(&self) -> &str {
        match self.str(self.target.path) {
            "" if self.method() != "CONNECT" => "/",
            path => path,
        }
    }

    /// What comes behind the target's `?`, if there is one.
    pub fn query(&self) -> Option<&str> {
        self.target.query.map(|query| self.str(query))
    }

    /// The host that the request is for, with its port if it has one: the authority of the target if
    /// that has one, else the `Host` field (RFC 9112 section 3.2.2: where both are, the target's
    /// counts).
    pub fn host(&self) -> Option<&str> {
        match self.target.authority {
            Some(authority) => Some(self.str(authority)),
            None => self.header("Host").map(str::trim),
        }
    }

    /// The first field of this name whose value is text. Names compare without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .find_map(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All fields, in the order they came. A value may hold bytes that are not UTF-8.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields
            .iter()
            .map(|&(name, value)| (self.str(name), &self.head[value.start..value.end]))
    }

    /// Whether the request is of HTTP/1.1, and not of HTTP/1.0.
    pub(super) fn is_http_11(&self) -> bool {
        self.minor_version == 1
    }

    pub(super) fn fields_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The elements of a comma-separated field, over all fields of this name.
    pub(super) fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields_named(name)
            .filter_map(|value| std::str::from_utf8(value).ok())
            .flat_map(elements)
    }

    fn str(&self, span: Span) -> &str {
        // `httparse` has let nothing else through.
        std::str::from_utf8(&self.head[span.start..span.end]).unwrap_or_default()
    }
}

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No field values: cookies and credentials do not belong into a log.
        f.debug_struct("HttpRequest")
            .field("method", &self.method())
            .field("target", &self.target())
            .field("fields", &self.fields.len())
            .finish()
    }
}

/// The elements of a comma-separated list, without the spaces around them and without empty ones
/// (RFC 9110 section 5.6.1).
pub(super) fn elements(list: &str) -> impl Iterator<Item = &str> {
    split_unquoted(list, ',').filter(|element| !element.is_empty())
}

/// The parts between separators, without the spaces around them. A separator inside of a quoted
/// string (RFC 9110 section 5.6.4) separates nothing.
pub(super) fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(move |c| {
        match c {
            _ if std::mem::take(&mut escaped) => {}
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return c == separator && !quoted,
        }
        false
    });
    parts.map(str::trim)
}

/// What a request is for (RFC 9112 section 3.2), as stretches of the head.
#[derive(Debug, Clone, Copy)]
struct Target {
    whole: Span,
    authority: Option<Span>,
    /// Empty where an absolute form has none.
    path: Span,
    query: Option<Span>,
}

impl Target {
    /// The parts of a target, which is in authority form for `CONNECT` and in one of the other forms
    /// else; `None` if it is in none of them.
    fn parse(target: &str, connect: bool) -> Option<Target> {
        let end = target.len();
        let whole = Span { start: 0, end };
        if target.contains('#') {
            return None; // a fragment is never sent (RFC 9110 section 7.1)
        }
        if connect {
            let is_authority = !target.is_empty() && !target.contains(['/', '?', '@']);
            let path = Span { start: end, end };
            return is_authority.then_some(Target {
                whole,
                authority: Some(whole),
                path,
                query: None,
            });
        }
        let (authority, path) = if target.starts_with('/') || target == "*" {
            (None, 0)
        } else {
            let (scheme, _) = target.split_once("://")?;
            let in_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
            if !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                || !scheme.chars().all(in_scheme)
            {
                return None;
            }
            let start = scheme.len() + "://".len();
            let path = target[start..].find(['/', '?']).map_or(end, |at| start + at);
            // User information is not for the server (RFC 9110 section 4.2.4).
            let start = target[start..path].rfind('@').map_or(start, |at| start + at + 1);
            if start == path {
                return None;
            }
            (Some(Span { start, end: path }), path)
        };
        let query = target[path..].find('?').map(|at| path + at);
        Some(Target {
            whole,
            authority,
            path: Span { start: path, end: query.unwrap_or(end) },
            query: query.map(|at| Span { start: at + 1, end }),
        })
    }

    /// The same parts of a target that begins at `start`.
    fn within(self, start: usize) -> Target {
        let moved = |span: Span| Span { start: start + span.start, end: start + span.end };
        Target {
            whole: moved(self.whole),
            authority: self.authority.map(moved),
            path: moved(self.path),
            query: self.query.map(moved),
        }
    }
}

/// What `httparse` complained of, in this crate's terms.
pub(super) fn head_error(fault: httparse::Error) -> LayerError {
    if fault == httparse::Error::TooManyHeaders {
        return LayerError::too_large(
            NAME,
            format!("the HTTP head has more than {MAX_FIELDS} fields"),
        );
    }
    LayerError::malformed(NAME, format!("expected an HTTP/1.1 head, got one with an {fault}"))
}

/// The response to a request that is no WebSocket upgrade, or to one that a filter refuses.
///
/// The connection ends behind it: `Connection: close` and the `Content-Length` are written by the
/// layer, and a response to `HEAD` leaves without its body. There is no `Date`: a layer has no
/// wall clock, and a server without one must not send that field (RFC 9110 section 6.6.1).
/// [`with_header`](HttpResponse::with_header) adds one.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    status: u16,
    fields: Vec<(String, String)>,
    body: Cow<'static, [u8]>,
}

impl HttpResponse {
    /// An empty response. A status outside of 200 to 599 is sent as 500: an interim one would
    /// leave the peer waiting.
    pub fn new(status: u16) -> Self {
        let status = if (200..600).contains(&status) { status } else { 500 };
        HttpResponse { status, fields: Vec::new(), body: Cow::Borrowed(&[]) }
    }

    /// A line or a page of plain text, in UTF-8.
    pub fn text(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status).with_body("text/plain; charset=utf-8", bytes(text.into()))
    }

    /// A page, in UTF-8, with status 200. One that is part of the program
    /// (`include_str!("page.html")`) is never copied but onto the wire.
    pub fn html(page: impl Into<Cow<'static, str>>) -> Self {
        Self::new(200).with_body("text/html; charset=utf-8", bytes(page.into()))
    }

    /// The same response with this body. The type is the `Content-Type`: `"image/png"`.
    #[must_use]
    pub fn with_body(mut self, media_type: &str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        self.body = body.into();
        self.with_header("Content-Type", media_type)
    }

    /// The same response with one more field. `Connection`, `Content-Length` and
    /// `Transfer-Encoding` are the layer's own, and left out. Line ends and other control
    /// characters become spaces, in a name everything that is no token is left out: what a peer
    /// sent cannot add fields of its own.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        let name: String = name.chars().filter(|&c| is_token(c)).collect();
        let own = ["connection", "content-length", "transfer-encoding"];
        if !name.is_empty() && !own.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            let value = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            self.fields.push((name, value));
        }
        self
    }

    /// The status, in 200 to 599.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Appends the response; `head_only` for a request by `HEAD` (RFC 9110 section 9.3.2).
    pub(super) fn write(&self, head_only: bool, wire: &mut Vec<u8>) {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let bodiless = matches!(self.status, 204 | 304);
        if !bodiless {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        // `Upgrade` is between the two ends of one connection: RFC 9110 section 7.8.
        let upgrade = self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        let connection = if upgrade { "close, upgrade" } else { "close" };
        head.push_str(&format!("Connection: {connection}\r\n\r\n"));
        wire.extend_from_slice(head.as_bytes());
        if !bodiless && !head_only {
            wire.extend_from_slice(&self.body);
        }
    }
}

/// A character of a field name, a method, a subprotocol (RFC 9110 section 5.6.2).
pub(super) fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

fn bytes(text: Cow<'static, str>) -> Cow<'static, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// The phrase behind a status; empty where we have none, which RFC 9112 section 4 allows.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "",
    }
}
