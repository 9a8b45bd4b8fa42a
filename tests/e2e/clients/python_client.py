"""The official Python client against a running Podium, as its users use it.

Run by the end-to-end tests with KUBECONFIG set. Uses nothing but the client (PyPI `kubernetes`) and the standard library.
"""

import threading
import time
import unittest
import uuid

from kubernetes import client, config, dynamic, stream, utils, watch
from kubernetes.client.exceptions import ApiException


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def wait_for(what, seconds=10.0):
    """Calls until it answers with something true; that is returned."""
    end = time.monotonic() + seconds
    while True:
        try:
            answer = what()
            if answer:
                return answer
        except ApiException as error:
            if error.status not in (404, 409):
                raise
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.02)


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        config.load_kube_config()
        cls.core = client.CoreV1Api()
        cls.apps = client.AppsV1Api()

    def setUp(self):
        self.namespace = unique("python")
        meta = client.V1ObjectMeta(name=self.namespace)
        self.core.create_namespace(client.V1Namespace(metadata=meta))
        self.addCleanup(self.core.delete_namespace, self.namespace)

    def refused(self, status, reason, call, *args, **kwargs):
        with self.assertRaises(ApiException) as caught:
            call(*args, **kwargs)
        self.assertEqual(caught.exception.status, status, caught.exception.body)
        self.assertIn(f'"reason":"{reason}"', caught.exception.body.replace('": "', '":"'))
        return caught.exception.body

    def config_map(self, name, data=None, labels=None):
        meta = client.V1ObjectMeta(name=name, labels=labels)
        return self.core.create_namespaced_config_map(self.namespace, client.V1ConfigMap(metadata=meta, data=data))


class Objects(Case):
    def test_life_of_an_object(self):
        made = self.config_map("a", {"k": "v"})
        self.assertTrue(made.metadata.uid and made.metadata.resource_version and made.metadata.creation_timestamp)
        made.data["k"] = "w"
        changed = self.core.replace_namespaced_config_map("a", self.namespace, made)
        self.assertEqual(changed.data, {"k": "w"})
        self.refused(409, "Conflict", self.core.replace_namespaced_config_map, "a", self.namespace, made)
        self.refused(409, "AlreadyExists", self.config_map, "a")
        self.refused(422, "Invalid", self.config_map, "Not A Name")
        self.core.delete_namespaced_config_map("a", self.namespace)
        self.refused(404, "NotFound", self.core.read_namespaced_config_map, "a", self.namespace)

    def test_generated_names(self):
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(generate_name="gen-"))
        names = {self.core.create_namespaced_config_map(self.namespace, body).metadata.name for _ in range(20)}
        self.assertEqual(len(names), 20)
        self.assertTrue(all(n.startswith("gen-") and len(n) == 9 for n in names))

    def test_patches(self):
        self.config_map("a", {"k": "v", "gone": "x"})
        merged = self.core.patch_namespaced_config_map("a", self.namespace, {"data": {"gone": None, "new": "1"}})
        self.assertEqual(merged.data, {"k": "v", "new": "1"})
        operations = [{"op": "test", "path": "/data/k", "value": "v"}, {"op": "replace", "path": "/data/k", "value": "z"}]
        self.assertEqual(self.core.patch_namespaced_config_map("a", self.namespace, operations).data["k"], "z")
        self.refused(422, "Invalid", self.core.patch_namespaced_config_map, "a", self.namespace, operations)

    def test_dry_run_and_strict_fields(self):
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="dry"))
        self.core.create_namespaced_config_map(self.namespace, body, dry_run="All")
        self.refused(404, "NotFound", self.core.read_namespaced_config_map, "dry", self.namespace)
        odd = {"metadata": {"name": "odd"}, "dta": {"k": "v"}}
        api = client.ApiClient()
        path = f"/api/v1/namespaces/{self.namespace}/configmaps?fieldValidation=Strict"
        headers = {"Content-Type": "application/json", **api.default_headers}
        answer = api.call_api("POST", api.configuration.host + path, header_params=headers, body=odd)
        answer.read()
        self.assertEqual(answer.status, 400, answer.data)
        self.assertIn(b'unknown field', answer.data)

    def test_lists_in_pages(self):
        for i in range(7):
            self.config_map(f"p{i}", labels={"half": str(i % 2)})
        even = self.core.list_namespaced_config_map(self.namespace, label_selector="half in (0)")
        self.assertEqual([o.metadata.name for o in even.items], ["p0", "p2", "p4", "p6"])
        one = self.core.list_namespaced_config_map(self.namespace, field_selector="metadata.name=p3")
        self.assertEqual([o.metadata.name for o in one.items], ["p3"])
        names, token, versions = [], None, set()
        while True:
            page = self.core.list_namespaced_config_map(self.namespace, limit=3, _continue=token)
            names += [o.metadata.name for o in page.items]
            versions.add(page.metadata.resource_version)
            token = page.metadata._continue
            if not token:
                break
        self.assertEqual([n for n in names if n.startswith("p")], [f"p{i}" for i in range(7)])
        self.assertEqual(len(versions), 1, "all pages show one moment")

    def test_deleting_collections(self):
        for i in range(4):
            self.config_map(f"c{i}", labels={"keep": str(i < 2)})
        self.core.delete_collection_namespaced_config_map(self.namespace, label_selector="keep=False")
        left = self.core.list_namespaced_config_map(self.namespace, label_selector="keep").items
        self.assertEqual([o.metadata.name for o in left], ["c0", "c1"])

    def test_finalizers_and_preconditions(self):
        meta = client.V1ObjectMeta(name="held", finalizers=["example.com/hold"])
        held = self.core.create_namespaced_config_map(self.namespace, client.V1ConfigMap(metadata=meta))
        wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="other"))
        self.refused(409, "Conflict", self.core.delete_namespaced_config_map, "held", self.namespace, body=wrong)
        self.core.delete_namespaced_config_map("held", self.namespace)
        marked = self.core.read_namespaced_config_map("held", self.namespace)
        self.assertIsNotNone(marked.metadata.deletion_timestamp)
        self.assertEqual(marked.metadata.uid, held.metadata.uid)
        self.core.patch_namespaced_config_map("held", self.namespace, {"metadata": {"finalizers": None}})
        self.refused(404, "NotFound", self.core.read_namespaced_config_map, "held", self.namespace)


