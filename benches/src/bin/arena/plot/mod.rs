//! The plots of a run, as SVG: what compares the peers, and how cost grows.

mod dots;
mod growth;
mod parts;

use crate::Result;
use crate::options::Options;
use crate::peers;
use crate::report::{self, Row};
use crate::scenario::Scenario;
use crate::stats::Spread;
use dots::{Chart, Mark};
use growth::{Line, Panel};
use parts::Parts;
use std::path::Path;

/// Draws again what a run drew, and the timers where the micro-benchmarks were kept.
pub fn plot(options: &Options) -> Result<()> {
    let out = options.out()?;
    draw(&report::read_csv(&options.input("csv", "arena.csv")?)?, &out)?;
    let file = options.input("parts", "parts.txt")?;
    match std::fs::read_to_string(&file) {
        Ok(text) => std::fs::write(out.join("timers.svg"), timers(&Parts::parse(&text)))?,
        Err(error) => eprintln!("no timers.svg: {}: {error}", file.display()),
    }
    Ok(())
}

/// Writes `cpu.svg`, `rate.svg`, `latency.svg`, `memory.svg` and `growth.svg`.
pub fn draw(rows: &[Row], out: &Path) -> Result<()> {
    let base = match report::bases(rows)[..] {
        ["epoll"] => "raw epoll",
        [base] => base,
        _ => "the base of the scenario",
    };
    let charts = [
        Chart {
            file: "cpu.svg",
            title: format!("CPU of the server for each unit, ratio to {base} (less is better)"),
            of: |_| true,
            marks: &[Mark::Dot(|summary| summary.cpu_ratio)],
            reference: Some(1.0),
            limits: RATIOS,
            settings: false,
        },
        Chart {
            file: "rate.svg",
            title: format!("rate, ratio to {base} (more is better)"),
            of: |scenario| !scenario.kind.is_paced(),
            marks: &[Mark::Dot(|summary| summary.rate_ratio)],
            reference: Some(1.0),
            limits: RATIOS,
            settings: false,
        },
        Chart {
            file: "latency.svg",
            title: "latency in µs: dot p50, bar p99 (less is better)".to_owned(),
            of: |scenario| scenario.kind.tells_latency(),
            marks: &[Mark::Dot(|summary| summary.p50_us), Mark::Bar(|summary| summary.p99_us)],
            reference: None,
            limits: (0.0, f64::INFINITY),
            settings: true,
        },
        Chart {
            file: "memory.svg",
            title: "resident bytes for each connection (less is better)".to_owned(),
            of: Scenario::tells_memory,
            marks: &[Mark::Dot(|summary| {
                Spread::exactly(summary.memory.map_or(f64::NAN, |bytes| bytes as f64))
            })],
            reference: None,
            limits: (0.0, f64::INFINITY),
            settings: true,
        },
    ];
    for chart in charts {
        std::fs::write(out.join(chart.file), chart.draw(rows))?;
    }
    // What grows is in the scenarios without layers.
    if rows.iter().any(|row| row.scenario.starts_with("ping")) {
        std::fs::write(out.join("growth.svg"), cost(rows))?;
    }
    Ok(())
}

/// What is drawn of ratios; the few beyond are told as numbers. With them the axis would have no room for the rest.
const RATIOS: (f64, f64) = (0.4, 2.5);

/// CPU for each unit over what there is more of.
fn cost(rows: &[Row]) -> String {
    let panels = [
        (
            "64 B echo, µs, over connections",
            &[(1.0, "ping-1"), (64.0, "ping-64"), (1e3, "ping-1000"), (1e4, "ping-10000")][..],
        ),
        (
            "echo on 64 connections (of 256 KiB: 8), µs, over its size",
            &[
                (64.0, "ping-64"),
                (1024.0, "size-1k"),
                (16384.0, "size-16k"),
                (262_144.0, "size-256k"),
            ],
        ),
        (
            "64 B echo on 64 connections, µs, over how many are under way",
            &[(1.0, "ping-64"), (16.0, "pipe-16"), (64.0, "pipe-64")],
        ),
        (
            "chat, 16 speakers (of 10: all), µs a delivery, over members",
            &[(10.0, "chat-10-few"), (100.0, "chat-100-few"), (1e3, "chat-1000-few")],
        ),
    ];
    let panels = panels.map(|(title, scenarios)| Panel {
        title,
        lines: report::distinct(rows.iter().map(|row| row.peer.as_str()))
            .into_iter()
            .filter(|peer| !peers::is_setting(peer))
            .map(|peer| Line {
                name: peer,
                colour: colour(peer),
                points: scenarios
                    .iter()
                    .filter_map(|&(x, scenario)| {
                        Some((x, report::Summary::of(rows, scenario, peer)?.cpu_us.median))
                    })
                    .collect(),
            })
            .collect(),
    });
    growth::draw("CPU of the server for each unit", &panels)
}

