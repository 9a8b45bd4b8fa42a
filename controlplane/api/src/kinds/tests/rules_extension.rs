//! Tables of cases for the kinds by which the API is extended, and for events.

use serde_json::{Value, json};

use super::{errors, examples::yaml, object, read, rules::check, rules::with_defaults, update_errors};
use crate::{
    field::FieldErrors,
    object::{KindRef, Object, kind_of},
};

#[test]
fn api_services() {
    let service = |name: &str, spec: &str| {
        object("apiregistration.k8s.io/v1", "APIService", &format!("{{metadata: {{name: {name}}}, spec: {spec}}}"))
    };
    let cases: &[(&str, &str, &[&str])] = &[
        ("v1.a.b", "{group: a.b, version: v1, groupPriorityMinimum: 1, versionPriority: 1}", &[]),
        ("v1.", "{version: v1, groupPriorityMinimum: 1, versionPriority: 1}", &[]),
        (
            "x",
            "{version: v2, caBundle: AAA=, insecureSkipTLSVerify: true}",
            &[
                "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v2.\"",
                "spec.group: Required value: only v1 may have an empty group and it better be legacy kube",
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
                "spec.caBundle: Invalid value: \"2 bytes\": local APIServices may not have a caBundle",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ],
        ),
        (
            "v1.a",
            "{group: a, version: v1, groupPriorityMinimum: 1, versionPriority: 1, caBundle: AAA=, insecureSkipTLSVerify: true, service: {}}",
            &[
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present",
            ],
        ),
    ];
    for (name, spec, wanted) in cases {
        check(spec, &errors(&service(name, spec)), wanted);
    }
    let local = with_defaults(&service("v1.", "{version: v1}"));
    assert_eq!(local["status"]["conditions"][0]["reason"], "Local");
    let remote = with_defaults(&service("v1.", "{version: v1, service: {name: s, namespace: n}}"));
    assert_eq!((&remote["status"], &remote["spec"]["service"]["port"]), (&json!({}), &json!(443)));
}

