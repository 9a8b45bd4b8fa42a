//! Podium's own kind of policies of ways out, as the agent reads it: `EgressPolicy` of `network.podium.dev/v1alpha1`. What is
//! served is defined by a CustomResourceDefinition; here only what is needed of it is known.

use k8s_openapi::{
    Metadata, NamespaceResourceScope, Resource,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
    schemars::{JsonSchema, Schema, SchemaGenerator, json_schema},
};
use podium_api::{Kind, Names, Object, Scope};
use podium_network::{HostPattern, HostPatterns, table::Protocol};
use serde::{Deserialize, Serialize};

use super::policies;

const GROUP: &str = "network.podium.dev";
const VERSION: &str = "v1alpha1";

/// One policy of ways out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EgressPolicy {
    api_version: String,
    kind: String,
    metadata: ObjectMeta,
    spec: Spec,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    pod_selector: LabelSelector,
    egress: Vec<Rule>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    hosts: Vec<String>,
    ports: Vec<Port>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    protocol: Option<String>,
    port: i32,
    end_port: Option<i32>,
}

impl Resource for EgressPolicy {
    const API_VERSION: &'static str = "network.podium.dev/v1alpha1";
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "EgressPolicy";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "egresspolicies";
    type Scope = NamespaceResourceScope;
}

impl Metadata for EgressPolicy {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl JsonSchema for EgressPolicy {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "dev.podium.network.v1alpha1.EgressPolicy".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}

impl Kind for EgressPolicy {
    const NAMES: Names = Names::new(GROUP, VERSION, "EgressPolicy", "egresspolicies", "egresspolicy");
    const SCOPE: Scope = Scope::Namespaced;
}

/// What an object says; what cannot be read of it allows nothing.
pub(crate) fn translate(object: &dyn Object) -> podium_network::EgressPolicy {
    let read = match object.downcast_ref::<EgressPolicy>() {
        Some(typed) => Ok(typed.clone()),
        None => object.to_value().and_then(serde_json::from_value::<EgressPolicy>),
    };
    let name = policies::name_of(object.meta());
    let spec = read.map(|policy| policy.spec).unwrap_or_else(|error| {
        tracing::warn!(%name, %error, "an EgressPolicy cannot be read: it allows nothing");
        Spec::default()
    });
    let patterns = spec.egress.iter().flat_map(|rule| patterns(&name, rule));
    let allowed: HostPatterns = patterns.collect();
    podium_network::EgressPolicy { pods: policies::selector(&spec.pod_selector), allowed, name }
}

fn patterns(name: &podium_network::table::Name, rule: &Rule) -> Vec<HostPattern> {
    let all_ports = [(Some((1, u16::MAX)), None)];
    let ports: Vec<_> = match rule.ports.as_slice() {
        [] => all_ports.into(),
        ports => ports.iter().map(|port| (port.range(), port.protocol())).collect(),
    };
    let mut found = Vec::new();
    for (range, protocol) in &ports {
        for host in &rule.hosts {
            match (range, HostPattern::new(host, range.unwrap_or((0, 0)), *protocol)) {
                (Some(_), Ok(pattern)) => found.push(pattern),
                (_, Err(error)) => {
                    tracing::warn!(policy = %name, %error, "a host of an EgressPolicy cannot be read: it allows nothing");
                }
                (None, Ok(_)) => {}
            }
        }
    }
    found
}

impl Port {
    fn range(&self) -> Option<(u16, u16)> {
        let first = u16::try_from(self.port).ok().filter(|port| *port > 0)?;
        Some((first, self.end_port.map_or(Some(first), |last| u16::try_from(last).ok())?))
    }

    fn protocol(&self) -> Option<Protocol> {
        match self.protocol.as_deref() {
            Some("UDP") => Some(Protocol::Udp),
            _ => Some(Protocol::Tcp),
        }
    }
}

#[cfg(test)]
mod tests {
    use podium_api::kind_of;
    use serde_json::json;

    use super::*;

    fn read(spec: serde_json::Value) -> podium_network::EgressPolicy {
        let json = json!({ "apiVersion": EgressPolicy::API_VERSION, "kind": "EgressPolicy",
            "metadata": { "namespace": "shop", "name": "out" }, "spec": spec });
        translate(&*kind_of::<EgressPolicy>().decode_value(json).unwrap().object)
    }

    #[test]
    fn what_a_policy_allows_is_a_list_of_patterns() {
        let policy = read(json!({
            "podSelector": { "matchLabels": { "app": "web" } },
            "egress": [
                { "hosts": ["api.example.com", "*.example.org"], "ports": [{ "port": 443 }] },
                { "hosts": ["10.1.0.0/16"], "ports": [{ "port": 5000, "endPort": 5010, "protocol": "UDP" }] },
                { "hosts": ["any.example"] },
            ],
        }));
        assert_eq!(policy.name.to_string(), "shop/out");
        assert_eq!(policy.pods, podium_network::Selector::label("app", "web"));
        let expected = "tcp://api.example.com:443 tcp://*.example.org:443 udp://10.1.0.0/16:5000..5010 any.example:*";
        assert_eq!(policy.allowed, expected.parse().unwrap());
    }

    #[test]
    fn what_says_nothing_allows_nothing() {
        let nothing = HostPatterns::default();
        assert_eq!(read(json!({})).allowed, nothing);
        let bad_host = json!({ "egress": [{ "hosts": ["a b"], "ports": [{ "port": 1 }] }] });
        let bad_port = json!({ "egress": [{ "hosts": ["a"], "ports": [{ "port": 70000 }] }] });
        let bad_range = json!({ "egress": [{ "hosts": ["a"], "ports": [{ "port": 2, "endPort": 1 }] }] });
        for bad in [bad_host, bad_port, bad_range] {
            assert_eq!(read(bad.clone()).allowed, nothing, "{bad}");
        }
    }
}
