//! Requests on resources: one function for each verb, the same for every kind.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use k8s_openapi::{
    api::core::v1::{Binding, Pod},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Status, StatusDetails},
};
use podium_api::{
    ApiError, FieldErrors, FieldPath, FieldSelector, Kind as _, Names, Object, ObjectKey, Reason, Selector, Storage,
    Verb,
    object::SubresourceBehaviour,
    patch::{self, PatchBody},
    protobuf,
    read::{self, FieldValidation, Media},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    Call, Frontend, Permit, about, core_dumps, list_options, logs,
    negotiate::{self, Form, Offers, Shape},
    path::{Query, Target},
    respond::{self, Answer},
    watch, websocket,
};
use crate::{
    auth::Attributes,
    registry::{
        Applied, Deleted, Part, Resource, WriteContext,
        cache::{Entry, Filter},
        context::{MANAGER_MAX, manager_of},
        create::check_name,
        list::ListRequest,
    },
    usage,
};

/// Server-side apply: YAML, of which JSON is a part.
const APPLY_YAML: &str = "application/apply-patch+yaml";

/// A request on a resource, with its whole body.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) resource: &'a Resource,
    pub(super) target: &'a Target<'a>,
    pub(super) call: &'a Call<'a>,
    pub(super) body: &'a Bytes,
}

fn objects(form: Form) -> bool {
    !matches!(form, Form::Discovery | Form::DiscoveryBeta)
}

/// How objects of a resource are answered.
fn shape(resource: &Resource, call: &Call<'_>) -> Result<Shape, ApiError> {
    negotiate::negotiate(call.accept(), offers(&resource.names, call))
}

/// Kinds that are not stored, such as `Status`, have protobuf too.
pub(super) fn plain_shape(call: &Call<'_>) -> Result<Shape, ApiError> {
    negotiate::negotiate(call.accept(), Offers { protobuf: true, known: negotiate::OBJECTS, ..Offers::texts(objects) })
}

fn offers(names: &Names, call: &Call<'_>) -> Offers {
    // Nearly all ask for JSON: the kind is only looked up for those that do not.
    let asked = call.accept().is_some_and(|accept| accept.contains("protobuf"));
    let protobuf = asked && protobuf::knows(&names.api_version(), names.kind);
    Offers { protobuf, known: negotiate::OBJECTS, ..Offers::texts(objects) }
}

impl Frontend {
    pub(super) fn find(&self, target: &Target<'_>) -> Result<Arc<Resource>, ApiError> {
        let found = self.registry.find(target.group, target.version, target.resource);
        let resource = found.ok_or_else(about::unknown)?;
        let scoped = !target.namespace.is_empty();
        match resource.scope {
            podium_api::Scope::Cluster if scoped => Err(about::unknown()),
            podium_api::Scope::Namespaced if !scoped && !target.name.is_empty() => Err(about::unknown()),
            _ => Ok(resource),
        }
    }

