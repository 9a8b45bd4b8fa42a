//! [`Config`]: what a `KubeSchedulerConfiguration` says, as far as it has a meaning here.
//!
//! Profiles, plugins (switched on and off, weights) and their arguments are Kubernetes'. Extenders are refused; what is
//! about the process itself (client connection, leader election, parallelism) is read and has no effect.

mod file;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use self::file::{Args, File, FileProfile, Plugins};
use crate::{
    filters::{
        InterPodAffinity, NodeAffinity, NodeName, NodePorts, NodeResourcesFit, NodeUnschedulable, NodeVolumeLimits,
        PodTopologySpread, TaintToleration, VolumeBinding, VolumeRestrictions, VolumeZone,
    },
    plugin::{Filter, Score},
    pod::DEFAULT_SCHEDULER,
    profile::{Profile, Weighted},
    queue::{BACKOFF_INITIAL, BACKOFF_MAX},
    scores::{BalancedAllocation, EvenSpread, ImageLocality, PreferredNodes, PreferredPods, PreferredTaints},
};

/// How long a pod's volumes may take to be bound when nothing else is configured.
pub const BIND_TIMEOUT: Duration = Duration::from_secs(600);

/// How pods are scheduled.
pub struct Config {
    /// One for each scheduler name.
    pub profiles: Vec<Profile>,
    /// The first back-off of a pod that could not be scheduled.
    pub backoff_initial: Duration,
    /// Its longest back-off.
    pub backoff_max: Duration,
    /// How long its volumes may take to be bound.
    pub bind_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            profiles: vec![Profile::default()],
            backoff_initial: BACKOFF_INITIAL,
            backoff_max: BACKOFF_MAX,
            bind_timeout: BIND_TIMEOUT,
        }
    }
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// What can be switched: name, and the weight of its score (0: it has none).
const PLUGINS: [(&str, i64); 18] = [
    ("SchedulingGates", 0),
    ("PrioritySort", 0),
    ("NodeUnschedulable", 0),
    ("NodeName", 0),
    ("TaintToleration", 3),
    ("NodeAffinity", 2),
    ("NodePorts", 0),
    ("NodeResourcesFit", 1),
    ("VolumeRestrictions", 0),
    ("NodeVolumeLimits", 0),
    ("VolumeBinding", 0),
    ("VolumeZone", 0),
    ("PodTopologySpread", 2),
    ("InterPodAffinity", 2),
    ("DefaultPreemption", 0),
    ("NodeResourcesBalancedAllocation", 1),
    ("ImageLocality", 1),
    ("DefaultBinder", 0),
];

/// Plugins of Kubernetes that have nothing to do here: naming them is no mistake.
const IDLE: [&str; 3] = ["DynamicResources", "NodeDeclaredFeatures", "GangScheduling"];

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong in it, and where.
    pub fn from_value(value: Value) -> Result<Self, ConfigError> {
        let file: File = serde_json::from_value(value).map_err(|error| ConfigError(error.to_string()))?;
        if file.api_version != "kubescheduler.config.k8s.io/v1" || file.kind != "KubeSchedulerConfiguration" {
            let (kind, version) = (file.kind, file.api_version);
            return Err(ConfigError(format!(
                "no kind {kind:?} is registered for version {version:?}: KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1 is"
            )));
        }
        if !file.extenders.is_empty() {
            return Err(ConfigError("extenders: Forbidden: extenders are not supported".to_owned()));
        }
        let initial = seconds("podInitialBackoffSeconds", file.pod_initial_backoff_seconds, BACKOFF_INITIAL)?;
        let max = seconds("podMaxBackoffSeconds", file.pod_max_backoff_seconds, BACKOFF_MAX)?;
        if max < initial {
            return Err(ConfigError(format!(
                "podMaxBackoffSeconds: Invalid value: {}: must be greater than or equal to PodInitialBackoffSeconds",
                max.as_secs()
            )));
        }
        percent("percentageOfNodesToScore", file.percentage_of_nodes_to_score)?;
        let mut config = Self { profiles: Vec::new(), backoff_initial: initial, backoff_max: max, ..Self::default() };
        let mut names = BTreeSet::new();
        for (n, profile) in file.profiles.iter().enumerate() {
            let at = format!("profiles[{n}]");
            let read = config.profile(profile, file.percentage_of_nodes_to_score, &at)?;
            if !names.insert(read.scheduler_name.clone()) {
                let name = read.scheduler_name;
                return Err(ConfigError(format!("{at}.schedulerName: Duplicate value: {name:?}")));
            }
            config.profiles.push(read);
        }
        if config.profiles.is_empty() {
            let percentage_of_nodes_to_score = file.percentage_of_nodes_to_score.filter(|p| *p > 0);
            config.profiles.push(Profile { percentage_of_nodes_to_score, ..Profile::default() });
        }
        Ok(config)
    }

    /// The profile of a scheduler name.
    pub fn profile_of(&self, scheduler_name: &str) -> Option<&Profile> {
        self.profiles.iter().find(|p| p.scheduler_name == scheduler_name)
    }

    fn profile(&mut self, file: &FileProfile, percentage: Option<u32>, at: &str) -> Result<Profile, ConfigError> {
        percent(&format!("{at}.percentageOfNodesToScore"), file.percentage_of_nodes_to_score)?;
        file.plugins.check(&format!("{at}.plugins"))?;
        let args = Args::read(&file.plugin_config, &format!("{at}.pluginConfig"))?;
        if let Some(timeout) = args.bind_timeout {
            self.bind_timeout = timeout;
        }
        let filters = PLUGINS.iter().filter(|(name, _)| file.plugins.filters(name));
        let scores = PLUGINS.iter().filter_map(|(name, default)| {
            let weight = file.plugins.weight(name, *default)?;
            Some(Weighted { score: score(name, &args)?, weight })
        });
        Ok(Profile {
            scheduler_name: file.scheduler_name.clone().unwrap_or_else(|| DEFAULT_SCHEDULER.to_owned()),
            filters: filters.filter_map(|(name, _)| filter(name, &args)).collect(),
            scores: scores.collect(),
            preemption: file.plugins.preempts().then_some(args.preemption),
            percentage_of_nodes_to_score: file.percentage_of_nodes_to_score.or(percentage).filter(|p| *p > 0),
            default_spread_is_systems: args.default_spread.is_none(),
            default_spread: args.default_spread.unwrap_or_else(crate::profile::system_spread),
        })
    }
}

