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
    "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: a},
      webhooks: [{name: a.example.com, sideEffects: None, admissionReviewVersions: [v1],
        clientConfig: {caBundle: AAA=, service: {namespace: n, name: s, path: /validate/pods}},
        rules: [{apiGroups: [''], apiVersions: [v1], resources: [pods, pods/status], operations: [CREATE, UPDATE]}],
        matchConditions: [{name: not-me, expression: 'request.userInfo.username != \"me\"'}]}]}",
    "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration, metadata: {name: a},
      webhooks: [{name: a.example.com, sideEffects: NoneOnDryRun, admissionReviewVersions: [v1, v1beta1],
        clientConfig: {url: 'https://example.com:8443/mutate'}, reinvocationPolicy: IfNeeded, timeoutSeconds: 5,
        namespaceSelector: {matchLabels: {a: b}},
        rules: [{apiGroups: ['*'], apiVersions: ['*'], resources: ['*/*'], operations: ['*'], scope: Namespaced}]},
        {name: b.example.com, sideEffects: None, admissionReviewVersions: [v1],
          clientConfig: {url: 'https://example.com'}}]}",
    "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: a},
      spec: {paramKind: {apiVersion: rules.example.com/v1, kind: ReplicaLimit},
        matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], resources: [deployments],
          operations: [CREATE], resourceNames: [a]}]},
        matchConditions: [{name: a, expression: 'true'}], variables: [{name: n, expression: object.spec.replicas}],
        validations: [{expression: variables.n <= params.max, message: too many, reason: Invalid}],
        auditAnnotations: [{key: replicas, valueExpression: string(variables.n)}]},
      status: {observedGeneration: 1, typeChecking: {expressionWarnings: [{fieldRef: 'spec.validations[0]', warning: w}]},
        conditions: [{type: A, status: 'True', reason: R, message: '', lastTransitionTime: '2026-01-01T00:00:00Z'}]}}",
    "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, metadata: {name: a},
      spec: {policyName: a, validationActions: [Deny, Audit],
        paramRef: {name: p, namespace: n, parameterNotFoundAction: Deny},
        matchResources: {namespaceSelector: {matchLabels: {a: b}}}}}",
    "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicy, metadata: {name: a},
      spec: {matchConstraints: {resourceRules: [{apiGroups: [''], apiVersions: [v1], resources: [pods],
          operations: [CREATE]}]},
        failurePolicy: Ignore, reinvocationPolicy: IfNeeded,
        mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: 'Object{}'}},
          {patchType: JSONPatch, jsonPatch: {expression: '[]'}}]}}",
    "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicyBinding, metadata: {name: a},
      spec: {policyName: a, paramRef: {selector: {matchLabels: {a: b}}, parameterNotFoundAction: Allow}}}",
    "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition,
      metadata: {name: crontabs.stable.example.com, creationTimestamp: '2026-01-01T03:04:05Z'},
      spec: {group: stable.example.com, scope: Namespaced,
        names: {plural: crontabs, kind: CronTab, shortNames: [ct], categories: [all]},
        conversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v1],
          clientConfig: {caBundle: AAA=, service: {namespace: n, name: s, path: /convert}}}},
        versions: [{name: v1, served: true, storage: true, subresources: {status: {}, scale: {
            specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}},
          additionalPrinterColumns: [{name: Spec, type: string, jsonPath: .spec.cronSpec, priority: 1}],
          selectableFields: [{jsonPath: .spec.cronSpec}],
          schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {
            spec: {type: object, required: [cronSpec], maxProperties: 3, properties: {
              cronSpec: {type: string, default: '* * * * *', enum: ['a', '* * * * *'], pattern: '^.*$', minLength: 0},
              limits: {type: array, maxItems: 10, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [name],
                items: {type: object, properties: {name: {type: string}}}},
              labels: {type: object, additionalProperties: {type: string}},
              any: {type: object, additionalProperties: true},
              size: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]},
              ratio: {type: number, minimum: 0, maximum: 0.5, exclusiveMaximum: true, nullable: true},
              other: {not: {type: string}, externalDocs: {url: 'https://example.com'}, example: {a: [1]}}},
              x-kubernetes-validations: [{rule: 'self.size > 0', message: m, optionalOldSelf: true}]}}}}},
          {name: v1beta1, served: false, storage: false, deprecated: true, deprecationWarning: old,
            schema: {openAPIV3Schema: {type: object}}}]},
      status: {acceptedNames: {plural: crontabs, kind: CronTab}, storedVersions: [v1],
        conditions: [{type: Established, status: 'True'}]}}",
    CSR,
    "{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: FlowSchema, metadata: {name: a},
      spec: {priorityLevelConfiguration: {name: workload-low}, distinguisherMethod: {type: ByUser},
        rules: [{subjects: [{kind: ServiceAccount, serviceAccount: {name: '*', namespace: n}},
            {kind: User, user: {name: u}}, {kind: Group, group: {name: g}}],
          resourceRules: [{verbs: [get, list], apiGroups: [''], resources: [pods], namespaces: [n], clusterScope: true}],
          nonResourceRules: [{verbs: ['*'], nonResourceURLs: [/healthz, /a/*]}]}]},
      status: {conditions: [{type: Dangling, status: 'False'}]}}",
    "{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: PriorityLevelConfiguration, metadata: {name: a},
      spec: {type: Limited, limited: {borrowingLimitPercent: 10,
        limitResponse: {type: Queue, queuing: {queues: 16}}}}}",
];

/// A request for a certificate, as `openssl req -newkey ed25519` writes it.
const CSR: &str = "
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: 'csr:Any'}
spec:
  signerName: kubernetes.io/kube-apiserver-client
  usages: [client auth, digital signature]
  expirationSeconds: 86400
  username: jane
  groups: [g]
  extra: {a.b/c: [d, e]}
  request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KQUFBQQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K
status:
  conditions: [{type: Approved, status: 'True', reason: R, lastUpdateTime: 2026-01-01T00:00:00Z}]
  certificate: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBQUEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=
";

/// Questions, which have no names.
pub(super) const ANSWERED: &[&str] = &[
    "{apiVersion: authentication.k8s.io/v1, kind: TokenReview, metadata: {}, spec: {token: t, audiences: [a]}}",
    "{apiVersion: authentication.k8s.io/v1, kind: SelfSubjectReview, metadata: {},
      status: {userInfo: {username: u, groups: [g], extra: {a: [b]}}}}",
    "{apiVersion: authorization.k8s.io/v1, kind: SubjectAccessReview, metadata: {},
      spec: {user: u, groups: [g], extra: {a: [b, c]}, resourceAttributes: {verb: get, resource: pods, namespace: n}}}",
    "{apiVersion: authorization.k8s.io/v1, kind: SelfSubjectAccessReview, metadata: {},
      spec: {nonResourceAttributes: {path: /healthz, verb: get}}, status: {allowed: true, reason: r}}",
    "{apiVersion: authorization.k8s.io/v1, kind: LocalSubjectAccessReview, metadata: {namespace: n},
      spec: {groups: [g], resourceAttributes: {verb: get, resource: pods, namespace: n}}}",
    "{apiVersion: authorization.k8s.io/v1, kind: SelfSubjectRulesReview, metadata: {}, spec: {namespace: n}}",
    "{apiVersion: authentication.k8s.io/v1, kind: TokenRequest, metadata: {name: a, namespace: n},
      spec: {audiences: [a], expirationSeconds: 3600, boundObjectRef: {kind: Pod, apiVersion: v1, name: p, uid: u}}}",
];
