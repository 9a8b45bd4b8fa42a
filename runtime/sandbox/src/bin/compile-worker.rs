//! The compiler's process, for embedders whose own program cannot be started as one: see `CompilerCommand`.

use std::process::ExitCode;

fn main() -> ExitCode {
    podium_sandbox::compile_worker_main(std::env::args().skip(1).collect())
}
