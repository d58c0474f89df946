//! The tokio peer: a current-thread runtime and a task for each connection. One read buffer serves all tasks, since
//! nothing in it is needed across an `.await`; a buffer in each task would cost its size for each idle connection.

use arena::Pages;
use arena::server::{self, Args, Mode};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::ready;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::spawn;
use tokio::sync::Notify;

fn main() -> io::Result<()> {
    let args = Args::from_command_line();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        match args.mode {
            Mode::Echo => accept(listen(args.addr)?, |stream| drop(spawn(echo(stream)))).await,
            Mode::Sink => accept(listen(args.addr)?, |stream| drop(spawn(sink(stream)))).await,
            Mode::Chat => {
                let room = Arc::new(Room::default());
                accept(listen(args.addr)?, move |stream| room.clone().admit(stream)).await
            }
            Mode::Udp | Mode::Train => udp(UdpSocket::bind(args.addr).await?).await,
        }
    })
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(4096)
}

async fn accept(listener: TcpListener, admit: impl Fn(TcpStream)) -> io::Result<()> {
    server::ready(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        admit(stream);
    }
}

thread_local! {
    static BUFFER: RefCell<Pages> = RefCell::default();
}

/// One read into the shared buffer, handed to `take` before anything else can run.
async fn read_shared<R, T>(
    stream: &mut R,
    mut take: impl FnMut(&mut R, &[u8]) -> T,
) -> io::Result<T>
where
    R: AsyncRead + Unpin,
{
    poll_fn(|cx| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut filled = ReadBuf::new(buffer);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut filled))?;
            Ok(take(stream, filled.filled())).into()
        })
    })
    .await
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

#[derive(Default)]
struct Room {
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    joined: u64,
    mailboxes: HashMap<u64, Arc<Mailbox>>,
}

/// What a member is still to get. Its writer task takes all of it at once: lines of one turn leave together.
#[derive(Default)]
struct Mailbox {
    bytes: Mutex<Vec<u8>>,
    filled: Notify,
}

/// There is one thread, so that the locks (which `spawn` asks for) are always free.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    fn admit(self: Arc<Self>, stream: TcpStream) {
        let mailbox = Arc::<Mailbox>::default();
        let id = {
            let mut members = lock(&self.members);
            members.joined += 1;
            let id = members.joined;
            members.mailboxes.insert(id, mailbox.clone());
            id
        };
        let (mut input, output) = stream.into_split();
        let writer = spawn(mailbox.deliver(output));
        spawn(async move {
            let mut line = Vec::new();
            let mut listen = |_: &mut _, bytes: &[u8]| {
                self.hear(id, &mut line, bytes);
                !bytes.is_empty()
            };
            while let Ok(true) = read_shared(&mut input, &mut listen).await {}
            lock(&self.members).mailboxes.remove(&id);
            writer.abort();
        });
    }

    /// Passes on the whole lines of `bytes`; `line` keeps the part of one between two reads.
    fn hear(&self, speaker: u64, line: &mut Vec<u8>, bytes: &[u8]) {
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        if whole > 0 {
            let members = lock(&self.members);
            for (_, member) in members.mailboxes.iter().filter(|(id, _)| **id != speaker) {
                let mut waiting = lock(&member.bytes);
                waiting.extend_from_slice(line);
                waiting.extend_from_slice(&bytes[..whole]);
                member.filled.notify_one();
            }
            line.clear();
        }
        line.extend_from_slice(&bytes[whole..]);
    }
}

impl Mailbox {
    async fn deliver(self: Arc<Self>, mut output: OwnedWriteHalf) -> io::Result<()> {
        let mut leaving = Vec::new();
        loop {
            self.filled.notified().await;
            std::mem::swap(&mut leaving, &mut *lock(&self.bytes));
            output.write_all(&leaving).await?;
            leaving.clear();
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
