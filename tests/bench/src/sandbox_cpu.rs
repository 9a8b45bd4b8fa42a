//! What the sandbox costs and how well its limits hold: CPU quotas from a thousandth of a core, live and idle pods.
//!
//! Runs the sandbox in this process, with the guests of its tests.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use podium_sandbox::{
    CommandContainer, ContainerSpec, CpuLimit, Group, GroupLimits, HttpContainer, Image, Sandbox, SandboxConfig, Usage,
};

use crate::{Args, api::runtime, figure::Figure};

const SPINNER: &[u8] = include_bytes!("../../../runtime/sandbox/tests/guests/command-p2.wasm");
const HELLO: &[u8] = include_bytes!("../../../runtime/sandbox/tests/guests/http-p2.wasm");
/// Quotas that fit beside each other on one core.
const SMALL: [u32; 8] = [1, 2, 5, 10, 20, 50, 100, 250];
/// Quotas measured alone.
const LARGE: [u32; 4] = [500, 1000, 1500, 2000];
/// A millisecond more or less, the least that a guest can be stopped within, has to be small against what is measured.
const SMALL_TIME: Duration = Duration::from_secs(40);
const LARGE_TIME: Duration = Duration::from_secs(4);
/// What else runs on the machine takes CPU that a quota grants and no limit can bring back: the best of several counts
/// for what was missing, the worst for what was too much.
const ROUNDS: usize = 3;
const LIVE: u32 = 10_000;
const IDLE: u32 = 100_000;

pub(crate) fn measure(_args: &Args) -> Result<Vec<Figure>> {
    runtime()?.block_on(async {
        let mut figures = quotas().await?;
        figures.extend(density().await?);
        Ok(figures)
    })
}

/// Relative error of each quota, over all instances of a pod.
async fn quotas() -> Result<Vec<Figure>> {
    let sandbox = Sandbox::new(SandboxConfig { instances_max: 64, ..SandboxConfig::default() })?;
    let image = sandbox.load(Bytes::from_static(SPINNER)).await?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut figures = Vec::new();
    let small: Vec<_> = SMALL.iter().map(|quota| Pod::spin(&sandbox, &image, *quota)).collect::<Result<_>>()?;
    let errors = futures::future::join_all(small.iter().map(|pod| pod.error(SMALL_TIME))).await;
    drop(small);
    figures.extend(SMALL.into_iter().zip(errors));
    for quota in LARGE.into_iter().filter(|quota| *quota <= u32::try_from(cores).unwrap_or(u32::MAX) * 1000) {
        let pod = Pod::spin(&sandbox, &image, quota)?;
        figures.push((quota, pod.error(LARGE_TIME).await));
    }
    let figure = |(quota, error): (u32, f64)| {
        Figure::new(format!("CPU quota {quota}m, error"), error.abs() * 100.0, "%").at_most(5.0)
    };
    Ok(figures.into_iter().map(figure).collect())
}

/// Guests that always want CPU, as many as there are cores and one more, in a pod with a quota.
struct Pod {
    quota_millicores: u32,
    group: Arc<Group>,
    _guests: Vec<CommandContainer>,
}

impl Pod {
    fn spin(sandbox: &Sandbox, image: &Arc<Image>, quota_millicores: u32) -> Result<Self> {
        let cpu = CpuLimit { quota_millicores: Some(quota_millicores), weight_millicores: quota_millicores };
        let group = sandbox.group(GroupLimits { memory_bytes_max: 1 << 30, cpu });
        let guest = || {
            let mut spec = ContainerSpec::new(format!("spinner-{quota_millicores}"));
            spec.args = ["command", "spin", "3600000"].map(str::to_owned).to_vec();
            spec.group = Some(group.clone());
            sandbox.command(image, spec)
        };
        let guests = (0..=quota_millicores.div_ceil(1000)).map(|_| guest()).collect::<Result<_, _>>()?;
        Ok(Self { quota_millicores, group, _guests: guests })
    }

