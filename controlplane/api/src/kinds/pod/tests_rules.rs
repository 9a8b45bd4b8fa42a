//! Tables of cases for what pods may say, may change, and may be told through subresources.

use super::tests::{ONE, check, messages, pod};
use crate::{
    field::FieldErrors,
    kind::Kind,
    object::{Object, kind_of},
};
use k8s_openapi::api::core::v1::Pod;

const C: &str = "containers: [{name: c, image: i}]";

/// The spec of a pod with one container and this beside it.
fn spec(rest: &str) -> String {
    format!("{{{C}, {rest}}}")
}

/// The spec of a pod whose one container has this beside name and image.
fn one(rest: &str) -> String {
    format!("{{containers: [{{name: c, image: i, {rest}}}]}}")
}

#[test]
fn names_and_addresses() {
    let cases: &[(&str, &[&str])] = &[
        ("hostname: a, subdomain: b, hostAliases: [{ip: 10.0.0.1, hostnames: [a.b]}]", &[]),
        (
            "hostname: A, subdomain: b.c, hostAliases: [{ip: a, hostnames: [A]}], runtimeClassName: ''",
            &[
                "spec.runtimeClassName: Invalid value: \"\": a lowercase RFC 1123 subdomain",
                "spec.hostname: Invalid value: \"A\": a lowercase RFC 1123 label",
                "spec.subdomain: Invalid value: \"b.c\": a lowercase RFC 1123 label",
                "spec.hostAliases[0].ip: Invalid value: \"a\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "spec.hostAliases[0].hostnames[0]: Invalid value: \"A\"",
            ],
        ),
        ("dnsPolicy: None", &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"]),
        (
            "dnsPolicy: None, dnsConfig: {}",
            &[
                "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
            ],
        ),
        ("dnsConfig: {nameservers: [1.1.1.1], searches: [a_b.c., .], options: [{name: ndots}]}", &[]),
        (
            "dnsConfig: {nameservers: [a, 1.1.1.1, 1.1.1.1, 1.1.1.1], searches: ['a b'], options: [{}]}",
            &[
                "spec.dnsConfig.nameservers: Invalid value: [\"a\",\"1.1.1.1\",\"1.1.1.1\",\"1.1.1.1\"]: must not have more \
                 than 3 nameservers",
                "spec.dnsConfig.nameservers[0]: Invalid value: \"a\": must be a valid IP address",
                "spec.dnsConfig.searches[0]: Invalid value: \"a b\": a lowercase RFC 1123 subdomain must consist of lower case \
                 alphanumeric characters, '_', '-' or '.'",
                "spec.dnsConfig.options[0]: Required value: must not be empty",
            ],
        ),
        (
            "readinessGates: [{conditionType: 'a b'}], schedulingGates: [{name: a}, {name: a}], overhead: {odd: 1}",
            &[
                "spec.readinessGates[0].conditionType: Invalid value: \"a b\": name part",
                "spec.schedulingGates[1]: Duplicate value: \"a\"",
                "spec.overhead.limits[odd]: Invalid value: \"odd\": must be a standard resource type or fully qualified",
                "spec.overhead.limits[odd]: Invalid value: \"odd\": must be a standard resource for containers",
            ],
        ),
        (
            "preemptionPolicy: Always",
            &[
                "spec.preemptionPolicy: Unsupported value: \"Always\": supported values: \"PreemptLowerPriority\", \"Never\"",
            ],
        ),
    ];
    for (rest, wanted) in cases {
        check(&spec(rest), wanted);
    }
}

#[test]
fn scheduling() {
    let term = |rest: &str| format!("requiredDuringSchedulingIgnoredDuringExecution: [{{{rest}}}]");
    let at = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]";
    let spread = |rest: &str| format!("topologySpreadConstraints: [{rest}]");
    let on = "spec.topologySpreadConstraints[0]";
    let zone = "maxSkew: 1, topologyKey: zone, whenUnsatisfiable";
    let cases: &[(String, Vec<String>)] = &[
        (
            format!("affinity: {{podAffinity: {{{}}}}}", term("topologyKey: zone, labelSelector: {matchLabels: {a: b}}")),
            vec![],
        ),
        (
            format!("affinity: {{podAffinity: {{{}}}}}", term("topologyKey: '', namespaces: [A], matchLabelKeys: [a]")),
            vec![
                format!("{at}.namespace: Invalid value: \"A\": a lowercase RFC 1123 label"),
                format!("{at}.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"),
                format!("{at}.topologyKey: Required value: can not be empty"),
                format!("{at}.topologyKey: Invalid value: \"\": name part must be non-empty"),
                format!("{at}.topologyKey: Invalid value: \"\": name part must consist of"),
            ],
        ),
        (
            "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields:
              [{key: metadata.uid, operator: Gt, values: [a]}], matchExpressions: [{key: a, operator: In, values: ['a b']}]}]}}}"
                .to_owned(),
            [".matchExpressions[0].values[0]: Invalid value: \"a b\": a valid label",
                ".matchFields[0].operator: Invalid value: \"Gt\": not a valid selector operator",
                ".matchFields[0].key: Invalid value: \"metadata.uid\": not a valid field selector key"]
            .map(|rest| {
                format!("spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]{rest}")
            })
            .to_vec(),
        ),
        (spread(&format!("{{{zone}: DoNotSchedule, minDomains: 2, labelSelector: {{}}, matchLabelKeys: [a]}}")), vec![]),
        (
            spread(&format!(
                "{{{zone}: ScheduleAnyway, minDomains: 0, nodeTaintsPolicy: Odd, matchLabelKeys: [a]}}, {{{zone}: ScheduleAnyway}}"
            )),
            vec![
                format!("{on}.{{topologyKey, whenUnsatisfiable}}: Duplicate value: \"{{zone, ScheduleAnyway}}\""),
                format!("{on}.minDomains: Invalid value: 0: must be greater than zero"),
                format!(
                    "{on}.minDomains: Invalid value: 0: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not \
                     ScheduleAnyway"
                ),
                format!("{on}.nodeTaintsPolicy: Unsupported value: \"Odd\": supported values: \"Honor\", \"Ignore\""),
                format!("{on}.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"),
            ],
        ),
        (
            "tolerations: [{key: a, operator: Exists, value: b}, {key: a, value: 'b c', effect: Odd, tolerationSeconds: 1}]"
                .to_owned(),
            vec![
                "spec.tolerations[0].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'".into(),
                "spec.tolerations[1].effect: Invalid value: \"Odd\": effect must be 'NoExecute' when".into(),
                "spec.tolerations[1].operator: Invalid value: \"b c\": a valid label must be".into(),
                "spec.tolerations[1].effect: Unsupported value: \"Odd\": supported values: \"NoSchedule\", \
                 \"PreferNoSchedule\", \"NoExecute\""
                    .into(),
            ],
        ),
    ];
    for (rest, wanted) in cases {
        check(&spec(rest), &wanted.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn security() {
    let cases: &[(String, &[&str])] = &[
        (
            spec(
                "securityContext: {runAsUser: 1000, fsGroup: 5, sysctls: [{name: kernel.shm_rmid_forced, value: '0'}]}",
            ),
            &[],
        ),
        (
            spec(
                "securityContext: {runAsUser: -1, supplementalGroups: [-2], fsGroupChangePolicy: Odd,
                  sysctls: [{name: a, value: ''}, {name: a, value: ''}, {name: A, value: ''}],
                  seccompProfile: {type: Localhost}, appArmorProfile: {type: Odd}}",
            ),
            &[
                "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                "spec.securityContext.supplementalGroups[0]: Invalid value: -2: must be between 0",
                "spec.securityContext.sysctls[1].name: Duplicate value: \"a\"",
                "spec.securityContext.sysctls[2].name: Invalid value: \"A\": must have at most 253 characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
                "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
                "spec.securityContext.appArmorProfile.type: Unsupported value: \"Odd\": supported values: \"Localhost\", \
                 \"RuntimeDefault\", \"Unconfined\"",
                "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"Odd\": supported values: \"Always\", \
                 \"OnRootMismatch\"",
            ],
        ),
        (
            one("securityContext: {privileged: true, allowPrivilegeEscalation: false, procMount: Unmasked}"),
            &[
                "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false",
                "spec.containers[0].securityContext: Invalid value: {",
            ],
        ),
        (
            spec("hostUsers: false, hostNetwork: true, hostPID: true, shareProcessNamespace: true"),
            &[
                "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both",
                "spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false",
                "spec.HostPID: Forbidden: when `pod.Spec.HostUsers` is false",
            ],
        ),
        (
            spec("os: {name: windows}, securityContext: {runAsUser: 1}"),
            &["spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod"],
        ),
        (
            spec("os: {name: linux}, securityContext: {windowsOptions: {runAsUserName: a}}"),
            &["spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"],
        ),
        (
            spec("os: {name: plan9}"),
            &["spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""],
        ),
        (
            spec("securityContext: {windowsOptions: {hostProcess: true}}"),
            &[
                "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
            ],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, wanted);
    }
}

#[test]
fn containers() {
    let cases: &[(String, &[&str])] = &[
        (
            "{hostNetwork: true, containers: [{name: a, image: i, ports: [{containerPort: 80, hostPort: 81}]},
              {name: b, image: i, ports: [{containerPort: 81}]}]}"
                .to_owned(),
            &[
                "spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//81\"",
                "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true",
            ],
        ),
        (
            one("resources: {limits: {example.com/gpu: 500m, hugepages-2Mi: 3Mi}, requests: {example.com/gpu: 1}}"),
            &[
                "spec.containers[0].resources.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer",
                "spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer \
                 multiple of hugepages-2Mi",
                "spec.containers[0].resources.requests: Invalid value: \"1\": must be equal to example.com/gpu limit of 500m",
                "spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not",
                "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
            ],
        ),
        (
            one("resources: {requests: {example.com/gpu: 1}, claims: [{name: a}]}"),
            &[
                "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
                "spec.containers[0].resources.claims[0]: Not found: \"a\": must be one of the names in pod.spec.resourceClaims \
                 which is empty",
            ],
        ),
        (
            "{restartPolicy: Never, containers: [{name: c, image: i, resizePolicy: [{resourceName: gpu, restartPolicy: NotRequired},
              {resourceName: cpu, restartPolicy: RestartContainer}]}]}"
                .to_owned(),
            &[
                "spec.containers[0].resizePolicy: Unsupported value: \"gpu\": supported values: \"cpu\", \"memory\"",
                "spec.containers[0].resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when \
                 `restartPolicy` is 'Never'",
            ],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, wanted);
    }
}