    /// Watches and logs.
    pub(super) async fn stream(
        &self,
        target: &Target<'_>,
        call: &Call<'_>,
        permit: Permit,
    ) -> Result<Answer, ApiError> {
        let resource = &self.find(target)?;
        if let Some(SubresourceBehaviour::Verb(verb @ (Verb::Exec | Verb::Attach | Verb::PortForward))) =
            resource.subresource(target.subresource)
        {
            return self.connect((resource, verb), target, call, permit).await;
        }
        if target.subresource == "log" {
            if resource.subresource("log") != Some(SubresourceBehaviour::Verb(Verb::Log)) {
                return Err(about::unknown());
            }
            let entry = self.entry(resource, target).await?;
            let pod = entry.object.downcast_ref::<Pod>().ok_or_else(about::unknown)?;
            let mut options = logs::options(call.query, target.name, self.registry.clock().now())?;
            if logs::check(pod, &mut options)? == logs::Place::Nowhere {
                return Ok(logs::nothing());
            }
            let gateway = self.gateway.read().clone();
            return logs::open(gateway.as_deref(), pod, options, permit, self.stop.clone()).await;
        }
        if resource.subresource(target.subresource) == Some(SubresourceBehaviour::Verb(Verb::CoreDump)) {
            let entry = self.entry(resource, target).await?;
            let pod = entry.object.downcast_ref::<Pod>().ok_or_else(about::unknown)?;
            let gateway = self.gateway.read().clone();
            return core_dumps::answer(gateway.as_deref(), pod, call.query, permit, self.stop.clone()).await;
        }
        let mut filter = filter(resource, target, call.query)?;
        if !target.name.is_empty() {
            filter.fields.0.push(podium_api::selector::FieldRequirement {
                path: "metadata.name".to_owned(),
                value: target.name.to_owned(),
                equal: true,
            });
        }
        let offers = Offers { yaml: false, known: negotiate::STREAMS, ..offers(&resource.names, call) };
        let shape = negotiate::negotiate(call.accept(), offers)?;
        let request = watch::WatchRequest::read(call.query, filter, shape)?;
        let socket = if websocket::wanted(call.headers) {
            Some(websocket::Handshake::read(call.headers, call.upgrade, watch::PROTOCOLS)?)
        } else {
            None
        };
        let events = watch::open(&self.registry, resource, request, self.stop.clone(), permit).await?;
        let mut answer = match socket {
            Some(socket) => events.into_socket(socket, self.limits.write_timeout),
            None => events.into_answer(),
        };
        respond::deprecated(&mut answer, resource);
        Ok(answer)
    }

    /// Everything else on resources.
    pub(super) async fn resource(
        &self,
        target: &Target<'_>,
        call: &Call<'_>,
        body: &Bytes,
    ) -> Result<Answer, ApiError> {
        let resource = &*self.find(target)?;
        let mut answer = self.object(Ask { resource, target, call, body }).await?;
        respond::deprecated(&mut answer, resource);
        Ok(answer)
    }

