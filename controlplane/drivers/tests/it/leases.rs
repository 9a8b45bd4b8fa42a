//! Leader election among drivers of several processes.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use podium_client::{ApiRef, ModelApi};
use podium_drivers::{LeaderElector, LeaseConfig, Metrics};
use tokio::{sync::watch, time::Instant};

use crate::{clock, eventually};

type Log = Arc<Mutex<Vec<(u64, String)>>>;

struct Candidate {
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

fn candidate(api: &ApiRef, name: &'static str, log: &Log, started: Instant) -> Candidate {
    let config = LeaseConfig { clock: clock(), ..LeaseConfig::new("controllers", name) };
    let elector = LeaderElector::new(Arc::clone(api), config, Metrics::default());
    let (stop, stopped) = watch::channel(false);
    let log = Arc::clone(log);
    let note = move |what: &str| log.lock().push((started.elapsed().as_secs(), format!("{name} {what}")));
    let task = tokio::spawn(async move {
        let main = |mut stop: watch::Receiver<bool>| async move {
            note("leads");
            let _ = stop.wait_for(|stop| *stop).await;
            note("stops");
            Ok(())
        };
        let _ = elector.while_leading(stopped, main).await;
    });
    Candidate { stop, task }
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_next_takes_over() {
    let api: ApiRef = Arc::new(ModelApi::new(clock()));
    let (log, started) = (Log::default(), Instant::now());
    let a = candidate(&api, "a", &log, started);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let b = candidate(&api, "b", &log, started);
    let c = candidate(&api, "c", &log, started);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(*log.lock(), [(0, "a leads".to_owned())], "it renews");

    a.stop.send_replace(true);
    a.task.await.unwrap();
    eventually("the next leads", || log.lock().len() == 3).await;
    let seen = log.lock().clone();
    let (second, takeover) = (seen[2].1.as_str(), seen[2].0 - seen[1].0);
    assert!(takeover <= 4, "a lease that was given back is free at once, not after {takeover} s");

    let crashed = if second == "b leads" { b } else { c };
    let at = started.elapsed().as_secs();
    crashed.task.abort();
    eventually("the last leads", || log.lock().len() == 4).await;
    let waited = log.lock()[3].0 - at;
    assert!((13..=20).contains(&waited), "a lease that is not renewed is taken after its 15 s, not {waited}");
}
