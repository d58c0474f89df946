//! The rows of a run as CSV, and what they say as Markdown.

use crate::Result;
use crate::load::Slice;
use crate::options::Options;
use crate::peers;
use crate::scenario::{Kind, Scenario};
use crate::stats::{Spread, spread};
use std::fmt::Write;
use std::path::{Path, PathBuf};

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
    let csv: PathBuf = options.required("csv")?;
    println!("{}", tables(&read_csv(&csv)?));
    Ok(())
}

/// The values in the order in which they first appear.
pub fn distinct<'a>(values: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for value in values {
        if !found.contains(&value.as_str()) {
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
    pub p50_us: Spread,
    pub p99_us: Spread,
    /// Only where there are enough connections to divide by.
    pub memory: Option<u64>,
    pub lost: u64,
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
        let kind = Scenario::find(scenario).map(|found| found.kind);
        let many = matches!(kind, Some(Kind::Echo { connections: 10_000.., .. }));
        let base = of_peer(peers::base().name);
        let ratio = |value: fn(&Row) -> f64| {
            let same_round =
                |row: &&Row| base.iter().find(|other| other.round == row.round).copied();
            spread(own.iter().filter_map(|r| Some(value(r) / value(same_round(r)?))).collect())
        };
        let values = |value: fn(&Row) -> f64| spread(own.iter().map(|row| value(row)).collect());
        Some(Self {
            rate: values(Row::rate),
            cpu_us: values(Row::cpu_us),
            rate_ratio: ratio(Row::rate),
            cpu_ratio: ratio(Row::cpu_us),
            p50_us: values(|row| row.slice.p50_us),
            p99_us: values(|row| row.slice.p99_us),
            memory: own.first().map(|row| row.memory).filter(|_| many),
            lost: own.iter().map(|row| row.slice.lost).sum(),
        })
    }
}

/// First one table of all CPU ratios, then one for each scenario.
pub fn tables(rows: &[Row]) -> String {
    let mut text = String::new();
    overview(&mut text, rows);
    for scenario in distinct(rows.iter().map(|row| &row.scenario)) {
        detail(&mut text, rows, scenario);
    }
    text
}

fn overview(text: &mut String, rows: &[Row]) {
    let names = distinct(rows.iter().map(|row| &row.peer));
    let base = peers::base().name;
    *text +=
        &format!("## CPU for each message, ratio to {base} (median of the rounds)\n\n| scenario |");
    *text += &names.iter().map(|name| format!(" {name} |")).collect::<String>();
    *text += &format!("\n|---|{}\n", "---:|".repeat(names.len()));
    for scenario in distinct(rows.iter().map(|row| &row.scenario)) {
        *text += &format!("| {scenario} |");
        for name in &names {
            match Summary::of(rows, scenario, name) {
                Some(summary) => *text += &format!(" {:.2} |", summary.cpu_ratio.median),
                None => *text += " – |",
            }
        }
        *text += "\n";
    }
}

fn detail(text: &mut String, rows: &[Row], scenario: &str) {
    let kind = Scenario::find(scenario).map(|found| found.kind);
    let unit = kind.map_or("message", Kind::unit);
    let of_scenario = rows.iter().filter(|row| row.scenario == scenario);
    let rounds = of_scenario.clone().map(|row| row.round + 1).max().unwrap_or(0);
    let pace = if kind.is_some_and(Kind::is_paced) { ", paced by the generator" } else { "" };
    *text += &format!("\n### {scenario} ({rounds} rounds, unit: {unit}{pace})\n\n");
    *text += "| peer | rate /s | × | IQR | CPU µs | × | IQR | p50 µs | p99 µs | B/connection |\n";
    *text += "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    for peer in distinct(of_scenario.map(|row| &row.peer)) {
        let Some(summary) = Summary::of(rows, scenario, peer) else { continue };
        let Summary { rate, cpu_us, rate_ratio, cpu_ratio, p50_us, p99_us, memory, lost, .. } =
            summary;
        let latency = |value: f64| if value > 0.0 { format!("{value:.0}") } else { "–".into() };
        let memory = memory.map_or("–".into(), |bytes| bytes.to_string());
        let lost = if lost > 0 { format!(" ({lost} lost)") } else { String::new() };
        *text += &format!(
            "| {peer}{lost} | {:.0} | {:.2} | {:.2}–{:.2} | {:.2} | {:.2} | {:.2}–{:.2} | {} | {} | {memory} |\n",
            rate.median,
            rate_ratio.median,
            rate_ratio.low,
            rate_ratio.high,
            cpu_us.median,
            cpu_ratio.median,
            cpu_ratio.low,
            cpu_ratio.high,
            latency(p50_us.median),
            latency(p99_us.median),
        );
    }
}