class Watching(Case):
    def test_a_watch_sees_each_change(self):
        start = self.core.list_namespaced_config_map(self.namespace).metadata.resource_version
        seen = []

        def follow():
            events = watch.Watch().stream(
                self.core.list_namespaced_config_map, self.namespace, resource_version=start,
                label_selector="watched=yes", timeout_seconds=20,
            )
            for event in events:
                seen.append((event["type"], event["object"].metadata.name))
                if event["type"] == "DELETED" and event["object"].metadata.name == "b":
                    return

        thread = threading.Thread(target=follow)
        thread.start()
        self.config_map("a", labels={"watched": "yes"})
        self.core.patch_namespaced_config_map("a", self.namespace, {"data": {"k": "v"}})
        self.core.patch_namespaced_config_map("a", self.namespace, {"metadata": {"labels": {"watched": "no"}}})
        self.config_map("b", labels={"watched": "yes"})
        self.core.delete_namespaced_config_map("b", self.namespace)
        thread.join(30)
        self.assertEqual(
            seen, [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "b"), ("DELETED", "b")]
        )


DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "replicas": 2,
        "paused": True,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "main", "image": "registry.example/web:1", "ports": [{"containerPort": 80}]}]},
        },
    },
}


class Workloads(Case):
    def test_deployment_scale_and_status(self):
        made = self.apps.create_namespaced_deployment(self.namespace, DEPLOYMENT)
        self.assertEqual(made.spec.strategy.type, "RollingUpdate")
        self.assertEqual(made.metadata.generation, 1)
        scale = self.apps.read_namespaced_deployment_scale("web", self.namespace)
        self.assertEqual((scale.spec.replicas, scale.status.selector), (2, "app=web"))
        self.apps.patch_namespaced_deployment_scale("web", self.namespace, {"spec": {"replicas": 0}})
        self.assertEqual(self.apps.read_namespaced_deployment("web", self.namespace).spec.replicas, 0)
        status = {"status": {"conditions": [{"type": "Example", "status": "True"}]}}
        self.apps.patch_namespaced_deployment_status("web", self.namespace, status)
        read = self.apps.read_namespaced_deployment_status("web", self.namespace)
        self.assertIn("Example", [c.type for c in read.status.conditions])

    def test_strategic_merge_by_container_name(self):
        self.apps.create_namespaced_deployment(self.namespace, DEPLOYMENT)
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "registry.example/side:1"}]}}}}
        changed = self.apps.patch_namespaced_deployment("web", self.namespace, patch)
        self.assertEqual({c.name for c in changed.spec.template.spec.containers}, {"main", "side"})

    def test_immutable_fields(self):
        made = self.apps.create_namespaced_deployment(self.namespace, DEPLOYMENT)
        made.metadata.resource_version = None
        made.spec.selector.match_labels = {"app": "other"}
        made.spec.template.metadata.labels = {"app": "other"}
        said = self.refused(422, "Invalid", self.apps.replace_namespaced_deployment, "web", self.namespace, made)
        self.assertIn("field is immutable", said)

    def test_batch_and_policy(self):
        template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "registry.example/a:1"}]}}
        job = {"metadata": {"name": "j"}, "spec": {"suspend": True, "template": template}}
        made = client.BatchV1Api().create_namespaced_job(self.namespace, job)
        self.assertEqual((made.spec.backoff_limit, made.spec.completions), (6, 1))
        cron = {"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": template}}}}
        made = client.BatchV1Api().create_namespaced_cron_job(self.namespace, cron)
        self.assertEqual(made.spec.concurrency_policy, "Allow")
        bad = {"metadata": {"name": "d"}, "spec": {**cron["spec"], "schedule": "now"}}
        self.refused(422, "Invalid", client.BatchV1Api().create_namespaced_cron_job, self.namespace, bad)
        budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}}
        client.PolicyV1Api().create_namespaced_pod_disruption_budget(self.namespace, budget)

    def test_roles(self):
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
        api = client.RbacAuthorizationV1Api()
        api.create_namespaced_role(self.namespace, {"metadata": {"name": "r"}, "rules": rules})
        binding = {
            "metadata": {"name": "r"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": self.namespace}],
        }
        api.create_namespaced_role_binding(self.namespace, binding)
        binding["roleRef"]["name"] = "other"
        said = self.refused(422, "Invalid", api.replace_namespaced_role_binding, "r", self.namespace, binding)
        self.assertIn("cannot change roleRef", said)


class Access(Case):
    def test_who_and_whether(self):
        who = client.AuthenticationV1Api().create_self_subject_review({})
        self.assertEqual(who.status.user_info.username, "kubernetes-admin")
        ask = {"spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": self.namespace}}}
        may = client.AuthorizationV1Api().create_self_subject_access_review(ask)
        self.assertTrue(may.status.allowed)
        other = {"spec": {"user": "nobody", **ask["spec"]}}
        may = client.AuthorizationV1Api().create_subject_access_review(other)
        self.assertFalse(may.status.allowed)

    def test_default_objects_of_a_namespace(self):
        wait_for(lambda: self.core.read_namespaced_service_account("default", self.namespace))
        root = wait_for(lambda: self.core.read_namespaced_config_map("kube-root-ca.crt", self.namespace))
        self.assertIn("BEGIN CERTIFICATE", root.data["ca.crt"])


CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "spec": {
        "scope": "Namespaced",
        "versions": [{
            "name": "v1", "served": True, "storage": True,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            "schema": {"openAPIV3Schema": {
                "type": "object",
                "properties": {
                    "spec": {
                        "type": "object", "required": ["size"],
                        "properties": {
                            "size": {"type": "integer", "minimum": 0, "maximum": 9},
                            "color": {"type": "string", "default": "red"},
                        },
                        "x-kubernetes-validations": [
                            {"rule": "self.size < 9 || self.color == 'red'", "message": "nines are red"},
                            {"rule": "self.size >= oldSelf.size", "message": "sizes only grow"},
                        ],
                    },
                    "status": {"type": "object", "properties": {"size": {"type": "integer"}}},
                },
            }},
        }],
    },
}


class CustomResources(Case):
    def setUp(self):
        super().setUp()
        self.group = unique("g").replace("-", "") + ".example.com"
        names = {"plural": "balls", "singular": "ball", "kind": "Ball", "shortNames": ["bl"]}
        crd = {**CRD, "metadata": {"name": f"balls.{self.group}"}}
        crd["spec"] = {**CRD["spec"], "group": self.group, "names": names}
        self.extensions = client.ApiextensionsV1Api()
        self.extensions.create_custom_resource_definition(crd)
        self.addCleanup(self.extensions.delete_custom_resource_definition, f"balls.{self.group}")
        self.custom = client.CustomObjectsApi()
        wait_for(self.established, 1.0)

    def established(self):
        crd = self.extensions.read_custom_resource_definition(f"balls.{self.group}")
        conditions = {c.type: c.status for c in crd.status.conditions or []}
        return conditions.get("Established") == "True" and conditions.get("NamesAccepted") == "True"

    def ball(self, name, **spec):
        return {"apiVersion": f"{self.group}/v1", "kind": "Ball", "metadata": {"name": name}, "spec": spec}

    def make(self, name, **spec):
        place = (self.group, "v1", self.namespace, "balls")
        return self.custom.create_namespaced_custom_object(*place, self.ball(name, **spec))

    def test_defaults_pruning_and_rules(self):
        made = self.make("a", size=1, unknown="x")
        self.assertEqual(made["spec"], {"size": 1, "color": "red"})
        place = (self.group, "v1", self.namespace, "balls", "a")
        said = self.refused(422, "Invalid", self.make, "b", size=10)
        self.assertIn("should be less than or equal to 9", said)
        said = self.refused(422, "Invalid", self.make, "b", size=9, color="blue")
        self.assertIn("nines are red", said)
        self.custom.patch_namespaced_custom_object(*place, {"spec": {"size": 3}})
        said = self.refused(422, "Invalid", self.custom.patch_namespaced_custom_object, *place, {"spec": {"size": 2}})
        self.assertIn("sizes only grow", said)
        scale = self.custom.get_namespaced_custom_object_scale(*place)
        self.assertEqual(scale["spec"]["replicas"], 3)
        self.custom.patch_namespaced_custom_object_status(*place, {"status": {"size": 3}, "spec": {"size": 8}})
        read = self.custom.get_namespaced_custom_object(*place)
        self.assertEqual((read["status"]["size"], read["spec"]["size"]), (3, 3))

    def test_dynamic_client_and_apply(self):
        made = dynamic.DynamicClient(client.ApiClient())
        balls = made.resources.get(api_version=f"{self.group}/v1", kind="Ball")
        applied = balls.server_side_apply(body=self.ball("z", size=2), namespace=self.namespace, field_manager="one")
        self.assertEqual(applied.spec.size, 2)
        with self.assertRaises(dynamic.exceptions.ConflictError) as caught:
            balls.server_side_apply(body=self.ball("z", size=4), namespace=self.namespace, field_manager="two")
        self.assertIn('conflict with \\"one\\"', str(caught.exception.body))
        forced = balls.server_side_apply(
            body=self.ball("z", size=4), namespace=self.namespace, field_manager="two", force_conflicts=True
        )
        self.assertEqual(forced.spec.size, 4)
        owners = {entry.manager for entry in forced.metadata.managedFields}
        self.assertEqual(owners, {"one", "two"} & owners)
        self.assertIn("two", owners)


