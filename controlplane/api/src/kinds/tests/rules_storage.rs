//! Tables of cases for bounds, quotas, volumes and classes.

use serde_json::json;

use super::{errors, object, rules::check, rules::with_defaults, update_errors};

#[test]
fn limit_ranges() {
    let range = |item: &str| object("v1", "LimitRange", &format!("{{spec: {{limits: [{item}]}}}}"));
    let cases: &[(&str, &[&str])] = &[
        ("{type: Container, max: {cpu: 2}, min: {cpu: 1}}", &[]),
        (
            "{type: Container, max: {cpu: 1}, min: {cpu: 2}}",
            &[
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                // Its defaults are the maximum.
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
                "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
            ],
        ),
        (
            "{type: Pod, default: {cpu: 1}}",
            &["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
        ),
        (
            "{type: PersistentVolumeClaim}",
            &[
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
            ],
        ),
        (
            "{type: Container, maxLimitRequestRatio: {cpu: 500m}}",
            &["spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"],
        ),
        (
            "{type: Container, min: {cpu: 1}, max: {cpu: 2}, maxLimitRequestRatio: {cpu: 3}}",
            &[
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
            ],
        ),
        (
            "{type: Container, default: {example.com/a: 2}, defaultRequest: {example.com/a: 1}}",
            &["spec.limits[0].defaultRequest[example.com/a]: Invalid value: \"1\": default value 2 must equal to \
                 defaultRequest value 1 in example.com/a"],
        ),
        (
            "{type: Odd, max: {things: 1}}",
            &[
                "spec.limits[0].type: Invalid value: \"Odd\": must be a standard limit type or fully qualified",
                "spec.limits[0].max[things]: Invalid value: \"things\": must be a standard resource type or fully",
            ],
        ),
    ];
    for (item, wanted) in cases {
        check(item, &errors(&range(item)), wanted);
    }
    let filled = with_defaults(&range("{type: Container, max: {cpu: 2}, min: {memory: 1Mi}}"));
    let item = &filled["spec"]["limits"][0];
    assert_eq!(item["default"], json!({"cpu": "2"}));
    assert_eq!(item["defaultRequest"], json!({"cpu": "2", "memory": "1Mi"}));
}

#[test]
fn resource_quotas() {
    let quota = |spec: &str| object("v1", "ResourceQuota", &format!("{{spec: {spec}}}"));
    let cases: &[(&str, &[&str])] = &[
        ("{hard: {pods: 5, requests.cpu: 500m, count/jobs.batch: 2}, scopes: [Terminating]}", &[]),
        ("{hard: {pods: 500m}}", &["spec.hard[pods]: Invalid value: \"500m\": must be an integer"]),
        ("{hard: {pods: -1}}", &["spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"]),
        (
            "{hard: {things: 1}}",
            &[
                "spec.hard[things]: Invalid value: \"things\": must be a standard resource type or fully qualified",
                "spec.hard[things]: Invalid value: \"things\": must be a standard resource for quota",
            ],
        ),
        (
            "{hard: {requests.cpu: 1, services: 1}, scopes: [BestEffort]}",
            &[
                "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
            ],
        ),
        (
            "{scopeSelector: {matchExpressions: [{scopeName: Terminating, operator: NotIn, values: [a]}]}}",
            &[
                "spec.scopeSelector.matchExpressions.operator: Invalid value: \"NotIn\": must be 'Exists' when scope is any",
            ],
        ),
        (
            "{scopes: [Terminating, NotTerminating]}",
            &["spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes"],
        ),
        (
            "{scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In}]}}",
            &[
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, &errors(&quota(spec)), wanted);
    }
    let changed = update_errors(&quota("{scopes: [BestEffort]}"), &quota("{scopes: [Terminating]}"));
    assert!(changed.iter().any(|e| e.contains("field is immutable")), "{changed:?}");
}

#[test]
fn claims() {
    let claim = |spec: &str| object("v1", "PersistentVolumeClaim", &format!("{{spec: {spec}}}"));
    let cases: &[(&str, &[&str])] = &[
        ("{accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}", &[]),
        (
            "{}",
            &[
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ],
        ),
        (
            "{accessModes: [Sometimes], volumeMode: Tape, resources: {requests: {storage: 0}}}",
            &[
                "spec.accessModes: Unsupported value: \"Sometimes\"",
                "spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
                "spec.volumeMode: Unsupported value: \"Tape\"",
            ],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, &errors(&claim(spec)), wanted);
    }
    let base = "accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}";
    let changed = update_errors(&claim(&format!("{{{base}}}")), &claim(&format!("{{{base}, volumeMode: Block}}")));
    assert!(changed.iter().any(|e| e.starts_with("spec: Forbidden: spec is immutable after creation")), "{changed:?}");
}

#[test]
fn volumes() {
    let volume = |spec: &str| object("v1", "PersistentVolume", &format!("{{metadata: {{name: a}}, spec: {spec}}}"));
    let cases: &[(&str, &[&str])] = &[
        ("{accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, hostPath: {path: /a}}", &[]),
        (
            "{accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}}",
            &["spec: Required value: must specify a volume type"],
        ),
        (
            "{accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, hostPath: {path: /a}, nfs: {path: /a, server: b}}",
            &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            "{accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, local: {path: /a}}",
            &["spec.nodeAffinity: Required value: Local volume requires node affinity"],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, &errors(&volume(spec)), wanted);
    }
    let cases: &[(&str, &[&str])] = &[
        (
            "{accessModes: [ReadWriteOncePod, ReadWriteOnce], capacity: {storage: -1}, csi: {driver: d, volumeHandle: h},
              volumeAttributesClassName: ''}",
            &[
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                "spec.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
                "spec.capacity[storage]: Invalid value: \"-1\": must be greater than zero",
                "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
            ],
        ),
        (
            "{accessModes: [ReadWriteOnce], capacity: {cpu: 1}, hostPath: {path: /}, persistentVolumeReclaimPolicy: Recycle,
              nodeAffinity: {}}",
            &[
                "spec.capacity: Unsupported value: {\"cpu\":\"1\"}: supported values: \"storage\"",
                "spec.nodeAffinity.required: Required value: must specify required node constraints",
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
            ],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, &errors(&volume(spec)), wanted);
    }
    let labelled = |key: &str| {
        volume(&format!(
            "{{accessModes: [ReadWriteOnce], capacity: {{storage: 1Gi}}, local: {{path: /a}}, nodeAffinity: {{required:
              {{nodeSelectorTerms: [{{matchExpressions: [{{key: {key}, operator: Exists}}]}}]}}}}}}"
        ))
    };
    let beta = labelled("beta.kubernetes.io/arch");
    assert_eq!(update_errors(&beta, &labelled("kubernetes.io/arch")), [] as [&str; 0]);
    let elsewhere = update_errors(&beta, &labelled("kubernetes.io/os"));
    assert!(elsewhere[0].ends_with("field is immutable, except for updating from beta label to GA"), "{elsewhere:?}");
}