#[test]
fn definitions() {
    let text = "{metadata: {name: cs.a.b}, spec: {group: a.b, names: {plural: cs, kind: C}, scope: Cluster,
      versions: [{name: v1, served: true, storage: S1}, {name: v2, served: true, storage: S2}]}}";
    let definition = |storage: &str| {
        let text = text.replace("S1", if storage == "v1" { "true" } else { "false" });
        let text = text.replace("S2", if storage == "v2" { "true" } else { "false" });
        object("apiextensions.k8s.io/v1", "CustomResourceDefinition", &text)
    };
    let filled = with_defaults(&definition("v1"));
    assert_eq!(filled["spec"]["names"], json!({"plural": "cs", "kind": "C", "singular": "c", "listKind": "CList"}));
    assert_eq!(filled["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(filled["status"], json!({"storedVersions": ["v1"]}));
    let (kind, old) = read(&filled);
    let (_, mut new) = read(&definition("v2"));
    kind.prepare_update(new.as_mut(), old.as_ref());
    assert_eq!(new.to_value().unwrap()["status"]["storedVersions"], json!(["v1", "v2"]));
    assert_eq!(kind.generation_differs(new.as_ref(), old.as_ref()), Some(true));
    // A migration is told through the status, of which nothing is filled in again.
    let mut migrated = new.to_value().unwrap();
    migrated["status"]["storedVersions"] = json!(["v2"]);
    let (_, mut migrated) = read(&migrated);
    kind.fill_defaults(migrated.as_mut());
    kind.prepare_status_update(migrated.as_mut(), new.as_ref());
    assert_eq!(migrated.to_value().unwrap()["status"]["storedVersions"], json!(["v2"]));
}

fn request(spec: &str) -> Value {
    let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KQUFBQQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
    let rest = format!("{{spec: {{request: {pem}, {spec}}}}}");
    object("certificates.k8s.io/v1", "CertificateSigningRequest", &rest)
}

#[test]
fn certificate_requests() {
    let cases: &[(&str, &[&str])] = &[
        ("usages: [client auth], signerName: a.b/c", &[]),
        ("usages: [], signerName: ''", &["spec.usages: Required value", "spec.signerName: Required value"]),
        (
            "usages: [any, any, x], signerName: a.b, expirationSeconds: 599",
            &[
                "spec.usages[2]: Unsupported value: \"x\": supported values: \"any\", \"cert sign\"",
                "spec.usages[1]: Duplicate value: \"any\"",
                "spec.signerName: Invalid value: \"a.b\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
                "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
            ],
        ),
        (
            "usages: [any], signerName: kubernetes.io/legacy-unknown",
            &[
                "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version",
            ],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, &errors(&request(spec)), wanted);
    }
    let mut other = request("usages: [any], signerName: a.b/c");
    other["spec"]["request"] = "AAAA".into();
    let wanted = "spec.request: Invalid value: \"AAAA\": PEM block type must be CERTIFICATE REQUEST";
    check("no request", &errors(&other), &[wanted]);
}

/// What is wrong with a write through a subresource, and what comes of it.
fn through(subresource: &str, old: &Value, status: &str) -> (Vec<String>, Value) {
    let (kind, old): (KindRef, Box<dyn Object>) = read(old);
    let mut new = old.to_value().unwrap();
    new["spec"]["signerName"] = "changed.example.com/x".into();
    new["status"] = yaml(status);
    let (_, mut new) = read(&new);
    let mut errs = FieldErrors::new();
    if subresource == "status" {
        kind.prepare_status_update(new.as_mut(), old.as_ref());
        kind.validate_status_update(new.as_ref(), old.as_ref(), &mut errs);
    } else {
        kind.prepare_part_update(subresource, new.as_mut(), old.as_ref());
        kind.validate_part_update(subresource, new.as_ref(), old.as_ref(), &mut errs);
    }
    let new = new.to_value().unwrap();
    assert_eq!(new["spec"]["signerName"], "a.b/c");
    (errs.0.iter().map(ToString::to_string).collect(), new["status"].clone())
}

#[test]
fn certificates_are_approved_and_issued_apart() {
    let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBQUEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=";
    let mut old = request("usages: [any], signerName: a.b/c");
    let approved = "{conditions: [{type: Approved, status: 'True'}]}";
    assert_eq!(through("approval", &old, approved), (vec![], yaml(approved)));
    // An approval cannot issue.
    let both = format!("{{certificate: {pem}, conditions: [{{type: Approved, status: 'True'}}]}}");
    assert_eq!(through("approval", &old, &both), (vec![], yaml(approved)));
    let cases: &[(&str, &str, &[&str])] = &[
        ("status", approved, &["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""]),
        ("status", "{certificate: AAAA}", &["status.certificate: Invalid value: \"<certificate data>\": "]),
        (
            "approval",
            "{conditions: [{type: Approved, status: 'True'}, {type: Denied, status: 'False'}, {type: '', status: ''}]}",
            &[
                "status.conditions[1].status: Unsupported value: \"False\": supported values: \"True\"",
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
                "status.conditions[2].type: Required value",
                "status.conditions[2].status: Required value",
            ],
        ),
    ];
    for (subresource, status, wanted) in cases {
        check(status, &through(subresource, &old, status).0, wanted);
    }
    let issued = format!("{{certificate: {pem}}}");
    assert_eq!(through("status", &old, &issued), (vec![], yaml(&issued)));
    old["status"] = yaml(approved);
    let wanted = "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"";
    check("removed", &through("approval", &old, "{}").0, &[wanted]);
}

#[test]
fn flow_schemas() {
    let schema = |name: &str, spec: &str| {
        let rest = format!("{{metadata: {{name: {name}}}, spec: {spec}}}");
        object("flowcontrol.apiserver.k8s.io/v1", "FlowSchema", &rest)
    };
    let cases: &[(&str, &str, &[&str])] = &[
        ("a", "{priorityLevelConfiguration: {name: b}}", &[]),
        (
            "a",
            "{matchingPrecedence: 1, distinguisherMethod: {type: X}}",
            &[
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                "spec.distinguisherMethod.type: Unsupported value: \"X\": supported values: \"ByNamespace\", \"ByUser\"",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
            ],
        ),
        (
            "a",
            "{matchingPrecedence: 10001, priorityLevelConfiguration: {name: b}, rules: [{},
              {subjects: [{kind: User, group: {name: g}}, {kind: X}], resourceRules: [{}], nonResourceRules:
                [{verbs: [x], nonResourceURLs: [a, /b//c, /*/d]}]}]}",
            &[
                "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000",
                "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
                "spec.rules[1].subjects[0].user: Required value: user is required when subject kind is 'User'",
                "spec.rules[1].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
                "spec.rules[1].subjects[1].kind: Unsupported value: \"X\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                "spec.rules[1].resourceRules[0].verbs: Required value: verbs must contain at least one value",
                "spec.rules[1].resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "spec.rules[1].resourceRules[0].resources: Required value: resource rules must supply at least one resource",
                "spec.rules[1].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply",
                "spec.rules[1].nonResourceRules[0].verbs: Unsupported value: \"x\": supported values: \"create\"",
                "spec.rules[1].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"a\": must start with slash",
                "spec.rules[1].nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/b//c\": must not contain double slash",
                "spec.rules[1].nonResourceRules[0].nonResourceURLs[2]: Invalid value: \"/*/d\": wildcard can only do suffix matching",
            ],
        ),
        (
            "catch-all",
            "{priorityLevelConfiguration: {name: catch-all}, matchingPrecedence: 10000}",
            &[
                "spec: Invalid value: {\"matchingPrecedence\":10000,\"priorityLevelConfiguration\":{\"name\":\"catch-all\"}}: spec of 'catch-all' must equal the fixed value",
            ],
        ),
    ];
    for (name, spec, wanted) in cases {
        check(spec, &errors(&schema(name, spec)), wanted);
    }
    let all =
        "resourceRules: [{verbs: ['*'], apiGroups: ['*'], resources: ['*'], namespaces: ['*'], clusterScope: true}],
      nonResourceRules: [{verbs: ['*'], nonResourceURLs: ['*']}]";
    let exempt = format!(
        "{{priorityLevelConfiguration: {{name: exempt}}, matchingPrecedence: 1,
          rules: [{{subjects: [{{kind: Group, group: {{name: 'system:masters'}}}}], {all}}}]}}"
    );
    check("exempt", &errors(&schema("exempt", &exempt)), &[]);
}

#[test]
fn priority_levels() {
    let level = |name: &str, spec: &str| {
        let rest = format!("{{metadata: {{name: {name}}}, spec: {spec}}}");
        object("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", &rest)
    };
    let cases: &[(&str, &str, &[&str])] = &[
        ("a", "{type: Limited, limited: {limitResponse: {type: Reject}}}", &[]),
        ("exempt", "{type: Exempt, exempt: {lendablePercent: 50}}", &[]),
        ("catch-all", "{type: Limited, limited: {nominalConcurrencyShares: 5, limitResponse: {type: Reject}}}", &[]),
        ("a", "{type: Limited}", &["spec.limited: Required value: must not be empty when type is Limited"]),
        (
            "a",
            "{type: Exempt}",
            &["spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'"],
        ),
        ("a", "{type: X}", &["spec.type: Unsupported value: \"X\": supported values: \"Exempt\", \"Limited\""]),
        (
            "a",
            "{type: Limited, limited: {nominalConcurrencyShares: -1, lendablePercent: 101, borrowingLimitPercent: -1,
              limitResponse: {type: Queue, queuing: {queues: 4, handSize: 5}}}}",
            &[
                "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 5: should not be greater than queues (4)",
                "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
            ],
        ),
        (
            "a",
            "{type: Limited, limited: {limitResponse: {type: Queue, queuing: {queues: 512, handSize: 8}}}}",
            &[
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize 512 and handSize 8 should not be greater than 60",
            ],
        ),
    ];
    for (name, spec, wanted) in cases {
        check(spec, &errors(&level(name, spec)), wanted);
    }
    let filled = with_defaults(&level("a", "{type: Limited, limited: {limitResponse: {type: Queue, queuing: {}}}}"));
    assert_eq!(
        filled["spec"]["limited"],
        json!({
            "nominalConcurrencyShares": 30, "lendablePercent": 0,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50}},
        })
    );
}

fn new_event(changes: &str) -> Value {
    let mut event = object(
        "events.k8s.io/v1",
        "Event",
        "{metadata: {name: a, namespace: n}, eventTime: '2026-01-01T00:00:00.000000Z', type: Normal, action: A, reason: R,
          note: N, reportingController: a.b/c, reportingInstance: i, regarding: {kind: Pod, name: p, namespace: n}}",
    );
    for (field, value) in yaml(changes).as_object().unwrap() {
        event[field] = value.clone();
    }
    event
}

