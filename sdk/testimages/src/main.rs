//! What stands in for the images of Kubernetes' own tests: `agnhost`, and otherwise busybox with `wget`, `curl`, `nc` and
//! `nslookup`. One program, which is by its name what it is called.
//!
//! As the programs that it stands in for are seen from outside: their flags, paths, answers, log lines and exit codes. TLS
//! is not spoken: Podium's API server asks webhooks that are pods of its own without.
//!
//! # Source
//! Kubernetes `test/images/agnhost`.

mod agnhost;
mod commands;
mod flags;
mod http;
mod net;
mod tasks;

fn main() {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    podium_tools::add(commands::ALL);
    let code = match podium_tools::program_name(&program) {
        "agnhost" | "agnhost-2" | "testimages" => agnhost::run(&program, &args),
        "pause" => agnhost::pause(&[]),
        _ => podium_tools::run(&program, args).unwrap_or_else(|| {
            eprintln!("{}", podium_tools::not_found(&program));
            127
        }),
    };
    exit(code);
}

/// Ends the program. The standard library's own way knows but success and failure here.
fn exit(code: i32) -> ! {
    wasip2::cli::exit::exit_with_code(u8::try_from(code & 0xff).unwrap_or(1));
    std::process::exit(code)
}
