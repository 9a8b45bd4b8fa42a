//! Who may do what: roles and bindings, as ServiceAccounts and impersonated users meet them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::Method;
use podium_store::MemoryStore;
use serde_json::{Value, json};

use crate::{
    harness::{Answer, Cluster},
    kubectl,
};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const CLUSTER_ROLE_BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

/// Somebody whom the administrator acts as.
pub(crate) struct As<'a>(pub(crate) &'a Cluster, pub(crate) &'a str, pub(crate) &'a [&'a str]);

impl As<'_> {
    pub(crate) async fn send(&self, method: Method, path: &str, media: &str, body: String) -> Answer {
        let mut headers = vec![("content-type", media), ("impersonate-user", self.1)];
        headers.extend(self.2.iter().map(|group| ("impersonate-group", *group)));
        self.0.send(method, path, &headers, body.into()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "application/json", String::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, "application/json", body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, "application/json", body.to_string()).await
    }
}

fn role(kind: &str, name: &str, rules: &[(&str, &str, &str)]) -> Value {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    let rule = |(verbs, group, resources): &(&str, &str, &str)| json!({"verbs": list(verbs), "apiGroups": list(group), "resources": list(resources)});
    let rules: Vec<Value> = rules.iter().map(rule).collect();
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "rules": rules})
}

fn binding(kind: &str, name: &str, role: (&str, &str), subject: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1}, "subjects": [subject],
    })
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "name": name})
}

fn roles(namespace: &str) -> String {
    format!("{RBAC}/namespaces/{namespace}/roles")
}

fn role_bindings(namespace: &str) -> String {
    format!("{RBAC}/namespaces/{namespace}/rolebindings")
}

