//! Many small pods: what a live one takes, and what an idle one does.

use std::time::Duration;

use podium_sandbox::{HttpContainer, Sandbox, SandboxConfig};

use crate::support::{self, HTTP_P2, get, load, spec};

/// What `/proc/self/status` says of this process: KiB.
fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

fn maps() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_instances_wait_side_by_side() {
    let _turn = support::alone().await;
    let count = std::env::var("LIVE").map_or(1000, |n| n.parse().unwrap());
    let before_engine = maps();
    let sandbox = Sandbox::new(SandboxConfig { instances_max: count + 16, ..SandboxConfig::default() }).unwrap();
    println!("maps before {before_engine}, engine {}, VmPeak {} GiB", maps(), status("VmPeak") >> 20);
    let image = load(&sandbox, HTTP_P2).await;
    let (rss, pte, maps_before) = (status("VmRSS"), status("VmPTE"), maps());
    let pods: Vec<HttpContainer> =
        (0..count).map(|_| sandbox.http(&image, spec(&["web"]).0).unwrap()).collect();
    let idle = status("VmRSS");
    println!("idle: {} bytes each", (idle - rss) * 1024 / u64::from(count));
    let calls: Vec<_> = pods.iter().map(|pod| pod.call(get("/sleep?ms=600000"))).collect();
    let all = futures::future::select_all(calls.into_iter().map(Box::pin));
    let watch = async {
        loop {
            let live: u64 = pods.iter().map(|pod| pod.usage().instances).sum();
            let with_memory = pods.iter().filter(|pod| pod.usage().memory_bytes > 1 << 20).count();
            if live == u64::from(count) && with_memory == count as usize { break }
            println!("{live} {with_memory}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        println!("live: maps {} (+{:.2} each), RSS {} KiB each, PTE {} KiB each, charged {} each, VmPeak {} GiB", maps(),
            (maps() - maps_before) as f64 / f64::from(count), (status("VmRSS") - idle) / u64::from(count), (status("VmPTE") - pte) as f64 / f64::from(count), pods[0].usage().memory_bytes, status("VmPeak") >> 20);
    };
    tokio::select! { x = all => { println!("{:?}", x.0.err()); }, () = watch => {} }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn base_of_an_instance() {
    let _turn = support::alone().await;
    const WAT: &str = r#"(module (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start")
        (i64.store (i32.const 24) (i64.const 60000000000))
        (i32.store8 (i32.const 16) (i32.const 1))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#;
    let count = std::env::var("LIVE").map_or(1000, |n| n.parse().unwrap());
    let sandbox = Sandbox::new(SandboxConfig { instances_max: count + 16, ..SandboxConfig::default() }).unwrap();
    let image = load(&sandbox, WAT.as_bytes()).await;
    let (rss, pte, maps_before) = (status("VmRSS"), status("VmPTE"), maps());
    let pods: Vec<_> = (0..count).map(|_| sandbox.command(&image, spec(&["web"]).0).unwrap()).collect();
    loop {
            let live: u64 = pods.iter().map(|pod| pod.usage().instances).sum();
            let with_memory = pods.iter().filter(|pod| pod.usage().memory_bytes >= 65536 ).count();
            if live == u64::from(count) && with_memory == count as usize { break }
            tokio::time::sleep(Duration::from_millis(300)).await;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    println!("core live: maps {} (+{:.2} each), RSS {} KiB each, PTE {} KiB each, charged {} each, VmPeak {} GiB, {:?}", maps(),
            (maps() - maps_before) as f64 / f64::from(count), (status("VmRSS") - rss) / u64::from(count), (status("VmPTE") - pte) as f64 / f64::from(count), pods[0].usage().memory_bytes, status("VmPeak") >> 20, pods[0].usage());
}
