//! What stands in the files of a ConfigMap, Secret, downward API or projected volume. Pure: what is referred to has been
//! read before. Bytes of Secrets and tokens go into the result and nowhere else: errors name keys, never values.
//!
//! # Source
//! Kubernetes `pkg/volume/{configmap,secret,downwardapi,projected}`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath,
    ProjectedVolumeSource, SecretProjection, SecretVolumeSource, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};

use crate::decide::{
    env::{self, Surroundings},
    resources,
};

/// Kubernetes' `0644`.
const MODE_DEFAULT: i32 = 0o644;
/// Lifetime of a token whose projection names none.
const TOKEN_SECONDS_DEFAULT: i64 = 3600;

/// One file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    /// Permission bits.
    pub(crate) mode: u32,
}

/// Says nothing of what is in it: it may be secret.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {:o}", self.bytes.len(), self.mode)
    }
}

/// Files by their path in the volume.
pub(crate) type Payload = BTreeMap<String, Content>;

/// A token that a volume holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TokenWanted {
    /// Empty: the API server's own.
    pub(crate) audience: String,
    pub(crate) seconds: i64,
}

impl TokenWanted {
    fn of(projection: &ServiceAccountTokenProjection) -> Self {
        let seconds = projection.expiration_seconds.unwrap_or(TOKEN_SECONDS_DEFAULT);
        Self { audience: projection.audience.clone().unwrap_or_default(), seconds }
    }
}

/// Tokens that were issued.
pub(crate) type Tokens = BTreeMap<TokenWanted, String>;

/// What a volume refers to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) tokens: BTreeSet<TokenWanted>,
    /// Whether it shows fields of the pod.
    pub(crate) pod: bool,
}

impl Wanted {
    /// Adds what one volume refers to.
    pub(crate) fn add(&mut self, volume: &Volume) {
        self.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        self.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        self.pod |= volume.downward_api.is_some();
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            self.config_maps.extend(source.config_map.iter().map(|s| s.name.clone()));
            self.secrets.extend(source.secret.iter().map(|s| s.name.clone()));
            self.tokens.extend(source.service_account_token.iter().map(TokenWanted::of));
            self.pod |= source.downward_api.is_some();
        }
    }
}

/// Whether the volume's files come from the API.
pub(crate) fn is_api_volume(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// The files of a volume that [`is_api_volume`].
///
/// # Errors
/// What is missing, in kubelet's words.
pub(crate) fn payload(volume: &Volume, around: &Surroundings<'_>, tokens: &Tokens) -> Result<Payload, String> {
    let mut files = Files { around, payload: Payload::new() };
    if let Some(source) = &volume.config_map {
        files.config_map_volume(source)?;
    }
    if let Some(source) = &volume.secret {
        files.secret_volume(source)?;
    }
    if let Some(source) = &volume.downward_api {
        files.downward(source.items.as_deref(), source.default_mode)?;
    }
    if let Some(source) = &volume.projected {
        files.projected(source, tokens)?;
    }
    Ok(files.payload)
}

struct Files<'a> {
    around: &'a Surroundings<'a>,
    payload: Payload,
}

/// An object that keys are taken from.
struct Keys<'a> {
    kind: &'static str,
    optional: bool,
    items: Option<&'a [KeyToPath]>,
    mode: u32,
}

fn mode(wanted: Option<i32>, default: Option<i32>) -> u32 {
    let bits = wanted.or(default).unwrap_or(MODE_DEFAULT) & 0o777;
    u32::try_from(bits).unwrap_or(0o644)
}

