//! Hosts plug-ins that nobody trusts: each is given a price and says what a customer pays.
//!
//! `cargo run --release -p podium-sandbox --example plugins [FOLDER]`

use std::{path::PathBuf, time::Duration};

use podium_sandbox::{ContainerSpec, CpuLimit, Limits, Sandbox, SandboxConfig, Value};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/plugins");
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(own), PathBuf::from);
    let sandbox = Sandbox::new(SandboxConfig { instances_max: 64, ..SandboxConfig::default() })?;
    // A tenth of a core, 16 MiB and 100 ms for a call; no files, no network, no environment.
    let limits = Limits {
        memory_bytes_max: 16 << 20,
        cpu: CpuLimit { quota_millicores: Some(100), weight_millicores: 10 },
        request_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "wasm" || e == "wat"));
    files.sort();
    for path in files {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let image = match sandbox.load(std::fs::read(&path)?.into()).await {
            Ok(image) => image,
            Err(error) => {
                println!("{name:>10}: not loaded: {error}");
                continue;
            }
        };
        let plugin = sandbox.plugin(&image, ContainerSpec { limits: limits.clone(), ..ContainerSpec::new(&*name) })?;
        let answer = match plugin.call("price", &[Value::U32(1000)]).await {
            Ok(price) => format!("{price:?}"),
            Err(failure) => format!("{failure}"),
        };
        let usage = plugin.usage();
        println!("{name:>10}: {answer} ({:?} of CPU, at most {} KiB)", usage.cpu, usage.memory_bytes_peak / 1024);
    }
    Ok(())
}
