//! Webhooks as they are configured, and one call of one of them: the review, the answer, what it says.
//!
//! A configuration is compiled once for each of its revisions. When no configuration is there, nothing is done at all.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/{generic,request,errors}`.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhook,
        ValidatingWebhookConfiguration, WebhookClientConfig,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, Status},
};
use parking_lot::Mutex;
use podium_api::{ApiError, Names, Object, Reason, Revision};
use serde_json::{Value, json};

use super::{
    Operation, Request, Step,
    matching::{self, Condition, Seen, Selectors, is_namespace, rule_matches},
    metrics::{Called, Rejected},
};
use crate::{
    registry::{
        Registry, Resource,
        cache::{Entry, Filter},
    },
    webhook::{self, Target},
};

/// How long a webhook may take that says nothing else.
const TIMEOUT_DEFAULT_SECONDS: i32 = 10;

/// One webhook, ready to be matched and called.
pub(super) struct Hook {
    pub(super) name: String,
    /// A name that no other webhook has.
    pub(super) key: String,
    /// Called again when others changed the object after it.
    pub(super) reinvoked: bool,
    ignore_failures: bool,
    rules: Vec<RuleWithOperations>,
    equivalent: bool,
    selectors: Selectors,
    conditions: Vec<Condition>,
    target: Target,
    ca_bundle: Arc<[u8]>,
    timeout: Duration,
    dry_runs: bool,
}

/// What both kinds of webhooks have.
struct Parts<'a> {
    name: &'a str,
    rules: Option<&'a [RuleWithOperations]>,
    client: &'a WebhookClientConfig,
    namespaces: Option<&'a LabelSelector>,
    objects: Option<&'a LabelSelector>,
    conditions: Option<&'a [MatchCondition]>,
    failure_policy: Option<&'a str>,
    match_policy: Option<&'a str>,
    side_effects: &'a str,
    timeout_seconds: Option<i32>,
}

macro_rules! parts {
    ($hook:expr) => {
        Parts {
            name: &$hook.name,
            rules: $hook.rules.as_deref(),
            client: &$hook.client_config,
            namespaces: $hook.namespace_selector.as_ref(),
            objects: $hook.object_selector.as_ref(),
            conditions: $hook.match_conditions.as_deref(),
            failure_policy: $hook.failure_policy.as_deref(),
            match_policy: $hook.match_policy.as_deref(),
            side_effects: &$hook.side_effects,
            timeout_seconds: $hook.timeout_seconds,
        }
    };
}

impl Hook {
    fn new(parts: &Parts<'_>, key: String) -> Self {
        let seconds = parts.timeout_seconds.unwrap_or(TIMEOUT_DEFAULT_SECONDS);
        Self {
            name: parts.name.to_owned(),
            key,
            reinvoked: false,
            ignore_failures: parts.failure_policy == Some("Ignore"),
            rules: parts.rules.unwrap_or_default().to_vec(),
            equivalent: parts.match_policy != Some("Exact"),
            selectors: Selectors::new(parts.namespaces, parts.objects),
            conditions: matching::conditions(parts.conditions, false),
            target: target(parts.client),
            ca_bundle: parts.client.ca_bundle.as_ref().map(|b| b.0.as_slice().into()).unwrap_or_default(),
            timeout: Duration::from_secs(u64::try_from(seconds).unwrap_or(1).max(1)),
            dry_runs: matches!(parts.side_effects, "None" | "NoneOnDryRun"),
        }
    }

    fn validating(hook: &ValidatingWebhook, key: String) -> Self {
        Self::new(&parts!(hook), key)
    }

    fn mutating(hook: &MutatingWebhook, key: String) -> Self {
        let reinvoked = hook.reinvocation_policy.as_deref() == Some("IfNeeded");
        Self { reinvoked, ..Self::new(&parts!(hook), key) }
    }
}

