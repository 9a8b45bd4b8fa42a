//! What a manifest says, as far as a registry must know: what it needs, and what it is about.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Code, Error, error},
    names::Digest,
};

/// A descriptor as it stands in manifests.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    /// Content that is kept elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    urls: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

/// A manifest or an index.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) media_type: String,
    /// Blobs that must be there.
    pub(crate) blobs: Vec<Digest>,
    /// Manifests that must be there.
    pub(crate) manifests: Vec<Digest>,
    /// What it refers to, there or not.
    pub(crate) subject: Option<Digest>,
    /// What kind of thing it is, for those who list referrers.
    pub(crate) artifact_type: Option<String>,
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

impl Manifest {
    /// Reads a manifest that came with this content type.
    pub(crate) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, Error> {
        let invalid = |why: String| error(Code::ManifestInvalid, why);
        let document: Document =
            serde_json::from_slice(bytes).map_err(|e| invalid(format!("the manifest cannot be read: {e}")))?;
        if document.schema_version != 2 {
            return Err(invalid(format!("schemaVersion is {}: only 2 is taken", document.schema_version)));
        }
        let given = content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
        if let (Some(given), Some(own)) = (given, &document.media_type)
            && given != own
        {
            return Err(invalid(format!("the manifest says that it is {own}, the request {given}")));
        }
        let index = document.manifests.is_some();
        let default = if index { INDEXES[0] } else { MANIFESTS[0] };
        let media_type = given.or(document.media_type.as_deref()).unwrap_or(default).to_owned();
        let known = if index { INDEXES } else { MANIFESTS };
        if !known.contains(&media_type.as_str()) {
            return Err(invalid(format!("{media_type} is no kind of manifest that is taken, or not what this one is")));
        }
        if !index && document.config.is_none() {
            return Err(invalid("the manifest has no config".to_owned()));
        }
        let config_type = document.config.as_ref().map(|config| config.media_type.clone());
        let here = document.config.iter().chain(document.layers.iter().flatten()).filter(|d| d.urls.is_empty());
        let digests = |all: Vec<&Descriptor>| {
            all.iter().map(|d| Digest::parse(&d.digest).map_err(Error::from)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            blobs: digests(here.collect())?,
            manifests: digests(document.manifests.iter().flatten().collect())?,
            subject: document.subject.as_ref().map(|s| Digest::parse(&s.digest)).transpose()?,
            artifact_type: document.artifact_type.filter(|t| !t.is_empty()).or(config_type),
            annotations: document.annotations,
            media_type,
        })
    }
}
