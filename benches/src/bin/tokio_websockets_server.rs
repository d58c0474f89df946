//! The tokio-websockets peer. What is ready is answered with one flush; it is gathered before, because asking for
//! the next message flushes what was fed.

use arena::on_tokio::{self, Mailbox, Room, accept};
use arena::server::{Args, Mode, Over};
use futures_util::stream::SplitSink;
use futures_util::{FutureExt, SinkExt, StreamExt};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::spawn;
use tokio_websockets::{Error, Message, ServerBuilder, WebSocketStream};

/// Others are answered at once: they lie in the read buffer, which can't be used again before they have gone.
const SMALL: usize = 4096;

type Messages = Vec<Message>;
type Socket = WebSocketStream<TcpStream>;

fn main() -> std::io::Result<()> {
    let args = Args::with_layers(&[Over::WebSocket]);
    let room = Arc::new(Room::default());
    on_tokio::run(accept(args.addr, move |stream| {
        spawn(serve(args.mode, Arc::clone(&room), stream));
    }))
}

async fn serve(mode: Mode, room: Arc<Room<Messages>>, stream: TcpStream) -> Result<(), Error> {
    let (_request, socket) = ServerBuilder::new().accept(stream).await?;
    match mode {
        Mode::Chat => join(room, socket).await,
        _ => echo(socket).await,
    }
}

async fn echo(mut socket: Socket) -> Result<(), Error> {
    let mut arrived = Messages::new();
    while let Some(message) = socket.next().await {
        arrived.push(message?);
        while arrived.last().is_some_and(|message| message.as_payload().len() < SMALL)
            && let Some(Some(message)) = socket.next().now_or_never()
        {
            arrived.push(message?);
        }
        for message in arrived.drain(..) {
            socket.feed(message).await?;
        }
        socket.flush().await?;
    }
    Ok(())
}

async fn join(room: Arc<Room<Messages>>, socket: Socket) -> Result<(), Error> {
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

async fn deliver(
    mailbox: Arc<Mailbox<Messages>>,
    mut output: SplitSink<Socket, Message>,
) -> Result<(), Error> {
    let mut leaving = Messages::new();
    loop {
        mailbox.take(&mut leaving).await;
        for message in leaving.drain(..) {
            output.feed(message).await?;
        }
        output.flush().await?;
    }
}
