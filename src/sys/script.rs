//! A stream with scripted results, for faults at an exact call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

/// What one call returns.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A read yields these bytes (as many as fit); a write takes up to this many of what is given.
    Bytes(Vec<u8>),
    Take(usize),
    Fail(io::ErrorKind),
    /// The system's error of this number.
    Errno(i32),
}

/// The script and what was written, shared between a test and the stream it gave away.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) reads: VecDeque<Answer>,
    pub(crate) writes: VecDeque<Answer>,
    pub(crate) written: Vec<u8>,
    /// The error that is pending on the socket, by its number.
    pub(crate) pending: Option<i32>,
    pub(crate) shut: bool,
    /// How often bytes were to go through a pipe, either way.
    #[cfg(all(feature = "splice", any(target_os = "linux", target_os = "android")))]
    pub(crate) spliced: usize,
}

#[derive(Debug)]
pub(crate) struct Stream(pub(crate) Rc<RefCell<Script>>);

impl Stream {
    /// An exhausted script returns `WouldBlock`.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut script = self.0.borrow_mut();
        match script.reads.pop_front() {
            Some(Answer::Bytes(mut bytes)) => {
                let n = bytes.len().min(buffer.len());
                buffer[..n].copy_from_slice(&bytes[..n]);
                if n < bytes.len() {
                    script.reads.push_front(Answer::Bytes(bytes.split_off(n)));
                }
                Ok(n)
            }
            Some(Answer::Fail(kind)) => Err(kind.into()),
            Some(Answer::Errno(number)) => Err(io::Error::from_raw_os_error(number)),
            Some(Answer::Take(_)) => panic!("the script has a write where a read came"),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut script = self.0.borrow_mut();
        match script.writes.pop_front() {
            Some(Answer::Take(most)) => {
                let n = most.min(bytes.len());
                script.written.extend_from_slice(&bytes[..n]);
                Ok(n)
            }
            Some(Answer::Fail(kind)) => Err(kind.into()),
            Some(Answer::Errno(number)) => Err(io::Error::from_raw_os_error(number)),
            Some(Answer::Bytes(_)) => panic!("the script has a read where a write came"),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    pub(crate) fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
        self.write(&all)
    }

    /// A read whose bytes go into a pipe.
    #[cfg(all(feature = "splice", any(target_os = "linux", target_os = "android")))]
    pub(crate) fn splice_to(&mut self, mut pipe: impl io::Write, most: usize) -> io::Result<usize> {
        self.0.borrow_mut().spliced += 1;
        let mut bytes = vec![0; most];
        let n = self.read(&mut bytes)?;
        pipe.write_all(&bytes[..n])?;
        Ok(n)
    }

    /// A write of what comes out of a pipe.
    #[cfg(all(feature = "splice", any(target_os = "linux", target_os = "android")))]
    pub(crate) fn splice_from(&mut self, mut pipe: impl io::Read, all: usize) -> io::Result<usize> {
        self.0.borrow_mut().spliced += 1;
        // What the script does not take stays in the pipe.
        let taken = match self.0.borrow().writes.front() {
            Some(Answer::Take(most)) => all.min(*most),
            _ => 0,
        };
        let mut bytes = vec![0; taken];
        pipe.read_exact(&mut bytes)?;
        self.write(&bytes)
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.0.borrow_mut().pending.take().map(io::Error::from_raw_os_error)
    }

    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.0.borrow_mut().shut = true;
        Ok(())
    }
}

/// What each accept(2) returns: a connection with a script of its own, or the system's error of
/// this number. An exhausted one returns `WouldBlock`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listener(pub(crate) Rc<RefCell<VecDeque<Result<(), i32>>>>);

impl Listener {
    pub(crate) fn accept(&self) -> io::Result<Box<Stream>> {
        match self.0.borrow_mut().pop_front() {
            Some(Ok(())) => Ok(Box::new(Stream(Rc::default()))),
            Some(Err(number)) => Err(io::Error::from_raw_os_error(number)),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}