async fn access(cluster: &Cluster, spec: Value) -> Value {
    let ask = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
    cluster.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", ask).await.ok(201)["status"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_reads_pods_of_its_namespace_alone() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let robot = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    cluster.post(accounts, robot).await.ok(201);
    let ask = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = cluster.post(&format!("{accounts}/robot/token"), ask).await.ok(201);
    let token = format!("Bearer {}", answer["status"]["token"].as_str().unwrap());
    let get = async |path: &str| cluster.send(Method::GET, path, &[("authorization", &token)], Vec::new()).await;
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(get("/apis").await.status, 200, "who is known may see what is served");
    assert_eq!(get("/openid/v1/jwks").await.status, 200);
    assert_eq!(get("/metrics").await.status, 403);
    assert_eq!(
        get(pods).await.refused(403),
        "pods is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"pods\" in API group \
         \"\" in the namespace \"default\""
    );
    let account = json!({"kind": "ServiceAccount", "name": "robot"});
    let bound = binding("RoleBinding", "reads", ("Role", "reader"), account);
    cluster.post(&role_bindings("default"), bound).await.ok(201);
    assert_eq!(
        get(pods).await.refused(403),
        "pods is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"pods\" in API group \
         \"\" in the namespace \"default\": RBAC: roles.rbac.authorization.k8s.io \"reader\" not found"
    );
    // Each change takes effect with its answer.
    for _ in 0..20 {
        cluster.post(&roles("default"), role("Role", "reader", &[("get,list", "", "pods")])).await.ok(201);
        assert_eq!(get(pods).await.status, 200);
        cluster.delete(&format!("{}/reader", roles("default"))).await.ok(200);
        assert_eq!(get(pods).await.status, 403);
    }
    cluster.post(&roles("default"), role("Role", "reader", &[("get,list", "", "pods")])).await.ok(201);
    for (path, code) in [
        (pods, 200),
        ("/api/v1/namespaces/default/pods/none", 404),
        ("/api/v1/namespaces/default/pods/none/log", 403),
        ("/api/v1/namespaces/default/pods?watch=1", 403),
        ("/api/v1/namespaces/default/secrets", 403),
        ("/api/v1/namespaces/kube-system/pods", 403),
        ("/api/v1/pods", 403),
        ("/api/v1/nodes", 403),
    ] {
        assert_eq!(get(path).await.status, code, "{path}");
    }
    let spec = json!({
        "user": "system:serviceaccount:default:robot",
        "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"},
    });
    let by = "RBAC: allowed by RoleBinding \"reads/default\" of Role \"reader\" to ServiceAccount \"robot/default\"";
    assert_eq!(access(&cluster, spec).await, json!({"allowed": true, "reason": by}));
    cluster.delete(&format!("{}/reads", role_bindings("default"))).await.ok(200);
    assert_eq!(get(pods).await.status, 403);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_groups_by_cluster_roles() {
    let cluster = Cluster::start().await;
    let jane = As(&cluster, "jane", &["devs"]);
    let devs = json!({"kind": "Group", "name": "devs"});
    cluster.post(CLUSTER_ROLES, role("ClusterRole", "maps", &[("*", "", "configmaps")])).await.ok(201);
    let bound = binding("ClusterRoleBinding", "devs", ("ClusterRole", "maps"), devs.clone());
    cluster.post(CLUSTER_ROLE_BINDINGS, bound).await.ok(201);
    jane.get("/api/v1/configmaps").await.ok(200);
    assert_eq!(As(&cluster, "jane", &[]).get("/api/v1/configmaps").await.status, 403);
    let question = json!({"user": "jane", "groups": ["devs"],
        "resourceAttributes": {"verb": "list", "resource": "configmaps"}});
    let by = "RBAC: allowed by ClusterRoleBinding \"devs\" of ClusterRole \"maps\" to Group \"devs\"";
    assert_eq!(access(&cluster, question).await, json!({"allowed": true, "reason": by}));
    // A ClusterRole, bound in a namespace, counts there; the namespace itself is in it.
    let bound = binding("RoleBinding", "devs", ("ClusterRole", "system:controller:namespace-controller"), devs);
    cluster.post(&role_bindings("kube-public"), bound).await.ok(201);
    jane.get("/api/v1/namespaces/kube-public").await.ok(200);
    assert_eq!(
        jane.get("/api/v1/namespaces/default").await.refused(403),
        "namespaces \"default\" is forbidden: User \"jane\" cannot get resource \"namespaces\" in API group \"\" in the \
         namespace \"default\""
    );
    let ask = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "kube-public"}});
    let status = &jane.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", ask).await.ok(201)["status"];
    let found = status["resourceRules"].as_array().unwrap();
    let maps = json!({"verbs": ["*"], "apiGroups": [""], "resources": ["configmaps"]});
    assert!(found.contains(&maps), "{status}");
    assert!(found.iter().any(|rule| rule["resources"] == json!(["namespaces/finalize", "namespaces/status"])));
    assert_eq!(
        (&status["incomplete"], status["nonResourceRules"][0]["verbs"][0].as_str()),
        (&json!(false), Some("get"))
    );
    cluster.stop().await;
}

/// A list or a watch of one object by its name is about that object.
#[tokio::test(flavor = "multi_thread")]
async fn one_name_may_be_listed_by_whoever_may_see_it() {
    let cluster = Cluster::start().await;
    let jane = As(&cluster, "jane", &[]);
    let rule =
        json!({"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"]});
    let mut one = role("Role", "one", &[]);
    one["rules"] = json!([rule]);
    cluster.post(&roles("default"), one).await.ok(201);
    cluster.post(&role_bindings("default"), binding("RoleBinding", "one", ("Role", "one"), user("jane"))).await.ok(201);
    let maps = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "b"] {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        cluster.post(maps, map).await.ok(201);
    }
    let list = jane.get(&format!("{maps}?fieldSelector=metadata.name%3Da")).await.ok(200);
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().filter_map(|i| i["metadata"]["name"].as_str()).collect();
    assert_eq!(names, ["a"]);
    let watch = format!("{maps}?watch=1&resourceVersion=nonsense&fieldSelector=metadata.name%3D");
    assert_eq!(jane.get(&format!("{watch}a")).await.status, 400, "it was allowed, and then not understood");
    assert_eq!(jane.get(&format!("{watch}b")).await.status, 403);
    for query in ["", "?fieldSelector=metadata.name%3Db", "?fieldSelector=metadata.name!%3Da", "?labelSelector=a"] {
        assert_eq!(jane.get(&format!("{maps}{query}")).await.status, 403, "{query}");
    }
    // It is no name for other verbs.
    let all = format!("{maps}?fieldSelector=metadata.name%3Da");
    assert_eq!(jane.send(Method::DELETE, &all, "application/json", String::new()).await.status, 403);
    cluster.stop().await;
}