class Everything(Case):
    def test_every_listable_kind_lists(self):
        made = dynamic.DynamicClient(client.ApiClient())
        made.resources.invalidate_cache()
        tried = 0
        for resource in made.resources.search():
            if "list" in (getattr(resource, "verbs", None) or []) and not resource.kind.endswith("List"):
                answer = resource.get()
                self.assertTrue(answer.kind.endswith("List"), resource.kind)
                tried += 1
        self.assertGreater(tried, 50)

    def test_manifests_from_a_file(self):
        objects = [
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "w"}},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "svc"}, "spec": {"ports": [{"port": 80}]}},
            DEPLOYMENT,
        ]
        utils.create_from_yaml(client.ApiClient(), yaml_objects=objects, namespace=self.namespace)
        secret = self.core.read_namespaced_secret("s", self.namespace)
        self.assertEqual(secret.data, {"p": "dw=="})
        self.assertTrue(self.core.read_namespaced_service("svc", self.namespace).spec.cluster_ip.startswith("10."))

    def test_version(self):
        version = client.VersionApi().get_code()
        self.assertEqual(version.major, "1")
        self.assertIn("podium", version.git_version)


class Streams(Case):
    """exec, attach and port-forward over the client's WebSockets."""

    def setUp(self):
        super().setUp()
        container = client.V1Container(name="app", image="file://hello.wasm", ports=[client.V1ContainerPort(container_port=8080)])
        meta = client.V1ObjectMeta(name="box")
        pod = client.V1Pod(metadata=meta, spec=client.V1PodSpec(containers=[container]))
        self.core.create_namespaced_pod(self.namespace, pod)
        wait_for(lambda: self.core.read_namespaced_pod("box", self.namespace).status.phase == "Running", 60)

    def test_a_command(self):
        answer = stream.stream(
            self.core.connect_get_namespaced_pod_exec, "box", self.namespace, command=["sh", "-c", "echo out; echo err >&2; exit 3"],
            stdin=False, stdout=True, stderr=True, tty=False, _preload_content=False)
        answer.run_forever(timeout=20)
        self.assertEqual((answer.read_stdout(), answer.read_stderr(), answer.returncode), ("out\n", "err\n", 3))

    def test_input(self):
        answer = stream.stream(
            self.core.connect_get_namespaced_pod_exec, "box", self.namespace, command=["head", "-1"],
            stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)
        answer.write_stdin("hello\n")
        answer.run_forever(timeout=20)
        self.assertEqual((answer.read_stdout(), answer.returncode), ("hello\n", 0))

    def test_a_port(self):
        forward = stream.portforward(self.core.connect_get_namespaced_pod_portforward, "box", self.namespace, ports="8080")
        http = forward.socket(8080)
        http.setblocking(True)
        http.sendall(b"GET / HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := http.recv(4096):
            answer += part
        http.close()
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK"), answer)
        self.assertIsNone(forward.error(8080))


if __name__ == "__main__":
    unittest.main(verbosity=2)
