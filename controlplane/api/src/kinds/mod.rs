//! The kinds that Podium serves: one file each, one line each in [`all`].

use crate::object::{KindRef, kind_of};

mod admission;
mod api_service;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod binding;
mod certificate_signing_request;
mod component_status;
mod condition;
mod config_map;
mod controller_revision;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod event_v1;
mod flow_control;
mod ingress;
mod ingress_class;
mod ip_address;
mod label_selector;
mod lease;
mod limit_range;
mod metrics;
mod namespace;
mod network_policy;
mod node;
mod pod;
mod pod_disruption_budget;
mod pod_template;
mod priority_class;
mod rbac;
mod replica_set;

mod replicas;
mod replication_controller;
mod resource;
mod resource_name;
mod resource_quota;
mod runtime_class;
mod secret;
pub mod service;
mod service_account;
mod service_cidr;
mod stateful_set;
mod storage;
#[cfg(test)]
pub(crate) mod tests;

pub use batch::{Schedule, time_zone};
pub use metrics::{ContainerMetrics, NodeMetrics, PodMetrics};
pub(crate) use pod::pod_qos_class;
pub use priority_class::{SYSTEM_PRIORITY_CLASSES, SystemPriorityClass};

/// Every built-in kind that is stored. Those of [`answered`] are served beside them.
pub fn all() -> Vec<KindRef> {
    use k8s_openapi::api::{
        apps, autoscaling, batch, coordination, core, discovery, events, networking, node, policy, rbac, resource,
        scheduling, storage,
    };
    let mut all = vec![
        kind_of::<core::v1::ReplicationController>(),
        kind_of::<NodeMetrics>(),
        kind_of::<PodMetrics>(),
        kind_of::<apps::v1::DaemonSet>(),
        kind_of::<apps::v1::StatefulSet>(),
        kind_of::<autoscaling::v1::HorizontalPodAutoscaler>(),
        kind_of::<autoscaling::v2::HorizontalPodAutoscaler>(),
        kind_of::<batch::v1::CronJob>(),
        kind_of::<batch::v1::Job>(),
        kind_of::<core::v1::ComponentStatus>(),
        kind_of::<core::v1::LimitRange>(),
        kind_of::<core::v1::PersistentVolume>(),
        kind_of::<core::v1::PersistentVolumeClaim>(),
        kind_of::<core::v1::ResourceQuota>(),
        kind_of::<node::v1::RuntimeClass>(),
        kind_of::<resource::v1::DeviceClass>(),
        kind_of::<resource::v1::ResourceClaim>(),
        kind_of::<resource::v1::ResourceClaimTemplate>(),
        kind_of::<resource::v1::ResourceSlice>(),
        kind_of::<scheduling::v1::PriorityClass>(),
        kind_of::<storage::v1::CSIDriver>(),
        kind_of::<storage::v1::CSINode>(),
        kind_of::<storage::v1::CSIStorageCapacity>(),
        kind_of::<storage::v1::StorageClass>(),
        kind_of::<storage::v1::VolumeAttachment>(),
        kind_of::<storage::v1::VolumeAttributesClass>(),
        kind_of::<core::v1::ConfigMap>(),
        kind_of::<core::v1::Endpoints>(),
        kind_of::<core::v1::Event>(),
        kind_of::<core::v1::Namespace>(),
        kind_of::<core::v1::Node>(),
        kind_of::<core::v1::Pod>(),
        kind_of::<core::v1::PodTemplate>(),
        kind_of::<core::v1::Secret>(),
        kind_of::<core::v1::Service>(),
        kind_of::<core::v1::ServiceAccount>(),
        kind_of::<apps::v1::ControllerRevision>(),
        kind_of::<apps::v1::Deployment>(),
        kind_of::<apps::v1::ReplicaSet>(),
        kind_of::<coordination::v1::Lease>(),
        kind_of::<discovery::v1::EndpointSlice>(),
        kind_of::<networking::v1::Ingress>(),
        kind_of::<networking::v1::IngressClass>(),
        kind_of::<networking::v1::IPAddress>(),
        kind_of::<networking::v1::NetworkPolicy>(),
        kind_of::<networking::v1::ServiceCIDR>(),
        kind_of::<rbac::v1::ClusterRole>(),
        kind_of::<rbac::v1::ClusterRoleBinding>(),
        kind_of::<rbac::v1::Role>(),
        kind_of::<rbac::v1::RoleBinding>(),
        kind_of::<events::v1::Event>(),
        kind_of::<policy::v1::PodDisruptionBudget>(),
    ];
    all.extend(extensions());
    all
}

/// Those by which the API is extended and guarded.
fn extensions() -> Vec<KindRef> {
    use k8s_openapi::{
        api::{admissionregistration, certificates, flowcontrol},
        apiextensions_apiserver::pkg::apis::apiextensions,
        kube_aggregator::pkg::apis::apiregistration as aggregator,
    };
    vec![
        kind_of::<aggregator::v1::APIService>(),
        kind_of::<admissionregistration::v1::MutatingAdmissionPolicy>(),
        kind_of::<admissionregistration::v1::MutatingAdmissionPolicyBinding>(),
        kind_of::<admissionregistration::v1::MutatingWebhookConfiguration>(),
        kind_of::<admissionregistration::v1::ValidatingAdmissionPolicy>(),
        kind_of::<admissionregistration::v1::ValidatingAdmissionPolicyBinding>(),
        kind_of::<admissionregistration::v1::ValidatingWebhookConfiguration>(),
        kind_of::<apiextensions::v1::CustomResourceDefinition>(),
        kind_of::<certificates::v1::CertificateSigningRequest>(),
        kind_of::<flowcontrol::v1::FlowSchema>(),
        kind_of::<flowcontrol::v1::PriorityLevelConfiguration>(),
    ]
}

/// Every built-in kind that is a question, or is only told ([`crate::Storage::Answered`]): created, answered, never stored.
///
/// `TokenRequest`, which is only spoken by `serviceaccounts/token`, is a [`crate::Kind`] too, to be read by
/// `kind_of::<TokenRequest>()`, but no resource of its own and so not among these.
pub fn answered() -> Vec<KindRef> {
    use k8s_openapi::api::{authentication, authorization, core};
    vec![
        kind_of::<core::v1::Binding>(),
        kind_of::<authentication::v1::SelfSubjectReview>(),
        kind_of::<authentication::v1::TokenReview>(),
        kind_of::<authorization::v1::LocalSubjectAccessReview>(),
        kind_of::<authorization::v1::SelfSubjectAccessReview>(),
        kind_of::<authorization::v1::SelfSubjectRulesReview>(),
        kind_of::<authorization::v1::SubjectAccessReview>(),
    ]
}

/// Every built-in resource: [`all`] and [`answered`].
pub fn served() -> Vec<KindRef> {
    all().into_iter().chain(answered()).collect()
}
