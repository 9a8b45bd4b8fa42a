//! The index beside a naive model that looks at every pod each time, over random histories.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{both, labels, node, pod};
use crate::{Decision, PodInfo, Profile, Snapshot, schedule};

const ZONES: [&str; 3] = ["x", "y", "z"];
const APPS: [&str; 3] = ["web", "db", "job"];

#[derive(Debug, Clone)]
enum Step {
    /// A node appears in a zone, or moves to it; without a zone it loses the label.
    Node(usize, Option<usize>),
    NodeGone(usize),
    /// A pod of an app and a kind of wish lands on a node.
    Pod {
        name: usize,
        node: usize,
        app: usize,
        wish: usize,
    },
    PodGone(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..6_usize, proptest::option::of(0..3_usize)).prop_map(|(n, zone)| Step::Node(n, zone)),
        (0..6_usize).prop_map(Step::NodeGone),
        (0..20_usize, 0..6_usize, 0..3_usize, 0..5_usize).prop_map(|(name, node, app, wish)| Step::Pod {
            name,
            node,
            app,
            wish
        }),
        (0..20_usize).prop_map(Step::PodGone),
    ]
}

/// What a pod asks of others: nothing, to be far, to be near, or to be spread.
fn wish(kind: usize, target: &str) -> Value {
    let selector = json!({"matchLabels": {"app": target}});
    let term = json!([{"topologyKey": "zone", "labelSelector": selector}]);
    match kind {
        1 => {
            json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}}})
        }
        2 => json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}}}),
        3 => json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}]}}),
        _ => json!({}),
    }
}

fn wanted(app: usize, kind: usize) -> Value {
    both(both(labels(&[("app", APPS[app])]), &wish(kind, APPS[0])), &json!({"spec": {"containers": []}}))
}

#[derive(Default)]
struct Naive {
    nodes: BTreeMap<usize, Option<usize>>,
    pods: BTreeMap<usize, (usize, usize, usize)>,
}

impl Naive {
    /// App and wish of the pods in a zone.
    fn there(&self, zone: usize) -> impl Iterator<Item = (usize, usize)> {
        let here = move |node: &usize| self.nodes.get(node).copied().flatten() == Some(zone);
        self.pods.values().filter(move |(node, ..)| here(node)).map(|(_, app, wish)| (*app, *wish))
    }

    fn webs(&self, zone: usize) -> usize {
        self.there(zone).filter(|(app, _)| *app == 0).count()
    }

    fn zones(&self) -> impl Iterator<Item = usize> {
        (0..ZONES.len()).filter(|zone| self.nodes.values().any(|z| *z == Some(*zone)))
    }

    fn fits(&self, node: usize, app: usize, wish: usize) -> bool {
        let zone = self.nodes[&node];
        let unwanted = app == 0 && zone.is_some_and(|zone| self.there(zone).any(|(_, wish)| wish == 1));
        let own = match (wish, zone) {
            (1, Some(zone)) => self.webs(zone) == 0,
            (2, Some(zone)) => self.webs(zone) > 0 || (app == 0 && self.zones().all(|z| self.webs(z) == 0)),
            (3, Some(zone)) => {
                let emptiest = self.zones().map(|z| self.webs(z)).min().unwrap_or(0);
                self.webs(zone) + usize::from(app == 0) <= emptiest + 1
            }
            (2 | 3, None) => false,
            _ => true,
        };
        own && !unwanted
    }
}

fn apply(step: &Step, snapshot: &mut Snapshot, naive: &mut Naive) {
    match step {
        Step::Node(n, zone) => {
            let labels = zone.map_or(json!({}), |zone| labels(&[("zone", ZONES[zone])]));
            let roomy = json!({"status": {"allocatable": {"cpu": "1000", "memory": "1000Gi", "pods": "1000"}}});
            snapshot.upsert_node(&node(&format!("n{n}"), &both(labels, &roomy)));
            naive.nodes.insert(*n, *zone);
        }
        Step::NodeGone(n) => {
            snapshot.remove_node(&format!("n{n}"));
            naive.nodes.remove(n);
        }
        Step::Pod { name, node, app, wish } => {
            snapshot.assume(&PodInfo::of(&pod(&format!("p{name}"), &wanted(*app, *wish))), &format!("n{node}"));
            naive.pods.insert(*name, (*node, *app, *wish));
        }
        Step::PodGone(name) => {
            snapshot.remove_pod(&format!("p{name}"));
            naive.pods.remove(name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_index_says_what_looking_at_every_pod_says(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut snapshot, mut naive) = (Snapshot::new(), Naive::default());
        let profile = Profile { preemption: None, ..Profile::default() };
        for (n, step) in steps.iter().enumerate() {
            apply(step, &mut snapshot, &mut naive);
            let (app, kind) = (n % 3, n % 4);
            // Each node alone, so that the answer is about it.
            for node in naive.nodes.keys() {
                let only = json!({"spec": {"nodeName": format!("n{node}")}});
                let incoming = PodInfo::of(&pod("incoming", &both(wanted(app, kind), &only)));
                let bound = matches!(schedule(&incoming, &mut snapshot, &profile, 7), Decision::Bind { .. });
                prop_assert_eq!(bound, naive.fits(*node, app, kind), "step {}, node {}, app {}, wish {}", n, node, app, kind);
            }
        }
        // When all pods are gone, nothing is counted.
        for name in 0..20 {
            snapshot.remove_pod(&format!("p{name}"));
        }
        prop_assert!(snapshot.nodes().all(|n| n.requested.pods == 0 && n.requested.millicores == 0));
        prop_assert_eq!(snapshot.index.sum(), 0);
    }
}
