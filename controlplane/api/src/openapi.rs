//! OpenAPI v3, the index and one document for each group version, and OpenAPI v2: as kubectl reads them for `explain`, for
//! the merge keys of `apply`, and to learn that dry run and field validation are supported; as generators of clients do.
//!
//! Documents are large (hundreds of kilobytes): they are made when they are first asked for, and kept for as long as the
//! kinds that they tell of are the same. A change of one custom kind makes the document of its group version anew.
//!
//! # Source
//! Kubernetes `api/openapi-spec/v3`; kube-openapi `pkg/handler3`; kubectl `pkg/explain/v2`; cli-runtime
//! `pkg/resource/query_param_verifier_v3.go`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::object::KindRef;

mod parameters;
mod paths;
mod proto;
mod schemas;
#[cfg(test)]
mod tests;
pub mod v2;

/// A document of OpenAPI v3, or its index.
#[derive(Debug)]
pub struct Document {
    /// The document.
    pub json: Bytes,
    /// Changes when the document does.
    pub hash: String,
}

impl Document {
    fn new(document: &Value) -> Self {
        let json = Bytes::from(document.to_string());
        let hash = hash(&json);
        Self { json, hash }
    }
}

/// SHA-512, as Kubernetes' tags of documents are.
pub fn hash(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha512::digest(bytes).iter().fold(String::with_capacity(128), |mut out, byte| {
        let _ = write!(out, "{byte:02X}");
        out
    })
}

/// What was made of some kinds.
struct Made<T> {
    kinds: Vec<KindRef>,
    made: Arc<T>,
}

impl<T> Made<T> {
    fn is_of(&self, kinds: &[KindRef]) -> bool {
        self.kinds.len() == kinds.len() && self.kinds.iter().zip(kinds).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// The documents of a server. Making them takes up to some tenths of a second: not a thing for an async thread.
#[derive(Default)]
pub struct OpenApi {
    v3: Mutex<BTreeMap<String, Made<Document>>>,
    v2: Mutex<Option<Made<v2::Document>>>,
}

impl std::fmt::Debug for OpenApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenApi").finish_non_exhaustive()
    }
}

impl OpenApi {
    /// `GET /openapi/v3`, when these kinds are served.
    pub fn index(&self, kinds: &[KindRef]) -> Document {
        let mut kept = self.v3.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = parts(kinds);
        kept.retain(|path, _| parts.contains_key(path));
        let mut paths = Map::new();
        for (path, part) in &parts {
            let hash = &document(&mut kept, path, part).hash;
            let url = format!("/openapi/v3/{path}?hash={hash}");
            paths.insert(path.clone(), json!({ "serverRelativeURL": url }));
        }
        Document::new(&json!({ "paths": paths }))
    }

    /// `GET /openapi/v3/PATH`, for example `api/v1` or `apis/apps/v1`; `None` when there is no such document.
    pub fn document(&self, kinds: &[KindRef], path: &str) -> Option<Arc<Document>> {
        let parts = parts(kinds);
        let part = parts.get(path)?;
        Some(document(&mut self.v3.lock().unwrap_or_else(PoisonError::into_inner), path, part))
    }

    /// `GET /openapi/v2`.
    pub fn v2(&self, kinds: &[KindRef]) -> Arc<v2::Document> {
        let mut kept = self.v2.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(made) if made.is_of(kinds) => made.made.clone(),
            _ => {
                let made = Arc::new(v2::Document::new(kinds));
                *kept = Some(Made { kinds: kinds.to_vec(), made: made.clone() });
                made
            }
        }
    }
}

/// The schemas of a kind and of all that it is made of, by name (its own is [`crate::object::AnyKind::schema_name`]).
pub fn schemas_of(kind: &KindRef) -> Map<String, Value> {
    schemas::of_kinds(std::slice::from_ref(kind))
}

fn document(kept: &mut BTreeMap<String, Made<Document>>, path: &str, part: &Part) -> Arc<Document> {
    if let Some(made) = kept.get(path).filter(|made| made.is_of(&part.kinds)) {
        return made.made.clone();
    }
    let made = Arc::new(Document::new(&whole(part)));
    kept.insert(path.to_owned(), Made { kinds: part.kinds.clone(), made: made.clone() });
    made
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": concat!("podium-", env!("CARGO_PKG_VERSION")) })
}

fn whole(part: &Part) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": part.paths(),
        "components": { "schemas": part.schemas() },
    })
}

/// What one document tells of.
struct Part {
    of: About,
    /// None when it tells of the API itself.
    kinds: Vec<KindRef>,
}

enum About {
    Core,
    Groups,
    Version,
    Group(&'static str),
    GroupVersion(&'static str, &'static str),
}

/// The parts of the API by the paths of their documents.
fn parts(kinds: &[KindRef]) -> BTreeMap<String, Part> {
    let about = |of| Part { of, kinds: Vec::new() };
    let mut out = BTreeMap::from([
        ("api".to_owned(), about(About::Core)),
        ("apis".to_owned(), about(About::Groups)),
        ("version".to_owned(), about(About::Version)),
    ]);
    for kind in kinds {
        let (group, version) = (kind.names().group, kind.names().version);
        if !group.is_empty() {
            out.entry(format!("apis/{group}")).or_insert_with(|| about(About::Group(group)));
        }
        let part = out.entry(prefix(group, version)).or_insert_with(|| about(About::GroupVersion(group, version)));
        part.kinds.push(kind.clone());
    }
    out
}

impl Part {
    fn paths(&self) -> Map<String, Value> {
        let mut out = Map::new();
        let mut about = |path: String, id: &str, tag: &str, description: &str, answer: &str| {
            out.insert(path, json!({ "get": paths::about(id, tag, description, answer) }));
        };
        let versions = "get available API versions";
        match self.of {
            About::Core => about("/api/".to_owned(), "getCoreAPIVersions", "core", versions, "APIVersions"),
            About::Groups => about("/apis/".to_owned(), "getAPIVersions", "apis", versions, "APIGroupList"),
            About::Version => {
                let info = "io.k8s.apimachinery.pkg.version.Info";
                about(
                    "/version/".to_owned(),
                    "getCodeVersion",
                    "version",
                    "get the version information for this server",
                    info,
                );
            }
            About::Group(group) => {
                let id = format!("get{}APIGroup", paths::group_name(group));
                let tag = paths::group_tag(group);
                about(format!("/apis/{group}/"), &id, &tag, "get information of a group", "APIGroup");
            }
            About::GroupVersion(group, version) => {
                paths::add_resource_list(&mut out, group, version);
                self.kinds.iter().for_each(|kind| paths::add(&mut out, kind));
            }
        }
        out
    }

    fn schemas(&self) -> Map<String, Value> {
        match self.of {
            About::GroupVersion(..) => schemas::of_kinds(&self.kinds),
            _ => schemas::of_discovery(),
        }
    }
}

/// `api/v1` or `apis/apps/v1`.
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Whether a schema is one of Kubernetes' own, by its name.
fn is_builtin(name: &str) -> bool {
    let own = ["api.", "apimachinery.", "apiextensions-apiserver.", "kube-aggregator."];
    name.strip_prefix("io.k8s.").is_some_and(|rest| own.iter().any(|part| rest.starts_with(part)))
}