/// Whoever may change an object may not make it.
#[tokio::test(flavor = "multi_thread")]
async fn making_by_changing_needs_the_verb_create() {
    let cluster = Cluster::start().await;
    let jane = As(&cluster, "jane", &[]);
    let rules = [("get,update,patch", "", "configmaps"), ("get,update", "coordination.k8s.io", "leases")];
    cluster.post(&roles("default"), role("Role", "changes", &rules)).await.ok(201);
    let bound = binding("RoleBinding", "changes", ("Role", "changes"), user("jane"));
    cluster.post(&role_bindings("default"), bound).await.ok(201);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"b": "c"}});
    let path = "/api/v1/namespaces/default/configmaps/a?fieldManager=me";
    let apply = async || jane.send(Method::PATCH, path, "application/apply-patch+yaml", map.to_string()).await;
    let refused = "configmaps \"a\" is forbidden: User \"jane\" cannot create resource \"configmaps\" in API group \"\" \
                   in the namespace \"default\"";
    assert_eq!(apply().await.refused(403), refused);
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}, "spec": {}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let answer = jane.put(&format!("{leases}/a"), lease).await.refused(403);
    assert!(answer.contains("cannot create resource \"leases\""), "{answer}");
    cluster.post("/api/v1/namespaces/default/configmaps", map.clone()).await.ok(201);
    apply().await.ok(200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_what_they_do_not_have() {
    let cluster = Cluster::start().await;
    let jane = As(&cluster, "jane", &["devs"]);
    let own = [("get,list", "", "pods"), ("*", "rbac.authorization.k8s.io", "roles,rolebindings")];
    let bind = async |name: &str, role: &str| {
        let bound = binding("RoleBinding", name, ("Role", role), user("jane"));
        cluster.post(&role_bindings("default"), bound).await.ok(201);
    };
    // `*` is all verbs, `escalate` and `bind` among them: these are what an administrator of a namespace has.
    let verbs = "get,list,create,update,delete";
    let own = [own[0], (verbs, own[1].1, own[1].2)];
    cluster.post(&roles("default"), role("Role", "own", &own)).await.ok(201);
    bind("own", "own").await;
    jane.post(&roles("default"), role("Role", "less", &[("get", "", "pods")])).await.ok(201);
    let more = role("Role", "more", &[("get,delete,watch", "", "pods,secrets")]);
    let what = "user \"jane\" (groups=[\"devs\" \"system:authenticated\"]) is attempting to grant RBAC permissions not \
                currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"watch\"]}\n\
                {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"delete\" \"watch\"]}";
    let refused = |kind: &str, name: &str| format!("{kind}.rbac.authorization.k8s.io {name:?} is forbidden: {what}");
    assert_eq!(jane.post(&roles("default"), more.clone()).await.refused(403), refused("roles", "more"));
    cluster.post(&roles("default"), more.clone()).await.ok(201);
    let mut changed = more.clone();
    changed["metadata"]["labels"] = json!({"a": "b"});
    let more_path = format!("{}/more", roles("default"));
    assert_eq!(jane.put(&more_path, changed.clone()).await.refused(403), refused("roles", "more"));
    let give = |name: &str| binding("RoleBinding", name, ("Role", "more"), user("jane"));
    let answer = jane.post(&role_bindings("default"), give("mine")).await.refused(403);
    assert_eq!(answer, refused("rolebindings", "mine"));
    let none = binding("RoleBinding", "none", ("ClusterRole", "none"), user("jane"));
    let answer = jane.post(&role_bindings("default"), none).await.refused(404);
    assert_eq!(answer, "clusterroles.rbac.authorization.k8s.io \"none\" not found");
    jane.post(&role_bindings("default"), binding("RoleBinding", "l", ("Role", "less"), user("x"))).await.ok(201);
    // What is as it was is no grant.
    jane.put(&more_path, more.clone()).await.ok(200);
    // Nor in another namespace, nor for the cluster.
    assert_eq!(jane.post(&roles("kube-public"), role("Role", "less", &own)).await.status, 403);
    assert_eq!(jane.post(CLUSTER_ROLES, role("ClusterRole", "less", &own)).await.status, 403);
    // Unless they may.
    let special = [("bind,escalate", "rbac.authorization.k8s.io", "roles")];
    cluster.post(&roles("default"), role("Role", "special", &special)).await.ok(201);
    bind("special", "special").await;
    jane.put(&more_path, changed).await.ok(200);
    jane.post(&role_bindings("default"), give("mine")).await.ok(201);
    assert_eq!(jane.get("/api/v1/namespaces/default/secrets/none").await.status, 404);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregation_rules_are_for_administrators() {
    let cluster = Cluster::start().await;
    let jane = As(&cluster, "jane", &[]);
    let verbs = "get,list,create,update,delete";
    let own = role("ClusterRole", "own", &[(verbs, "rbac.authorization.k8s.io", "clusterroles")]);
    cluster.post(CLUSTER_ROLES, own).await.ok(201);
    let bound = binding("ClusterRoleBinding", "own", ("ClusterRole", "own"), user("jane"));
    cluster.post(CLUSTER_ROLE_BINDINGS, bound).await.ok(201);
    let mut all = role("ClusterRole", "all", &[]);
    all["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    assert_eq!(
        jane.post(CLUSTER_ROLES, all.clone()).await.refused(403),
        "clusterroles.rbac.authorization.k8s.io \"all\" is forbidden: must have cluster-admin privileges to use the \
         aggregationRule"
    );
    let bound = binding("ClusterRoleBinding", "jane", ("ClusterRole", "cluster-admin"), user("jane"));
    cluster.post(CLUSTER_ROLE_BINDINGS, bound).await.ok(201);
    jane.post(CLUSTER_ROLES, all).await.ok(201);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acting_as_somebody_else_is_granted_one_by_one() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let ask = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = cluster.post(&format!("{accounts}/default/token"), ask).await;
    let token = format!("Bearer {}", answer.ok(201)["status"]["token"].as_str().unwrap());
    let rules = json!([
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users", "groups"], "resourceNames": ["jane", "devs"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"]},
    ]);
    let mut own = role("ClusterRole", "acts", &[]);
    own["rules"] = rules;
    cluster.post(CLUSTER_ROLES, own).await.ok(201);
    let account = json!({"kind": "ServiceAccount", "name": "default", "namespace": "default"});
    cluster
        .post(CLUSTER_ROLE_BINDINGS, binding("ClusterRoleBinding", "acts", ("ClusterRole", "acts"), account))
        .await
        .ok(201);
    for (headers, refused) in [
        (&[("impersonate-user", "jane"), ("impersonate-group", "devs")][..], ""),
        (&[("impersonate-user", "jane"), ("impersonate-extra-scopes", "a")], ""),
        (&[("impersonate-user", "joe")], "users \"joe\""),
        (&[("impersonate-user", "jane"), ("impersonate-group", "system:masters")], "groups \"system:masters\""),
        (&[("impersonate-user", "jane"), ("impersonate-uid", "1")], "uids.authentication.k8s.io \"1\""),
        (&[("impersonate-user", "jane"), ("impersonate-extra-x", "a")], "resource \"userextras/x\""),
        (&[("impersonate-user", "system:serviceaccount:default:a")], "serviceaccounts \"a\""),
    ] {
        let mut all = vec![("authorization", token.as_str())];
        all.extend(headers);
        let answer = cluster.send(Method::GET, "/apis", &all, Vec::new()).await;
        match refused {
            "" => assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text),
            refused => {
                let said = answer.refused(403);
                assert!(said.contains(refused) && said.contains("cannot impersonate"), "{headers:?}: {said}");
            }
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_cluster_grants_is_kept_complete() {
    let store = Arc::new(MemoryStore::new());
    let cluster = Cluster::on(store.clone(), tempfile::tempdir().unwrap()).await;
    let discovery = format!("{CLUSTER_ROLES}/system:discovery");
    let monitoring = format!("{CLUSTER_ROLES}/system:monitoring");
    let basic = format!("{CLUSTER_ROLE_BINDINGS}/system:basic-user");
    let made = cluster.get(&discovery).await.ok(200);
    assert_eq!(made["metadata"]["labels"], json!({"kubernetes.io/bootstrapping": "rbac-defaults"}));
    let revision = made["metadata"]["resourceVersion"].clone();
    let mut changed = cluster.get(&monitoring).await.ok(200);
    changed["rules"] = json!([{"verbs": ["get"], "nonResourceURLs": ["/mine"]}]);
    cluster.put(&monitoring, changed).await.ok(200);
    let mut changed = cluster.get(&basic).await.ok(200);
    changed["subjects"] = json!([]);
    changed["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false".into();
    cluster.put(&basic, changed).await.ok(200);
    cluster.delete(&format!("{CLUSTER_ROLE_BINDINGS}/system:discovery")).await.ok(200);
    let dir = cluster.stop().await;
    let cluster = Cluster::on(store, dir).await;
    let found = cluster.get(&monitoring).await.ok(200);
    assert_eq!(found["rules"][0]["nonResourceURLs"], json!(["/mine"]), "what a user added stays");
    assert_eq!(found["rules"][1]["nonResourceURLs"][4], "/metrics");
    assert_eq!(cluster.get(&basic).await.ok(200)["subjects"], json!([]), "it was not to be kept");
    assert_eq!(cluster.get(&discovery).await.ok(200)["metadata"]["resourceVersion"], revision, "nothing to write");
    cluster.get(&format!("{CLUSTER_ROLE_BINDINGS}/system:discovery")).await.ok(200);
    cluster.stop().await;
}

/// What a policy asks of its `authorizer` is what RBAC says.
#[tokio::test(flavor = "multi_thread")]
async fn policies_ask_the_same_authorizer() {
    let cluster = Cluster::start().await;
    let registration = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "asks"},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]},
            ]},
            "validations": [{
                "expression": "authorizer.group('').resource('secrets').namespace('default').check('create').allowed()",
                "message": "may make no secrets",
            }],
        },
    });
    cluster.post(&format!("{registration}/validatingadmissionpolicies"), policy).await.ok(201);
    let bound = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "asks"}, "spec": {"policyName": "asks", "validationActions": ["Deny"]},
    });
    cluster.post(&format!("{registration}/validatingadmissionpolicybindings"), bound).await.ok(201);
    let jane = As(&cluster, "jane", &[]);
    cluster.post(&roles("default"), role("Role", "maps", &[("create", "", "configmaps")])).await.ok(201);
    cluster.post(&roles("default"), role("Role", "secrets", &[("create", "", "secrets")])).await.ok(201);
    let bind = async |role: &str| {
        let bound = binding("RoleBinding", role, ("Role", role), user("jane"));
        cluster.post(&role_bindings("default"), bound).await.ok(201);
    };
    bind("maps").await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let maps = "/api/v1/namespaces/default/configmaps";
    let refused = jane.post(maps, map.clone()).await.refused(422);
    assert!(refused.contains("may make no secrets"), "{refused}");
    bind("secrets").await;
    jane.post(maps, map).await.ok(201);
    cluster.stop().await;
}