fn target(client: &WebhookClientConfig) -> Target {
    match &client.service {
        None => Target::Url(client.url.clone().unwrap_or_default()),
        Some(service) => Target::Service {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            path: match service.path.as_deref().unwrap_or_default() {
                path if path.is_empty() || path.starts_with('/') => path.to_owned(),
                path => format!("/{path}"),
            },
            port: service.port.unwrap_or(443),
        },
    }
}

type Hooks = Arc<Vec<Arc<Hook>>>;

/// The webhooks of one kind of configurations.
pub(super) struct Configured {
    names: Names,
    /// By name, as of a revision.
    compiled: Mutex<HashMap<String, (Revision, Hooks)>>,
}

impl Configured {
    pub(super) fn new(names: Names) -> Self {
        Self { names, compiled: Mutex::default() }
    }

    /// The webhooks that are about a request, each with the version that it is asked in when that is another.
    pub(super) fn about(&self, registry: &Registry, request: &Request<'_>) -> Result<Vec<Wanted>, ApiError> {
        let Ok(of) = registry.of(&self.names) else { return Ok(Vec::new()) };
        if of.cache.len() == 0 || matching::is_exempt(request.resource) {
            return Ok(Vec::new());
        }
        let mut wanted = Vec::new();
        for (index, hook) in self.all(&of).into_iter().enumerate() {
            let matches = |asked: &matching::Asked<'_>| hook.rules.iter().any(|rule| rule_matches(rule, asked));
            let version = matching::matching_version(registry, request, hook.equivalent, matches);
            let Some(version) = version else { continue };
            wanted.push(Wanted { hook, version, index });
        }
        Ok(wanted)
    }

    fn all(&self, of: &Resource) -> Vec<Arc<Hook>> {
        let entries = of.cache.list(&Filter::default()).entries;
        let mut compiled = self.compiled.lock();
        if compiled.len() > entries.len() {
            compiled.retain(|name, _| entries.iter().any(|e| e.object.meta().name.as_ref() == Some(name)));
        }
        let mut all = Vec::new();
        for entry in entries {
            let (name, at) = (entry.object.meta().name.clone().unwrap_or_default(), entry.revision());
            let known = compiled.get(&name).filter(|(of, _)| *of == at).map(|(_, hooks)| hooks.clone());
            let hooks = known.unwrap_or_else(|| compile(&*entry.object));
            all.extend(hooks.iter().cloned());
            compiled.insert(name, (at, hooks));
        }
        all
    }
}

fn compile(object: &dyn Object) -> Hooks {
    let of = object.meta().name.clone().unwrap_or_default();
    let key = |i: usize, name: &str| format!("{of}/{name}/{i}");
    if let Some(config) = object.downcast_ref::<MutatingWebhookConfiguration>() {
        let hooks = config.webhooks.iter().flatten().enumerate();
        return Arc::new(hooks.map(|(i, h)| Arc::new(Hook::mutating(h, key(i, &h.name)))).collect());
    }
    let config = object.downcast_ref::<ValidatingWebhookConfiguration>();
    let hooks = config.iter().flat_map(|c| c.webhooks.iter().flatten()).enumerate();
    Arc::new(hooks.map(|(i, h)| Arc::new(Hook::validating(h, key(i, &h.name)))).collect())
}

/// A webhook whose rules are about a request.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) hook: Arc<Hook>,
    /// The version that it is asked in, when it is not that of the request.
    pub(super) version: Option<Arc<Resource>>,
    /// Its place among all webhooks of its sort.
    index: usize,
}

/// What a webhook wants of an object.
pub(super) struct Verdict {
    /// Operations of a JSON patch.
    pub(super) patch: Option<Value>,
}

