//! A machine fails, and nothing else: how soon its pods run elsewhere, and what becomes of the old ones.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use podium_api::{
    ObjectKey,
    k8s_openapi::api::{
        apps::v1::Deployment,
        core::v1::{Node, Pod},
    },
    kind_of,
};
use podium_client::{Api, ClockRef, ModelApi, Patch, TokioClock};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    clocks::JumpyClock,
    cluster::Cluster,
    faults::Faults,
    objects::{all, deployment, is_ready, object},
};

const REPLICAS: usize = 6;
/// After so long without a heartbeat a node counts as lost.
const GRACE_SECONDS: u64 = 40;
/// So long its pods tolerate that.
const TOLERATION_SECONDS: u64 = 300;
/// For noticing, scheduling and starting.
const SLACK_SECONDS: u64 = 30;

struct World {
    model: Arc<ModelApi>,
    cluster: Cluster,
}

impl World {
    async fn start() -> Self {
        let start = Timestamp::from_second(1_800_000_000).expect("a valid time");
        let clock: ClockRef = Arc::new(TokioClock::starting_at(start));
        let server_clock = JumpyClock::new(&clock);
        let model = Arc::new(ModelApi::new(server_clock.clone()));
        let faults = Arc::new(Faults::new(1));
        faults.stop();
        let cluster = Cluster::start(&model, &faults, (&clock, server_clock), 1);
        // Parts that have just begun are patient with nodes.
        sleep(Duration::from_secs(60)).await;
        let web = object::<Deployment>(deployment("web", i32::try_from(REPLICAS).unwrap(), Some((1, 0))));
        model.create(web).await.unwrap();
        let world = Self { model, cluster };
        world.until(60, |pods| pods.len() == REPLICAS && pods.iter().all(|pod| is_ready(pod))).await;
        world
    }

    /// The seconds that it takes.
    async fn until(&self, seconds_max: u64, holds: impl Fn(&[Arc<Pod>]) -> bool) -> u64 {
        let since = Instant::now();
        while !holds(&all::<Pod>(&self.model)) {
            let pods = all::<Pod>(&self.model);
            assert!(since.elapsed().as_secs() <= seconds_max, "after {seconds_max} s still {pods:#?}");
            sleep(Duration::from_millis(500)).await;
        }
        since.elapsed().as_secs()
    }

    /// A machine with pods fails; says which.
    fn fail(&self) -> String {
        let pods = all::<Pod>(&self.model);
        let machine = self.cluster.machines().iter().find(|m| pods.iter().any(|pod| is_on(pod, m.name())));
        let machine = machine.expect("pods are on machines");
        machine.crash();
        machine.name().to_owned()
    }

    /// All run, elsewhere.
    async fn replaced(&self, lost: &str, seconds_max: u64) -> u64 {
        let well = |pods: &[Arc<Pod>]| pods.iter().filter(|pod| is_ready(pod) && !is_on(pod, lost)).count();
        self.until(seconds_max, |pods| well(pods) == REPLICAS).await
    }
}

fn is_on(pod: &Pod, machine: &str) -> bool {
    pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(machine)
}

#[tokio::test(start_paused = true)]
async fn its_pods_run_elsewhere_in_time_and_the_old_ones_end_when_it_is_back() {
    let world = World::start().await;
    let lost = world.fail();
    let took = world.replaced(&lost, GRACE_SECONDS + TOLERATION_SECONDS + SLACK_SECONDS).await;
    assert!(took >= TOLERATION_SECONDS, "their toleration is respected: {took} s");
    assert!(all::<Pod>(&world.model).iter().any(|pod| is_on(pod, &lost)), "nobody has ended the old ones yet");
    world.cluster.machines().iter().for_each(|machine| machine.recover());
    world.until(SLACK_SECONDS, |pods| pods.len() == REPLICAS && pods.iter().all(|pod| is_ready(pod))).await;
    assert_eq!(world.cluster.check(), Ok(()));
    world.cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_out_of_service_is_not_waited_for() {
    let world = World::start().await;
    let lost = world.fail();
    let taint = json!({"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"});
    let patch = Patch::Merge(json!({"spec": {"taints": [taint]}}));
    world.model.patch(&kind_of::<Node>(), &ObjectKey::cluster(&lost), patch, None).await.unwrap();
    world.replaced(&lost, GRACE_SECONDS + SLACK_SECONDS).await;
    world.until(GRACE_SECONDS + SLACK_SECONDS, |pods| !pods.iter().any(|pod| is_on(pod, &lost))).await;
    assert_eq!(all::<Pod>(&world.model).len(), REPLICAS, "the old ones are gone without the machine's help");
    world.cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_taken_out_of_the_cluster_leaves_nothing_behind() {
    let world = World::start().await;
    let lost = world.fail();
    let key = ObjectKey::cluster(&lost);
    world.model.delete(&kind_of::<Node>(), &key, Default::default()).await.unwrap();
    world.replaced(&lost, GRACE_SECONDS + SLACK_SECONDS).await;
    assert_eq!(all::<Pod>(&world.model).len(), REPLICAS);
    world.cluster.machines().iter().for_each(|machine| machine.recover());
    sleep(Duration::from_secs(SLACK_SECONDS)).await;
    assert!(world.model.get(&kind_of::<Node>(), &key).await.is_ok(), "it has registered again");
    world.cluster.shutdown().await;
}
