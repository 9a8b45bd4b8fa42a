//! Gateway API's conformance tests, shape by shape: objects (written as in `tests`), what their statuses say, and what becomes
//! of requests, which go over sockets through what the compiler makes of the objects. Each table names the tests it is of.
//!
//! Ports are chosen by the system, so that tests need none; the suite's Gateways have an address each, as here.
//!
//! # Source
//! <https://github.com/kubernetes-sigs/gateway-api>, `conformance/tests`.

mod serving;
mod statuses;

use serde_json::{Value, json};

use self::serving::{Serving, requests};
use super::tests::check;

/// Rules of a route from words: `/prefix =/exact METHOD h:x=1 q:a=b or ... > BACKEND[*WEIGHT] ... > FILTERS | ...`, each
/// backend `[NAMESPACE/]NAME`, filters as JSON.
fn rules(text: &str) -> String {
    let rules: Vec<Value> = text.split(" | ").map(rule).collect();
    serde_json::to_string(&rules).unwrap()
}

fn rule(text: &str) -> Value {
    let mut parts = text.splitn(3, '>').map(str::trim);
    let matches: Vec<Value> = parts.next().unwrap().split(" or ").map(matched).collect();
    let backends = parts.next().unwrap_or_default().split_whitespace().map(|text| {
        let (name, weight) = text.split_once('*').map_or((text, 1), |(name, weight)| (name, weight.parse().unwrap()));
        let (namespace, name) = name.split_once('/').map_or((None, name), |(namespace, name)| (Some(namespace), name));
        json!({ "namespace": namespace, "name": name, "port": 8080, "weight": weight })
    });
    let backends: Vec<Value> = backends.collect();
    let filters: Value = parts.next().map_or_else(|| json!([]), |text| serde_json::from_str(text).unwrap());
    json!({ "matches": matches, "backendRefs": backends, "filters": filters })
}

fn matched(text: &str) -> Value {
    let mut found = json!({ "headers": [], "queryParams": [] });
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap();
        json!({ "name": name, "value": value })
    };
    for word in text.split_whitespace() {
        match word {
            word if word.starts_with("h:") => found["headers"].as_array_mut().unwrap().push(pair(&word[2..])),
            word if word.starts_with("q:") => found["queryParams"].as_array_mut().unwrap().push(pair(&word[2..])),
            word if word.starts_with('=') => found["path"] = json!({ "type": "Exact", "value": &word[1..] }),
            word if word.starts_with('/') => found["path"] = json!({ "type": "PathPrefix", "value": word }),
            word if word.starts_with("::") => {
                let (service, method) = word[2..].split_once('/').unwrap();
                found["method"] = json!({ "service": service, "method": method });
            }
            word => found["method"] = json!(word),
        }
    }
    found
}

/// Services `v1`, `v2` and `v3` of the namespace `a`, and a Gateway there.
fn within(routes: &str) -> String {
    format!("service a/v1 8080\nservice a/v2 8080\nservice a/v3 8080\ngateway a/gw | http HTTP:80\n{routes}")
}

/// A route `r` of the Gateway of [`within`], with these rules.
fn with_rules(text: &str) -> String {
    within(&format!("HTTPRoute a/r parents=gw rules={}", rules(text)))
}

#[tokio::test]
async fn routes_of_the_same_and_of_other_namespaces() {
    // HTTPRouteSimpleSameNamespace, HTTPRouteCrossNamespace, HTTPRouteInvalidCrossNamespaceParentRef.
    let cluster = "
        namespace a team=infra
        namespace b team=backend
        service a/v1 8080
        service b/web 8080
        gateway a/same address=127.0.0.1 | http HTTP:80
        gateway a/backend address=127.0.0.2 | http HTTP:80 from=team:backend
        HTTPRoute a/simple parents=same to=v1:8080
        HTTPRoute b/cross parents=a/backend to=web:8080
        HTTPRoute b/not parents=a/same hosts=b.test to=web:8080";
    check(
        cluster,
        "
        Gateway a/same 127.0.0.1
          http 1 HTTPRoute,GRPCRoute
        Gateway a/backend 127.0.0.2
          http 1 HTTPRoute,GRPCRoute
        HTTPRoute a/simple < same
        HTTPRoute b/cross < backend
        HTTPRoute b/not < same Accepted=False/NotAllowedByListeners
        ",
    );
    requests(
        cluster,
        "
        @same:80 GET x.test/ -> v1
        @same:80 GET b.test/ -> v1
        @backend:80 GET x.test/ -> web",
    )
    .await;
}