impl Wanted {
    /// Asks the webhook; `None` when it is not about this request after all, or failed where that is to be ignored.
    ///
    /// # Errors
    /// Its refusal; 500 when it cannot be asked.
    pub(super) async fn ask(
        &self,
        registry: &Registry,
        request: &Request<'_>,
        step: Step,
    ) -> Result<Option<Verdict>, ApiError> {
        let hook = &*self.hook;
        if !hook.selectors.match_request(registry, request)? {
            return Ok(None);
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let review = review(request, self.version.as_deref(), &uid).await?;
        if !hook.conditions_hold(registry, request, &review)? {
            return Ok(None);
        }
        let started = Instant::now();
        let outcome = hook.call(registry, request, review, (&uid, step)).await;
        let (code, rejected) = match &outcome {
            Ok(_) => (200, None),
            Err(Failure::Said(_, code)) => (*code, Some(Rejected::Said)),
            Err(Failure::Server(_)) => (0, Some(Rejected::Server)),
            Err(Failure::Calling(error)) => {
                (error.code.unwrap_or(UNAVAILABLE), (!hook.ignore_failures).then_some(Rejected::Calling))
            }
        };
        let metrics = registry.admission().metrics();
        let took = started.elapsed();
        metrics.webhook(&hook.name, &Called { step, operation: request.operation, took, code, rejected });
        match outcome {
            Ok(verdict) => Ok(Some(verdict)),
            Err(Failure::Said(error, _) | Failure::Server(error)) => Err(error),
            Err(Failure::Calling(error)) if hook.ignore_failures => {
                metrics.failed_open(&hook.name, step);
                request.context.annotate(format!("failed-open.{}", self.annotation(request, step)), hook.name.as_str());
                let why = error.why;
                tracing::warn!(webhook = hook.name, why, "a webhook failed, which its configuration says to ignore");
                Ok(None)
            }
            Err(Failure::Calling(CallError { why, .. })) => {
                Err(ApiError::internal(format!("failed calling webhook {:?}: {why}", hook.name)))
            }
        }
    }
}

impl Wanted {
    /// Notes for the audit log whether a webhook changed the object.
    pub(super) fn note(&self, request: &Request<'_>, mutated: bool) {
        let configuration = self.hook.key.split('/').next().unwrap_or_default();
        let value = json!({"configuration": configuration, "webhook": self.hook.name, "mutated": mutated});
        request.context.annotate(self.annotation(request, Step::Admit), value.to_string());
    }

    /// The name of a note about this call.
    fn annotation(&self, request: &Request<'_>, step: Step) -> String {
        let sort = match step {
            Step::Admit => "mutation",
            Step::Validate => "validating",
        };
        let round = u8::from(step == Step::Admit && request.reinvocation.is_again());
        format!("{sort}.webhook.admission.k8s.io/round_{round}_index_{}", self.index)
    }
}

/// The code of the error when a webhook gave none.
const UNAVAILABLE: u16 = 503;

/// Why there is no verdict.
enum Failure {
    /// It refuses, with a code of its own.
    Said(ApiError, u16),
    /// It could not be asked, or its answer not be read.
    Calling(CallError),
    /// It must not be asked.
    Server(ApiError),
}

struct CallError {
    why: String,
    code: Option<u16>,
}

impl Hook {
    async fn call(
        &self,
        registry: &Registry,
        request: &Request<'_>,
        review: Value,
        (uid, step): (&str, Step),
    ) -> Result<Verdict, Failure> {
        if request.context.dry_run && !self.dry_runs {
            let message = format!("admission webhook {:?} does not support dry run", self.name);
            return Err(Failure::Server(ApiError::bad_request(message)));
        }
        let body = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": review});
        let called = webhook::call(registry, &self.target, &self.ca_bundle, &body, self.timeout).await;
        let answer = called.map_err(|error| {
            Failure::Calling(CallError { why: format!("failed to call webhook: {error}"), code: error.code })
        })?;
        let response = verified(answer, uid, step == Step::Admit).map_err(|why| {
            Failure::Calling(CallError { why: format!("received invalid webhook response: {why}"), code: None })
        })?;
        self.judged(response, request).map_err(|(error, code)| Failure::Said(error, code))
    }