impl Files<'_> {
    fn config_map_volume(&mut self, source: &ConfigMapVolumeSource) -> Result<(), String> {
        let projection =
            ConfigMapProjection { name: source.name.clone(), items: source.items.clone(), optional: source.optional };
        self.config_map(&projection, source.default_mode)
    }

    fn secret_volume(&mut self, source: &SecretVolumeSource) -> Result<(), String> {
        let projection = SecretProjection {
            name: source.secret_name.clone().unwrap_or_default(),
            items: source.items.clone(),
            optional: source.optional,
        };
        self.secret(&projection, source.default_mode)
    }

    fn config_map(&mut self, source: &ConfigMapProjection, default_mode: Option<i32>) -> Result<(), String> {
        let optional = source.optional == Some(true);
        let Some(map) = self.around.sources.config_maps.get(&source.name).and_then(Option::as_ref) else {
            return if optional { Ok(()) } else { Err(format!("configmap {:?} not found", source.name)) };
        };
        let mut found = BTreeMap::new();
        for (key, value) in map.data.iter().flatten() {
            found.insert(key.as_str(), value.as_bytes());
        }
        for (key, value) in map.binary_data.iter().flatten() {
            found.insert(key.as_str(), value.0.as_slice());
        }
        let keys = Keys { kind: "config", optional, items: source.items.as_deref(), mode: mode(None, default_mode) };
        self.keys(&keys, &found)
    }

    fn secret(&mut self, source: &SecretProjection, default_mode: Option<i32>) -> Result<(), String> {
        let optional = source.optional == Some(true);
        let Some(secret) = self.around.sources.secrets.get(&source.name).and_then(Option::as_ref) else {
            return if optional { Ok(()) } else { Err(format!("secret {:?} not found", source.name)) };
        };
        let data = secret.data.iter().flatten();
        let found = data.map(|(key, value)| (key.as_str(), value.0.as_slice())).collect();
        let keys = Keys { kind: "secret", optional, items: source.items.as_deref(), mode: mode(None, default_mode) };
        self.keys(&keys, &found)
    }

    /// All keys, or the chosen ones under the paths chosen for them.
    fn keys(&mut self, keys: &Keys<'_>, found: &BTreeMap<&str, &[u8]>) -> Result<(), String> {
        let Some(items) = keys.items.filter(|items| !items.is_empty()) else {
            for (key, bytes) in found {
                self.put(key, bytes.to_vec(), keys.mode);
            }
            return Ok(());
        };
        for item in items {
            match found.get(item.key.as_str()) {
                Some(bytes) => {
                    let mode = item.mode.map_or(keys.mode, |bits| mode(Some(bits), None));
                    self.put(&item.path, bytes.to_vec(), mode);
                }
                None if keys.optional => {}
                None => return Err(format!("references non-existent {} key: {}", keys.kind, item.key)),
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &str, bytes: Vec<u8>, mode: u32) {
        self.payload.insert(path.to_owned(), Content { bytes, mode });
    }

    fn downward(&mut self, items: Option<&[DownwardAPIVolumeFile]>, default: Option<i32>) -> Result<(), String> {
        for item in items.unwrap_or_default() {
            let text = self.field(item)?;
            self.put(&item.path, text.into_bytes(), mode(item.mode, default));
        }
        Ok(())
    }

    fn field(&self, item: &DownwardAPIVolumeFile) -> Result<String, String> {
        let pod = self.around.pod;
        if let Some(field) = &item.field_ref {
            return match field.field_path.as_str() {
                "metadata.labels" => Ok(listed(pod.metadata.labels.as_ref())),
                "metadata.annotations" => Ok(listed(pod.metadata.annotations.as_ref())),
                path => env::pod_field(path, self.around),
            };
        }
        let Some(resource) = &item.resource_field_ref else { return Ok(String::new()) };
        let containers = pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
        let named = containers.into_iter().find(|c| Some(&c.name) == resource.container_name.as_ref());
        let container = named
            .ok_or_else(|| format!("container {} not found", resource.container_name.as_deref().unwrap_or_default()))?;
        resources::field(container, resource, &self.around.node)
    }

    fn projected(&mut self, volume: &ProjectedVolumeSource, tokens: &Tokens) -> Result<(), String> {
        for source in volume.sources.iter().flatten() {
            self.projection(source, volume.default_mode, tokens)?;
        }
        Ok(())
    }

    fn projection(&mut self, source: &VolumeProjection, default: Option<i32>, tokens: &Tokens) -> Result<(), String> {
        if let Some(source) = &source.config_map {
            self.config_map(source, default)?;
        }
        if let Some(source) = &source.secret {
            self.secret(source, default)?;
        }
        if let Some(DownwardAPIProjection { items }) = &source.downward_api {
            self.downward(items.as_deref(), default)?;
        }
        if let Some(source) = &source.service_account_token {
            let token = tokens.get(&TokenWanted::of(source));
            let token = token.ok_or_else(|| "the token of the service account is missing".to_owned())?;
            self.put(&source.path, token.clone().into_bytes(), mode(Some(0o600), None));
        }
        if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
            return Err("cluster trust bundles and pod certificates are not offered by this node".to_owned());
        }
        Ok(())
    }
}

/// `key="value"`, one each line, in order of the keys.
fn listed(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        let _ = writeln!(text, "{key}={}", quoted(value));
    }
    text.trim_end_matches('\n').to_owned()
}

