#!/usr/bin/env python3
"""Writes messages.txt, the table of Kubernetes' protobuf messages, to the standard output.

Field numbers and types are those of the crate k8s-pb (prost's structs), JSON names those of the crate k8s-openapi.
Neither says which fields are pointers in Go: ZERO_IS_MEANT below does, after `types.go` of Kubernetes.

    generate.py CARGO_REGISTRY_SOURCE_FOLDER > messages.txt
"""

import pathlib
import re
import sys

PB = "k8s-pb-0.9.0"
OPENAPI = "k8s-openapi-0.29.0"
OPENAPI_VERSION = "v1_36"

# What bodies may hold: message -> apiVersion. DeleteOptions come with the version of what is deleted.
ROOTS = {
    "api.core.v1": ("v1", """Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
        PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount"""),
    "api.admissionregistration.v1": ("admissionregistration.k8s.io/v1", """MutatingAdmissionPolicy
        MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy
        ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration"""),
    "api.apps.v1": ("apps/v1", "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet"),
    "api.authentication.v1": ("authentication.k8s.io/v1", "SelfSubjectReview TokenRequest TokenReview"),
    "api.authorization.v1": ("authorization.k8s.io/v1", """LocalSubjectAccessReview SelfSubjectAccessReview
        SelfSubjectRulesReview SubjectAccessReview"""),
    "api.autoscaling.v1": ("autoscaling/v1", "HorizontalPodAutoscaler Scale"),
    "api.autoscaling.v2": ("autoscaling/v2", "HorizontalPodAutoscaler"),
    "api.batch.v1": ("batch/v1", "CronJob Job"),
    "api.certificates.v1": ("certificates.k8s.io/v1", "CertificateSigningRequest"),
    "api.coordination.v1": ("coordination.k8s.io/v1", "Lease"),
    "api.discovery.v1": ("discovery.k8s.io/v1", "EndpointSlice"),
    "api.events.v1": ("events.k8s.io/v1", "Event"),
    "api.flowcontrol.v1": ("flowcontrol.apiserver.k8s.io/v1", "FlowSchema PriorityLevelConfiguration"),
    "api.networking.v1": ("networking.k8s.io/v1", """Ingress IngressClass IPAddress NetworkPolicy ServiceCIDR"""),
    "api.node.v1": ("node.k8s.io/v1", "RuntimeClass"),
    "api.policy.v1": ("policy/v1", "Eviction PodDisruptionBudget"),
    "api.rbac.v1": ("rbac.authorization.k8s.io/v1", "ClusterRole ClusterRoleBinding Role RoleBinding"),
    "api.resource.v1": ("resource.k8s.io/v1", "DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice"),
    "api.scheduling.v1": ("scheduling.k8s.io/v1", "PriorityClass"),
    "api.storage.v1": ("storage.k8s.io/v1", """CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment
        VolumeAttributesClass"""),
    "apiextensions_apiserver.pkg.apis.apiextensions.v1": ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    "kube_aggregator.pkg.apis.apiregistration.v1": ("apiregistration.k8s.io/v1", "APIService"),
    "apimachinery.pkg.apis.meta.v1": ("*", "DeleteOptions PartialObjectMetadata Status"),
}

# Messages that are not objects in JSON.
SPECIAL = {
    "apimachinery.pkg.api.resource.Quantity": "quantity",
    "apimachinery.pkg.util.intstr.IntOrString": "intorstring",
    "apimachinery.pkg.apis.meta.v1.Time": "time",
    "apimachinery.pkg.apis.meta.v1.MicroTime": "microtime",
    "apimachinery.pkg.apis.meta.v1.FieldsV1": "json",
    "apimachinery.pkg.runtime.RawExtension": "json",
    "apiextensions_apiserver.pkg.apis.apiextensions.v1.Json": "json",
    # The schema in them is message 1 or 2 of this one.
    "apiextensions_apiserver.pkg.apis.apiextensions.v1.JsonSchemaPropsOrArray": "schemaorlist",
    "apiextensions_apiserver.pkg.apis.apiextensions.v1.JsonSchemaPropsOrBool": "schemaorbool",
    "apiextensions_apiserver.pkg.apis.apiextensions.v1.JsonSchemaPropsOrStringArray": "schemaorstrings",
    # An empty object, whose presence is all that it says.
    "apiextensions_apiserver.pkg.apis.apiextensions.v1.CustomResourceSubresourceStatus": "empty",
    # A list of texts in JSON, a message around it in protobuf.
    "api.authentication.v1.ExtraValue": "strings",
    "api.authorization.v1.ExtraValue": "strings",
    "api.certificates.v1.ExtraValue": "strings",
}

