//! What is said of Gateways and routes, as tables. What becomes of requests is in `conformance`.
//!
//! A cluster is written in lines, the oldest object first; what comes out is each listener and each route with the conditions
//! that are not as one hopes.

use podium_network::{Certificate, ListenError, OpenedPort, table::Name};
use serde_json::{Value, json};

use super::{
    compile::compile,
    seen::{Backend, CONTROLLER, Here, Seen},
    status::{self, Write},
};

pub(super) const HERE: Here = Here {
    listen: std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    shown: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
};

fn name(text: &str) -> Name {
    let (namespace, name) = text.split_once('/').unwrap_or(("", text));
    Name::new(namespace, name)
}

fn object<K: for<'de> serde::Deserialize<'de>>(line: usize, name: &Name, spec: Value) -> std::sync::Arc<K> {
    let time = format!("2026-01-01T00:00:{line:02}Z");
    let meta = json!({ "name": name.name, "namespace": name.namespace, "generation": 3, "creationTimestamp": time });
    std::sync::Arc::new(serde_json::from_value(json!({ "metadata": meta, "spec": spec })).unwrap())
}

/// `key=value` words of a line.
fn value<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// `NAME PROTOCOL:PORT [host=] [from=] [kinds=] [cert=] [passthrough]`
fn listener(text: &str) -> Value {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (protocol, port) = words[1].split_once(':').unwrap();
    let mut listener = json!({ "name": words[0], "protocol": protocol, "port": port.parse::<u16>().unwrap() });
    if let Some(host) = value(&words, "host") {
        listener["hostname"] = json!(host);
    }
    if let Some(from) = value(&words, "from") {
        listener["allowedRoutes"]["namespaces"] = match from.split_once(':') {
            None => json!({ "from": from }),
            Some((key, value)) => json!({ "from": "Selector", "selector": { "matchLabels": { key: value } } }),
        };
    }
    if let Some(kinds) = value(&words, "kinds") {
        let kinds = kinds.split(',').map(|kind| json!({ "kind": kind }));
        listener["allowedRoutes"]["kinds"] = kinds.collect();
    }
    if let Some(secrets) = value(&words, "cert") {
        let secrets = secrets.split(',').map(|text| match text.split_once(':') {
            Some((kind, name)) => json!({ "kind": kind, "name": name }),
            None => match text.split_once('/') {
                Some((namespace, name)) => json!({ "namespace": namespace, "name": name }),
                None => json!({ "name": text }),
            },
        });
        listener["tls"] = json!({ "certificateRefs": secrets.collect::<Vec<_>>() });
    }
    if words.contains(&"passthrough") {
        listener["tls"] = json!({ "mode": "Passthrough" });
    }
    listener
}

/// `parents=[NAMESPACE/]NAME[#SECTION][:PORT],.. [hosts=] [to=[NAMESPACE/]NAME:PORT,..] [rules=JSON]`
fn route(words: &[&str]) -> Value {
    let parent = |text: &str| {
        let (text, port) = text.split_once(':').map_or((text, None), |(t, port)| (t, port.parse::<u16>().ok()));
        let (text, section) = text.split_once('#').map_or((text, None), |(t, section)| (t, Some(section)));
        let mut parent = json!({ "name": name(text).name, "sectionName": section, "port": port });
        if text.contains('/') {
            parent["namespace"] = json!(name(text).namespace);
        }
        parent
    };
    let backend = |text: &str| {
        let (kind, text) = text.split_once('@').unwrap_or(("Service", text));
        let (text, port) = text.split_once(':').unwrap();
        let mut backend = json!({ "kind": kind, "name": name(text).name, "port": port.parse::<u16>().unwrap() });
        if text.contains('/') {
            backend["namespace"] = json!(name(text).namespace);
        }
        backend
    };
    let list = |key| value(words, key).into_iter().flat_map(|text| text.split(','));
    let backends: Vec<Value> = list("to").map(backend).collect();
    let rules = value(words, "rules").map(|text| serde_json::from_str(text).unwrap());
    json!({
        "parentRefs": list("parents").map(parent).collect::<Vec<_>>(),
        "hostnames": list("hosts").collect::<Vec<_>>(),
        "rules": rules.unwrap_or_else(|| json!([{ "backendRefs": backends }])),
    })
}

