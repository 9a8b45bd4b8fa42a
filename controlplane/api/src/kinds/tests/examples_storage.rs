//! One right object of each kind of storage, bounds and classes.

pub(super) const EXAMPLES: &[&str] = &[
    "{apiVersion: v1, kind: ComponentStatus, metadata: {name: store},
      conditions: [{type: Healthy, status: 'True', message: ok}]}",
    "{apiVersion: v1, kind: LimitRange, metadata: {name: a, namespace: n}, spec: {limits: [
      {type: Container, default: {cpu: 500m}, defaultRequest: {cpu: 500m}, max: {cpu: '1'}, min: {cpu: 100m}},
      {type: PersistentVolumeClaim, max: {storage: 1Gi}}]}}",
    "{apiVersion: v1, kind: ResourceQuota, metadata: {name: a, namespace: n},
      spec: {hard: {pods: '10', requests.cpu: '2', limits.memory: 4Gi, count/jobs.batch: '3'}, scopes: [NotTerminating]},
      status: {hard: {pods: '10', limits.memory: 4Gi}, used: {pods: '1'}}}",
    "{apiVersion: v1, kind: PersistentVolume, metadata: {name: a}, spec: {capacity: {storage: 5Gi},
      accessModes: [ReadWriteOnce], storageClassName: slow, hostPath: {path: /tmp},
      claimRef: {namespace: n, name: c}}, status: {phase: Bound}}",
    "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, namespace: n}, spec: {
      accessModes: [ReadWriteOnce], storageClassName: slow, volumeName: v, resources: {requests: {storage: 8Gi}}},
      status: {phase: Bound, accessModes: [ReadWriteOnce], capacity: {storage: 8Gi}}}",
    "{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: a}, handler: wasm,
      overhead: {podFixed: {cpu: 1m}}}",
    "{apiVersion: resource.k8s.io/v1, kind: DeviceClass, metadata: {name: a}, spec: {
      selectors: [{cel: {expression: 'device.driver == \"d.example.com\"'}}], extendedResourceName: example.com/gpu,
      config: [{opaque: {driver: d.example.com, parameters: {a: 1}}}]}}",
    "{apiVersion: resource.k8s.io/v1, kind: ResourceClaim, metadata: {name: a, namespace: n}, spec: {devices: {
      requests: [{name: r, exactly: {deviceClassName: a, tolerations: [{operator: Exists}]}},
        {name: s, firstAvailable: [{name: t, deviceClassName: b, allocationMode: All}]}],
      constraints: [{requests: [r, s/t], matchAttribute: d.example.com/numa}]}},
      status: {reservedFor: [{resource: pods, name: p, uid: u}], allocation: {devices: {results: [
        {request: r, driver: d.example.com, pool: p, device: d}]}}}}",
    "{apiVersion: resource.k8s.io/v1, kind: ResourceClaimTemplate, metadata: {name: a, namespace: n}, spec: {
      metadata: {labels: {a: b}}, spec: {devices: {requests: [{name: r, exactly: {deviceClassName: a, count: 2}}]}}}}",
    "{apiVersion: resource.k8s.io/v1, kind: ResourceSlice, metadata: {name: a}, spec: {driver: d.example.com,
      nodeName: n1, pool: {name: p, generation: 1, resourceSliceCount: 1}, devices: [{name: d,
        attributes: {numa: {int: 1}, model: {string: m}}, capacity: {memory: {value: 1Gi}},
        taints: [{key: a, effect: NoSchedule}]}]}}",
    "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: a}, value: 1000, description: d}",
    "{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: d.example.com}, spec: {attachRequired: false,
      tokenRequests: [{audience: a}]}}",
    "{apiVersion: storage.k8s.io/v1, kind: CSINode, metadata: {name: n1},
      spec: {drivers: [{name: d.example.com, nodeID: n1, topologyKeys: [a/b], allocatable: {count: 3}}]}}",
    "{apiVersion: storage.k8s.io/v1, kind: CSIStorageCapacity, metadata: {name: a, namespace: n},
      storageClassName: slow, capacity: 1Gi, nodeTopology: {matchLabels: {a: b}}}",
    "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: a,
      annotations: {storageclass.kubernetes.io/is-default-class: 'true'}}, provisioner: d.example.com,
      parameters: {a: b}}",
    "{apiVersion: storage.k8s.io/v1, kind: VolumeAttachment, metadata: {name: a},
      spec: {attacher: d.example.com, nodeName: n1, source: {persistentVolumeName: v}}, status: {attached: true}}",
    "{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, metadata: {name: a}, driverName: d.example.com,
      parameters: {iops: '1'}}",
];
