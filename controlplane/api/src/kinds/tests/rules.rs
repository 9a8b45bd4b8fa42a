//! Tables of cases: what is refused, in which words, and what is filled in.

use serde_json::{Value, json};

use super::{errors, examples::yaml, object, read, update_errors};

/// Errors whose beginnings are those wanted, in this order.
pub(super) fn check(what: &str, got: &[String], wanted: &[&str]) {
    let right = got.len() == wanted.len() && got.iter().zip(wanted).all(|(got, wanted)| got.starts_with(wanted));
    assert!(right, "{what}\n got {got:#?}\nwant {wanted:#?}");
}

pub(super) fn with_defaults(manifest: &Value) -> Value {
    let (kind, mut object) = read(manifest);
    kind.fill_defaults(object.as_mut());
    kind.prepare_create(object.as_mut());
    object.to_value().unwrap()
}

fn service(spec: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "n"}, "spec": yaml(spec)})
}

#[test]
fn services() {
    let cases: &[(&str, &[&str])] = &[
        ("{ports: [{port: 80}]}", &[]),
        ("{clusterIP: None}", &[]),
        ("{type: ExternalName, externalName: a.b.}", &[]),
        ("{}", &["spec.ports: Required value"]),
        ("{type: ExternalName}", &["spec.externalName: Required value"]),
        (
            "{ports: [{port: 80}, {port: 80, name: a}]}",
            &[
                "spec.ports[0].name: Required value",
                "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
            ],
        ),
        ("{ports: [{port: 80, name: a}, {port: 81, name: a}]}", &["spec.ports[1].name: Duplicate value: \"a\""]),
        (
            "{ports: [{port: 0}]}",
            &[
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            "{ports: [{port: 80, nodePort: 30000}]}",
            &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            "{type: NodePort, ports: [{port: 80, nodePort: 80}]}",
            &[
                "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid \
               ports is 30000-32767",
            ],
        ),
        (
            "{type: NodePort, clusterIP: None, ports: [{port: 80}]}",
            &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        ),
        (
            "{clusterIP: x, ports: [{port: 80}]}",
            &["spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address"],
        ),
        (
            "{type: Odd, sessionAffinity: Odd, ports: [{port: 80, protocol: ODD}]}",
            &[
                "spec.ports[0].protocol: Unsupported value: \"ODD\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.sessionAffinity: Unsupported value: \"Odd\"",
                "spec.type: Unsupported value: \"Odd\"",
            ],
        ),
        ("{ports: [{port: 80}], selector: {'a b': c}}", &["spec.selector: Invalid value: \"a b\": name part"]),
    ];
    for (spec, wanted) in cases {
        check(spec, &errors(&service(spec)), wanted);
    }
}

#[test]
fn services_reached_from_outside() {
    let cases: &[(&str, &[&str])] = &[
        (
            "{ports: [{port: 80}], externalIPs: [127.0.0.1]}",
            &["spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not"],
        ),
        (
            "{ports: [{port: 80}], externalIPs: [169.254.1.1]}",
            &["spec.externalIPs[0]: Invalid value: \"169.254.1.1\": may not be in the link-local range"],
        ),
        (
            "{type: ExternalName, externalName: a, ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, loadBalancerClass: a/b}",
            &[
                "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
                "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
                "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ],
        ),
        (
            "{ports: [{port: 80}], loadBalancerSourceRanges: [10.0.0.0/8, x], allocateLoadBalancerNodePorts: true,
              externalTrafficPolicy: Local, healthCheckNodePort: 30000, trafficDistribution: Odd}",
            &[
                "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                "spec.LoadBalancerSourceRanges[1]: Invalid value: \"x\": must be a valid CIDR value",
                "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
                "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and",
                "spec.trafficDistribution: Unsupported value: \"Odd\": supported values: \"PreferClose\", ",
            ],
        ),
        (
            "{type: LoadBalancer, ports: [{port: 10250}]}",
            &["spec.ports[0]: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet"],
        ),
        (
            "{ports: [{port: 80}], clusterIPs: [10.96.0.1, 10.96.0.2], ipFamilies: [IPv6, IPv6]}",
            &[
                "spec.ipFamilies[1]: Duplicate value: \"IPv6\"",
                "spec.clusterIPs: Invalid value: [\"10.96.0.1\",\"10.96.0.2\"]: may specify no more than one IP for each",
                "spec.clusterIPs[0]: Invalid value: \"10.96.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
                "spec.clusterIPs[1]: Invalid value: \"10.96.0.2\": expected an IPv6 value as indicated by `ipFamilies[1]`",
            ],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, &errors(&service(spec)), wanted);
    }
}

#[test]
fn service_defaults() {
    let got = with_defaults(&service("{type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 80}]}"));
    let wanted = json!({
        "type": "NodePort", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
    });
    assert_eq!(got["spec"], wanted);
}

#[test]
fn service_updates() {
    let old = service("{clusterIP: 10.96.0.1, ports: [{port: 80}]}");
    let other = service("{clusterIP: 10.96.0.2, ports: [{port: 80}]}");
    let without = service("{ports: [{port: 81}]}");
    check(
        "other address",
        &update_errors(&old, &other),
        &["spec.clusterIPs[0]: Invalid value: [\"10.96.0.2\"]: may not change once set"],
    );
    check("no address named", &update_errors(&old, &without), &[]);
    let balanced =
        |class: &str| service(&format!("{{type: LoadBalancer, loadBalancerClass: {class}, ports: [{{port: 80}}]}}"));
    check(
        "other class",
        &update_errors(&balanced("a/b"), &balanced("a/c")),
        &["spec.loadBalancerClass: Invalid value: \"a/c\": may not change once set"],
    );
    let two = "clusterIPs: [10.96.0.1, 'fd00::1'], ipFamilies: [IPv4, IPv6], ports: [{port: 80}]";
    check(
        "second address released",
        &update_errors(
            &service(&format!("{{{two}, ipFamilyPolicy: PreferDualStack}}")),
            &service(
                "{clusterIPs: [10.96.0.1], ipFamilies: [IPv4], ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]}",
            ),
        ),
        &[
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the \
             secondary clusterIP",
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the \
             secondary ipFamily",
        ],
    );
    let node_port = service("{type: NodePort, clusterIP: 10.96.0.1, ports: [{port: 80, nodePort: 30001}]}");
    let (kind, mut old) = read(&node_port);
    kind.fill_defaults(old.as_mut());
    kind.prepare_create(old.as_mut());
    let prepared = |spec: &str| {
        let (kind, mut new) = read(&service(spec));
        kind.fill_defaults(new.as_mut());
        kind.prepare_update(new.as_mut(), old.as_ref());
        new.to_value().unwrap()["spec"].clone()
    };
    let kept = prepared("{type: NodePort, ports: [{port: 80}]}");
    assert_eq!((&kept["clusterIP"], &kept["ports"][0]["nodePort"]), (&json!("10.96.0.1"), &json!(30001)));
    let dropped = prepared(
        "{type: ClusterIP, clusterIP: 10.96.0.1, externalTrafficPolicy: Cluster, ports: [{port: 80, nodePort: 30001}]}",
    );
    assert_eq!((&dropped["externalTrafficPolicy"], &dropped["ports"][0]["nodePort"]), (&Value::Null, &Value::Null));
    let external = prepared("{type: ExternalName, externalName: a.b, clusterIP: 10.96.0.1}");
    assert_eq!((&external["clusterIP"], &external["ipFamilies"]), (&Value::Null, &Value::Null));
}

fn deployment(spec: &str) -> Value {
    let mut all = yaml(
        "{selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: i}]}}}",
    );
    for (key, value) in yaml(spec).as_object().unwrap() {
        all[key] = value.clone();
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "n"}, "spec": all})
}