#[tokio::test]
async fn references_that_lead_nowhere_are_errors_of_their_rules_alone() {
    // HTTPRouteInvalidCrossNamespaceBackendRef, HTTPRouteInvalidNonExistentBackendRef, HTTPRouteInvalidBackendRefUnknownKind,
    // HTTPRouteReferenceGrant, HTTPRoutePartiallyInvalidViaInvalidReferenceGrant.
    let partly = rules("/v2 > b/v2 | / > b/v1");
    let cluster = format!(
        "
        service a/v1 8080
        service b/v1 8080
        service b/v2 8080
        service b/web 8080
        grant b/one HTTPRoute@a Service/v1
        grant b/two HTTPRoute@c Service/web
        gateway a/gw | http HTTP:80
        HTTPRoute a/cross parents=gw hosts=cross.test to=b/web:8080
        HTTPRoute a/missing parents=gw hosts=missing.test to=nonexistent:8080
        HTTPRoute a/kind parents=gw hosts=kind.test to=NonExistent@v1:8080
        HTTPRoute a/partly parents=gw hosts=partly.test rules={partly}
        HTTPRoute c/granted parents=a/gw to=b/web:8080"
    );
    check(
        &cluster,
        "
        Gateway a/gw 127.0.0.1
          http 4 HTTPRoute,GRPCRoute
        HTTPRoute a/cross < gw ResolvedRefs=False/RefNotPermitted
        HTTPRoute a/missing < gw ResolvedRefs=False/BackendNotFound
        HTTPRoute a/kind < gw ResolvedRefs=False/InvalidKind
        HTTPRoute a/partly < gw ResolvedRefs=False/RefNotPermitted
        HTTPRoute c/granted < gw Accepted=False/NotAllowedByListeners
        ",
    );
    requests(
        &cluster,
        "
        GET cross.test/ -> 500
        GET missing.test/ -> 500
        GET kind.test/v2 -> 500
        GET partly.test/v2 -> 500
        GET partly.test/ -> v1",
    )
    .await;
}

#[tokio::test]
async fn grants_have_to_be_for_this() {
    // HTTPRouteInvalidReferenceGrant, TLSRouteInvalidReferenceGrant, GatewaySecretInvalidReferenceGrant and those that grant:
    // HTTPRouteReferenceGrant, GatewaySecretReferenceGrantSpecific, GatewaySecretReferenceGrantAllInNamespace.
    for (grant, secret_grant, granted) in [
        ("grant a/g ROUTE@a Service/web", "grant a/s Gateway@a Secret/cert", false),
        ("grant b/g ROUTE@a%other.example Service/web", "grant b/s Gateway@a%other.example Secret/cert", false),
        ("grant b/g Gateway@a Service/web", "grant b/s HTTPRoute@a Secret/cert", false),
        ("grant b/g ROUTE@c Service/web", "grant b/s Gateway@c Secret/cert", false),
        ("grant b/g ROUTE@a Service/web%other.example", "grant b/s Gateway@a Secret/cert%other.example", false),
        ("grant b/g ROUTE@a Secret/web", "grant b/s Gateway@a Service/cert", false),
        ("grant b/g ROUTE@a Service/other", "grant b/s Gateway@a Secret/other", false),
        ("grant b/g ROUTE@a Service/web", "grant b/s Gateway@a Secret/cert", true),
        ("grant b/g ROUTE@a Service", "grant b/s Gateway@a Secret", true),
    ] {
        let (http, tls) =
            (grant.replace("ROUTE", "HTTPRoute"), grant.replace("ROUTE", "TLSRoute").replace("b/g", "b/t"));
        let cluster = format!(
            "
            service b/web 8080
            secret b/cert
            {http}
            {tls}
            {secret_grant}
            gateway a/gw | http HTTP:80 | tls TLS:8443 passthrough | https HTTPS:443 cert=b/cert
            HTTPRoute a/h parents=gw#http to=b/web:8080
            TLSRoute a/t parents=gw#tls hosts=x.test to=b/web:8080"
        );
        let (refs, https) = match granted {
            true => ("", ""),
            false => {
                (" ResolvedRefs=False/RefNotPermitted", " ResolvedRefs=False/RefNotPermitted Programmed=False/Invalid")
            }
        };
        check(
            &cluster,
            &format!(
                "
        Gateway a/gw 127.0.0.1
          http 1 HTTPRoute,GRPCRoute
          tls 1 TLSRoute
          https 0 HTTPRoute,GRPCRoute{https}
        HTTPRoute a/h < gw#http{refs}
        TLSRoute a/t < gw#tls{refs}
        "
            ),
        );
        let answer = if granted { "web" } else { "500" };
        requests(&cluster, &format!("@gw:80 GET x.test/ -> {answer}")).await;
    }
}

