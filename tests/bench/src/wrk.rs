//! The load generator, and targets loaded in turn: what else happens on a machine then meets all alike.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::Args;

/// Turns of each target; the median counts.
const ROUNDS: usize = 5;

/// What wrk saw.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Requests per second.
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

fn load(args: &Args, url: &str, connections: u32) -> Result<Load> {
    let run = |seconds: u32| {
        Command::new(&args.wrk)
            .args([
                &format!("-t{}", connections.min(2)),
                &format!("-c{connections}"),
                &format!("-d{seconds}s"),
                "--latency",
                url,
            ])
            .output()
            .with_context(|| format!("start {}", args.wrk.display()))
    };
    let output = String::from_utf8_lossy(&run(args.seconds)?.stdout).into_owned();
    if output.contains("Non-2xx") || output.contains("Socket errors") {
        bail!("{url} failed under load:\n{output}");
    }
    let after = |label: &str| {
        let line = output.lines().find(|l| l.trim_start().starts_with(label));
        line.and_then(|l| l.split_whitespace().last()).with_context(|| format!("wrk printed no {label}:\n{output}"))
    };
    Ok(Load {
        rate: after("Requests/sec")?.parse()?,
        p50_ms: milliseconds(after("50%")?)?,
        p99_ms: milliseconds(after("99%")?)?,
    })
}

fn milliseconds(text: &str) -> Result<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let (number, scale) = units
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))
        .with_context(|| format!("wrk printed the time {text}"))?;
    Ok(number.parse::<f64>()? * scale)
}

/// The middle one of several values.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// For each turn the loads of all targets.
pub(crate) struct Turns(Vec<Vec<Load>>);

impl Turns {
    pub(crate) fn take(args: &Args, urls: &[&str], connections: u32) -> Result<Self> {
        let warm = Args { seconds: 1, ..args.clone() };
        urls.iter().try_for_each(|url| load(&warm, url, connections).map(drop))?;
        let turn = |_| urls.iter().map(|url| load(args, url, connections)).collect();
        Ok(Self((0..ROUNDS).map(turn).collect::<Result<_>>()?))
    }

    /// The median of a value of one target.
    pub(crate) fn of(&self, target: usize, value: impl Fn(&Load) -> f64) -> f64 {
        median(self.0.iter().map(|turn| value(&turn[target])))
    }

    /// The median of the ratios of two targets' rates, each in one turn.
    pub(crate) fn ratio(&self, of: usize, to: usize) -> f64 {
        median(self.0.iter().map(|turn| turn[of].rate / turn[to].rate))
    }
}
