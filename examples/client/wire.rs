//! What the bytes look like on the wire.

use std::error::Error;

use tidegate::layer::tls::TlsClientConfig;
use tidegate::layer::websocket::{WebSocket, WebSocketClient};
use tidegate::layer::{Layer, MessageKind};

use crate::Pieces;
use crate::support::{Arguments, trust};

/// What was asked for on the command line.
pub(crate) struct Options {
    tls: Option<TlsClientConfig>,
    websocket: Option<String>,
    binary: bool,
    deflate: bool,
}

impl Options {
    pub(crate) fn from(arguments: &mut Arguments) -> Result<Options, Box<dyn Error>> {
        Ok(Options {
            tls: trust::from_arguments(arguments)?,
            websocket: arguments.option("--ws")?,
            binary: arguments.flag("--binary"),
            deflate: arguments.flag("--deflate"),
        })
    }

    /// How standard input is cut.
    pub(crate) fn pieces(&self) -> Pieces {
        if self.websocket.is_some() && !self.binary { Pieces::Lines } else { Pieces::Bytes }
    }

    /// The layers for a connection to `address`; none for plain TCP.
    pub(crate) fn layer(&self, address: &str) -> Result<Option<Box<dyn Layer>>, Box<dyn Error>> {
        let websocket = self.websocket.as_ref().map(|path| self.websocket(address, path));
        let Some(tls) = &self.tls else {
            return Ok(websocket.map(|client| Box::new(client.layer()) as Box<dyn Layer>));
        };
        let tls = tls.layer(trust::host(address))?;
        Ok(Some(match websocket {
            Some(client) => Box::new(tls.then(client.layer())),
            None => Box::new(tls),
        }))
    }

    fn websocket(&self, address: &str, path: &str) -> WebSocketClient {
        let kind = if self.binary { MessageKind::Binary } else { MessageKind::Text };
        WebSocket::client(address, path).default_kind(kind).deflate(self.deflate)
    }
}
