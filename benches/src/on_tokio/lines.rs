//! The room of lines over any stream of bytes.

use super::{Mailbox, Room, read_shared};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::spawn;

/// A member for as long as its input lasts.
pub async fn join_lines<R, W>(room: Arc<Room<Vec<u8>>>, mut input: R, output: W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (id, mailbox) = room.join();
    let writer = spawn(deliver(mailbox, output));
    let mut line = Vec::new();
    let mut listen = |_: &mut _, bytes: &[u8]| {
        hear(&room, id, &mut line, bytes);
        !bytes.is_empty()
    };
    while let Ok(true) = read_shared(&mut input, &mut listen).await {}
    room.leave(id);
    writer.abort();
}

/// Passes on the whole lines of `bytes`; `line` keeps the part of one between two reads.
fn hear(room: &Room<Vec<u8>>, speaker: u64, line: &mut Vec<u8>, bytes: &[u8]) {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    if whole > 0 {
        room.tell_others(speaker, |waiting| {
            waiting.extend_from_slice(line);
            waiting.extend_from_slice(&bytes[..whole]);
        });
        line.clear();
    }
    line.extend_from_slice(&bytes[whole..]);
}

/// Writes what waits for a member, all of a turn at once.
pub async fn deliver<W>(mailbox: Arc<Mailbox<Vec<u8>>>, mut output: W) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let mut leaving = Vec::new();
    loop {
        mailbox.take(&mut leaving).await;
        output.write_all(&leaving).await?;
        output.flush().await?;
        leaving.clear();
    }
}
