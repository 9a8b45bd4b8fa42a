//! Measures one HTTP image: `cargo run --release -p podium-sandbox --example measure -- FILE.wasm [SECONDS [KEEP_RESIDENT_KIB]]`.
//!
//! Prints how long it takes to compile and to load from the cache, from nothing to an answer, and requests per second with an
//! instance for each and with instances used again.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    error::Error,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Empty};
use podium_sandbox::{ContainerSpec, HttpContainer, Image, Instances, Reuse, Sandbox, SandboxConfig};

const CLIENTS: usize = 16;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("name a .wasm file")?;
    let seconds = args.next().map_or(Ok(5), |text| text.parse())?;
    let keep_kib: Option<usize> = args.next().map(|text| text.parse()).transpose()?;
    let wasm: bytes::Bytes = std::fs::read(&file)?.into();
    let cache = std::env::temp_dir().join("podium-measure");
    let start = Instant::now();
    sandbox(&cache, keep_kib)?.load(wasm.clone()).await?;
    println!("{file}: {} bytes; compiled, or found in {}, in {:?}", wasm.len(), cache.display(), start.elapsed());
    let sandbox = sandbox(&cache, keep_kib)?;
    let start = Instant::now();
    let image = sandbox.load(wasm).await?;
    println!(
        "loaded from the cache in {:?}; {} bytes of memory to begin with",
        start.elapsed(),
        image.initial_memory_bytes()
    );

    for (what, instances) in [
        ("an instance for each", Instances::PerRequest),
        ("instances used again", Instances::Reused(Reuse::requests(1000))),
    ] {
        let container = Arc::new(container(&sandbox, &image, instances)?);
        let (p50, p99) = alone(&container).await?;
        let rate = crowd(&container, Duration::from_secs(seconds)).await?;
        let usage = container.usage();
        let each = usage.cpu.as_secs_f64() * 1e6 / usage.requests.max(1) as f64;
        let peak = usage.memory_bytes_peak >> 20;
        println!(
            "{what}: {rate:.0} requests/s, {each:.0} us of CPU each, alone p50 {p50:?} p99 {p99:?}, {peak} MiB at most"
        );
    }
    Ok(())
}

fn sandbox(cache: &Path, keep_kib: Option<usize>) -> Result<Sandbox> {
    let mut config =
        SandboxConfig { cache_dir: Some(cache.to_owned()), instances_max: 256, ..SandboxConfig::default() };
    if let Some(kib) = keep_kib {
        config.memory_keep_resident_bytes = kib << 10;
    }
    Ok(Sandbox::new(config)?)
}

fn container(sandbox: &Sandbox, image: &Arc<Image>, instances: Instances) -> Result<HttpContainer> {
    let mut spec = ContainerSpec::new("measure");
    spec.limits.reuse = instances;
    spec.limits.memory_bytes_max = 4 << 30;
    Ok(sandbox.http(image, spec)?)
}

async fn ask(container: &HttpContainer) -> Result<()> {
    let body = Empty::new().map_err(|e| match e {}).boxed_unsync();
    let response = container.call(http::Request::get("http://measure/").body(body)?).await?;
    response.into_body().collect().await?;
    Ok(())
}

/// p50 and p99 of one client.
async fn alone(container: &HttpContainer) -> Result<(Duration, Duration)> {
    ask(container).await?;
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 100 || (times.len() < 2000 && start.elapsed() < Duration::from_secs(2)) {
        let start = Instant::now();
        ask(container).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

/// Requests per second of many.
async fn crowd(container: &Arc<HttpContainer>, time: Duration) -> Result<f64> {
    let start = Instant::now();
    let client = |container: Arc<HttpContainer>| async move {
        let mut done = 0_u64;
        while start.elapsed() < time {
            ask(&container).await?;
            done += 1;
        }
        Result::Ok(done)
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client(container.clone()))).collect();
    let mut done = 0;
    for client in clients {
        done += client.await??;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}
