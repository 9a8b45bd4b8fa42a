//! What Kubernetes' own tests of its network ask of pods and Services: through the API server's proxies, and from within a
//! pod. The pods are those that its tests make (agnhost), out of the test images.
//!
//! # Source
//! Kubernetes `test/e2e/network/proxy.go`, `service.go`.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context, Result, ensure};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use libtest_mimic::Trial;
use podium_e2e::{Cluster, kubectl::Kubectl};
use serde_json::Value;

use crate::{
    life::{apply, json, until},
    trial,
};

/// How often each path is asked for.
const TRIES: usize = 5;

pub(crate) fn trials() -> Vec<Trial> {
    let not_run = Kubectl::find() != Kubectl::Usable;
    vec![
        trial("the_api_servers_proxies_lead_to_pods_and_services", the_api_servers_proxies_lead_to_pods_and_services),
        trial("clients_in_pods_come_back_to_their_endpoint", clients_in_pods_come_back_to_their_endpoint)
            .with_ignored_flag(not_run),
    ]
}

const PORTER: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: target}
spec:
  selector: {proxy-service-target: 'true'}
  ports:
  - {name: portname1, port: 80, targetPort: dest1}
  - {name: portname2, port: 81, targetPort: 162}
  - {name: tlsportname1, port: 443, targetPort: tlsdest1}
  - {name: tlsportname2, port: 444, targetPort: 462}
---
apiVersion: v1
kind: Pod
metadata: {name: target, labels: {proxy-service-target: 'true'}}
spec:
  containers:
  - name: agnhost
    image: registry.k8s.io/e2e-test-images/agnhost:2.55
    command: [/agnhost, porter]
    env:
    - {name: SERVE_PORT_80, value: '<a href="/rewriteme">test</a>'}
    - {name: SERVE_PORT_1080, value: '<a href="/rewriteme">test</a>'}
    - {name: SERVE_PORT_160, value: foo}
    - {name: SERVE_PORT_162, value: bar}
    - {name: SERVE_TLS_PORT_443, value: '<a href="/tlsrewriteme">test</a>'}
    - {name: SERVE_TLS_PORT_460, value: tls baz}
    - {name: SERVE_TLS_PORT_462, value: tls qux}
    ports:
    - {name: dest1, containerPort: 160}
    - {name: dest2, containerPort: 162}
    - {name: tlsdest1, containerPort: 460}
    - {name: tlsdest2, containerPort: 462}
    readinessProbe: {httpGet: {port: 80}, initialDelaySeconds: 1, timeoutSeconds: 5, periodSeconds: 10}
