//! Schemas of the kinds of Gateway API: what its objects may say, and what is filled in.

use serde_json::{Value, json};

const GROUP: &str = super::gateway_api::GROUP;
const HOST: &str = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const EXACT_HOST: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
const NAMESPACE: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
const HEADER: &str = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$";
const DURATION: &str = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$";
const PATH: &str = r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+";

fn text(max: u32) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": max })
}

fn shaped(max: u32, pattern: &str) -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": max, "pattern": pattern })
}

fn one_of(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

fn one_of_or(words: &[&str], default: &str) -> Value {
    json!({ "type": "string", "enum": words, "default": default })
}

fn number(min: u32, max: u32) -> Value {
    json!({ "type": "integer", "format": "int32", "minimum": min, "maximum": max })
}

fn list(items: Value, max: u32) -> Value {
    json!({ "type": "array", "maxItems": max, "items": items, "x-kubernetes-list-type": "atomic" })
}

/// A list whose items have names of their own.
fn named(items: Value, max: u32) -> Value {
    json!({
        "type": "array", "maxItems": max, "items": items,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
    })
}

fn object(required: &[&str], properties: Value) -> Value {
    let mut object = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

/// Adds what must hold, as pairs of an expression and what is said when it does not.
fn holding(mut schema: Value, rules: &[(&str, &str)]) -> Value {
    let rules = rules.iter().map(|(rule, message)| json!({ "rule": rule, "message": message }));
    schema["x-kubernetes-validations"] = rules.collect();
    schema
}

/// A whole kind.
fn kind(description: &str, spec: Value, status: Option<Value>) -> Value {
    let mut whole = object(
        &["spec"],
        json!({
            "apiVersion": { "type": "string" }, "kind": { "type": "string" }, "metadata": { "type": "object" },
            "spec": spec,
        }),
    );
    if let Some(status) = status {
        whole["properties"]["status"] = status;
    }
    whole["description"] = description.into();
    whole
}

fn conditions() -> Value {
    let condition = object(
        &["type", "status", "lastTransitionTime", "reason", "message"],
        json!({
            "type": text(316), "status": one_of(&["True", "False", "Unknown"]), "reason": text(1024),
            "message": { "type": "string", "maxLength": 32768 },
            "lastTransitionTime": { "type": "string", "format": "date-time" },
            "observedGeneration": { "type": "integer", "format": "int64", "minimum": 0 },
        }),
    );
    json!({
        "type": "array", "maxItems": 8, "items": condition,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
    })
}

/// What stands in a status that nobody has written yet.
fn pending(types: &[&str]) -> Value {
    let condition = |name: &&str| {
        json!({
            "type": name, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        })
    };
    json!({ "conditions": types.iter().map(condition).collect::<Vec<_>>() })
}

pub(super) fn gateway_class() -> Value {
    let controller = holding(text(253), &[("self == oldSelf", "Value is immutable")]);
    let reference = object(
        &["group", "kind", "name"],
        json!({ "group": { "type": "string" }, "kind": text(63), "name": text(253), "namespace": text(63) }),
    );
    let spec = object(
        &["controllerName"],
        json!({
            "controllerName": controller, "description": { "type": "string", "maxLength": 64 },
            "parametersRef": reference,
        }),
    );
    let feature = object(&["name"], json!({ "name": text(253) }));
    let mut status = object(&[], json!({ "conditions": conditions(), "supportedFeatures": named(feature, 64) }));
    status["default"] = pending(&["Accepted"]);
    kind("GatewayClass says who serves the Gateways that name it.", spec, Some(status))
}

fn route_kind() -> Value {
    object(&["kind"], json!({ "group": { "type": "string", "maxLength": 253, "default": GROUP }, "kind": text(63) }))
}

fn selector() -> Value {
    let expression = object(
        &["key", "operator"],
        json!({
            "key": { "type": "string" }, "operator": { "type": "string" },
            "values": { "type": "array", "items": { "type": "string" } },
        }),
    );
    object(
        &[],
        json!({
            "matchLabels": { "type": "object", "additionalProperties": { "type": "string" } },
            "matchExpressions": { "type": "array", "items": expression },
        }),
    )
}

fn secret_ref() -> Value {
    object(
        &["name"],
        json!({
            "group": { "type": "string", "maxLength": 253, "default": "" },
            "kind": { "type": "string", "maxLength": 63, "default": "Secret" },
            "name": text(253), "namespace": shaped(63, NAMESPACE),
        }),
    )
}

fn listener() -> Value {
    let tls = holding(
        object(
            &[],
            json!({
                "mode": one_of_or(&["Terminate", "Passthrough"], "Terminate"),
                "certificateRefs": list(secret_ref(), 64),
                "options": { "type": "object", "maxProperties": 16, "additionalProperties": { "type": "string", "maxLength": 4096 } },
            }),
        ),
        &[(
            "self.mode != 'Terminate' || (has(self.certificateRefs) && size(self.certificateRefs) > 0) || has(self.options)",
            "certificateRefs or options must be specified when mode is Terminate",
        )],
    );
    let mut namespaces =
        object(&[], json!({ "from": one_of_or(&["All", "Selector", "Same"], "Same"), "selector": selector() }));
    namespaces["default"] = json!({ "from": "Same" });
    let mut allowed = object(&[], json!({ "namespaces": namespaces, "kinds": list(route_kind(), 8) }));
    allowed["default"] = json!({ "namespaces": { "from": "Same" } });
    object(
        &["name", "port", "protocol"],
        json!({
            "name": shaped(253, EXACT_HOST), "hostname": shaped(253, HOST), "port": number(1, 65535),
            "protocol": text(255), "tls": tls, "allowedRoutes": allowed,
        }),
    )
}

pub(super) fn gateway() -> Value {
    let mut listeners = named(listener(), 64);
    listeners["minItems"] = 1.into();
    let listeners = holding(
        listeners,
        &[
            (
                "self.all(l, l.protocol in ['HTTP', 'TCP', 'UDP'] ? !has(l.tls) : true)",
                "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
            ),
            (
                "self.all(l, (l.protocol == 'HTTPS' && has(l.tls)) ? l.tls.mode == 'Terminate' : true)",
                "tls mode must be Terminate for protocol HTTPS",
            ),
            (
                "self.all(l1, self.exists_one(l2, l1.port == l2.port && l1.protocol == l2.protocol && (has(l1.hostname) && has(l2.hostname) ? l1.hostname == l2.hostname : !has(l1.hostname) && !has(l2.hostname))))",
                "Combination of port, protocol and hostname must be unique for each listener",
            ),
        ],
    );
    let address = object(&[], json!({ "type": { "type": "string", "default": "IPAddress" }, "value": text(253) }));
    let reference = object(
        &["group", "kind", "name"],
        json!({ "group": { "type": "string" }, "kind": text(63), "name": text(253) }),
    );
    let notes = json!({ "type": "object", "maxProperties": 8, "additionalProperties": { "type": "string" } });
    let infrastructure = object(&[], json!({ "labels": notes, "annotations": notes, "parametersRef": reference }));
    let spec = object(
        &["gatewayClassName", "listeners"],
        json!({
            "gatewayClassName": text(253), "listeners": listeners, "addresses": list(address.clone(), 16),
            "infrastructure": infrastructure,
        }),
    );
    let of_listener = object(
        &["name", "attachedRoutes", "conditions"],
        json!({
            "name": text(253), "attachedRoutes": { "type": "integer", "format": "int32" },
            "supportedKinds": list(route_kind(), 8), "conditions": conditions(),
        }),
    );
    let mut status = object(
        &[],
        json!({
            "addresses": list(address, 16), "conditions": conditions(), "listeners": named(of_listener, 64),
        }),
    );
    status["default"] = pending(&["Accepted", "Programmed"]);
    kind("Gateway says where clients outside come in.", spec, Some(status))
}

fn parent_ref() -> Value {
    object(
        &["name"],
        json!({
            "group": { "type": "string", "maxLength": 253, "default": GROUP },
            "kind": { "type": "string", "maxLength": 63, "default": "Gateway" },
            "namespace": shaped(63, NAMESPACE), "name": text(253), "sectionName": text(253), "port": number(1, 65535),
        }),
    )
}

fn route(description: &str, rules: Value, hosts: Value, required: &[&str]) -> Value {
    let spec = object(required, json!({ "parentRefs": list(parent_ref(), 32), "hostnames": hosts, "rules": rules }));
    let parent = object(
        &["parentRef", "controllerName", "conditions"],
        json!({ "parentRef": parent_ref(), "controllerName": text(253), "conditions": conditions() }),
    );
    let status = object(&["parents"], json!({ "parents": list(parent, 32) }));
    kind(description, spec, Some(status))
}

fn backend_ref(more: Option<Value>) -> Value {
    let mut backend = object(
        &["name"],
        json!({
            "group": { "type": "string", "maxLength": 253, "default": "" },
            "kind": { "type": "string", "maxLength": 63, "default": "Service" },
            "name": text(253), "namespace": shaped(63, NAMESPACE), "port": number(1, 65535),
        }),
    );
    if let Some(filters) = more {
        backend["properties"]["filters"] = filters;
    }
    holding(
        backend,
        &[(
            "(self.group == '' && self.kind == 'Service') ? has(self.port) : true",
            "Must have port for Service reference",
        )],
    )
}

fn weighted(filters: Option<Value>) -> Value {
    let mut backend = backend_ref(filters);
    backend["properties"]["weight"] =
        json!({ "type": "integer", "format": "int32", "minimum": 0, "maximum": 1_000_000, "default": 1 });
    list(backend, 16)
}

fn header_filter() -> Value {
    let header = object(&["name", "value"], json!({ "name": shaped(256, HEADER), "value": text(4096) }));
    let remove = json!({
        "type": "array", "maxItems": 16, "items": { "type": "string", "maxLength": 256 }, "x-kubernetes-list-type": "set",
    });
    object(&[], json!({ "set": named(header.clone(), 16), "add": named(header, 16), "remove": remove }))
}

fn path_change() -> Value {
    let change = object(
        &["type"],
        json!({
            "type": one_of(&["ReplaceFullPath", "ReplacePrefixMatch"]),
            "replaceFullPath": { "type": "string", "maxLength": 1024 },
            "replacePrefixMatch": { "type": "string", "maxLength": 1024 },
        }),
    );
    holding(
        change,
        &[
            (
                "(self.type == 'ReplaceFullPath') == has(self.replaceFullPath)",
                "replaceFullPath must be specified when type is set to 'ReplaceFullPath', and only then",
            ),
            (
                "(self.type == 'ReplacePrefixMatch') == has(self.replacePrefixMatch)",
                "replacePrefixMatch must be specified when type is set to 'ReplacePrefixMatch', and only then",
            ),
        ],
    )
}

/// The filter of each type, by its name and its field.
fn filters(kinds: &[(&str, &str, Value)]) -> Value {
    let types: Vec<&str> = kinds.iter().map(|(name, ..)| *name).collect();
    let mut filter = object(&["type"], json!({ "type": one_of(&types) }));
    let mut rules = Vec::new();
    for (name, field, schema) in kinds {
        filter["properties"][field] = schema.clone();
        rules.push((
            format!("(self.type == '{name}') == has(self.{field})"),
            format!("filter.{field} must be specified for {name} filter.type, and only then"),
        ));
    }
    let rules: Vec<(&str, &str)> = rules.iter().map(|(rule, message)| (rule.as_str(), message.as_str())).collect();
    list(holding(filter, &rules), 16)
}

fn mirror() -> Value {
    let fraction = object(
        &["numerator"],
        json!({
            "numerator": { "type": "integer", "format": "int32", "minimum": 0 },
            "denominator": { "type": "integer", "format": "int32", "minimum": 1, "default": 100 },
        }),
    );
    let fraction = holding(
        fraction,
        &[("self.numerator <= self.denominator", "numerator must be less than or equal to denominator")],
    );
    let mirror = object(
        &["backendRef"],
        json!({ "backendRef": backend_ref(None), "percent": number(0, 100), "fraction": fraction }),
    );
    holding(
        mirror,
        &[(
            "!(has(self.percent) && has(self.fraction))",
            "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter",
        )],
    )
}

fn extension() -> Value {
    object(
        &["group", "kind", "name"],
        json!({ "group": { "type": "string", "maxLength": 253 }, "kind": text(63), "name": text(253) }),
    )
}

fn cors() -> Value {
    let words = |item: Value, max: u32| {
        let list = json!({ "type": "array", "maxItems": max, "items": item, "x-kubernetes-list-type": "set" });
        holding(list, &[("!('*' in self && self.size() > 1)", "'*' cannot be specified alongside others")])
    };
    let origin = shaped(253, r"(^\*$)|(^https?:\/\/((\*|(\*\.)?([a-zA-Z0-9-]+\.)*[a-zA-Z0-9-]+))(:([0-9]{1,5}))?$)");
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"];
    let header = || shaped(256, HEADER);
    object(
        &[],
        json!({
            "allowOrigins": words(origin, 64), "allowCredentials": { "type": "boolean" },
            "allowMethods": words(one_of(&methods), 9), "allowHeaders": words(header(), 64),
            "exposeHeaders": words(header(), 64),
            "maxAge": { "type": "integer", "format": "int32", "minimum": 1, "default": 5 },
        }),
    )
}

fn http_filters() -> Value {
    let mut status = json!({ "type": "integer", "enum": [301, 302, 303, 307, 308] });
    status["default"] = 302.into();
    let redirect = object(
        &[],
        json!({
            "scheme": one_of(&["http", "https"]), "hostname": shaped(253, EXACT_HOST), "path": path_change(),
            "port": number(1, 65535), "statusCode": status,
        }),
    );
    let rewrite = object(&[], json!({ "hostname": shaped(253, EXACT_HOST), "path": path_change() }));
    filters(&[
        ("RequestHeaderModifier", "requestHeaderModifier", header_filter()),
        ("ResponseHeaderModifier", "responseHeaderModifier", header_filter()),
        ("RequestMirror", "requestMirror", mirror()),
        ("RequestRedirect", "requestRedirect", redirect),
        ("URLRewrite", "urlRewrite", rewrite),
        ("CORS", "cors", cors()),
        ("ExtensionRef", "extensionRef", extension()),
    ])
}

fn value_match(name: Value) -> Value {
    let of = one_of_or(&["Exact", "RegularExpression"], "Exact");
    named(object(&["name", "value"], json!({ "type": of, "name": name, "value": text(4096) })), 16)
}

fn http_match() -> Value {
    let mut path = holding(
        object(
            &[],
            json!({
                "type": one_of_or(&["Exact", "PathPrefix", "RegularExpression"], "PathPrefix"),
                "value": { "type": "string", "maxLength": 1024, "default": "/" },
            }),
        ),
        &[
            (
                "self.type == 'RegularExpression' || self.value.startsWith('/')",
                "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']",
            ),
            (
                "self.type == 'RegularExpression' || !self.value.matches('//|/[.][.]?(/|$)|%2f|%2F|#')",
                "must not contain '//', '/./', '/../', '%2f' or '#', nor end with '/.' or '/..', when type one of ['Exact', 'PathPrefix']",
            ),
            (
                &format!("self.type == 'RegularExpression' || self.value.matches(r\"\"\"^{PATH}$\"\"\")"),
                "must only contain valid characters for types ['Exact', 'PathPrefix']",
            ),
        ],
    );
    path["default"] = json!({ "type": "PathPrefix", "value": "/" });
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    object(
        &[],
        json!({
            "path": path, "headers": value_match(shaped(256, HEADER)),
            "queryParams": value_match(shaped(256, HEADER)), "method": one_of(&methods),
        }),
    )
}

pub(super) fn http_route() -> Value {
    let every = json!([{ "path": { "type": "PathPrefix", "value": "/" } }]);
    let mut matches = list(http_match(), 64);
    matches["default"] = every.clone();
    let timeout = json!({ "type": "string", "maxLength": 32, "pattern": DURATION });
    let timeouts = holding(
        object(&[], json!({ "request": timeout, "backendRequest": timeout })),
        &[(
            "!(has(self.request) && has(self.backendRequest) && duration(self.request) != duration('0s') && duration(self.backendRequest) > duration(self.request))",
            "backendRequest timeout cannot be longer than request timeout",
        )],
    );
    let rule = holding(
        object(
            &[],
            json!({
                "name": text(253), "matches": matches, "filters": http_filters(),
                "backendRefs": weighted(Some(http_filters())), "timeouts": timeouts,
            }),
        ),
        &[(
            "!has(self.backendRefs) || size(self.backendRefs) == 0 || !has(self.filters) || self.filters.all(f, !has(f.requestRedirect))",
            "RequestRedirect filter must not be used together with backendRefs",
        )],
    );
    let mut rules = list(rule, 16);
    rules["default"] = json!([{ "matches": every }]);
    rules["minItems"] = 1.into();
    route("HTTPRoute says where requests go.", rules, list(shaped(253, HOST), 16), &[])
}

pub(super) fn grpc_route() -> Value {
    let method = holding(
        object(
            &[],
            json!({
                "type": one_of_or(&["Exact", "RegularExpression"], "Exact"), "service": text(1024), "method": text(1024),
            }),
        ),
        &[("has(self.service) || has(self.method)", "One or both of 'service' or 'method' must be specified")],
    );
    let matched = object(&[], json!({ "method": method, "headers": value_match(shaped(256, HEADER)) }));
    let all = || {
        filters(&[
            ("RequestHeaderModifier", "requestHeaderModifier", header_filter()),
            ("ResponseHeaderModifier", "responseHeaderModifier", header_filter()),
            ("RequestMirror", "requestMirror", mirror()),
            ("ExtensionRef", "extensionRef", extension()),
        ])
    };
    let rule = object(
        &[],
        json!({
            "name": text(253), "matches": list(matched, 64), "filters": all(), "backendRefs": weighted(Some(all())),
        }),
    );
    route("GRPCRoute says where calls of gRPC go.", list(rule, 16), list(shaped(253, HOST), 16), &[])
}

pub(super) fn tls_route() -> Value {
    let mut backends = weighted(None);
    backends["minItems"] = 1.into();
    let mut rules = list(object(&["backendRefs"], json!({ "name": text(253), "backendRefs": backends })), 1);
    rules["minItems"] = 1.into();
    let mut hosts = list(shaped(253, HOST), 1024);
    hosts["minItems"] = 1.into();
    route(
        "TLSRoute says where connections of TLS go, by the host that a client names.",
        rules,
        hosts,
        &["hostnames", "rules"],
    )
}

pub(super) fn reference_grant() -> Value {
    let group = || json!({ "type": "string", "maxLength": 253 });
    let from = object(
        &["group", "kind", "namespace"],
        json!({ "group": group(), "kind": text(63), "namespace": shaped(63, NAMESPACE) }),
    );
    let to = object(&["group", "kind"], json!({ "group": group(), "kind": text(63), "name": text(253) }));
    let mut spec = object(&["from", "to"], json!({ "from": list(from, 16), "to": list(to, 16) }));
    for part in ["from", "to"] {
        spec["properties"][part]["minItems"] = 1.into();
    }
    kind("ReferenceGrant lets objects of other namespaces name objects of this one.", spec, None)
}
