//! Tables of cases for what decides about requests: webhooks, policies and their bindings.

use serde_json::{Value, json};

use super::{errors, examples::yaml, object, rules::check, rules::with_defaults};

const ADMISSION: &str = "admissionregistration.k8s.io/v1";

/// A webhook that is right but for some fields.
fn hook(changes: &str) -> Value {
    let mut hook = yaml(
        "{name: a.b.c, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {url: 'https://a'},
          rules: [{operations: ['*'], apiGroups: ['*'], apiVersions: ['*'], resources: ['*']}]}",
    );
    for (field, value) in yaml(changes).as_object().unwrap() {
        hook[field] = value.clone();
    }
    hook
}

const WEBHOOKS: &[(&str, &[&str])] = &[
    ("{}", &[]),
    ("{name: ''}", &["name: Required value"]),
    (
        "{name: a.b}",
        &["name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots"],
    ),
    (
        "{sideEffects: Some}",
        &["sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\""],
    ),
    ("{sideEffects: ''}", &["sideEffects: Required value: must specify one of None, NoneOnDryRun"]),
    (
        "{timeoutSeconds: 31}",
        &["timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"],
    ),
    (
        "{failurePolicy: A, matchPolicy: B, reinvocationPolicy: C}",
        &[
            "failurePolicy: Unsupported value: \"A\": supported values: \"Fail\", \"Ignore\"",
            "matchPolicy: Unsupported value: \"B\": supported values: \"Equivalent\", \"Exact\"",
            "reinvocationPolicy: Unsupported value: \"C\": supported values: \"IfNeeded\", \"Never\"",
        ],
    ),
    ("{admissionReviewVersions: []}", &["admissionReviewVersions: Required value: must specify one of v1, v1beta1"]),
    (
        "{admissionReviewVersions: [v2, v2]}",
        &[
            "admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
            "admissionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
        ],
    ),
    ("{clientConfig: {}}", &["clientConfig: Required value: exactly one of url or service is required"]),
    (
        "{clientConfig: {url: 'http://u:p@a/b?c#d'}}",
        &[
            "clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            "clientConfig.url: Invalid value: \"u:p\": user information is not permitted in the URL",
            "clientConfig.url: Invalid value: \"d\": fragments are not permitted in the URL",
            "clientConfig.url: Invalid value: \"c\": query parameters are not permitted in the URL",
        ],
    ),
    (
        "{clientConfig: {service: {name: '', namespace: n, port: 70000, path: a//B}}}",
        &[
            "clientConfig.service.name: Required value",
            "clientConfig.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
            "clientConfig.service.path: Invalid value: \"a//B\": must start with a '/'",
            "clientConfig.service.path: Invalid value: \"a//B\": segment[1] may not be empty",
            "clientConfig.service.path: Invalid value: \"a//B\": segment[2]: a lowercase RFC 1123 subdomain",
        ],
    ),
    (
        "{rules: [{operations: ['*', CREATE, X], apiGroups: [], apiVersions: ['*', ''], resources: [], scope: All}]}",
        &[
            "rules[0].operations: Invalid value: [\"*\",\"CREATE\",\"X\"]: if '*' is present, must not specify other operations",
            "rules[0].operations[2]: Unsupported value: \"X\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
            "rules[0].apiGroups: Required value",
            "rules[0].apiVersions: Invalid value: [\"*\",\"\"]: if '*' is present, must not specify other API versions",
            "rules[0].apiVersions[1]: Required value",
            "rules[0].resources: Required value",
            "rules[0].scope: Unsupported value: \"All\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
        ],
    ),
    (
        "{rules: [{operations: [CREATE], apiGroups: [a], apiVersions: [v1], resources: [a/*, a/b, '*/b', c/b, '*/*', '*', d]}]}",
        &[
            "rules[0].resources[1]: Invalid value: \"a/b\": if 'a/*' is present, must not specify a/b",
            "rules[0].resources[3]: Invalid value: \"c/b\": if '*/b' is present, must not specify c/b",
            "rules[0].resources: Invalid value: [\"a/*\",\"a/b\",\"*/b\",\"c/b\",\"*/*\",\"*\",\"d\"]: if '*/*' is present, must not specify other resources",
            "rules[0].resources: Invalid value: [\"a/*\",\"a/b\",\"*/b\",\"c/b\",\"*/*\",\"*\",\"d\"]: if '*' is present, must not specify other resources without subresources",
        ],
    ),
    (
        "{matchConditions: [{name: a, expression: 'true'}, {name: a, expression: ' '}, {name: '-', expression: a}, {expression: a}]}",
        &[
            "matchConditions[1].expression: Required value",
            "matchConditions[1].name: Duplicate value: \"a\"",
            "matchConditions[2].name: Invalid value: \"-\": name part must consist of",
            "matchConditions[3].name: Required value",
        ],
    ),
];