#[test]
fn lives_and_environments_of_containers() {
    let cases: &[(String, &[&str])] = &[
        (
            one("lifecycle: {preStop: {sleep: {seconds: 31}}}"),
            &["spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than \
               terminationGracePeriodSeconds (30)"],
        ),
        (
            one("restartPolicyRules: [{action: Restart}]"),
            &[
                "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
                "spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified",
            ],
        ),
        (
            one("env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1k}}},
                  {name: B, valueFrom: {fieldRef: {fieldPath: metadata.labels}}}]"),
            &[
                "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's \
                 values 1m and 1 are supported with the cpu resource",
                "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported \
                 values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\"",
            ],
        ),
        (
            "{resources: {requests: {cpu: 1}, limits: {cpu: 1}}, containers: [{name: c, image: i, resources: {requests: {cpu: 2},
              limits: {cpu: 2}}}]}"
                .to_owned(),
            &[
                "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container \
                 requests of 2",
                "spec.resources.containers[0][cpu].limits: Invalid value: \"2\": must be less than or equal to pod limits of 1",
            ],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, wanted);
    }
}

#[test]
fn volumes() {
    let mounted = |mount: &str, volume: &str| {
        format!(
            "{{containers: [{{name: c, image: i, volumeMounts: [{{name: v, {mount}}}]}}], volumes: [{{name: v, {volume}}}]}}"
        )
    };
    let volume = |source: &str| format!("{{{C}, volumes: [{{name: v, {source}}}]}}");
    let cases: &[(String, &[&str])] = &[
        (
            mounted("mountPath: /a, mountPropagation: Bidirectional, recursiveReadOnly: Enabled", "emptyDir: {}"),
            &[
                "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only",
                "spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
                "spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when mountPropagation is",
            ],
        ),
        (
            mounted("mountPath: /a, subPath: b", "image: {reference: r}"),
            &["spec.containers[0].volumeMounts[0].subPath: Invalid value: \"b\": not allowed in image volume sources"],
        ),
        (
            "{containers: [{name: c, image: i, volumeDevices: [{name: v, devicePath: /a/..}, {name: w, devicePath: /d}]}],
              volumes: [{name: v, emptyDir: {}}]}"
                .to_owned(),
            &[
                "spec.containers[0].volumeDevices[0].name: Invalid value: \"v\": can only use volume source type of \
                 PersistentVolumeClaim or Ephemeral for block mode",
                "spec.containers[0].volumeDevices[0].devicePath: Invalid value: \"/a/..\": can not contain backsteps ('..')",
                "spec.containers[0].volumeDevices[1].name: Not found: \"w\"",
            ],
        ),
        (volume("emptyDir: {sizeLimit: -1}"), &["spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a"]),
        (volume("image: {}"), &["spec.volumes[0].image.reference: Required value"]),
        (
            volume("configMap: {name: m, defaultMode: 512, items: [{key: a, path: ../b}, {key: '', path: ..c}]}"),
            &[
                "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal)",
                "spec.volumes[0].configMap.items[0].path: Invalid value: \"../b\": must not contain '..'",
                "spec.volumes[0].configMap.items[1].key: Required value",
                "spec.volumes[0].configMap.items[1].path: Invalid value: \"..c\": must not start with '..'",
            ],
        ),
        (
            volume(
                "projected: {sources: [{secret: {name: s, items: [{key: a, path: p}]}, configMap: {name: m}},
                  {downwardAPI: {items: [{path: p, fieldRef: {fieldPath: metadata.name}}]}},
                  {serviceAccountToken: {path: t, expirationSeconds: 5}}]}",
            ),
            &[
                "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source",
                "spec.volumes[0].projected: Invalid value: \"p\": conflicting duplicate paths",
                "spec.volumes[0].projected.sources[2].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a \
                 duration less than 10 minutes",
            ],
        ),
        (
            volume("ephemeral: {volumeClaimTemplate: {metadata: {name: x}, spec: {accessModes: [ReadWriteOnce]}}}"),
            &[
                "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set",
                "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
            ],
        ),
        (
            volume("nfs: {server: s, path: /p}, iscsi: {targetPortal: p, iqn: x, lun: 0}"),
            &["spec.volumes[0].iscsi: Forbidden: may not specify more than 1 volume type"],
        ),
    ];
    for (spec, wanted) in cases {
        check(spec, wanted);
    }
}

