//! The tokio-rustls peer: the services of the tokio peer over its TLS streams.

use arena::on_tokio::{self, Acceptor, Room, accept, join_lines, read_shared};
use arena::server::{Args, Mode, Over};
use std::error::Error;
use std::io;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::spawn;
use tokio_rustls::server::TlsStream;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::with_layers(&[Over::Tls]);
    let acceptor = Acceptor::new(&args)?;
    let room = Arc::new(Room::default());
    on_tokio::run(accept(args.addr, move |stream| {
        let (acceptor, room) = (acceptor.clone(), Arc::clone(&room));
        spawn(serve(args.mode, acceptor, room, stream));
    }))?;
    Ok(())
}

async fn serve(mode: Mode, acceptor: Acceptor, room: Arc<Room<Vec<u8>>>, stream: TcpStream) {
    // What fails for one client concerns nobody else.
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let _ = match mode {
        Mode::Echo => echo(stream).await,
        Mode::Sink => sink(stream).await,
        _ => {
            let (input, output) = tokio::io::split(stream);
            join_lines(room, input, output).await;
            Ok(())
        }
    };
}

async fn echo(mut stream: TlsStream<TcpStream>) -> io::Result<()> {
    let mut leaving = Vec::new();
    loop {
        read_shared(&mut stream, |_, bytes| leaving.extend_from_slice(bytes)).await?;
        if leaving.is_empty() {
            return stream.shutdown().await;
        }
        stream.write_all(&leaving).await?;
        stream.flush().await?;
        leaving.clear();
    }
}

async fn sink(mut stream: TlsStream<TcpStream>) -> io::Result<()> {
    let mut count = 0u64;
    loop {
        match read_shared(&mut stream, |_, bytes| bytes.len()).await? {
            0 => break,
            n => count += n as u64,
        }
    }
    stream.write_all(&count.to_le_bytes()).await?;
    stream.shutdown().await
}