fn certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed(vec!["a.test".to_owned()]).unwrap();
    Certificate::from_pem(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap()
}

/// Reads a cluster: one object a line, the class `podium` is there.
pub(super) fn seen(text: &str) -> Seen {
    let mut seen = Seen::default();
    let class = Name::new("", "podium");
    seen.classes.insert(class.clone(), object(0, &class, json!({ "controllerName": CONTROLLER })));
    for (at, line) in text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (kind, of) = (words[0], name(words[1]));
        match kind {
            "class" => drop(seen.classes.insert(of.clone(), object(at, &of, serde_json::from_str(words[2]).unwrap()))),
            "namespace" => {
                let labels = words[2..].iter().filter_map(|w| w.split_once('='));
                seen.namespaces.insert(of.name, labels.map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
            }
            "service" => {
                let ports = || words[2..].iter().map(|port| port.parse().unwrap()).collect();
                let backend = if words[2] == "external" { Backend::External } else { Backend::Ports(ports()) };
                seen.services.insert(of, backend);
            }
            "secret" => {
                let read = if words.get(2) == Some(&"bad") { Err("it is bad".to_owned()) } else { Ok(certificate()) };
                seen.secrets.insert(of, read);
            }
            "grant" => {
                let group = |text: &'static str, text_of: &str| {
                    let (of, group) = text_of.split_once('%').unwrap_or((text_of, text));
                    (of.to_owned(), group.to_owned())
                };
                let ((from, from_group), (to, to_group)) = (group(super::kinds::GROUP, words[2]), group("", words[3]));
                let (from, namespace) = from.split_once('@').unwrap();
                let (to, named) = to.split_once('/').map_or((&*to, None), |(to, named)| (to, Some(named)));
                let from = json!([{ "group": from_group, "kind": from, "namespace": namespace }]);
                let spec = json!({ "from": from, "to": [{ "group": to_group, "kind": to, "name": named }] });
                seen.grants.insert(of.clone(), object(at, &of, spec));
            }
            "gateway" => {
                let (head, listeners) = line.split_once('|').unwrap();
                let head: Vec<&str> = head.split_whitespace().collect();
                let addresses = value(&head, "address").map(|text| match text.split_once(':') {
                    Some((of, value)) => json!([{ "type": of, "value": value }]),
                    None => json!([{ "value": text }]),
                });
                let spec = json!({
                    "gatewayClassName": value(&head, "class").unwrap_or("podium"),
                    "addresses": addresses.unwrap_or_else(|| json!([])),
                    "listeners": listeners.split('|').map(listener).collect::<Vec<_>>(),
                });
                seen.gateways.insert(of.clone(), object(at, &of, spec));
            }
            "HTTPRoute" => drop(seen.http.insert(of.clone(), object(at, &of, route(&words)))),
            "GRPCRoute" => drop(seen.grpc.insert(of.clone(), object(at, &of, route(&words)))),
            "TLSRoute" => drop(seen.tls.insert(of.clone(), object(at, &of, route(&words)))),
            other => unreachable!("{other}"),
        }
    }
    seen
}

/// Conditions that are not as one hopes.
fn worries(conditions: &Value) -> String {
    let mut all = String::new();
    for condition in conditions.as_array().unwrap() {
        assert_eq!(condition["observedGeneration"], 3);
        let text = |key: &str| condition[key].as_str().unwrap();
        let (kind, status, reason) = (text("type"), text("status"), text("reason"));
        let fine = match kind {
            "Conflicted" => (status, reason) == ("False", "NoConflicts"),
            kind => status == "True" && reason == kind,
        };
        if !fine {
            all += &format!(" {kind}={status}/{reason}");
        }
    }
    all
}

