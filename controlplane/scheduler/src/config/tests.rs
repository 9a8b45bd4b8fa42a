//! Configurations, read and refused.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::Config;
use crate::Profile;

fn read(more: Value) -> Result<Config, String> {
    let mut file = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"});
    for (key, value) in more.as_object().unwrap() {
        file[key] = value.clone();
    }
    Config::from_value(file).map_err(|error| error.to_string())
}

fn profile(profile: Value) -> Result<Config, String> {
    read(json!({"profiles": [profile]}))
}

fn show(profile: &Profile) -> String {
    let filters: Vec<_> = profile.filters.iter().map(|f| f.name()).collect();
    let scores: Vec<_> = profile.scores.iter().map(|w| format!("{}={}", w.score.name(), w.weight)).collect();
    format!("{}\n{}\n{}", profile.scheduler_name, filters.join(" "), scores.join(" "))
}

#[test]
fn an_empty_file_says_what_the_default_says() {
    let config = read(json!({})).unwrap();
    assert_eq!(show(&config.profiles[0]), show(&Profile::default()));
    let config = profile(json!({})).unwrap();
    assert_eq!(config.profiles[0].filters.len(), Profile::default().filters.len());
    expect![[r#"
        default-scheduler
        NodeUnschedulable NodeName TaintToleration NodeAffinity NodePorts NodeResourcesFit VolumeRestrictions NodeVolumeLimits VolumeBinding VolumeZone PodTopologySpread InterPodAffinity
        TaintToleration=3 NodeAffinity=2 NodeResourcesFit=1 PodTopologySpread=2 InterPodAffinity=2 NodeResourcesBalancedAllocation=1 ImageLocality=1"#]]
    .assert_eq(&show(&config.profiles[0]));
}

#[test]
fn plugins_are_switched_and_weighed() {
    let config = profile(json!({
        "schedulerName": "packing",
        "plugins": {
            "multiPoint": {"disabled": [{"name": "DefaultPreemption"}]},
            "filter": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}, {"name": "NodeName"}]},
            "score": {"disabled": [{"name": "ImageLocality"}], "enabled": [{"name": "NodeResourcesFit", "weight": 9}]},
        },
        "pluginConfig": [
            {"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 5}]}}},
            {"name": "PodTopologySpread", "args": {"defaultingType": "List", "defaultConstraints": [
                {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}]}},
        ],
    }))
    .unwrap();
    expect![[r#"
        packing
        NodeName NodeResourcesFit
        TaintToleration=3 NodeAffinity=2 NodeResourcesFit=9 PodTopologySpread=2 InterPodAffinity=2 NodeResourcesBalancedAllocation=1"#]]
    .assert_eq(&show(&config.profiles[0]));
    assert!(config.profiles[0].preemption.is_none());
    assert!(config.profiles[0].default_spread[0].hard && !config.profiles[0].default_spread_is_systems);
    assert!(config.profile_of("packing").is_some() && config.profile_of("default-scheduler").is_none());
}

#[test]
fn says_what_is_wrong_and_where() {
    #[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
    fn check(result: Result<Config, String>, error: Expect) {
        error.assert_eq(&result.err().unwrap_or_default());
    }
    check(
        read(json!({"kind": "Pod"})),
        expect![[
            r#"no kind "Pod" is registered for version "kubescheduler.config.k8s.io/v1": KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1 is"#
        ]],
    );
    check(read(json!({"extenders": [{}]})), expect!["extenders: Forbidden: extenders are not supported"]);
    check(
        read(json!({"percentageOfNodesToScore": 101})),
        expect!["percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]"],
    );
    check(
        read(json!({"podInitialBackoffSeconds": 0})),
        expect!["podInitialBackoffSeconds: Invalid value: 0: must be greater than 0"],
    );
    check(
        profile(json!({"plugins": {"score": {"enabled": [{"name": "Nope"}]}}})),
        expect![[r#"profiles[0].plugins.score: Invalid value: "Nope": plugin does not exist"#]],
    );
    check(
        profile(json!({"pluginConfig": [{"name": "NodeName", "args": {}}]})),
        expect![[r#"profiles[0].pluginConfig[0].args: Forbidden: plugin "NodeName" takes no arguments"#]],
    );
    check(
        profile(json!({"pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "Best"}}}]})),
        expect![[
            r#"profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: "Best": supported values: "LeastAllocated", "MostAllocated", "RequestedToCapacityRatio""#
        ]],
    );
    let misspelt = read(json!({"profile": []})).err().unwrap();
    assert!(misspelt.starts_with("unknown field `profile`"), "{misspelt}");
}
