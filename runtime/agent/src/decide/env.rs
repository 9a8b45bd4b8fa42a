//! A container's environment and argv, as kubelet makes them. Pure: what is referred to has been read before.
//!
//! Order: the image's own (which nothing can refer to), `HOSTNAME`, links to Services, `envFrom`, `env`; a later name replaces an earlier one in place. Values of
//! Secrets go into the result and nowhere else: errors name keys, never values.
//!
//! # Source
//! Kubernetes `pkg/kubelet/kubelet_pods.go` (`makeEnvironmentVariables`), `third_party/forked/golang/expansion`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::core::v1::{ConfigMap, Container as Spec, EnvVarSource, Pod, Secret, Service};

use super::resources::{self, NodeResources};
use crate::images::ImageConfig;

/// ConfigMaps and Secrets by name, of the pod's namespace.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    pub(crate) secrets: BTreeMap<String, Option<Arc<Secret>>>,
}

/// What a container's environment refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
}

/// What else the environment depends on.
pub(crate) struct Surroundings<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ip: IpAddr,
    pub(crate) host_ip: IpAddr,
    pub(crate) node: NodeResources,
    pub(crate) sources: &'a Sources,
    /// Services of the pod's namespace, and `default/kubernetes`.
    pub(crate) services: &'a [Arc<Service>],
}

/// Which ConfigMaps and Secrets have to be read.
pub(crate) fn references(spec: &Spec) -> References {
    let mut found = References::default();
    for from in spec.env_from.iter().flatten() {
        found.config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        found.secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    for source in spec.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        found.config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        found.secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    found
}

/// Variables in order, each name once.
#[derive(Debug, Default)]
pub(crate) struct Variables {
    list: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl Variables {
    fn set(&mut self, name: impl Into<String>, value: String) {
        let name = name.into();
        match self.places.get(&name) {
            Some(place) => self.list[*place].1 = value,
            None => {
                self.places.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|place| self.list[*place].1.as_str())
    }

    /// A text with its `$(NAME)`s replaced.
    pub(crate) fn expand(&self, text: &str) -> String {
        expand(text, self)
    }

    /// Names and values, after those of the image, which they replace.
    pub(crate) fn into_list(self, image: &ImageConfig) -> Vec<(String, String)> {
        let mut own = Self::default();
        image.env.iter().filter(|(name, _)| self.get(name).is_none()).for_each(|(n, v)| own.set(n, v.clone()));
        own.list.extend(self.list);
        own.list
    }
}

/// The environment of one container.
///
/// # Errors
/// What is missing, in kubelet's words: `configmap "x" not found`.
pub(crate) fn environment(spec: &Spec, around: &Surroundings<'_>) -> Result<Variables, String> {
    let mut variables = Variables::default();
    let meta = &around.pod.metadata;
    let pod_spec = around.pod.spec.as_ref();
    let hostname = pod_spec.and_then(|s| s.hostname.clone()).or_else(|| meta.name.clone());
    variables.set("HOSTNAME", hostname.unwrap_or_default());
    let links = pod_spec.and_then(|s| s.enable_service_links).unwrap_or(true);
    service_links(&mut variables, around.services, meta.namespace.as_deref().unwrap_or_default(), links);
    env_from(&mut variables, spec, around)?;
    for entry in spec.env.iter().flatten() {
        match (&entry.value, &entry.value_from) {
            (_, Some(source)) => {
                if let Some(value) = value_from(spec, source, around)? {
                    variables.set(&entry.name, value);
                }
            }
            (value, None) => {
                let value = expand(value.as_deref().unwrap_or_default(), &variables);
                variables.set(&entry.name, value);
            }
        }
    }
    Ok(variables)
}

/// `argv`: the command or the image's entrypoint, and the arguments or the image's `cmd`; the pod's expanded. A command
/// leaves nothing of the image's, arguments leave its entrypoint.
pub(crate) fn argv(spec: &Spec, variables: &Variables, image: &ImageConfig) -> Vec<String> {
    let given = |list: &Option<Vec<String>>| {
        let list = list.as_ref().filter(|list| !list.is_empty())?;
        Some(list.iter().map(|text| expand(text, variables)).collect::<Vec<_>>())
    };
    let (command, args) = (given(&spec.command), given(&spec.args));
    let args = args.or_else(|| command.is_none().then(|| image.cmd.clone())).unwrap_or_default();
    let mut argv = command.unwrap_or_else(|| image.entrypoint.clone());
    argv.extend(args);
    argv
}

fn env_from(variables: &mut Variables, spec: &Spec, around: &Surroundings<'_>) -> Result<(), String> {
    for from in spec.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            let name = &reference.name;
            match around.sources.config_maps.get(name).and_then(Option::as_ref) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        variables.set(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("configmap {name:?} not found")),
            }
        }
        if let Some(reference) = &from.secret_ref {
            let name = &reference.name;
            match around.sources.secrets.get(name).and_then(Option::as_ref) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        variables.set(format!("{prefix}{key}"), text(&value.0, "Secret", name, key)?);
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(format!("secret {name:?} not found")),
            }
        }
    }
    Ok(())
}

