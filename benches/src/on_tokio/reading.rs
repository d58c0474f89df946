//! One read buffer for all tasks, since nothing in it is needed across an `.await`; a buffer in each task would cost
//! its size for each idle connection.

use crate::Pages;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::ready;
use tokio::io::{AsyncRead, ReadBuf};

thread_local! {
    static BUFFER: RefCell<Pages> = RefCell::default();
}

/// One read into the shared buffer, handed to `take` before anything else can run.
pub async fn read_shared<R, T>(
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