#[tokio::test]
async fn parents_by_section_and_port() {
    // HTTPRouteInvalidParentRefNotMatchingListenerPort, HTTPRouteInvalidParentRefNotMatchingSectionName,
    // HTTPRouteInvalidParentRefSectionNameNotMatchingPort, HTTPRouteListenerPortMatching, HTTPRouteDisallowedKind,
    // GatewayWithAttachedRoutesWithPort8080.
    let cluster = "
        service a/v1 8080
        service a/v2 8080
        service a/v3 8080
        gateway a/gw | one HTTP:80 host=foo.com | two HTTP:8080 host=foo.com | three HTTP:8080 host=bar.com | four HTTP:8090 host=foo.com | five HTTP:8090 host=bar.com
        gateway a/tls address=127.0.0.2 | tls TLS:443 kinds=TLSRoute passthrough
        HTTPRoute a/v1 parents=gw:80 to=v1:8080
        HTTPRoute a/v2 parents=gw:8080 to=v2:8080
        HTTPRoute a/v3 parents=gw#four:8090 to=v3:8080
        HTTPRoute a/port parents=gw:81 to=v1:8080
        HTTPRoute a/section parents=gw#none to=v1:8080
        HTTPRoute a/both parents=gw#one:8080 to=v1:8080
        HTTPRoute a/kind parents=tls to=v1:8080";
    check(
        cluster,
        "
        Gateway a/gw 127.0.0.1
          one 1 HTTPRoute,GRPCRoute
          two 1 HTTPRoute,GRPCRoute
          three 1 HTTPRoute,GRPCRoute
          four 1 HTTPRoute,GRPCRoute
          five 0 HTTPRoute,GRPCRoute
        Gateway a/tls 127.0.0.2
          tls 0 TLSRoute
        HTTPRoute a/v1 < gw
        HTTPRoute a/v2 < gw
        HTTPRoute a/v3 < gw#four
        HTTPRoute a/port < gw Accepted=False/NoMatchingParent
        HTTPRoute a/section < gw#none Accepted=False/NoMatchingParent
        HTTPRoute a/both < gw#one Accepted=False/NoMatchingParent
        HTTPRoute a/kind < tls Accepted=False/NotAllowedByListeners
        ",
    );
    requests(
        cluster,
        "
        @gw:80 GET foo.com/ -> v1
        @gw:8080 GET foo.com/ -> v2
        @gw:8080 GET bar.com/ -> v2
        @gw:8090 GET foo.com/ -> v3
        @gw:8090 GET bar.com/ -> 404",
    )
    .await;
}

#[tokio::test]
async fn one_route_of_several_gateways() {
    // HTTPRouteMultipleGateways.
    let (shared, own) = (rules("/shared > v1"), |name: &str| rules(&format!("/ > {name}")));
    let (two, three) = (own("v2"), own("v3"));
    let cluster = format!(
        "
        service a/v1 8080
        service a/v2 8080
        service a/v3 8080
        gateway a/same address=127.0.0.1 | http HTTP:80
        gateway a/all address=127.0.0.2 | http HTTP:80 from=All
        HTTPRoute a/shared parents=same,all rules={shared}
        HTTPRoute a/two parents=same rules={two}
        HTTPRoute a/three parents=all rules={three}"
    );
    requests(
        &cluster,
        "
        @same:80 GET x/shared -> v1
        @same:80 GET x/ -> v2
        @all:80 GET x/shared -> v1
        @all:80 GET x/ -> v3",
    )
    .await;
}

