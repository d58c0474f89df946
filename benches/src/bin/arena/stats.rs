//! Order statistics of a few numbers.

/// The median and the quartiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Spread {
    /// One value, known without a spread.
    pub fn exactly(value: f64) -> Self {
        Self { low: value, median: value, high: value }
    }
}

/// Linear between the two nearest ranks. Not a number for an empty list.
pub fn spread(mut values: Vec<f64>) -> Spread {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
        let rank = part * last as f64;
        let (below, above) = (values[rank.floor() as usize], values[rank.ceil() as usize]);
        below + (above - below) * rank.fract()
    };
    Spread { low: at(0.25), median: at(0.5), high: at(0.75) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_between_two_values_are_interpolated() {
        let found = spread(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!(found, Spread { low: 1.75, median: 2.5, high: 3.25 });
    }

    #[test]
    fn one_value_is_all_three() {
        assert_eq!(spread(vec![7.0]), Spread { low: 7.0, median: 7.0, high: 7.0 });
    }
}
