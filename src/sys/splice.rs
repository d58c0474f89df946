//! Moves bytes from socket to socket without copying them into this process: splice(2), through a pipe.
//!
//! A pipe is filled only while it is empty and drained only while it is not. So `EAGAIN`, which
//! splice(2) returns for either end, is always about the socket.

use std::cell::{Cell, RefCell};
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, splice};

use super::{Stream, uninterrupted};

/// What a pipe is made to hold: as much as a read brings by default.
const SIZE: usize = 256 * 1024;

/// How many pipes may hold bytes at once; beyond that relays copy. Together they are half of what the
/// pipes of an unprivileged user may hold (64 MiB, pipe(7)).
const MOST: usize = 128;

/// How many empty pipes are kept for the next use.
const KEPT: usize = 8;

/// After a pipe could not be made, skip this many attempts.
const PAUSE: usize = 1000;

/// The pipes of one reactor.
#[derive(Debug, Default)]
pub(crate) struct Pipes(Rc<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    /// Empty ones.
    at_rest: RefCell<Vec<Ends>>,
    at_work: Cell<usize>,
    /// How many attempts of the pause are left.
    pause: Cell<usize>,
}

#[derive(Debug)]
struct Ends {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Pipes {
    /// An empty pipe; `None` if none is available now.
    pub(crate) fn take(&self) -> Option<Pipe> {
        #[cfg(feature = "sim")]
        if super::sim::is_simulated() {
            return None; // a trace must be the same without this feature
        }
        let shelf = &self.0;
        if shelf.at_work.get() == MOST {
            return None;
        }
        let at_rest = shelf.at_rest.borrow_mut().pop();
        let ends = at_rest.or_else(|| shelf.make())?;
        shelf.at_work.set(shelf.at_work.get() + 1);
        Some(Pipe { ends: Some(ends), len: 0, shelf: Rc::clone(shelf) })
    }

    /// Closes the empty ones, because descriptors ran out. Returns whether there were any.
    pub(crate) fn give_back(&self) -> bool {
        !std::mem::take(&mut *self.0.at_rest.borrow_mut()).is_empty()
    }
}

impl Shelf {
    fn make(&self) -> Option<Ends> {
        if let Some(left) = self.pause.get().checked_sub(1) {
            self.pause.set(left);
            return None;
        }
        let made = io::pipe().and_then(|(reader, writer)| {
            fcntl_setpipe_size(&writer, SIZE)?;
            Ok(Ends { reader, writer })
        });
        made.inspect_err(|e| {
            self.pause.set(PAUSE);
            log::debug!("no pipe to relay through: {e}; copying");
        })
        .ok()
    }
}

/// A pipe and its bytes. An empty one returns to the pool when it is dropped.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// `None` while it is dropped.
    ends: Option<Ends>,
    len: usize,
    shelf: Rc<Shelf>,
}

impl Pipe {
    /// How many bytes are in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Moves what a socket has, up to `most` bytes, into the empty pipe. `None`: a read must
    /// follow, because the stream has ended, or the system does not splice from this socket. A short
    /// count proves nothing: the pipe may have run out of slots for pieces.
    pub(crate) fn fill(&mut self, from: &mut Stream, most: usize) -> io::Result<Option<usize>> {
        debug_assert_eq!(self.len, 0);
        let Some(Ends { writer, .. }) = &self.ends else { return Ok(None) };
        let most = most.min(SIZE);
        let moved = uninterrupted(|| match from {
            Stream::Tcp(s) => s.try_io(|| move_between(&*s, writer, most)),
            Stream::Unix(s) => s.try_io(|| move_between(&*s, writer, most)),
            Stream::None => Err(io::ErrorKind::NotConnected.into()),
            #[cfg(test)]
            Stream::Script(s) => s.splice_to(writer, most),
            #[cfg(feature = "sim")]
            Stream::Sim(_) => Err(io::ErrorKind::Unsupported.into()), // `take` gives no pipe there
        });
        let filled = unless_unsupported(moved)?.filter(|&n| n > 0);
        self.len = filled.unwrap_or(0);
        Ok(filled)
    }

    /// Moves what it holds to a socket, as far as that takes it. `None`: the system does not splice
    /// to this socket.
    pub(crate) fn drain(&mut self, to: &mut Stream) -> io::Result<Option<usize>> {
        debug_assert_ne!(self.len, 0);
        let Some(Ends { reader, .. }) = &self.ends else { return Ok(None) };
        let all = self.len;
        let moved = uninterrupted(|| match to {
            Stream::Tcp(s) => s.try_io(|| move_between(reader, &*s, all)),
            Stream::Unix(s) => s.try_io(|| move_between(reader, &*s, all)),
            Stream::None => Err(io::ErrorKind::NotConnected.into()),
            #[cfg(test)]
            Stream::Script(s) => s.splice_from(reader, all),
            #[cfg(feature = "sim")]
            Stream::Sim(_) => Err(io::ErrorKind::Unsupported.into()),
        });
        let drained = unless_unsupported(moved)?;
        self.len -= drained.unwrap_or(0);
        Ok(drained)
    }

