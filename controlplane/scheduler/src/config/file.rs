//! The file as it is written, and the arguments of plugins.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kube-scheduler/config/v1/types.go`, `types_pluginargs.go`.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::{NodeAffinity, NodeSelector, PreferredSchedulingTerm, TopologySpreadConstraint};
use serde::Deserialize;
use serde_json::Value;

use super::ConfigError;
use crate::{
    profile::PreemptionLimits,
    scores::{Allocated, BalancedAllocation, Strategy, WeightedResource},
    terms::{AffinityTerm, Scope, SpreadConstraint},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) api_version: String,
    #[serde(default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) profiles: Vec<FileProfile>,
    #[serde(default)]
    pub(super) percentage_of_nodes_to_score: Option<u32>,
    #[serde(default)]
    pub(super) pod_initial_backoff_seconds: Option<i64>,
    #[serde(default)]
    pub(super) pod_max_backoff_seconds: Option<i64>,
    #[serde(default)]
    pub(super) extenders: Vec<Value>,
    #[serde(default, rename = "parallelism")]
    _parallelism: Option<Value>,
    #[serde(default, rename = "leaderElection")]
    _leader_election: Option<Value>,
    #[serde(default, rename = "clientConnection")]
    _client_connection: Option<Value>,
    #[serde(default, rename = "enableProfiling")]
    _enable_profiling: Option<Value>,
    #[serde(default, rename = "enableContentionProfiling")]
    _enable_contention_profiling: Option<Value>,
    #[serde(default, rename = "delayCacheUntilActive")]
    _delay_cache_until_active: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileProfile {
    #[serde(default)]
    pub(super) scheduler_name: Option<String>,
    #[serde(default)]
    pub(super) percentage_of_nodes_to_score: Option<u32>,
    #[serde(default)]
    pub(super) plugins: Plugins,
    #[serde(default)]
    pub(super) plugin_config: Vec<PluginConfig>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Plugins {
    pub(super) multi_point: PluginSet,
    pub(super) filter: PluginSet,
    pub(super) post_filter: PluginSet,
    pub(super) score: PluginSet,
    pre_enqueue: PluginSet,
    queue_sort: PluginSet,
    pre_filter: PluginSet,
    pre_score: PluginSet,
    reserve: PluginSet,
    permit: PluginSet,
    pre_bind: PluginSet,
    bind: PluginSet,
    post_bind: PluginSet,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PluginSet {
    pub(super) enabled: Vec<Plugin>,
    pub(super) disabled: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plugin {
    pub(super) name: String,
    #[serde(default)]
    pub(super) weight: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PluginConfig {
    name: String,
    #[serde(default)]
    args: Value,
}

impl PluginSet {
    /// Whether the set switches a plugin on or off; enabled wins over disabled.
    pub(super) fn says(&self, name: &str) -> Option<bool> {
        if self.enabled.iter().any(|p| p.name == name) {
            return Some(true);
        }
        self.disabled.iter().any(|p| p.name == name || p.name == "*").then_some(false)
    }
}

impl Plugins {
    pub(super) fn sets(&self) -> [(&'static str, &PluginSet); 13] {
        [
            ("multiPoint", &self.multi_point),
            ("preEnqueue", &self.pre_enqueue),
            ("queueSort", &self.queue_sort),
            ("preFilter", &self.pre_filter),
            ("filter", &self.filter),
            ("postFilter", &self.post_filter),
            ("preScore", &self.pre_score),
            ("score", &self.score),
            ("reserve", &self.reserve),
            ("permit", &self.permit),
            ("preBind", &self.pre_bind),
            ("bind", &self.bind),
            ("postBind", &self.post_bind),
        ]
    }
}

/// The arguments of all plugins of a profile.
pub(super) struct Args {
    pub(super) required_nodes: Option<NodeSelector>,
    pub(super) preferred_nodes: Vec<PreferredSchedulingTerm>,
    pub(super) ignored_resources: BTreeSet<String>,
    pub(super) ignored_groups: BTreeSet<String>,
    pub(super) allocated: Allocated,
    pub(super) balanced: Vec<WeightedResource>,
    pub(super) hard_pod_affinity: i64,
    pub(super) ignore_placed: bool,
    pub(super) default_spread: Option<Vec<SpreadConstraint>>,
    pub(super) preemption: PreemptionLimits,
    pub(super) bind_timeout: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct AnyArgs {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    added_affinity: Option<NodeAffinity>,
    ignored_resources: Vec<String>,
    ignored_resource_groups: Vec<String>,
    scoring_strategy: Option<ScoringStrategy>,
    resources: Option<Vec<ResourceSpec>>,
    hard_pod_affinity_weight: Option<i64>,
    ignore_preferred_terms_of_existing_pods: bool,
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: Option<String>,
    min_candidate_nodes_percentage: Option<usize>,
    min_candidate_nodes_absolute: Option<usize>,
    bind_timeout_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScoringStrategy {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    resources: Option<Vec<ResourceSpec>>,
    #[serde(default)]
    requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceSpec {
    name: String,
    #[serde(default)]
    weight: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ratio {
    shape: Vec<Point>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    utilization: i64,
    score: i64,
}

impl Default for Args {
    fn default() -> Self {
        Self {
            required_nodes: None,
            preferred_nodes: Vec::new(),
            ignored_resources: BTreeSet::new(),
            ignored_groups: BTreeSet::new(),
            allocated: Allocated::default(),
            balanced: BalancedAllocation::default().resources,
            hard_pod_affinity: 1,
            ignore_placed: false,
            default_spread: None,
            preemption: PreemptionLimits::default(),
            bind_timeout: None,
        }
    }
}

impl Args {
    pub(super) fn read(config: &[PluginConfig], at: &str) -> Result<Self, ConfigError> {
        let mut all = Self::default();
        for (n, PluginConfig { name, args }) in config.iter().enumerate() {
            let at = format!("{at}[{n}].args");
            let wrong = |error: serde_json::Error| ConfigError(format!("{at}: {error}"));
            let args = match args {
                Value::Null => AnyArgs::default(),
                args => AnyArgs::deserialize(args).map_err(wrong)?,
            };
            all.take(name, args, &at)?;
        }
        Ok(all)
    }

    fn take(&mut self, name: &str, args: AnyArgs, at: &str) -> Result<(), ConfigError> {
        match name {
            "NodeAffinity" => {
                let added = args.added_affinity.unwrap_or_default();
                self.required_nodes = added.required_during_scheduling_ignored_during_execution;
                self.preferred_nodes = added.preferred_during_scheduling_ignored_during_execution.unwrap_or_default();
            }
            "NodeResourcesFit" => {
                self.ignored_resources = args.ignored_resources.into_iter().collect();
                self.ignored_groups = args.ignored_resource_groups.into_iter().collect();
                if let Some(scoring) = args.scoring_strategy {
                    self.allocated = strategy(scoring, &format!("{at}.scoringStrategy"))?;
                }
            }
            "NodeResourcesBalancedAllocation" => {
                if let Some(resources) = args.resources {
                    self.balanced = weights(resources, &format!("{at}.resources"))?;
                }
            }
            "InterPodAffinity" => {
                let weight = args.hard_pod_affinity_weight.unwrap_or(1);
                if !(0..=100).contains(&weight) {
                    return Err(ConfigError(format!(
                        "{at}.hardPodAffinityWeight: Invalid value: {weight}: not in valid range [0-100]"
                    )));
                }
                self.hard_pod_affinity = weight;
                self.ignore_placed = args.ignore_preferred_terms_of_existing_pods;
            }
            "PodTopologySpread" => self.default_spread = spread(args, at)?,
            "DefaultPreemption" => {
                let default = PreemptionLimits::default();
                self.preemption = PreemptionLimits {
                    percent: args.min_candidate_nodes_percentage.unwrap_or(default.percent),
                    nodes: args.min_candidate_nodes_absolute.unwrap_or(default.nodes),
                };
            }
            "VolumeBinding" => self.bind_timeout = args.bind_timeout_seconds.map(Duration::from_secs),
            _ => return Err(ConfigError(format!("{at}: Forbidden: plugin {name:?} takes no arguments"))),
        }
        Ok(())
    }
}

fn strategy(file: ScoringStrategy, at: &str) -> Result<Allocated, ConfigError> {
    let strategy = match file.kind.as_deref() {
        None | Some("LeastAllocated") => Strategy::Least,
        Some("MostAllocated") => Strategy::Most,
        Some("RequestedToCapacityRatio") => {
            let shape = file.requested_to_capacity_ratio.map(|r| r.shape).unwrap_or_default();
            Strategy::Ratio(points(&shape, &format!("{at}.requestedToCapacityRatio.shape"))?)
        }
        Some(other) => {
            let known = r#"supported values: "LeastAllocated", "MostAllocated", "RequestedToCapacityRatio""#;
            return Err(ConfigError(format!("{at}.type: Unsupported value: {other:?}: {known}")));
        }
    };
    let resources = match file.resources {
        Some(resources) if !resources.is_empty() => weights(resources, &format!("{at}.resources"))?,
        _ => Allocated::default().resources,
    };
    Ok(Allocated { strategy, resources })
}

/// Scores of 0 to 10 in the file are 0 to 100 here.
fn points(shape: &[Point], at: &str) -> Result<Vec<(i64, i64)>, ConfigError> {
    if shape.is_empty() {
        return Err(ConfigError(format!("{at}: Required value: at least one point must be specified")));
    }
    let rising = shape.windows(2).all(|two| two[0].utilization < two[1].utilization);
    if !rising {
        return Err(ConfigError(format!("{at}: Invalid value: utilization values must be sorted in increasing order")));
    }
    if shape.iter().any(|p| !(0..=100).contains(&p.utilization) || !(0..=10).contains(&p.score)) {
        return Err(ConfigError(format!("{at}: Invalid value: utilization not in 0 to 100, or score not in 0 to 10")));
    }
    Ok(shape.iter().map(|p| (p.utilization, p.score * 10)).collect())
}

fn weights(file: Vec<ResourceSpec>, at: &str) -> Result<Vec<WeightedResource>, ConfigError> {
    let weight = |spec: ResourceSpec| match spec.weight {
        0 => Ok(WeightedResource { name: spec.name, weight: 1 }),
        1..=100 => Ok(WeightedResource { name: spec.name, weight: spec.weight }),
        weight => {
            let name = spec.name;
            Err(ConfigError(format!(
                "{at}: Invalid value: {weight}: resource weight of {name} not in valid range [1, 100]"
            )))
        }
    };
    file.into_iter().map(weight).collect()
}

fn spread(args: AnyArgs, at: &str) -> Result<Option<Vec<SpreadConstraint>>, ConfigError> {
    match args.defaulting_type.as_deref() {
        None | Some("System") if args.default_constraints.is_empty() => return Ok(None),
        Some("System") => {
            return Err(ConfigError(format!(
                "{at}.defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty"
            )));
        }
        None | Some("List") => {}
        Some(other) => {
            let known = r#"supported values: "List", "System""#;
            return Err(ConfigError(format!("{at}.defaultingType: Unsupported value: {other:?}: {known}")));
        }
    }
    let mut read = Vec::new();
    for (n, constraint) in args.default_constraints.into_iter().enumerate() {
        let at = format!("{at}.defaultConstraints[{n}]");
        if constraint.label_selector.is_some() {
            return Err(ConfigError(format!(
                "{at}.labelSelector: Forbidden: constraint must not define a selector, as they deduced for each pod"
            )));
        }
        if constraint.max_skew <= 0 {
            let skew = constraint.max_skew;
            return Err(ConfigError(format!("{at}.maxSkew: Invalid value: {skew}: not in valid range (0, inf)")));
        }
        read.push(SpreadConstraint {
            term: AffinityTerm { scope: Scope::default(), topology_key: constraint.topology_key },
            max_skew: i64::from(constraint.max_skew),
            domains_min: 1,
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        });
    }
    Ok(Some(read))
}
