//! What arrives: from bytes to records, through `rustls`, with the limits in front of it.

use std::mem;

use super::record::{self, Header, peek};
use super::{NAME, Tls, error};
use crate::layer::{Item, LayerError};

/// Several small records become one unit as long as it stays within the size of one full record.
const UNIT_MAX: usize = 16 * 1024;

impl Tls {
    /// Takes the whole records at the front of `wire`, as far as they make one unit. Says how many
    /// bytes that was, and whether the peer has closed or failed behind them.
    pub(super) fn take_records(
        &mut self,
        wire: &mut [u8],
        unit: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> (usize, Option<Result<Item, LayerError>>) {
        let was_ready = self.ready;
        let mut consumed = 0;
        // Up to the moment of getting ready, and no further: the driver acts on it.
        while self.ready == was_ready {
            let rest = &mut wire[consumed..];
            let (size, whole) = match peek(rest) {
                Header::Short => break,
                Header::Bad => (record::HEADER, true),
                Header::Record(size) => (size, rest.len() >= size),
            };
            if !unit.is_empty() && unit.len() + size > UNIT_MAX {
                break;
            }
            if let Err(error) = self.check_limit(size) {
                self.failed = self.plain_alert(record::ILLEGAL_PARAMETER, reply);
                return (consumed, Some(Err(error)));
            }
            if !whole {
                break;
            }
            let said = reply.len();
            match self.take_record(&mut rest[..size], unit, reply) {
                Ok(_) if peek(rest) == Header::Bad => {
                    let error =
                        rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
                    return (consumed, Some(Err(self.fail(error, rest, true, reply))));
                }
                Ok(closed) => {
                    consumed += size;
                    if !self.ready {
                        self.received += size;
                        self.become_ready(reply);
                    }
                    if closed {
                        self.peer_closed = true;
                        return (consumed, Some(Ok(Item::End)));
                    }
                }
                Err(cause) => {
                    let silent = reply.len() == said;
                    return (consumed, Some(Err(self.fail(cause, rest, silent, reply))));
                }
            }
        }
        (consumed, None)
    }

    /// Goes through one whole record, or through a header that cannot begin one. Says whether the
    /// peer has closed.
    fn take_record(
        &mut self,
        record: &mut [u8],
        plain: &mut Vec<u8>,
        reply: &mut Vec<u8>,
    ) -> Result<bool, rustls::Error> {
        let Some(session) = &mut self.session else {
            return Err(rustls::Error::General("bytes came before the layer was started".into()));
        };
        let driven = if self.held.is_empty() {
            // Decrypted where it lies.
            let driven = session.take(record, plain, reply);
            self.held.extend_from_slice(&record[driven.used..]);
            driven
        } else {
            let mut pieces = mem::take(&mut self.held);
            pieces.extend_from_slice(record);
            let driven = session.take(&mut pieces, plain, reply);
            pieces.drain(..driven.used);
            if !pieces.is_empty() {
                self.held = pieces;
            }
            driven
        };
        if let Some(name) = driven.server_name {
            self.server_name = Some(name);
        }
        driven.outcome
    }

    /// Looks whether the handshake is done, and says then what had to wait for it.
    fn become_ready(&mut self, reply: &mut Vec<u8>) {
        let Some(session) = &mut self.session else { return };
        self.ready = session.is_ready();
        if self.ready && self.ended {
            session.close(&mut self.held, reply);
        }
    }

    /// Refuses a record by what its header announces, before it has arrived.
    fn check_limit(&self, record: usize) -> Result<(), LayerError> {
        let limit = self.options.handshake_limit;
        if !self.ready && self.received + record > limit {
            return Err(LayerError::too_large(
                NAME,
                format!(
                    "expected a handshake of {limit} bytes at most, got {} and a record of {record} more",
                    self.received
                ),
            ));
        }
        if !self.held.is_empty() && self.held.len() + record > limit {
            return Err(LayerError::too_large(
                NAME,
                format!(
                    "expected a handshake message of {limit} bytes at most, got {} in pieces and {record} more",
                    self.held.len()
                ),
            ));
        }
        Ok(())
    }

    /// Makes the error of `cause`. Sends an alert in clear text where `rustls` sent none and no keys
    /// are agreed on yet.
    fn fail(
        &mut self,
        cause: rustls::Error,
        wire: &[u8],
        was_silent: bool,
        reply: &mut Vec<u8>,
    ) -> LayerError {
        self.failed = true;
        if was_silent && !matches!(cause, rustls::Error::AlertReceived(_)) {
            self.plain_alert(record::DECODE_ERROR, reply);
        }
        if self.received == 0 && matches!(peek(wire), Header::Bad) {
            return LayerError::malformed(NAME, record::describe_foreign(wire, self.is_server()))
                .with_source(cause);
        }
        error::of_rustls(cause, self.is_server())
    }

    /// Appends a fatal alert, as long as both sides still talk in clear text. Returns whether it has.
    fn plain_alert(&self, description: u8, reply: &mut Vec<u8>) -> bool {
        let clear = self.session.as_ref().is_some_and(|s| s.common().protocol_version().is_none());
        if clear {
            reply.extend_from_slice(&record::plain_alert(record::FATAL, description));
        }
        clear
    }
}
