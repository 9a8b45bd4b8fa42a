//! `pods/proxy`, `services/proxy` and `nodes/proxy`, among them what Kubernetes' conformance tests ask of them
//! (`test/e2e/network/proxy.go`).

use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use http::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    harness::Cluster,
    porter::{self, IP, PODS, SERVICES},
    streaming,
    streams::socket,
    webhook::{Webhook, answer, configure},
};

const VERBS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

async fn send(cluster: &Cluster, verb: &str, path: &str) -> crate::harness::Answer {
    cluster.send(verb.parse().unwrap(), path, &[], Vec::new()).await
}

/// "should proxy through a service and a pod"
#[tokio::test(flavor = "multi_thread")]
async fn through_a_service_and_a_pod() {
    let cluster = porter::cluster().await;
    porter::pod(&cluster, "porter", json!([{"containerPort": 1080}])).await;
    let ports = json!([
        {"name": "portname1", "port": 80, "targetPort": "dest1"},
        {"name": "portname2", "port": 81, "targetPort": 162},
        {"name": "tlsportname1", "port": 443, "targetPort": "tlsdest1"},
        {"name": "tlsportname2", "port": 444, "targetPort": 462},
    ]);
    porter::service(&cluster, "proxy-service", ports).await;
    let ports = json!([
        {"name": "portname1", "port": 160}, {"name": "portname2", "port": 162},
        {"name": "tlsportname1", "port": 460}, {"name": "tlsportname2", "port": 462},
    ]);
    porter::endpoints(&cluster, "proxy-service", "porter", ports).await;
    let link = |id: &str, path: &str| format!("<a href=\"{PODS}/{id}/proxy/{path}\">test</a>");
    for (place, id, wanted) in [
        (SERVICES, "proxy-service:portname1", "foo".to_owned()),
        (SERVICES, "http:proxy-service:portname1", "foo".to_owned()),
        (SERVICES, "proxy-service:portname2", "bar".to_owned()),
        (SERVICES, "http:proxy-service:portname2", "bar".to_owned()),
        (SERVICES, "proxy-service:81", "bar".to_owned()),
        (SERVICES, "https:proxy-service:tlsportname1", "tls baz".to_owned()),
        (SERVICES, "https:proxy-service:tlsportname2", "tls qux".to_owned()),
        (PODS, "porter", link("porter", "rewriteme")),
        (PODS, "porter:1080", link("porter:1080", "rewriteme")),
        (PODS, "http:porter:1080", link("http:porter:1080", "rewriteme")),
        (PODS, "porter:160", "foo".to_owned()),
        (PODS, "http:porter:160", "foo".to_owned()),
        (PODS, "porter:162", "bar".to_owned()),
        (PODS, "http:porter:162", "bar".to_owned()),
        (PODS, "https:porter:443", link("https:porter:443", "tlsrewriteme")),
        (PODS, "https:porter:460", "tls baz".to_owned()),
        (PODS, "https:porter:462", "tls qux".to_owned()),
        (PODS, "https:porter:161", "plain".to_owned()),
    ] {
        let answer = cluster.get(&format!("{place}/{id}/proxy/")).await;
        assert_eq!((answer.status.as_u16(), answer.text), (200, wanted), "{id}");
    }
    cluster.stop().await;
}