    /// How far from its quota it was: relative.
    async fn error(&self, time: Duration) -> f64 {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(self.round(time).await);
        }
        rounds.into_iter().fold(f64::NEG_INFINITY, f64::max)
    }

    /// From one turn's end to another's.
    async fn round(&self, time: Duration) -> f64 {
        let (from, at) = self.next_turn().await;
        tokio::time::sleep(time).await;
        let (to, until) = self.next_turn().await;
        let wanted = (until - at).as_secs_f64() * f64::from(self.quota_millicores) / 1000.0;
        (to - from).as_secs_f64() / wanted - 1.0
    }

    /// Waits until it has used more than now.
    async fn next_turn(&self) -> (Duration, Instant) {
        let before = self.group.usage().cpu;
        loop {
            let used = self.group.usage().cpu;
            if used > before {
                return (used, Instant::now());
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }
}

/// Memory of idle and of live pods of one image.
async fn density() -> Result<Vec<Figure>> {
    let config = SandboxConfig { instances_max: LIVE + 16, ..SandboxConfig::default() };
    let sandbox = Sandbox::new(config)?;
    let image = sandbox.load(Bytes::from_static(HELLO)).await?;
    let pod = |n: u32| sandbox.http(&image, ContainerSpec::new(format!("default/web-{n}/app")));

    let before = Process::now()?;
    let idle: Vec<HttpContainer> = (0..IDLE).map(pod).collect::<Result<_, _>>()?;
    let of_idle = Process::now()?.resident_kib - before.resident_kib;
    drop(idle);

    let pods: Vec<HttpContainer> = (0..LIVE).map(pod).collect::<Result<_, _>>()?;
    let before = Process::now()?;
    let calls = pods.iter().map(|pod| Box::pin(pod.call(waits())));
    let started = Instant::now();
    let live = tokio::select! {
        (early, ..) = futures::future::select_all(calls) => bail!("a live pod ended: {:?}", early.err()),
        live = settled(&pods) => live,
    };
    let took = started.elapsed();
    let after = Process::now()?;
    let each = |kib: u64| kib as f64 / f64::from(LIVE);
    Ok(vec![
        Figure::new(format!("{IDLE} idle pods of one image, each"), of_idle as f64 * 1024.0 / f64::from(IDLE), "bytes")
            .at_most(1536.0),
        Figure::new(format!("{LIVE} live pods, each resident"), each(after.resident_kib - before.resident_kib), "KiB"),
        Figure::new(format!("{LIVE} live pods, each page tables"), each(after.tables_kib - before.tables_kib), "KiB"),
        Figure::new(format!("{LIVE} live pods, each billed"), live.memory_bytes as f64 / 1024.0, "KiB"),
        Figure::new(format!("{LIVE} live pods, memory maps"), after.maps as f64, "").at_most(65_530.0),
        Figure::new(format!("{LIVE} live pods, address space"), after.peak_kib as f64 / (1 << 30) as f64, "TiB"),
        Figure::new(format!("{LIVE} live pods, until all wait"), took.as_secs_f64(), "s"),
    ])
}

fn waits() -> http::Request<podium_sandbox::Body> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut request = http::Request::new(body);
    *request.uri_mut() = http::Uri::from_static("http://web/sleep?ms=3600000");
    request
}

/// Waits until every pod has an instance and none computes; what one of them uses then.
async fn settled(pods: &[HttpContainer]) -> Usage {
    let mut before = Duration::MAX;
    loop {
        let usage: Vec<Usage> = pods.iter().map(HttpContainer::usage).collect();
        let cpu = usage.iter().map(|usage| usage.cpu).sum();
        if cpu == before && usage.iter().all(|usage| usage.instances == 1) {
            return usage[0];
        }
        before = cpu;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What this process takes.
struct Process {
    resident_kib: u64,
    tables_kib: u64,
    peak_kib: u64,
    maps: usize,
}

impl Process {
    fn now() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let kib = |field: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field)).context(field.to_owned())?;
            Ok(line.trim().trim_end_matches(" kB").parse()?)
        };
        Ok(Self {
            resident_kib: kib("VmRSS:")?,
            tables_kib: kib("VmPTE:")?,
            peak_kib: kib("VmPeak:")?,
            maps: std::fs::read_to_string("/proc/self/maps")?.lines().count(),
        })
    }
}
