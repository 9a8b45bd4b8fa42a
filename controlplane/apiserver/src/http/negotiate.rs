//! Which form an answer takes: the `Accept` header against what can be written.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`.

use podium_api::{ApiError, Reason, protobuf};

/// How bytes are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// `application/json`
    #[default]
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl Encoding {
    /// The `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => protobuf::MEDIA_TYPE,
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

/// What an endpoint can write.
#[derive(Clone, Copy)]
pub(crate) struct Offers {
    /// Which forms.
    pub(crate) forms: fn(Form) -> bool,
    /// Whether YAML: everything but streams.
    pub(crate) yaml: bool,
    /// Whether objects have protobuf: the kinds of Kubernetes have, custom ones have not.
    pub(crate) protobuf: bool,
    /// What a refusal tells to ask for.
    pub(crate) known: &'static str,
}

/// What resources are answered in. Custom ones only have some of it.
pub(crate) const OBJECTS: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
/// What watches are answered in.
pub(crate) const STREAMS: &str = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

impl Offers {
    /// Forms as JSON and YAML.
    pub(crate) fn texts(forms: fn(Form) -> bool) -> Self {
        Self { forms, yaml: true, protobuf: false, known: "application/json, application/yaml" }
    }

    fn has(self, form: Form, encoding: Encoding) -> bool {
        let encoded = match encoding {
            Encoding::Json => true,
            Encoding::Yaml => self.yaml,
            Encoding::Protobuf => self.protobuf && form == Form::Object,
        };
        encoded && (self.forms)(form)
    }

    fn refusal(self) -> ApiError {
        ApiError::new(Reason::NotAcceptable, format!("only the following media types are accepted: {}", self.known))
    }
}

/// Chooses the first acceptable shape, by quality, then by order. Without an `Accept` header: JSON.
///
/// # Errors
/// 406 when nothing acceptable can be written, for example protobuf alone of a custom kind.
pub(crate) fn negotiate(accept: Option<&str>, offers: Offers) -> Result<Shape, ApiError> {
    let accept = accept.map(str::trim).unwrap_or_default();
    if accept.is_empty() || accept == "application/json" || accept == "*/*" {
        return Ok(Shape::default());
    }
    let mut ranges: Vec<(f32, &str)> = accept.split(',').map(|range| (quality(range), range.trim())).collect();
    ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
    let found = ranges.into_iter().filter(|(q, _)| *q > 0.0).find_map(|(_, range)| shape(range, offers));
    found.ok_or_else(|| offers.refusal())
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
        protobuf::MEDIA_TYPE => Encoding::Protobuf,
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
    offers.has(form, encoding).then_some(Shape { form, encoding, beta })
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
            assert_eq!(negotiate(accept, Offers::texts(objects)).ok(), shape, "{accept:?}");
        }
    }

    #[test]
    fn protobuf_where_kinds_have_it() {
        const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
        const METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        let built_in = Offers { forms: objects, yaml: true, protobuf: true, known: OBJECTS };
        let watch = Offers { yaml: false, known: STREAMS, ..built_in };
        let custom = Offers { protobuf: false, ..built_in };
        for (accept, offers, wanted) in [
            (PROTOBUF, built_in, Ok(Encoding::Protobuf)),
            (PROTOBUF, watch, Ok(Encoding::Protobuf)),
            ("application/vnd.kubernetes.protobuf;stream=watch", watch, Ok(Encoding::Protobuf)),
            (PROTOBUF, custom, Err(OBJECTS)),
            (PROTOBUF, Offers::texts(objects), Err("application/json, application/yaml")),
            (METADATA, built_in, Err(OBJECTS)),
            ("application/vnd.kubernetes.protobuf,application/json", built_in, Ok(Encoding::Protobuf)),
            ("application/vnd.kubernetes.protobuf,application/json", custom, Ok(Encoding::Json)),
            ("application/vnd.kubernetes.protobuf;q=0.5,application/json", built_in, Ok(Encoding::Json)),
            ("application/json;q=0.5,application/vnd.kubernetes.protobuf;q=0.9", built_in, Ok(Encoding::Protobuf)),
            ("application/yaml", watch, Err(STREAMS)),
            ("application/yaml, */*", watch, Ok(Encoding::Json)),
        ] {
            let got = negotiate(Some(accept), offers).map(|s| s.encoding).map_err(|e| e.message);
            let wanted = wanted.map_err(|t: &str| format!("only the following media types are accepted: {t}"));
            assert_eq!(got, wanted, "{accept}");
        }
    }
}