    async fn object(&self, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, .. } = ask;
        if !target.subresource.is_empty() {
            return self.subresource(ask).await;
        }
        if resource.kind.storage() == Storage::Answered {
            if call.method != Method::POST || !target.name.is_empty() {
                return Err(not_allowed());
            }
            let binds = resource.names.api_version() == "v1" && resource.names.kind == Binding::NAMES.kind;
            return if binds { self.bind(target, call, ask.body).await } else { self.review(ask).await };
        }
        if resource.kind.storage() == Storage::Computed && !matches!(*call.method, Method::GET | Method::HEAD) {
            return Err(not_allowed());
        }
        if resource.names.group == usage::GROUP {
            let gateway = self.gateway.read().clone();
            self.usage.refresh(&self.registry, gateway.as_deref()).await?;
        }
        match (call.method, target.name.is_empty()) {
            (&Method::GET | &Method::HEAD, true) => self.list(ask).await,
            (&Method::GET | &Method::HEAD, false) => self.get(ask).await,
            (&Method::POST, true) => self.create(ask).await,
            (&Method::PUT, false) => self.update(ask, Part::Main).await,
            (&Method::PATCH, false) => self.patch(ask, Part::Main).await,
            (&Method::DELETE, false) => self.delete(ask).await,
            (&Method::DELETE, true) => self.delete_collection(ask).await,
            _ => Err(not_allowed()),
        }
    }

    async fn subresource(&self, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, body } = ask;
        let posted = call.method == Method::POST;
        match resource.subresource(target.subresource).ok_or_else(about::unknown)? {
            SubresourceBehaviour::Scale => return self.scale(ask).await,
            SubresourceBehaviour::Verb(Verb::Binding) if posted => return self.bind(target, call, body).await,
            SubresourceBehaviour::Verb(Verb::Eviction) if posted => return self.evict(ask).await,
            SubresourceBehaviour::Verb(Verb::Token) if posted => return self.token(ask).await,
            _ => {}
        }
        let part = resource.part(target.subresource).ok_or_else(not_allowed)?;
        match *call.method {
            Method::GET | Method::HEAD => self.get(ask).await,
            Method::PUT => self.update(ask, part).await,
            Method::PATCH => self.patch(ask, part).await,
            _ => Err(not_allowed()),
        }
    }

    pub(super) async fn entry(&self, resource: &Resource, target: &Target<'_>) -> Result<Arc<Entry>, ApiError> {
        let stored = resource.cache.get(target.namespace, target.name);
        resource.view(stored.ok_or_else(|| resource.not_found(target.name))?).await
    }

    fn reply(
        &self,
        Ask { resource, call, .. }: Ask<'_>,
        status: StatusCode,
        entry: &Entry,
    ) -> Result<Answer, ApiError> {
        respond::entry(status, resource, entry, shape(resource, call)?, call.query, self.registry.clock().now())
    }

    async fn get(&self, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, .. } = ask;
        if let Some(wanted) = list_options::revision(call.query.get("resourceVersion"))? {
            self.registry.wait_for(wanted).await?;
        }
        let entry = self.entry(resource, target).await?;
        self.reply(ask, StatusCode::OK, &entry)
    }

    async fn list(&self, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, .. } = ask;
        let shape = shape(resource, call)?;
        let request = list_request(resource, target, call.query)?;
        let rest = request.token.as_ref().map(|token| token.inconsistent());
        let mut page = match (self.registry.list(resource, request).await, rest) {
            (Err(error), Some(rest)) if error.reason == Reason::Expired => {
                return Ok(respond::error_and_rest(&error, &rest));
            }
            (listed, _) => listed?,
        };
        page.entries = resource.view_all(page.entries).await?;
        respond::page(resource, &page, shape, call.query, self.registry.clock().now())
    }

    async fn create(&self, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, .. } = ask;
        shape(resource, call)?;
        if resource.scope == podium_api::Scope::Namespaced && target.namespace.is_empty() {
            return Err(not_allowed());
        }
        let context = context(call)?;
        let object = decode(ask, &context)?;
        let entry = self.registry.create(resource, target.namespace, object, &context).await?;
        self.written(ask, StatusCode::CREATED, &entry, &context)
    }

    /// The answer to a write, with the warnings that it gathered.
    fn written(
        &self,
        ask: Ask<'_>,
        status: StatusCode,
        entry: &Entry,
        context: &WriteContext<'_>,
    ) -> Result<Answer, ApiError> {
        let mut answer = self.reply(ask, status, entry)?;
        respond::warn(&mut answer, &context.warnings());
        Ok(answer)
    }

    async fn update(&self, ask: Ask<'_>, part: Part) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, .. } = ask;
        shape(resource, call)?;
        let context = context(call)?;
        let mut object = decode(ask, &context)?;
        let key = (target.namespace, target.name);
        let unversioned = object.meta().resource_version.as_deref().unwrap_or_default().is_empty();
        let exists = resource.cache.get(target.namespace, target.name).is_some();
        if unversioned && exists && part == Part::Main && !resource.kind.unconditional_update() {
            let mut errs = FieldErrors::new();
            errs.invalid(&FieldPath::new("metadata.resourceVersion"), 0, "must be specified for an update");
            return Err(ApiError::invalid(&resource.names, target.name, errs));
        }
        if !exists && unversioned && part == Part::Main && resource.kind.create_on_update() {
            check_name(target.name, &mut *object)?;
            self.may_create(target, call)?;
            let entry = self.registry.create(resource, target.namespace, object, &context).await?;
            return self.written(ask, StatusCode::CREATED, &entry, &context);
        }
        let change = |_: &Entry| Ok(object.boxed_clone().into());
        let entry = self.registry.update_with(resource, key, part, &context, change).await?;
        self.written(ask, StatusCode::OK, &entry, &context)
    }

    async fn patch(&self, ask: Ask<'_>, part: Part) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, body } = ask;
        shape(resource, call)?;
        if matches!(media_type(call).as_str(), APPLY_YAML) {
            return self.apply(ask, part).await;
        }
        if call.query.find("force").is_some() {
            return Err(invalid_option("PatchOptions", "force: Forbidden: may not be specified for non-apply patch"));
        }
        let context = context(call)?;
        let validation: FieldValidation = call.query.get("fieldValidation").parse()?;
        let patch = PatchBody::read(&media_type(call), body)?;
        let key = (target.namespace, target.name);
        let twice = twice(&patch, validation, body)?;
        let change = |current: &Entry| {
            let patched = patch::apply(&*resource.kind, current.tree()?, &patch)?;
            let shown = if validation == FieldValidation::Strict { patched.to_string() } else { String::new() };
            let decoded = resource.kind.decode_value(patched)?;
            let unknown = decoded.unknown.iter().map(|path| format!("unknown field \"{path}\""));
            let findings: Vec<_> = twice.iter().cloned().chain(unknown).collect();
            if validation == FieldValidation::Strict && !findings.is_empty() {
                return Err(not_known(&shown, &findings));
            }
            warn_all(&context, validation.judge(&resource.names, findings)?);
            Ok(decoded.object.into())
        };
        let entry = self.registry.update_with(resource, key, part, &context, change).await?;
        self.written(ask, StatusCode::OK, &entry, &context)
    }

    /// Server-side apply.
    async fn apply(&self, ask: Ask<'_>, part: Part) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, body } = ask;
        if call.query.get("fieldManager").is_empty() {
            return Err(invalid_option("PatchOptions", "fieldManager: Required value: is required for apply patch"));
        }
        let context = context(call)?;
        let validation: FieldValidation = call.query.get("fieldValidation").parse()?;
        let config = read::read(Media::Yaml, body)?;
        let fields = config.value.as_object().ok_or_else(|| ApiError::bad_request("the configuration is no object"))?;
        check_type(&resource.names, fields.get("apiVersion"), fields.get("kind"))?;
        let context = context.no_creation(self.may_create(target, call).err());
        let key = (target.namespace, target.name);
        let duplicates = match validation {
            FieldValidation::Ignore => None,
            _ => config.yaml_duplicates(body),
        };
        // Unknown fields are refused with whatever else the types do not allow.
        match duplicates {
            Some(found) if validation == FieldValidation::Strict => {
                return Err(ApiError::bad_request(format!("error strict decoding patch: {found}")));
            }
            found => warn_all(&context, found.into_iter().collect()),
        }
        let config = (&config.value, call.query.flag("force"));
        match self.registry.apply(resource, key, part, &context, config).await? {
            Applied::Created(entry) => self.written(ask, StatusCode::CREATED, &entry, &context),
            Applied::Configured(entry) => self.written(ask, StatusCode::OK, &entry, &context),
        }
    }

    /// Whoever may change an object may not therefore make it, where it is not there.
    fn may_create(&self, target: &Target<'_>, call: &Call<'_>) -> Result<(), ApiError> {
        let Target { group, resource, namespace, name, .. } = *target;
        let what = Attributes { verb: "create", group, resource, namespace, name, ..Attributes::default() };
        self.authorizer.check(call.who, &what)
    }

    async fn delete(&self, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, body } = ask;
        let shape = shape(resource, call)?;
        let (options, context) = delete_options(call, body)?;
        match self.registry.delete(resource, target.namespace, target.name, &options, &context).await? {
            // Who asks with the old word for cascading deletion is told that it goes on.
            Deleted::Marked(entry) if options.orphan_dependents == Some(false) => {
                self.written(ask, StatusCode::ACCEPTED, &entry, &context)
            }
            Deleted::Marked(entry) => self.written(ask, StatusCode::OK, &entry, &context),
            Deleted::Gone(entry) if resource.kind.returns_deleted() => {
                self.written(ask, StatusCode::OK, &entry, &context)
            }
            Deleted::Gone(entry) => {
                respond::value(StatusCode::OK, shape.encoding, &success(&resource.names, &*entry.object))
            }
        }
    }

    async fn delete_collection(&self, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, body } = ask;
        let shape = shape(resource, call)?;
        let allowed = podium_api::discovery::verbs(&resource.kind).contains(&"deletecollection");
        let unscoped = resource.scope == podium_api::Scope::Namespaced && target.namespace.is_empty();
        if !allowed || unscoped {
            return Err(not_allowed());
        }
        let (options, context) = delete_options(call, body)?;
        let filter = filter(resource, target, call.query)?;
        let done = self.registry.delete_collection(resource, &filter, &options, &context).await?;
        let mut answer = respond::deleted_list(resource, done, self.registry.revision().to_string(), shape.encoding)?;
        respond::warn(&mut answer, &context.warnings());
        Ok(answer)
    }
}

