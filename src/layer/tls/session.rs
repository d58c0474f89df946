//! Driving one `rustls` connection, without I/O.
//!
//! This uses `rustls`'s *unbuffered* connections. The buffered ones keep a read buffer of 4 to
//! 18 KiB for every connection, idle or not, and a queue for each direction that needs a limit;
//! the unbuffered ones keep neither: what they read lies in the caller's buffer, and everything
//! that they want to say or hand on is taken at once, here: no limit to set, nothing to run over.
//! Measured, a ready connection that has nothing to do holds 3.6 KiB so (the mean of both sides),
//! and 7.5 KiB the other way; both copy a byte equally often, and throughput is the same within
//! the noise.
//! `complete_io` is not involved (RUSTSEC-2024-0336).

use std::ops::Deref;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedConnectionCommon,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};
use rustls_pki_types::ServerName;

use super::server::asked_name;

/// Content of a full record, and more than a record adds to its content (TLS 1.2 with AES-GCM adds
/// 29 bytes, TLS 1.3 adds 22).
const CONTENT_MAX: usize = 16 * 1024;
const RECORD_OVERHEAD: usize = 32;

/// A connection of either side. Boxed: 1 KiB and more, and a connection without TLS should not
/// carry it.
pub(super) enum Session {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// `rustls` draws its keys from the system: no seed repeats this run.
fn tell_simulation() {
    #[cfg(feature = "sim")]
    crate::sys::sim::cannot_be_repeated("TLS");
}

/// What came of [`Session::take`].
pub(super) struct Driven {
    /// How many bytes at the front of the buffer are done with.
    pub(super) used: usize,
    /// The name that a ClientHello among the bytes asked for.
    pub(super) server_name: Option<Box<str>>,
    /// Whether the peer has closed.
    pub(super) outcome: Result<bool, Error>,
}

impl Session {
    pub(super) fn server(config: Arc<rustls::ServerConfig>) -> Result<Session, Error> {
        tell_simulation();
        Ok(Session::Server(Box::new(UnbufferedServerConnection::new(config)?)))
    }

    pub(super) fn client(
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Session, Error> {
        tell_simulation();
        Ok(Session::Client(Box::new(UnbufferedClientConnection::new(config, name)?)))
    }

    pub(super) fn common(&self) -> &CommonState {
        match self {
            Session::Server(conn) => conn,
            Session::Client(conn) => conn,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.common().is_handshaking()
    }

    /// Goes through `tls`, all that came and was not `used` before, until it needs more. Decrypted
    /// bytes are appended to `plain`, what is to be said to `wire`, also when it fails.
    pub(super) fn take(
        &mut self,
        tls: &mut [u8],
        plain: &mut Vec<u8>,
        wire: &mut Vec<u8>,
    ) -> Driven {
        match self {
            Session::Server(conn) => {
                let handshaking = conn.is_handshaking();
                let driven = drive(&mut ***conn, tls, plain, wire);
                let server_name = if handshaking { asked_name() } else { None };
                Driven { server_name, ..driven }
            }
            Session::Client(conn) => drive(&mut ***conn, tls, plain, wire),
        }
    }

    /// Appends the records of `message` to `wire`, or nothing. `held` is what `take` left over.
    pub(super) fn encrypt(
        &mut self,
        held: &mut [u8],
        message: &[u8],
        wire: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        match self {
            Session::Server(conn) => encrypt(&mut ***conn, held, message, wire),
            Session::Client(conn) => encrypt(&mut ***conn, held, message, wire),
        }
    }

    /// Appends what is left to say and `close_notify`. For a session that is ready: in the middle of
    /// a handshake `rustls` has no way to.
    pub(super) fn close(&mut self, held: &mut [u8], wire: &mut Vec<u8>) {
        match self {
            Session::Server(conn) => close(&mut ***conn, held, wire),
            Session::Client(conn) => close(&mut ***conn, held, wire),
        }
    }
}

/// The one method that `rustls` has for each side separately.
trait Process: Deref<Target = CommonState> {
    type Data;
    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Process for UnbufferedConnectionCommon<ServerConnectionData> {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }
}

impl Process for UnbufferedConnectionCommon<ClientConnectionData> {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }
}

fn drive<P: Process>(
    conn: &mut P,
    tls: &mut [u8],
    plain: &mut Vec<u8>,
    wire: &mut Vec<u8>,
) -> Driven {
    let mut used = 0;
    let mut outcome = Ok(false);
    loop {
        let status = conn.process(&mut tls[used..]);
        let mut discard = status.discard;
        let more = match status.state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    match record {
                        Ok(record) => {
                            discard += record.discard;
                            plain.extend_from_slice(record.payload);
                        }
                        Err(cause) => outcome = outcome.and(Err(cause)),
                    }
                }
                // All is used up, and nothing is to be said: the next answer would be that it needs more.
                used + discard < tls.len() || conn.wants_write()
            }
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, wire);
                true
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                true
            }
            Ok(ConnectionState::PeerClosed) => {
                outcome = outcome.map(|_| true);
                true
            }
            // Blocked, writable, or closed: it needs bytes that it has not seen. Early data cannot
            // come: both configurations turn it off.
            Ok(_) => false,
            Err(cause) => {
                outcome = outcome.and(Err(cause));
                false
            }
        };
        used += discard;
        // After an error only its alert is fetched: what comes next is the same error, and in some
        // cases a second alert.
        let more = if outcome.is_err() { conn.wants_write() } else { more };
        if !more {
            return Driven { used, server_name: None, outcome };
        }
    }
}

