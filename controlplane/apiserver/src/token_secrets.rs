//! Tokens that stand in Secrets of type `kubernetes.io/service-account-token`: put there when such a Secret asks for one, good
//! for as long as the Secret and its ServiceAccount are there and the Secret still says the same.
//!
//! They do not expire. It is done here and not by a controller since the key that signs never leaves this process. A Secret
//! whose ServiceAccount is not there goes. Tokens never reach logs.
//!
//! # Source
//! Kubernetes `pkg/controller/serviceaccount/tokens_controller.go`, `pkg/serviceaccount/legacy.go`.

use std::sync::Arc;

use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
};
use podium_api::{ApiError, FieldSelector, Kind as _, Object, Reason};
use podium_client::Delta;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    accounts::{Accounts, account_identity},
    auth::Identity,
    bootstrap::own,
    registry::{Part, Registry, Resource, WriteContext, cache::Filter},
};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Label of a Secret whose token is no longer taken.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const ISSUER: &str = "kubernetes/serviceaccount";
/// The field manager of what is written here.
const OWN: &str = "kube-controller-manager";

/// What such a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

impl Claims {
    /// Reads what a token says; `None` when it is of the other sort.
    pub(crate) fn of(claims: &Value) -> Option<Self> {
        if claims["iss"] != ISSUER {
            return None;
        }
        serde_json::from_value(claims.clone()).ok()
    }

    fn new(account: &ObjectMeta, secret: &str) -> Self {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let (namespace, name) = (part(&account.namespace), part(&account.name));
        Self {
            iss: ISSUER.to_owned(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            namespace,
            secret: secret.to_owned(),
            account: name,
            uid: part(&account.uid),
        }
    }

    /// Whose token it is; `None` when its Secret or ServiceAccount is gone, or says otherwise.
    pub(crate) fn identity(&self, registry: &Registry, token: &str) -> Option<Identity> {
        let secret = registry.of(&Secret::NAMES).ok()?.cache.get(&self.namespace, &self.secret)?;
        let account = registry.of(&ServiceAccount::NAMES).ok()?.cache.get(&self.namespace, &self.account)?;
        let holds = holds(secret.object.downcast_ref()?, token);
        let lives = account.object.uid() == self.uid && account.object.meta().deletion_timestamp.is_none();
        (holds && lives).then(|| account_identity(&self.namespace, &self.account, &self.uid))
    }
}

/// Whether a Secret has this token and means it.
fn holds(secret: &Secret, token: &str) -> bool {
    let meta = &secret.metadata;
    let invalid = meta.labels.as_ref().and_then(|labels| labels.get(INVALID_SINCE)).is_some_and(|at| !at.is_empty());
    let kept = secret.data.as_ref().and_then(|data| data.get("token"));
    secret.type_.as_deref() == Some(TYPE)
        && meta.deletion_timestamp.is_none()
        && !invalid
        && kept.is_some_and(|kept| kept.0 == token.as_bytes())
}

/// Puts tokens where they are asked for, for as long as the server runs.
pub(crate) async fn run(registry: Arc<Registry>, accounts: Arc<Accounts>, ca_pem: String, stop: CancellationToken) {
    let (Ok(secrets), Ok(owners)) = (registry.of(&Secret::NAMES), registry.of(&ServiceAccount::NAMES)) else { return };
    let mut changes = secrets.cache.subscribe(of_type());
    let mut gone = owners.cache.subscribe(Filter::default());
    let keeper =
        Keeper { registry: &registry, secrets: &secrets, owners: &owners, accounts: &accounts, ca_pem: &ca_pem };
    loop {
        let concerned = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.recv() => match change {
                Some(Delta::Put { new, .. }) => vec![new],
                Some(Delta::Delete { .. }) => Vec::new(),
                None => return,
            },
            change = gone.recv() => match change {
                Some(Delta::Delete { old, .. }) => keeper.of_account(&*old),
                Some(Delta::Put { .. }) => Vec::new(),
                None => return,
            },
        };
        for secret in concerned {
            match keeper.look_at(&*secret).await {
                // Changed meanwhile: the change comes by here again.
                Err(error) if !matches!(error.reason, Reason::NotFound | Reason::Conflict | Reason::Forbidden) => {
                    tracing::warn!(secret = %secret.key(), %error, "a secret gets no token");
                }
                _ => {}
            }
        }
    }
}

