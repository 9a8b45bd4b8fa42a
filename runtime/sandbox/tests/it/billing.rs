//! What is kept for a container outside of its instances: output and input on their way, files in memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use podium_sandbox::{
    CallFailure, CpuLimit, Ending, ExecSpec, GroupLimits, LogSink, MemoryStore, Sandbox, Stdin, Store as _, Stream,
};

use crate::support::{self, FILES_P1, FILES_P2, HTTP_P2, get, load, sandbox, spec};

const MIB: u64 = 1 << 20;
/// Computes, so that somebody looks at it.
const SPINS: &[u8] = br#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;

/// Keeps everything.
#[derive(Default)]
struct Keeper(AtomicUsize);

impl LogSink for Keeper {
    fn write(&self, _: Stream, bytes: &[u8]) {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
    }

    fn held_bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

async fn ended(
    sandbox: &Sandbox,
    wasm: &'static [u8],
    change: impl FnOnce(&mut podium_sandbox::ContainerSpec),
) -> Ending {
    let image = load(sandbox, wasm).await;
    let (mut spec, _) = spec(&["files"]);
    change(&mut spec);
    let command = sandbox.command(&image, spec).unwrap();
    tokio::time::timeout(Duration::from_secs(60), command.wait()).await.expect("it is ended")
}

/// Everything is given back; tasks of guests that have ended may still be going.
async fn until_nothing(bytes: impl Fn() -> u64) {
    let empty = async {
        while bytes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    let given_back = tokio::time::timeout(Duration::from_secs(60), empty).await;
    assert!(given_back.is_ok(), "{} bytes are left", bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_waits_is_the_containers() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let tools = [FILES_P1, FILES_P2];
    let handler = load(&sandbox, HTTP_P2).await;
    for wasm in tools {
        let image = load(&sandbox, wasm).await;
        let (mut spec, _) = spec(&["web"]);
        let (own, other) = (Arc::new(Keeper::default()), Arc::new(Keeper::default()));
        spec.logs = own.clone();
        let container = sandbox.http(&handler, spec).unwrap();
        assert_eq!(container.usage().memory_bytes, 0);
        own.0.store(300_000, Ordering::Relaxed);
        assert_eq!(container.usage().memory_bytes, 300_000);
        // A command within it has output of its own.
        let exec = ExecSpec::new(vec!["files".into(), "env".into(), "GREETING".into()], other.clone());
        let exec = container.exec(&image, exec).unwrap();
        assert_eq!(exec.wait().await, Ending::Finished { code: 0 });
        assert_eq!(other.0.load(Ordering::Relaxed), "hello there\n".len());
        drop(exec);
        own.0.store(0, Ordering::Relaxed);
        until_nothing(|| container.usage().memory_bytes).await;
    }
    // Too much of it ends a guest as any other memory does.
    let keeper = Arc::new(Keeper(AtomicUsize::new(9 << 20)));
    let ending = ended(&sandbox, SPINS, |spec| {
        spec.limits.memory_bytes_max = 8 * MIB;
        spec.logs = keeper;
    });
    assert_eq!(ending.await, Ending::OutOfMemory { limit_bytes: 8 * MIB });
    until_nothing(|| sandbox.guest_memory_bytes().0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_waits_is_the_containers() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let waiting = Arc::new(AtomicUsize::new(9 << 20));
    let ending = ended(&sandbox, SPINS, |spec| {
        spec.limits.memory_bytes_max = 8 * MIB;
        spec.stdin = Some(Stdin::counted(tokio::io::empty(), waiting));
    });
    assert_eq!(ending.await, Ending::OutOfMemory { limit_bytes: 8 * MIB });
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_memory_are_the_groups() {
    let _turn = support::shared().await;
    let sandbox = sandbox();
    let cpu = CpuLimit { quota_millicores: None, weight_millicores: 100 };
    let group = sandbox.group(GroupLimits { memory_bytes_max: 16 * MIB, cpu });
    let image = load(&sandbox, SPINS).await;
    let (mut spinning, _) = spec(&["spins"]);
    spinning.group = Some(group.clone());
    let spins = sandbox.command(&image, spinning.clone()).unwrap();
    let handler = load(&sandbox, HTTP_P2).await;
    let (mut of_web, _) = spec(&["web"]);
    of_web.group = Some(group.clone());
    let web = sandbox.http(&handler, of_web).unwrap();

    group.bill_files(4 * MIB);
    assert!(group.usage().memory_bytes >= 4 * MIB);
    assert_eq!(web.call(get("/")).await.unwrap().status(), 200);
    group.bill_files(20 * MIB);
    let ending = tokio::time::timeout(Duration::from_secs(60), spins.wait()).await.expect("it is ended");
    assert!(matches!(ending, Ending::OutOfMemory { .. }), "{ending:?}");
    // The end of the call before may have been the end of the container already.
    let answer = web.call(get("/")).await.map(|answer| answer.status());
    assert!(matches!(answer, Err(CallFailure::OutOfMemory { .. } | CallFailure::Stopped)), "{answer:?}");
    // When they are gone there is room again.
    group.bill_files(0);
    let again = sandbox.command(&image, spinning).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), again.wait()).await.is_err());
    again.kill();
    again.wait().await;
    // Files that nobody can count are the group's own trouble.
    group.bill_files(u64::MAX);
    let (of_other, _) = spec(&["other"]);
    let other = sandbox.http(&handler, of_other).unwrap();
    assert_eq!(other.call(get("/")).await.unwrap().status(), 200);
    let (mut late, _) = spec(&["late"]);
    late.group = Some(group.clone());
    let late = sandbox.command(&image, late).unwrap();
    let ending = tokio::time::timeout(Duration::from_secs(60), late.wait()).await.expect("it is ended");
    assert!(matches!(ending, Ending::OutOfMemory { .. }), "{ending:?}");
    drop((group, again, web, spins, other, late));
    until_nothing(|| sandbox.guest_memory_bytes().0).await;
}

#[tokio::test]
async fn stores_in_memory_are_the_groups() {
    let sandbox = sandbox();
    let cpu = CpuLimit { quota_millicores: None, weight_millicores: 100 };
    let group = sandbox.group(GroupLimits { memory_bytes_max: 4 * MIB, cpu });
    let store = MemoryStore::of_group(&group, 1 << 40);
    let value = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    for key in ["a", "b", "c"] {
        store.set(key, value.clone()).await.unwrap();
    }
    assert!(group.usage().memory_bytes > 3 * MIB);
    let refused = store.set("d", value.clone()).await.unwrap_err().to_string();
    assert!(refused.starts_with("the store is full: there is no memory left for its 41"), "{refused}");
    store.set("a", value.clone()).await.unwrap();
    store.delete("b").await.unwrap();
    assert!(store.compare_and_set("d", None, value).await.unwrap());
    assert_eq!(group.usage().memory_bytes, store.bytes());
    drop(store);
    assert_eq!(sandbox.guest_memory_bytes().0, 0);
}
