//! The contract of kinds: what holds for each of them, whatever is in the objects.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{all, answered};
use crate::{
    field::FieldErrors,
    kind::{Scope, Storage},
    object::{KindRef, Object, kind_of},
};

pub(crate) mod examples;
mod examples_access;
mod examples_extension;
mod rules;

/// When all tests take place.
fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

/// The kind and the object of a manifest; all its fields must be known.
pub(crate) fn read(manifest: &Value) -> (KindRef, Box<dyn Object>) {
    let text = |field: &str| manifest[field].as_str().unwrap_or_default().to_owned();
    let of = |k: &KindRef| k.names().kind == text("kind") && k.names().api_version() == text("apiVersion");
    let kind = every().into_iter().find(of).unwrap_or_else(|| panic!("no kind for {manifest}"));
    let decoded = kind.decode_value(manifest.clone()).unwrap();
    assert_eq!(decoded.unknown, Vec::<String>::new(), "{manifest}");
    (kind, decoded.object)
}

/// All kinds, those that are not stored and the request for tokens too.
pub(crate) fn every() -> Vec<KindRef> {
    let token = kind_of::<k8s_openapi::api::authentication::v1::TokenRequest>();
    all().into_iter().chain(answered()).chain([token]).collect()
}

/// What is wrong with a manifest that is to be created.
fn errors(manifest: &Value) -> Vec<String> {
    let (kind, mut object) = read(manifest);
    kind.fill_defaults(object.as_mut());
    kind.prepare_create(object.as_mut());
    let mut errs = FieldErrors::new();
    if kind.storage() == Storage::Stored {
        crate::meta::validate_meta(object.meta(), &kind.names(), kind.scope(), &mut errs);
    }
    kind.validate(object.as_ref(), &mut errs);
    kind.validate_create(object.as_ref(), &mut errs);
    errs.0.iter().map(ToString::to_string).collect()
}

/// What is wrong with a change from one manifest to another.
fn update_errors(old: &Value, new: &Value) -> Vec<String> {
    let (kind, mut old) = read(old);
    kind.fill_defaults(old.as_mut());
    kind.prepare_create(old.as_mut());
    let (_, mut new) = read(new);
    kind.fill_defaults(new.as_mut());
    kind.prepare_update(new.as_mut(), old.as_ref());
    let mut errs = FieldErrors::new();
    kind.validate(new.as_ref(), &mut errs);
    kind.validate_update(new.as_ref(), old.as_ref(), &mut errs);
    errs.0.iter().map(ToString::to_string).collect()
}

fn bare(kind: &KindRef) -> Value {
    let mut meta = json!({"name": "a"});
    if kind.scope() == Scope::Namespaced {
        meta["namespace"] = json!("default");
    }
    json!({"apiVersion": kind.names().api_version(), "kind": kind.names().kind, "metadata": meta})
}

#[test]
fn names_are_unique() {
    let (mut resources, mut kinds, mut words) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for kind in every() {
        let names = kind.names();
        assert!(resources.insert((names.group, names.version, names.plural)), "{names:?}");
        assert!(kinds.insert((names.group, names.version, names.kind)), "{names:?}");
        assert_eq!(names.singular, names.kind.to_lowercase());
        for word in names.short.iter().chain([&names.plural, &names.singular]) {
            // What several groups and versions serve has one name.
            assert_eq!(*words.entry(*word).or_insert(names.plural), names.plural, "{word}");
        }
    }
}

