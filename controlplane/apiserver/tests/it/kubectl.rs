//! kubectl, unmodified. A machine without kubectl 1.27 or newer says so and runs nothing here.

use std::process::{Command, Stdio};

use crate::harness::Cluster;

pub(crate) fn version() -> Option<u32> {
    let out = Command::new("kubectl").args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
    version["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse().ok()
}

pub(crate) async fn run(cluster: &Cluster, args: &[&str], input: &str) -> (bool, String) {
    run_with(cluster, args, input, &[]).await
}

pub(crate) async fn run_with(
    cluster: &Cluster,
    args: &[&str],
    input: &str,
    environment: &[(&str, &str)],
) -> (bool, String) {
    let mut command = tokio::process::Command::new("kubectl");
    command
        .args(args)
        .envs(environment.iter().copied())
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("HOME", cluster.folder());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writing = async move {
        // Who ends before it has read all is not asked why.
        let _written = tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await;
    };
    let (out, ()) = tokio::join!(child.wait_with_output(), writing);
    let out = out.unwrap();
    let text = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&text).into_owned())
}

const MANIFEST: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'file:///x.wasm'}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {a: b}
";

/// A kind that nobody serves.
const NONSENSE: &str = "apiVersion: v1\nkind: Nonsense\nmetadata: {name: x}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_session() {
    if version().is_none_or(|minor| minor < 27) {
        eprintln!("NOT RUN: there is no kubectl 1.27 or newer");
        return;
    }
    let cluster = Cluster::start().await;
    for (args, input, good, wanted) in [
        ("apply -f -", MANIFEST, true, "deployment.apps/web created\nconfigmap/settings created\n"),
        ("apply -f -", MANIFEST, true, "deployment.apps/web unchanged\nconfigmap/settings unchanged\n"),
        ("get deploy", "", true, "NAME   READY   UP-TO-DATE   AVAILABLE   AGE\nweb    0/2"),
        ("scale deploy web --replicas=3", "", true, "deployment.apps/web scaled\n"),
        ("set image deploy web web=file:///y.wasm", "", true, "deployment.apps/web image updated\n"),
        ("label cm settings x=y", "", true, "configmap/settings labeled\n"),
        ("annotate cm settings x=y", "", true, "configmap/settings annotated\n"),
        ("explain deploy.spec.replicas", "", true, "GROUP:      apps\nKIND:       Deployment\n"),
        (
            "explain deploy.spec.replicas --output=plaintext-openapiv2",
            "",
            true,
            "KIND:     Deployment\nVERSION:  apps/v1\n",
        ),
        ("explain pod --recursive", "", true, "KIND:       Pod\nVERSION:    v1\n"),
        ("get cm settings -o jsonpath={.data}", "", true, "{\"a\":\"b\"}"),
        ("get cm -A --chunk-size=1", "", true, "NAMESPACE"),
        ("describe deploy web", "", true, "Name:                   web\n"),
        ("get none", "", false, "error: the server doesn't have a resource type \"none\"\n"),
        ("get pod none", "", false, "Error from server (NotFound): pods \"none\" not found\n"),
        ("create ns t", "", true, "namespace/t created\n"),
        ("create ns t", "", false, "Error from server (AlreadyExists): namespaces \"t\" already exists\n"),
        ("delete cm settings", "", true, "configmap \"settings\" deleted"),
        ("create deploy two --image=x --port=80 --replicas=0", "", true, "deployment.apps/two created\n"),
        ("create ingress i --rule=web.test/*=web:80", "", true, "ingress.networking.k8s.io/i created\n"),
        (
            "get ingress i -o jsonpath={.spec.rules[0].http.paths[0].backend}",
            "",
            true,
            "{\"service\":{\"name\":\"web\"",
        ),
        ("create secret generic s --from-literal=a=b", "", true, "secret/s created\n"),
        ("get secret s -o jsonpath={.data}", "", true, "{\"a\":\"Yg==\"}"),
        ("apply -f -", NONSENSE, false, "error: resource mapping not found for name: \"x\""),
        ("version", "", true, "Client Version"),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let (ok, text) = run(&cluster, &args, input).await;
        assert!(ok == good && text.starts_with(wanted), "kubectl {args:?}\n{text}");
    }
    cluster.stop().await;
}

