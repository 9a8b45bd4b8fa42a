//! Whether other processes of the machine have computed while something was measured.

use std::time::Instant;

/// What other processes may take of one core: an idle machine's own services take less.
const SHARE: f64 = 0.1;
/// Ticks of a second in `/proc/stat`.
const TICKS: f64 = 100.0;

/// The beginning of a measurement.
pub struct Load {
    since: Instant,
    others: f64,
}

impl Load {
    pub fn now() -> Self {
        Self { since: Instant::now(), others: others_seconds() }
    }

    /// Whether others have taken more than a little since.
    pub fn is_busy_elsewhere(&self) -> bool {
        others_seconds() - self.others > self.since.elapsed().as_secs_f64() * SHARE
    }
}

/// CPU time of all processes but this one and the children that it has waited for.
fn others_seconds() -> f64 {
    let machine = std::fs::read_to_string("/proc/stat").unwrap();
    let all: Vec<f64> = numbers(machine.lines().next().unwrap());
    // user, nice, system; idle and iowait; irq, softirq, steal.
    let busy = all[..3].iter().chain(&all[5..8]).sum::<f64>();
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    // utime, stime, cutime, cstime, counted from what follows the name in brackets.
    let own: f64 = numbers(own.rsplit_once(')').unwrap().1)[11..15].iter().sum();
    (busy - own) / TICKS
}

fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace().filter(|word| *word != "cpu").map(|word| word.parse().unwrap_or(0.0)).collect()
}