#[test]
fn discovery() {
    let line = |k: &KindRef| {
        let names = k.names();
        let subs: Vec<_> = k.subresources().iter().map(|s| s.name).collect();
        let columns: Vec<_> =
            k.columns().iter().map(|c| format!("{}{}", c.name, if c.priority > 0 { "*" } else { "" })).collect();
        format!(
            "{} {:?} {:?} {:?} subresources {subs:?}\n  columns {}\n  fields {}\n",
            names.qualified_resource(),
            k.scope(),
            names.short,
            names.categories,
            columns.join(", "),
            if k.selectable_fields().is_empty() { "none".to_owned() } else { k.selectable_fields().join(" ") },
        )
    };
    let got: String = every().iter().map(line).collect();
    expect![[r#"
        configmaps Namespaced ["cm"] [] subresources []
          columns Name, Data, Age
          fields none
        endpoints Namespaced ["ep"] [] subresources []
          columns Name, Endpoints, Age
          fields none
        events Namespaced ["ev"] [] subresources []
          columns Last Seen, Type, Reason, Object, Subobject*, Source*, Message, First Seen*, Count*, Name*
          fields involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type
        namespaces Cluster ["ns"] [] subresources ["finalize", "status"]
          columns Name, Status, Age
          fields status.phase
        nodes Cluster ["no"] [] subresources ["status"]
          columns Name, Status, Roles, Age, Version, Internal-IP*, External-IP*, OS-Image*, Kernel-Version*, Container-Runtime*
          fields spec.unschedulable
        pods Namespaced ["po"] ["all"] subresources ["binding", "eviction", "log", "status"]
          columns Name, Ready, Status, Restarts, Age, IP*, Node*, Nominated Node*, Readiness Gates*
          fields spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase status.podIP status.nominatedNodeName
        secrets Namespaced [] [] subresources []
          columns Name, Type, Data, Age
          fields type
        services Namespaced ["svc"] ["all"] subresources ["status"]
          columns Name, Type, Cluster-IP, External-IP, Port(s), Age, Selector*
          fields spec.clusterIP spec.type
        serviceaccounts Namespaced ["sa"] [] subresources ["token"]
          columns Name, Secrets, Age
          fields none
        deployments.apps Namespaced ["deploy"] ["all"] subresources ["scale", "status"]
          columns Name, Ready, Up-to-date, Available, Age, Containers*, Images*, Selector*
          fields none
        replicasets.apps Namespaced ["rs"] ["all"] subresources ["scale", "status"]
          columns Name, Desired, Current, Ready, Age, Containers*, Images*, Selector*
          fields status.replicas
        leases.coordination.k8s.io Namespaced [] [] subresources []
          columns Name, Holder, Age
          fields none
        endpointslices.discovery.k8s.io Namespaced [] [] subresources []
          columns Name, AddressType, Ports, Endpoints, Age
          fields none
        ingresses.networking.k8s.io Namespaced ["ing"] [] subresources ["status"]
          columns Name, Class, Hosts, Address, Ports, Age
          fields none
        ingressclasses.networking.k8s.io Cluster [] [] subresources []
          columns Name, Controller, Parameters, Age
          fields none
        ipaddresses.networking.k8s.io Cluster ["ip"] [] subresources []
          columns Name, ParentRef, Age
          fields none
        networkpolicies.networking.k8s.io Namespaced ["netpol"] [] subresources []
          columns Name, Pod-Selector, Age
          fields none
        servicecidrs.networking.k8s.io Cluster [] [] subresources ["status"]
          columns Name, CIDRs, Age
          fields none
        clusterroles.rbac.authorization.k8s.io Cluster [] [] subresources []
          columns Name, Created At
          fields none
        clusterrolebindings.rbac.authorization.k8s.io Cluster [] [] subresources []
          columns Name, Role, Age, Users*, Groups*, ServiceAccounts*
          fields none
        roles.rbac.authorization.k8s.io Namespaced [] [] subresources []
          columns Name, Created At
          fields none
        rolebindings.rbac.authorization.k8s.io Namespaced [] [] subresources []
          columns Name, Role, Age, Users*, Groups*, ServiceAccounts*
          fields none
        events.events.k8s.io Namespaced ["ev"] [] subresources []
          columns Last Seen, Type, Reason, Object, Subobject*, Source*, Message, First Seen*, Count*, Name*
          fields regarding.kind regarding.namespace regarding.name regarding.uid regarding.apiVersion regarding.resourceVersion regarding.fieldPath reason reportingController type
        apiservices.apiregistration.k8s.io Cluster [] ["api-extensions"] subresources ["status"]
          columns Name, Service, Available, Age
          fields none
        mutatingadmissionpolicies.admissionregistration.k8s.io Cluster [] ["api-extensions"] subresources []
          columns Name, Mutations, ParamKind, Age
          fields none
        mutatingadmissionpolicybindings.admissionregistration.k8s.io Cluster [] ["api-extensions"] subresources []
          columns Name, PolicyName, ParamRef, Age
          fields none
        mutatingwebhookconfigurations.admissionregistration.k8s.io Cluster [] ["api-extensions"] subresources []
          columns Name, Webhooks, Age
          fields none
        validatingadmissionpolicies.admissionregistration.k8s.io Cluster [] ["api-extensions"] subresources ["status"]
          columns Name, Validations, ParamKind, Age
          fields none
        validatingadmissionpolicybindings.admissionregistration.k8s.io Cluster [] ["api-extensions"] subresources []
          columns Name, PolicyName, ParamRef, Age
          fields none
        validatingwebhookconfigurations.admissionregistration.k8s.io Cluster [] ["api-extensions"] subresources []
          columns Name, Webhooks, Age
          fields none
        customresourcedefinitions.apiextensions.k8s.io Cluster ["crd", "crds"] ["api-extensions"] subresources ["status"]
          columns Name, Created At
          fields none
        certificatesigningrequests.certificates.k8s.io Cluster ["csr"] [] subresources ["approval", "status"]
          columns Name, Age, SignerName, Requestor, RequestedDuration, Condition
          fields spec.signerName
        flowschemas.flowcontrol.apiserver.k8s.io Cluster [] [] subresources ["status"]
          columns Name, PriorityLevel, MatchingPrecedence, DistinguisherMethod, Age, MissingPL
          fields none
        prioritylevelconfigurations.flowcontrol.apiserver.k8s.io Cluster [] [] subresources ["status"]
          columns Name, Type, NominalConcurrencyShares, Queues, HandSize, QueueLengthLimit, Age
          fields none
        selfsubjectreviews.authentication.k8s.io Cluster [] [] subresources []
          columns Name, Age
          fields none
        tokenreviews.authentication.k8s.io Cluster [] [] subresources []
          columns Name, Age
          fields none
        localsubjectaccessreviews.authorization.k8s.io Namespaced [] [] subresources []
          columns Name, Age
          fields none
        selfsubjectaccessreviews.authorization.k8s.io Cluster [] [] subresources []
          columns Name, Age
          fields none
        selfsubjectrulesreviews.authorization.k8s.io Cluster [] [] subresources []
          columns Name, Age
          fields none
        subjectaccessreviews.authorization.k8s.io Cluster [] [] subresources []
          columns Name, Age
          fields none
        tokenrequests.authentication.k8s.io Namespaced [] [] subresources []
          columns Name, Age
          fields none
    "#]].assert_eq(&got);
}

#[test]
fn objects_read_back_and_defaults_are_idempotent() {
    for manifest in every().iter().map(bare).chain(examples::all()) {
        let (kind, mut object) = read(&manifest);
        kind.fill_defaults(object.as_mut());
        let once = object.to_value().unwrap();
        kind.fill_defaults(object.as_mut());
        assert_eq!(once, object.to_value().unwrap(), "defaults are not idempotent");
        kind.prepare_create(object.as_mut());
        let stored = object.to_value().unwrap();
        kind.fill_defaults(object.as_mut());
        assert_eq!(stored, object.to_value().unwrap(), "defaults change what was prepared");
        let back = kind.decode(&object.to_json().unwrap()).unwrap();
        assert!(back.unknown.is_empty() && back.object.same_as(object.as_ref()), "{stored}");
    }
}

#[test]
fn an_update_without_change_is_right_and_changes_nothing() {
    for manifest in examples::all() {
        let (kind, mut old) = read(&manifest);
        kind.fill_defaults(old.as_mut());
        kind.prepare_create(old.as_mut());
        let mut new = old.boxed_clone();
        kind.fill_defaults(new.as_mut());
        kind.prepare_update(new.as_mut(), old.as_ref());
        assert!(new.same_as(old.as_ref()), "{manifest}");
        assert_ne!(kind.generation_differs(new.as_ref(), old.as_ref()), Some(true), "{manifest}");
        let mut errs = FieldErrors::new();
        kind.validate_update(new.as_ref(), old.as_ref(), &mut errs);
        kind.validate_status_update(new.as_ref(), old.as_ref(), &mut errs);
        assert!(errs.is_empty(), "{errs:?}");
    }
}

#[test]
fn examples_are_right_and_each_kind_has_one() {
    let mut seen = BTreeSet::new();
    for manifest in examples::all() {
        assert_eq!(errors(&manifest), Vec::<String>::new(), "{manifest}");
        seen.insert((
            manifest["apiVersion"].as_str().unwrap().to_owned(),
            manifest["kind"].as_str().unwrap().to_owned(),
        ));
    }
    assert_eq!(seen.len(), every().len());
}

#[test]
fn tables() {
    let mut got = String::new();
    for manifest in examples::all() {
        let (kind, mut object) = read(&manifest);
        kind.fill_defaults(object.as_mut());
        let cells = kind.row(object.as_ref(), now());
        let cells: Vec<_> = cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
        got += &format!("{}: {}\n", kind.names().kind, cells.join(" | "));
    }
    expect![[r#"
        Pod: web | 2/2 | Running | 3 (5m ago) | 60m | 10.1.0.5 | n1 | <none> | 1/1
        ConfigMap: a | 2 | <unknown>
        Secret: a | Opaque | 2 | <unknown>
        ServiceAccount: a | 1 | <unknown>
        Namespace: a | Active | 24h
        Node: n1 | Ready,SchedulingDisabled | control-plane,edge | 31d | v1.36.0 | 127.0.0.1 | <none> | Debian | 6.1 | wasmtime://48
        Event: 60s | Warning | BackOff | pod/web | spec.containers{c} | podium-agent, n1 | Back-off restarting failed container | 10m | 3 | web.17
        Lease: a | me | <unknown>
        Endpoints: a | 10.0.0.1:80,10.0.0.2:80,10.0.0.1:81 + 1 more... | <unknown>
        EndpointSlice: a | IPv4 | 80 | 10.0.0.1 | <unknown>
        ReplicaSet: a | 3 | 2 | 1 | <unknown> | c | file:///c.wasm | app in (a,b)
        Deployment: web | 3/3 | 2 | 1 | 4h | a,b | a,b:1 | app=web
        Service: a | NodePort | 10.96.0.7 | <none> | 80:30080/TCP,53/UDP | <unknown> | app=a
        Ingress: web | podium | a.example.com,*.example.com,c.example.com + 1 more... | 127.0.0.1,h | 80, 443 | <unknown>
        IngressClass: podium | podium.dev/ingress | P.a.b/p | <unknown>
        NetworkPolicy: a | app=a | <unknown>
        IPAddress: 10.96.0.1 | services/default/kubernetes | <unknown>
        ServiceCIDR: kubernetes | 10.96.0.0/12,fd00::/108 | <unknown>
        Role: system:reader | 2026-01-01T03:04:05Z
        ClusterRole: a | null
        RoleBinding: a | Role/system:reader | <unknown> | jane |  | n/a
        ClusterRoleBinding: a | ClusterRole/a | <unknown> |  | system:masters, g | 
        Event: 5s | Normal | Scheduled | pod/web |  | kube-scheduler, s-1 | Assigned | 4m5s | 2 | web.18
        APIService: v1.a.b | n/s | False (Gone) | <unknown>
        ValidatingWebhookConfiguration: a | 1 | <unknown>
        MutatingWebhookConfiguration: a | 2 | <unknown>
        ValidatingAdmissionPolicy: a | 1 | rules.example.com/v1/ReplicaLimit | <unknown>
        ValidatingAdmissionPolicyBinding: a | a | n/p | <unknown>
        MutatingAdmissionPolicy: a | 2 | <unset> | <unknown>
        MutatingAdmissionPolicyBinding: a | a | a=b | <unknown>
        CustomResourceDefinition: crontabs.stable.example.com | 2026-01-01T03:04:05Z
        CertificateSigningRequest: csr:Any | <unknown> | kubernetes.io/kube-apiserver-client | jane | 24h | Approved,Issued
        FlowSchema: a | workload-low | 1000 | ByUser | <unknown> | False
        PriorityLevelConfiguration: a | Limited | 30 | 16 | 8 | 50 | <unknown>
        TokenReview:  | <unknown>
        SelfSubjectReview:  | <unknown>
        SubjectAccessReview:  | <unknown>
        SelfSubjectAccessReview:  | <unknown>
        LocalSubjectAccessReview:  | <unknown>
        SelfSubjectRulesReview:  | <unknown>
        TokenRequest: a | <unknown>
    "#]].assert_eq(&got);
}

/// Calls everything that a kind does; nothing may panic.
fn exercise(kind: &KindRef, object: &dyn Object, old: &dyn Object) {
    assert_eq!(kind.row(object, now()).len(), kind.columns().len());
    for field in kind.selectable_fields() {
        assert!(kind.selectable(object, field).is_some());
    }
    let mut errs = FieldErrors::new();
    crate::meta::validate_meta(object.meta(), &kind.names(), kind.scope(), &mut errs);
    crate::meta::validate_meta_update(object.meta(), old.meta(), &mut errs);
    kind.validate(object, &mut errs);
    kind.validate_update(object, old, &mut errs);
    kind.validate_status_update(object, old, &mut errs);
    kind.generation_differs(object, old);
    kind.grace_seconds(object, None);
    kind.grace_seconds(object, Some(-1));
    kind.scale(object);
    let mut new = object.boxed_clone();
    kind.fill_defaults(new.as_mut());
    kind.prepare_create(new.as_mut());
    kind.validate(new.as_ref(), &mut errs);
    let mut new = object.boxed_clone();
    kind.prepare_update(new.as_mut(), old);
    kind.validate_update(new.as_ref(), old, &mut errs);
    let mut new = object.boxed_clone();
    kind.prepare_status_update(new.as_mut(), old);
    kind.set_scale(new.as_mut(), -1);
}

/// All values with one place changed to something odd.
fn odd(value: &Value) -> Vec<Value> {
    let mut all = vec![Value::Null, json!(""), json!(-1), json!(i64::MAX), json!("é\u{0}/.."), json!([]), json!({})];
    match value {
        Value::Object(map) => {
            for key in map.keys() {
                for changed in odd(&map[key]) {
                    let mut map = map.clone();
                    map.insert(key.clone(), changed);
                    all.push(Value::Object(map));
                }
            }
        }
        Value::Array(list) => {
            all.push(list.iter().chain(list).cloned().collect());
            for i in 0..list.len() {
                for changed in odd(&list[i]) {
                    let mut list = list.clone();
                    list[i] = changed;
                    all.push(Value::Array(list));
                }
            }
        }
        _ => {}
    }
    all
}

#[test]
fn nothing_panics_on_odd_objects() {
    let mut tried = 0;
    for manifest in every().iter().map(bare).chain(examples::all()) {
        let (kind, old) = read(&manifest);
        let empty = bare(&kind);
        for mut changed in odd(&manifest).into_iter().filter(Value::is_object) {
            changed["apiVersion"] = empty["apiVersion"].clone();
            changed["kind"] = empty["kind"].clone();
            // What has not the right types is refused by decoding, with words.
            let Ok(decoded) = kind.decode_value(changed) else { continue };
            exercise(&kind, decoded.object.as_ref(), old.as_ref());
            exercise(&kind, old.as_ref(), decoded.object.as_ref());
            tried += 1;
        }
    }
    assert!(tried > 500, "only {tried} objects could be read");
}
