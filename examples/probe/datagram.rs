//! Latency, throughput, loss and reordering of datagrams.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidegate::{
    CloseInfo, Context, Datagram, DatagramError, DatagramHandler, HandlerResult, Timer,
};

use super::{Measured, PATIENCE};

/// Each datagram begins with its number, and one for the run: an echo of an earlier run is no answer.
pub(crate) const HEADER: usize = 16;

/// A datagram that is not back after this is lost.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// How often to look for those.
const LOOK: Duration = Duration::from_millis(20);

/// What became of the datagrams.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    /// Back in time, each counted once.
    pub(crate) received: u64,
    /// Not back in time.
    pub(crate) lost: u64,
    /// Back after one that was sent later (RFC 4737, section 3.3).
    pub(crate) reordered: u64,
    /// Back again, or back too late to count.
    pub(crate) surplus: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.sent += other.sent;
        self.received += other.received;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.surplus += other.surplus;
    }
}

/// Keeps so many datagrams under way until all were sent, and sees what comes back. With a window
/// of one it measures latency; with a larger one throughput.
pub(crate) struct Datagrams {
    count: u64,
    window: usize,
    message: Vec<u8>,
    time: Duration,
    began: Instant,
    last_answer: Instant,
    under_way: BTreeMap<u64, Instant>,
    counts: Counts,
    /// The number after the highest that has come back.
    next_expected: u64,
    last_error: Option<String>,
}

impl Datagrams {
    pub(crate) fn new(count: u64, size: usize, window: usize, time: Duration) -> Self {
        let now = Instant::now();
        let mut message = vec![b'.'; size];
        let run = u64::from(std::process::id()) << 32 | window as u64;
        message[8..HEADER].copy_from_slice(&run.to_be_bytes());
        Datagrams {
            count,
            window,
            message,
            time,
            began: now,
            last_answer: now,
            under_way: BTreeMap::new(),
            counts: Counts::default(),
            next_expected: 0,
            last_error: None,
        }
    }

    /// Fills the window, or ends when there is nothing left to wait for.
    fn go_on(&mut self, cx: &mut Context<'_, Measured>) {
        if self.began.elapsed() >= self.time {
            self.count = self.counts.sent;
        }
        while self.counts.sent < self.count && self.under_way.len() < self.window {
            let number = self.counts.sent;
            self.message[..8].copy_from_slice(&number.to_be_bytes());
            let now = Instant::now();
            if !cx.send(&self.message).is_accepted() {
                return; // the queue is full: `on_drain` comes
            }
            self.under_way.insert(number, now);
            self.counts.sent += 1;
        }
        if self.counts.sent == self.count && self.under_way.is_empty() {
            cx.state.bytes = self.counts.received * self.message.len() as u64;
            // The wait for what was lost at the end is no part of the transfer.
            cx.state.time = self.last_answer - self.began;
            cx.state.datagrams = self.counts;
            if self.counts.received > 0 {
                cx.state.failure = None;
            }
            cx.close();
        }
    }
}

impl DatagramHandler<Measured> for Datagrams {
    fn on_open(&mut self, cx: &mut Context<'_, Measured>) -> HandlerResult {
        self.began = Instant::now();
        self.last_answer = self.began;
        cx.set_timer(LOOK, 0);
        self.go_on(cx);
        Ok(())
    }

    fn on_datagram(
        &mut self,
        cx: &mut Context<'_, Measured>,
        datagram: Datagram<'_>,
    ) -> HandlerResult {
        let now = Instant::now();
        let Some((number, rest)) = datagram.bytes.split_first_chunk() else { return Ok(()) };
        if *rest != self.message[8..] {
            return Ok(()); // not of this run
        }
        let number = u64::from_be_bytes(*number);
        let Some(sent) = self.under_way.remove(&number) else {
            self.counts.surplus += 1;
            return Ok(());
        };
        self.last_answer = now;
        self.counts.received += 1;
        if number < self.next_expected {
            self.counts.reordered += 1;
        }
        self.next_expected = self.next_expected.max(number + 1);
        cx.state.round_trips.saturating_record((now - sent).as_nanos() as u64);
        cx.state.progress.show(self.counts.received, self.count);
        self.go_on(cx);
        Ok(())
    }

    /// "Port unreachable", say. The datagrams it cost are counted as lost.
    fn on_error(&mut self, _: &mut Context<'_, Measured>, error: DatagramError) -> HandlerResult {
        self.last_error = Some(error.to_string());
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context<'_, Measured>) -> HandlerResult {
        self.go_on(cx);
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_, Measured>, _: Timer) -> HandlerResult {
        let now = Instant::now();
        let before = self.under_way.len();
        self.under_way.retain(|_, sent| now - *sent < LOST_AFTER);
        self.counts.lost += (before - self.under_way.len()) as u64;
        let refused = self.last_error.is_some() && self.counts.received == 0;
        if refused || now - self.last_answer > PATIENCE {
            let why = self.last_error.take();
            return Err(why.unwrap_or_else(|| "nothing comes back".into()).into());
        }
        cx.set_timer(LOOK, 0);
        self.go_on(cx);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Context<'_, Measured>, closed: &CloseInfo) {
        if cx.state.failure.is_some() {
            cx.state.failure = Some(closed.to_string());
        }
        cx.net.stop();
    }
}