fn said(write: &Write) -> Vec<String> {
    let of = format!("{} {}/{}", write.kind, write.key.namespace, write.key.name);
    let list = |key: &str| write.status[key].as_array().cloned().unwrap_or_default();
    match write.kind {
        "GatewayClass" => vec![format!("{} {}{}", write.kind, write.key.name, worries(&write.status["conditions"]))],
        "Gateway" => {
            let addresses: String =
                list("addresses").iter().map(|a| format!(" {}", a["value"].as_str().unwrap())).collect();
            let listeners = list("listeners").into_iter().map(|listener| {
                let kinds: Vec<&str> = listener["supportedKinds"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|k| k["kind"].as_str().unwrap())
                    .collect();
                let (name, count) = (listener["name"].as_str().unwrap(), &listener["attachedRoutes"]);
                format!("  {name} {count} {}{}", kinds.join(","), worries(&listener["conditions"]))
            });
            [format!("{of}{addresses}{}", worries(&write.status["conditions"]))].into_iter().chain(listeners).collect()
        }
        _ => {
            let parents = list("parents").into_iter().map(|parent| {
                assert_eq!(parent["controllerName"], CONTROLLER);
                let section = parent["parentRef"]["sectionName"].as_str().map(|s| format!("#{s}")).unwrap_or_default();
                let name = parent["parentRef"]["name"].as_str().unwrap();
                format!("{of} < {name}{section}{}", worries(&parent["conditions"]))
            });
            parents.collect()
        }
    }
}

fn now() -> jiff::Timestamp {
    "2026-02-01T00:00:00Z".parse().unwrap()
}

/// What is written of a cluster whose ports all listen, but for those named.
fn check_with(cluster: &str, failing: &[u16], expected: &str) {
    let seen = seen(cluster);
    let plan = compile(&seen, HERE);
    let opened: Vec<OpenedPort> = plan
        .ports
        .iter()
        .map(|port| {
            let address = port.address;
            let error = ListenError { address, reason: "it may not".to_owned() };
            OpenedPort { address, bound: if failing.contains(&address.port()) { Err(error) } else { Ok(address) } }
        })
        .collect();
    let writes = status::writes(&seen, &plan, &opened, HERE, now());
    let lines = writes.iter().flat_map(said).filter(|line| line != "GatewayClass podium");
    let found: Vec<String> = lines.collect();
    let expected: Vec<&str> =
        expected.lines().map(|l| l.strip_prefix("        ").unwrap_or(l)).filter(|l| !l.is_empty()).collect();
    assert_eq!(found, expected, "{cluster}");
}

pub(super) fn check(cluster: &str, expected: &str) {
    check_with(cluster, &[], expected);
}

#[test]
fn a_route_of_the_same_namespace() {
    check(
        "service a/web 80
        gateway a/gw | http HTTP:8080
        HTTPRoute a/r parents=gw to=web:80",
        "
        Gateway a/gw 127.0.0.1
          http 1 HTTPRoute,GRPCRoute
        HTTPRoute a/r < gw
        ",
    );
}

#[test]
fn classes_of_others_are_left_alone() {
    check(
        r#"class other {"controllerName":"example.com/else"}
        class bad {"controllerName":"podium.dev/gateway","parametersRef":{"group":"","kind":"ConfigMap","name":"x"}}
        gateway a/gw class=other | http HTTP:8080
        gateway a/of-bad class=bad | http HTTP:8080
        HTTPRoute a/r parents=gw,of-bad,missing"#,
        "
        GatewayClass bad Accepted=False/InvalidParameters
        ",
    );
}