# Fields that are pointers in Go, so that a zero is written only when it is meant: by name, and where a name is a
# pointer in some messages only, by message and name.
ZERO_IS_MEANT = set("""
    $ref activeDeadlineSeconds allocateLoadBalancerNodePorts allowPrivilegeEscalation allowVolumeExpansion
    appProtocol attachRequired automountServiceAccountToken averageUtilization backoffLimit backoffLimitPerIndex
    blockOwnerDeletion borrowingLimitPercent cachingMode capacity collisionCount completionMode completions
    currentCPUUtilizationPercentage currentVolumeAttributesClassName defaultMode deletionGracePeriodSeconds
    deprecationWarning enableServiceLinks endPort endpointsNamespace errorCode expirationSeconds failedIndexes
    failedJobsHistoryLimit failurePolicy fsGroup fsGroupChangePolicy fsGroupPolicy gmsaCredentialSpec
    gmsaCredentialSpecName gracePeriodSeconds holderIdentity hostProcess hostUsers hostnameOverride
    ignoreStoreReadErrorWithClusterBreakingPotential immutable ingressClassName initiatorName internalTrafficPolicy
    ipFamilyPolicy ipMode labelSelectorPath leaseDurationSeconds leaseTransitions lendablePercent loadBalancerClass
    localhostProfile managedBy manualSelector matchPolicy maxExpirationSeconds maxFailedIndexes maxItems maxLength
    maxProperties maximum minDomains minItems minLength minProperties minReplicas minimum mode mountPropagation
    multipleOf nodeAffinityPolicy nodeAllocatableUpdatePeriodSeconds nodeTaintsPolicy nominalConcurrencyShares
    optional optionalOldSelf orphanDependents parallelism parameterNotFoundAction pathType persistentVolumeName
    podInfoOnMount podReplacementPolicy preemptionPolicy preferredHolder privileged procMount
    progressDeadlineSeconds propagationPolicy readOnlyRootFilesystem reclaimPolicy recursiveReadOnly
    recursiveReadOnlyMounts remainingItemCount replicas requiresRepublish resourceClaimTemplateName
    revisionHistoryLimit runAsGroup runAsNonRoot runAsUser runAsUserName runtimeClassName seLinuxChangePolicy
    seLinuxMount secretNamespace selectPolicy service serviceAccountTokenInSecrets serving setHostnameAsFQDN
    shareProcessNamespace sideEffects stabilizationWindowSeconds started startingDeadlineSeconds stopSignal
    storageCapacity succeededCount succeededIndexes successfulJobsHistoryLimit supplementalGroupsPolicy suspend
    targetCPUUtilizationPercentage terminating terminatingReplicas terminationGracePeriodSeconds timeZone
    tolerationSeconds trafficDistribution ttlSecondsAfterFinished unhealthyPodEvictionPolicy userNamespaces
    volumeAttributesClassName volumeBindingMode volumeMode x-kubernetes-list-type x-kubernetes-map-type
    x-kubernetes-preserve-unknown-fields zone AzureDiskVolumeSource.fsType AzureDiskVolumeSource.kind
    AzureDiskVolumeSource.readOnly CSIVolumeSource.fsType CSIVolumeSource.readOnly ClientIpConfig.timeoutSeconds
    ClusterTrustBundleProjection.name ClusterTrustBundleProjection.signerName Container.restartPolicy
    Endpoint.hostname Endpoint.nodeName EndpointAddress.nodeName EndpointConditions.ready
    EphemeralContainerCommon.restartPolicy FcVolumeSource.lun HorizontalPodAutoscalerStatus.observedGeneration
    HostPathVolumeSource.type IngressClassParametersReference.apiGroup IngressClassParametersReference.namespace
    IngressClassParametersReference.scope IngressPortStatus.error JobStatus.ready LeaseSpec.strategy
    LocalVolumeSource.fsType MutatingWebhook.reinvocationPolicy MutatingWebhook.timeoutSeconds
    NetworkPolicyPort.protocol OwnerReference.controller PersistentVolumeClaimSpec.storageClassName
    PodDnsConfigOption.value PodFailurePolicyOnExitCodesRequirement.containerName PodResourceClaim.resourceClaimName
    PodResourceClaimStatus.resourceClaimName PodSpec.priority PortStatus.error Preconditions.resourceVersion
    Preconditions.uid RollingUpdateStatefulSetStrategy.partition Rule.scope ServiceReference.path
    ServiceReference.port TypedLocalObjectReference.apiGroup TypedObjectReference.apiGroup
    TypedObjectReference.namespace ValidatingWebhook.timeoutSeconds Validation.reason ValidationRule.reason
    VolumeNodeResources.count WebhookClientConfig.url discovery.v1.EndpointPort.name discovery.v1.EndpointPort.port
    discovery.v1.EndpointPort.protocol adminAccess allNodes allowMultipleAllocations bindsToNode distinctAttribute
    extendedResourceName matchAttribute perDeviceNodeSelection shareID Device.nodeName DeviceAttribute.bool
    DeviceAttribute.int DeviceAttribute.string DeviceAttribute.version ResourceSliceSpec.nodeName
""".split())


def plain(name):
    """A name as both crates spell it."""
    return re.sub(r"r#|[-_$]", "", name).lower()


