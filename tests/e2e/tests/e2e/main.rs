//! End to end: the binary as its users meet it. Transcripts of kubectl count as not run where kubectl is missing or
//! old, and so does the Python client.

mod bad_input;
mod clients;
mod guests;
mod images;
mod jobs;
mod life;
mod network;
mod nodes;
mod proxies;
mod transcripts;
mod webhook;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> std::process::ExitCode {
    let arguments = Arguments::from_args();
    let trials = [
        life::trials(),
        bad_input::trials(),
        clients::trials(),
        guests::trials(),
        images::trials(),
        jobs::trials(),
        network::trials(),
        nodes::trials(),
        proxies::trials(),
        transcripts::trials(),
        webhook::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A trial from a test that answers with an error that says what went wrong.
fn trial(name: &str, test: fn() -> anyhow::Result<()>) -> Trial {
    Trial::test(name, move || test().map_err(|e| Failed::from(format!("{e:?}"))))
}