#[test]
fn annotations() {
    let annotated = |key: &str, value: &str| {
        let mut pod = pod(ONE, "{}");
        pod.metadata.annotations = Some([(key.to_owned(), value.to_owned())].into());
        pod.fill_defaults();
        let mut errs = FieldErrors::new();
        pod.validate(&mut errs);
        messages(&errs)
    };
    for (key, value, wanted) in [
        ("controller.kubernetes.io/pod-deletion-cost", "-5", None),
        (
            "controller.kubernetes.io/pod-deletion-cost",
            "much",
            Some(
                "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"much\": must be a 32bit integer",
            ),
        ),
        (
            "kubernetes.io/config.mirror",
            "x",
            Some(
                "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
            ),
        ),
        (
            "container.apparmor.security.beta.kubernetes.io/d",
            "unconfined",
            Some(
                "metadata.annotations[container.apparmor.security.beta.kubernetes.io/d]: Invalid value: \"d\": container not found",
            ),
        ),
    ] {
        assert_eq!(annotated(key, value), wanted.into_iter().map(String::from).collect::<Vec<_>>(), "{key}");
    }
}

#[test]
fn gated_pods_are_told_where_to_go() {
    let gated = |rest: &str| spec(&format!("schedulingGates: [{{name: g}}], {rest}"));
    let affinity = |expressions: &str| {
        format!(
            "affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: \
             [{{matchExpressions: [{expressions}]}}]}}}}}}"
        )
    };
    let (a, b) = ("{key: a, operator: Exists}", "{key: b, operator: Exists}");
    let terms =
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid value";
    let cases = [
        (gated("nodeSelector: {a: b}"), gated("nodeSelector: {a: b, c: d}"), None),
        (
            gated("nodeSelector: {a: b}"),
            gated("nodeSelector: {a: c}"),
            Some("spec.nodeSelector: Invalid value: {\"a\":\"c\"}: only additions to spec.nodeSelector are allowed"),
        ),
        (gated("hostname: h"), gated(&format!("hostname: h, {}", affinity(a))), None),
        (gated(&affinity(a)), gated(&affinity(&format!("{a}, {b}"))), None),
        (gated(&affinity(a)), gated(&affinity(b)), Some(terms)),
        (
            gated("hostname: h"),
            spec("hostname: h, schedulingGates: [{name: g}, {name: h}]"),
            Some(
                "spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'h'",
            ),
        ),
    ];
    for (old, new, wanted) in cases {
        let (mut old, mut new) = (pod(&old, "{}"), pod(&new, "{}"));
        old.fill_defaults();
        new.fill_defaults();
        let mut errs = FieldErrors::new();
        new.validate_update(&old, &mut errs);
        let got = messages(&errs);
        let right = got.len() == usize::from(wanted.is_some()) && wanted.is_none_or(|w| got[0].starts_with(w));
        assert!(right, "{got:#?} {wanted:?}");
    }
}

