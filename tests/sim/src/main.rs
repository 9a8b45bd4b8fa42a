//! Runs many simulated clusters: `cargo run --release -p podium-sim -- --seeds 1000000`.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use clap::Parser;
use podium_sim::{Report, many};

/// So many clusters later it is said how far it is.
const PROGRESS: u64 = 1_000;

/// Simulates clusters in virtual time, each with the faults that its seed decides.
#[derive(Parser)]
struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// How many at a time [default: one for each core].
    #[arg(long)]
    threads: Option<usize>,
    /// Goes on until so many have failed.
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// Prints what each came to.
    #[arg(long)]
    each: bool,
    /// Prints the log of the parts, for one seed.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.verbose {
        let filter = tracing_subscriber::EnvFilter::new("debug");
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    }
    let (clusters, changes, faults) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let seen = |seed: u64, report: &Report| {
        changes.fetch_add(report.revision, Relaxed);
        faults.fetch_add(report.faults.iter().sum(), Relaxed);
        if options.each || options.seeds == 1 {
            println!("seed {seed}: {report:?}");
        }
        let done = clusters.fetch_add(1, Relaxed) + 1;
        if done.is_multiple_of(PROGRESS) && done < options.seeds {
            println!("{done} of {} clusters", options.seeds);
        }
    };
    let seeds = options.seed..options.seed.saturating_add(options.seeds);
    let failures = many::run_many(seeds, options.threads.unwrap_or_else(many::cores), options.failures, seen);
    for failure in &failures {
        eprintln!("seed {} fails:\n{failure}", failure.seed);
    }
    if !failures.is_empty() {
        return ExitCode::FAILURE;
    }
    let [clusters, changes, faults] = [clusters, changes, faults].map(AtomicU64::into_inner);
    println!("{clusters} clusters, {changes} changes, {faults} faults: every invariant held");
    ExitCode::SUCCESS
}