#[test]
fn parents_that_do_not_take_a_route() {
    check(
        "namespace a
        namespace b team=web
        gateway a/gw | same HTTP:80 host=same.test | all HTTP:80 host=all.test from=All | team HTTP:80 host=team.test from=team:web | tls TLS:443 passthrough
        HTTPRoute b/cross parents=a/gw#same
        HTTPRoute b/all parents=a/gw#all
        HTTPRoute b/team parents=a/gw#team
        HTTPRoute a/team parents=gw#team
        HTTPRoute a/section parents=gw#none
        HTTPRoute a/port parents=gw:81
        HTTPRoute a/kind parents=gw#tls
        HTTPRoute a/host parents=gw hosts=other.test
        HTTPRoute a/every parents=gw#same,gw#all",
        "
        Gateway a/gw 127.0.0.1
          same 1 HTTPRoute,GRPCRoute
          all 2 HTTPRoute,GRPCRoute
          team 1 HTTPRoute,GRPCRoute
          tls 0 TLSRoute
        HTTPRoute b/cross < gw#same Accepted=False/NotAllowedByListeners
        HTTPRoute b/all < gw#all
        HTTPRoute b/team < gw#team
        HTTPRoute a/team < gw#team Accepted=False/NotAllowedByListeners
        HTTPRoute a/section < gw#none Accepted=False/NoMatchingParent
        HTTPRoute a/port < gw Accepted=False/NoMatchingParent
        HTTPRoute a/kind < gw#tls Accepted=False/NotAllowedByListeners
        HTTPRoute a/host < gw Accepted=False/NoMatchingListenerHostname
        HTTPRoute a/every < gw#same
        HTTPRoute a/every < gw#all
        ",
    );
}

#[test]
fn host_names_have_to_intersect() {
    let cluster = |listener: &str, route: &str| {
        format!("gateway a/gw | http HTTP:80 host={listener}\nHTTPRoute a/r parents=gw hosts={route}")
    };
    for (listener, route, attached) in [
        ("very.specific.com", "very.specific.com,non.matching.com", true),
        ("*.wildcard.io", "foo.wildcard.io,non.matching.com", true),
        ("*.wildcard.io", "foo.bar.wildcard.io", true),
        ("very.specific.com", "*.specific.com", true),
        ("*.anotherwildcard.io", "*.anotherwildcard.io", true),
        ("*.specific.com", "*.very.specific.com", true),
        ("very.specific.com", "specific.com", false),
        ("*.wildcard.io", "wildcard.io", false),
        ("*.wildcard.io", "*.nonmatchingwildcard.io", false),
    ] {
        let expected = match attached {
            true => "Gateway a/gw 127.0.0.1\n  http 1 HTTPRoute,GRPCRoute\nHTTPRoute a/r < gw",
            false => {
                "Gateway a/gw 127.0.0.1\n  http 0 HTTPRoute,GRPCRoute\nHTTPRoute a/r < gw Accepted=False/NoMatchingListenerHostname"
            }
        };
        check(&cluster(listener, route), expected);
    }
}

#[test]
fn references_to_backends() {
    check(
        "service a/web 80
        service b/web 80
        service b/other 80
        service a/named external
        grant b/g HTTPRoute@a Service/web
        gateway a/gw | http HTTP:80
        HTTPRoute a/granted parents=gw to=b/web:80
        HTTPRoute a/not-granted parents=gw to=b/other:80
        HTTPRoute a/missing parents=gw to=none:80
        HTTPRoute a/port parents=gw to=web:81
        HTTPRoute a/kind parents=gw to=Thing@web:80
        HTTPRoute a/partly parents=gw to=web:80,b/other:80
        GRPCRoute a/other-kind parents=gw to=b/web:80
        HTTPRoute a/nothing parents=gw
        HTTPRoute a/external parents=gw to=named:80",
        "
        Gateway a/gw 127.0.0.1
          http 9 HTTPRoute,GRPCRoute
        HTTPRoute a/granted < gw
        HTTPRoute a/not-granted < gw ResolvedRefs=False/RefNotPermitted
        HTTPRoute a/missing < gw ResolvedRefs=False/BackendNotFound
        HTTPRoute a/port < gw ResolvedRefs=False/BackendNotFound
        HTTPRoute a/kind < gw ResolvedRefs=False/InvalidKind
        HTTPRoute a/partly < gw ResolvedRefs=False/RefNotPermitted
        GRPCRoute a/other-kind < gw ResolvedRefs=False/RefNotPermitted
        HTTPRoute a/nothing < gw
        HTTPRoute a/external < gw ResolvedRefs=False/UnsupportedValue
        ",
    );
}

