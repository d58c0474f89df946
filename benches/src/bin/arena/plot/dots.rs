//! A row for each scenario, and in it a mark for each peer: the medians, with the quartiles as whiskers.

use super::{Axis, colour, document, legend, line, round_number, text};
use crate::peers;
use crate::report::{Row, Summary, distinct};
use crate::scenario::Scenario;
use crate::stats::Spread;

/// What a mark shows of a peer; nothing where it is not finite.
type Value = fn(&Summary) -> Spread;

pub enum Mark {
    /// A dot, and a line from quartile to quartile.
    Dot(Value),
    /// A short upright bar.
    Bar(Value),
}

pub struct Chart {
    pub file: &'static str,
    pub title: String,
    /// The scenarios that it makes sense for.
    pub of: fn(&Scenario) -> bool,
    pub marks: &'static [Mark],
    /// A value that is drawn as a line from top to bottom.
    pub reference: Option<f64>,
    /// The ends of the axis, where the values go beyond.
    pub limits: (f64, f64),
    /// Whether settings of a peer are shown beside it.
    pub settings: bool,
}

const LEFT: f64 = 124.0;
const RIGHT: f64 = 820.0;
const TOP: f64 = 78.0;
/// Between two peers of one scenario: their marks never cover each other.
const STEP: f64 = 4.5;
const GAP: f64 = 7.0;

impl Chart {
    pub fn draw(&self, rows: &[Row]) -> String {
        let is_in = |row: &&Row| Scenario::find(&row.scenario).is_some_and(self.of);
        let mut peers = distinct(rows.iter().filter(is_in).map(|row| row.peer.as_str()));
        peers.retain(|peer| self.settings || !peers::is_setting(peer));
        let scenarios = distinct(rows.iter().filter(is_in).map(|row| row.scenario.as_str()));
        let summaries: Vec<Vec<_>> = scenarios
            .iter()
            .map(|scenario| peers.iter().map(|peer| Summary::of(rows, scenario, peer)).collect())
            .collect();
        let values = summaries.iter().flatten().flatten().flat_map(|summary| {
            self.marks.iter().flat_map(|mark| match mark {
                Mark::Dot(value) => [value(summary).low, value(summary).high],
                Mark::Bar(value) => [value(summary).median; 2],
            })
        });
        let Some(axis) = Axis::over(values.chain(self.reference), LEFT, RIGHT) else {
            return document(RIGHT, TOP, &self.title, "");
        };
        let height = STEP * (peers.len() - 1) as f64;
        let axis = axis.limited(self.limits);
        let bottom = TOP + scenarios.len() as f64 * (height + GAP);

        let mut body = legend(peers.iter().map(|peer| (*peer, colour(peer))), LEFT, 46.0);
        for (index, scenario) in scenarios.iter().enumerate() {
            let y = TOP + index as f64 * (height + GAP);
            if index % 2 == 0 {
                body += &format!(
                    "<rect x=\"0\" y=\"{:.1}\" width=\"{:.0}\" height=\"{:.1}\" fill=\"#f3f4f6\"/>\n",
                    y - GAP / 2.0,
                    RIGHT + 40.0,
                    height + GAP
                );
            }
            body += &text(LEFT - 12.0, y + height / 2.0 + 4.0, "end", scenario);
        }
        for tick in axis.ticks() {
            let x = axis.at(tick);
            body += &line((x, TOP - GAP / 2.0), (x, bottom), "stroke=\"#d0d3d8\"");
            body += &text(x, TOP - 9.0, "middle", &round_number(tick));
        }
        if let Some(reference) = self.reference {
            let x = axis.at(reference);
            body +=
                &line((x, TOP - GAP / 2.0), (x, bottom), "stroke=\"#444\" stroke-width=\"1.5\"");
        }
        for (index, scenario) in summaries.iter().enumerate() {
            let y = TOP + index as f64 * (height + GAP);
            for (index, (summary, peer)) in scenario.iter().zip(&peers).enumerate() {
                let Some(summary) = summary else { continue };
                for mark in self.marks {
                    body += &mark.draw(summary, &axis, y + index as f64 * STEP, colour(peer));
                }
            }
        }
        document(RIGHT + 40.0, bottom + 8.0, &self.title, &body)
    }
}

impl Mark {
    fn draw(&self, summary: &Summary, axis: &Axis, y: f64, colour: &str) -> String {
        let spread = match self {
            Mark::Dot(value) | Mark::Bar(value) => value(summary),
        };
        if !(spread.low.is_finite() && spread.low > 0.0) {
            return String::new();
        }
        if spread.median > axis.high {
            return beyond(spread.median, y, colour);
        }
        let x = axis.at(spread.median);
        let stroke = |width: f64| format!("stroke=\"{colour}\" stroke-width=\"{width}\"");
        match self {
            Mark::Dot(_) => {
                let (low, high) = (
                    (axis.at(spread.low.max(axis.low)), y),
                    (axis.at(spread.high.min(axis.high)), y),
                );
                let dot =
                    format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n");
                if high.0 - low.0 < 6.0 { dot } else { line(low, high, &stroke(1.2)) + &dot }
            }
            Mark::Bar(_) => line((x, y - 2.5), (x, y + 2.5), &stroke(2.5)),
        }
    }
}

/// A value for which the axis has no room: an arrow at its end, and the number.
fn beyond(value: f64, y: f64, colour: &str) -> String {
    let x = RIGHT + 2.0;
    format!(
        "<path d=\"M{x:.0} {:.1}l6 3l-6 3z\" fill=\"{colour}\"/>\n\
         <text x=\"{:.0}\" y=\"{:.1}\" font-size=\"9\" fill=\"{colour}\">{value:.1}</text>\n",
        y - 3.0,
        x + 8.0,
        y + 3.0
    )
}
