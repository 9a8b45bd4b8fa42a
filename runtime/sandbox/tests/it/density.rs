//! Many small pods: what a live one takes of the machine against what its container is billed, and what an idle one takes.
//!
//! A thousand of each here; ten thousand and a hundred thousand are measured by `podium-bench`.

use std::time::Duration;

use podium_sandbox::{CommandContainer, HttpContainer, Sandbox, SandboxConfig, Usage};

use crate::support::{self, HTTP_P2, get, load, spec};

const COUNT: u32 = 1000;

/// Waits for a minute in a page of memory: what is resident of it is the host's.
const WAITS: &str = r#"(module
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "_start")
        (i32.store8 (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 60000000000))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))"#;

/// What this process takes: bytes resident, bytes of page tables, maps.
#[derive(Debug, Clone, Copy)]
struct Taken {
    resident: u64,
    page_tables: u64,
    maps: u64,
}

fn taken() -> Taken {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count() as u64;
    Taken { resident: bytes("VmRSS:"), page_tables: bytes("VmPTE:"), maps }
}

/// Each one's share of what was taken since; less when earlier tests are still giving things back.
fn each(before: Taken) -> Taken {
    let (after, count) = (taken(), u64::from(COUNT));
    Taken {
        resident: after.resident.saturating_sub(before.resident) / count,
        page_tables: after.page_tables.saturating_sub(before.page_tables) / count,
        maps: after.maps.saturating_sub(before.maps) / count,
    }
}

fn roomy() -> Sandbox {
    Sandbox::new(SandboxConfig { instances_max: COUNT + 16, ..SandboxConfig::default() }).unwrap()
}

/// Waits until all have an instance that computes no more.
async fn settled(usage: impl Fn() -> Vec<Usage>) {
    let mut before = Duration::MAX;
    loop {
        let seen = usage();
        let cpu = seen.iter().map(|usage| usage.cpu).sum();
        if cpu == before && seen.iter().all(|usage| usage.instances == 1) {
            return;
        }
        before = cpu;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_host_keeps_for_an_instance_is_billed() {
    let _turn = support::alone().await;
    let sandbox = roomy();
    let image = load(&sandbox, WAITS.as_bytes()).await;
    let before = taken();
    let pods: Vec<CommandContainer> = (0..COUNT).map(|_| sandbox.command(&image, spec(&["wait"]).0).unwrap()).collect();
    settled(|| pods.iter().map(CommandContainer::usage).collect()).await;
    let (each, billed) = (each(before), pods[0].usage().memory_bytes);
    println!("a core module that waits takes {each:?}, billed {billed}");
    assert!(each.maps <= 2, "{each:?}");
    // All but a page of its memory has never been touched.
    let host = (each.resident + each.page_tables).saturating_sub(4096);
    assert!(host <= billed - 65536, "{each:?} but {billed} billed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_live_pods_side_by_side() {
    let _turn = support::alone().await;
    let sandbox = roomy();
    let image = load(&sandbox, HTTP_P2).await;
    let before = taken();
    let pods: Vec<HttpContainer> = (0..COUNT).map(|_| sandbox.http(&image, spec(&["web"]).0).unwrap()).collect();
    let idle = each(before);
    println!("an idle pod takes {idle:?}");
    assert!(idle.resident <= 2048 && idle.maps == 0, "{idle:?}");

    let before = taken();
    let calls = pods.iter().map(|pod| Box::pin(pod.call(get("/sleep?ms=600000"))));
    let watch = async {
        settled(|| pods.iter().map(HttpContainer::usage).collect()).await;
        (each(before), pods[0].usage().memory_bytes)
    };
    let (live, billed) = tokio::select! {
        (early, ..) = futures::future::select_all(calls) => panic!("{:?}", early.map(|response| response.status())),
        seen = watch => seen,
    };
    println!("a live pod takes {live:?}, billed {billed}");
    assert!(live.maps <= 4, "{live:?}");
    assert!(live.resident + live.page_tables <= 192 << 10, "{live:?}");
    assert!(live.resident + live.page_tables <= billed, "{live:?} but {billed} billed");
}
