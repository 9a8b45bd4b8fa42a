//! Any module in the sandbox, any pod in the agent.

use std::{sync::LazyLock, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use podium_sandbox::{ContainerSpec, CpuLimit, Ending, Limits, Sandbox, SandboxConfig, StartError};
use tokio::{runtime::Runtime, time::timeout};

/// Memory that a module may have.
const MEMORY_BYTES: u64 = 4 << 20;
/// Of a module that does not end by itself.
const PATIENCE: Duration = Duration::from_millis(20);
/// After that, what was killed must have ended.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

static SANDBOX: LazyLock<(Runtime, Sandbox)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    let config = SandboxConfig { instances_max: 16, images_kept_max: 0, ..SandboxConfig::default() };
    let sandbox =
        runtime.block_on(async { Sandbox::new(config) }).unwrap_or_else(|error| panic!("no sandbox: {error}"));
    (runtime, sandbox)
});

/// Bytes as a module: it is loaded or refused; its functions end or are killed, and give back what they held.
pub fn modules(data: &[u8]) {
    let (runtime, sandbox) = &*SANDBOX;
    runtime.block_on(async {
        let Ok(image) = sandbox.load(data.to_vec().into()).await else { return };
        for function in functions(sandbox, &image) {
            run(sandbox, &image, &function).await;
        }
    });
}

/// Names of functions that can be called without parameters, as the refusal of a call without a name tells them.
fn functions(sandbox: &Sandbox, image: &std::sync::Arc<podium_sandbox::Image>) -> Vec<String> {
    const TRIED_MAX: usize = 3;
    match sandbox.command(image, ContainerSpec::new("fuzz")) {
        Err(StartError::Call { reason }) => {
            let (_, listed) = reason.split_once(": ").unwrap_or_default();
            let callable = listed.split(", ").filter_map(|shown| shown.strip_suffix("()"));
            callable.take(TRIED_MAX).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

async fn run(sandbox: &Sandbox, image: &std::sync::Arc<podium_sandbox::Image>, function: &str) {
    let limits = Limits {
        memory_bytes_max: MEMORY_BYTES,
        cpu: CpuLimit { quota_millicores: Some(1000), weight_millicores: 100 },
        ..Limits::default()
    };
    let args = vec!["fuzz".to_owned(), function.to_owned()];
    let Ok(guest) = sandbox.command(image, ContainerSpec { args, limits, ..ContainerSpec::new("fuzz") }) else {
        return;
    };
    if timeout(PATIENCE, guest.wait()).await.is_err() {
        guest.kill();
        let ending = timeout(KILLED_WITHIN, guest.wait()).await;
        assert!(ending.is_ok(), "a guest that was killed runs on");
    }
    let peak = guest.usage().memory_bytes_peak;
    assert!(peak <= MEMORY_BYTES, "a guest had {peak} bytes");
    if guest.wait().await != Ending::Killed {
        for _ in 0..1000 {
            if guest.usage().memory_bytes == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(guest.usage().instances, 0, "an instance outlives its guest");
    }
}

/// Bytes as a pod: what the agent makes of it holds together.
pub fn pods(data: &[u8]) {
    let Ok(body) = podium_api::read::read(podium_api::read::Media::Yaml, data) else { return };
    let Ok(pod) = serde_json::from_value::<Pod>(body.value) else { return };
    podium_agent::dry_run(&pod);
}
