//! Requests per second with an instance for each: a floor far below what is measured, so that a tenfold loss is seen.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use podium_sandbox::{Instances, Reuse};

use crate::support::{self, HTTP_P2, load, sandbox, spec, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_for_each_request() {
    let _turn = support::alone().await;
    let rate = rate(Instances::PerRequest).await;
    assert!(rate > 1500.0, "{rate:.0} requests/s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_used_again() {
    let _turn = support::alone().await;
    let rate = rate(Instances::Reused(Reuse::requests(1000))).await;
    assert!(rate > 6000.0, "{rate:.0} requests/s");
}

async fn rate(reuse: Instances) -> f64 {
    let sandbox = sandbox();
    let image = load(&sandbox, HTTP_P2).await;
    let (mut spec, _) = spec(&["web"]);
    spec.limits.reuse = reuse;
    let container = Arc::new(sandbox.http(&image, spec).unwrap());
    let done = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (container, done) = (container.clone(), done.clone());
            tokio::spawn(async move {
                while start.elapsed() < Duration::from_secs(2) {
                    text(&container, "/").await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    futures::future::join_all(clients).await;
    let rate = done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    let each = container.usage().cpu.as_secs_f64() * 1e6 / done.load(Ordering::Relaxed) as f64;
    println!("{rate:.0} requests/s, {each:.1} us of guest CPU each ({reuse:?})");
    rate
}