#[tokio::test]
async fn hosts_of_listeners() {
    // HTTPRouteListenerHostnameMatching, and GRPCRouteListenerHostnameMatching, whose objects are the same.
    for (kind, request) in [("HTTPRoute", "GET HOST/"), ("GRPCRoute", "POST HOST/pkg.Echo/Echo")] {
        let cluster = format!(
            "
            service a/v1 8080
            service a/v2 8080
            service a/v3 8080
            gateway a/gw | one HTTP:80 host=bar.com | two HTTP:80 host=foo.bar.com | three HTTP:80 host=*.bar.com | four HTTP:80 host=*.foo.com
            {kind} a/v1 parents=gw#one to=v1:8080
            {kind} a/v2 parents=gw#two to=v2:8080
            {kind} a/v3 parents=gw#three,gw#four to=v3:8080"
        );
        let serving = Serving::start(&cluster).await;
        for (host, answer) in [
            ("bar.com", "v1"),
            ("foo.bar.com", "v2"),
            ("baz.bar.com", "v3"),
            ("boo.bar.com", "v3"),
            ("multiple.prefixes.bar.com", "v3"),
            ("multiple.prefixes.foo.com", "v3"),
            ("foo.com", "404"),
            ("no.matching.host", "404"),
        ] {
            serving.ask(&format!("{} -> {answer}", request.replace("HOST", host))).await;
        }
    }
}

#[tokio::test]
async fn hosts_of_listeners_and_routes() {
    // HTTPRouteHostnameIntersection.
    let rule = |path: &str, name: &str| rules(&format!("{path} > {name}"));
    let (one, two, three, four, five) =
        (rule("/s1", "v1"), rule("/s2", "v2"), rule("/s3", "v3"), rule("/s4", "v1"), rule("/s5", "v2"));
    let cluster = format!(
        "
        service a/v1 8080
        service a/v2 8080
        service a/v3 8080
        gateway a/gw | one HTTP:80 host=very.specific.com | two HTTP:80 host=*.wildcard.io | three HTTP:80 host=*.anotherwildcard.io
        HTTPRoute a/one parents=gw hosts=non.matching.com,*.nonmatchingwildcard.io,very.specific.com rules={one}
        HTTPRoute a/two parents=gw hosts=non.matching.com,wildcard.io,foo.wildcard.io,bar.wildcard.io,foo.bar.wildcard.io rules={two}
        HTTPRoute a/three parents=gw hosts=non.matching.com,*.specific.com rules={three}
        HTTPRoute a/four parents=gw hosts=*.anotherwildcard.io rules={four}
        HTTPRoute a/five parents=gw hosts=specific.but.wrong.com,wildcard.io rules={five}"
    );
    check(
        &cluster,
        "
        Gateway a/gw 127.0.0.1
          one 2 HTTPRoute,GRPCRoute
          two 1 HTTPRoute,GRPCRoute
          three 1 HTTPRoute,GRPCRoute
        HTTPRoute a/one < gw
        HTTPRoute a/two < gw
        HTTPRoute a/three < gw
        HTTPRoute a/four < gw
        HTTPRoute a/five < gw Accepted=False/NoMatchingListenerHostname
        ",
    );
    requests(
        &cluster,
        "
        @gw:80 GET very.specific.com/s1 -> v1
        @gw:80 GET very.specific.com:1234/s1 -> v1
        @gw:80 GET non.matching.com/s1 -> 404
        @gw:80 GET foo.nonmatchingwildcard.io/s1 -> 404
        @gw:80 GET foo.wildcard.io/s1 -> 404
        @gw:80 GET very.specific.com/non-matching-prefix -> 404
        @gw:80 GET foo.wildcard.io/s2 -> v2
        @gw:80 GET bar.wildcard.io/s2 -> v2
        @gw:80 GET foo.bar.wildcard.io/s2 -> v2
        @gw:80 GET non.matching.com/s2 -> 404
        @gw:80 GET wildcard.io/s2 -> 404
        @gw:80 GET very.specific.com/s2 -> 404
        @gw:80 GET foo.wildcard.io/non-matching-prefix -> 404
        @gw:80 GET very.specific.com/s3 -> v3
        @gw:80 GET non.matching.com/s3 -> 404
        @gw:80 GET foo.specific.com/s3 -> 404
        @gw:80 GET foo.wildcard.io/s3 -> 404
        @gw:80 GET foo.anotherwildcard.io/s4 -> v1
        @gw:80 GET bar.anotherwildcard.io/s4 -> v1
        @gw:80 GET foo.bar.anotherwildcard.io/s4 -> v1
        @gw:80 GET anotherwildcard.io/s4 -> 404
        @gw:80 GET foo.wildcard.io/s4 -> 404
        @gw:80 GET very.specific.com/s4 -> 404
        @gw:80 GET foo.anotherwildcard.io/non-matching-prefix -> 404
        @gw:80 GET specific.but.wrong.com/s5 -> 404
        @gw:80 GET wildcard.io/s5 -> 404",
    )
    .await;
}

