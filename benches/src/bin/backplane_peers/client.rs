//! One WebSocket client of a server: says messages of one length that carry their number and time, and checks each
//! that it hears.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::Result;

/// The length of a message: its number and its time, 16 digits each, and something to say.
const BYTES: usize = 100;
/// As it comes: the head has two bytes for each length below 126.
pub const FRAME: usize = 2 + BYTES;

pub struct Client {
    pub stream: TcpStream,
    input: Vec<u8>,
    /// Where the input ends that has been read.
    filled: usize,
    output: Vec<u8>,
    /// The number of the next message that it says.
    pub said: u64,
    /// The number of the next message that it should hear.
    pub heard: u64,
}

impl Client {
    /// Enters a room, which is the path.
    pub fn enter(addr: SocketAddr, room: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        write!(
            stream,
            "GET {room} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        // What RFC 6455 has for this key.
        let head = String::from_utf8(head)?;
        if !(head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")) {
            return Err(format!("{addr} does not open {room}: {head:?}").into());
        }
        stream.set_nonblocking(true)?;
        let input = vec![0; 256 * 1024];
        Ok(Self { stream, input, filled: 0, output: Vec::new(), said: 0, heard: 0 })
    }

    /// Puts the next message behind what waits to be written.
    pub fn say(&mut self, time: Duration) {
        let mut payload = [b'x'; BYTES];
        let head = format!("{:016x}{:016x}", self.said, time.as_nanos() as u64);
        payload[..32].copy_from_slice(head.as_bytes());
        // A key of its own for each message, as browsers take one: here the upper half of a product.
        let key = ((self.said + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
        let key = key.to_be_bytes();
        for (byte, mask) in payload.iter_mut().zip(key.iter().cycle()) {
            *byte ^= mask;
        }
        self.output.extend([0x81, 0x80 | BYTES as u8]);
        self.output.extend(key);
        self.output.extend(payload);
        self.said += 1;
    }

    /// So many bytes wait to be written.
    pub fn waiting(&self) -> usize {
        self.output.len()
    }

    pub fn flush(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what has come, and tells each number. The messages must be whole, in order, and all of them.
    pub fn hear(&mut self, mut each: impl FnMut(u64)) -> Result<()> {
        loop {
            let read = match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err("the server has closed a connection".into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            self.filled += read;
            let is_short = self.filled < self.input.len();
            let (frames, _) = self.input[..self.filled].as_chunks::<FRAME>();
            for frame in frames {
                let (said, _) = read_frame(frame)?;
                if said != self.heard {
                    return Err(format!("message {} was expected, {said} came", self.heard).into());
                }
                self.heard += 1;
                each(said);
            }
            let whole = frames.len() * FRAME;
            self.input.copy_within(whole..self.filled, 0);
            self.filled -= whole;
            if is_short {
                return Ok(());
            }
        }
    }
}

/// The number and the time of a message.
pub fn read_frame(frame: &[u8; FRAME]) -> Result<(u64, Duration)> {
    if frame[..2] != [0x81, BYTES as u8] || frame[34..].iter().any(|&byte| byte != b'x') {
        return Err("what came is no message of the speaker's".into());
    }
    let number = |at: usize| {
        let digits = std::str::from_utf8(&frame[at..at + 16])?;
        Ok::<_, crate::Failure>(u64::from_str_radix(digits, 16)?)
    };
    Ok((number(2)?, Duration::from_nanos(number(18)?)))
}

/// Says messages until each listener has heard one, since a subscription takes a moment; they all count from the same
/// number then.
pub fn bring_together(speaker: &mut Client, listeners: &mut [Client]) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    let mut last = vec![None; listeners.len()];
    // The first that everybody hears may have any number.
    while last.iter().any(|heard| *heard != Some(speaker.said.wrapping_sub(1))) {
        if Instant::now() > end {
            return Err("not all listeners hear the speaker".into());
        }
        speaker.say(Duration::ZERO);
        speaker.flush()?;
        std::thread::sleep(Duration::from_millis(20));
        for (listener, last) in listeners.iter_mut().zip(&mut last) {
            if last.is_none() {
                listener.heard = listener.first()?.unwrap_or(0);
            }
            listener.hear(|number| *last = Some(number))?;
        }
    }
    Ok(())
}

impl Client {
    /// The number of the first message that has come, which stays where it is.
    fn first(&mut self) -> Result<Option<u64>> {
        let mut frame = [0; FRAME];
        match self.stream.peek(&mut frame) {
            Ok(FRAME) => Ok(Some(read_frame(&frame)?.0)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