#[test]
fn deployments() {
    let cases: &[(&str, &[&str])] = &[
        ("{}", &[]),
        ("{replicas: -1}", &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        (
            "{selector: {matchLabels: {app: b}}}",
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            ],
        ),
        (
            "{selector: null}",
            &[
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            ],
        ),
        (
            "{selector: {matchLabels: {app: a}, matchExpressions: [{key: app, operator: In}]}}",
            &[
                "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "spec.template.metadata.labels: Invalid value",
            ],
        ),
        (
            "{strategy: {type: Recreate, rollingUpdate: {}}}",
            &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
        ),
        (
            "{strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}}",
            &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"],
        ),
        (
            "{strategy: {rollingUpdate: {maxSurge: x, maxUnavailable: 101%}}}",
            &[
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must be",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ],
        ),
        (
            "{strategy: {type: Odd}}",
            &[
                "spec.strategy: Unsupported value: {\"type\":\"Odd\"}: supported values: \"Recreate\", \"RollingUpdate\"",
            ],
        ),
        (
            "{minReadySeconds: 600}",
            &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
        ),
        (
            "{template: {metadata: {labels: {app: a}}, spec: {restartPolicy: Never, containers: []}}}",
            &[
                "spec.template.spec.containers: Required value",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, &errors(&deployment(spec)), wanted);
    }
    let changed = deployment(
        "{selector: {matchLabels: {tier: a}}, template: {metadata: {labels: {tier: a}}, spec: {containers: [{name: c, image: i}]}}}",
    );
    check(
        "selector",
        &update_errors(&deployment("{}"), &changed),
        &["spec.selector: Invalid value: {\"matchLabels\":{\"tier\":\"a\"}}: field is immutable"],
    );
}

#[test]
fn deployment_defaults() {
    let got = with_defaults(&deployment("{}"));
    let mut spec = got["spec"].clone();
    let template = spec.as_object_mut().unwrap().remove("template").unwrap();
    let wanted = json!({
        "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "selector": {"matchLabels": {"app": "a"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
    });
    assert_eq!(spec, wanted);
    // What only pods get is not in the template: a template is not the place for what admission adds.
    assert_eq!(template["spec"]["tolerations"], Value::Null);
    assert_eq!(template["spec"]["enableServiceLinks"], Value::Null);
    assert_eq!(template["spec"]["restartPolicy"], "Always");
}

fn manifest(text: &str) -> Value {
    let fields = yaml(text);
    object(fields["apiVersion"].as_str().unwrap(), fields["kind"].as_str().unwrap(), text)
}

#[test]
fn other_kinds() {
    let cases: &[(&str, &[&str])] = &[
        (
            "{apiVersion: v1, kind: ConfigMap, data: {a/b: ''}}",
            &["data[a/b]: Invalid value: \"a/b\": a valid config key"],
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, data: {a: ''}, binaryData: {a: ''}}",
            &["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"],
        ),
        (
            "{apiVersion: v1, kind: Secret, type: kubernetes.io/tls}",
            &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
        ),
        (
            "{apiVersion: v1, kind: Secret, type: kubernetes.io/dockerconfigjson, stringData: {.dockerconfigjson: 'hush{'}}",
            &["data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": invalid JSON"],
        ),
        (
            "{apiVersion: v1, kind: Node, spec: {taints: [{key: a, effect: Odd}, {key: a, effect: Odd}]}}",
            &[
                "metadata.taints[0].effect: Unsupported value: \"Odd\"",
                "metadata.taints[1].effect: Unsupported value: \"Odd\"",
                "metadata.taints[1]: Duplicate value: {\"effect\":\"Odd\",\"key\":\"a\"}: taints must be unique by key and effect pair",
            ],
        ),
        (
            "{apiVersion: v1, kind: Event, involvedObject: {namespace: m}}",
            &["involvedObject.namespace: Invalid value: \"m\": does not match event.namespace"],
        ),
        (
            "{apiVersion: coordination.k8s.io/v1, kind: Lease, spec: {leaseDurationSeconds: 0}}",
            &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
        ),
        (
            "{apiVersion: v1, kind: Endpoints, subsets: [{addresses: [{ip: 127.0.0.1}], ports: [{port: 0}]}]}",
            &[
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range",
                "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, endpoints: [{addresses: ['::1']}, {addresses: []}]}",
            &[
                "endpoints[0].addresses[0]: Invalid value: \"::1\": must be an IPv4 address",
                "endpoints[1].addresses: Required value: must contain at least 1 address",
            ],
        ),
        (
            "{apiVersion: networking.k8s.io/v1, kind: Ingress, spec: {}}",
            &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
        ),
        (
            "{apiVersion: networking.k8s.io/v1, kind: Ingress, spec: {rules: [{host: 10.0.0.1, http: {paths: [{path: a, backend: {}}, {path: /a//b, pathType: Exact, backend: {service: {name: s}}}]}}]}}",
            &[
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
                "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
                "spec.rules[0].http.paths[1].path: Invalid value: \"/a//b\": must not contain '//'",
                "spec.rules[0].http.paths[1].backend: Required value: port name or number is required",
            ],
        ),
        (
            "{apiVersion: networking.k8s.io/v1, kind: IngressClass, spec: {controller: a}}",
            &["spec.controller: Invalid value: \"a\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
        ),
    ];
    for (text, wanted) in cases {
        check(text, &errors(&manifest(text)), wanted);
    }
}

#[test]
fn what_is_immutable() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "{apiVersion: v1, kind: ConfigMap, immutable: true, data: {a: b}}",
            "{apiVersion: v1, kind: ConfigMap, data: {a: c}}",
            &[
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ],
        ),
        (
            "{apiVersion: v1, kind: Secret, type: a}",
            "{apiVersion: v1, kind: Secret, type: b}",
            &["type: Invalid value: \"b\": field is immutable"],
        ),
        (
            "{apiVersion: v1, kind: Node, spec: {podCIDR: 10.0.0.0/24}}",
            "{apiVersion: v1, kind: Node, spec: {podCIDR: 10.0.1.0/24}}",
            &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
        ),
        (
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4}",
            "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: FQDN}",
            &["addressType: Invalid value: \"FQDN\": field is immutable"],
        ),
    ];
    for (old, new, wanted) in cases {
        check(new, &update_errors(&manifest(old), &manifest(new)), wanted);
    }
}

#[test]
fn what_creation_sets() {
    let namespace = with_defaults(&manifest("{apiVersion: v1, kind: Namespace, status: {phase: Terminating}}"));
    assert_eq!(namespace["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "a"}));
    assert_eq!(
        (&namespace["spec"], &namespace["status"]),
        (&json!({"finalizers": ["kubernetes"]}), &json!({"phase": "Active"}))
    );
    let secret =
        with_defaults(&manifest("{apiVersion: v1, kind: Secret, stringData: {a: b}, data: {a: YQ==, c: ZA==}}"));
    assert_eq!((&secret["type"], &secret["data"]), (&json!("Opaque"), &json!({"a": "Yg==", "c": "ZA=="})));
    assert_eq!(secret["stringData"], Value::Null);
    let deployment =
        with_defaults(&yaml("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, status: {replicas: 3}}"));
    assert_eq!(deployment["status"], json!({}));
}
