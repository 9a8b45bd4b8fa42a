//! Guests of other languages as pods, and upstream manifests that name Linux images.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use podium_e2e::{
    Podium,
    cluster::{loopback, repository, run},
    http,
};
use serde_json::Value;

use crate::trial;

/// How long a large guest may compile. Generous: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("upstream manifests run with test images", upstream),
        trial("agnhost's webhook is asked", webhook),
        trial("guests in C, Go, JavaScript and Python answer", languages),
    ]
}

/// A cluster with flags of its own, at an address of its own.
pub(crate) struct Cluster {
    pub(crate) up: Podium,
    pub(crate) address: String,
    folder: tempfile::TempDir,
}

impl Cluster {
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data").display().to_string();
        let address = loopback();
        let http = format!("{address}:0");
        let free = ["--data-dir", &data, "--api", "127.0.0.1:0", "--http", &http, "--registry", "127.0.0.1:0"];
        let up = Podium::start(&[&free, args].concat())?;
        Ok(Self { up, address, folder })
    }

    fn podium(&self, args: &[&str]) -> Result<String> {
        let kubeconfig = self.folder.path().join("data/kubeconfig").display().to_string();
        let ended = run(&[&["--kubeconfig", kubeconfig.as_str()], args].concat())?;
        ensure!(ended.status.success(), "podium {args:?}: {}", ended.stderr);
        Ok(ended.stdout)
    }

    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        let file = self.folder.path().join("manifest.yaml");
        fs::write(&file, manifest)?;
        self.podium(&["apply", "-f", &file.display().to_string()]).map(drop)
    }

    pub(crate) fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.podium(&["get", kind, name, "-o", "json"])?)?)
    }

    /// The pod once its phase is this.
    fn until(&self, pod: &str, phase: &str) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let found = self.get("pod", pod)?;
            if found["status"]["phase"] == phase {
                return Ok(found);
            }
        }
        bail!("{pod} is not {phase}: {}", self.podium(&["describe", "pod", pod])?)
    }

    pub(crate) fn until_ready(&self, pod: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let conditions = self.get("pod", pod)?["status"]["conditions"].clone();
            let conditions = conditions.as_array().cloned().unwrap_or_default();
            if conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
                return Ok(());
            }
        }
        bail!("{pod} is not ready: {}", self.podium(&["describe", "pod", pod])?)
    }

    /// Where a Service's node port is, as HOST:PORT.
    pub(crate) fn node_port(&self, service: &str) -> Result<String> {
        Ok(format!("{}:{}", self.address, self.get("service", service)?["spec"]["ports"][0]["nodePort"]))
    }

    /// What a Service answers at its node port, once it answers with 200.
    fn ask(&self, service: &str, path: &str) -> Result<String> {
        let at = self.node_port(service)?;
        let deadline = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < deadline {
            match http::get(&format!("http://{at}{path}")) {
                Ok((200, body)) => return Ok(body),
                Ok((status, body)) => last = format!("{status}: {body}"),
                Err(error) => last = format!("{error:#}"),
            }
            std::thread::yield_now();
        }
        bail!("{service}{path}: {last}\n{}", self.podium(&["get", "pods", "-o", "json"])?)
    }
}

fn upstream() -> Result<()> {
    let cluster = Cluster::start(&["--test-images"])?;
    cluster.apply(UPSTREAM)?;
    let ended = cluster.until("busy", "Failed")?;
    let state = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
    ensure!(state["exitCode"] == 3, "busybox ended otherwise: {state}");
    let logged = cluster.podium(&["logs", "busy"])?;
    ensure!(logged == "hi 1\nhi 2\nprobe\n", "busybox said {logged:?}");

    let host = cluster.ask("netexec", "/hostname")?;
    ensure!(host == "server", "the host is called {host}");
    let page = cluster.ask("web", "/")?;
    ensure!(page.contains("It works!"), "httpd said {page}");
    for (path, wanted) in [
        ("/dial?host=netexec&port=80&request=hostname&tries=2", r#"{"responses":["server","server"]}"#),
        ("/dial?host=netexec-udp&port=90&request=echo%20Hi&protocol=udp", r#"{"responses":["hi"]}"#),
        ("/dial?host=web&port=80&request=", "request parameter not specified. <nil>\n"),
        ("/shell?cmd=curl%20-s%20http://web/;%20nslookup%20nosuch%20%7C%7C%20exit%204", "NXDOMAIN"),
    ] {
        let (_, said) = http::get(&format!("http://{}{path}", cluster.node_port("netexec")?))?;
        ensure!(said == wanted || (wanted == "NXDOMAIN" && said.contains(wanted)), "{path}: {said}");
    }
    cluster.until("idle", "Running")?;
    let digest = cluster.get("pod", "idle")?["status"]["containerStatuses"][0]["imageID"].clone();
    ensure!(digest.as_str().is_some_and(|d| d.starts_with("registry.k8s.io/pause@sha256:")), "imageID is {digest}");
    cluster.up.stop().map(drop)
}

const UPSTREAM: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: netexec}}
spec:
  containers:
  - name: agnhost
    image: registry.k8s.io/e2e-test-images/agnhost:2.55
    args: [netexec, --http-port=8080, --udp-port=8081]
    ports: [{containerPort: 8080}, {containerPort: 8081, protocol: UDP}]
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: netexec}
spec: {type: NodePort, selector: {app: netexec}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: netexec-udp}
spec: {selector: {app: netexec}, ports: [{port: 90, targetPort: 8081, protocol: UDP}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: httpd, image: 'httpd:2.4.38-4'}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: idle}
spec: {containers: [{name: pause, image: 'registry.k8s.io/pause:3.10'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: busy}
spec:
  restartPolicy: Never
  containers:
  - name: busybox
    image: busybox:1.36
    command:
    - sh
    - -c
    - |
      trap 'echo never >&2' TERM
      f=/work/count; i=0
      while [ $i -lt 2 ]; do i=$((i+1)); echo "hi $i"; sleep 0.1; done
      if [[ -r $f ]]; then exit 1; else touch $f; fi
      case $(ls /work) in count) echo probe;; *) exit 2;; esac
      exit $(expr $(cat $f | wc -l) + 3)
    volumeMounts: [{name: work, mountPath: /work}]
  volumes: [{name: work, emptyDir: {}}]
