//! One right object of each kind, with most of what a kind can say.

use serde_json::Value;

use super::{examples_access, examples_extension, examples_sets, examples_storage, examples_workload};

/// All examples.
pub(crate) fn all() -> Vec<Value> {
    let stored = EXAMPLES
        .iter()
        .chain(examples_access::EXAMPLES)
        .chain(examples_extension::EXAMPLES)
        .chain(examples_storage::EXAMPLES)
        .chain(examples_sets::EXAMPLES)
        .chain(examples_workload::EXAMPLES);
    stored.chain(examples_extension::ANSWERED).map(|text| yaml(text)).collect()
}

/// A manifest as a tree.
pub(super) fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}

const EXAMPLES: &[&str] = &[
    POD,
    "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: n}, data: {a.b: c}, binaryData: {d: AAA=}}",
    "{apiVersion: v1, kind: Secret, metadata: {name: a, namespace: n}, stringData: {a: b}, data: {c: ZA==}}",
    "{apiVersion: v1, kind: ServiceAccount, metadata: {name: a, namespace: n}, secrets: [{name: s}]}",
    "{apiVersion: v1, kind: Namespace, metadata: {name: a, creationTimestamp: '2026-01-01T03:04:05Z'}}",
    NODE,
    EVENT,
    "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: a, namespace: n},
      spec: {holderIdentity: me, leaseDurationSeconds: 40, renewTime: '2026-01-02T03:04:00.000000Z'}}",
    "{apiVersion: v1, kind: Endpoints, metadata: {name: a, namespace: n},
      subsets: [{addresses: [{ip: 10.0.0.1}, {ip: 10.0.0.2}], ports: [{port: 80, name: a}, {port: 81, name: b}]}]}",
    "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a, namespace: n}, addressType: IPv4,
      ports: [{port: 80, name: http}], endpoints: [{addresses: [10.0.0.1], conditions: {ready: true}, nodeName: n1}]}",
    "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: a, namespace: n},
      spec: {replicas: 3, selector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]},
        template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: 'file:///c.wasm'}]}}},
      status: {replicas: 2, readyReplicas: 1}}",
    DEPLOYMENT,
    "{apiVersion: v1, kind: Service, metadata: {name: a, namespace: n},
      spec: {type: NodePort, selector: {app: a}, clusterIP: 10.96.0.7,
        ports: [{name: http, port: 80, nodePort: 30080}, {name: dns, port: 53, protocol: UDP, targetPort: dns}]}}",
    INGRESS,
    "{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: podium},
      spec: {controller: podium.dev/ingress, parameters: {apiGroup: a.b, kind: P, name: p}}}",
];

const POD: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: n
  labels: {app: web}
  creationTimestamp: 2026-01-02T02:04:05Z
