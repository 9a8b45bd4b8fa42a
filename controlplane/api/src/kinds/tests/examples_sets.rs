//! One right object of each kind that makes pods.

pub(super) const EXAMPLES: &[&str] = &[
    "{apiVersion: v1, kind: ReplicationController, metadata: {name: a, namespace: n}, spec: {replicas: 2,
      template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: 'file:///c.wasm'}]}}},
      status: {replicas: 2, readyReplicas: 1}}",
    "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: a, namespace: n}, spec: {serviceName: s, replicas: 3,
      selector: {matchLabels: {app: a}}, volumeClaimTemplates: [{metadata: {name: www},
        spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}],
      template: {metadata: {labels: {app: a}}, spec: {containers: [{name: c, image: 'file:///c.wasm',
        volumeMounts: [{name: www, mountPath: /www}]}]}}}, status: {replicas: 3, readyReplicas: 2}}",
    "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: a, namespace: n}, spec: {selector: {matchLabels: {app: a}},
      template: {metadata: {labels: {app: a}}, spec: {nodeSelector: {disk: ssd},
        containers: [{name: c, image: 'file:///c.wasm'}]}}},
      status: {currentNumberScheduled: 1, desiredNumberScheduled: 2, numberMisscheduled: 0, numberReady: 1}}",
    "{apiVersion: batch/v1, kind: Job, metadata: {name: a, namespace: n, uid: u}, spec: {completions: 3, parallelism: 2,
      manualSelector: true, selector: {matchLabels: {app: a}},
      template: {metadata: {labels: {app: a}}, spec: {restartPolicy: Never, containers: [{name: c, image: 'file:///c.wasm'}]}}},
      status: {succeeded: 1, startTime: '2026-01-02T03:04:00Z'}}",
    "{apiVersion: batch/v1, kind: CronJob, metadata: {name: a, namespace: n}, spec: {schedule: '*/5 * * * *',
      timeZone: Etc/UTC, jobTemplate: {spec: {template: {spec: {restartPolicy: OnFailure,
        containers: [{name: c, image: 'file:///c.wasm'}]}}}}}, status: {lastScheduleTime: '2026-01-02T03:04:00Z'}}",
    "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: a, namespace: n}, spec: {
      scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 1, maxReplicas: 10,
      metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}},
        {type: Pods, pods: {metric: {name: rps}, target: {type: AverageValue, averageValue: '10'}}}],
      behavior: {scaleDown: {stabilizationWindowSeconds: 60}}},
      status: {currentReplicas: 2, desiredReplicas: 3}}",
    "{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: a, namespace: n}, spec: {
      scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, maxReplicas: 10,
      targetCPUUtilizationPercentage: 50}, status: {currentReplicas: 2, desiredReplicas: 3}}",
];
