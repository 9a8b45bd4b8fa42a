//! The kinds of Gateway API as the agent reads them: what is needed of them, written by hand.
//!
//! The crate `gateway-api` is not used: it is made for other versions of kube and k8s-openapi than ours, of which the binary
//! would hold both then. What is served is defined by CustomResourceDefinitions, which fill in defaults.

use std::collections::BTreeMap;

use k8s_openapi::{
    ClusterResourceScope, Metadata, NamespaceResourceScope, Resource,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
    schemars::{JsonSchema, Schema, SchemaGenerator, json_schema},
};
use podium_api::{Kind, Names, Object, Scope, Sub};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) const GROUP: &str = "gateway.networking.k8s.io";

/// One kind: its name, its spec, where it is served, and in which scope.
macro_rules! kinds {
    ($($name:ident($spec:ty): $version:literal $plural:literal $singular:literal $scope:ident $resource_scope:ident;)*) => {$(
        #[doc = concat!("An object of kind ", stringify!($name), ".")]
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub(crate) struct $name {
            api_version: String,
            kind: String,
            pub(crate) metadata: ObjectMeta,
            pub(crate) spec: $spec,
            #[serde(skip_serializing_if = "Value::is_null")]
            pub(crate) status: Value,
        }

        impl Resource for $name {
            const API_VERSION: &'static str = concat!("gateway.networking.k8s.io/", $version);
            const GROUP: &'static str = GROUP;
            const KIND: &'static str = stringify!($name);
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $resource_scope;
        }

        impl Metadata for $name {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                concat!("io.k8s.networking.gateway.", $version, ".", stringify!($name)).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "object" })
            }
        }

        impl Kind for $name {
            const NAMES: Names = Names::new(GROUP, $version, stringify!($name), $plural, $singular);
            const SCOPE: Scope = Scope::$scope;
            const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
        }
    )*};
}

kinds! {
    GatewayClass(ClassSpec): "v1" "gatewayclasses" "gatewayclass" Cluster ClusterResourceScope;
    Gateway(GatewaySpec): "v1" "gateways" "gateway" Namespaced NamespaceResourceScope;
    HTTPRoute(RouteSpec<HttpRule>): "v1" "httproutes" "httproute" Namespaced NamespaceResourceScope;
    GRPCRoute(RouteSpec<GrpcRule>): "v1" "grpcroutes" "grpcroute" Namespaced NamespaceResourceScope;
    TLSRoute(RouteSpec<TlsRule>): "v1" "tlsroutes" "tlsroute" Namespaced NamespaceResourceScope;
    ReferenceGrant(GrantSpec): "v1beta1" "referencegrants" "referencegrant" Namespaced NamespaceResourceScope;
}

/// An object of a mirror, whoever decoded it.
pub(crate) fn read<K>(object: &dyn Object) -> Result<K, serde_json::Error>
where
    K: Kind + Clone + for<'de> Deserialize<'de>,
{
    match object.downcast_ref::<K>() {
        Some(typed) => Ok(typed.clone()),
        None => object.to_value().and_then(serde_json::from_value),
    }
}

/// Plain structs of a spec: what is left out is the default.
macro_rules! parts {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }
    )*};
}