spec:
  nodeName: n1
  restartPolicy: OnFailure
  activeDeadlineSeconds: 600
  nodeSelector: {disk: ssd}
  tolerations: [{key: a, operator: Equal, value: b, effect: NoSchedule}]
  readinessGates: [{conditionType: a.b/c}]
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {}}]
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Gt, values: ['1']}]}]
      preferredDuringSchedulingIgnoredDuringExecution:
      - {weight: 1, preference: {matchFields: [{key: metadata.name, operator: In, values: [n1]}]}}
  initContainers:
  - {name: init, image: i}
  - {name: side, image: i, restartPolicy: Always, startupProbe: {exec: {command: [a]}}}
  containers:
  - name: c
    image: registry.example/c:1@sha256:aa
    command: [a]
    ports: [{name: http, containerPort: 8080}, {containerPort: 53, protocol: UDP}]
    env:
    - {name: A, value: b}
    - {name: B, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: C, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    - {name: D, valueFrom: {configMapKeyRef: {name: m, key: k}}}
    - {name: E, valueFrom: {secretKeyRef: {name: m, key: k}}}
    - {name: F, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}
    envFrom: [{configMapRef: {name: m}}, {prefix: P_, secretRef: {name: s}}]
    resources: {limits: {cpu: 1, memory: 0.5Gi}, requests: {cpu: 250m}}
    volumeMounts: [{name: v, mountPath: /v}, {name: s, mountPath: /s, subPath: a/b}]
    livenessProbe: {httpGet: {port: http, httpHeaders: [{name: X-A, value: b}]}}
    readinessProbe: {tcpSocket: {port: 8080}, successThreshold: 2}
    lifecycle: {preStop: {sleep: {seconds: 1}}}
    securityContext: {runAsUser: 1000}
  volumes:
  - {name: v, configMap: {name: m, items: [{key: a, path: b/c}]}}
  - {name: s, secret: {secretName: s}}
  - {name: e}
  - {name: d, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: p, projected: {sources: [{serviceAccountToken: {path: token}}, {configMap: {name: m}}]}}
  - {name: h, hostPath: {path: /tmp}}
status:
  phase: Running
  podIPs: [{ip: 10.1.0.5}]
  conditions: [{type: a.b/c, status: 'True'}, {type: Initialized, status: 'True'}]
  initContainerStatuses:
  - {name: init, image: i, imageID: i, ready: true, restartCount: 4, state: {terminated: {exitCode: 0}}}
  - {name: side, image: i, imageID: i, ready: true, started: true, restartCount: 1, state: {running: {}}}
  containerStatuses:
  - name: c
    image: c
    imageID: c
    ready: true
    restartCount: 2
    state: {running: {startedAt: 2026-01-02T03:00:00Z}}
    lastState: {terminated: {exitCode: 1, finishedAt: 2026-01-02T02:59:05Z}}
";

const NODE: &str = "
apiVersion: v1
kind: Node
metadata:
  name: n1
  creationTimestamp: 2025-12-02T03:04:05Z
  labels: {node-role.kubernetes.io/control-plane: '', kubernetes.io/role: edge}
spec:
  podCIDR: 10.1.0.0/24
  podCIDRs: [10.1.0.0/24]
  unschedulable: true
  taints: [{key: a, value: b, effect: NoSchedule}]
status:
  capacity: {cpu: 2, memory: 4Gi, pods: 110}
  addresses: [{type: InternalIP, address: 127.0.0.1}]
  conditions: [{type: Ready, status: 'True'}]
  nodeInfo: {kubeletVersion: v1.36.0, osImage: Debian, kernelVersion: '6.1', containerRuntimeVersion: 'wasmtime://48',
    architecture: amd64, bootID: b, kubeProxyVersion: '', machineID: m, operatingSystem: linux, systemUUID: u}
";

const EVENT: &str = "
apiVersion: v1
kind: Event
metadata: {name: web.17, namespace: n}
involvedObject: {kind: Pod, name: web, namespace: n, fieldPath: 'spec.containers{c}', uid: u}
reason: BackOff
message: Back-off restarting failed container
type: Warning
count: 3
source: {component: podium-agent, host: n1}
firstTimestamp: 2026-01-02T02:54:05Z
lastTimestamp: 2026-01-02T03:03:05Z
";

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: n, creationTimestamp: 2026-01-01T23:04:05Z}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: web, tier: front}, annotations: {a.b/c: d}}
    spec: {containers: [{name: a, image: a}, {name: b, image: 'b:1'}]}
status: {replicas: 4, readyReplicas: 3, updatedReplicas: 2, availableReplicas: 1}
";

const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: n}
spec:
  ingressClassName: podium
  defaultBackend: {resource: {apiGroup: a.b, kind: K, name: r}}
  tls: [{hosts: ['*.example.com'], secretName: s}]
  rules:
  - {host: a.example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}
  - {host: '*.example.com', http: {paths: [{pathType: ImplementationSpecific, backend: {service: {name: web, port: {name: http}}}}]}}
  - {host: c.example.com}
  - {host: d.example.com}
status: {loadBalancer: {ingress: [{ip: 127.0.0.1}, {hostname: h}]}}
";
