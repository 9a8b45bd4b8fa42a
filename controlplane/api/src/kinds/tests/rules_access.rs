//! Tables of cases for the kinds that say who may do and reach what.

use serde_json::json;

use super::{errors, examples::yaml, object, rules::check, rules::with_defaults, update_errors};

#[test]
fn network_policies() {
    let policy = |spec: &str| object("networking.k8s.io/v1", "NetworkPolicy", &format!("{{spec: {spec}}}"));
    let cases: &[(&str, &[&str])] = &[
        ("{podSelector: {}}", &[]),
        ("{podSelector: {}, egress: [{}]}", &[]),
        (
            "{podSelector: {matchLabels: {'a b': c}}}",
            &["spec.podSelector.matchLabels: Invalid value: \"a b\": name part must"],
        ),
        (
            "{ingress: [{ports: [{protocol: ICMP}, {port: 0}, {port: -x}]}]}",
            &[
                "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                "spec.ingress[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ingress[0].ports[2].port: Invalid value: \"-x\": must not begin or end with a hyphen",
            ],
        ),
        (
            "{egress: [{ports: [{port: 5, endPort: 4}, {port: a, endPort: 4}, {endPort: 4}]}]}",
            &[
                "spec.egress[0].ports[0].endPort: Invalid value: 5: must be greater than or equal to `port`",
                "spec.egress[0].ports[1].endPort: Invalid value: 4: may not be specified when `port` is non-numeric",
                "spec.egress[0].ports[2].endPort: Invalid value: 4: may not be specified when `port` is not specified",
            ],
        ),
        (
            "{ingress: [{from: [{}, {podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: ''}}]}]}",
            &[
                "spec.ingress[0].from[0]: Required value: must specify a peer",
                "spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer",
                "spec.ingress[0].from[2].ipBlock.cidr: Required value",
            ],
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8, 11.0.0.0/16, x]}}, {ipBlock: {cidr: 10.1.0.0/8}}]}]}",
            &[
                "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                "spec.egress[0].to[0].ipBlock.except[1]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                "spec.egress[0].to[0].ipBlock.except[2]: Invalid value: \"x\": must be a valid CIDR value",
                "spec.egress[0].to[1].ipBlock.cidr: Invalid value: \"10.1.0.0/8\": must not have bits set beyond the prefix length",
            ],
        ),
        (
            "{policyTypes: [In]}",
            &["spec.policyTypes[0]: Unsupported value: \"In\": supported values: \"Ingress\", \"Egress\""],
        ),
        (
            "{policyTypes: [Ingress, Egress, Ingress]}",
            &[
                "spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"Ingress\"]: may not specify more than two policyTypes",
            ],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, &errors(&policy(spec)), wanted);
    }
    let filled = with_defaults(&policy("{egress: [{ports: [{port: 1}]}]}"));
    assert_eq!(
        filled["spec"],
        json!({
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "egress": [{"ports": [{"port": 1, "protocol": "TCP"}]}],
        })
    );
    assert_eq!(with_defaults(&policy("{}"))["spec"]["policyTypes"], json!(["Ingress"]));
}

#[test]
fn addresses() {
    let address = |name: &str, parent: &str| {
        let rest = format!("{{metadata: {{name: '{name}'}}, spec: {{parentRef: {parent}}}}}");
        object("networking.k8s.io/v1", "IPAddress", &rest)
    };
    let right = "{resource: services, name: a, namespace: n}";
    let cases: &[(&str, &str, &[&str])] = &[
        ("10.0.0.1", right, &[]),
        ("fd00::1", right, &[]),
        ("010.0.0.1", right, &["metadata.name: Invalid value: \"010.0.0.1\": must not have leading 0s"]),
        ("FD00::1", right, &["metadata.name: Invalid value: \"FD00::1\": must be in canonical form (\"fd00::1\")"]),
        ("10.0.0.1", "{}", &["spec.parentRef: Required value"]),
        (
            "10.0.0.1",
            "{group: A, namespace: a/b}",
            &[
                "spec.parentRef.group: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
                "spec.parentRef.resource: Required value",
                "spec.parentRef.name: Required value",
                "spec.parentRef.namespace: Invalid value: \"a/b\": may not contain '/'",
            ],
        ),
    ];
    for (name, parent, wanted) in cases {
        check(parent, &errors(&address(name, parent)), wanted);
    }
    let changed = address("10.0.0.1", "{resource: services, name: b, namespace: n}");
    let got = update_errors(&address("10.0.0.1", right), &changed);
    check(
        "changed",
        &got,
        &[
            "spec.parentRef: Invalid value: {\"name\":\"b\",\"namespace\":\"n\",\"resource\":\"services\"}: field is immutable",
        ],
    );
}

