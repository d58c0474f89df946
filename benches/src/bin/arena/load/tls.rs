//! TLS on the load's side: rustls, fed from one read buffer for all connections and flushed by hand.

use super::stream::{self, Got};
use crate::Result;
use crate::scenario::Suites;
use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

/// What one read takes from the socket. The callers' buffers have room for what it decrypts to, and for a record
/// that began in the read before.
const WIRE: usize = 128 * 1024;
const RECORD: usize = 16 * 1024;

/// Starts sessions with one server.
pub struct Sessions {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    wire: Rc<RefCell<Vec<u8>>>,
}

/// One session.
pub struct Session {
    tls: ClientConnection,
    wire: Rc<RefCell<Vec<u8>>>,
    ended: bool,
}

impl Sessions {
    /// `cert` is the certificate that the server must show. A session is resumed from one before where `resumed`.
    pub fn new(cert: &Path, resumed: bool, suites: Suites) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(cert)?)?;
        let mut provider = rustls::crypto::ring::default_provider();
        if suites == Suites::Aes128 {
            provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = match resumed {
            true => Resumption::in_memory_sessions(1),
            false => Resumption::disabled(),
        };
        let wire = Rc::new(RefCell::new(vec![0; WIRE]));
        Ok(Self { config: Arc::new(config), name: ServerName::try_from("localhost")?, wire })
    }

    pub fn start(&self) -> Result<Session> {
        let tls = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        Ok(Session { tls, wire: Rc::clone(&self.wire), ended: false })
    }
}

impl Session {
    /// The handshake, on a blocking socket.
    pub fn open(&mut self, socket: &mut std::net::TcpStream) -> Result<()> {
        while self.tls.is_handshaking() {
            self.tls.complete_io(socket)?;
        }
        Ok(())
    }

    /// Bytes through TLS on a blocking socket.
    pub fn blocking<'a>(
        &'a mut self,
        socket: &'a mut std::net::TcpStream,
    ) -> rustls::Stream<'a, ClientConnection, std::net::TcpStream> {
        rustls::Stream::new(&mut self.tls, socket)
    }

    /// As `Stream::read_or_end`.
    pub fn read(&mut self, socket: &mut TcpStream, buffer: &mut [u8]) -> Result<Option<Got>> {
        assert!(buffer.len() >= WIRE + RECORD, "what one read decrypts to fits");
        if self.ended {
            return Ok(None);
        }
        let mut wire = self.wire.borrow_mut();
        let n = match stream::read(socket, &mut wire)? {
            Some(0) => return Err("the stream ended without a close_notify".into()),
            Some(n) => n,
            None => 0,
        };
        let (mut bytes, mut rest) = (0, &wire[..n]);
        while !rest.is_empty() {
            self.tls.read_tls(&mut rest)?;
            let state = self.tls.process_new_packets()?;
            let decrypted = state.plaintext_bytes_to_read();
            self.ended |= state.peer_has_closed();
            self.tls.reader().read_exact(&mut buffer[bytes..bytes + decrypted])?;
            bytes += decrypted;
        }
        let drained = n < wire.len() && !self.ended;
        drop(wire);
        // Of a handshake.
        self.flush(socket)?;
        Ok(Some(Got { bytes, drained }))
    }

    /// As `Stream::write`.
    pub fn write(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
        let mut taken = 0;
        loop {
            self.flush(socket)?;
            if taken == bytes.len() || self.tls.wants_write() {
                return Ok(taken);
            }
            match self.tls.writer().write(&bytes[taken..])? {
                // Before the handshake's end little is taken.
                0 => return Ok(taken),
                n => taken += n,
            }
        }
    }

    pub fn flush(&mut self, socket: &mut TcpStream) -> Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether the handshake, which is done, went on from an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Says that nothing follows; true once the socket has taken that too.
    pub fn end(&mut self, socket: &mut TcpStream) -> Result<bool> {
        self.tls.send_close_notify();
        self.flush(socket)?;
        Ok(!self.tls.wants_write())
    }
}