"#;

fn webhook() -> Result<()> {
    let cluster = Cluster::start(&["--test-images"])?;
    cluster.apply(WEBHOOK)?;
    cluster.until_ready("webhook")?;
    cluster.apply(HOOKS)?;
    let map = |name: &str, data: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: judged}}\ndata: {{{data}}}\n")
    };
    let deadline = Instant::now() + PATIENCE;
    // The API server learns of webhooks by and by.
    loop {
        match cluster.apply(&map("bad", "webhook-e2e-test: webhook-disallow")) {
            Err(error) if error.to_string().contains("the configmap contains unwanted key and value") => break,
            other if Instant::now() > deadline => bail!("it is not denied: {other:?}"),
            _ => {}
        }
    }
    cluster.apply(&map("good", "mutation-start: 'yes'"))?;
    let found: Value =
        serde_json::from_str(&cluster.podium(&["get", "configmap", "good", "-n", "judged", "-o", "json"])?)?;
    let data = &found["data"];
    ensure!(data["mutation-stage-1"] == "yes" && data["mutation-stage-2"] == "yes", "it is not changed: {data}");
    cluster.up.stop().map(drop)
}

const WEBHOOK: &str = r#"apiVersion: v1
kind: Namespace
metadata: {name: judged, labels: {judged: 'yes'}}
---
apiVersion: v1
kind: Pod
metadata: {name: webhook, labels: {app: webhook}}
spec:
  containers:
  - name: webhook
    image: registry.k8s.io/e2e-test-images/agnhost:2.56
    args: [webhook, --tls-cert-file=/webhook.local.config/certificates/tls.crt, --alsologtostderr, -v=4, --port=8444]
    ports: [{containerPort: 8444}]
    readinessProbe: {httpGet: {path: /readyz, port: 8444}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: webhook}
spec: {selector: {app: webhook}, ports: [{port: 8443, targetPort: 8444}]}
"#;

const HOOKS: &str = r#"apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: stages}
webhooks:
- name: one.k8s.io
  admissionReviewVersions: [v1, v1beta1]
  sideEffects: None
  clientConfig: {service: {namespace: default, name: webhook, path: /mutating-configmaps, port: 8443}}
  rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  namespaceSelector: {matchLabels: {judged: 'yes'}}
- name: two.k8s.io
  admissionReviewVersions: [v1, v1beta1]
  sideEffects: None
  clientConfig: {service: {namespace: default, name: webhook, path: /mutating-configmaps, port: 8443}}
  rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  namespaceSelector: {matchLabels: {judged: 'yes'}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: judge}
webhooks:
- name: judge.k8s.io
  admissionReviewVersions: [v1, v1beta1]
  sideEffects: None
  clientConfig: {service: {namespace: default, name: webhook, path: /configmaps, port: 8443}}
  rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [configmaps]}]
  namespaceSelector: {matchLabels: {judged: 'yes'}}
"#;

/// A guest, where its module is, and what it must answer.
struct Guest {
    name: &'static str,
    wasm: &'static str,
    answer: &'static str,
}

const GUESTS: [Guest; 4] = [
    Guest { name: "c-hello", wasm: "examples/c-hello/c-hello.wasm", answer: "Hello from C at /there\n" },
    Guest { name: "go-hello", wasm: "target/examples/go-hello.wasm", answer: "Hello from Go at /there\n" },
    Guest { name: "js-hello", wasm: "target/examples/js-hello.wasm", answer: "Hello from JavaScript at /there\n" },
    Guest { name: "python-hello", wasm: "target/examples/python-hello.wasm", answer: "Hello from Python at /there\n" },
];

fn languages() -> Result<()> {
    let wasm = |guest: &Guest| repository().join(guest.wasm);
    let (there, missing): (Vec<_>, Vec<_>) = GUESTS.iter().partition(|guest| wasm(guest).exists());
    for guest in missing {
        eprintln!("{0}: not run, {1} is not there: examples/build.sh {0}", guest.name, guest.wasm);
    }
    let dirs: Vec<String> = there.iter().filter_map(|g| wasm(g).parent().map(Path::to_path_buf)).map(text).collect();
    let files: Vec<String> =
        there.iter().map(|g| text(repository().join(format!("examples/{0}/{0}.yaml", g.name)))).collect();
    let mut args: Vec<&str> = dirs.iter().flat_map(|dir| ["--image-dir", dir.as_str()]).collect();
    args.extend(files.iter().flat_map(|file| ["-f", file.as_str()]));
    args.extend(["--wait", "300"]);
    let cluster = Cluster::start(&args)?;
    for guest in there {
        // What the example's own manifest says is of type ClusterIP.
        cluster.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {0}-out}}\nspec: {{type: NodePort, selector: {{app: {0}}}, ports: [{{port: 80, targetPort: http}}]}}\n",
            guest.name
        ))?;
        let said = cluster.ask(&format!("{}-out", guest.name), "/there").with_context(|| guest.name)?;
        ensure!(said == guest.answer, "{}: {said}", guest.name);
    }
    cluster.up.stop().map(drop)
}

fn text(path: PathBuf) -> String {
    path.display().to_string()
}