#[test]
fn certificates() {
    check(
        "secret a/good
        secret a/bad bad
        secret b/granted
        secret b/other
        grant b/g Gateway@a Secret/granted
        gateway a/good | https HTTPS:443 cert=good
        gateway a/granted | https HTTPS:444 cert=b/granted
        gateway a/not-granted | https HTTPS:445 cert=b/other
        gateway a/missing | https HTTPS:446 cert=none
        gateway a/malformed | https HTTPS:447 cert=bad
        gateway a/kind | https HTTPS:448 cert=ConfigMap:good
        gateway a/none | https HTTPS:449
        gateway a/partly | https HTTPS:450 cert=good,none
        HTTPRoute a/r parents=missing",
        "
        Gateway a/good 127.0.0.1
          https 0 HTTPRoute,GRPCRoute
        Gateway a/granted 127.0.0.1
          https 0 HTTPRoute,GRPCRoute
        Gateway a/not-granted Programmed=False/Invalid
          https 0 HTTPRoute,GRPCRoute ResolvedRefs=False/RefNotPermitted Programmed=False/Invalid
        Gateway a/missing Programmed=False/Invalid
          https 1 HTTPRoute,GRPCRoute ResolvedRefs=False/InvalidCertificateRef Programmed=False/Invalid
        Gateway a/malformed Programmed=False/Invalid
          https 0 HTTPRoute,GRPCRoute ResolvedRefs=False/InvalidCertificateRef Programmed=False/Invalid
        Gateway a/kind Programmed=False/Invalid
          https 0 HTTPRoute,GRPCRoute ResolvedRefs=False/InvalidCertificateRef Programmed=False/Invalid
        Gateway a/none Programmed=False/Invalid
          https 0 HTTPRoute,GRPCRoute ResolvedRefs=False/InvalidCertificateRef Programmed=False/Invalid
        Gateway a/partly 127.0.0.1
          https 0 HTTPRoute,GRPCRoute ResolvedRefs=False/InvalidCertificateRef
        HTTPRoute a/r < missing
        ",
    );
}

#[test]
fn kinds_and_protocols() {
    check(
        "gateway a/kinds | only HTTP:80 kinds=Thing | some HTTP:81 kinds=HTTPRoute,Thing | tls TLS:82 kinds=TLSRoute passthrough
        gateway a/protocols | http HTTP:90 | other example.com/x:91
        gateway a/only-other | other UDP:92
        HTTPRoute a/r parents=only-other,kinds#only",
        "
        Gateway a/kinds 127.0.0.1
          only 0  ResolvedRefs=False/InvalidRouteKinds
          some 0 HTTPRoute ResolvedRefs=False/InvalidRouteKinds
          tls 0 TLSRoute
        Gateway a/protocols 127.0.0.1 Accepted=True/ListenersNotValid
          http 0 HTTPRoute,GRPCRoute
          other 0  Accepted=False/UnsupportedProtocol Programmed=False/Invalid
        Gateway a/only-other Accepted=False/ListenersNotValid Programmed=False/Invalid
          other 0  Accepted=False/UnsupportedProtocol Programmed=False/Invalid
        HTTPRoute a/r < only-other Accepted=False/NotAllowedByListeners
        HTTPRoute a/r < kinds#only Accepted=False/NotAllowedByListeners
        ",
    );
}

