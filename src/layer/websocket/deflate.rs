//! Compressed messages (RFC 7692): one raw DEFLATE stream for each direction, flushed at the end of
//! each message, the four bytes of that flush left out.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::extension::Agreed;
use super::fault::Fault;

/// An empty stored block, with which a flush ends (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Shorter messages are sent as they are, in bytes: the flush alone adds about five to them.
const WORTH_IT: usize = 32;

/// Output is made room for in steps of so many bytes.
const STEP: usize = 2048;

/// Room for a compressed message that is kept from one to the next.
const KEPT: usize = 4096;

/// Both directions of one connection. Each is made with its first message: a connection that has
/// sent nothing long has no compressor (some 300 KiB in miniz_oxide; the other direction takes
/// some 45 KiB).
#[derive(Debug)]
pub(super) struct Deflate {
    agreed: Agreed,
    compress: Option<Compress>,
    decompress: Option<Decompress>,
    out: Vec<u8>,
}

impl Deflate {
    pub(super) fn new(agreed: Agreed) -> Deflate {
        Deflate { agreed, compress: None, decompress: None, out: Vec::new() }
    }

    /// Whether this side's compressor forgets each message.
    pub(super) fn forgets(&self) -> bool {
        self.agreed.forget
    }

    /// The compressed form of `message`, if it is shorter.
    pub(super) fn deflate(&mut self, message: &[u8]) -> Option<&[u8]> {
        self.out.clear();
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
        if message.len() < WORTH_IT {
            return None;
        }
        let stream = self.compress.get_or_insert_with(|| Compress::new(Compression::fast(), false));
        if deflate_into(stream, message, &mut self.out).is_none() {
            // Its peer has not seen what is in its window now.
            stream.reset();
            return None;
        }
        if self.agreed.forget {
            stream.reset();
        }
        self.out.truncate(self.out.len() - TAIL.len());
        Some(&self.out)
    }

    /// Appends what a stretch of a compressed payload, unmasked, comes to.
    pub(super) fn inflate(
        &mut self,
        payload: &[u8],
        message: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), Fault> {
        let stream = self.decompress.get_or_insert_with(|| Decompress::new(false));
        inflate_into(stream, payload, message, limit)
    }

    /// The message has ended: what its sender left out is put in again.
    pub(super) fn finish(&mut self, message: &mut Vec<u8>, limit: usize) -> Result<(), Fault> {
        let stream = self.decompress.get_or_insert_with(|| Decompress::new(false));
        inflate_into(stream, &TAIL, message, limit)
    }
}

/// One message and the flush behind it; nothing if it does not get shorter.
fn deflate_into(stream: &mut Compress, message: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // There is no more room than for the message itself with the tail: what fills it is no shorter.
    out.resize(message.len() + TAIL.len(), 0);
    let before = (stream.total_in(), stream.total_out());
    stream.compress(message, out, FlushCompress::Sync).ok()?;
    let taken = (stream.total_in() - before.0) as usize;
    let made = (stream.total_out() - before.1) as usize;
    let shorter = taken == message.len() && made < out.len();
    out.truncate(made);
    (shorter && out.ends_with(&TAIL)).then_some(())
}

/// Inflates all of `input`, and holds the limit at each step: a bomb costs what the limit allows.
fn inflate_into(
    stream: &mut Decompress,
    mut input: &[u8],
    message: &mut Vec<u8>,
    limit: usize,
) -> Result<(), Fault> {
    loop {
        let before = (stream.total_in(), stream.total_out());
        let start = message.len();
        message.resize(start + STEP, 0);
        let status = stream
            .decompress(input, &mut message[start..], FlushDecompress::Sync)
            .map_err(|_| Fault::protocol("a message that is no DEFLATE stream"))?;
        let taken = (stream.total_in() - before.0) as usize;
        let made = (stream.total_out() - before.1) as usize;
        message.truncate(start + made);
        input = &input[taken..];
        if message.len() > limit {
            return Err(Fault::too_big(
                "a compressed message",
                format_args!("at least {}", message.len()),
                limit,
                "max_message",
            ));
        }
        if status == Status::StreamEnd {
            // A block marked as the last one (RFC 7692 section 7.2.3.4): a new stream follows.
            stream.reset(false);
        }
        if input.is_empty() && made < STEP {
            return Ok(());
        }
        if taken == 0 && made == 0 {
            return Err(Fault::protocol("a message that is no DEFLATE stream"));
        }
    }
}