pub(super) fn not_allowed() -> ApiError {
    ApiError::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

pub(super) fn media_type(call: &Call<'_>) -> String {
    let header = call.header(header::CONTENT_TYPE).unwrap_or_default();
    header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The fields that stand twice in a patch that is an object.
fn twice(patch: &PatchBody, validation: FieldValidation, body: &Bytes) -> Result<Vec<String>, ApiError> {
    match (patch, validation) {
        (PatchBody::Json(_), _) | (_, FieldValidation::Ignore) => Ok(Vec::new()),
        _ => Ok(read::read(Media::Json, body)?.findings(&[], Media::Json, body)),
    }
}

/// 422 about what a patch makes of an object, which is no fault of the bytes that came.
fn not_known(patched: &str, findings: &[String]) -> ApiError {
    let mut errs = FieldErrors::new();
    errs.invalid(&FieldPath::new("patch"), patched, &format!("strict decoding error: {}", findings.join(", ")));
    ApiError::invalid(&Names::new("", "", "", "", ""), "", errs)
}

/// Reads a body of any format.
fn tree(call: &Call<'_>, body: &Bytes) -> Result<read::Body, ApiError> {
    read::read(Media::of(call.header(header::CONTENT_TYPE))?, body)
}

/// Reads an object of the resource's kind; `apiVersion` and `kind` may be left out.
pub(super) fn decode(
    Ask { resource, call, body, .. }: Ask<'_>,
    context: &WriteContext<'_>,
) -> Result<Box<dyn Object>, ApiError> {
    let validation: FieldValidation = call.query.get("fieldValidation").parse()?;
    let media = Media::of(call.header(header::CONTENT_TYPE))?;
    let mut read = read::read(media, body)?;
    let names = &resource.names;
    if let Value::Object(fields) = &mut read.value {
        fields.entry("apiVersion").or_insert_with(|| names.api_version().into());
        fields.entry("kind").or_insert_with(|| names.kind.into());
        check_type(names, fields.get("apiVersion"), fields.get("kind"))?;
    }
    let decoded = resource.kind.decode_value(std::mem::take(&mut read.value))?;
    warn_all(context, validation.judge(names, read.findings(&decoded.unknown, media, body))?);
    Ok(decoded.object)
}

fn warn_all(context: &WriteContext<'_>, warnings: Vec<String>) {
    warnings.into_iter().for_each(|warning| context.warn(warning));
}

fn check_type(names: &Names, version: Option<&Value>, kind: Option<&Value>) -> Result<(), ApiError> {
    let text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text(version), text(kind));
    if version != names.api_version() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            names.api_version()
        )));
    }
    if kind != names.kind {
        return Err(ApiError::bad_request(format!(
            "the kind in the data ({kind}) does not match the expected kind ({})",
            names.kind
        )));
    }
    Ok(())
}