---
apiVersion: v1
kind: Service
metadata: {name: test-service}
spec: {selector: {test: response}, ports: [{port: 80, targetPort: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agnhost, labels: {test: response}}
spec:
  restartPolicy: Never
  containers:
  - name: agnhost
    image: registry.k8s.io/e2e-test-images/agnhost:2.55
    command: [/agnhost, porter, --json-response]
    env: [{name: SERVE_PORT_80, value: foo}]
"#;

fn has_endpoints(cluster: &Cluster, service: &str, count: usize) -> Result<()> {
    until(&format!("{service} has endpoints"), || {
        let found = json(cluster, &["get", "endpoints", service])?;
        Ok(found["subsets"][0]["addresses"].as_array().map_or(0, Vec::len) == count)
    })
}

async fn ask(client: &Client, method: &Method, path: &str) -> Result<(u16, String)> {
    let request = Request::builder().method(method).uri(path).body(Body::empty())?;
    let answer = client.send(request).await.with_context(|| format!("{method} {path}"))?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.with_context(|| format!("{method} {path}: the answer's body"))?;
    Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

fn the_api_servers_proxies_lead_to_pods_and_services() -> Result<()> {
    // Fails only when one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cluster = Cluster::start_with(&[], &["--test-images"])?;
    apply(&cluster, PORTER)?;
    has_endpoints(&cluster, "target", 1)?;
    has_endpoints(&cluster, "test-service", 1)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        what_is_served_comes_through(&client).await?;
        every_method_comes_through(&client).await
    })?;
    cluster.podium.stop().map(drop)
}

async fn what_is_served_comes_through(client: &Client) -> Result<()> {
    let of = |kind: &str, name: &str| format!("/api/v1/namespaces/default/{kind}/{name}/proxy");
    let link = |name: &str, to: &str| format!("<a href=\"{}{to}\">test</a>", of("pods", name));
    for (kind, name, wanted) in [
        ("services", "target:portname1", "foo".to_owned()),
        ("services", "http:target:portname1", "foo".to_owned()),
        ("services", "target:portname2", "bar".to_owned()),
        ("services", "http:target:portname2", "bar".to_owned()),
        ("services", "https:target:tlsportname1", "tls baz".to_owned()),
        ("services", "https:target:tlsportname2", "tls qux".to_owned()),
        ("pods", "target:1080", link("target:1080", "/rewriteme")),
        ("pods", "http:target:1080", link("http:target:1080", "/rewriteme")),
        ("pods", "target:160", "foo".to_owned()),
        ("pods", "http:target:160", "foo".to_owned()),
        ("pods", "target:162", "bar".to_owned()),
        ("pods", "http:target:162", "bar".to_owned()),
        ("pods", "https:target:443", link("https:target:443", "/tlsrewriteme")),
        ("pods", "https:target:460", "tls baz".to_owned()),
        ("pods", "https:target:462", "tls qux".to_owned()),
    ] {
        let path = format!("{}/", of(kind, name));
        for _ in 0..TRIES {
            let found = ask(client, &Method::GET, &path).await?;
            ensure!(found == (200, wanted.clone()), "{path}: {found:?}");
        }
    }
    Ok(())
}

async fn every_method_comes_through(client: &Client) -> Result<()> {
    for (kind, name) in [("pods", "agnhost"), ("services", "test-service")] {
        let proxy = format!("/api/v1/namespaces/default/{kind}/{name}/proxy");
        for method in ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"] {
            let with_path = format!("{proxy}/some/path/with/{method}");
            let (verb, bare) = (method.parse()?, format!("{proxy}?method={method}"));
            let (status, body) = ask(client, &verb, &with_path).await?;
            let is_said = |body: &str| says(body, method);
            ensure!(status == 200 && (method == "HEAD" || is_said(&body)), "{method} {with_path}: {status} {body}");
            let (status, body) = ask(client, &verb, &bare).await?;
            let as_wanted = match method {
                // Links of the root of a page would lead elsewhere.
                "GET" | "HEAD" => status == 301,
                _ => status == 200 && is_said(&body),
            };
            ensure!(as_wanted, "{method} {bare}: {status} {body}");
        }
    }
    Ok(())
}

/// Whether a porter said which method it was asked with.
fn says(body: &str, method: &str) -> bool {
    serde_json::from_str::<Value>(body).is_ok_and(|said| said["Method"] == method && said["Body"] == "foo")
}

const AFFINE: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: affine}
spec:
  replicas: 3
  selector: {matchLabels: {app: affine}}
  template:
    metadata: {labels: {app: affine}}
    spec:
      containers:
      - {name: agnhost, image: 'registry.k8s.io/e2e-test-images/agnhost:2.55', args: [serve-hostname], ports: [{containerPort: 9376}]}