#[test]
fn events() {
    let cases: &[(&str, &[&str])] = &[
        ("{}", &[]),
        (
            "{eventTime: null}",
            &["eventTime: Required value"],
        ),
        (
            "{type: X, action: '', reason: '', reportingController: '', deprecatedCount: 1, deprecatedSource: {host: h},
              series: {count: 1, lastObservedTime: '2026-01-01T00:00:00.000000Z'}}",
            &[
                "reportingController: Required value",
                "reportingController: Invalid value: \"\": name part must be non-empty",
                "reportingController: Invalid value: \"\": name part must consist of",
                "action: Required value",
                "reason: Required value",
                "series.count: Invalid value: \"\": should be at least 2",
                "type: Invalid value: \"\": has invalid value: X",
                "count: Invalid value: \"\": needs to be unset",
                "source: Invalid value: \"\": needs to be unset",
            ],
        ),
        ("{regarding: {kind: Node, name: n}}", &["involvedObject.namespace: Invalid value: \"\": does not match event.namespace"]),
    ];
    for (changes, wanted) in cases {
        check(changes, &errors(&new_event(changes)), wanted);
    }
    // The same in the core version is judged less strictly.
    let old = object("v1", "Event", "{metadata: {name: a, namespace: n}, involvedObject: {kind: Pod, namespace: n}}");
    check("core", &errors(&old), &[]);
    let got = update_errors(&new_event("{}"), &new_event("{note: M, type: Warning}"));
    check(
        "changed",
        &got,
        &["message: Invalid value: \"M\": field is immutable", "type: Invalid value: \"Warning\": field is immutable"],
    );
    let series = "{series: {count: 2, lastObservedTime: '2026-01-01T00:00:00.000000Z'}}";
    check("series", &update_errors(&new_event("{}"), &new_event(series)), &[]);
}