/// A policy tells of its parameters: who makes it has to be allowed to read them.
#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_policies_are_for_those_who_may_read_them() {
    let cluster = Cluster::start().await;
    let jane = As(&cluster, "jane", &[]);
    let registration = "/apis/admissionregistration.k8s.io/v1";
    let rules = [("*", "admissionregistration.k8s.io", "*")];
    cluster.post(CLUSTER_ROLES, role("ClusterRole", "policies", &rules)).await.ok(201);
    let bind = async |role: &str| {
        let bound = binding("ClusterRoleBinding", role, ("ClusterRole", role), user("jane"));
        cluster.post(CLUSTER_ROLE_BINDINGS, bound).await.ok(201);
    };
    bind("policies").await;
    let version = "admissionregistration.k8s.io/v1";
    let policy = json!({
        "apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"},
        "spec": {
            "paramKind": {"apiVersion": "v1", "kind": "Secret"},
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
            ]},
            "validations": [{"expression": "params.data.size() > 0"}],
        },
    });
    let bound = json!({
        "apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"},
        "spec": {
            "policyName": "p", "validationActions": ["Deny"],
            "paramRef": {"name": "s", "namespace": "default", "parameterNotFoundAction": "Allow"},
        },
    });
    let policies = format!("{registration}/validatingadmissionpolicies");
    let bindings = format!("{registration}/validatingadmissionpolicybindings");
    let refused = jane.post(&policies, policy.clone()).await.refused(422);
    assert_eq!(
        refused,
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io \"p\" is invalid: spec.paramKind: Forbidden: user &{jane  \
         [system:authenticated] map[]} must have \"get\" permission on all objects of the referenced paramKind \
         (kind=Secret, apiVersion=v1)"
    );
    cluster.post(&policies, policy).await.ok(201);
    let refused = jane.post(&bindings, bound.clone()).await.refused(422);
    assert!(refused.contains("spec.paramRef: Forbidden: user &{jane"), "{refused}");
    // What an administrator let it read it may go on to read.
    // Its status may be written in the same moment.
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let mut made = looked_at(&cluster, &format!("{policies}/p")).await;
        made["metadata"]["labels"] = json!({"a": "b"});
        let answer = jane.put(&format!("{policies}/p"), made).await;
        if answer.status != 409 {
            answer.ok(200);
            break;
        }
        assert!(Instant::now() < until, "each time somebody was faster: {}", answer.text);
    }
    cluster.post(CLUSTER_ROLES, role("ClusterRole", "secrets", &[("get", "", "secrets")])).await.ok(201);
    bind("secrets").await;
    jane.post(&bindings, bound).await.ok(201);
    cluster.stop().await;
}

