//! `agnhost`: a program of many small servers and clients.

use std::time::SystemTime;

use podium_tools::Code;

use crate::tasks::{FOREVER, block_on, sleep};

mod guestbook;
mod health;
mod mounts;
mod netexec;
mod review;
mod servers;
mod webhook;

/// Runs a subcommand.
pub fn run(program: &str, args: &[String]) -> Code {
    let pause_args = ["pause".to_owned()];
    let Some((name, args)) = args.split_first().or(pause_args.split_first()) else { return 1 };
    match name.as_str() {
        "netexec" => netexec::run(args),
        "serve-hostname" => servers::serve_hostname(args),
        "pause" => pause(args),
        "test-webserver" => servers::test_webserver(args),
        "liveness" => servers::liveness(),
        "porter" => servers::porter(args),
        "http-echo" => servers::http_echo(args),
        "connect" => servers::connect(args),
        "entrypoint-tester" => {
            let all: Vec<&str> =
                std::iter::once(program).chain([name.as_str()]).chain(args.iter().map(String::as_str)).collect();
            println!("[{}]", all.join(" "));
            0
        }
        "logs-generator" => servers::logs_generator(args),
        "mounttest" => mounts::run(args),
        "guestbook" => guestbook::run(args),
        "webhook" => webhook::run(args),
        "crd-conversion-webhook" => webhook::conversion(args),
        "grpc-health-checking" => health::run(args),
        "help" | "--help" | "-h" => {
            println!("Usage:\n  app [command]");
            0
        }
        "--version" => {
            println!("agnhost version 2.55");
            0
        }
        other => {
            eprintln!(
                "Error: unknown command \"{other}\" for \"app\": it is not in this image, which stands in for agnhost"
            );
            1
        }
    }
}

/// Does nothing until it is ended.
pub fn pause(_: &[String]) -> Code {
    println!("Paused");
    block_on(sleep(FOREVER));
    0
}

/// What this pod is called.
fn host_name() -> String {
    let of_file = || std::fs::read_to_string("/etc/hostname").ok().map(|name| name.trim().to_owned());
    std::env::var("HOSTNAME").ok().or_else(of_file).unwrap_or_else(|| "localhost".to_owned())
}

/// A line of the log, as Go's `log` writes it.
fn log(text: impl std::fmt::Display) {
    eprintln!("{} {text}", stamp("/"));
}

fn stamp(separator: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    podium_tools::moment(i64::try_from(now.as_secs()).unwrap_or(0), &format!("%Y{separator}%m{separator}%d %T"))
}

/// Runs servers; they end only when they fail.
fn serve(work: impl Future<Output = Result<(), String>> + 'static) -> Code {
    match block_on(work) {
        Some(Err(why)) => {
            log(why);
            1
        }
        _ => 0,
    }
}