fn of_type() -> Filter {
    let fields = FieldSelector::parse(&format!("type={TYPE}")).expect("invariant: a plain type");
    Filter { fields, ..Filter::default() }
}

struct Keeper<'a> {
    registry: &'a Registry,
    secrets: &'a Resource,
    owners: &'a Resource,
    accounts: &'a Accounts,
    ca_pem: &'a str,
}

impl Keeper<'_> {
    /// The Secrets of an account.
    fn of_account(&self, account: &dyn Object) -> Vec<Arc<dyn Object>> {
        let key = account.key();
        let all = self.secrets.cache.list(&Filter { namespace: key.namespace, ..of_type() }).entries;
        let its = all.iter().filter(|entry| annotation(entry.object.meta(), ACCOUNT_NAME) == key.name);
        its.map(|entry| Arc::clone(&entry.object)).collect()
    }

    /// Fills in what a Secret lacks, or deletes it when it is nobody's.
    async fn look_at(&self, object: &dyn Object) -> Result<(), ApiError> {
        let Some(secret) = object.downcast_ref::<Secret>() else { return Ok(()) };
        let meta = &secret.metadata;
        if meta.deletion_timestamp.is_some() {
            return Ok(());
        }
        // An account that was made before it is known then.
        self.registry.wait_for(object.revision()).await?;
        let (key, uid) = (object.key(), annotation(meta, ACCOUNT_UID));
        let owner = self.owners.cache.get(&key.namespace, annotation(meta, ACCOUNT_NAME));
        let owner = owner.filter(|owner| uid.is_empty() || uid == owner.object.uid());
        let who = own();
        let context = WriteContext::new(&who, OWN).unchecked();
        let Some(owner) = owner else {
            let same = Preconditions { uid: meta.uid.clone(), resource_version: None };
            let options = DeleteOptions { preconditions: Some(same), ..DeleteOptions::default() };
            let (namespace, name) = (&key.namespace, &key.name);
            return self.registry.delete(self.secrets, namespace, name, &options, &context).await.map(|_| ());
        };
        let filled = self.filled(secret, owner.object.meta())?;
        if filled == *secret {
            return Ok(());
        }
        let place = (key.namespace.as_str(), key.name.as_str());
        let new: Box<dyn Object> = Box::new(filled);
        let written =
            self.registry.update_with(self.secrets, place, Part::Main, &context, |_| Ok(new.boxed_clone().into()));
        written.await.map(|_| ())
    }

    /// A Secret with all that it is to have; what is there stays.
    fn filled(&self, secret: &Secret, account: &ObjectMeta) -> Result<Secret, ApiError> {
        let mut filled = secret.clone();
        let annotations = filled.metadata.annotations.get_or_insert_default();
        annotations.insert(ACCOUNT_UID.to_owned(), account.uid.clone().unwrap_or_default());
        let data = filled.data.get_or_insert_default();
        data.insert("ca.crt".to_owned(), ByteString(self.ca_pem.as_bytes().to_vec()));
        if data.get("namespace").is_none_or(|kept| kept.0.is_empty()) {
            let namespace = account.namespace.clone().unwrap_or_default();
            data.insert("namespace".to_owned(), ByteString(namespace.into_bytes()));
        }
        if data.get("token").is_none_or(|kept| kept.0.is_empty()) {
            let claims = Claims::new(account, secret.metadata.name.as_deref().unwrap_or_default());
            data.insert("token".to_owned(), ByteString(self.accounts.sign(&claims)?.into_bytes()));
        }
        Ok(filled)
    }
}

fn annotation<'m>(meta: &'m ObjectMeta, name: &str) -> &'m str {
    meta.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str).unwrap_or_default()
}
