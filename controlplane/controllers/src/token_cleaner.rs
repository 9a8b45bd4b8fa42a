//! Bootstrap tokens go when they have expired. Who shows one before that is let in by the API server, which looks at the
//! time itself.
//!
//! # Source
//! Kubernetes `pkg/controller/bootstrap/tokencleaner.go`, and `GetExpiration` of
//! `staging/src/k8s.io/cluster-bootstrap/util/secrets/secrets.go`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use podium_api::kind_of;

use crate::{Controller, Key, Plan, Trigger, View, ViewExt, owners::delete};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// The controller.
pub struct TokenCleaner;

impl Controller for TokenCleaner {
    fn name(&self) -> &'static str {
        "token-cleaner"
    }

    fn component(&self) -> &'static str {
        "token-cleaner-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![Trigger {
            kind: kind_of::<Secret>(),
            keys: |object, _| object.downcast_ref().and_then(token).into_iter().collect(),
        }]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(secret) = view.get_as::<Secret>(&key.object).filter(|secret| token(secret).is_some()) else {
            return plan;
        };
        match expires_at(&secret) {
            Some(at) if at <= now => plan.push(delete(&*secret)),
            Some(at) => plan.requeue_at(at, now),
            None => {}
        }
        plan
    }
}

/// The key of a Secret that is a token.
fn token(secret: &Secret) -> Option<Key> {
    let here = secret.metadata.namespace.as_deref() == Some(NAMESPACE) && secret.type_.as_deref() == Some(TYPE);
    here.then(|| Key::of(secret))
}

/// When a token ends; one that says nothing does not, one that says nonsense has ended.
fn expires_at(secret: &Secret) -> Option<Timestamp> {
    let said = secret.data.as_ref()?.get("expiration").filter(|said| !said.0.is_empty())?;
    let read = std::str::from_utf8(&said.0).ok().and_then(|text| text.parse().ok());
    Some(read.unwrap_or(Timestamp::MIN))
}

#[cfg(test)]
mod tests {
    use podium_api::{Kind as _, ObjectKey};
    use serde_json::json;

    use super::*;
    use crate::test_support::{NOW, World, ago, show};

    #[test]
    fn tokens_go_when_they_have_expired() {
        let bytes = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
        for (namespace, kind, expiration, wanted) in [
            ("kube-system", TYPE, Some(ago(1)), "delete secret t"),
            ("kube-system", TYPE, Some(ago(0)), "delete secret t"),
            ("kube-system", TYPE, Some(ago(-90)), "look again after 90s"),
            ("kube-system", TYPE, Some("tomorrow".to_owned()), "delete secret t"),
            ("kube-system", TYPE, Some(String::new()), ""),
            ("kube-system", TYPE, None, ""),
            ("kube-system", "Opaque", Some(ago(1)), ""),
            ("default", TYPE, Some(ago(1)), ""),
        ] {
            let data = expiration.as_deref().map(|text| json!({ "expiration": bytes(text) }));
            let secret = json!({
                "metadata": {"namespace": namespace, "name": "t", "uid": "u", "resourceVersion": "7"},
                "type": kind,
                "data": data,
            });
            let typed: Secret = serde_json::from_value(secret.clone()).unwrap();
            let key = Key::new(&Secret::NAMES, ObjectKey::new(namespace, "t"));
            let woken = (TokenCleaner.triggers()[0].keys)(&typed, &World::of(""));
            let concerned = namespace == NAMESPACE && kind == TYPE;
            assert_eq!(woken, if concerned { vec![key.clone()] } else { Vec::new() }, "{namespace} {kind}");
            let plan = TokenCleaner.reconcile(
                &key,
                &World::of("").plus::<Secret>(secret),
                Timestamp::from_second(NOW).unwrap(),
            );
            assert_eq!(show(&plan), wanted, "{namespace} {kind} {expiration:?}");
        }
    }
}