    fn conditions_hold(&self, registry: &Registry, request: &Request<'_>, review: &Value) -> Result<bool, ApiError> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let seen = Seen::new(registry, request, review);
        match matching::conditions_hold(&self.conditions, &seen.vars(), &Seen::budget()) {
            Ok(holds) => Ok(holds),
            Err(_) if self.ignore_failures => Ok(false),
            Err(why) => Err(ApiError::forbidden(&request.resource.names, request.name, &why)),
        }
    }

    fn judged(&self, response: Response, request: &Request<'_>) -> Result<Verdict, (ApiError, u16)> {
        for (key, value) in response.annotations {
            request.context.annotate(format!("{}/{key}", self.name), value);
        }
        response.warnings.into_iter().for_each(|warning| request.context.warn(warning));
        if response.allowed { Ok(Verdict { patch: response.patch }) } else { Err(denied(&self.name, response.result)) }
    }
}

/// The refusal of a webhook, in Kubernetes' words, and its code.
fn denied(name: &str, result: Option<Status>) -> (ApiError, u16) {
    let mut status = result.unwrap_or_default();
    let by = format!("admission webhook {name:?} denied the request");
    let text = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    status.message = Some(match (text(&status.message), text(&status.reason)) {
        (Some(message), _) => format!("{by}: {message}"),
        (None, Some(reason)) => format!("{by}: {reason}"),
        (None, None) => format!("{by} without explanation"),
    });
    let code = status.code.unwrap_or_default().max(400);
    status.code = Some(code);
    let mut error = ApiError::from_status(status);
    if error.reason == Reason::InternalError && code < 500 {
        error.reason = Reason::BadRequest;
    }
    (error, u16::try_from(code).unwrap_or(u16::MAX))
}

/// The request of an `AdmissionReview`.
pub(super) async fn review(request: &Request<'_>, version: Option<&Resource>, uid: &str) -> Result<Value, ApiError> {
    let (own, shown) = (&request.resource.names, version.map_or(&request.resource.names, |v| &v.names));
    // Of a connection, its options are the object.
    let spoken = request.object.as_deref().filter(|_| request.operation == Operation::Connect).map(Object::names);
    let (own_kind, shown_kind) = (spoken.as_ref().unwrap_or(own), spoken.as_ref().unwrap_or(shown));
    let kind = |n: &Names| json!({"group": n.group, "version": n.version, "kind": n.kind});
    let resource = |n: &Names| json!({"group": n.group, "version": n.version, "resource": n.plural});
    let object = match request.object.as_deref() {
        Some(object) => tree(request.resource, version, object).await?,
        None => Value::Null,
    };
    let old = match request.old {
        Some(object) => tree(request.resource, version, object).await?,
        None => Value::Null,
    };
    let who = request.context.who;
    let mut user = json!({"username": who.user, "groups": who.groups});
    if !who.uid.is_empty() {
        user["uid"] = who.uid.as_str().into();
    }
    if !who.extra.is_empty() {
        user["extra"] = json!(who.extra);
    }
    let mut review = json!({
        "uid": uid, "kind": kind(shown_kind), "resource": resource(shown),
        "requestKind": kind(own_kind), "requestResource": resource(own),
        "operation": request.operation.as_str(), "userInfo": user, "object": object, "oldObject": old,
        "dryRun": request.context.dry_run, "options": request.options,
    });
    let namespace = if is_namespace(request.resource) { request.name } else { request.namespace };
    for (field, value) in [
        ("subResource", request.subresource),
        ("requestSubResource", request.subresource),
        ("name", request.name),
        ("namespace", namespace),
    ] {
        if !value.is_empty() {
            review[field] = value.into();
        }
    }
    Ok(review)
}

async fn tree(from: &Resource, to: Option<&Resource>, object: &dyn Object) -> Result<Value, ApiError> {
    let converted = match to {
        Some(to) => Some(convert(from, to, object.boxed_clone()).await?),
        None => None,
    };
    let shown = converted.as_deref().unwrap_or(object);
    shown.to_value().map_err(|error| ApiError::internal(format!("encoding an object: {error}")))
}

/// An object as another version of its resource shows it.
pub(super) async fn convert(
    from: &Resource,
    to: &Resource,
    object: Box<dyn Object>,
) -> Result<Box<dyn Object>, ApiError> {
    let stored = from.to_stored(object).await?;
    let entry = Entry::of("".into(), stored.into(), &[])?;
    Ok(to.view(Arc::new(entry)).await?.object.boxed_clone())
}

/// Changes the object as a version of it shows it (`None`: that of the request). It stays as it was on an error.
///
/// Answers with whether it is another then.
pub(super) async fn change(
    request: &mut Request<'_>,
    version: Option<&Resource>,
    change: impl FnOnce(&Resource, Value) -> Result<Value, ApiError> + Send,
) -> Result<bool, ApiError> {
    let Some(before) = request.object.as_deref() else { return Ok(false) };
    let (own, shown) = (request.resource, version.unwrap_or(request.resource));
    let tree = tree(own, version, before).await?;
    let mut changed = shown.kind.decode_value(change(shown, tree)?)?.object;
    shown.kind.fill_defaults(&mut *changed);
    let changed = if version.is_some() { convert(shown, own, changed).await? } else { changed };
    let same = changed.same_as(before);
    request.object = Some(changed);
    Ok(!same)
}

#[derive(Debug)]
struct Response {
    allowed: bool,
    patch: Option<Value>,
    result: Option<Status>,
    warnings: Vec<String>,
    annotations: Vec<(String, String)>,
}

/// Reads an answer, which must be one to this request.
fn verified(mut answer: Value, uid: &str, mutating: bool) -> Result<Response, String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&answer["apiVersion"]), text(&answer["kind"]));
    if (version.as_str(), kind.as_str()) != ("admission.k8s.io/v1", "AdmissionReview") {
        return Err(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {version}, Kind={kind}"
        ));
    }
    let mut response = answer["response"].take();
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let got = text(&response["uid"]);
    if got != uid {
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    let patch = text(&response["patch"]);
    let patch_type = text(&response["patchType"]);
    if !(mutating || patch.is_empty() && patch_type.is_empty()) {
        return Err("expected no response.patch and no response.patchType from a validating webhook".to_owned());
    }
    let strings = |v: &Value| v.as_array().into_iter().flatten().map(text).collect();
    let pairs = |v: &Value| v.as_object().into_iter().flatten().map(|(k, v)| (k.clone(), text(v))).collect();
    Ok(Response {
        allowed: response["allowed"].as_bool().unwrap_or(false),
        patch: decoded_patch(&patch, &patch_type)?,
        warnings: strings(&response["warnings"]),
        annotations: pairs(&response["auditAnnotations"]),
        result: serde_json::from_value(response["status"].take()).ok(),
    })
}

fn decoded_patch(patch: &str, patch_type: &str) -> Result<Option<Value>, String> {
    use base64::Engine as _;
    match (patch.is_empty(), patch_type) {
        (true, "") => return Ok(None),
        (true, _) => return Err("response.patch is empty although response.patchType is set".to_owned()),
        (false, "JSONPatch") => {}
        (false, other) => return Err(format!("expected response.patchType=\"JSONPatch\", got {other:?}")),
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(patch);
    let bytes = bytes.map_err(|error| format!("response.patch is not base64: {error}"))?;
    let patch = serde_json::from_slice(&bytes);
    patch.map(Some).map_err(|error| format!("received undecodable patch in webhook response: {error}"))
}

/// Whether an operation has an object that can be changed.
pub(super) fn changes(operation: Operation) -> bool {
    matches!(operation, Operation::Create | Operation::Update)
}