/// "A set of valid responses are returned for both pod and service ProxyWithPath", and the same for "Proxy"
#[tokio::test(flavor = "multi_thread")]
async fn every_method_gets_its_answer() {
    let cluster = porter::cluster().await;
    for place in [format!("{PODS}/agnhost"), format!("{SERVICES}/test-service")] {
        for verb in VERBS {
            let answer = send(&cluster, verb, &format!("{place}/proxy/some/path/with/{verb}")).await;
            assert_eq!(answer.status, 200, "{verb} {}", answer.text);
            let wanted =
                json!({"Method": verb, "Body": "foo", "Path": format!("/some/path/with/{verb}"), "Query": null});
            assert!(verb == "HEAD" || answer.json() == wanted, "{}", answer.text);

            let path = format!("{place}/proxy?method={verb}");
            let answer = send(&cluster, verb, &path).await;
            if matches!(verb, "GET" | "HEAD") {
                let location = answer.headers["location"].to_str().unwrap();
                assert_eq!((answer.status.as_u16(), location), (301, &*path.replace("proxy?", "proxy/?")));
                continue;
            }
            let wanted = json!({"Method": verb, "Body": "foo", "Path": "/", "Query": format!("method={verb}")});
            assert_eq!((answer.status.as_u16(), answer.json()), (200, wanted));
        }
    }
    let answer = send(&cluster, "TRACE", &format!("{PODS}/agnhost/proxy/")).await;
    assert_eq!(answer.status, 405);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_said_as_in_kubernetes() {
    let cluster = porter::cluster().await;
    porter::service(&cluster, "lonely", json!([{"name": "http", "port": 80}])).await;
    porter::service(&cluster, "foreign", json!([{"port": 80}])).await;
    // Whoever writes EndpointSlices does not reach what is no pod of theirs.
    porter::endpoints(&cluster, "foreign", "somebody", json!([{"name": "", "port": 80}])).await;
    let spec = json!({"containers": [{"name": "c", "image": "x"}]});
    cluster.post(PODS, json!({"metadata": {"name": "nowhere"}, "spec": spec})).await.ok(201);
    let no_pods = |id: &str| format!("no endpoints available for service \"{id}\"");
    let refused =
        |port: u16| format!("error trying to reach service: dial tcp {IP}:{port}: connect: connection refused");
    for (path, code, wanted) in [
        ("services/none/proxy/", 404, "endpoints \"none\" not found".to_owned()),
        ("services/none:80/proxy/", 404, "services \"none\" not found".to_owned()),
        ("services/lonely:http/proxy/", 503, no_pods("lonely:http")),
        ("services/lonely:80/proxy/", 503, no_pods("lonely:80")),
        ("services/foreign/proxy/", 503, no_pods("foreign")),
        ("services/test-service:81/proxy/", 503, "no service port 81 found for service \"test-service\"".to_owned()),
        ("services/test-service:http/proxy/", 503, no_pods("test-service:http")),
        ("services/ftp:test-service:80/proxy/", 400, "invalid service request \"ftp:test-service:80\"".to_owned()),
        ("pods/none/proxy/", 404, "pods \"none\" not found".to_owned()),
        ("pods/a:b:c:d/proxy/", 400, "invalid pod request \"a:b:c:d\"".to_owned()),
        ("pods/nowhere/proxy/", 400, "address not allowed".to_owned()),
        ("pods/agnhost:81/proxy/", 503, refused(81)),
        ("pods/https:agnhost:81/proxy/", 503, refused(81)),
        (
            "pods/agnhost:http/proxy/",
            503,
            "error trying to reach service: dial tcp: lookup tcp/http: unknown port".to_owned(),
        ),
    ] {
        let answer = cluster.get(&format!("/api/v1/namespaces/default/{path}")).await;
        assert_eq!(answer.refused(code), wanted, "{path}");
    }
    for path in ["/api/v1/pods/agnhost/proxy/", "/api/v1/namespaces/default/configmaps/a/proxy/x"] {
        assert_eq!(cluster.get(path).await.status, 404, "{path}");
    }
    // What a pod refuses is its own matter.
    let answer = cluster.get(&format!("{PODS}/agnhost/proxy/forbidden")).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (403, "no"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_redirects_and_bodies() {
    let cluster = porter::cluster().await;
    let proxy = format!("{PODS}/agnhost/proxy");
    let given = [("x-mine", "1"), ("x-forwarded-for", "10.9.9.9"), ("accept-encoding", "gzip")];
    let answer = cluster.send(Method::GET, &format!("{proxy}//headers"), &given, Vec::new()).await;
    let seen = answer.ok(200);
    assert_eq!(seen["x-forwarded-uri"], format!("{proxy}/headers"));
    assert_eq!(seen["x-forwarded-for"], "10.9.9.9, 127.0.0.1");
    assert_eq!((&seen["x-mine"], &seen["accept-encoding"]), (&"1".into(), &"gzip".into()));
    assert_eq!(seen["host"], cluster.server.addr().to_string());
    assert!(seen.get("authorization").is_none());
    for (name, wanted) in [
        ("access-control-allow-origin", None),
        ("x-hop", None),
        ("x-own", Some("yes")),
        ("set-cookie", Some("a=b")),
        ("cache-control", Some("no-cache, private")),
    ] {
        assert_eq!(answer.headers.get(name).map(|value| value.to_str().unwrap()), wanted, "{name}");
    }
    for (to, wanted) in [
        ("/there?a=b", format!("{proxy}/there?a=b")),
        ("http://10.244.0.7/there", format!("{proxy}/there")),
        ("http://example.com/there", "http://example.com/there".to_owned()),
        ("there", "there".to_owned()),
    ] {
        let answer = cluster.get(&format!("{proxy}/redirect?{to}")).await;
        assert_eq!(answer.status, 302);
        assert_eq!(answer.headers["location"], wanted, "{to}");
    }
    // More than any object may have: nothing is gathered.
    let large = vec![b'x'; 5 << 20];
    let answer = cluster.send(Method::POST, &format!("{proxy}/length"), &[], large.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.text), (200, (5 << 20).to_string()));
    let answer = cluster.send(Method::PUT, &format!("{proxy}/echo"), &[], large).await;
    assert_eq!((answer.status.as_u16(), answer.text.len()), (200, 5 << 20));
    // An answer that breaks off does not look whole.
    let request = http::Request::get(format!("{proxy}/broken")).body(Vec::new().into()).unwrap();
    let whole = match cluster.client.send(request).await {
        Ok(answer) => http_body_util::BodyExt::collect(answer.into_body()).await.is_ok(),
        Err(_) => false,
    };
    assert!(!whole);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_go_through() {
    let cluster = porter::cluster().await;
    let mut through = socket(&cluster, &format!("{PODS}/agnhost:7/proxy/chat?a=b"), None).await;
    let Some(Ok(Message::Text(seen))) = through.next().await else { panic!("nothing was said") };
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!((&seen["upgrade"], seen.get("authorization")), (&"websocket".into(), None));
    for message in [Message::text("hello"), Message::binary(vec![7; 300_000])] {
        through.send(message.clone()).await.unwrap();
        assert_eq!(through.next().await.unwrap().unwrap(), message);
    }
    let upgrade = [("connection", "Upgrade"), ("upgrade", "other")];
    // Taken as an ordinary request, which is no upgrade.
    let path = format!("{PODS}/agnhost:7/proxy/x");
    let answer = cluster.send(Method::GET, &path, &upgrade, Vec::new()).await;
    assert_eq!(answer.refused(500), "invalid upgrade response: status code 200");
    let path = format!("{PODS}/agnhost:7/proxy/forbidden");
    let answer = cluster.send(Method::GET, &path, &upgrade, Vec::new()).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (403, "no"));
    let path = format!("{PODS}/agnhost:8/proxy/");
    let answer = cluster.send(Method::GET, &path, &upgrade, Vec::new()).await;
    let refused = format!("error dialing backend: dial tcp {IP}:8: connect: connection refused");
    assert_eq!(answer.refused(500), refused);
    // The server ends what is open when it stops.
    cluster.stop().await;
    assert!(!matches!(through.next().await, Some(Ok(Message::Text(_) | Message::Binary(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_answer_whom_they_may() {
    let cluster = Cluster::start().await;
    cluster.post("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await.ok(201);
    let nodes = "/api/v1/nodes";
    let said = cluster.get(&format!("{nodes}/n/proxy/stats/summary")).await.refused(503);
    assert_eq!(said, "the node agent is not connected yet");
    cluster.server.connect_node(Arc::new(streaming::Node::default()));
    for (id, rest, code, wanted) in [
        ("n", "/stats/summary?only_cpu_and_memory=true", 200, "n /stats/summary?only_cpu_and_memory=true"),
        ("n:10250", "/metrics/cadvisor", 200, "n /metrics/cadvisor"),
        ("https:n:10250", "/a/../pods/", 200, "n /pods/"),
        ("n", "", 301, ""),
        ("n:22", "/", 400, "address not allowed"),
        ("a:b:c:d", "/", 400, "invalid node request \"a:b:c:d\""),
        ("m", "/", 404, "nodes \"m\" not found"),
    ] {
        let answer = cluster.get(&format!("{nodes}/{id}/proxy{rest}")).await;
        assert_eq!(answer.status.as_u16(), code, "{}", answer.text);
        let said = if code < 400 { answer.text } else { answer.refused(code) };
        assert_eq!(said, wanted, "{id}{rest}");
    }
    streams_of_nodes(&cluster).await;
    let rules = json!([
        {"verbs": ["get"], "apiGroups": [""], "resources": ["nodes/metrics", "nodes/stats"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["nodes/proxy"], "resourceNames": ["other"]},
    ]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "scraper"}, "rules": rules});
    cluster.post(&format!("{rbac}/clusterroles"), role).await.ok(201);
    let binding = json!({
        "metadata": {"name": "scraper"}, "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "scraper"},
    });
    cluster.post(&format!("{rbac}/clusterrolebindings"), binding).await.ok(201);
    for (verb, path, code) in [
        ("GET", "n:10250/proxy/metrics", 200),
        ("GET", "n/proxy/metrics/resource", 200),
        ("GET", "n/proxy/stats/summary", 200),
        ("GET", "n/proxy/pods/../stats/summary", 200),
        ("POST", "n/proxy/stats/summary", 403),
        ("GET", "n/proxy/pods", 403),
        ("GET", "n/proxy/metrics/../pods", 403),
        ("GET", "n/proxy/metrics%2f..%2fpods", 403),
        ("GET", "n/proxy/metricsx", 403),
        ("GET", "n/proxy/", 403),
    ] {
        let as_jane = [("impersonate-user", "jane")];
        let answer = cluster.send(verb.parse().unwrap(), &format!("{nodes}/{path}"), &as_jane, Vec::new()).await;
        assert_eq!(answer.status.as_u16(), code, "{path}: {}", answer.text);
    }
    let as_jane = [("impersonate-user", "jane")];
    let said = cluster.send(Method::GET, &format!("{nodes}/n/proxy/pods"), &as_jane, Vec::new()).await.refused(403);
    let wanted = "nodes \"n\" is forbidden: User \"jane\" cannot get resource \"nodes/proxy\" in API group \"\" at the cluster scope";
    assert_eq!(said, wanted);
    cluster.stop().await;
}

/// Commands, as a kubelet runs them.
async fn streams_of_nodes(cluster: &Cluster) {
    let spec = json!({"nodeName": "n", "containers": [{"name": "c", "image": "x"}]});
    cluster.post(PODS, json!({"metadata": {"name": "p"}, "spec": spec})).await.ok(201);
    cluster.post("/api/v1/nodes", json!({"metadata": {"name": "empty"}})).await.ok(201);
    let exec = "proxy/exec/default/p/c?command=cat&input=1&output=1";
    let mut through = socket(cluster, &format!("/api/v1/nodes/n/{exec}"), Some("v5.channel.k8s.io")).await;
    through.send(Message::binary(b"\0hello".to_vec())).await.unwrap();
    through.send(Message::binary(b"\xff\0".to_vec())).await.unwrap();
    let mut said = Vec::new();
    while let Some(Ok(message)) = through.next().await {
        said.extend(message.into_data().strip_prefix(b"\x01").unwrap_or_default().to_vec());
    }
    assert_eq!(said, b"hello");
    let elsewhere = cluster.get(&format!("/api/v1/nodes/empty/{exec}")).await.refused(404);
    assert_eq!(elsewhere, "pods \"p\" not found");
    let get = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes/proxy"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "reader"}, "rules": get});
    cluster.post(&format!("{rbac}/clusterroles"), role).await.ok(201);
    let binding = json!({
        "metadata": {"name": "reader"}, "subjects": [{"kind": "User", "name": "jim", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
    });
    cluster.post(&format!("{rbac}/clusterrolebindings"), binding).await.ok(201);
    let as_jim = [("impersonate-user", "jim")];
    for (path, code) in [("proxy/pods", 200), (exec, 403), ("proxy//exec/../exec/default/p/c?command=cat", 403)] {
        let answer = cluster.send(Method::GET, &format!("/api/v1/nodes/n/{path}"), &as_jim, Vec::new()).await;
        assert_eq!(answer.status.as_u16(), code, "{path}: {}", answer.text);
    }
}

/// Takes what it sees, but for commands named `bad`.
fn judging(request: &Value) -> Option<String> {
    Some(match request["object"]["command"][0].as_str() {
        Some("bad") => answer(request, json!({"allowed": false, "status": {"message": "not this", "code": 403}})),
        _ => answer(request, json!({"warnings": ["you are seen"]})),
    })
}

fn options(kind: &str, more: Value) -> Value {
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_judged() {
    let cluster = porter::cluster().await;
    cluster.post("/api/v1/nodes", json!({"metadata": {"name": "n"}})).await.ok(201);
    cluster.server.connect_node(Arc::new(streaming::Node::default()));
    let webhook = Webhook::start(judging).await;
    let rule = json!([{
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"],
        "resources": ["pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy", "nodes/proxy"],
    }]);
    let hook = webhook.hook("seen.example.com", json!({"rules": rule, "objectSelector": {}}));
    configure(&cluster, "Validating", json!([hook])).await;
    for (path, code, resource, name, wanted) in [
        (
            "namespaces/default/pods/agnhost/exec?command=ls&command=-l&stdout=true&container=c",
            400,
            "pods/exec",
            "agnhost",
            options("PodExecOptions", json!({"command": ["ls", "-l"], "stdout": true, "container": "c"})),
        ),
        (
            "namespaces/default/pods/agnhost/attach?stdin=1&tty=1",
            400,
            "pods/attach",
            "agnhost",
            options("PodAttachOptions", json!({"stdin": true, "tty": true})),
        ),
        (
            "namespaces/default/pods/agnhost/portforward?ports=80,81",
            400,
            "pods/portforward",
            "agnhost",
            options("PodPortForwardOptions", json!({"ports": [80, 81]})),
        ),
        (
            "namespaces/default/pods/http:agnhost:80/proxy/a%20b/?c=d",
            200,
            "pods/proxy",
            "http:agnhost:80",
            options("PodProxyOptions", json!({"path": "/a b/"})),
        ),
        (
            "namespaces/default/services/test-service/proxy/x",
            200,
            "services/proxy",
            "test-service",
            options("ServiceProxyOptions", json!({"path": "/x"})),
        ),
        ("nodes/n/proxy/pods", 200, "nodes/proxy", "n", options("NodeProxyOptions", json!({"path": "/pods"}))),
        ("nodes/n/proxy", 301, "nodes/proxy", "n", options("NodeProxyOptions", json!({}))),
    ] {
        let answer = cluster.get(&format!("/api/v1/{path}")).await;
        assert_eq!(answer.status.as_u16(), code, "{path}: {}", answer.text);
        if code < 400 {
            assert_eq!(answer.headers["warning"], "299 - \"you are seen\"", "{path}");
        }
        let seen = webhook.seen.lock().unwrap().last().unwrap().clone();
        let (plural, sub) = resource.split_once('/').unwrap();
        assert_eq!(seen["object"], wanted, "{path}");
        assert_eq!(seen["kind"], json!({"group": "", "version": "v1", "kind": wanted["kind"]}));
        assert_eq!(seen["requestKind"], seen["kind"]);
        assert_eq!(seen["resource"], json!({"group": "", "version": "v1", "resource": plural}));
        let said = [&seen["operation"], &seen["subResource"], &seen["name"], &seen["oldObject"], &seen["options"]];
        assert_eq!(said, [&"CONNECT".into(), &sub.into(), &name.into(), &Value::Null, &Value::Null], "{path}");
    }
    let answer = cluster.get(&format!("{PODS}/agnhost/exec?command=bad&stdout=1")).await;
    assert_eq!(answer.refused(403), "admission webhook \"seen.example.com\" denied the request: not this");
    policy(&cluster).await;
    cluster.stop().await;
}

/// A policy about connections, once it holds.
async fn policy(cluster: &Cluster) {
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let rule =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/proxy"]});
    let spec = json!({
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "!object.path.startsWith('/admin')", "message": "not there"}],
    });
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    cluster.post(&format!("{admission}/validatingadmissionpolicies"), policy).await.ok(201);
    let spec = json!({"policyName": "p", "validationActions": ["Deny"]});
    let binding = json!({"metadata": {"name": "b"}, "spec": spec});
    cluster.post(&format!("{admission}/validatingadmissionpolicybindings"), binding).await.ok(201);
    let path = |path: &str| format!("{PODS}/agnhost/proxy/{path}");
    let refused = cluster.get(&path("admin/x")).await.refused(422);
    let wanted =
        "pods \"agnhost\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: not there";
    assert_eq!(refused, wanted);
    assert_eq!(cluster.get(&path("else")).await.status, 200);
}