#[test]
fn webhooks() {
    for (changes, wanted) in WEBHOOKS {
        let mut config = object(ADMISSION, "MutatingWebhookConfiguration", "{}");
        config["webhooks"] = json!([hook(changes)]);
        let wanted: Vec<String> = wanted.iter().map(|w| format!("webhooks[0].{w}")).collect();
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        check(changes, &errors(&config), &wanted);
    }
    let mut twice = object(ADMISSION, "ValidatingWebhookConfiguration", "{}");
    twice["webhooks"] = json!([hook("{}"), hook("{clientConfig: {service: {name: s, namespace: n}}}")]);
    check("twice", &errors(&twice), &["webhooks[1].name: Duplicate value: \"a.b.c\""]);
    let filled = &with_defaults(&twice)["webhooks"][1];
    assert_eq!(
        (&filled["failurePolicy"], &filled["matchPolicy"], &filled["timeoutSeconds"], &filled["namespaceSelector"]),
        (&json!("Fail"), &json!("Equivalent"), &json!(10), &json!({}))
    );
    assert_eq!((&filled["rules"][0]["scope"], &filled["clientConfig"]["service"]["port"]), (&json!("*"), &json!(443)));
}

const POLICIES: &[(&str, &[&str])] = &[
    ("validations: [{expression: a}], WHAT", &[]),
    (
        "",
        &[
            "spec.matchConstraints: Required value",
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ],
    ),
    ("validations: [{expression: a}], matchConstraints: {}", &["spec.matchConstraints.resourceRules: Required value"]),
    (
        "validations: [{expression: ' ', message: ' ', messageExpression: ' ', reason: No}, {expression: a, message: \"a\\nb\"}], WHAT",
        &[
            "spec.validations[0].expression: Required value: expression is not specified",
            "spec.validations[0].messageExpression: Invalid value: \" \": must be non-empty if specified",
            "spec.validations[0].message: Invalid value: \" \": message must be non-empty if specified",
            "spec.validations[0].reason: Unsupported value: \"No\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
            "spec.validations[1].message: Invalid value: \"a\\nb\": message must not contain line breaks",
        ],
    ),
    (
        "validations: [{expression: a}], paramKind: {apiVersion: a/b/c, kind: K_}, variables: [{name: in, expression: a}, {name: ' '}], WHAT",
        &[
            "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
            "spec.paramKind.kind: Invalid value: \"K_\": may have mixed case, but should otherwise match: a DNS-1035 label",
            "spec.variables[0].name: Invalid value: \"in\": name is not a valid CEL identifier",
            "spec.variables[1].name: Required value: name is not specified",
            "spec.variables[1].expression: Required value: expression is not specified",
        ],
    ),
    (
        "auditAnnotations: [{key: k, valueExpression: a}, {key: k}, {key: 'a b', valueExpression: a}], WHAT",
        &[
            "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
            "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
            "spec.auditAnnotations[2].key: Invalid value: \"a/a b\": name part must",
        ],
    ),
];

#[test]
fn policies() {
    let rule = "{operations: [CREATE], apiGroups: ['*'], apiVersions: ['*'], resources: ['*']}";
    let constraints = format!("matchConstraints: {{resourceRules: [{rule}]}}");
    let policy = |rest: &str| object(ADMISSION, "ValidatingAdmissionPolicy", &format!("{{spec: {{{rest}}}}}"));
    for (rest, wanted) in POLICIES {
        check(rest, &errors(&policy(&rest.replace("WHAT", &constraints))), wanted);
    }
    let mutating =
        |rest: &str| object(ADMISSION, "MutatingAdmissionPolicy", &format!("{{spec: {{{constraints}, {rest}}}}}"));
    check(
        "mutating",
        &errors(&mutating(
            "mutations: [{patchType: JSONPatch, applyConfiguration: {expression: a}}, {}, {patchType: X}]",
        )),
        &[
            "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
            "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when patchType is JSONPatch",
            "spec.mutations[1].patchType: Required value",
            "spec.mutations[2].patchType: Unsupported value: \"X\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
            "spec.reinvocationPolicy: Required value",
        ],
    );
    let deletes = rule.replace("CREATE", "DELETE");
    let deletes = format!("{{spec: {{policyName: a, matchResources: {{resourceRules: [{deletes}]}}}}}}");
    check(
        "deletes",
        &errors(&object(ADMISSION, "MutatingAdmissionPolicyBinding", &deletes)),
        &[
            "spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
        ],
    );
}

#[test]
fn policy_bindings() {
    let binding = |rest: &str| {
        object(ADMISSION, "ValidatingAdmissionPolicyBinding", &format!("{{spec: {{policyName: a, {rest}}}}}"))
    };
    let cases: &[(&str, &[&str])] = &[
        ("validationActions: [Deny, Audit]", &[]),
        (
            "validationActions: []",
            &["spec.validationActions: Required value: at least one validation action is required"],
        ),
        (
            "validationActions: [Deny, Warn, Deny, X]",
            &[
                "spec.validationActions[2]: Duplicate value: \"Deny\"",
                "spec.validationActions[3]: Unsupported value: \"X\": supported values: \"Audit\", \"Deny\", \"Warn\"",
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Deny\",\"X\"]: must not contain both Deny and Warn",
            ],
        ),
        (
            "validationActions: [Deny], paramRef: {}",
            &[
                "spec.paramRef: Required value: one of name or selector must be specified",
                "spec.paramRef.parameterNotFoundAction: Required value",
            ],
        ),
        (
            "validationActions: [Deny], paramRef: {name: a, selector: {}, parameterNotFoundAction: X}",
            &[
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.parameterNotFoundAction: Unsupported value: \"X\": supported values: \"Deny\", \"Allow\"",
            ],
        ),
    ];
    for (rest, wanted) in cases {
        check(rest, &errors(&binding(rest)), wanted);
    }
}
