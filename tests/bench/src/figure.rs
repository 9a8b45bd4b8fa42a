//! A measured figure, its budget, and the table of all.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Budget {
    None,
    AtMost(f64),
    AtLeast(f64),
}

/// One figure.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
    budget: Budget,
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { what: what.into(), value, unit, budget: Budget::None }
    }

    pub(crate) fn at_most(mut self, max: f64) -> Self {
        self.budget = Budget::AtMost(max);
        self
    }

    pub(crate) fn at_least(mut self, min: f64) -> Self {
        self.budget = Budget::AtLeast(min);
        self
    }

    fn verdict(&self) -> String {
        let (sign, bound, kept) = match self.budget {
            Budget::None => return String::new(),
            Budget::AtMost(max) => ("<=", max, self.value <= max),
            Budget::AtLeast(min) => (">=", min, self.value >= min),
        };
        format!("{sign} {} {}", number(bound), if kept { "kept" } else { "MISSED" })
    }
}

/// Whole numbers from a hundred on, three digits below.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// All figures as a Markdown table.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut out = String::from("| what | figure | unit | budget |\n| --- | ---: | --- | --- |\n");
    for figure in figures {
        let _ =
            writeln!(out, "| {} | {} | {} | {} |", figure.what, number(figure.value), figure.unit, figure.verdict());
    }
    out
}

/// All figures as JSON.
pub(crate) fn json(figures: &[Figure]) -> Value {
    let row = |f: &Figure| json!({"what": f.what, "value": f.value, "unit": f.unit, "budget": f.verdict()});
    Value::Array(figures.iter().map(row).collect())
}

/// Percentiles of measured times, in milliseconds.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// `percent` in 0..=100.
    pub(crate) fn percentile_ms(&self, percent: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = (percent / 100.0 * last as f64).round() as usize;
        self.0.get(at).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_judged() {
        assert_eq!(Figure::new("a", 5.0, "ms").at_most(10.0).verdict(), "<= 10.0 kept");
        assert_eq!(Figure::new("a", 0.5, "x").at_least(1.0).verdict(), ">= 1.00 MISSED");
        assert_eq!(Figure::new("a", 0.5, "x").verdict(), "");
    }

    #[test]
    fn percentiles() {
        let times = Times::new((1..=101).rev().map(Duration::from_millis).collect());
        assert_eq!((times.percentile_ms(50.0), times.percentile_ms(99.0)), (51.0, 100.0));
        assert!(Times::new(Vec::new()).percentile_ms(50.0).is_nan());
    }
}
