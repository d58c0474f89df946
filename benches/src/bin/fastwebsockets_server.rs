//! The fastwebsockets peer. Its handshake needs hyper, so that this one is by hand. A message is echoed with a write
//! of its own, as it offers: whether the next one is there already, it does not tell. A room's message is encoded
//! once, and what waits for a member leaves with one write.

use arena::on_tokio::{self, Room, accept, deliver};
use arena::server::{Args, Mode, Over};
use fastwebsockets::{Frame, OpCode, Role, WebSocket, WebSocketError};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::spawn;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

type Bytes = Vec<u8>;

fn main() -> io::Result<()> {
    let args = Args::with_layers(&[Over::WebSocket]);
    let room = Arc::new(Room::default());
    on_tokio::run(accept(args.addr, move |stream| {
        spawn(serve(args.mode, Arc::clone(&room), stream));
    }))
}

async fn serve(
    mode: Mode,
    room: Arc<Room<Bytes>>,
    mut stream: TcpStream,
) -> Result<(), WebSocketError> {
    open(&mut stream).await?;
    match mode {
        Mode::Chat => join(room, stream).await,
        _ => echo(stream).await,
    }
}

/// Reads the request and accepts it.
async fn open(stream: &mut TcpStream) -> io::Result<()> {
    let mut request = Bytes::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let request = String::from_utf8_lossy(&request);
    let mut fields = request.lines().filter_map(|line| line.split_once(": "));
    let key = fields.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let accept = derive_accept_key(key.ok_or(ErrorKind::InvalidData)?.1.as_bytes());
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(response.as_bytes()).await
}

async fn echo(stream: TcpStream) -> Result<(), WebSocketError> {
    let mut socket = WebSocket::after_handshake(stream, Role::Server);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Text | OpCode::Binary => {
                socket.write_frame(Frame::new(true, frame.opcode, None, frame.payload)).await?;
            }
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}

async fn join(room: Arc<Room<Bytes>>, stream: TcpStream) -> Result<(), WebSocketError> {
    let (input, output) = stream.into_split();
    let (id, mailbox) = room.join();
    let (mut input, _) =
        fastwebsockets::after_handshake_split(input, tokio::io::sink(), Role::Server);
    let writer = spawn(deliver(mailbox, output));
    let mut encoded = Bytes::new();
    // An answer to a ping or to a close would be due here; the load sends neither.
    let mut answer = |_frame| async { Ok::<_, io::Error>(()) };
    while let Ok(frame) = input.read_frame(&mut answer).await {
        if frame.opcode == OpCode::Text {
            let bytes = Frame::text(frame.payload).write(&mut encoded);
            room.tell_others(id, |waiting| waiting.extend_from_slice(bytes));
        }
    }
    room.leave(id);
    writer.abort();
    Ok(())
}