#[test]
fn older_listeners_keep_their_ports() {
    check(
        "secret a/c
        gateway a/old | http HTTP:80 | one HTTPS:443 host=one.test cert=c | tls TLS:443 host=tls.test passthrough
        gateway b/new | same HTTP:80 | other HTTP:80 host=x.test | https HTTPS:80 cert=c | plain HTTP:443 host=y.test
        gateway c/elsewhere address=127.0.0.2 | http HTTP:80
        gateway d/named address=Hostname:x | http HTTP:81
        HTTPRoute b/r parents=new#same",
        "
        Gateway a/old 127.0.0.1
          http 0 HTTPRoute,GRPCRoute
          one 0 HTTPRoute,GRPCRoute
          tls 0 TLSRoute
        Gateway b/new 127.0.0.1 Accepted=True/ListenersNotValid
          same 0 HTTPRoute,GRPCRoute Accepted=False/HostnameConflict Conflicted=True/HostnameConflict Programmed=False/Invalid
          other 0 HTTPRoute,GRPCRoute
          https 0 HTTPRoute,GRPCRoute Accepted=False/ProtocolConflict Conflicted=True/ProtocolConflict ResolvedRefs=False/InvalidCertificateRef Programmed=False/Invalid
          plain 0 HTTPRoute,GRPCRoute Accepted=False/ProtocolConflict Conflicted=True/ProtocolConflict Programmed=False/Invalid
        Gateway c/elsewhere 127.0.0.2
          http 0 HTTPRoute,GRPCRoute
        Gateway d/named Accepted=False/UnsupportedAddress Programmed=False/Invalid
          http 0 HTTPRoute,GRPCRoute Accepted=False/PortUnavailable Programmed=False/Invalid
        HTTPRoute b/r < new#same Accepted=False/NotAllowedByListeners
        ",
    );
}

#[test]
fn who_names_no_address_gets_one_where_there_is_room() {
    let ip = |last| std::net::IpAddr::from([127, 0, 1, last]);
    let here = Here { listen: ip(0), shown: ip(0) };
    let found = |seen: &Seen, here: Here| -> Vec<String> {
        let of = |site: &super::listeners::Site<'_>| {
            let conflict = site.points[0].conflict.as_ref().map(|(reason, _)| format!(" {reason}")).unwrap_or_default();
            format!("{} {}{conflict}", site.name.name, site.addresses[0])
        };
        compile(seen, here).sites.iter().map(of).collect()
    };
    let mut seen = seen(
        "gateway a/one | http HTTP:80
        gateway a/two | http HTTP:80
        gateway a/three | http HTTP:80
        gateway a/four | http HTTP:80
        gateway a/port | http HTTP:81
        gateway a/host | http HTTP:80 host=x.test",
    );
    seen.pool = vec![ip(0), ip(1), ip(2)];
    let expected = ["one 127.0.1.0", "two 127.0.1.1", "three 127.0.1.2", "four 127.0.1.0 HostnameConflict"];
    assert_eq!(found(&seen, here)[..4], expected);
    assert_eq!(found(&seen, here)[4..], ["port 127.0.1.0", "host 127.0.1.0"]);
    // Who has one keeps it, whoever goes.
    let two = std::sync::Arc::make_mut(seen.gateways.get_mut(&name("a/two")).unwrap());
    two.status = json!({ "addresses": [{ "type": "IPAddress", "value": "127.0.1.1" }] });
    seen.gateways.remove(&name("a/one"));
    assert_eq!(found(&seen, here)[..2], ["two 127.0.1.1", "three 127.0.1.0"]);
    // Every address is one.
    assert_eq!(found(&seen, HERE)[1], "three 0.0.0.0 HostnameConflict");
}