    /// What it holds, to be written like anything else.
    pub(crate) fn take_out(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len];
        if let Some(Ends { reader, .. }) = &mut self.ends {
            reader.read_exact(&mut bytes)?;
        }
        self.len = 0;
        Ok(bytes)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let shelf = &self.shelf;
        shelf.at_work.set(shelf.at_work.get() - 1);
        let mut at_rest = shelf.at_rest.borrow_mut();
        if let Some(ends) = self.ends.take()
            && self.len == 0
            && at_rest.len() < KEPT
        {
            at_rest.push(ends);
        }
    }
}

/// No more than `most` bytes, and without waiting for the pipe; the sockets never block anyway.
fn move_between(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFlags::NONBLOCK)?)
}

/// `None` if the system, or a system call filter, does not support the call for such a socket. Any
/// other error is the socket's own, and returned once: a read after it would see an ordinary end.
fn unless_unsupported(moved: io::Result<usize>) -> io::Result<Option<usize>> {
    match moved {
        Ok(n) => Ok(Some(n)),
        Err(e) => match Errno::from_io_error(&e) {
            Some(Errno::INVAL | Errno::NOSYS | Errno::PERM) => Ok(None),
            _ => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::Unix(mio::net::UnixStream::from_std(ours)), theirs)
    }

    fn descriptor(pipe: &Pipe) -> i32 {
        pipe.ends.as_ref().unwrap().writer.as_raw_fd()
    }

    fn at_rest(pipes: &Pipes) -> usize {
        pipes.0.at_rest.borrow().len()
    }

    #[test]
    fn bytes_pass_from_socket_to_socket() {
        let pipes = Pipes::default();
        let ((mut from, mut near), (mut to, mut far)) = (pair(), pair());
        let mut pipe = pipes.take().unwrap();
        let nothing = pipe.fill(&mut from, 100).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        near.write_all(b"through a pipe").unwrap();
        assert_eq!(pipe.fill(&mut from, 9).unwrap(), Some(9));
        assert_eq!(pipe.drain(&mut to).unwrap(), Some(9));
        assert_eq!(pipe.len(), 0);
        assert_eq!(pipe.fill(&mut from, 100).unwrap(), Some(5));
        assert_eq!(pipe.take_out().unwrap(), b" pipe");
        drop(near);
        assert_eq!(pipe.fill(&mut from, 100).unwrap(), None, "a read has to return the end");
        drop(to);
        let mut received = String::new();
        far.read_to_string(&mut received).unwrap();
        assert_eq!(received, "through a");
    }

    #[test]
    fn a_pipe_goes_back_when_it_is_empty_and_is_closed_when_it_is_not() {
        let pipes = Pipes::default();
        let (mut from, mut near) = pair();
        let pipe = pipes.take().unwrap();
        let first = descriptor(&pipe);
        drop(pipe);
        let mut pipe = pipes.take().unwrap();
        assert_eq!((descriptor(&pipe), at_rest(&pipes)), (first, 0));
        near.write_all(b"rest").unwrap();
        pipe.fill(&mut from, 100).unwrap();
        drop(pipe);
        assert_eq!((at_rest(&pipes), pipes.0.at_work.get()), (0, 0));
    }

    #[test]
    fn there_are_so_many_and_no_more_and_few_are_kept() {
        let pipes = Pipes::default();
        let taken: Vec<Pipe> = (0..MOST).map_while(|_| pipes.take()).collect();
        // The system may have had fewer.
        let refused = pipes.0.pause.get() > 0;
        assert!(refused || taken.len() == MOST);
        assert!(pipes.take().is_none());
        let made = taken.len();
        drop(taken);
        assert_eq!(at_rest(&pipes), KEPT.min(made));
        assert!(pipes.give_back());
        assert!(!pipes.give_back());
        assert_eq!(at_rest(&pipes), 0);
    }

    #[test]
    fn after_a_refusal_the_system_is_left_alone_for_a_while() {
        let pipes = Pipes::default();
        pipes.0.pause.set(PAUSE);
        for _ in 0..PAUSE {
            assert!(pipes.take().is_none());
        }
        assert!(pipes.take().is_some());
    }
}
