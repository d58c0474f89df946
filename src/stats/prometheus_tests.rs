//! The page, read by a parser that is stricter than the format: every metric has its HELP and TYPE once
//! and before its samples, which stand together.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::error::{CloseReason, Deadline};

type Labels = Vec<(String, String)>;

/// A metric: its type and its samples.
#[derive(Debug)]
struct Metric {
    kind: String,
    samples: Vec<(String, Labels, f64)>,
}

fn is_name(name: &str, colon: bool) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || colon && c == ':')
}

/// The labels behind a name, up to and with the closing brace; what is left of the line.
fn labels(mut rest: &str) -> (Labels, &str) {
    let mut labels = Vec::new();
    loop {
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(is_name(name, false), "{name}");
        let mut text = String::new();
        let mut chars = value.char_indices();
        let end = loop {
            match chars.next().expect("a value ends") {
                (at, '"') => break at,
                (_, '\\') => text.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    c @ ('\\' | '"') => c,
                    other => panic!("no such escape: {other}"),
                }),
                (_, c) => text.push(c),
            }
        };
        labels.push((name.to_owned(), text));
        rest = &value[end + 1..];
        match rest.split_at(1) {
            (",", more) => rest = more,
            ("}", more) => return (labels, more),
            (other, _) => panic!("expected a comma or a brace, got {other}"),
        }
    }
}

fn parse(page: &str) -> HashMap<String, Metric> {
    assert!(page.is_empty() || page.ends_with('\n'), "the last line ends, too");
    let mut metrics: HashMap<String, Metric> = HashMap::new();
    let (mut helped, mut current) = (None, String::new());
    let mut seen = HashSet::new();
    for line in page.lines() {
        assert_eq!(line, line.trim(), "no blanks around a line");
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(is_name(name, true) && !text.is_empty(), "{line}");
            helped = Some(name.to_owned());
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, kind) = of.split_once(' ').unwrap();
            assert_eq!(helped.take().as_deref(), Some(name), "HELP comes right before TYPE");
            assert!(["counter", "gauge", "summary"].contains(&kind), "{line}");
            let new = Metric { kind: kind.to_owned(), samples: Vec::new() };
            assert!(metrics.insert(name.to_owned(), new).is_none(), "{name} is there twice");
            current = name.to_owned();
        } else {
            let end = line.find(['{', ' ']).unwrap();
            let (name, rest) = line.split_at(end);
            assert!(is_name(name, true), "{line}");
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => labels(rest),
                None => (Vec::new(), rest),
            };
            let value = value.strip_prefix(' ').expect("one blank before the value");
            let metric = metrics.get_mut(&current).expect("samples follow their TYPE");
            let ending = name.strip_prefix(&current[..]).expect("samples of one metric together");
            let allowed: &[&str] =
                if metric.kind == "summary" { &["", "_sum", "_count"] } else { &[""] };
            assert!(allowed.contains(&ending), "{line}");
            assert!(seen.insert((name.to_owned(), labels.clone())), "twice: {line}");
            metric.samples.push((name.to_owned(), labels, value.parse().unwrap()));
        }
    }
    assert_eq!(helped, None, "a HELP has its TYPE");
    metrics
}

fn stats() -> ReactorStats {
    let mut stats = ReactorStats { turns: 7, bytes_read: u64::MAX, ..ReactorStats::default() };
    stats.connections = 3;
    stats.closed.count(&CloseReason::TimedOut(Deadline::Idle));
    stats
}

// row 165
#[test]
fn a_page_has_every_figure_once_with_its_kind() {
    let metrics = parse(&prometheus(&stats()));
    assert_eq!(metrics.len(), stats().fields().count());
    for (name, metric) in &metrics {
        let expected = if name.ends_with("_total") { "counter" } else { "gauge" };
        assert_eq!(metric.kind, expected, "{name}");
        assert!(name.starts_with("tidegate_"));
    }
    assert_eq!(metrics["tidegate_turns_total"].samples[0].2, 7.0);
    assert_eq!(metrics["tidegate_connections"].samples[0].2, 3.0);
    let closed = &metrics["tidegate_closed_total"].samples;
    assert_eq!(closed.iter().map(|sample| sample.2).sum::<f64>(), 1.0);
    let idle = ("reason".to_owned(), "idle_timeout".to_owned());
    assert!(closed.iter().any(|(_, labels, value)| labels[..] == [idle.clone()] && *value == 1.0));
}

// row 165
#[test]
fn names_and_values_that_the_format_does_not_allow_are_made_so() {
    let mut page = Exposition::new().label("9 lives", "a\\b\"c\nd").label("", "x");
    page.gauge("my-gauge", "Two\nlines \\ one.", 5);
    page.reactor(&stats());
    let metrics = parse(page.as_str());
    let (name, labels, value) = &metrics["my_gauge"].samples[0];
    assert_eq!((&name[..], *value), ("my_gauge", 5.0));
    let pairs: Vec<_> = labels.iter().map(|(n, v)| (&n[..], &v[..])).collect();
    assert_eq!(pairs, [("_9_lives", "a\\b\"c\nd"), ("_", "x")]);
    assert_eq!(metrics["tidegate_closed_total"].samples[0].1.len(), 3);
}

// row 165
#[cfg(feature = "histograms")]
#[test]
fn histograms_are_summaries_in_seconds() {
    let mut latency = crate::stats::Latency::default();
    for micros in 1..=1000 {
        latency.timers.record(Duration::from_micros(micros));
    }
    let mut page = Exposition::new();
    page.latency(&latency);
    let metrics = parse(page.as_str());
    assert_eq!(metrics.len(), 5);
    let samples = &metrics["tidegate_timer_late_seconds"].samples;
    let of = |ending: &str, quantile: &str| {
        let sample = samples.iter().find(|(name, labels, _)| {
            name.ends_with(ending) && labels.first().is_none_or(|(_, value)| value == quantile)
        });
        sample.unwrap().2
    };
    assert!((of("seconds", "0.5") - 500e-6).abs() < 5e-6);
    assert!((of("_sum", "") - 0.5005).abs() < 1e-9);
    assert_eq!(of("_count", ""), 1000.0);
    assert!(metrics["tidegate_turn_seconds"].samples[0].2.is_nan(), "nothing happened");
}
