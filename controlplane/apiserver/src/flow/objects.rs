//! The FlowSchemas and PriorityLevelConfigurations that every cluster has.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go`.

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use podium_api::Kind as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Those that nobody can do without.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// The levels, with their defaults.
pub(crate) fn levels(mandatory: bool) -> Vec<PriorityLevelConfiguration> {
    let mut made: Vec<PriorityLevelConfiguration> = read(all_levels(), mandatory);
    made.iter_mut().for_each(|level| level.fill_defaults());
    made
}

/// The schemas, with their defaults.
pub(crate) fn schemas(mandatory: bool) -> Vec<FlowSchema> {
    let mut made: Vec<FlowSchema> = read(all_schemas(), mandatory);
    made.iter_mut().for_each(|schema| schema.fill_defaults());
    made
}

fn read<T: DeserializeOwned>(values: Vec<Value>, mandatory: bool) -> Vec<T> {
    let is_mandatory = |value: &Value| MANDATORY.iter().any(|name| value["metadata"]["name"] == *name);
    let wanted = values.into_iter().filter(|value| is_mandatory(value) == mandatory);
    wanted.map(|value| serde_json::from_value(value).expect("invariant: what is built in can be read")).collect()
}

fn metadata(name: &str) -> Value {
    json!({"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}})
}

fn all_levels() -> Vec<Value> {
    let level = |name: &str, spec: Value| json!({"metadata": metadata(name), "spec": spec});
    let queued = |name: &str, shares: u32, lendable: u32, (queues, hand): (u32, u32)| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        let response = json!({"type": "Queue", "queuing": queuing});
        let limited =
            json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        level(name, json!({"type": "Limited", "limited": limited}))
    };
    let exempt = json!({"nominalConcurrencyShares": 0, "lendablePercent": 0});
    let last = json!({"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}});
    vec![
        level("exempt", json!({"type": "Exempt", "exempt": exempt})),
        level("catch-all", json!({"type": "Limited", "limited": last})),
        queued("system", 30, 33, (64, 6)),
        queued("node-high", 40, 25, (64, 6)),
        queued("leader-election", 10, 0, (16, 4)),
        queued("workload-high", 40, 50, (128, 6)),
        queued("workload-low", 100, 90, (128, 6)),
        queued("global-default", 20, 50, (128, 6)),
    ]
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "User", "user": {"name": name}})).collect()
}

fn system_accounts() -> Vec<Value> {
    vec![json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}})]
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn schema(name: &str, level: &str, precedence: u32, by: &str, rules: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rules],
    });
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    json!({"metadata": metadata(name), "spec": spec})
}

fn everything(subjects: Vec<Value>) -> Value {
    let urls = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
    json!({"subjects": subjects, "resourceRules": [resources(&["*"], "*", &["*"], true)], "nonResourceRules": urls})
}

fn all_schemas() -> Vec<Value> {
    let anybody = || groups(&["system:unauthenticated", "system:authenticated"]);
    let nodes = || groups(&["system:nodes"]);
    let elected = [users(&["system:kube-controller-manager", "system:kube-scheduler"]), system_accounts()].concat();
    let leases = |verbs: &[&str]| resources(verbs, "coordination.k8s.io", &["leases"], false);
    let probes = json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]);
    let probes = json!({"subjects": anybody(), "nonResourceRules": probes});
    let elections = json!({"subjects": elected, "resourceRules": [leases(&["get", "create", "update"])]});
    let of_nodes = [resources(&["*"], "", &["nodes", "nodes/status"], true), leases(&["*"])];
    let of_nodes = json!({"subjects": nodes(), "resourceRules": of_nodes});
    let manager = users(&["system:kube-controller-manager"]);
    let (space, user) = ("ByNamespace", "ByUser");
    vec![
        schema("exempt", "exempt", 1, "", everything(groups(&["system:masters"]))),
        schema("catch-all", "catch-all", 10_000, user, everything(anybody())),
        schema("probes", "exempt", 2, "", probes),
        schema("system-leader-election", "leader-election", 100, user, elections),
        schema("system-node-high", "node-high", 400, user, of_nodes),
        schema("system-nodes", "system", 500, user, everything(nodes())),
        schema("kube-controller-manager", "workload-high", 800, space, everything(manager)),
        schema("kube-scheduler", "workload-high", 800, space, everything(users(&["system:kube-scheduler"]))),
        schema("kube-system-service-accounts", "workload-high", 900, space, everything(system_accounts())),
        schema("service-accounts", "workload-low", 9000, user, everything(groups(&["system:serviceaccounts"]))),
        schema("global-default", "global-default", 9900, user, everything(anybody())),
    ]
}

#[cfg(test)]
mod tests {
    use podium_api::FieldErrors;

    use super::*;

    #[test]
    fn what_is_built_in_is_valid_and_whole() {
        let (levels_all, schemas_all) =
            ([levels(true), levels(false)].concat(), [schemas(true), schemas(false)].concat());
        assert_eq!((levels(true).len(), levels_all.len(), schemas(true).len(), schemas_all.len()), (2, 8, 2, 11));
        let mut errors = FieldErrors::default();
        levels_all.iter().for_each(|level| level.validate(&mut errors));
        schemas_all.iter().for_each(|schema| schema.validate(&mut errors));
        assert!(errors.is_empty(), "{errors:?}");
        for schema in &schemas_all {
            let level = &schema.spec.as_ref().unwrap().priority_level_configuration.name;
            assert!(levels_all.iter().any(|l| l.metadata.name.as_ref() == Some(level)), "{level}");
        }
    }
}
