//! The commands as a program of their own.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    match podium_tools::run(&program, args.collect()) {
        Some(code) => ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1)),
        None => {
            eprintln!("{}", podium_tools::not_found(&program));
            ExitCode::from(127)
        }
    }
}
