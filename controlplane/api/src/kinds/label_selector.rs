//! `LabelSelector` in the kinds that carry one: its text form and its validation.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// A selector as `kubectl get -l` takes it: `app=web,tier in (a,b),!old`.
///
/// # Source
/// Kubernetes `staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/helpers.go`, `LabelSelectorAsSelector`, whose requirements
/// are sorted by key.
pub(crate) fn selector_text(selector: &LabelSelector) -> String {
    let equal = selector.match_labels.iter().flatten().map(|(k, v)| (k.as_str(), format!("{k}={v}")));
    let expressions = selector.match_expressions.iter().flatten().map(|e| {
        let mut values = e.values.clone().unwrap_or_default();
        values.sort();
        let text = match e.operator.as_str() {
            "In" => format!("{} in ({})", e.key, values.join(",")),
            "NotIn" => format!("{} notin ({})", e.key, values.join(",")),
            "DoesNotExist" => format!("!{}", e.key),
            _ => e.key.clone(),
        };
        (e.key.as_str(), text)
    });
    let mut all: Vec<_> = equal.chain(expressions).collect();
    all.sort_by(|a, b| a.0.cmp(b.0));
    all.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}
