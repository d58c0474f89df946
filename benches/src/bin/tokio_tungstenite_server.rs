//! The tokio-tungstenite peer, over TCP and over tokio-rustls. Its read buffer is 4 KiB: of the 128 KiB that are its
//! default, all are filled with zeros before each read. What is ready is answered with one flush.

use arena::on_tokio::{self, Acceptor, Mailbox, Room, accept};
use arena::server::{Args, Mode, Over};
use futures_util::stream::SplitSink;
use futures_util::{FutureExt, SinkExt, StreamExt};
use std::error::Error;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::spawn;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, tungstenite};

type Result<T> = std::result::Result<T, tungstenite::Error>;
type Messages = Vec<Message>;

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let args = Args::with_layers(&[Over::WebSocket, Over::Secure]);
    let tls = args.over.has_tls().then(|| Acceptor::new(&args)).transpose()?;
    let room = Arc::new(Room::default());
    on_tokio::run(accept(args.addr, move |stream| {
        let (tls, room) = (tls.clone(), Arc::clone(&room));
        spawn(async move {
            // What fails for one client concerns nobody else.
            match tls {
                None => serve(args.mode, room, stream).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(args.mode, room, stream).await,
                    Err(_) => Ok(()),
                },
            }
        });
    }))?;
    Ok(())
}

async fn serve<S>(mode: Mode, room: Arc<Room<Messages>>, stream: S) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let socket = accept_async_with_config(stream, Some(config)).await?;
    match mode {
        Mode::Chat => join(room, socket).await,
        _ => echo(socket).await,
    }
}

async fn echo<S>(mut socket: WebSocketStream<S>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = socket.next().await {
        socket.feed(message?).await?;
        while let Some(Some(message)) = socket.next().now_or_never() {
            socket.feed(message?).await?;
        }
        socket.flush().await?;
    }
    Ok(())
}

async fn join<S>(room: Arc<Room<Messages>>, socket: WebSocketStream<S>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (output, mut input) = socket.split();
    let (id, mailbox) = room.join();
    let writer = spawn(deliver(mailbox, output));
    while let Some(Ok(message)) = input.next().await {
        if message.is_text() {
            room.tell_others(id, |waiting| waiting.push(message.clone()));
        }
    }
    room.leave(id);
    writer.abort();
    Ok(())
}

async fn deliver<S>(
    mailbox: Arc<Mailbox<Messages>>,
    mut output: SplitSink<WebSocketStream<S>, Message>,
) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut leaving = Messages::new();
    loop {
        mailbox.take(&mut leaving).await;
        for message in leaving.drain(..) {
            output.feed(message).await?;
        }
        output.flush().await?;
    }
}
