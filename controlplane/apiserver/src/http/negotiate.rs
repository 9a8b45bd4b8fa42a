//! Which form an answer takes: the `Accept` header against what can be written.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`.

use podium_api::{ApiError, Reason};

/// How bytes are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// `application/json`
    #[default]
    Json,
    /// `application/yaml`
    Yaml,
}

impl Encoding {
    /// The `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
        }
    }
}

/// What is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// The objects.
    #[default]
    Object,
    /// `meta.k8s.io/v1 Table`
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata` or its list.
    Metadata,
    /// `apidiscovery.k8s.io/v2 APIGroupDiscoveryList`
    Discovery,
    /// `apidiscovery.k8s.io/v2beta1 APIGroupDiscoveryList`
    DiscoveryBeta,
}

/// Form and encoding of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) form: Form,
    pub(crate) encoding: Encoding,
    /// Whether Table or metadata were asked for as `v1beta1`, which is the same but for its name.
    pub(crate) beta: bool,
}

/// Whether an endpoint can write a form.
pub(crate) type Offers = fn(Form) -> bool;

/// Chooses the first acceptable shape, by quality, then by order. Without an `Accept` header: JSON.
///
/// # Errors
/// 406 when nothing acceptable can be written, for example protobuf alone.
pub(crate) fn negotiate(accept: Option<&str>, offers: Offers) -> Result<Shape, ApiError> {
    let accept = accept.map(str::trim).unwrap_or_default();
    if accept.is_empty() || accept == "application/json" || accept == "*/*" {
        return Ok(Shape::default());
    }
    let mut ranges: Vec<(f32, &str)> = accept.split(',').map(|range| (quality(range), range.trim())).collect();
    ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
    let found = ranges.into_iter().filter(|(q, _)| *q > 0.0).find_map(|(_, range)| shape(range, offers));
    found.ok_or_else(|| {
        let message = "only the following media types are accepted: application/json, application/yaml";
        ApiError::new(Reason::NotAcceptable, message)
    })
}

fn parameter<'a>(range: &'a str, key: &str) -> Option<&'a str> {
    range.split(';').skip(1).find_map(|p| {
        let (k, v) = p.trim().split_once('=')?;
        k.trim().eq_ignore_ascii_case(key).then(|| v.trim())
    })
}

/// The quality that a range of an `Accept` header has.
pub(super) fn quality(range: &str) -> f32 {
    parameter(range, "q").map_or(1.0, |q| q.parse().unwrap_or(0.0))
}

fn shape(range: &str, offers: Offers) -> Option<Shape> {
    let essence = range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let encoding = match essence.as_str() {
        "*/*" | "application/*" | "application/json" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let (group, version) = (parameter(range, "g"), parameter(range, "v"));
    let form = match (parameter(range, "as"), group, version) {
        (None, ..) => Form::Object,
        (Some("Table"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => Form::Table,
        (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => {
            Form::Metadata
        }
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => Form::Discovery,
        (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => Form::DiscoveryBeta,
        _ => return None,
    };
    let beta = matches!(form, Form::Table | Form::Metadata) && version == Some("v1beta1");
    offers(form).then_some(Shape { form, encoding, beta })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(form: Form) -> bool {
        !matches!(form, Form::Discovery | Form::DiscoveryBeta)
    }

    #[test]
    fn accept_headers() {
        let json = |form| Some(Shape { form, encoding: Encoding::Json, beta: false });
        let yaml = Some(Shape { form: Form::Object, encoding: Encoding::Yaml, beta: false });
        for (accept, shape) in [
            (None, json(Form::Object)),
            (Some(""), json(Form::Object)),
            (Some("application/json, */*"), json(Form::Object)),
            (Some("application/yaml"), yaml),
            (Some("application/json;q=0.5,application/yaml"), yaml),
            (Some("application/vnd.kubernetes.protobuf"), None),
            (Some("application/vnd.kubernetes.protobuf,application/json"), json(Form::Object)),
            (
                Some(
                    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                     application/json",
                ),
                json(Form::Table),
            ),
            (Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), json(Form::Metadata)),
            (
                Some("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1, application/json"),
                Some(Shape { form: Form::Metadata, encoding: Encoding::Json, beta: true }),
            ),
            (
                Some("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"),
                json(Form::Object),
            ),
            (Some("application/json;as=Table;g=meta.k8s.io;v=v9"), None),
            (Some("application/json;q=0"), None),
            (Some("text/html"), None),
        ] {
            assert_eq!(negotiate(accept, objects).ok(), shape, "{accept:?}");
        }
    }
}
