//! How cost grows: panels side by side, both axes logarithmic, a line for each contestant.

use super::{Axis, colour, document, legend, line, round_number, text};

pub struct Panel<'a> {
    pub title: &'a str,
    pub lines: Vec<Line<'a>>,
}

pub struct Line<'a> {
    pub name: &'a str,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 250.0;
const TOP: f64 = 58.0;

pub fn draw(title: &str, panels: &[Panel<'_>]) -> String {
    let names: Vec<_> =
        panels.first().map_or(Vec::new(), |panel| panel.lines.iter().map(|l| l.name).collect());
    let mut body = legend(&names, 20.0, 44.0);
    for (index, panel) in panels.iter().enumerate() {
        body += &panel.draw((index % 2) as f64 * WIDTH, TOP + (index / 2) as f64 * HEIGHT);
    }
    document(2.0 * WIDTH, TOP + panels.len().div_ceil(2) as f64 * HEIGHT, title, &body)
}

impl Panel<'_> {
    fn draw(&self, left: f64, top: f64) -> String {
        let mut body = text(left + 46.0, top + 16.0, "start", self.title);
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (from, to, low, high) =
            (left + 46.0, left + WIDTH - 16.0, top + HEIGHT - 30.0, top + 26.0);
        let x = Axis::over(points().map(|point| point.0), from, to);
        let y = Axis::over(points().map(|point| point.1), low, high);
        let (Some(x), Some(y)) = (x, y) else {
            return body + &text(left + WIDTH / 2.0, top + HEIGHT / 2.0, "middle", "not measured");
        };
        let mut marked: Vec<_> = points().map(|point| point.0).collect();
        marked.sort_by(f64::total_cmp);
        marked.dedup();
        for value in marked {
            body += &line((x.at(value), low), (x.at(value), high), "stroke=\"#e3e5e9\"");
            body += &text(x.at(value), low + 16.0, "middle", &round_number(value));
        }
        for value in y.ticks() {
            body += &line((from, y.at(value)), (to, y.at(value)), "stroke=\"#d0d3d8\"");
            body += &text(from - 6.0, y.at(value) + 4.0, "end", &round_number(value));
        }
        for (index, Line { points, .. }) in self.lines.iter().enumerate() {
            let at: Vec<_> = points.iter().map(|&(a, b)| (x.at(a), y.at(b))).collect();
            let path: Vec<_> = at.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let (path, colour) = (path.join(" "), colour(index));
            body += &format!(
                "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>\n"
            );
            for (x, y) in at {
                body +=
                    &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.8\" fill=\"{colour}\"/>\n");
            }
        }
        body
    }
}