/// A policy as it is when the server has checked its types, and writes to it no more.
async fn looked_at(cluster: &Cluster, path: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let policy = cluster.get(path).await.ok(200);
        if !policy["status"].is_null() {
            return policy;
        }
        assert!(Instant::now() < until, "its types are not checked: {policy}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const RECONCILED: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: counts}
rules: [{apiGroups: [''], resources: [pods], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: counts}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: counts}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: jane}]
";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_auth() {
    if kubectl::version().is_none_or(|minor| minor < 27) {
        eprintln!("NOT RUN: there is no kubectl 1.27 or newer");
        return;
    }
    let cluster = Cluster::start().await;
    let both = RECONCILED.replace("[list]", "[list, get]");
    for (args, input, good, wanted) in [
        ("auth can-i list pods --as=jane", "", false, "no"),
        ("auth reconcile -f -", RECONCILED, true, "clusterrole.rbac.authorization.k8s.io/counts reconciled"),
        ("auth can-i list pods --as=jane", "", true, "yes"),
        ("auth can-i get pods --as=jane", "", false, "no"),
        ("auth reconcile -f -", both.as_str(), true, "missing rules added"),
        ("auth can-i get pods --as=jane", "", true, "yes"),
        ("auth can-i --list --as=jane", "", true, "selfsubjectaccessreviews.authorization.k8s.io"),
        ("auth can-i --list", "", true, "*.*"),
        ("auth can-i get /metrics --as=jane", "", false, "no"),
        ("auth can-i impersonate users", "", true, "yes"),
        (
            "create rolebinding v --clusterrole=view --user=joe",
            "",
            true,
            "rolebinding.rbac.authorization.k8s.io/v created",
        ),
        ("describe clusterrole counts", "", true, "pods       []                 []              [list get]"),
        ("get pods --as=joe -n kube-system", "", false, "pods is forbidden: User \"joe\" cannot list resource"),
    ] {
        let (succeeded, text) = kubectl::run(&cluster, &args.split(' ').collect::<Vec<_>>(), input).await;
        assert!(succeeded == good && text.contains(wanted), "{args}: {text}");
    }
    cluster.stop().await;
}