#[tokio::test]
async fn hosts_of_routes() {
    // HTTPRouteHostnameIntersection, where the listener has no host.
    requests(
        &within("HTTPRoute a/all parents=gw hosts=first.com,sub.first.com,second.com,sub.second.com to=v2:8080"),
        "
        GET first.com/ -> v2
        GET sub.first.com/ -> v2
        GET second.com/ -> v2
        GET sub.second.com/ -> v2
        GET third.com/ -> 404
        GET sub.third.com/ -> 404",
    )
    .await;
}

#[tokio::test]
async fn listeners_keep_to_their_hosts() {
    // GatewayHTTPListenerIsolation.
    let listeners =
        [("any", ""), ("wide", "*.example.com"), ("narrow", "*.foo.example.com"), ("exact", "abc.foo.example.com")];
    let mut cluster = "service a/v1 8080\ngateway a/gw ".to_owned();
    for (name, host) in listeners {
        let host = if host.is_empty() { String::new() } else { format!("host={host}") };
        cluster += &format!("| {name} HTTP:80 {host} ");
    }
    for (name, _) in listeners {
        cluster += &format!("\nHTTPRoute a/{name} parents=gw#{name} rules={}", rules(&format!("/{name} > v1")));
    }
    let serving = Serving::start(&cluster).await;
    for (host, own) in [
        ("bar.com", "any"),
        ("bar.example.com", "wide"),
        ("bar.foo.example.com", "narrow"),
        ("abc.foo.example.com", "exact"),
    ] {
        for (name, _) in listeners {
            let answer = if name == own { "v1" } else { "404" };
            serving.ask(&format!("GET {host}/{name} -> {answer}")).await;
        }
    }
}

#[tokio::test]
async fn listeners_of_tls() {
    // HTTPRouteHTTPSListener, HTTPRouteHTTPSListenerDetectMisdirectedRequests.
    let cluster = "
        service a/v1 8080
        service a/v2 8080
        service a/v3 8080
        secret a/cert
        gateway a/gw | any HTTPS:443 cert=cert | named HTTPS:443 host=second-example.org cert=cert | wild HTTPS:443 host=*.wildcard.org cert=cert | within HTTPS:443 host=fourth-example.wildcard.org cert=cert
        HTTPRoute a/one parents=gw#any hosts=example.org to=v1:8080
        HTTPRoute a/two parents=gw#named to=v2:8080
        HTTPRoute a/three parents=gw#wild to=v3:8080
        HTTPRoute a/four parents=gw#within to=v1:8080";
    let serving = Serving::start(cluster).await;
    for (name, host, answer) in [
        ("example.org", "example.org", "v1"),
        ("example.org", "second-example.org", "421"),
        ("example.org", "unknown-example.org", "404"),
        ("second-example.org", "second-example.org", "v2"),
        ("second-example.org", "example.org", "421"),
        ("second-example.org", "unknown-example.org", "421"),
        ("third-example.wildcard.org", "third-example.wildcard.org", "v3"),
        ("third-example.wildcard.org", "fith-example.wildcard.org", "v3"),
        ("third-example.wildcard.org", "fourth-example.wildcard.org", "421"),
        ("third-example.wildcard.org", "second-example.org", "421"),
        ("third-example.wildcard.org", "unknown-example.org", "421"),
        ("fourth-example.wildcard.org", "fourth-example.wildcard.org", "v1"),
        ("fourth-example.wildcard.org", "fith-example.wildcard.org", "421"),
        ("unknown-example.org", "example.org", "v1"),
        ("unknown-example.org", "unknown-example.org", "404"),
    ] {
        serving.ask(&format!("tls={name} GET {host}/ -> {answer}")).await;
    }
}

