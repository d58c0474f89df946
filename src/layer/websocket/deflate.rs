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
    /// The compressor of this thread for messages that refer to no other: those of all connections that
    /// forget each message, and those of groups.
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
    /// The peer has received messages since that this one has not seen.
    stale: bool,
    decompress: Option<Inflater>,
    out: Vec<u8>,
}

impl Deflate {
    pub(super) fn new(agreed: Agreed) -> Deflate {
        Deflate {
            agreed,
            compress: None,
            used: None,
            stale: false,
            decompress: None,
            out: Vec::new(),
        }
    }

    /// The compressed form of `message` for this peer, if it is shorter. It may refer to earlier ones.
    pub(super) fn deflate(&mut self, message: &[u8], now: Instant) -> Option<&[u8]> {
        if self.agreed.forget {
            return self.deflate_alone(message);
        }
        self.used = Some(now);
        let stream = self.compress.get_or_insert_with(new);
        if std::mem::take(&mut self.stale) {
            stream.reset();
        }
        let shorter = deflate_into(stream, message, &mut self.out);
        if shorter.is_none() {
            // Its peer has not seen what is in its window now.
            stream.reset();
        }
        shorter
    }

    /// The compressed form of `message` for any peer, if it is shorter: it refers to nothing before.
    pub(super) fn deflate_alone(&mut self, message: &[u8]) -> Option<&[u8]> {
        // Taken out meanwhile: one that panics is not used again, with what it remembers of this message.
        let mut stream = FORGETFUL.take().unwrap_or_else(new);
        let shorter = deflate_into(&mut stream, message, &mut self.out);
        stream.reset();
        FORGETFUL.set(Some(stream));
        shorter
    }

    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.out.capacity()
    }

    /// What [`deflate`](Self::deflate) has made, or has not made shorter, is written: a large buffer is
    /// given back.
    pub(super) fn written(&mut self) {
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
    }

    /// When the compressor is to be given back, if there is one.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        self.compress.as_ref().and(self.used)?.checked_add(IDLE)
    }

    /// The peer is sent messages that were compressed by [`deflate_alone`](Self::deflate_alone) for many, and
    /// enters them into its window. This side's compressor has not seen them: what it would refer to lies
    /// further back now. So it begins anew, as a sender may with any message (RFC 7692 section 7.2.1: it
    /// *may* take its window over). Resetting takes some 6 µs, a new one 60: that waits for the message
    /// that needs it, if one comes before the compressor is given back.
    pub(super) fn passed_over(&mut self) {
        self.stale = true;
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

fn new() -> Compress {
    Compress::new(Compression::fast(), false)
}

/// One message in `out`, without the flush's tail; nothing if it does not get shorter.
fn deflate_into<'a>(
    stream: &mut Compress,
    message: &[u8],
    out: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    out.clear();
    // There is no more room than for the message itself with the tail: what fills it is no shorter.
    out.resize(message.len() + SYNC_TAIL.len(), 0);
    let before = (stream.total_in(), stream.total_out());
    stream.compress(message, out, FlushCompress::Sync).ok()?;
    let taken = (stream.total_in() - before.0) as usize;
    let made = (stream.total_out() - before.1) as usize;
    let shorter = taken == message.len() && made < out.len();
    out.truncate(made);
    out.strip_suffix(&SYNC_TAIL).filter(|_| shorter)
}
