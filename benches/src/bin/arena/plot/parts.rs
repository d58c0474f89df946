//! What `cargo bench --bench parts` printed: divan's tree, read for its medians.

pub struct Parts(Vec<Part>);

struct Part {
    /// From the outermost group to the argument.
    path: Vec<String>,
    /// Nanoseconds for each item.
    ns: f64,
}

impl Parts {
    /// Takes the lines that belong to the tree, and of those the medians.
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut path: Vec<String> = Vec::new();
        for line in text.lines() {
            let columns: Vec<_> = line.split('│').collect();
            let branch = line.chars().position(|c| c == '├' || c == '╰');
            if let Some(depth) = branch.map(|at| at / 3) {
                let name = line.trim_start_matches([' ', '│', '├', '╰', '─']);
                path.truncate(depth);
                path.extend(name.split_whitespace().next().map(str::to_owned));
            } else if let Some(rate) = items_per_second(&columns) {
                parts.push(Part { path: path.clone(), ns: 1e9 / rate });
            }
        }
        Self(parts)
    }

    /// The figures of one operation on one implementation, by the number that it was measured with.
    pub fn series(&self, of: &str, operation: &str) -> Vec<(f64, f64)> {
        let point = |Part { path, ns }: &Part| match &path[..] {
            [.., o, i, number] if o == operation && i == of => Some((number.parse().ok()?, *ns)),
            _ => None,
        };
        self.0.iter().filter_map(point).collect()
    }
}

/// The median in a line of throughputs: the fourth column from the end is "samples", before it mean and median.
fn items_per_second(columns: &[&str]) -> Option<f64> {
    let median = columns.len().checked_sub(4).and_then(|at| columns.get(at))?;
    let (number, unit) = median.trim().split_once(' ')?;
    let scale = match unit.strip_suffix("item/s")? {
        "" => 1.0,
        "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_found_in_the_tree() {
        let text = "\
parts                fastest       │ slowest       │ median        │ mean          │ samples │ iters
╰─ timers                          │               │               │               │         │
   ├─ cancel                       │               │               │               │         │
   │  ├─ Net                       │               │               │               │         │
   │  │  ├─ 1000     21.11 µs      │ 23.49 µs      │ 21.31 µs      │ 21.43 µs      │ 30      │ 30
   │  │  │           47.35 Mitem/s │ 42.56 Mitem/s │ 50 Mitem/s    │ 46.65 Mitem/s │         │
   │  ╰─ Wheel                     │               │               │               │         │
   │     ╰─ 1000000  82.73 µs      │ 187.8 µs      │ 94.73 µs      │ 102.4 µs      │ 30      │ 30
   │                 12.08 Mitem/s │ 5.324 Mitem/s │ 10 Mitem/s    │ 9.763 Mitem/s │         │
";
        let parts = Parts::parse(text);
        assert_eq!(parts.series("Net", "cancel"), [(1e3, 20.0)]);
        assert_eq!(parts.series("Wheel", "cancel"), [(1e6, 100.0)]);
        assert_eq!(parts.series("Wheel", "insert"), []);
    }
}