const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.stable.example.com}
spec:
  group: stable.example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Spec, type: string, description: The cron spec, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    schema:
      openAPIV3Schema:
        description: A table of what is done when.
        type: object
        properties:
          spec:
            type: object
            properties:
              cronSpec: {type: string, description: When., pattern: '^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$'}
              image: {type: string}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 1}
";

const CRON_TAB: &str = "
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: my-cron}
spec: {cronSpec: '* * * * */5', image: my-image}
";

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources() {
    if version().is_none_or(|minor| minor < 27) {
        eprintln!("NOT RUN: there is no kubectl 1.27 or newer");
        return;
    }
    let cluster = Cluster::start().await;
    let wrong = CRON_TAB.replace("*/5", "every 5");
    let unknown = CRON_TAB.replace("image: my-image", "picture: my-image");
    for (args, input, good, wanted) in [
        (
            "apply -f -",
            DEFINITION,
            true,
            "customresourcedefinition.apiextensions.k8s.io/crontabs.stable.example.com created\n",
        ),
        (
            "wait --for=condition=Established crd/crontabs.stable.example.com --timeout=10s",
            "",
            true,
            "customresourcedefinition.apiextensions.k8s.io/crontabs.stable.example.com condition met\n",
        ),
        ("apply -f -", CRON_TAB, true, "crontab.stable.example.com/my-cron created\n"),
        ("apply -f -", CRON_TAB, true, "crontab.stable.example.com/my-cron unchanged\n"),
        ("get ct", "", true, "NAME      SPEC          REPLICAS\nmy-cron   * * * * */5   1\n"),
        ("get crontab.stable.example.com my-cron -o jsonpath={.spec.replicas}", "", true, "1"),
        ("scale ct my-cron --replicas=3", "", true, "crontab.stable.example.com/my-cron scaled\n"),
        ("scale ct my-cron --replicas=30", "", false, "spec.replicas in body should be less than or equal to 10"),
        (
            "patch ct my-cron --type=merge -p {\"spec\":{\"replicas\":2}}",
            "",
            true,
            "crontab.stable.example.com/my-cron patched\n",
        ),
        (
            "apply --server-side --field-manager=x -f -",
            CRON_TAB,
            true,
            "crontab.stable.example.com/my-cron serverside-applied\n",
        ),
        (
            "apply -f -",
            &wrong,
            false,
            "The CronTab \"my-cron\" is invalid: spec.cronSpec: Invalid value: \"* * * * every 5\"",
        ),
        ("apply -f -", &unknown, false, "strict decoding error: unknown field \"spec.picture\""),
        ("explain crontab", "", true, "DESCRIPTION:\n    A table of what is done when."),
        ("explain ct.spec.cronSpec", "", true, "FIELD: cronSpec <string>"),
        (
            "api-resources --api-group=stable.example.com",
            "",
            true,
            "crontabs   ct           stable.example.com/v1   true         CronTab",
        ),
        ("describe ct my-cron", "", true, "Cron Spec:  * * * * */5"),
        ("delete ct my-cron", "", true, "crontab.stable.example.com \"my-cron\" deleted"),
        (
            "delete crd crontabs.stable.example.com",
            "",
            true,
            "customresourcedefinition.apiextensions.k8s.io \"crontabs.stable.example.com\" deleted",
        ),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let (succeeded, text) = run(&cluster, &args, input).await;
        assert_eq!(succeeded, good, "{args:?}: {text}");
        assert!(text.contains(wanted), "{args:?}: {text}");
    }
    cluster.stop().await;
}