#[test]
fn events_are_one_store() {
    let event = new_event(
        "{series: {count: 2, lastObservedTime: '2026-01-01T00:00:00.000000Z'}, related: {kind: Node, name: n1},
          deprecatedFirstTimestamp: '2026-01-01T00:00:00Z', deprecatedCount: 3, deprecatedSource: {component: c}}",
    );
    let (kind, object) = read(&event);
    let core = kind.stored_as().unwrap();
    assert_eq!(core.names(), kind_of::<k8s_openapi::api::core::v1::Event>().names());
    let stored = kind.to_stored(object.boxed_clone()).unwrap();
    let value = stored.to_value().unwrap();
    for (field, wanted) in [
        ("apiVersion", json!("v1")),
        ("message", json!("N")),
        ("reportingComponent", json!("a.b/c")),
        ("involvedObject", event["regarding"].clone()),
        ("firstTimestamp", event["deprecatedFirstTimestamp"].clone()),
        ("count", json!(3)),
        ("source", json!({"component": "c"})),
        ("series", event["series"].clone()),
    ] {
        assert_eq!(value[field], wanted, "{field}");
    }
    let back = kind.from_stored(stored.as_ref()).unwrap();
    assert!(back.same_as(object.as_ref()), "{back:?}");
    assert_eq!(core.selectable(stored.as_ref(), "involvedObject.name"), Some("p".to_owned()));
    assert_eq!(kind.selectable(object.as_ref(), "regarding.name"), Some("p".to_owned()));
}
