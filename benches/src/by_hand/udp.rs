//! UDP echo, one datagram for each call: neither mio nor calloop offers a batched one.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// A non-blocking datagram socket.
pub trait Datagrams {
    /// As `std::net::UdpSocket::recv_from`.
    fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
    /// As `std::net::UdpSocket::send_to`.
    fn send_to(&self, bytes: &[u8], peer: SocketAddr) -> io::Result<usize>;
}

/// Sends every datagram back.
#[derive(Debug)]
pub struct UdpEcho {
    /// The largest datagram there is, so that nothing is ever cut.
    buffer: Box<[u8]>,
    /// The length and the sender of a datagram in `buffer` whose answer found the socket full.
    waiting: Option<(usize, SocketAddr)>,
}

impl Default for UdpEcho {
    fn default() -> Self {
        Self { buffer: vec![0; 1 << 16].into(), waiting: None }
    }
}

impl UdpEcho {
    /// Serves until the socket is empty or full. Also right after a "writable" edge: what is unread then stays so
    /// until the answer that waits is out.
    pub fn ready(&mut self, socket: &impl Datagrams) -> io::Result<()> {
        loop {
            let (len, peer) = match self.waiting.take() {
                Some(waiting) => waiting,
                None => match socket.recv_from(&mut self.buffer) {
                    Ok(received) => received,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    // The report of an earlier send that found nobody; the socket lives on.
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::Interrupted | ErrorKind::ConnectionRefused
                        ) =>
                    {
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            };
            match socket.send_to(&self.buffer[..len], peer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.waiting = Some((len, peer));
                    return Ok(());
                }
                // Any other failure loses this datagram, as the protocol may.
                _ => {}
            }
        }
    }
}