#[test]
fn ports_that_do_not_listen() {
    check_with(
        "gateway a/gw | low HTTP:80 | high HTTP:8080
        gateway a/low | low HTTP:80 host=x.test
        HTTPRoute a/r parents=gw",
        &[80],
        "
        Gateway a/gw 127.0.0.1 Accepted=True/ListenersNotValid
          low 1 HTTPRoute,GRPCRoute Accepted=False/PortUnavailable Programmed=False/Invalid
          high 1 HTTPRoute,GRPCRoute
        Gateway a/low Accepted=False/ListenersNotValid Programmed=False/Invalid
          low 0 HTTPRoute,GRPCRoute Accepted=False/PortUnavailable Programmed=False/Invalid
        HTTPRoute a/r < gw
        ",
    );
}

#[test]
fn rules_that_cannot_be_done() {
    let bad = r#"{"matches":[{"path":{"type":"RegularExpression","value":"("}}]}"#;
    let unsupported = r#"{"filters":[{"type":"ExtensionRef"}]}"#;
    let good = r#"{"matches":[{"path":{"type":"Exact","value":"/x"}}]}"#;
    let cluster = |rules: &str| format!("gateway a/gw | http HTTP:80\nHTTPRoute a/r parents=gw rules=[{rules}]");
    let attached = "Gateway a/gw 127.0.0.1\n  http 1 HTTPRoute,GRPCRoute\nHTTPRoute a/r < gw";
    let partly = format!("{attached} PartiallyInvalid=True/UnsupportedValue");
    let refused =
        "Gateway a/gw 127.0.0.1\n  http 0 HTTPRoute,GRPCRoute\nHTTPRoute a/r < gw Accepted=False/UnsupportedValue";
    for (rules, expected) in [
        (good.to_owned(), attached),
        (format!("{good},{bad}"), &partly),
        (format!("{unsupported},{good}"), &partly),
        (bad.to_owned(), refused),
        (unsupported.to_owned(), refused),
    ] {
        check(&cluster(&rules), expected);
    }
}

#[test]
fn what_is_said_already_is_not_written_again() {
    let mut seen = seen("gateway a/gw | http HTTP:80\nHTTPRoute a/r parents=gw");
    let writes = |seen: &Seen, time: &str| {
        let plan = compile(seen, HERE);
        let opened: Vec<_> =
            plan.ports.iter().map(|p| OpenedPort { address: p.address, bound: Ok(p.address) }).collect();
        status::writes(seen, &plan, &opened, HERE, time.parse().unwrap())
    };
    let first = writes(&seen, "2026-02-01T00:00:00Z");
    assert_eq!(first.iter().map(|w| w.kind).collect::<Vec<_>>(), ["GatewayClass", "Gateway", "HTTPRoute"]);
    let status = |kind: &str| first.iter().find(|w| w.kind == kind).unwrap().status.clone();
    seen.gateways.values_mut().for_each(|gateway| std::sync::Arc::make_mut(gateway).status = status("Gateway"));
    seen.classes.values_mut().for_each(|class| std::sync::Arc::make_mut(class).status = status("GatewayClass"));
    let mut of_route = status("HTTPRoute");
    let others = json!({ "parentRef": { "name": "x" }, "controllerName": "example.com/else", "conditions": [] });
    of_route["parents"].as_array_mut().unwrap().insert(0, others.clone());
    let http = std::sync::Arc::make_mut(seen.http.values_mut().next().unwrap());
    http.status = of_route;
    assert_eq!(writes(&seen, "2026-03-01T00:00:00Z"), []);
    // A parent that is named no more: what others say stays.
    std::sync::Arc::make_mut(seen.http.values_mut().next().unwrap()).spec.parent_refs.clear();
    let after = writes(&seen, "2026-03-01T00:00:00Z");
    assert_eq!(after.iter().map(|w| w.kind).collect::<Vec<_>>(), ["Gateway", "HTTPRoute"]);
    assert_eq!(after[1].status, json!({ "parents": [others] }));
}