/// Reads something that is no stored kind.
pub(super) fn body_of<T: DeserializeOwned>(call: &Call<'_>, body: &Bytes) -> Result<T, ApiError> {
    let read = tree(call, body)?;
    serde_json::from_value(read.value)
        .map_err(|e| ApiError::bad_request(format!("the request body cannot be read: {e}")))
}

fn filter(resource: &Resource, target: &Target<'_>, query: &Query) -> Result<Filter, ApiError> {
    let labels = match query.get("labelSelector") {
        "" => Selector::everything(),
        // The parser says "unable to parse requirement" itself, where Kubernetes says so.
        text => Selector::parse(text)?,
    };
    let mut fields = match query.get("fieldSelector") {
        "" => FieldSelector::default(),
        text => FieldSelector::parse(text)?,
    };
    fields.check(&*resource.kind)?;
    for field in &mut fields.0 {
        field.path = resource.kind.stored_field(&field.path).to_owned();
    }
    Ok(Filter { namespace: target.namespace.to_owned(), labels, fields })
}

fn list_request(resource: &Resource, target: &Target<'_>, query: &Query) -> Result<ListRequest, ApiError> {
    let filter = filter(resource, target, query)?;
    let list_options::ListOptions { limit, token, exact, not_older_than } = list_options::list(query)?;
    Ok(ListRequest { filter, limit, token, exact, not_older_than })
}