parts! {
    /// Who serves Gateways of the class.
    ClassSpec { controller_name: String, parameters_ref: Option<Value>, }
    GatewaySpec {
        gateway_class_name: String, listeners: Vec<Listener>, addresses: Vec<Address>, infrastructure: Infrastructure,
    }
    Infrastructure { parameters_ref: Option<Value>, }
    Address { r#type: Option<String>, value: Option<String>, }
    Listener {
        name: String, hostname: Option<String>, port: u16, protocol: String, tls: Option<ListenerTls>,
        allowed_routes: AllowedRoutes,
    }
    ListenerTls { mode: Option<String>, certificate_refs: Vec<ObjectRef>, }
    AllowedRoutes { namespaces: RouteNamespaces, kinds: Vec<GroupKind>, }
    RouteNamespaces { from: Option<String>, selector: Option<LabelSelector>, }
    GroupKind { group: Option<String>, kind: String, }
    /// A reference to an object, of whatever namespace.
    ObjectRef {
        group: Option<String>, kind: Option<String>, namespace: Option<String>, name: String, port: Option<u16>,
    }
    ParentRef {
        group: Option<String>, kind: Option<String>, namespace: Option<String>, name: String,
        section_name: Option<String>, port: Option<u16>,
    }
    HttpRule {
        matches: Vec<HttpMatch>, filters: Vec<Filter>, backend_refs: Vec<BackendRef>, timeouts: Timeouts,
    }
    HttpMatch {
        path: Option<TypedValue>, headers: Vec<NamedValue>, query_params: Vec<NamedValue>, method: Option<String>,
    }
    /// A value and how it is meant.
    TypedValue { r#type: Option<String>, value: Option<String>, }
    NamedValue { r#type: Option<String>, name: String, value: String, }
    Timeouts { request: Option<String>, backend_request: Option<String>, }
    BackendRef {
        group: Option<String>, kind: Option<String>, namespace: Option<String>, name: String, port: Option<u16>,
        weight: Option<u32>, filters: Vec<Filter>,
    }
    Filter {
        r#type: String, request_header_modifier: Option<HeaderModifier>,
        response_header_modifier: Option<HeaderModifier>, request_mirror: Option<MirrorFilter>,
        request_redirect: Option<RedirectFilter>, url_rewrite: Option<RewriteFilter>, cors: Option<CorsFilter>,
    }
    CorsFilter {
        allow_origins: Vec<String>, allow_credentials: bool, allow_methods: Vec<String>, allow_headers: Vec<String>,
        expose_headers: Vec<String>, max_age: Option<u32>,
    }
    HeaderModifier { set: Vec<NamedValue>, add: Vec<NamedValue>, remove: Vec<String>, }
    MirrorFilter { backend_ref: ObjectRef, percent: Option<u32>, fraction: Option<Fraction>, }
    Fraction { numerator: u32, denominator: Option<u32>, }
    RedirectFilter {
        scheme: Option<String>, hostname: Option<String>, path: Option<PathModifier>, port: Option<u16>,
        status_code: Option<u16>,
    }
    RewriteFilter { hostname: Option<String>, path: Option<PathModifier>, }
    PathModifier { replace_full_path: Option<String>, replace_prefix_match: Option<String>, }
    GrpcRule { matches: Vec<GrpcMatch>, filters: Vec<Filter>, backend_refs: Vec<BackendRef>, }
    GrpcMatch { method: Option<MethodMatch>, headers: Vec<NamedValue>, }
    MethodMatch { r#type: Option<String>, service: Option<String>, method: Option<String>, }
    TlsRule { backend_refs: Vec<BackendRef>, }
    GrantSpec { from: Vec<GrantFrom>, to: Vec<GrantTo>, }
    GrantFrom { group: String, kind: String, namespace: String, }
    GrantTo { group: String, kind: String, name: Option<String>, }
}

/// What routes of every kind have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteSpec<R> {
    #[serde(default)]
    pub(crate) parent_refs: Vec<ParentRef>,
    #[serde(default)]
    pub(crate) hostnames: Vec<String>,
    #[serde(default = "Vec::new")]
    pub(crate) rules: Vec<R>,
}

impl<R> Default for RouteSpec<R> {
    fn default() -> Self {
        Self { parent_refs: Vec::new(), hostnames: Vec::new(), rules: Vec::new() }
    }
}

impl BackendRef {
    /// Whom it names.
    pub(crate) fn object(&self) -> ObjectRef {
        ObjectRef {
            group: self.group.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            port: self.port,
        }
    }
}

/// Labels by their namespace.
pub(crate) type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;
