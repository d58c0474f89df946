//! What can be set of a WebSocket layer, and the two factories that carry the settings.

use std::fmt;
use std::sync::Arc;

use crate::layer::MessageKind;

use super::WebSocket;
use super::http::{HttpRequest, HttpResponse};

/// One message may be so long by default: 1 MiB, as in Python's `websockets`.
const MAX_MESSAGE: usize = 1 << 20;

/// An HTTP head may be so long by default: 16 KiB, twice what common servers take for one line.
const HEADER_LIMIT: usize = 16 << 10;

/// Messages from here on are compressed: a shorter one leaves in one packet either way.
const DEFLATE_FROM: usize = 1024;

/// What both sides share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) message: usize,
    pub(super) frame: usize,
    pub(super) head: usize,
    pub(super) default_text: bool,
    pub(super) deflate: bool,
    /// Shorter messages are not compressed.
    pub(super) deflate_from: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            message: MAX_MESSAGE,
            frame: usize::MAX,
            head: HEADER_LIMIT,
            default_text: false,
            deflate: false,
            deflate_from: DEFLATE_FROM,
        }
    }
}

/// Which origins may open a socket from a browser.
#[derive(Debug, Clone)]
pub(super) enum Origins {
    /// That of the `Host` the request was sent to.
    Same,
    /// These, and no other.
    These(Vec<String>),
    /// All.
    Any,
}

pub(super) type Answer = dyn Fn(&HttpRequest) -> HttpResponse + Send + Sync;
pub(super) type Filter = dyn Fn(&HttpRequest) -> Result<(), HttpResponse> + Send + Sync;

#[derive(Clone)]
pub(super) struct ServerSettings {
    pub(super) limits: Limits,
    pub(super) origins: Origins,
    pub(super) subprotocols: Vec<String>,
    pub(super) answer: Option<Arc<Answer>>,
    pub(super) filter: Option<Arc<Filter>>,
    pub(super) keep_request: bool,
}

impl fmt::Debug for ServerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSettings")
            .field("limits", &self.limits)
            .field("origins", &self.origins)
            .field("subprotocols", &self.subprotocols)
            .field("answer", &self.answer.is_some())
            .field("filter", &self.filter.is_some())
            .field("keep_request", &self.keep_request)
            .finish()
    }
}

/// The server side: settings, shared by the layers that [`layer`](WebSocketServer::layer) makes
/// of them, one for each connection. Cloning it copies a pointer.
///
/// | setting | default | why |
/// |---|---|---|
/// | [`message_limit`](Self::message_limit) | 1 MiB | what one connection can make this side keep |
/// | [`frame_limit`](Self::frame_limit) | as `message_limit` | |
/// | [`header_limit`](Self::header_limit) | 16 KiB, and 100 fields | a head is kept until it is whole |
/// | [`default_kind`](Self::default_kind) | binary | it can carry every message |
/// | [`deflate`](Self::deflate) | off | memory, see there |
/// | [`deflate_threshold`](Self::deflate_threshold) | 1 KiB | less leaves in one packet either way |
/// | origins | the page's own host | a browser sends its cookies along with a socket that any page opens |
/// | [`answer`](Self::answer) | 426 and a line of text | |
/// | [`keep_request`](Self::keep_request) | off | a browser's head and the table of its fields take 1 KiB |
#[derive(Debug, Clone)]
pub struct WebSocketServer {
    settings: Arc<ServerSettings>,
}

impl WebSocketServer {
    pub(super) fn new() -> Self {
        WebSocketServer {
            settings: Arc::new(ServerSettings {
                limits: Limits::default(),
                origins: Origins::Same,
                subprotocols: Vec::new(),
                answer: None,
                filter: None,
                keep_request: false,
            }),
        }
    }

    /// The layer for one connection.
    pub fn layer(&self) -> WebSocket {
        WebSocket::for_server(Arc::clone(&self.settings))
    }