pub(super) fn is_dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool, ApiError> {
    let mut dry = false;
    for value in values.filter(|v| !v.is_empty()) {
        if value != "All" {
            let message = format!("dryRun: Unsupported value: {value:?}: supported values: \"All\"");
            return Err(ApiError::new(Reason::Invalid, message));
        }
        dry = true;
    }
    Ok(dry)
}

fn invalid_option(kind: &str, detail: &str) -> ApiError {
    ApiError::new(Reason::Invalid, format!("{kind}.meta.k8s.io \"\" is invalid: {detail}"))
}

/// Who writes, under which name, and whether for real.
pub(super) fn context<'a>(call: &Call<'a>) -> Result<WriteContext<'a>, ApiError> {
    let query = call.query;
    let manager: Cow<'a, str> = match query.get("fieldManager") {
        "" => manager_of(call.header(header::USER_AGENT).unwrap_or_default()).into(),
        given => {
            if given.chars().count() > MANAGER_MAX {
                let detail = format!("fieldManager: Too long: may not be more than {MANAGER_MAX} bytes");
                return Err(invalid_option("PatchOptions", &detail));
            }
            if given.chars().any(char::is_control) {
                let detail =
                    format!("fieldManager: Invalid value: {given:?}: should only contain printable characters");
                return Err(invalid_option("PatchOptions", &detail));
            }
            given.into()
        }
    };
    let context = WriteContext::new(call.who, manager).annotating(call.notes.annotations.clone());
    Ok(context.dry_run(is_dry_run(query.all("dryRun"))?))
}

/// Delete options from the body, filled up from the query.
fn delete_options<'a>(call: &Call<'a>, body: &Bytes) -> Result<(DeleteOptions, WriteContext<'a>), ApiError> {
    let mut options: DeleteOptions = if body.is_empty() { DeleteOptions::default() } else { body_of(call, body)? };
    let query = call.query;
    options.grace_period_seconds = match options.grace_period_seconds {
        None => query.number("gracePeriodSeconds")?,
        given => given,
    };
    let policy = query.find("propagationPolicy").filter(|p| !p.is_empty()).map(str::to_owned);
    options.propagation_policy = options.propagation_policy.or(policy);
    let orphan = query.find("orphanDependents").map(|_| query.flag("orphanDependents"));
    options.orphan_dependents = options.orphan_dependents.or(orphan);
    let mut context = context(call)?;
    context.dry_run |= is_dry_run(options.dry_run.iter().flatten().map(String::as_str))?;
    Ok((options, context))
}

fn success(names: &Names, object: &dyn Object) -> impl Serialize + use<> {
    let ObjectKey { name, .. } = object.key();
    let details = StatusDetails {
        name: Some(name),
        group: Some(names.group.to_owned()).filter(|g| !g.is_empty()),
        kind: Some(names.plural.to_owned()),
        uid: object.meta().uid.clone(),
        ..StatusDetails::default()
    };
    let status = Status { status: Some("Success".to_owned()), details: Some(details), ..Status::default() };
    let mut value = serde_json::to_value(status).unwrap_or_default();
    value["metadata"] = json!({});
    value
}
