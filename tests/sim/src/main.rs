//! Runs many simulated clusters: `cargo run -p podium-sim -- --seeds 1000`.

use std::process::ExitCode;

use clap::Parser;

/// Simulates clusters in virtual time, each with the faults that its seed decides.
#[derive(Parser)]
struct Options {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
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
    let (mut revisions, mut faults) = (0, 0);
    for seed in options.seed..options.seed.saturating_add(options.seeds) {
        match podium_sim::run(seed) {
            Ok(report) => {
                revisions += report.revision;
                faults += report.faults;
                println!("seed {seed}: {report:?}");
            }
            Err(failure) => {
                eprintln!("seed {seed} fails:\n{failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{} clusters, {revisions} changes, {faults} faults: every invariant held", options.seeds);
    ExitCode::SUCCESS
}