#[test]
fn sources_of_claims() {
    let claim = |rest: &str| {
        object(
            "v1",
            "PersistentVolumeClaim",
            &format!("{{spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}, {rest}}}}}"),
        )
    };
    let cases: &[(&str, &[&str])] = &[
        ("dataSource: {kind: PersistentVolumeClaim, name: a}", &[]),
        ("dataSourceRef: {kind: Backup, name: a, apiGroup: example.com}", &[]),
        (
            "dataSourceRef: {kind: Backup, name: '', namespace: A}",
            &[
                "spec.dataSourceRef.name: Required value",
                "spec.dataSourceRef: Invalid value: \"Backup\": must be 'PersistentVolumeClaim' when referencing the default",
            ],
        ),
        (
            "dataSource: {kind: PersistentVolumeClaim, name: a}, dataSourceRef: {kind: PersistentVolumeClaim, name: b}",
            &["spec: Invalid value: \"spec.dataSource\": must match dataSourceRef"],
        ),
    ];
    for (rest, wanted) in cases {
        check(rest, &errors(&claim(rest)), wanted);
    }
    let grown = |size: &str, given: &str| {
        let mut claim = claim("volumeName: v");
        claim["spec"]["resources"]["requests"]["storage"] = json!(size);
        claim["status"] = json!({"phase": "Bound", "capacity": {"storage": given}});
        super::read(&claim)
    };
    let cases: &[(&str, &str, &[&str])] = &[
        ("3Gi", "1Gi", &[]),
        ("2Gi", "1Gi", &[]),
        ("1Gi", "1Gi", &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]),
    ];
    for (size, given, wanted) in cases {
        let ((kind, old), (_, new)) = (grown("3Gi", given), grown(size, given));
        let mut errs = crate::field::FieldErrors::new();
        kind.validate_update(new.as_ref(), old.as_ref(), &mut errs);
        let got: Vec<_> = errs.0.iter().map(ToString::to_string).collect();
        check(size, &got, wanted);
    }
}