def read_messages(folder):
    """Module path and struct name -> [(number, name, type, shape)], as k8s-pb has them."""
    messages = {}
    for file in sorted(folder.rglob("mod.rs")):
        module = ".".join(file.parent.relative_to(folder).parts)
        for struct in re.finditer(r"pub struct (\w+) \{\n(.*?)\n\}", file.read_text(), re.S):
            fields = re.findall(r"#\[prost\(([^)]*)\)\]\s*pub (\S+):\s+(.*?)(?=\n    (?:///|#\[)|\Z)", struct[2], re.S)
            messages[f"{module}.{struct[1]}"] = [read_field(module, *field) for field in fields]
    # What is stable by now but was not when the crate was made: the same message, of the version before.
    beta, stable = "admissionregistration.v1beta1", "admissionregistration.v1"
    for name in [name for name in messages if beta in name]:
        fields = [(*field[:2], field[2].replace(beta, stable), field[3]) for field in messages[name]]
        messages.setdefault(name.replace(beta, stable), fields)
    return messages


def read_field(module, attributes, name, rust):
    number = int(re.search(r'tag = "(\d+)"', attributes)[1])
    mapped = re.search(r'btree_map = "string, (\w+)"', attributes)
    scalar = mapped[1] if mapped else re.match(r"\w+", attributes)[0]
    shape = "map" if mapped else "list" if "repeated" in attributes else ""
    if scalar == "message":
        path = re.findall(r"[\w:]+", rust)[-1].split("::")
        base = module.split(".")
        while path[0] == "super":
            path, base = path[1:], base[:-1]
        scalar = ".".join(base + path)
    return number, name, scalar, shape


def read_properties(folder):
    """Normalised definition name -> {normalised property: property}, as k8s-openapi has them."""
    properties = {}
    for file in sorted((folder / OPENAPI_VERSION).rglob("*.rs")):
        text = file.read_text()
        definition = re.match(r"// Generated from definition io\.k8s\.(\S+)", text)
        if definition:
            names = re.findall(r'"([^"]+)" => Field::Key', text)
            properties[plain(definition[1])] = {plain(name): name for name in names}
    return properties


class Table:
    def __init__(self, messages, properties):
        self.messages, self.properties, self.done = messages, properties, {}

    def name(self, message):
        return re.sub(r"^(api|\w+\.pkg\.apis|apimachinery\.pkg)\.", "", message)

    def add(self, message, names=None):
        """Lines for a message and all that it refers to. `names`: of the object that it is a part of, in JSON."""
        if message in self.done:
            return
        self.done[message] = lines = []
        names = names or self.properties[plain(message)]
        for number, name, kind, shape in sorted(self.messages[message]):
            json, parent = names.get(plain(name)), None
            if json is None and not shape and self.embedded(kind, names):
                json, parent = ".", names
            if json is None:
                print(f"{message}.{name}: not in JSON, left out", file=sys.stderr)
                continue
            if kind in self.messages and kind not in SPECIAL:
                self.add(kind, parent)
            lines.append(self.line(message, number, json, kind, shape))

    def embedded(self, kind, names):
        """Whether it is an embedded struct of Go, whose fields stand in the object itself."""
        fields = self.messages.get(kind)
        return fields is not None and all(plain(f[1]) in names or self.embedded(f[2], names) for f in fields)

    def line(self, message, number, json, kind, shape):
        text = SPECIAL.get(kind) or (self.name(kind) if kind in self.messages else kind)
        text = {"map": "{}", "list": "[]"}.get(shape, "") + text
        path = f".{message}.{json}".lower()
        scalar = not shape and kind in ("string", "bool", "int32", "int64", "double")
        meant = scalar and any(path.endswith(f".{name.lower()}") for name in ZERO_IS_MEANT)
        return f"{number} {json} {text}{' ?' if meant else ''}"


def main():
    registry = pathlib.Path(sys.argv[1])
    table = Table(read_messages(registry / PB / "src"), read_properties(registry / OPENAPI / "src"))
    # Known to clients only, and so in no document.
    table.properties.setdefault(plain("apimachinery.pkg.apis.meta.v1.PartialObjectMetadata"), {"metadata": "metadata"})
    roots = {f"{module}.{kind}": version for module, (version, kinds) in ROOTS.items() for kind in kinds.split()}
    for root in [*roots, "apimachinery.pkg.apis.meta.v1.ListMeta"]:
        table.add(root)
    print(f"# Kubernetes' protobuf messages, written by generate.py from the crates {PB} and {OPENAPI}, which derive")
    print("# from Kubernetes (The Kubernetes Authors, Apache-2.0). Do not edit.")
    print("# message [apiVersion kind], then its fields: number, JSON name (. for what stands in the object itself),")
    print("# type ([] list, {} map by string), ? when a written zero is meant.")
    for message, lines in sorted(table.done.items(), key=lambda item: table.name(item[0])):
        print()
        root = f" {roots[message]} {message.split('.')[-1]}" if message in roots else ""
        print(f"{table.name(message)}{root}")
        print("\n".join(lines) if lines else "", end="\n" if lines else "")


main()
