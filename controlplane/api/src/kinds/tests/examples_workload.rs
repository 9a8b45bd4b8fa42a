//! Examples of the kinds around workloads: templates, revisions, budgets.

pub(super) const EXAMPLES: &[&str] = &[
    "{apiVersion: v1, kind: PodTemplate, metadata: {name: a, namespace: n},
      template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: 'c:1'}]}}}",
    "{apiVersion: apps/v1, kind: ControllerRevision, data: {spec: {a: 1}}, revision: 3,
      metadata: {name: web-1, namespace: n, creationTimestamp: '2026-01-01T03:04:05Z',
        ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: u, controller: true}]}}",
    "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: a, namespace: n},
      spec: {maxUnavailable: 20%, selector: {matchLabels: {app: a}}, unhealthyPodEvictionPolicy: AlwaysAllow},
      status: {disruptionsAllowed: 1, currentHealthy: 5, desiredHealthy: 4, expectedPods: 5}}",
];
