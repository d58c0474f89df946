//! A connect that neither succeeds nor fails for seconds.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

/// A listener that has no place for one more: the system drops the SYN, and asks again after a
/// second.
pub struct FullBacklog {
    pub address: SocketAddr,
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl FullBacklog {
    pub fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(1).unwrap();
        let to = listener.local_addr().unwrap();
        let waiting = (0..8).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _in_progress = socket.connect(&to);
            socket
        });
        let _waiting = waiting.collect();
        FullBacklog { address: to.as_socket().unwrap(), _listener: listener, _waiting }
    }
}
