//! From a file to an answer, in the sandbox alone: compiled for the first time, mapped from the cache, in memory already;
//! what making an instance costs.
//!
//! Guests in JavaScript and Python are measured when `examples/build.sh js-hello python-hello` has made them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use podium_e2e::cluster::repository;
use podium_sandbox::{ContainerSpec, HttpContainer, Instances, Reuse, Sandbox, SandboxConfig};

use crate::{
    Args,
    api::runtime,
    figure::{Figure, Times},
};

const GUESTS: [(&str, &str); 4] = [
    ("hello", "examples/hello/hello.wasm"),
    ("0.3", "runtime/sandbox/tests/guests/http-p3.wasm"),
    ("JavaScript", "target/examples/js-hello.wasm"),
    ("Python", "target/examples/python-hello.wasm"),
];
/// Loads from the cache, each by an engine of its own.
const LOADS: usize = 20;
/// Calls of each way to have instances.
const CALLS: usize = 2000;

pub(crate) fn measure(_args: &Args) -> Result<Vec<Figure>> {
    runtime()?.block_on(async {
        let mut figures = Vec::new();
        for (name, file) in GUESTS {
            let file = repository().join(file);
            if !file.exists() {
                eprintln!("{} is not there: build it with examples/build.sh", file.display());
                continue;
            }
            figures.extend(guest(name, &file).await?);
        }
        Ok(figures)
    })
}

async fn guest(name: &str, file: &Path) -> Result<Vec<Figure>> {
    let wasm = Bytes::from(std::fs::read(file)?);
    let cache = tempfile::tempdir()?;
    let config = SandboxConfig { cache_dir: Some(cache.path().to_owned()), ..SandboxConfig::default() };
    let started = Instant::now();
    Sandbox::new(config.clone())?.load(wasm.clone()).await?;
    let compiled = started.elapsed();

    let (mut loads, mut firsts) = (Vec::new(), Vec::new());
    for _ in 0..LOADS {
        let sandbox = Sandbox::new(config.clone())?;
        let started = Instant::now();
        let image = sandbox.load(wasm.clone()).await?;
        loads.push(started.elapsed());
        let pod = sandbox.http(&image, ContainerSpec::new("first"))?;
        call(&pod).await?;
        firsts.push(started.elapsed());
    }
    let sandbox = Sandbox::new(config)?;
    let image = sandbox.load(wasm).await?;
    let mut spec = ContainerSpec::new("fresh");
    spec.limits.reuse = Instances::PerRequest;
    let fresh = calls(&sandbox.http(&image, spec)?).await?;
    let mut spec = ContainerSpec::new("reused");
    spec.limits.reuse = Instances::Reused(Reuse { requests_max: u32::MAX, ..Reuse::shared() });
    let reused = calls(&sandbox.http(&image, spec)?).await?;
    let ms = |times: &Times, percent| times.percentile_ms(percent);
    let (loads, firsts) = (Times::new(loads), Times::new(firsts));
    let us = |what: String, times: &Times, percent| Figure::new(what, ms(times, percent) * 1000.0, "us");
    Ok(vec![
        Figure::new(format!("{name}: compiled for the first time"), compiled.as_secs_f64() * 1000.0, "ms"),
        Figure::new(format!("{name}: from the cache, p50"), ms(&loads, 50.0), "ms"),
        Figure::new(format!("{name}: from the cache to the first answer, p50"), ms(&firsts, 50.0), "ms"),
        us(format!("{name}: a call with an instance of its own, p50"), &fresh, 50.0),
        us(format!("{name}: a call with an instance of its own, p99"), &fresh, 99.0),
        us(format!("{name}: a call of an instance that is there, p50"), &reused, 50.0),
        us(format!("{name}: a call of an instance that is there, p99"), &reused, 99.0),
    ])
}

async fn calls(pod: &HttpContainer) -> Result<Times> {
    call(pod).await?;
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        times.push(call(pod).await?);
    }
    Ok(Times::new(times))
}

/// One request, to the end of its answer.
async fn call(pod: &HttpContainer) -> Result<Duration> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request = http::Request::get("http://guest/").header("host", "guest").body(body)?;
    let started = Instant::now();
    let response = pod.call(request).await?;
    let answer = response.into_body().collect().await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let took = started.elapsed();
    (!answer.to_bytes().is_empty()).then_some(took).context("the guest answered nothing")
}
