//! Tokens of ServiceAccounts: signed when asked for, checked when presented.
//!
//! A token is a JWT signed with a key of the server's own (ES256). It is good until it expires, and only for as long as
//! its ServiceAccount, and the pod or secret that it is bound to, exist with the same uid. Tokens never reach logs.
//!
//! # Source
//! Kubernetes `pkg/serviceaccount/claims.go`, `pkg/registry/core/serviceaccount/storage/token.go`.

use std::{fmt, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestStatus},
        core::v1::{Node, Pod, Secret, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use podium_api::{ApiError, FieldErrors, Kind, Names, Object};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    auth::Identity,
    pki::write_private,
    registry::{Registry, Resource},
    server::StartError,
    token_secrets,
};

/// Who issues the tokens, and whom they are for when nobody else is named.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// A longer token is not read at all.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The key that signs tokens.
pub(crate) struct Accounts {
    key: EcdsaKeyPair,
    id: String,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accounts({})", self.id)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reference {
    name: String,
    uid: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Private {
    namespace: String,
    serviceaccount: Reference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    secret: Option<Reference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Reference>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    private: Private,
    nbf: i64,
    sub: String,
}

impl Accounts {
    /// Reads the key, or makes it.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds no key.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, StartError> {
        let path = data_dir.join("pki").join("sa.key");
        let broken = |reason: String| StartError::Pki { operation: "use the key for service account tokens", reason };
        let random = SystemRandom::new();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let new = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
                let text = URL_SAFE_NO_PAD.encode(new.map_err(|e| broken(e.to_string()))?);
                write_private(&path, &text)?;
                text
            }
            Err(source) => return Err(StartError::File { operation: "read", path, source }),
        };
        let pkcs8 = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|e| broken(e.to_string()))?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random);
        let key = key.map_err(|e| broken(e.to_string()))?;
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.public_key().as_ref()));
        Ok(Self { key, id })
    }

    /// The public key, for those who check tokens themselves: `/openid/v1/jwks`.
    pub(crate) fn jwks(&self) -> Value {
        // An uncompressed point: a tag, then x and y of 32 bytes each.
        let point = self.key.public_key().as_ref();
        let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(point.get(range).unwrap_or_default());
        json!({"keys": [{
            "use": "sig", "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.id, "x": part(1..33), "y": part(33..65),
        }]})
    }

    /// Checks a request for a token of a ServiceAccount and answers it.
    ///
    /// # Errors
    /// 422 when it asks for what cannot be; 404 and 409 as [`Accounts::issue`].
    pub(crate) fn answer(
        &self,
        registry: &Registry,
        account: &ServiceAccount,
        request: &mut TokenRequest,
    ) -> Result<(), ApiError> {
        request.fill_defaults();
        request.prepare_create();
        let mut errs = FieldErrors::new();
        request.validate(&mut errs);
        let meta = &account.metadata;
        if !errs.is_empty() {
            return Err(ApiError::invalid(&TokenRequest::NAMES, meta.name.as_deref().unwrap_or_default(), errs));
        }
        request.metadata.name = meta.name.clone();
        request.metadata.namespace = meta.namespace.clone();
        request.metadata.creation_timestamp = Some(Time(registry.clock().now()));
        self.issue(registry, account, request)
    }

    /// Makes a token of a ServiceAccount.
    ///
    /// # Errors
    /// 404 and 409 when the object that it shall be bound to is not there, or is another one.
    fn issue(&self, registry: &Registry, account: &ServiceAccount, request: &mut TokenRequest) -> Result<(), ApiError> {
        let meta = &account.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let mut private = Private {
            namespace: namespace.clone(),
            serviceaccount: reference(account),
            pod: None,
            secret: None,
            node: None,
        };
        let spec = request.spec.get_or_insert_default();
        if let Some(bound) = &spec.bound_object_ref {
            let (kind, name) = (bound.kind.as_deref().unwrap_or_default(), bound.name.as_deref().unwrap_or_default());
            let found = match kind {
                "Pod" => bind::<Pod>(registry, &namespace, name, bound.uid.as_deref(), &mut private.pod),
                "Secret" => bind::<Secret>(registry, &namespace, name, bound.uid.as_deref(), &mut private.secret),
                "Node" => bind::<Node>(registry, "", name, bound.uid.as_deref(), &mut private.node),
                other => Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount to object of type {other}"
                ))),
            };
            found?;
        }
        let audiences = spec.audiences.get_or_insert_default();
        if audiences.is_empty() {
            audiences.push(ISSUER.to_owned());
        }
        let now = registry.clock().now();
        let seconds = spec.expiration_seconds.unwrap_or(3600);
        let expires = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
        let claims = Claims {
            aud: audiences.clone(),
            exp: expires.as_second(),
            iat: now.as_second(),
            iss: ISSUER.to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            nbf: now.as_second(),
            sub: format!("system:serviceaccount:{namespace}:{}", private.serviceaccount.name),
            private,
        };
        let expiration_timestamp = Some(Time(Timestamp::from_second(expires.as_second()).unwrap_or(expires)));
        let token = Some(self.sign(&claims)?);
        request.status = Some(TokenRequestStatus { expiration_timestamp, token });
        Ok(())
    }

    /// A token that says this.
    ///
    /// # Errors
    /// 500 when it cannot be signed.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<String, ApiError> {
        let head = json!({"alg": "ES256", "kid": self.id, "typ": "JWT"}).to_string();
        let internal = |e: String| ApiError::internal(format!("signing a token: {e}"));
        let body = serde_json::to_vec(claims).map_err(|e| internal(e.to_string()))?;
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(body));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|e| internal(e.to_string()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whose token it is; `None` when it was not signed here, has expired, or what it is bound to is gone.
    pub(crate) fn identity(&self, registry: &Registry, token: &str) -> Option<Identity> {
        let said = self.verify(token)?;
        if let Some(claims) = token_secrets::Claims::of(&said) {
            return claims.identity(registry, token);
        }
        let claims = in_time(said, registry.clock().now())?;
        let private = claims.private;
        let account = current::<ServiceAccount>(registry, &private.namespace, &private.serviceaccount)?;
        let mut extra = std::collections::BTreeMap::from([(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("JTI={}", claims.jti)],
        )]);
        if let Some(pod) = &private.pod {
            current::<Pod>(registry, &private.namespace, pod)?;
            extra.insert("authentication.kubernetes.io/pod-name".to_owned(), vec![pod.name.clone()]);
            extra.insert("authentication.kubernetes.io/pod-uid".to_owned(), vec![pod.uid.clone()]);
        }
        if let Some(secret) = &private.secret {
            current::<Secret>(registry, &private.namespace, secret)?;
        }
        if let Some(node) = &private.node {
            current::<Node>(registry, "", node)?;
        }
        let identity = account_identity(&private.namespace, &private.serviceaccount.name, &account);
        Some(Identity { extra, ..identity })
    }

    /// What a token says that was signed here.
    fn verify(&self, token: &str) -> Option<Value> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, body) = signed.split_once('.')?;
        let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
        if head["alg"] != "ES256" {
            return None;
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()
    }
}