fn text(bytes: &[u8], kind: &str, name: &str, key: &str) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).ok().filter(|t| !t.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| format!("key {key} in {kind} {name} is no text: it cannot be a variable"))
}

fn value_from(spec: &Spec, source: &EnvVarSource, around: &Surroundings<'_>) -> Result<Option<String>, String> {
    let namespace = around.pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(r) = &source.config_map_key_ref {
        let (name, key, optional) = (&r.name, &r.key, r.optional == Some(true));
        let map = around.sources.config_maps.get(name).and_then(Option::as_ref);
        let value = map.and_then(|m| m.data.as_ref()).and_then(|d| d.get(key)).cloned();
        return match (map, value) {
            (_, Some(value)) => Ok(Some(value)),
            _ if optional => Ok(None),
            (None, _) => Err(format!("configmap {name:?} not found")),
            (Some(_), None) => Err(format!("couldn't find key {key} in ConfigMap {namespace}/{name}")),
        };
    }
    if let Some(r) = &source.secret_key_ref {
        let (name, key, optional) = (&r.name, &r.key, r.optional == Some(true));
        let secret = around.sources.secrets.get(name).and_then(Option::as_ref);
        let value = secret.and_then(|s| s.data.as_ref()).and_then(|d| d.get(key));
        return match (secret, value) {
            (_, Some(value)) => text(&value.0, "Secret", name, key).map(Some),
            _ if optional => Ok(None),
            (None, _) => Err(format!("secret {name:?} not found")),
            (Some(_), None) => Err(format!("couldn't find key {key} in Secret {namespace}/{name}")),
        };
    }
    if let Some(r) = &source.field_ref {
        return pod_field(&r.field_path, around).map(Some);
    }
    match &source.resource_field_ref {
        Some(r) => {
            let containers =
                around.pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
            let named = r.container_name.as_ref().and_then(|name| containers.into_iter().find(|c| c.name == *name));
            resources::field(named.unwrap_or(spec), r, &around.node).map(Some)
        }
        None => Ok(Some(String::new())),
    }
}

