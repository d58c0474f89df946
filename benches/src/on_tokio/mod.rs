//! What the peers on tokio share: the runtime and its listener, one read buffer, a room.

mod lines;
mod reading;
mod room;
mod tls;

pub use lines::{deliver, join_lines};
pub use reading::read_shared;
pub use room::{Mailbox, Room};
pub use tls::Acceptor;

use crate::server;
use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Runs `main` on a runtime of one thread, with nothing but sockets.
pub fn run<T>(main: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(main)
}

/// Starts a runtime of so many threads, named `tokio`, with nothing but sockets.
pub fn start(threads: usize) -> io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name("tokio").enable_io().build()
}

/// Gives each connection to `admit`, for ever.
pub async fn accept(addr: SocketAddr, admit: impl Fn(TcpStream)) -> io::Result<()> {
    let listener = listen(addr)?;
    server::ready(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        admit(stream);
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(4096)
}