/// The claims of a token that is good now and here.
fn in_time(said: Value, now: Timestamp) -> Option<Claims> {
    let claims: Claims = serde_json::from_value(said).ok()?;
    let now = now.as_second();
    let good = claims.iss == ISSUER
        && claims.nbf <= now
        && now < claims.exp
        && claims.aud.iter().any(|audience| audience == ISSUER);
    good.then_some(claims)
}

/// A ServiceAccount as a user.
pub(crate) fn account_identity(namespace: &str, name: &str, uid: &str) -> Identity {
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
    let identity = Identity::new(format!("system:serviceaccount:{namespace}:{name}"), &groups);
    Identity { uid: uid.to_owned(), ..identity }
}

fn reference(object: &impl Object) -> Reference {
    let meta = object.meta();
    Reference { name: meta.name.clone().unwrap_or_default(), uid: meta.uid.clone().unwrap_or_default() }
}

fn bind<K: Kind>(
    registry: &Registry,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
    place: &mut Option<Reference>,
) -> Result<(), ApiError> {
    let resource = registry.of(&K::NAMES)?;
    let entry = resource.cache.get(namespace, name).ok_or_else(|| resource.not_found(name))?;
    let found = entry.object.uid().to_owned();
    if let Some(wanted) = uid.filter(|u| !u.is_empty() && **u != found) {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object \
             might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(&names::<K>(), name, &why));
    }
    *place = Some(Reference { name: name.to_owned(), uid: found });
    Ok(())
}

fn names<K: Kind>() -> Names {
    K::NAMES
}

/// The uid of an object that is still the one that is meant.
fn current<K: Kind>(registry: &Registry, namespace: &str, wanted: &Reference) -> Option<String> {
    let resource: std::sync::Arc<Resource> = registry.of(&K::NAMES).ok()?;
    let entry = resource.cache.get(namespace, &wanted.name)?;
    (entry.object.uid() == wanted.uid).then(|| wanted.uid.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(now: Timestamp) -> Claims {
        Claims {
            aud: vec![ISSUER.to_owned()],
            exp: now.as_second() + 600,
            iat: now.as_second(),
            iss: ISSUER.to_owned(),
            jti: "j".to_owned(),
            private: Private {
                namespace: "default".to_owned(),
                serviceaccount: Reference { name: "robot".to_owned(), uid: "u".to_owned() },
                pod: None,
                secret: None,
                node: None,
            },
            nbf: now.as_second(),
            sub: "system:serviceaccount:default:robot".to_owned(),
        }
    }

    #[test]
    fn only_own_and_current_tokens_count() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pki")).unwrap();
        let accounts = Accounts::open(dir.path()).unwrap();
        let verify = |accounts: &Accounts, token: &str, now| in_time(accounts.verify(token)?, now);
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let good = claims(now);
        let token = accounts.sign(&good).unwrap();
        assert_eq!(verify(&accounts, &token, now), Some(good.clone()));
        assert_eq!(verify(&Accounts::open(dir.path()).unwrap(), &token, now), Some(good.clone()), "the key is kept");
        assert_eq!(verify(&accounts, &token, Timestamp::from_second(good.exp).unwrap()), None, "expired");
        assert_eq!(verify(&accounts, &token, Timestamp::from_second(good.nbf - 1).unwrap()), None, "not yet");
        let other = accounts.sign(&Claims { aud: vec!["vault".to_owned()], ..good }).unwrap();
        assert_eq!(verify(&accounts, &other, now), None, "for somebody else");
        let mut parts: Vec<&str> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        parts[0] = &none;
        for bad in [parts.join("."), token.replace('.', ""), String::new(), "a.b.c".to_owned(), format!("{token}x")] {
            assert_eq!(verify(&accounts, &bad, now), None, "{bad}");
        }
        let stranger = tempfile::tempdir().unwrap();
        std::fs::create_dir(stranger.path().join("pki")).unwrap();
        assert_eq!(verify(&Accounts::open(stranger.path()).unwrap(), &token, now), None);
    }
}