/// What a write through a subresource is told, and the pod that it makes.
fn through(subresource: &str, old: &Pod, new: &Pod) -> (Pod, Vec<String>) {
    let kind = kind_of::<Pod>();
    let mut new: Box<dyn Object> = new.boxed_clone();
    kind.prepare_part_update(subresource, new.as_mut(), old);
    let mut errs = FieldErrors::new();
    kind.validate(new.as_ref(), &mut errs);
    kind.validate_part_update(subresource, new.as_ref(), old, &mut errs);
    (new.downcast_ref::<Pod>().unwrap().clone(), messages(&errs))
}

fn filled(spec: &str) -> Pod {
    let mut pod = pod(spec, "{phase: Running}");
    pod.fill_defaults();
    pod
}

#[test]
fn ephemeral_containers() {
    let with = |list: &str| filled(&spec(&format!("ephemeralContainers: [{list}]")));
    let debug = "{name: d, image: j, targetContainerName: c}";
    let (made, errs) = through("ephemeralcontainers", &filled(ONE), &with(debug));
    assert_eq!(errs, [] as [&str; 0]);
    assert_eq!(made.spec.as_ref().unwrap().ephemeral_containers.as_ref().unwrap().len(), 1);
    let cases: &[(&str, &str, &[&str])] = &[
        (debug, debug, &[]),
        (debug, "", &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed"]),
        (
            debug,
            "{name: d, image: k, targetContainerName: c}",
            &["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be changed\n  \
               spec.ephemeralContainers.image: \"j\" -> \"k\""],
        ),
        (
            "",
            "{name: c, image: j, targetContainerName: x, ports: [{containerPort: 1}], lifecycle: {}}",
            &[
                "spec.ephemeralContainers[0].name: Duplicate value: \"c\"",
                "spec.ephemeralContainers[0].targetContainerName: Not found: \"x\"",
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
                "spec.ephemeralContainers[0].lifecycle: Forbidden: cannot be set for an Ephemeral Container",
            ],
        ),
    ];
    for (old, new, wanted) in cases {
        let (_, got) = through("ephemeralcontainers", &with(old), &with(new));
        let right = got.len() == wanted.len() && got.iter().zip(*wanted).all(|(g, w)| g.starts_with(w));
        assert!(right, "{new}: {got:#?}");
    }
    let more = format!("{{name: e, image: j}}, {debug}");
    let (made, errs) = through("ephemeralcontainers", &with(debug), &with(&more));
    assert_eq!(errs, [] as [&str; 0]);
    let made = made.spec.unwrap().ephemeral_containers.unwrap();
    let names: Vec<_> = made.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["d", "e"], "the one that was there keeps its place");
    let mut errs = FieldErrors::new();
    with(debug).validate_create(&mut errs);
    assert_eq!(messages(&errs), ["spec.ephemeralContainers: Forbidden: cannot be set on create"]);
}