    /// The limit on a message that arrives in bytes, its fragments taken together (and decompressed).
    /// A longer one closes the connection with code 1009. Default 1 MiB.
    #[must_use]
    pub fn message_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.limits.message = bytes)
    }

    /// The limit on one frame that arrives in bytes, as announced in its header; a longer one closes
    /// the connection with code 1009 before any of it is kept. Default: the limit on a message.
    #[must_use]
    pub fn frame_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.limits.frame = bytes)
    }

    /// The limit on the request's head in bytes; a longer one gets the response 431. Default 16 KiB.
    #[must_use]
    pub fn header_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.limits.head = bytes)
    }

    /// What [`MessageKind::Default`] is sent as. With text, a message that is not UTF-8 is refused.
    #[must_use]
    pub fn default_kind(self, kind: MessageKind) -> Self {
        self.with(|settings| settings.limits.default_text = kind == MessageKind::Text)
    }

    /// Compresses messages (`permessage-deflate`, RFC 7692) if the peer offers it, as browsers do.
    /// Short ones ([`deflate_threshold`](Self::deflate_threshold)) and those that would grow leave as they are. Off by default: it
    /// costs up to 360 KiB for each connection that uses both directions, and time; and it
    /// lets an attacker who can put text of its own into a message guess secrets in it from the length
    /// (CRIME), under TLS too. [`message_limit`](Self::message_limit) counts what comes out of it.
    /// A message to a group is compressed once for all its members with one threshold.
    #[must_use]
    pub fn deflate(self, on: bool) -> Self {
        self.with(|settings| settings.limits.deflate = on)
    }

    /// Messages shorter than this many bytes are sent as they are. Default 1 KiB, as in Node's `ws`: up
    /// to there a message leaves in one packet, compressed or not, so that compressing it costs tens of
    /// microseconds and arrives no earlier. Where every byte is paid for, 64 is a good value; below
    /// 32, the flush behind each message makes it longer. The peer need not know.
    #[must_use]
    pub fn deflate_threshold(self, bytes: usize) -> Self {
        self.with(|settings| settings.limits.deflate_from = bytes)
    }

    /// Pages of these origins may open the socket (RFC 6455 section 10.2). Write each as a browser
    /// does: `https://chat.example`, `http://localhost:8080`. Letters compare without regard to
    /// case. Other origins get the response 403.
    ///
    /// Whether set or not, a request without an `Origin` passes: it comes from a program, which
    /// could write any origin. This protects users from foreign pages in their browser, not the
    /// server from its peers.
    #[must_use]
    pub fn allow_origins<I>(self, origins: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let origins = origins.into_iter().map(Into::into).collect();
        self.with(|settings| settings.origins = Origins::These(origins))
    }

    /// Every page may open the socket, with the cookies of the user who visits it. By default
    /// only pages of the host and port that the request names in its `Host` may; behind a proxy that
    /// writes another one there, [`allow_origins`](Self::allow_origins) names them.
    #[must_use]
    pub fn allow_any_origin(self) -> Self {
        self.with(|settings| settings.origins = Origins::Any)
    }

    /// Subprotocols this side speaks (RFC 6455 section 1.9). Of those that a client offers, the
    /// first that is among them is chosen; if none is, the socket opens without one, and a browser
    /// that had asked for one closes it.
    #[must_use]
    pub fn subprotocols<I>(self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let names = names.into_iter().map(Into::into).collect();
        self.with(|settings| settings.subprotocols = names)
    }

    /// Responds to requests that are no upgrade, so that one port serves a page and the socket. The
    /// hook gets the head only: a body is not read. By default the response is 426 and a line of text.
    #[must_use]
    pub fn answer<F>(self, answer: F) -> Self
    where
        F: Fn(&HttpRequest) -> HttpResponse + Send + Sync + 'static,
    {
        self.with(|settings| settings.answer = Some(Arc::new(answer)))
    }

    /// Called for each upgrade that is otherwise in order. It may refuse the upgrade with a
    /// response: 404 for a path that has no socket, 401 for a missing cookie.
    #[must_use]
    pub fn filter<F>(self, filter: F) -> Self
    where
        F: Fn(&HttpRequest) -> Result<(), HttpResponse> + Send + Sync + 'static,
    {
        self.with(|settings| settings.filter = Some(Arc::new(filter)))
    }

    /// Keeps the request's head as long as the connection lasts. By default it is given back when the
    /// socket has opened: the factory, `filter` and `on_open` can read it, and what is needed later
    /// they take out of it. A browser's head, with cookies, and the table of its fields take 1 KiB, twice what the
    /// rest of an idle connection does.
    ///
    /// Set it also for a layer that is put on an open connection
    /// ([`Net::start_layer`](crate::Net::start_layer)), which has no `on_open` to read it in: there the
    /// first callback that can read it is that of the first message.
    #[must_use]
    pub fn keep_request(self, on: bool) -> Self {
        self.with(|settings| settings.keep_request = on)
    }

    fn with(mut self, set: impl FnOnce(&mut ServerSettings)) -> Self {
        set(Arc::make_mut(&mut self.settings));
        self
    }
}