#[tokio::test]
async fn matches_of_http_routes() {
    // HTTPRouteMatching, HTTPRouteExactPathMatching, HTTPRouteHeaderMatching, HTTPRouteMethodMatching,
    // HTTPRouteQueryParamMatching; their precedence has its tables in `podium_network::routes`.
    for (text, asked) in [
        (
            "/ or h:version=one > v1 | /v2 or h:version=two > v2",
            "GET x/example version=one -> v1
            GET x/v2 -> v2
            GET x/v2/ -> v2
            GET x/v2example -> v1
            GET x/foo/v2/example -> v1
            GET x/ version=two -> v2",
        ),
        (
            "=/one > v1 | =/two > v2",
            "GET x/one -> v1
            GET x/two -> v2
            GET x/ -> 404
            GET x/one/example -> 404
            GET x/two/ -> 404
            GET x/Two -> 404",
        ),
        (
            "h:version=one > v1 | h:version=two > v2 | h:version=two h:color=orange > v1 | h:color=blue or h:color=green > v1",
            "GET x/ version=one -> v1
            GET x/ version=two -> v2
            GET x/ version=two color=orange -> v1
            GET x/ version=two color=blue -> v2
            GET x/ color=green -> v1
            GET x/ color=orange -> 404",
        ),
        (
            "POST > v1 | GET > v2 | /a PUT > v3",
            "POST x/ -> v1\nGET x/a -> v2\nPUT x/a -> v3\nHEAD x/ -> 404\nPUT x/ -> 404",
        ),
        (
            "q:animal=whale > v1 | q:animal=dolphin > v2 | q:animal=dolphin q:color=blue > v3",
            "GET x/?animal=whale -> v1
            GET x/?animal=dolphin&color=yellow -> v2
            GET x/?color=blue&animal=dolphin -> v3
            GET x/?animal=shark -> 404
            GET x/ -> 404",
        ),
    ] {
        requests(&with_rules(text), asked).await;
    }
}

