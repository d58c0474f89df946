//! Plots as SVG: for each scenario a bar for each peer (the median) with a whisker (the quartiles).

use crate::Result;
use crate::options::Options;
use crate::report::{self, Row, Summary, distinct};
use crate::stats::Spread;
use std::path::{Path, PathBuf};

pub fn plot(options: &Options) -> Result<()> {
    let csv: PathBuf = options.required("csv")?;
    draw(&report::read_csv(&csv)?, &options.out()?)
}

/// What a plot shows of a peer; not finite where there is nothing to show.
type Value = fn(&Summary) -> Spread;

/// Writes `cpu.svg`, `rate.svg`, `p50.svg`, `p99.svg` and `memory.svg`.
pub fn draw(rows: &[Row], out: &Path) -> Result<()> {
    let plots: [(&str, &str, Value); 5] = [
        ("cpu.svg", "CPU for each message, ratio to raw epoll (less is better)", |s| s.cpu_ratio),
        ("rate.svg", "rate, ratio to raw epoll (more is better)", |s| s.rate_ratio),
        ("p50.svg", "latency, median, µs (less is better)", |s| s.p50_us),
        ("p99.svg", "latency, 99th percentile, µs (less is better)", |s| s.p99_us),
        ("memory.svg", "resident bytes for each connection (less is better)", |s| {
            let bytes = s.memory.map_or(f64::NAN, |bytes| bytes as f64);
            Spread { low: bytes, median: bytes, high: bytes }
        }),
    ];
    for (file, title, value) in plots {
        std::fs::write(out.join(file), chart(rows, title, value))?;
    }
    Ok(())
}

const COLOURS: [&str; 8] =
    ["#555555", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"];
const LEFT: f64 = 130.0;
const WIDTH: f64 = 560.0;
const TOP: f64 = 60.0;
const BAR: f64 = 11.0;
const GAP: f64 = 10.0;

/// Horizontal bars on an axis of each scenario's own: the scenarios differ by orders of magnitude.
fn chart(rows: &[Row], title: &str, value: Value) -> String {
    let peers = distinct(rows.iter().map(|row| &row.peer));
    let mut body = String::new();
    let mut y = TOP;
    for scenario in distinct(rows.iter().map(|row| &row.scenario)) {
        let bars: Vec<_> = peers
            .iter()
            .enumerate()
            .filter_map(|(index, peer)| Some((index, Summary::of(rows, scenario, peer)?)))
            .map(|(index, summary)| (index, value(&summary)))
            .filter(|(_, spread)| spread.median.is_finite() && spread.median > 0.0)
            .collect();
        let top = bars.iter().map(|(_, spread)| spread.high).fold(0.0, f64::max);
        let middle = y + bars.len() as f64 * BAR / 2.0 + 4.0;
        if !bars.is_empty() {
            body += &label(LEFT - 8.0, middle, "end", scenario);
        }
        for (index, spread) in &bars {
            body += &bar(y, COLOURS[index % COLOURS.len()], *spread, top);
            y += BAR;
        }
        y += if bars.is_empty() { 0.0 } else { GAP };
    }
    let legend: String = peers
        .iter()
        .enumerate()
        .map(|(index, peer)| {
            let x = LEFT + index as f64 * 85.0;
            let colour = COLOURS[index % COLOURS.len()];
            let swatch =
                format!(r#"<rect x="{x}" y="34" width="10" height="10" fill="{colour}"/>"#);
            swatch + &label(x + 14.0, 43.0, "start", peer)
        })
        .collect();
    let (width, height) = (LEFT + WIDTH + 80.0, y + GAP);
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">
<rect width="{width}" height="{height}" fill="white"/>
<text x="{LEFT}" y="20" font-size="14">{title}</text>
{legend}
{body}</svg>
"#
    )
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#)
}

fn bar(y: f64, colour: &str, spread: Spread, top: f64) -> String {
    let at = |value: f64| value / top * WIDTH;
    let (length, low, high) = (at(spread.median), LEFT + at(spread.low), LEFT + at(spread.high));
    let (height, middle) = (BAR - 1.0, y + BAR / 2.0 - 0.5);
    let number = match spread.median {
        median if median < 100.0 => format!("{median:.2}"),
        median => format!("{median:.0}"),
    };
    format!(
        r#"<rect x="{LEFT}" y="{y:.1}" width="{length:.1}" height="{height}" fill="{colour}"/><line x1="{low:.1}" x2="{high:.1}" y1="{middle:.1}" y2="{middle:.1}" stroke="black"/>"#
    ) + &label(high.max(LEFT + length) + 5.0, y + BAR - 2.0, "start", &number)
        + "\n"
}
