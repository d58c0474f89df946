//! What was found, for people and for programs; and the progress meanwhile.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::{Duration, Instant};

use tidegate::ReactorStats;

use super::Measured;
use super::datagram::Counts;

/// Light in fibre, in kilometres a second: about two thirds of its speed in vacuum.
const FIBRE_KM_PER_SECOND: f64 = 299_792.458 * 2.0 / 3.0;

/// Quantiles of the round trips that are reported.
const QUANTILES: [(&str, f64); 6] =
    [("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

pub(crate) struct Report {
    address: String,
    over: &'static str,
    data: String,
    pub(crate) ping_size: usize,
    pub(crate) message: usize,
    pub(crate) distance_km: Option<f64>,
    pub(crate) connected: Option<Duration>,
    pub(crate) datagrams: Option<Counts>,
    round_trips: u64,
    /// In microseconds.
    quantiles: [f64; QUANTILES.len()],
    bytes: u64,
    time: Duration,
    /// What this side's loop did for the throughput.
    stats: ReactorStats,
    codecs: Vec<Codec>,
}

struct Codec {
    name: &'static str,
    original: u64,
    wire: u64,
    time: Duration,
}

impl Report {
    pub(crate) fn new(address: String, over: &'static str, data: String) -> Self {
        Report {
            address,
            over,
            data,
            ping_size: 0,
            message: 0,
            distance_km: None,
            connected: None,
            datagrams: None,
            round_trips: 0,
            quantiles: [0.0; QUANTILES.len()],
            bytes: 0,
            time: Duration::ZERO,
            stats: ReactorStats::default(),
            codecs: Vec::new(),
        }
    }

    pub(crate) fn latency(&mut self, found: &Measured) {
        self.round_trips = found.round_trips.len();
        self.quantiles =
            QUANTILES.map(|(_, q)| found.round_trips.value_at_quantile(q) as f64 / 1000.0);
    }

    pub(crate) fn throughput(&mut self, found: &Measured) {
        (self.bytes, self.time, self.stats) = (found.bytes, found.time, found.stats);
    }

    pub(crate) fn compression(&mut self, name: &'static str, found: &Measured) {
        if let Some(wire) = found.compressed {
            self.codecs.push(Codec { name, original: found.bytes, wire, time: found.time });
        }
    }

    /// The round trip that physics allows, in microseconds: twice the distance / speed.
    fn floor(&self) -> Option<f64> {
        self.distance_km.map(|km| 2.0 * km / FIBRE_KM_PER_SECOND * 1e6)
    }

    pub(crate) fn table(&self) -> String {
        let mut t = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_table(&mut t);
        t
    }

    fn write_table(&self, t: &mut String) -> std::fmt::Result {
        writeln!(t, "{} over {}", self.address, self.over)?;
        if let Some(connected) = self.connected {
            let handshake = if self.over == "tls" { ", TLS handshake included" } else { "" };
            let took = micros(connected.as_secs_f64() * 1e6);
            writeln!(t, "connected in {took}{handshake}")?;
        }
        writeln!(t, "\nlatency: {} round trips of {} bytes", self.round_trips, self.ping_size)?;
        for (name, _) in QUANTILES {
            write!(t, "{name:>12}")?;
        }
        writeln!(t)?;
        for value in self.quantiles {
            write!(t, "{:>12}", micros(value))?;
        }
        writeln!(t)?;
        if let (Some(floor), Some(km)) = (self.floor(), self.distance_km) {
            let times = self.quantiles[1] / floor;
            let floor = micros(floor);
            writeln!(
                t,
                "    floor: {floor}, {km} km of fibre there and back; p50 is {times:.2} times that"
            )?;
        }
        writeln!(t, "\nthroughput: there and back, {} bytes at a time", self.message)?;
        let size = self.bytes as f64 / f64::from(1 << 20);
        let rate = rate(self.bytes, self.time);
        writeln!(t, "    {size:.1} MiB in {:.3} s: {rate}", self.time.as_secs_f64())?;
        let ReactorStats { turns, reads, writes, writes_blocked, .. } = self.stats;
        writeln!(
            t,
            "    this side: {turns} turns, {reads} reads, {writes} writes; {writes_blocked} times the \
             socket was full"
        )?;
        if let Some(counts) = &self.datagrams {
            let lost = counts.lost as f64 / counts.sent.max(1) as f64 * 100.0;
            writeln!(
                t,
                "\ndatagrams: {} sent, {} lost ({lost:.3} %), {} reordered, {} twice or late",
                counts.sent, counts.lost, counts.reordered, counts.surplus
            )?;
        }
        writeln!(t, "\ncompression of {}, {} bytes at a time", self.data, self.message)?;
        writeln!(
            t,
            "    {:8}{:>8}{:>14}{:>14}   throughput",
            "", "rate", "original", "compressed"
        )?;
        for codec in &self.codecs {
            writeln!(
                t,
                "    {:8}{:>8.3}{:>14}{:>14}   {}",
                codec.name,
                codec.wire as f64 / codec.original.max(1) as f64,
                codec.original,
                codec.wire,
                self::rate(codec.original, codec.time)
            )?;
        }
        Ok(())
    }

    pub(crate) fn json(&self) -> String {
        let quantiles: Vec<String> = QUANTILES
            .iter()
            .zip(self.quantiles)
            .map(|((name, _), value)| format!("\"{}_us\":{value:.3}", name.replace('.', "_")))
            .collect();
        let optional = |value: Option<f64>| value.map_or("null".into(), |v| format!("{v:.3}"));
        let datagrams = self.datagrams.map_or("null".into(), |c| {
            format!(
                "{{\"sent\":{},\"received\":{},\"lost\":{},\"reordered\":{},\"surplus\":{}}}",
                c.sent, c.received, c.lost, c.reordered, c.surplus
            )
        });
        let codecs: Vec<String> = self.codecs.iter().map(Codec::json).collect();
        format!(
            "{{\"address\":{},\"over\":\"{}\",\"connected_us\":{},\
             \"latency\":{{\"round_trips\":{},\"bytes\":{},{},\"floor_us\":{}}},\
             \"throughput\":{{\"message_bytes\":{},{},\"turns\":{},\"reads\":{},\"writes\":{},\
             \"writes_blocked\":{}}},\"datagrams\":{datagrams},\
             \"data\":{},\"compression\":[{}]}}",
            string(&self.address),
            self.over,
            optional(self.connected.map(|c| c.as_secs_f64() * 1e6)),
            self.round_trips,
            self.ping_size,
            quantiles.join(","),
            optional(self.floor()),
            self.message,
            transfer(self.bytes, self.time),
            self.stats.turns,
            self.stats.reads,
            self.stats.writes,
            self.stats.writes_blocked,
            string(&self.data),
            codecs.join(",")
        )
    }
}

impl Codec {
    fn json(&self) -> String {
        format!(
            "{{\"codec\":\"{}\",\"rate\":{:.6},\"compressed_bytes\":{},{}}}",
            self.name,
            self.wire as f64 / self.original.max(1) as f64,
            self.wire,
            transfer(self.original, self.time)
        )
    }
}

fn transfer(bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    format!(
        "\"bytes\":{bytes},\"seconds\":{seconds:.6},\"bytes_per_second\":{:.0}",
        bytes as f64 / seconds.max(1e-9)
    )
}

/// A string as JSON has it (RFC 8259, section 7).
fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

fn micros(us: f64) -> String {
    if us < 1000.0 { format!("{us:.1} us") } else { format!("{:.2} ms", us / 1000.0) }
}

fn rate(bytes: u64, time: Duration) -> String {
    let per_second = bytes as f64 / time.as_secs_f64().max(1e-9);
    format!("{:.1} MiB/s, {:.3} Gbit/s", per_second / f64::from(1 << 20), per_second * 8.0 / 1e9)
}

/// A line that is written over and over, on a terminal only.
pub(crate) struct Progress {
    what: &'static str,
    terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    pub(crate) fn new(what: &'static str) -> Self {
        Progress { what, terminal: std::io::stderr().is_terminal(), shown: None }
    }

    pub(crate) fn what(&self) -> &'static str {
        self.what
    }

    pub(crate) fn show(&mut self, done: u64, of: u64) {
        let fresh = |at: Instant| at.elapsed() < Duration::from_millis(100);
        if !self.terminal || self.shown.is_some_and(fresh) {
            return;
        }
        self.shown = Some(Instant::now());
        let mut terminal = std::io::stderr().lock();
        let _ = write!(terminal, "\r{}: {} %\x1b[K", self.what, done * 100 / of.max(1));
        let _ = terminal.flush();
    }

    pub(crate) fn clear(&self) {
        if self.shown.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

/// Text as people write it, as far as a compressor can tell: few words often, many seldom. The same
/// in each run.
pub(crate) fn text(size: usize) -> Vec<u8> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        // xorshift64* (Marsaglia 2003, Vigna 2016).
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    };
    let syllables = ["ti", "de", "ga", "te", "ro", "men", "sla", "kor", "in", "us", "bre", "o"];
    let words: Vec<String> = (0..2000)
        .map(|_| (0..=next(3)).map(|_| syllables[next(syllables.len())]).collect())
        .collect();
    let mut text = String::with_capacity(size + 64);
    while text.len() < size {
        // The product of two makes the first words the common ones.
        let word = &words[next(words.len()) * next(words.len()) / words.len()];
        text.push_str(word);
        text.push_str(if next(12) == 0 { ".\n" } else { " " });
    }
    text.truncate(size);
    text.into_bytes()
}