/// As Go's `%q` writes it.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(quoted, "\\x{:02x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;
    use crate::decide::{env::Sources, resources::NodeResources};

    fn of<K: serde::de::DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    fn sources() -> Sources {
        let mut sources = Sources::default();
        let map =
            json!({ "metadata": { "name": "cfg" }, "data": { "a": "1", "b": "2" }, "binaryData": { "c": "AAE=" } });
        sources.config_maps.insert("cfg".into(), Some(Arc::new(of(map))));
        sources.config_maps.insert("none".into(), None);
        sources.secrets.insert("sec".into(), Some(Arc::new(of(json!({ "data": { "k": "cw==" } })))));
        sources
    }

    fn made(volume: Value) -> Result<Vec<(String, Vec<u8>, u32)>, String> {
        let pod: Pod = of(json!({
            "metadata": { "name": "p", "namespace": "n", "labels": { "b": "say \"x\"\n", "a": "1" } },
            "spec": { "containers": [{ "name": "c", "resources": { "limits": { "cpu": "250m", "memory": "64Mi" } } }] },
        }));
        let node = NodeResources {
            cpu_millicores: 4000,
            memory_bytes: 1 << 30,
            ephemeral_bytes: 0,
            memory_default_bytes: 1 << 29,
        };
        let sources = sources();
        let around = Surroundings {
            pod: &pod,
            pod_ip: [10, 1, 0, 2].into(),
            host_ip: [10, 0, 0, 1].into(),
            node,
            sources: &sources,
            services: &[],
        };
        let tokens = Tokens::from([(TokenWanted { audience: String::new(), seconds: 3607 }, "jwt".to_owned())]);
        let payload = payload(&of(volume), &around, &tokens)?;
        Ok(payload.into_iter().map(|(path, content)| (path, content.bytes, content.mode)).collect())
    }

    fn file(path: &str, text: &str, mode: u32) -> (String, Vec<u8>, u32) {
        (path.to_owned(), text.as_bytes().to_vec(), mode)
    }

    #[test]
    fn whole_maps_and_chosen_keys() {
        let all = made(json!({ "name": "v", "configMap": { "name": "cfg" } })).unwrap();
        assert_eq!(all, [file("a", "1", 0o644), file("b", "2", 0o644), file("c", "\0\u{1}", 0o644)]);
        let items = json!([{ "key": "a", "path": "x/y", "mode": 0o400 }, { "key": "b", "path": "z" }]);
        let some = made(json!({ "name": "v", "configMap": { "name": "cfg", "items": items, "defaultMode": 0o600 } }));
        assert_eq!(some.unwrap(), [file("x/y", "1", 0o400), file("z", "2", 0o600)]);
        let secret = made(json!({ "name": "v", "secret": { "secretName": "sec" } })).unwrap();
        assert_eq!(secret, [file("k", "s", 0o644)]);
    }

    #[test]
    fn what_is_missing_is_said_unless_it_is_optional() {
        let missing = [
            (json!({ "name": "none" }), "configmap \"none\" not found"),
            (json!({ "name": "cfg", "items": [{ "key": "q", "path": "q" }] }), "references non-existent config key: q"),
        ];
        for (mut source, error) in missing {
            assert_eq!(made(json!({ "name": "v", "configMap": source })), Err(error.to_owned()));
            source["optional"] = true.into();
            assert_eq!(made(json!({ "name": "v", "configMap": source })), Ok(Vec::new()));
        }
        let secret = made(json!({ "name": "v", "secret": { "secretName": "nope" } }));
        assert_eq!(secret, Err("secret \"nope\" not found".to_owned()));
    }

    #[test]
    fn fields_of_the_pod() {
        let field = |path: &str| json!({ "path": "f", "fieldRef": { "fieldPath": path } });
        let one = |item: Value| made(json!({ "name": "v", "downwardAPI": { "items": [item] } })).unwrap().remove(0).1;
        assert_eq!(one(field("metadata.labels")), b"a=\"1\"\nb=\"say \\\"x\\\"\\n\"");
        assert_eq!(one(field("metadata.name")), b"p");
        let cpu = json!({ "path": "f", "resourceFieldRef": { "containerName": "c", "resource": "limits.cpu", "divisor": "1m" } });
        assert_eq!(one(cpu), b"250");
    }

    #[test]
    fn the_volume_that_every_pod_has() {
        let volume = json!({ "name": "kube-api-access", "projected": { "defaultMode": 420, "sources": [
            { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
            { "configMap": { "name": "cfg", "items": [{ "key": "a", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "fieldPath": "metadata.namespace" } }] } },
        ] } });
        let wanted = [file("ca.crt", "1", 0o644), file("namespace", "n", 0o644), file("token", "jwt", 0o600)];
        assert_eq!(made(volume).unwrap(), wanted);
    }
}