fn encrypt<P: Process>(
    conn: &mut P,
    held: &mut [u8],
    message: &[u8],
    wire: &mut Vec<u8>,
) -> Result<(), &'static str> {
    loop {
        match conn.process(held).state {
            Ok(ConnectionState::WriteTraffic(traffic)) => return append(traffic, message, wire),
            // What `rustls` has to say goes first. `take` leaves none of it today.
            Ok(ConnectionState::EncodeTlsData(data)) => encode(data, wire),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            _ => return Err("expected an open session, got bytes to send after its end"),
        }
    }
}

fn append<Data>(
    mut traffic: WriteTraffic<'_, Data>,
    message: &[u8],
    wire: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let start = wire.len();
    let records = message.len().div_ceil(CONTENT_MAX);
    let mut room = message.len() + records * RECORD_OVERHEAD;
    loop {
        wire.resize(start + room, 0);
        match traffic.encrypt(message, &mut wire[start..]) {
            Ok(written) => {
                wire.truncate(start + written);
                return Ok(());
            }
            // A key update goes before the message, now and then.
            Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size;
            }
            Err(_) => {
                wire.truncate(start);
                return Err("expected a fresh connection: the session's keys are used up");
            }
        }
    }
}

fn close<P: Process>(conn: &mut P, held: &mut [u8], wire: &mut Vec<u8>) {
    // What is pending comes first. Nothing new is read here.
    let _ = drive(conn, held, &mut Vec::new(), wire);
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = conn.process(held).state {
        let start = wire.len();
        let mut room = 2 + 2 * RECORD_OVERHEAD;
        loop {
            wire.resize(start + room, 0);
            match traffic.queue_close_notify(&mut wire[start..]) {
                Ok(written) => break wire.truncate(start + written),
                Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                    room = size.required_size;
                }
                Err(_) => break wire.truncate(start),
            }
        }
    }
}

/// Appends what `rustls` wants to say.
fn encode<Data>(mut data: EncodeTlsData<'_, Data>, wire: &mut Vec<u8>) {
    let start = wire.len();
    // It tells its size only when there is no room for it.
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        wire.resize(start + size.required_size, 0);
        if data.encode(&mut wire[start..]).is_err() {
            wire.truncate(start);
        }
    }
}