#[test]
fn classes() {
    let class = |rest: &str| object("storage.k8s.io/v1", "StorageClass", &format!("{{metadata: {{name: a}}, {rest}}}"));
    let cases: &[(&str, &[&str])] = &[
        ("provisioner: a.b/c", &[]),
        ("reclaimPolicy: Recycle, provisioner: a", &["reclaimPolicy: Unsupported value: \"Recycle\""]),
        ("provisioner: ''", &["provisioner: Required value"]),
    ];
    for (rest, wanted) in cases {
        check(rest, &errors(&class(rest)), wanted);
    }
    let filled = with_defaults(&class("provisioner: a"));
    assert_eq!((&filled["reclaimPolicy"], &filled["volumeBindingMode"]), (&json!("Delete"), &json!("Immediate")));
    let priority = |name: &str, value: i64| {
        object("scheduling.k8s.io/v1", "PriorityClass", &format!("{{metadata: {{name: {name}}}, value: {value}}}"))
    };
    assert!(errors(&priority("high", 1_000_000)).is_empty());
    assert!(errors(&priority("system-node-critical", 2_000_001_000)).is_empty());
    assert!(errors(&priority("high", 1_000_000_001))[0].starts_with("value: Forbidden: maximum allowed value"));
    assert!(errors(&priority("system-x", 1))[0].starts_with("metadata.name: Forbidden: priority class names with"));
    let changed = update_errors(&priority("high", 1), &priority("high", 2));
    assert_eq!(changed, ["value: Forbidden: may not be changed in an update."]);
    let runtime = object("node.k8s.io/v1", "RuntimeClass", "{metadata: {name: a}, handler: a_b}");
    assert!(errors(&runtime)[0].starts_with("handler: Invalid value: \"a_b\""), "{:?}", errors(&runtime));
    let class = "{provisioner: a, allowedTopologies: [{matchLabelExpressions: [{key: zone, values: [a, a]}, {key: zone, values: []}]},
                  {matchLabelExpressions: [{key: r, values: [a, b]}]}, {matchLabelExpressions: [{key: r, values: [b, a]}]}]}";
    check(
        class,
        &errors(&object("storage.k8s.io/v1", "StorageClass", class)),
        &[
            "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
            "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
            "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"zone\"",
            "allowedTopologies[2].matchLabelExpressions: Duplicate value: \"\"",
        ],
    );
    let runtime = "{handler: a, overhead: {podFixed: {odd: 1}}, scheduling: {nodeSelector: {'a b': c},
                    tolerations: [{operator: Exists, effect: NoExecute}, {operator: Exists, effect: NoExecute, tolerationSeconds: 1}]}}";
    check(
        runtime,
        &errors(&object("node.k8s.io/v1", "RuntimeClass", runtime)),
        &[
            "overhead.limits[odd]: Invalid value: \"odd\": must be a standard resource type or fully qualified",
            "overhead.limits[odd]: Invalid value: \"odd\": must be a standard resource for containers",
            "scheduling.nodeSelector: Invalid value: \"a b\": name part",
            "scheduling.tolerations[1]: Duplicate value: {",
        ],
    );
}

#[test]
fn device_claims() {
    let claim =
        |devices: &str| object("resource.k8s.io/v1", "ResourceClaim", &format!("{{spec: {{devices: {devices}}}}}"));
    let cases: &[(&str, &[&str])] = &[
        ("{requests: [{name: r, exactly: {deviceClassName: c}}]}", &[]),
        (
            "{requests: [{name: r}]}",
            &["spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required"],
        ),
        (
            "{requests: [{name: r, exactly: {deviceClassName: '', count: -1}}]}",
            &[
                "spec.devices.requests[0].exactly.deviceClassName: Required value",
                "spec.devices.requests[0].exactly.count: Invalid value: -1: must be greater than zero",
            ],
        ),
        (
            "{requests: [{name: r, exactly: {deviceClassName: c, allocationMode: Some}}]}",
            &[
                "spec.devices.requests[0].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
            ],
        ),
        (
            "{requests: [{name: r, exactly: {deviceClassName: c}}], constraints: [{requests: [s], matchAttribute: a/b}]}",
            &[
                "spec.devices.constraints[0].requests[0]: Invalid value: \"s\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
            ],
        ),
    ];
    for (devices, wanted) in cases {
        check(devices, &errors(&claim(devices)), wanted);
    }
    let exactly = &with_defaults(&claim(cases[0].0))["spec"]["devices"]["requests"][0]["exactly"];
    assert_eq!(*exactly, json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1}));
    let changed = claim("{requests: [{name: r, exactly: {deviceClassName: d}}]}");
    let errors = update_errors(&claim(cases[0].0), &changed);
    assert!(
        errors.len() == 1 && errors[0].starts_with("spec: Invalid value:") && errors[0].ends_with("field is immutable")
    );
}

#[test]
fn device_slices() {
    let slice = |rest: &str| {
        let spec = format!("driver: d.example.com, pool: {{name: p, generation: 1, resourceSliceCount: 1}}, {rest}");
        object("resource.k8s.io/v1", "ResourceSlice", &format!("{{metadata: {{name: a}}, spec: {{{spec}}}}}"))
    };
    let place = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let none = format!("spec: Required value: {place}");
    let two = format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {place}, but multiple fields are set");
    let cases: &[(&str, &[&str])] = &[
        ("nodeName: n", &[]),
        ("devices: []", &[&none]),
        ("nodeName: n, allNodes: true", &[&two]),
        (
            "allNodes: true, devices: [{name: d, attributes: {a: {int: 1, bool: true}}}]",
            &["spec.devices[0].attributes[a]: Invalid value: \"\": exactly one value must be specified"],
        ),
        ("allNodes: true, devices: [{name: d}, {name: d}]", &["spec.devices[1].name: Duplicate value: \"d\""]),
    ];
    for (rest, wanted) in cases {
        check(rest, &errors(&slice(rest)), wanted);
    }
}