#[test]
fn resized() {
    let of = |resources: &str| filled(&one(&format!("resources: {{{resources}}}")));
    let base = "requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 2, memory: 2Gi}";
    let cases: &[(&str, &str, &[&str])] = &[
        (base, "requests: {cpu: 2, memory: 512Mi}, limits: {cpu: 2, memory: 1Gi}", &[]),
        (
            base,
            "requests: {cpu: 2, memory: 1Gi}, limits: {cpu: 2}",
            &["spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"],
        ),
        (
            base,
            "requests: {cpu: 2, memory: 2Gi}, limits: {cpu: 2, memory: 2Gi}",
            &["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"],
        ),
        (
            base,
            "requests: {cpu: 1, memory: 1Gi, ephemeral-storage: 1Gi}, limits: {cpu: 2, memory: 2Gi}",
            &["spec: Forbidden: only cpu and memory resources are mutable"],
        ),
    ];
    for (old, new, wanted) in cases {
        let (mut old, new) = (of(old), of(new));
        old.status.as_mut().unwrap().qos_class = Some("Burstable".to_owned());
        let (made, got) = through("resize", &old, &new);
        assert_eq!(got, *wanted);
        assert_eq!(made.spec.unwrap().containers[0].resources, new.spec.unwrap().containers[0].resources);
    }
    let old_node = pod(
        ONE,
        "{containerStatuses: [{name: c, image: i, imageID: i, ready: true, restartCount: 0, state: {running: {}}}]}",
    );
    let mut old = old_node;
    old.fill_defaults();
    let (_, got) = through("resize", &old, &filled(ONE));
    assert_eq!(got, ["spec: Forbidden: Pod running on node without support for resize"]);
}

