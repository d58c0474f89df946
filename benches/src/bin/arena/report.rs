//! The rows of a run as CSV, and what they say as Markdown.

use crate::Result;
use crate::load::Slice;
use crate::options::Options;
use crate::peers;
use crate::scenario::{Kind, Scenario};
use crate::stats::{Spread, spread};
use arena::server::Over;
use std::fmt::Write;
use std::path::Path;

/// One slice of one peer.
#[derive(Clone, Debug)]
pub struct Row {
    pub scenario: String,
    pub peer: String,
    pub round: usize,
    /// The server's resident memory for each connection, in bytes.
    pub memory: u64,
    pub slice: Slice,
}

impl Row {
    pub fn rate(&self) -> f64 {
        self.slice.messages as f64 / self.slice.seconds
    }

    pub fn cpu_us(&self) -> f64 {
        self.slice.cpu_ns as f64 / 1_000.0 / self.slice.messages as f64
    }

    fn both_us(&self) -> f64 {
        (self.slice.cpu_ns + self.slice.load_ns) as f64 / 1_000.0 / self.slice.messages as f64
    }
}

pub fn write_csv(path: &Path, rows: &[Row]) -> Result<()> {
    let mut text = format!("scenario,peer,round,memory_per_connection,{}\n", Slice::COLUMNS);
    for Row { scenario, peer, round, memory, slice } in rows {
        writeln!(text, "{scenario},{peer},{round},{memory},{}", slice.to_csv())?;
    }
    Ok(std::fs::write(path, text)?)
}

pub fn read_csv(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path)?;
    let parse = |line: &str| {
        let mut fields = line.splitn(5, ',');
        Some(Row {
            scenario: fields.next()?.to_owned(),
            peer: fields.next()?.to_owned(),
            round: fields.next()?.parse().ok()?,
            memory: fields.next()?.parse().ok()?,
            slice: Slice::from_csv(fields.next()?)?,
        })
    };
    let rows = text.lines().skip(1).map(|line| parse(line).ok_or(format!("not a row: {line:?}")));
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

pub fn print_again(options: &Options) -> Result<()> {
    println!("{}", tables(&read_csv(&options.input("csv", "arena.csv")?)?));
    Ok(())
}

/// The values in the order in which they first appear.
pub fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

/// One peer in one scenario.
pub struct Summary {
    pub rate: Spread,
    pub cpu_us: Spread,
    /// Divided by the base's value of the same round.
    pub rate_ratio: Spread,
    pub cpu_ratio: Spread,
    /// Of the server's CPU and the generator's together.
    pub both_ratio: Spread,
    pub p50_ratio: Spread,
    pub p50_us: Spread,
    pub p99_us: Spread,
    /// Only where there are enough connections to divide by.
    pub memory: Option<u64>,
    pub lost: u64,
    pub is_base: bool,
}

impl Summary {
    pub fn of(rows: &[Row], scenario: &str, peer: &str) -> Option<Self> {
        let of_peer = |name: &str| -> Vec<&Row> {
            rows.iter().filter(|row| row.scenario == scenario && row.peer == name).collect()
        };
        let own = of_peer(peer);
        if own.is_empty() {
            return None;
        }
        let found = Scenario::find(scenario);
        let many = found.is_some_and(Scenario::tells_memory);
        let base_name = peers::base(found.map_or(Over::Plain, |found| found.over));
        let base = of_peer(base_name);
        // A slice in which nothing came back (UDP may lose all) has no figures.
        let told = |values: &mut dyn Iterator<Item = f64>| {
            spread(values.filter(|value| value.is_finite()).collect())
        };
        let ratio = |value: fn(&Row) -> f64| {
            let same_round =
                |row: &&Row| base.iter().find(|other| other.round == row.round).copied();
            told(&mut own.iter().filter_map(|r| Some(value(r) / value(same_round(r)?))))
        };
        let values = |value: fn(&Row) -> f64| told(&mut own.iter().map(|row| value(row)));
        Some(Self {
            rate: values(Row::rate),
            cpu_us: values(Row::cpu_us),
            rate_ratio: ratio(Row::rate),
            cpu_ratio: ratio(Row::cpu_us),
            both_ratio: ratio(Row::both_us),
            p50_ratio: ratio(|row| row.slice.p50_us),
            p50_us: values(|row| row.slice.p50_us),
            p99_us: values(|row| row.slice.p99_us),
            memory: own.first().map(|row| row.memory).filter(|_| many),
            lost: own.iter().map(|row| row.slice.lost).sum(),
            is_base: peer == base_name,
        })
    }
}

/// First what compares all scenarios of one base, then one table for each.
pub fn tables(rows: &[Row]) -> String {
    let mut text = String::new();
    for base in bases(rows) {
        let is_compared = |row: &&Row| base_of(&row.scenario) == Some(base);
        let rows: Vec<_> = rows.iter().filter(is_compared).cloned().collect();
        comparisons(&mut text, &rows, base);
    }
    for scenario in distinct(rows.iter().map(|row| row.scenario.as_str())) {
        detail(&mut text, rows, scenario);
    }
    text
}

/// What the scenarios of these rows are compared with.
pub fn bases(rows: &[Row]) -> Vec<&str> {
    distinct(rows.iter().filter_map(|row| base_of(&row.scenario)))
}

fn base_of(scenario: &str) -> Option<&'static str> {
    Scenario::find(scenario).map(|found| peers::base(found.over))
}

