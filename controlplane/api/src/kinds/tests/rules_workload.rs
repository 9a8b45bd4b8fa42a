//! Tables of cases for the kinds around workloads.

use super::{errors, object, update_errors};

/// Each case expects as many errors as it has texts, which the errors start with.
fn expect(got: &[String], expected: &[&str], case: &str) {
    assert_eq!(got.len(), expected.len(), "{case}: {got:#?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.starts_with(expected), "{case}: {got}\n  expected {expected}");
    }
}

#[test]
fn created() {
    let pdb = ("policy/v1", "PodDisruptionBudget");
    let revision = ("apps/v1", "ControllerRevision");
    let cases: &[((&str, &str), &str, &[&str])] = &[
        (pdb, "{spec: {minAvailable: 1}}", &[]),
        (pdb, "{spec: {}}", &[]),
        (
            pdb,
            "{spec: {minAvailable: -1, maxUnavailable: 101%}}",
            &[
                "spec: Invalid value: {\"maxUnavailable\":\"101%\",\"minAvailable\":-1}: minAvailable and maxUnavailable \
                 cannot be both set",
                "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0",
                "spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ],
        ),
        (
            pdb,
            "{spec: {minAvailable: half, unhealthyPodEvictionPolicy: Never}}",
            &[
                "spec.minAvailable: Invalid value: \"half\": a valid percent string must be",
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \
                 \"IfHealthyBudget\"",
            ],
        ),
        (revision, "{data: {a: b}, revision: 0}", &[]),
        (
            revision,
            "{revision: -1}",
            &[
                "data: Required value: data is mandatory",
                "revision: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            ("v1", "PodTemplate"),
            "{template: {metadata: {labels: {'a b': c}}, spec: {containers: []}}}",
            &["template.labels: Invalid value: \"a b\": name part", "template.spec.containers: Required value"],
        ),
    ];
    for ((version, kind), rest, expected) in cases {
        expect(&errors(&object(version, kind, rest)), expected, rest);
    }
}

#[test]
fn changed() {
    let cases: &[(&str, &str, &str, &str, &[&str])] = &[
        (
            "apps/v1",
            "ControllerRevision",
            "{data: {a: 1}, revision: 1}",
            "{data: {a: 2}, revision: 2}",
            &["data: Invalid value: {\"a\":2}: field is immutable"],
        ),
        ("policy/v1", "PodDisruptionBudget", "{spec: {minAvailable: 1}}", "{spec: {maxUnavailable: 1}}", &[]),
    ];
    for (version, kind, old, new, expected) in cases {
        expect(&update_errors(&object(version, kind, old), &object(version, kind, new)), expected, new);
    }
}