/// A field of the pod as text.
///
/// # Errors
/// When no such field can be shown.
pub(crate) fn pod_field(path: &str, around: &Surroundings<'_>) -> Result<String, String> {
    let meta = &around.pod.metadata;
    let spec = around.pod.spec.as_ref();
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let entry = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default()
    };
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        match map {
            "metadata.labels" => return Ok(entry(&meta.labels, key)),
            "metadata.annotations" => return Ok(entry(&meta.annotations, key)),
            _ => {}
        }
    }
    Ok(match path {
        "metadata.name" => of(&meta.name),
        "metadata.namespace" => of(&meta.namespace),
        "metadata.uid" => of(&meta.uid),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.podIP" | "status.podIPs" => around.pod_ip.to_string(),
        "status.hostIP" | "status.hostIPs" => around.host_ip.to_string(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `REDIS_SERVICE_HOST` and its kin. `default/kubernetes` is always linked.
fn service_links(variables: &mut Variables, services: &[Arc<Service>], namespace: &str, links: bool) {
    for service in services {
        let meta = &service.metadata;
        let (Some(name), Some(spec)) = (&meta.name, &service.spec) else { continue };
        let own = meta.namespace.as_deref() == Some(namespace);
        let master = name == "kubernetes" && meta.namespace.as_deref() == Some("default");
        let ip = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None");
        let (Some(ip), Some(ports)) = (ip.filter(|_| master || own && links), &spec.ports) else { continue };
        let Some(first) = ports.first() else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        variables.set(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        variables.set(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
        for port in ports {
            if let Some(port_name) = port.name.as_ref().filter(|n| !n.is_empty()) {
                let port_name = port_name.to_uppercase().replace('-', "_");
                variables.set(format!("{prefix}_SERVICE_PORT_{port_name}"), port.port.to_string());
            }
        }
        for (i, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
            if i == 0 {
                variables.set(format!("{prefix}_PORT"), url.clone());
            }
            let stem = format!("{prefix}_PORT_{}_{protocol}", port.port);
            variables.set(stem.clone(), url);
            variables.set(format!("{stem}_PROTO"), protocol.to_lowercase());
            variables.set(format!("{stem}_PORT"), port.port.to_string());
            variables.set(format!("{stem}_ADDR"), ip.to_owned());
        }
    }
}

/// Replaces `$(NAME)`; `$$` is a dollar; names that mean nothing stay as they are.
fn expand(text: &str, variables: &Variables) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn around_of<'a>(pod: &'a Pod, sources: &'a Sources, services: &'a [Arc<Service>]) -> Surroundings<'a> {
        Surroundings {
            pod,
            pod_ip: [10, 244, 0, 2].into(),
            host_ip: [127, 0, 0, 1].into(),
            node: NodeResources {
                cpu_millicores: 2000,
                memory_bytes: 1 << 30,
                ephemeral_bytes: 0,
                memory_default_bytes: 1 << 29,
            },
            sources,
            services,
        }
    }

    /// An image that says everything.
    fn image() -> ImageConfig {
        let texts = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect();
        ImageConfig {
            entrypoint: texts(&["app.wasm"]),
            cmd: texts(&["serve"]),
            env: vec![("PATH".to_owned(), "/bin".to_owned()), ("A".to_owned(), "of the image".to_owned())],
            ..ImageConfig::default()
        }
    }

    fn environment_of(container: Value, links: bool) -> Result<String, String> {
        let spec: Spec = serde_json::from_value(container).unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web-1", "namespace": "shop", "uid": "u1", "labels": { "app": "web" } },
            "spec": { "nodeName": "n1", "enableServiceLinks": links, "containers": [] },
        }))
        .unwrap();
        let mut sources = Sources::default();
        let map = json!({ "metadata": {}, "data": { "greeting": "hello", "size": "3" } });
        sources.config_maps.insert("settings".into(), Some(Arc::new(serde_json::from_value(map).unwrap())));
        let secret = json!({ "metadata": {}, "data": { "token": "czNjcjN0", "raw": "/w==" } });
        sources.secrets.insert("keys".into(), Some(Arc::new(serde_json::from_value(secret).unwrap())));
        let service = json!({
            "metadata": { "name": "my-db", "namespace": "shop" },
            "spec": { "clusterIP": "10.96.0.9", "ports": [{ "name": "sql", "port": 5432, "protocol": "TCP" }] },
        });
        let services = [Arc::new(serde_json::from_value::<Service>(service).unwrap())];
        let variables = environment(&spec, &around_of(&pod, &sources, &services))?;
        let argv = argv(&spec, &variables, &image()).join(" ");
        let list: Vec<_> =
            variables.into_list(&image()).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        Ok(format!("{} | {argv}", list.join(" ")))
    }

    #[test]
    fn variables_come_from_where_the_spec_says() {
        for (container, expected) in [
            (
                json!({ "name": "a", "image": "file://x/app.wasm" }),
                "PATH=/bin A=of the image HOSTNAME=web-1 | app.wasm serve",
            ),
            (json!({ "name": "a", "args": ["$(A)"] }), "PATH=/bin A=of the image HOSTNAME=web-1 | app.wasm $(A)"),
            (json!({ "name": "a", "command": ["x"], "args": [] }), "PATH=/bin A=of the image HOSTNAME=web-1 | x"),
            (
                json!({ "name": "a", "command": ["run", "$(A)"], "args": ["$(B)", "$$(A)", "$(NONE)", "$"],
                    "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "$(A)2$(C)" }, { "name": "C" }] }),
                "PATH=/bin HOSTNAME=web-1 A=1 B=12$(C) C= | run 1 12$(C) $(A) $(NONE) $",
            ),
            (
                json!({ "name": "a", "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "settings" } }],
                    "env": [{ "name": "P_size", "value": "4" },
                            { "name": "T", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "token" } } }] }),
                "PATH=/bin A=of the image HOSTNAME=web-1 P_greeting=hello P_size=4 T=s3cr3t | app.wasm serve",
            ),
            (
                json!({ "name": "a", "env": [
                    { "name": "N", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    { "name": "L", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
                    { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                    { "name": "M", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } },
                    { "name": "O", "valueFrom": { "configMapKeyRef": { "name": "none", "key": "x", "optional": true } } }] }),
                "PATH=/bin A=of the image HOSTNAME=web-1 N=web-1 L=web IP=10.244.0.2 M=1024 | app.wasm serve",
            ),
        ] {
            assert_eq!(environment_of(container, false).unwrap(), expected);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let from = |source: Value| json!({ "name": "a", "env": [{ "name": "X", "valueFrom": source }] });
        for (container, expected) in [
            (from(json!({ "configMapKeyRef": { "name": "none", "key": "x" } })), "configmap \"none\" not found"),
            (
                from(json!({ "configMapKeyRef": { "name": "settings", "key": "x" } })),
                "couldn't find key x in ConfigMap shop/settings",
            ),
            (from(json!({ "secretKeyRef": { "name": "none", "key": "x" } })), "secret \"none\" not found"),
            (
                from(json!({ "secretKeyRef": { "name": "keys", "key": "x" } })),
                "couldn't find key x in Secret shop/keys",
            ),
            (
                from(json!({ "secretKeyRef": { "name": "keys", "key": "raw" } })),
                "key raw in Secret keys is no text: it cannot be a variable",
            ),
            (from(json!({ "fieldRef": { "fieldPath": "spec.nothing" } })), "unsupported fieldPath: spec.nothing"),
            (json!({ "name": "a", "envFrom": [{ "secretRef": { "name": "no" } }] }), "secret \"no\" not found"),
        ] {
            assert_eq!(environment_of(container, false).unwrap_err(), expected);
        }
    }

    #[test]
    fn services_are_linked() {
        let text = environment_of(json!({ "name": "a" }), true).unwrap();
        for expected in [
            "MY_DB_SERVICE_HOST=10.96.0.9",
            "MY_DB_SERVICE_PORT=5432",
            "MY_DB_SERVICE_PORT_SQL=5432",
            "MY_DB_PORT=tcp://10.96.0.9:5432",
            "MY_DB_PORT_5432_TCP_ADDR=10.96.0.9",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }
}
