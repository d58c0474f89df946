//! The two services that concern one connection at a time.

use super::{Edge, Outbox, Peer, Read, Ready, Service, Socket, Then, read_some, taken};
use crate::{Pages, READ_SIZE};
use std::io;

/// Sends everything back.
#[derive(Debug, Default)]
pub struct Echo {
    buffer: Pages,
}

#[derive(Debug, Default)]
pub struct EchoState {
    edge: Edge,
    outbox: Outbox,
}

impl Service for Echo {
    type State = EchoState;

    fn ready<S: Socket>(
        &mut self,
        _key: usize,
        peer: &mut Peer<S, EchoState>,
        ready: Ready,
    ) -> io::Result<Then> {
        let EchoState { edge, outbox } = &mut peer.state;
        edge.note(ready);
        // While replies wait, reading waits too: the socket's own buffers then slow the sender down.
        while outbox.flush(&peer.socket)? && edge.unread {
            let read = read_some(&peer.socket, &mut self.buffer)?;
            edge.after_read(&read, READ_SIZE);
            match read {
                Read::Bytes(n) => outbox.send(&peer.socket, &self.buffer[..n])?,
                Read::End => return Ok(Then::Close),
                Read::Blocked => break,
            }
        }
        Ok(Then::Keep)
    }
}

/// Discards, and tells the count at the end.
#[derive(Debug, Default)]
pub struct Sink {
    buffer: Pages,
}

#[derive(Debug, Default)]
pub struct SinkState {
    edge: Edge,
    received: u64,
}

impl Service for Sink {
    type State = SinkState;

    fn ready<S: Socket>(
        &mut self,
        _key: usize,
        peer: &mut Peer<S, SinkState>,
        ready: Ready,
    ) -> io::Result<Then> {
        let SinkState { edge, received } = &mut peer.state;
        edge.note(ready);
        while edge.unread {
            let read = read_some(&peer.socket, &mut self.buffer)?;
            edge.after_read(&read, READ_SIZE);
            match read {
                Read::Bytes(n) => *received += n as u64,
                Read::End => {
                    // Nothing was sent before, so these eight bytes always fit.
                    taken(|| peer.socket.write(&received.to_le_bytes()))?;
                    return Ok(Then::Close);
                }
                Read::Blocked => break,
            }
        }
        Ok(Then::Keep)
    }
}