#[derive(Debug, Clone)]
pub(super) struct ClientSettings {
    pub(super) limits: Limits,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) subprotocols: Vec<String>,
}

/// The client side: settings, shared by the layers that [`layer`](WebSocketClient::layer) makes of
/// them, one for each connection (a reconnect takes a new one). Cloning it copies a pointer.
#[derive(Debug, Clone)]
pub struct WebSocketClient {
    settings: Arc<ClientSettings>,
}

impl WebSocketClient {
    pub(super) fn new(host: String, path: String) -> Self {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        WebSocketClient {
            settings: Arc::new(ClientSettings {
                limits: Limits::default(),
                host,
                path,
                fields: Vec::new(),
                subprotocols: Vec::new(),
            }),
        }
    }

    /// The layer for one connection.
    pub fn layer(&self) -> WebSocket {
        WebSocket::for_client(Arc::clone(&self.settings))
    }

    /// One more field for the request: a cookie, an `Authorization`, an `Origin`. What cannot
    /// be part of a head (a line end) is refused when the connection starts, and so are the fields
    /// of the handshake itself.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.with(|settings| settings.fields.push((name.to_owned(), value.to_owned())))
    }

    /// Subprotocols to offer, the preferred one first. The server chooses one or none of them; a
    /// response with another one is an error of the server.
    #[must_use]
    pub fn subprotocols<I>(self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let names = names.into_iter().map(Into::into).collect();
        self.with(|settings| settings.subprotocols = names)
    }

    /// As [`WebSocketServer::message_limit`]: 1 MiB by default.
    #[must_use]
    pub fn message_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.limits.message = bytes)
    }

    /// As [`WebSocketServer::frame_limit`]: as long as a message by default.
    #[must_use]
    pub fn frame_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.limits.frame = bytes)
    }

    /// The limit on the response's head in bytes, interim responses included: 16 KiB by default.
    #[must_use]
    pub fn header_limit(self, bytes: usize) -> Self {
        self.with(|settings| settings.limits.head = bytes)
    }

    /// What [`MessageKind::Default`] is sent as: binary by default.
    #[must_use]
    pub fn default_kind(self, kind: MessageKind) -> Self {
        self.with(|settings| settings.limits.default_text = kind == MessageKind::Text)
    }

    /// Offers to compress messages, as [`WebSocketServer::deflate`]: off by default.
    #[must_use]
    pub fn deflate(self, on: bool) -> Self {
        self.with(|settings| settings.limits.deflate = on)
    }

    /// As [`WebSocketServer::deflate_threshold`]: 1 KiB by default.
    #[must_use]
    pub fn deflate_threshold(self, bytes: usize) -> Self {
        self.with(|settings| settings.limits.deflate_from = bytes)
    }

    fn with(mut self, set: impl FnOnce(&mut ClientSettings)) -> Self {
        set(Arc::make_mut(&mut self.settings));
        self
    }
}