/// Nanoseconds for each operation over the number of timers.
fn timers(parts: &Parts) -> String {
    let panels = ["insert", "rearm", "cancel", "fire"].map(|operation| Panel {
        title: operation,
        lines: [
            ("the wheel alone", "Wheel", colour("tidegate-spin")),
            ("tidegate's API", "Net", colour("tidegate")),
            ("DelayQueue", "DelayQueue", colour("tokio")),
        ]
        .into_iter()
        .map(|(name, of, colour)| Line { name, colour, points: parts.series(of, operation) })
        .collect(),
    });
    growth::draw("ns for each timer operation, over the number of timers", &panels)
}

/// Grey for what others are compared with, blue for tidegate, light blue for its other setting; the others by their order.
fn colour(peer: &str) -> &'static str {
    const OTHERS: [&str; 7] =
        ["#e69f00", "#009e73", "#cc79a7", "#8c564b", "#d55e00", "#7f7f00", "#00a0b0"];
    match peer {
        "tidegate" => "#0060df",
        _ if peers::is_base(peer) => "#444444",
        _ if peers::is_setting(peer) => "#6ab7ff",
        _ => {
            let place = peers::ALL.iter().position(|known| known.name == peer).unwrap_or(0);
            OTHERS[place % OTHERS.len()]
        }
    }
}

fn text(x: f64, y: f64, anchor: &str, words: &str) -> String {
    format!("<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{words}</text>\n")
}

fn line(from: (f64, f64), to: (f64, f64), style: &str) -> String {
    let ((x1, y1), (x2, y2)) = (from, to);
    format!("<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" {style}/>\n")
}

/// A coloured swatch for each name, from left to right.
fn legend<'a>(names: impl IntoIterator<Item = (&'a str, &'static str)>, x: f64, y: f64) -> String {
    let mut at = x;
    let mut drawn = String::new();
    for (name, fill) in names {
        drawn +=
            &format!("<circle cx=\"{at:.0}\" cy=\"{:.0}\" r=\"4\" fill=\"{fill}\"/>\n", y - 4.0);
        drawn += &text(at + 8.0, y, "start", name);
        at += 30.0 + 6.5 * name.len() as f64;
    }
    drawn
}

fn document(width: f64, height: f64, title: &str, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width:.0}\" height=\"{height:.0}\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"22\" font-size=\"15\">{title}</text>\n{body}</svg>\n"
    )
}

/// A logarithmic axis between two places of the drawing.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Over the values, and a little more on both sides; none where there are none.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let (low, high) = values
            .filter(|value| value.is_finite() && *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        (high > 0.0).then(|| Self { low: low / 1.08, high: high * 1.08, from, to })
    }

    fn limited(self, (low, high): (f64, f64)) -> Self {
        Self { low: self.low.max(low), high: self.high.min(high), ..self }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.clamp(self.low, self.high) / self.low).ln() / (self.high / self.low).ln();
        self.from + part * (self.to - self.from)
    }

    /// Round numbers, few enough to be read.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = match self.high / self.low {
            ..2.0 => &[1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 3.0, 5.0, 7.0, 8.0, 9.0],
            ..8.0 => &[1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 7.0],
            ..200.0 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let decades = -3..=9;
        decades
            .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
            .filter(|value| (self.low..=self.high).contains(value))
            .collect()
    }
}

/// `1000000` as `1M`, without a fraction that is zero.
fn round_number(value: f64) -> String {
    match value {
        1024.0.. if value % 1024.0 == 0.0 => format!("{} Ki", value / 1024.0),
        1e6.. => format!("{}M", value / 1e6),
        1e3.. => format!("{}k", value / 1e3),
        _ => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}
