//! Compressed messages (RFC 7692): one raw DEFLATE stream for each direction, flushed at the end of
//! each message, the four bytes of that flush left out.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, FlushCompress};

use crate::layer::inflate::{Inflater, Refused, SYNC_TAIL};

use super::extension::Agreed;
use super::fault::Fault;

/// Room for a compressed message that is kept from one to the next.
const KEPT: usize = 4096;

/// A connection that has compressed nothing for so long gives its compressor back: a new one is made
/// in some 20 µs, and its first message is a little longer.
pub(super) const IDLE: Duration = Duration::from_secs(10);

thread_local! {
    /// The compressor of all connections of this thread that forget each message.
    static FORGETFUL: RefCell<Option<Compress>> = const { RefCell::new(None) };
}

/// Both directions of one connection. Each is made with its first message: a connection that has
/// sent nothing long has no compressor (some 300 KiB in miniz_oxide; the other direction takes
/// 11 KiB and what was received, 48 KiB of that at most).
#[derive(Debug)]
pub(super) struct Deflate {
    agreed: Agreed,
    /// Its own, with a window; none if it forgets.
    compress: Option<Compress>,
    /// When that was used last.
    used: Option<Instant>,
    decompress: Option<Inflater>,
    out: Vec<u8>,
}

impl Deflate {
    pub(super) fn new(agreed: Agreed) -> Deflate {
        Deflate { agreed, compress: None, used: None, decompress: None, out: Vec::new() }
    }

    /// Whether this side's compressor forgets each message.
    pub(super) fn forgets(&self) -> bool {
        self.agreed.forget
    }

    /// The compressed form of `message`, if it is shorter.
    pub(super) fn deflate(&mut self, message: &[u8], now: Instant) -> Option<&[u8]> {
        self.out.clear();
        let new = || Compress::new(Compression::fast(), false);
        let out = &mut self.out;
        let shorter = if self.agreed.forget {
            // Taken out meanwhile: one that panics is not used again, with what it remembers of this peer.
            let mut stream = FORGETFUL.take().unwrap_or_else(new);
            let shorter = deflate_into(&mut stream, message, out);
            stream.reset();
            FORGETFUL.set(Some(stream));
            shorter
        } else {
            self.used = Some(now);
            let stream = self.compress.get_or_insert_with(new);
            let shorter = deflate_into(stream, message, out);
            if shorter.is_none() {
                // Its peer has not seen what is in its window now.
                stream.reset();
            }
            shorter
        };
        shorter?;
        self.out.truncate(self.out.len() - SYNC_TAIL.len());
        Some(&self.out)
    }

    /// What [`deflate`](Self::deflate) has made is written: a large buffer is given back.
    pub(super) fn written(&mut self) {
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
    }

    /// When the compressor is to be given back, if there is one.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        self.compress.as_ref().and(self.used)?.checked_add(IDLE)
    }

    /// Gives the compressor back. The peer goes on: nothing that follows refers to what came before.
    pub(super) fn rest(&mut self) {
        self.compress = None;
        self.out = Vec::new();
    }

    /// A compressed message begins.
    pub(super) fn begin(&mut self) {
        let inflater = self.decompress.get_or_insert_with(Inflater::new);
        if self.agreed.peer_forgets {
            inflater.forget();
        }
        inflater.begin();
    }

    /// Appends what a stretch of a compressed payload, unmasked, comes to, and holds the limit at
    /// each step: a bomb costs what the limit allows.
    pub(super) fn inflate(
        &mut self,
        payload: &[u8],
        message: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), Fault> {
        let inflater = self.decompress.get_or_insert_with(Inflater::new);
        let inflated = inflater.inflate(payload, |out| {
            let size = message.len() + out.len();
            if size > limit {
                let size = format_args!("at least {size}");
                return Err(Fault::too_big("a compressed message", size, limit, "message_limit"));
            }
            message.extend_from_slice(out);
            Ok(())
        });
        inflated.map_err(|refused| match refused {
            Refused::Sink(fault) => fault,
            Refused::NotDeflate => Fault::protocol(
                "a message that is no DEFLATE stream, or refers to bytes that were never sent",
            ),
        })
    }

    /// The compressed message has ended.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        let inflater = self.decompress.get_or_insert_with(Inflater::new);
        inflater
            .finish_flushed()
            .map_err(|_| Fault::protocol("a compressed message that ends in the middle of a block"))
    }
}

/// One message and the flush behind it; nothing if it does not get shorter.
fn deflate_into(stream: &mut Compress, message: &[u8], out: &mut Vec<u8>) -> Option<()> {
    // There is no more room than for the message itself with the tail: what fills it is no shorter.
    out.resize(message.len() + SYNC_TAIL.len(), 0);
    let before = (stream.total_in(), stream.total_out());
    stream.compress(message, out, FlushCompress::Sync).ok()?;
    let taken = (stream.total_in() - before.0) as usize;
    let made = (stream.total_out() - before.1) as usize;
    let shorter = taken == message.len() && made < out.len();
    out.truncate(made);
    (shorter && out.ends_with(&SYNC_TAIL)).then_some(())
}