#[test]
fn service_cidrs() {
    let cidrs = |list: &str| {
        object("networking.k8s.io/v1", "ServiceCIDR", &format!("{{metadata: {{name: a}}, spec: {{cidrs: {list}}}}}"))
    };
    let cases: &[(&str, &[&str])] = &[
        ("[10.0.0.0/8]", &[]),
        ("[10.0.0.0/8, 'fd00::/64']", &[]),
        ("[]", &["spec.cidrs: Required value: at least one CIDR required"]),
        ("[10.0.0.0/8, 11.0.0.0/8, 12.0.0.0/8]", &["spec.cidrs: Invalid value: {\"cidrs\":[\"10.0.0.0/8\","]),
        ("[10.0.0.1/8]", &["spec.cidrs[0]: Invalid value: \"10.0.0.1/8\": must not have bits set"]),
        (
            "[10.0.0.0/8, 11.0.0.0/8]",
            &[
                "spec.cidrs: Invalid value: [\"10.0.0.0/8\",\"11.0.0.0/8\"]: may specify no more than one IP for each IP family",
            ],
        ),
    ];
    for (list, wanted) in cases {
        check(list, &errors(&cidrs(list)), wanted);
    }
    let changes: &[(&str, &str, &[&str])] = &[
        ("[10.0.0.0/8]", "[10.0.0.0/8, 'fd00::/64']", &[]),
        ("[10.0.0.0/8]", "[11.0.0.0/8]", &["spec.cidrs[0]: Invalid value: \"11.0.0.0/8\": field is immutable"]),
        (
            "[10.0.0.0/8, 'fd00::/64']",
            "[10.0.0.0/8]",
            &["spec.cidrs: Invalid value: [\"10.0.0.0/8\"]: field is immutable"],
        ),
    ];
    for (old, new, wanted) in changes {
        check(new, &update_errors(&cidrs(old), &cidrs(new)), wanted);
    }
}

const RBAC: &str = "rbac.authorization.k8s.io/v1";

#[test]
fn roles() {
    let both = "rules: [{verbs: [get], apiGroups: [''], resources: [pods]}]";
    let cases: &[(&str, &str, &[&str])] = &[
        ("Role", both, &[]),
        ("ClusterRole", both, &[]),
        ("Role", "rules: [{verbs: [get], apiGroups: [''], resources: [pods, services], resourceNames: [a]}]", &[]),
        (
            "Role",
            "rules: [{}]",
            &[
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ],
        ),
        (
            "Role",
            "rules: [{verbs: [get], nonResourceURLs: [/a]}]",
            &["rules[0].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs"],
        ),
        ("ClusterRole", "rules: [{verbs: [get], nonResourceURLs: [/a]}]", &[]),
        (
            "ClusterRole",
            "rules: [{verbs: [get], nonResourceURLs: [/a], resources: [a]}]",
            &[
                "rules[0].nonResourceURLs: Invalid value: [\"/a\"]: rules cannot apply to both regular resources and non-resource URLs",
            ],
        ),
        (
            "ClusterRole",
            "aggregationRule: {}",
            &[
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil",
            ],
        ),
        (
            "ClusterRole",
            "aggregationRule: {clusterRoleSelectors: [{matchExpressions: [{key: a, operator: B}]}]}",
            &["aggregationRule.clusterRoleSelectors[0].matchExpressions[0].operator: "],
        ),
    ];
    for (kind, rest, wanted) in cases {
        let mut role = object(RBAC, kind, &format!("{{{rest}}}"));
        if *kind == "ClusterRole" {
            role["metadata"] = json!({"name": "system:a"});
        }
        check(rest, &errors(&role), wanted);
    }
    for (name, wanted) in [
        ("system:a", ""),
        ("A_b", ""),
        ("a/b", "metadata.name: Invalid value: \"a/b\": may not contain '/'"),
        ("a%b", "metadata.name: Invalid value: \"a%b\": may not contain '%'"),
        ("..", "metadata.name: Invalid value: \"..\": may not be '..'"),
    ] {
        let mut role = object(RBAC, "Role", "{}");
        role["metadata"]["name"] = name.into();
        assert_eq!(errors(&role).join("; "), wanted, "{name}");
    }
}