fn filter(name: &str, args: &Args) -> Option<Box<dyn Filter>> {
    Some(match name {
        "NodeUnschedulable" => Box::new(NodeUnschedulable),
        "NodeName" => Box::new(NodeName),
        "TaintToleration" => Box::new(TaintToleration),
        "NodeAffinity" => Box::new(NodeAffinity { added: args.required_nodes.clone() }),
        "NodePorts" => Box::new(NodePorts),
        "NodeResourcesFit" => Box::new(NodeResourcesFit {
            ignored: args.ignored_resources.clone(),
            ignored_groups: args.ignored_groups.clone(),
        }),
        "VolumeRestrictions" => Box::new(VolumeRestrictions),
        "NodeVolumeLimits" => Box::new(NodeVolumeLimits),
        "VolumeBinding" => Box::new(VolumeBinding),
        "VolumeZone" => Box::new(VolumeZone),
        "PodTopologySpread" => Box::new(PodTopologySpread),
        "InterPodAffinity" => Box::new(InterPodAffinity),
        _ => return None,
    })
}

fn score(name: &str, args: &Args) -> Option<Box<dyn Score>> {
    Some(match name {
        "TaintToleration" => Box::new(PreferredTaints),
        "NodeAffinity" => Box::new(PreferredNodes { added: args.preferred_nodes.clone() }),
        "NodeResourcesFit" => Box::new(args.allocated.clone()),
        "PodTopologySpread" => Box::new(EvenSpread),
        "InterPodAffinity" => {
            Box::new(PreferredPods { hard_weight: args.hard_pod_affinity, ignore_placed: args.ignore_placed })
        }
        "NodeResourcesBalancedAllocation" => Box::new(BalancedAllocation { resources: args.balanced.clone() }),
        "ImageLocality" => Box::new(ImageLocality),
        _ => return None,
    })
}

impl Plugins {
    fn check(&self, at: &str) -> Result<(), ConfigError> {
        let known = |name: &str| PLUGINS.iter().any(|(n, _)| *n == name) || IDLE.contains(&name);
        for (point, set) in self.sets() {
            let named = set.enabled.iter().chain(&set.disabled).find(|p| p.name != "*" && !known(&p.name));
            if let Some(plugin) = named {
                let name = &plugin.name;
                return Err(ConfigError(format!("{at}.{point}: Invalid value: {name:?}: plugin does not exist")));
            }
            if let Some(plugin) = set.enabled.iter().find(|p| !(0..=1_000_000).contains(&p.weight)) {
                let weight = plugin.weight;
                return Err(ConfigError(format!("{at}.{point}: Invalid value: {weight}: weight must be 0 to 1000000")));
            }
        }
        Ok(())
    }

    fn filters(&self, name: &str) -> bool {
        self.filter.says(name).or(self.multi_point.says(name)).unwrap_or(true)
    }

    fn preempts(&self) -> bool {
        let name = "DefaultPreemption";
        self.post_filter.says(name).or(self.multi_point.says(name)).unwrap_or(true)
    }

    /// `None`: its score is not asked for.
    fn weight(&self, name: &str, default: i64) -> Option<i64> {
        if default == 0 || !self.score.says(name).or(self.multi_point.says(name)).unwrap_or(true) {
            return None;
        }
        let given =
            |set: &file::PluginSet| set.enabled.iter().find(|p| p.name == name && p.weight > 0).map(|p| p.weight);
        Some(given(&self.score).or(given(&self.multi_point)).unwrap_or(default))
    }
}

fn seconds(at: &str, value: Option<i64>, default: Duration) -> Result<Duration, ConfigError> {
    match value {
        None => Ok(default),
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds.unsigned_abs())),
        Some(seconds) => Err(ConfigError(format!("{at}: Invalid value: {seconds}: must be greater than 0"))),
    }
}

fn percent(at: &str, value: Option<u32>) -> Result<(), ConfigError> {
    match value {
        Some(percent) if percent > 100 => {
            Err(ConfigError(format!("{at}: Invalid value: {percent}: not in valid range [0-100]")))
        }
        _ => Ok(()),
    }
}
