//! Figures as text for Prometheus: the exposition format, version 0.0.4.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::{self, Write as _};
#[cfg(feature = "histograms")]
use std::time::Duration;

use super::{Kind, ReactorStats};

/// The figures of a reactor as one page for Prometheus; [`Exposition`] has more on a page.
///
/// ```
/// use tidegate::{Reactor, stats};
///
/// let mut reactor = Reactor::new()?;
/// let page = stats::prometheus(&reactor.net().stats());
/// assert!(page.contains("# TYPE tidegate_turns_total counter\ntidegate_turns_total 0\n"));
/// # Ok::<(), tidegate::Error>(())
/// ```
pub fn prometheus(stats: &ReactorStats) -> String {
    let mut page = Exposition::new();
    page.reactor(stats);
    page.into_string()
}

/// A page for Prometheus, written figure by figure.
///
/// The names of the reactor's figures begin with `tidegate_`, and those of counters end in `_total`.
/// Ends of connections are `tidegate_closed_total`, with the reason as a label, and those of sessions
/// `tidegate_sessions_closed_total`. A page of two thousand
/// samples takes a fraction of a millisecond to write; it can be answered from a listener of the same
/// reactor (`examples/metrics.rs`).
///
/// ```
/// use tidegate::Reactor;
/// use tidegate::stats::Exposition;
///
/// let mut reactor = Reactor::new()?;
/// let mut page = Exposition::new().label("shard", "3");
/// page.reactor(&reactor.net().stats());
/// page.gauge("game_players", "Players in the world.", 12);
/// assert!(page.as_str().ends_with("game_players{shard=\"3\"} 12\n"));
/// # Ok::<(), tidegate::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Exposition {
    text: String,
    /// `name="value"`, escaped, with commas between them.
    labels: String,
}

impl Exposition {
    /// The `Content-Type` of an answer with such a page.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// A label for every sample that follows, in addition to those before: which of several reactors it is,
    /// say. A figure has one value on a page, so that a label cannot tell several of one name apart. Each
    /// value of a label is a time series of its own, so that it must not be anything that peers choose.
    /// What a name may not have in it becomes `_`.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        let comma = if self.labels.is_empty() { "" } else { "," };
        self.labels.push_str(comma);
        self.labels.push_str(&named(name, false));
        self.labels.push_str("=\"");
        escape(&mut self.labels, value, true);
        self.labels.push('"');
        self
    }

    /// The figures of a reactor.
    pub fn reactor(&mut self, stats: &ReactorStats) {
        let values = ReactorStats::FIGURES.iter().zip(stats.values());
        for (&(name, kind, help), value) in values {
            match kind {
                Kind::Counter => self.counter(&format!("tidegate_{name}_total"), help, value),
                Kind::Gauge => self.gauge(&format!("tidegate_{name}"), help, value),
            }
        }
        let name = "tidegate_closed_total";
        self.head(name, "Connections that have ended, by the reason.", "counter");
        for (reason, count) in stats.closed.of_connections() {
            self.sample(name, Some(("reason", reason)), count);
        }
        let name = "tidegate_sessions_closed_total";
        self.head(name, "Sessions of UDP peers that have ended, by the reason.", "counter");
        for (reason, count) in stats.sessions_closed.of_sessions() {
            self.sample(name, Some(("reason", reason)), count);
        }
    }

    /// What was measured: each histogram as a summary, in seconds. Its quantiles are those of the
    /// interval since the last call of [`Net::take_latency`](crate::Net::take_latency) (`NaN` if nothing
    /// happened in it), its count and its sum those of all time.
    #[cfg(feature = "histograms")]
    pub fn latency(&mut self, latency: &super::Latency) {
        const HELP: [(&str, &str); 5] = [
            ("tidegate_turn_seconds", "Turns, without the wait for events."),
            ("tidegate_callback_seconds", "Callbacks of handlers, hooks and closures."),
            ("tidegate_timer_late_seconds", "How late timers fired."),
            ("tidegate_event_wait_seconds", "How long callbacks waited since the poll returned."),
            ("tidegate_post_wait_seconds", "How long messages of other threads waited."),
        ];
        for ((name, help), (_, histogram)) in HELP.into_iter().zip(latency.fields()) {
            self.head(name, help, "summary");
            for (label, quantile) in
                [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99), ("0.999", 0.999), ("1", 1.0)]
            {
                let value = histogram.value_at(quantile);
                let value = (histogram.count() > 0).then_some(Seconds(value));
                match value {
                    Some(seconds) => self.sample(name, Some(("quantile", label)), seconds),
                    None => self.sample(name, Some(("quantile", label)), "NaN"),
                }
            }
            self.sample(&format!("{name}_sum"), None, Seconds(histogram.total_sum()));
            self.sample(&format!("{name}_count"), None, histogram.total_count());
        }
    }

    /// A counter of your own. Its name ends in `_total` by convention.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.figure(name, help, "counter", value);
    }

    /// A gauge of your own.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.figure(name, help, "gauge", value);
    }

    /// The page.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The page.
    pub fn into_string(self) -> String {
        self.text
    }

    fn figure(&mut self, name: &str, help: &str, kind: &str, value: u64) {
        let name = named(name, true);
        self.head(&name, help, kind);
        self.sample(&name, None, value);
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        escape(&mut self.text, help.trim(), false);
        // Writing to a string cannot fail.
        let _ = write!(self.text, "\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, own: Option<(&str, &str)>, value: impl fmt::Display) {
        self.text.push_str(name);
        if own.is_some() || !self.labels.is_empty() {
            self.text.push('{');
            self.text.push_str(&self.labels);
            if let Some((label, of)) = own {
                let comma = if self.labels.is_empty() { "" } else { "," };
                let _ = write!(self.text, "{comma}{label}=\"{of}\"");
            }
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

impl fmt::Display for Exposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A duration as seconds, exact to the nanosecond.
#[cfg(feature = "histograms")]
struct Seconds(Duration);

#[cfg(feature = "histograms")]
impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0.as_secs(), self.0.subsec_nanos())
    }
}

/// A name as the format allows it: letters, digits, `_`, and in the names of metrics `:`; no digit first.
fn named(name: &str, colon: bool) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || colon && c == ':';
    let mut named: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    if named.is_empty() || named.starts_with(|c: char| c.is_ascii_digit()) {
        named.insert(0, '_');
    }
    named
}

fn escape(into: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            '"' if quotes => into.push_str("\\\""),
            c => into.push(c),
        }
    }
}

#[cfg(test)]
#[path = "prometheus_tests.rs"]
mod tests;
