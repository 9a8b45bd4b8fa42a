//! Who pods of other nodes are: what their node says of them is compared with what the cluster says, once for each pod, and
//! again after a while.
//!
//! Invariant: nobody is called by a name that the cluster has not confirmed. Who cannot be confirmed now has none.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout},
};

use super::wire::Identity;

/// How long what was confirmed holds: a pod's node and account never change, only its name may be another's later.
const CONFIRMED_FOR: Duration = Duration::from_secs(600);
/// The same of what was not.
const OTHERWISE_FOR: Duration = Duration::from_secs(1);
/// How long the cluster may take to say.
const SAID_WITHIN: Duration = Duration::from_secs(5);
/// Pods that are remembered.
const PODS_MAX: usize = 65_536;

/// A pod, as the node that it runs on calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The node.
    pub node: &'a str,
    /// The pod's namespace.
    pub namespace: &'a str,
    /// Its name.
    pub pod: &'a str,
    /// Its ServiceAccount.
    pub service_account: &'a str,
}

/// What the cluster knows of its pods.
#[async_trait]
pub trait Workloads: Send + Sync + 'static {
    /// Whether a pod is what its node says; `None` when nobody can say now.
    async fn confirm(&self, claim: Claim<'_>) -> Option<bool>;
}

/// What was asked and answered.
pub(crate) struct Register {
    workloads: Arc<dyn Workloads>,
    known: Mutex<HashMap<IpAddr, Known>>,
}

type Verdict = Arc<OnceCell<Option<bool>>>;

struct Known {
    node: Box<str>,
    who: Identity,
    since: Instant,
    verdict: Verdict,
}

impl Known {
    fn holds(&self, now: Instant) -> bool {
        let lasts = match self.verdict.get() {
            // It is being asked.
            None => SAID_WITHIN,
            Some(Some(true)) => CONFIRMED_FOR,
            Some(_) => OTHERWISE_FOR,
        };
        now.duration_since(self.since) < lasts
    }
}

impl Register {
    pub(crate) fn new(workloads: Arc<dyn Workloads>) -> Self {
        Self { workloads, known: Mutex::default() }
    }

    /// Whether a pod at an address of a node's is who the node says; `None` when nobody can say now.
    pub(crate) async fn judge(&self, node: &str, ip: IpAddr, who: &Identity) -> Option<bool> {
        let verdict = self.entry(node, ip, who);
        *verdict.get_or_init(|| self.ask(node, who)).await
    }

    async fn ask(&self, node: &str, who: &Identity) -> Option<bool> {
        let claim = Claim { node, namespace: &who.namespace, pod: &who.pod, service_account: &who.service_account };
        timeout(SAID_WITHIN, self.workloads.confirm(claim)).await.ok().flatten()
    }

    fn entry(&self, node: &str, ip: IpAddr, who: &Identity) -> Verdict {
        let now = Instant::now();
        let mut all = self.known.lock();
        let found = all.get(&ip).filter(|known| *known.node == *node && known.who == *who && known.holds(now));
        if let Some(known) = found {
            return known.verdict.clone();
        }
        if all.len() >= PODS_MAX {
            all.retain(|_, known| known.holds(now));
        }
        if all.len() >= PODS_MAX {
            all.clear();
        }
        let verdict = Verdict::default();
        all.insert(ip, Known { node: node.into(), who: who.clone(), since: now, verdict: verdict.clone() });
        verdict
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Knows `web` on `b`, nothing of `ghost`, and counts how often it is asked.
    #[derive(Default)]
    struct Cluster(AtomicUsize);

    #[async_trait]
    impl Workloads for Cluster {
        async fn confirm(&self, claim: Claim<'_>) -> Option<bool> {
            self.0.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            match claim.pod {
                "ghost" => None,
                "late" => std::future::pending().await,
                pod => Some((pod, claim.node, claim.namespace, claim.service_account) == ("web", "b", "shop", "robot")),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_cluster_is_asked_once_for_each_pod_and_again_after_a_while() {
        let cluster = Arc::new(Cluster::default());
        let register = Register::new(cluster.clone());
        let who = |account: &str, pod: &str| Identity::new("cluster.local", "shop", account, pod).unwrap();
        let ip = |last: u8| IpAddr::from([10, 244, 2, last]);
        let (web, admin) = (who("robot", "web"), who("admin", "web"));
        let asked = |more: usize| {
            let count = cluster.0.swap(0, Ordering::Relaxed);
            assert_eq!(count, more);
        };
        let all = futures::future::join_all((0..10).map(|_| register.judge("b", ip(7), &web))).await;
        assert_eq!(all, [Some(true); 10]);
        asked(1);
        assert_eq!(register.judge("b", ip(8), &admin).await, Some(false), "another account than the pod's");
        assert_eq!(register.judge("c", ip(9), &web).await, Some(false), "a pod of another node");
        assert_eq!(register.judge("b", ip(5), &who("robot", "ghost")).await, None);
        assert_eq!(register.judge("b", ip(6), &who("robot", "late")).await, None, "nobody says");
        asked(4);
        // What was not confirmed is asked again soon, what was is not.
        tokio::time::sleep(OTHERWISE_FOR).await;
        assert_eq!(register.judge("b", ip(5), &who("robot", "ghost")).await, None);
        assert_eq!(register.judge("b", ip(7), &web).await, Some(true));
        asked(1);
        assert_eq!(register.judge("b", ip(7), &admin).await, Some(false), "the address is said to be somebody else's");
        asked(1);
        assert_eq!(register.judge("b", ip(7), &web).await, Some(true));
        tokio::time::sleep(CONFIRMED_FOR).await;
        assert_eq!(register.judge("b", ip(7), &web).await, Some(true));
        asked(2);
    }
}