#[test]
fn statuses() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("{phase: Pending}", "{phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}", &[]),
        (
            "{qosClass: BestEffort}",
            "{qosClass: Burstable}",
            &["status.qosClass: Invalid value: \"Burstable\": field is immutable"],
        ),
        (
            "{}",
            "{podIPs: [{ip: a}, {ip: 10.0.0.1}, {ip: 10.0.0.1}], hostIP: 10.0.0.2, hostIPs: [{ip: 10.0.0.3}]}",
            &[
                "status.podIPs[0]: Invalid value: \"a\": must be a valid IP address",
                "status.podIPs: Invalid value: [{\"ip\":\"a\"},{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.1\"}]: may specify no more",
                "status.podIPs[2]: Duplicate value: {\"ip\":\"10.0.0.1\"}",
                "status.hostIPs[0].ip: Invalid value: \"10.0.0.3\": must be equal to `hostIP`",
            ],
        ),
        (
            "{}",
            "{conditions: [{type: Ready, status: 'True'}, {type: 'a b', status: 'True'}], nominatedNodeName: A}",
            &[
                "metadata.conditions[1].Type: Invalid value: \"a b\": name part",
                "status.nominatedNodeName: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
            ],
        ),
    ];
    for (old, new, wanted) in cases {
        let (old, new) = (pod(ONE, old), pod(ONE, new));
        let mut errs = FieldErrors::new();
        new.validate_status_update(&old, &mut errs);
        let got = messages(&errs);
        let right = got.len() == wanted.len() && got.iter().zip(*wanted).all(|(g, w)| g.starts_with(w));
        assert!(right, "{got:#?}");
    }
}
