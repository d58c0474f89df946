//! The tokio peer: a current-thread runtime and a task for each connection. One read buffer serves all tasks.

use arena::on_tokio::{self, Room, accept, join_lines, read_shared};
use arena::server::{self, Args, Mode};
use std::io;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::spawn;

fn main() -> io::Result<()> {
    let args = Args::from_command_line();
    on_tokio::run(async {
        match args.mode {
            Mode::Echo => accept(args.addr, |stream| drop(spawn(echo(stream)))).await,
            Mode::Sink => accept(args.addr, |stream| drop(spawn(sink(stream)))).await,
            Mode::Chat => {
                let room = Arc::new(Room::default());
                accept(args.addr, move |stream| {
                    let (input, output) = stream.into_split();
                    drop(spawn(join_lines(Arc::clone(&room), input, output)));
                })
                .await
            }
            Mode::Udp | Mode::Train => udp(UdpSocket::bind(args.addr).await?).await,
        }
    })
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    loop {
        let (end, rest) = read_shared(&mut stream, |stream, bytes| {
            let written = stream.try_write(bytes).unwrap_or(0);
            (bytes.is_empty(), bytes[written..].to_vec())
        })
        .await?;
        if end {
            return Ok(());
        }
        if !rest.is_empty() {
            stream.write_all(&rest).await?;
        }
    }
}

async fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut count = 0u64;
    loop {
        match read_shared(&mut stream, |_, bytes| bytes.len()).await? {
            0 => return stream.write_all(&count.to_le_bytes()).await,
            n => count += n as u64,
        }
    }
}

async fn udp(socket: UdpSocket) -> io::Result<()> {
    server::ready(socket.local_addr()?);
    let mut buffer = vec![0; 1 << 16];
    loop {
        // The report of an earlier send that found nobody ends neither call's usefulness: the socket lives on.
        let Ok((len, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let _ = socket.send_to(&buffer[..len], peer).await;
    }
}
