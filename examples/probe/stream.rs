//! Latency and throughput of a connection.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tidegate::layer::CompressionRate;
use tidegate::{
    CloseInfo, CloseReason, Context, Deadline, Handler, HandlerResult, Input, SendStatus,
};

use super::{Measured, PATIENCE};

/// Each message of a ping begins with its number.
pub(crate) const HEADER: usize = 8;

/// What a fresh connection does before it is measured: the first trips fill caches and grow windows.
const WARM_UP: u64 = 16;

/// Sends a message, waits until it is back, sends the next.
pub(crate) struct Ping {
    count: u64,
    message: Vec<u8>,
    number: u64,
    made: Instant,
    sent: Instant,
}

impl Ping {
    pub(crate) fn new(count: u64, size: usize) -> Self {
        let now = Instant::now();
        Ping { count, message: vec![b'.'; size], number: 0, made: now, sent: now }
    }

    fn send(&mut self, cx: &mut Context<'_, Measured>) {
        self.message[..HEADER].copy_from_slice(&self.number.to_be_bytes());
        self.sent = Instant::now();
        cx.send(&self.message);
    }
}

impl Handler<Measured> for Ping {
    fn on_open(&mut self, cx: &mut Context<'_, Measured>) -> HandlerResult {
        cx.state.connected = self.made.elapsed();
        self.send(cx);
        Ok(())
    }

    /// One message: `FixedSize` puts it together.
    fn on_data(&mut self, cx: &mut Context<'_, Measured>, input: &mut Input<'_>) -> HandlerResult {
        let trip = self.sent.elapsed();
        if input.take_all() != self.message {
            return Err(OTHER_BYTES.into());
        }
        if self.number >= WARM_UP {
            cx.state.round_trips.saturating_record(trip.as_nanos() as u64);
            cx.state.progress.show(self.number - WARM_UP, self.count);
        }
        self.number += 1;
        if self.number < self.count + WARM_UP {
            self.send(cx);
        } else {
            cx.state.failure = None;
            cx.close();
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Measured>, closed: &CloseInfo) {
        ended(cx, closed);
    }
}

/// Sends as much as the link takes, and checks that all of it comes back.
pub(crate) struct Bulk {
    /// Sent again and again.
    data: Rc<[u8]>,
    piece: usize,
    total: u64,
    sent: u64,
    received: u64,
    began: Instant,
    time: Duration,
}

impl Bulk {
    /// Sends `total` bytes, `piece` at a time, or what goes in `time`.
    pub(crate) fn new(data: Rc<[u8]>, piece: usize, total: u64, time: Duration) -> Self {
        Bulk { data, piece, total, sent: 0, received: 0, began: Instant::now(), time }
    }

    /// Fills the queue up to its high mark; `on_drain` says when to go on.
    fn fill(&mut self, cx: &mut Context<'_, Measured>) {
        if self.began.elapsed() >= self.time {
            self.total = self.sent;
        }
        while self.sent < self.total {
            let at = (self.sent % self.data.len() as u64) as usize;
            let left = usize::try_from(self.total - self.sent).unwrap_or(usize::MAX);
            let piece = &self.data[at..self.data.len().min(at + self.piece.min(left))];
            let status = cx.send(piece);
            if !status.is_accepted() {
                return; // `on_close` says why
            }
            self.sent += piece.len() as u64;
            if status == SendStatus::AboveHighWater {
                return;
            }
        }
    }

    fn finish_if_all_is_back(&mut self, cx: &mut Context<'_, Measured>) {
        if self.received == self.total {
            cx.state.bytes = self.received;
            cx.state.time = self.began.elapsed();
            cx.state.compressed =
                cx.layer_info::<CompressionRate>().map(|rate| rate.sent().wire_bytes());
            cx.state.failure = None;
            cx.close();
        }
    }
}

impl Handler<Measured> for Bulk {
    fn on_open(&mut self, cx: &mut Context<'_, Measured>) -> HandlerResult {
        self.began = Instant::now();
        self.fill(cx);
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Measured>) -> HandlerResult {
        self.fill(cx);
        self.finish_if_all_is_back(cx);
        Ok(())
    }

    fn on_data(&mut self, cx: &mut Context<'_, Measured>, input: &mut Input<'_>) -> HandlerResult {
        let mut back = input.take_all();
        while !back.is_empty() {
            let at = (self.received % self.data.len() as u64) as usize;
            let n = back.len().min(self.data.len() - at);
            if back[..n] != self.data[at..at + n] {
                return Err(OTHER_BYTES.into());
            }
            self.received += n as u64;
            back = &back[n..];
        }
        cx.state.progress.show(self.received, self.total);
        self.finish_if_all_is_back(cx);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Measured>, closed: &CloseInfo) {
        ended(cx, closed);
    }
}

const OTHER_BYTES: &str = "other bytes came back than were sent: is that an echo server?";

fn ended(cx: &mut Context<'_, Measured>, closed: &CloseInfo) {
    if cx.state.failure.is_some() {
        cx.state.failure = Some(match &closed.reason {
            CloseReason::TimedOut(Deadline::Idle) => {
                format!("nothing came back for {} s: is that an echo server?", PATIENCE.as_secs())
            }
            reason if reason.is_orderly() => "the server ended the connection".into(),
            reason => reason.to_string(),
        });
    }
    cx.net.stop();
}
