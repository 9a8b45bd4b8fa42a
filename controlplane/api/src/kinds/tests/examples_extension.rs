//! Examples of the kinds by which the API itself is extended, and of events in their newer form.

pub(super) const EXAMPLES: &[&str] = &[
    "{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: web.18, namespace: n},
      eventTime: '2026-01-02T03:00:00.000001Z', action: Binding, reason: Scheduled, note: ' Assigned ', type: Normal,
      regarding: {kind: Pod, name: web, namespace: n}, related: {kind: Node, name: n1},
      reportingController: kube-scheduler, reportingInstance: s-1,
      series: {count: 2, lastObservedTime: '2026-01-02T03:04:00.000000Z'}}",
    "{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: v1.a.b},
      spec: {group: a.b, version: v1, groupPriorityMinimum: 1000, versionPriority: 10, caBundle: AAA=,
        service: {namespace: n, name: s}},
      status: {conditions: [{type: Available, status: 'False', reason: Gone}]}}",
];