#[tokio::test]
async fn filters() {
    // HTTPRouteRequestHeaderModifier, HTTPRouteResponseHeaderModifier, HTTPRouteRewritePath, HTTPRouteRewriteHost,
    // HTTPRouteRedirectHostAndStatus, HTTPRouteRedirectPortAndScheme, HTTPRouteOmittedBackendRefs, HTTPRouteWeight (of 0).
    let changes =
        r#"{"set":[{"name":"X-Set","value":"new"}],"add":[{"name":"X-Add","value":"more"}],"remove":["X-Gone"]}"#;
    let path = |of: &str, path: &str| format!(r#"{{"path":{{"type":"Replace{of}","replace{of}":"{path}"}}}}"#);
    let filter = |of: &str, field: &str, what: &str| format!(r#"[{{"type":"{of}","{field}":{what}}}]"#);
    let redirect = |what: &str| filter("RequestRedirect", "requestRedirect", what);
    let rewrite = |what: &str| filter("URLRewrite", "urlRewrite", what);
    let text = [
        format!("/request > v1 > {}", filter("RequestHeaderModifier", "requestHeaderModifier", changes)),
        format!("/response > v1 > {}", filter("ResponseHeaderModifier", "responseHeaderModifier", changes)),
        format!("/prefix/one > v1 > {}", rewrite(&path("PrefixMatch", "/one"))),
        format!("/strip > v1 > {}", rewrite(&path("PrefixMatch", "/"))),
        format!("/full > v1 > {}", rewrite(&path("FullPath", "/one"))),
        format!("/host > v1 > {}", rewrite(r#"{"hostname":"one.example.org"}"#)),
        format!("/to-host > > {}", redirect(r#"{"hostname":"example.org"}"#)),
        format!("/to-status > > {}", redirect(r#"{"hostname":"example.org","statusCode":301}"#)),
        format!("/to-80 > > {}", redirect(r#"{"hostname":"example.org","port":80}"#)),
        format!("/to-https > > {}", redirect(r#"{"hostname":"example.org","scheme":"https"}"#)),
        format!("/to-8443 > > {}", redirect(r#"{"hostname":"example.org","scheme":"https","port":8443}"#)),
        format!("/to-path > > {}", redirect(&path("PrefixMatch", "/new"))),
        "/nothing".to_owned(),
        "/weight > v1*0 v2*1 missing*0".to_owned(),
    ];
    requests(
        &with_rules(&text.join(" | ")),
        "
        GET x/request x-set=old x-add=first x-gone=1 other=1 -> v1 x-set=new x-add=first,more other=1 !x-gone
        GET x/response reply-x-set=old reply-x-add=first reply-x-gone=1 reply-other=1 -> v1 <x-set=new <x-add=first,more <other=1 !<x-gone
        GET x/prefix/one/two -> v1 /one/two
        GET x/strip/three -> v1 /three
        GET x/strip -> v1 /
        GET x/full/one/two -> v1 /one
        GET x/host -> v1 host=one.example.org
        GET x/to-host -> 302 <location=http://example.org:PORT/to-host
        GET x/to-status -> 301 <location=http://example.org:PORT/to-status
        GET x/to-80 -> 302 <location=http://example.org/to-80
        GET x/to-https -> 302 <location=https://example.org/to-https
        GET x/to-8443 -> 302 <location=https://example.org:8443/to-8443
        GET x/to-path/a?b=c -> 302 <location=http://x:PORT/new/a?b=c
        GET x/nothing -> 500
        GET x/weight -> v2
        GET x/weight -> v2",
    )
    .await;
}

#[tokio::test]
async fn pages_of_other_origins() {
    // HTTPRouteCORS; what is said in each case has its table in `podium_network::routes`.
    let allowed =
        r#"{"allowOrigins":["https://*.bar.com"],"allowMethods":["GET"],"allowHeaders":["x-1"],"maxAge":3600}"#;
    let whole = "<access-control-allow-methods=GET <access-control-max-age=3600";
    requests(
        &with_rules(&format!(r#"/ > v1 > [{{"type":"CORS","cors":{allowed}}}]"#)),
        &format!(
            "
        OPTIONS x/ origin=https://a.bar.com access-control-request-method=GET -> 204 <access-control-allow-origin=https://a.bar.com {whole}
        OPTIONS x/ origin=https://foobar.com access-control-request-method=GET -> 204 !<access-control-allow
        OPTIONS x/ origin=https://a.bar.com -> v1 <access-control-allow-origin=https://a.bar.com
        GET x/ origin=https://a.bar.com -> v1 <access-control-allow-origin=https://a.bar.com <vary=origin
        GET x/ origin=https://foobar.com reply-access-control-allow-origin=* -> v1 !<access-control-allow
        GET x/ -> v1 !<access-control-allow"
        ),
    )
    .await;
}

#[tokio::test]
async fn calls_of_grpc() {
    // GRPCExactMethodMatching, GRPCRouteHeaderMatching.
    let methods = rules("::pkg.Echo/Echo > v1 | ::pkg.Echo/EchoTwo > v2");
    let cluster = within(&format!("GRPCRoute a/r parents=gw rules={methods}"));
    requests(&cluster, "POST x/pkg.Echo/Echo -> v1\nPOST x/pkg.Echo/EchoTwo -> v2\nPOST x/pkg.Echo/EchoThree -> 404")
        .await;
    let headers = rules(
        "h:version=one > v1 | h:version=two > v2 | h:version=two h:color=orange > v1 | h:color=blue or h:color=green > v1 | h:color=red or h:color=yellow > v2",
    );
    requests(
        &within(&format!("GRPCRoute a/r parents=gw rules={headers}")),
        "
        POST x/pkg.Echo/Echo version=one -> v1
        POST x/pkg.Echo/Echo version=two -> v2
        POST x/pkg.Echo/Echo version=two color=orange -> v1
        POST x/pkg.Echo/Echo version=two color=blue -> v2
        POST x/pkg.Echo/Echo color=orange -> 404
        POST x/pkg.Echo/Echo some-other-header=one -> 404
        POST x/pkg.Echo/Echo color=green -> v1
        POST x/pkg.Echo/Echo color=yellow -> v2
        POST x/pkg.Echo/Echo color=purple -> 404",
    )
    .await;
}