fn comparisons(text: &mut String, rows: &[Row], base: &str) {
    // Settings of a peer are in a few scenarios only: they have a column where latency is told, and rows further down.
    let peers: Vec<_> = rows.iter().filter(|row| !peers::is_setting(&row.peer)).cloned().collect();
    let title = format!(
        "## CPU for each unit, ratio to {base} in the same round: median (quartiles). {base}: µs"
    );
    ratios(text, &peers, &title, |_| true, |s| s.cpu_us, |s| s.cpu_ratio);
    let title =
        format!("## Rate, ratio to {base} in the same round: median (quartiles). {base}: /s");
    let closed = |scenario: &Scenario| !scenario.kind.is_paced();
    ratios(text, &peers, &title, closed, |s| s.rate, |s| s.rate_ratio);
    let title =
        format!("## Latency, µs: p50 / p99 (medians of the slices; the p50's ratio to {base})");
    wide(
        text,
        rows,
        &title,
        |scenario| scenario.kind.tells_latency(),
        |summary| {
            let Summary { p50_us, p99_us, p50_ratio, .. } = summary;
            let (p50, p99) = (short(p50_us.median), short(p99_us.median));
            format!("{p50} / {p99} ({:.2})", p50_ratio.median)
        },
    );
    let title = "## Resident memory for each connection, bytes";
    wide(text, rows, title, Scenario::tells_memory, |summary| {
        summary.memory.map_or("–".into(), |bytes| bytes.to_string())
    });
}

/// A value of a summary.
type Value = fn(&Summary) -> Spread;

/// The base in absolute numbers, the others as ratios.
fn ratios(
    text: &mut String,
    rows: &[Row],
    title: &str,
    of: impl Fn(&Scenario) -> bool,
    absolute: Value,
    ratio: Value,
) {
    wide(text, rows, title, of, |summary| match summary.is_base {
        true => short(absolute(summary).median),
        false => {
            let Spread { low, median, high } = ratio(summary);
            format!("{median:.2} ({low:.2}–{high:.2})")
        }
    });
}

/// A row for each scenario, a column for each peer; nothing where there is no such scenario.
fn wide(
    text: &mut String,
    rows: &[Row],
    title: &str,
    of: impl Fn(&Scenario) -> bool,
    cell: impl Fn(&Summary) -> String,
) {
    let is_in = |row: &&Row| Scenario::find(&row.scenario).is_some_and(&of);
    if !rows.iter().any(|row| is_in(&row)) {
        return;
    }
    *text += &format!("{title}\n\n");
    let names = distinct(rows.iter().filter(is_in).map(|row| row.peer.as_str()));
    *text += "| scenario | rounds |";
    *text += &names.iter().map(|name| format!(" {name} |")).collect::<String>();
    *text += &format!("\n|---|---:|{}\n", "---:|".repeat(names.len()));
    for scenario in distinct(rows.iter().filter(is_in).map(|row| row.scenario.as_str())) {
        *text += &format!("| {scenario} | {} |", rounds(rows, scenario));
        for name in &names {
            let summary = Summary::of(rows, scenario, name);
            *text += &format!(" {} |", summary.map_or("–".into(), |summary| cell(&summary)));
        }
        *text += "\n";
    }
    *text += "\n";
}

fn rounds(rows: &[Row], scenario: &str) -> usize {
    let of_scenario = rows.iter().filter(|row| row.scenario == scenario);
    of_scenario.map(|row| row.round + 1).max().unwrap_or(0)
}

/// Three digits.
fn short(value: f64) -> String {
    match value {
        0.0..1.0 => format!("{value:.3}"),
        1.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

fn detail(text: &mut String, rows: &[Row], scenario: &str) {
    let kind = Scenario::find(scenario).map(|found| found.kind);
    let unit = kind.map_or("message", Kind::unit);
    let of_scenario = rows.iter().filter(|row| row.scenario == scenario);
    let rounds = rounds(rows, scenario);
    let pace = if kind.is_some_and(Kind::is_paced) { ", paced by the generator" } else { "" };
    *text += &format!("### {scenario} ({rounds} rounds, unit: {unit}{pace})\n\n");
    *text +=
        "| peer | rate /s | × | IQR | CPU µs | × | IQR | with the load's × | p50 µs | p99 µs |\n";
    *text += "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    for peer in distinct(of_scenario.map(|row| row.peer.as_str())) {
        let Some(summary) = Summary::of(rows, scenario, peer) else { continue };
        let Summary {
            rate, cpu_us, rate_ratio, cpu_ratio, both_ratio, p50_us, p99_us, lost, ..
        } = summary;
        let latency = |value: f64| if value > 0.0 { short(value) } else { "–".into() };
        let lost = if lost > 0 { format!(" ({lost} lost)") } else { String::new() };
        *text += &format!(
            "| {peer}{lost} | {:.0} | {:.2} | {:.2}–{:.2} | {} | {:.2} | {:.2}–{:.2} | {:.2} | {} | {} |\n",
            rate.median,
            rate_ratio.median,
            rate_ratio.low,
            rate_ratio.high,
            short(cpu_us.median),
            cpu_ratio.median,
            cpu_ratio.low,
            cpu_ratio.high,
            both_ratio.median,
            latency(p50_us.median),
            latency(p99_us.median),
        );
    }
    *text += "\n";
}