---
apiVersion: v1
kind: Service
metadata: {name: affine}
spec: {type: NodePort, sessionAffinity: ClientIP, selector: {app: affine}, ports: [{port: 80, targetPort: 9376}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers: [{name: box, image: 'registry.k8s.io/e2e-test-images/agnhost:2.55', args: [pause]}]
";

/// What a command in the client's pod says.
fn in_client(cluster: &Cluster, command: &str) -> Result<String> {
    let output = Command::new("kubectl")
        .args(["exec", "client", "--", "/bin/sh", "-c", command])
        .env("KUBECONFIG", cluster.kubeconfig())
        .output()
        .context("start kubectl")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

const ANSWERERS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: answerers}
spec:
  replicas: 2
  selector: {matchLabels: {app: answerers}}
  template:
    metadata: {labels: {app: answerers}}
    spec:
      containers:
      - name: agnhost
        image: 'registry.k8s.io/e2e-test-images/agnhost:2.55'
        args: [serve-hostname, '--http=false', --tcp, --udp]
        ports: [{containerPort: 9376}, {containerPort: 9376, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: answerers}
spec:
  type: NodePort
  selector: {app: answerers}
  ports: [{name: tcp, port: 80, targetPort: 9376}, {name: udp, protocol: UDP, port: 80, targetPort: 9376}]
";

/// Who has written its name and closes, without having read what it was told, is heard all the same.
fn answers_without_listening_arrive(cluster: &Cluster, node: &str) -> Result<()> {
    apply(cluster, ANSWERERS)?;
    has_endpoints(cluster, "answerers", 2)?;
    let service = json(cluster, &["get", "service", "answerers"])?["spec"].clone();
    let ip = service["clusterIP"].as_str().context("a Service has an address")?;
    for (port, flag) in [(&service["ports"][0], "-t"), (&service["ports"][1], "-u")] {
        for at in ["answerers 80".to_owned(), format!("{ip} 80"), format!("{node} {}", port["nodePort"])] {
            let said = || in_client(cluster, &format!("echo hostName | nc -v {flag} -w 2 {at}"));
            until(&format!("{at} is reached by nc {flag}"), || Ok(!said()?.trim().is_empty()))?;
            for _ in 0..5 {
                let said = said()?;
                ensure!(said.trim().starts_with("answerers-"), "nc {flag} {at}: {said:?}");
            }
        }
    }
    Ok(())
}

/// Who answers a client in a pod, each of sixteen times.
fn answers(cluster: &Cluster, at: &str) -> Result<BTreeSet<String>> {
    let command = format!("for i in $(seq 0 15); do echo; curl -q -s --connect-timeout 2 http://{at}/ ; done");
    let said = in_client(cluster, &command)?;
    Ok(said.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// At its ClusterIP and at a node port of a node: there always, and elsewhere when the Service has changed its mind.
fn clients_in_pods_come_back_to_their_endpoint() -> Result<()> {
    // An address that is nobody's on this machine: only the cluster knows it.
    let node = "192.0.2.7";
    let cluster = Cluster::start_with(&[], &["--test-images", "--node-ip", node])?;
    apply(&cluster, AFFINE)?;
    has_endpoints(&cluster, "affine", 3)?;
    until("the client runs", || Ok(json(&cluster, &["get", "pod", "client"])?["status"]["phase"] == "Running"))?;
    let service = json(&cluster, &["get", "service", "affine"])?["spec"].clone();
    let ip = service["clusterIP"].as_str().context("a Service has an address")?;
    let node_port = service["ports"][0]["nodePort"].to_string();
    for at in ["affine 80".to_owned(), format!("{ip} 80"), format!("{node} {node_port}")] {
        let heard = || Ok(!in_client(&cluster, &format!("echo hostName | nc -v -t -w 2 {at}"))?.trim().is_empty());
        until(&format!("{at} is reached"), heard)?;
    }
    for at in [format!("{ip}:80"), format!("{node}:{node_port}")] {
        let affinity = |kind: &str| apply(&cluster, &AFFINE.replace("ClientIP", kind));
        affinity("ClientIP")?;
        until(&format!("{at} is one pod"), || Ok(answers(&cluster, &at)?.len() == 1))?;
        let (first, second) = (answers(&cluster, &at)?, answers(&cluster, &at)?);
        ensure!(first.len() == 1 && first == second, "{at}: {first:?}, then {second:?}");
        affinity("None")?;
        until(&format!("{at} is several pods"), || Ok(answers(&cluster, &at)?.len() > 1))?;
    }
    answers_without_listening_arrive(&cluster, node)?;
    cluster.podium.stop().map(drop)
}