#[test]
fn bindings() {
    let binding = |rest: &str| object(RBAC, "RoleBinding", &format!("{{{rest}}}"));
    let right = "roleRef: {kind: Role, name: r}";
    let cases: &[(&str, &[&str])] = &[
        ("roleRef: {kind: ClusterRole, name: 'system:r'}, subjects: [{kind: User, name: 'u@x'}]", &[]),
        ("roleRef: {kind: Role, name: r}, subjects: [{kind: ServiceAccount, name: a}]", &[]),
        (
            "roleRef: {apiGroup: a.b, kind: K, name: ''}",
            &[
                "roleRef.apiGroup: Unsupported value: \"a.b\": supported values: \"rbac.authorization.k8s.io\"",
                "roleRef.kind: Unsupported value: \"K\": supported values: \"Role\", \"ClusterRole\"",
                "roleRef.name: Required value",
            ],
        ),
        (
            "roleRef: {kind: Role, name: r}, subjects: [{kind: K, name: a}, {kind: User}, {kind: ServiceAccount, name: A, apiGroup: b}]",
            &[
                "subjects[0].kind: Unsupported value: \"K\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
                "subjects[1].name: Required value",
                "subjects[1].name: Invalid value: \"\": user name cannot be empty",
                "subjects[2].name: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
                "subjects[2].apiGroup: Unsupported value: \"b\": supported values: \"\"",
            ],
        ),
    ];
    for (rest, wanted) in cases {
        check(rest, &errors(&binding(rest)), wanted);
    }
    let cluster = |rest: &str| object(RBAC, "ClusterRoleBinding", &format!("{{metadata: {{name: a}}, {rest}}}"));
    check(
        "cluster",
        &errors(&cluster("roleRef: {kind: Role, name: r}, subjects: [{kind: ServiceAccount, name: a}]")),
        &[
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            "subjects[0].namespace: Required value",
        ],
    );
    check("same", &update_errors(&binding(right), &binding(right)), &[]);
    check(
        "other role",
        &update_errors(&binding(right), &binding("roleRef: {kind: Role, name: s}")),
        &[
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"s\"}: cannot change roleRef",
        ],
    );
    let filled = with_defaults(&binding(
        "roleRef: {kind: Role, name: r}, subjects: [{kind: User, name: u}, {kind: ServiceAccount, name: s}]",
    ));
    assert_eq!(filled["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(filled["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(filled["subjects"][1].get("apiGroup"), None);
}

#[test]
fn questions() {
    let cases: &[(&str, &str, &str, &[&str])] = &[
        (
            "authorization.k8s.io/v1",
            "SubjectAccessReview",
            "{metadata: {name: a}, spec: {}}",
            &[
                "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
                "spec.user: Invalid value: \"\": at least one of user or group must be specified",
                "metadata: Invalid value: {\"name\":\"a\"}: must be empty",
            ],
        ),
        (
            "authorization.k8s.io/v1",
            "SelfSubjectAccessReview",
            "{metadata: {}, spec: {resourceAttributes: {verb: get}, nonResourceAttributes: {path: /a}}}",
            &[
                "spec.nonResourceAttributes: Invalid value: {\"path\":\"/a\"}: cannot be specified in combination with resourceAttributes",
            ],
        ),
        (
            "authorization.k8s.io/v1",
            "LocalSubjectAccessReview",
            "{metadata: {namespace: n}, spec: {user: u, resourceAttributes: {namespace: m}}}",
            &["spec.resourceAttributes.namespace: Invalid value: \"m\": must match metadata.namespace"],
        ),
        (
            "authentication.k8s.io/v1",
            "TokenRequest",
            "{metadata: {}, spec: {expirationSeconds: 5}}",
            &["spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes"],
        ),
        (
            "authentication.k8s.io/v1",
            "TokenRequest",
            "{metadata: {}, spec: {expirationSeconds: 4294967297}}",
            &["spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds"],
        ),
    ];
    for (version, kind, rest, wanted) in cases {
        let mut question = yaml(rest);
        question["apiVersion"] = (*version).into();
        question["kind"] = (*kind).into();
        check(rest, &errors(&question), wanted);
    }
    let request = object("authentication.k8s.io/v1", "TokenRequest", "{spec: {}}");
    assert_eq!(with_defaults(&request)["spec"]["expirationSeconds"], 3600);
}
