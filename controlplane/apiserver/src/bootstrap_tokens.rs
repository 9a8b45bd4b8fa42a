//! Bootstrap tokens: what a machine shows that is to become a node and has no certificate yet. A token is `ID.SECRET`; it is
//! good while the Secret `bootstrap-token-ID` of `kube-system` is there, says the same, and has not expired.
//!
//! Whoever holds one may ask for certificates of nodes and nothing else. Tokens never reach logs.
//!
//! # Source
//! Kubernetes `plugin/pkg/auth/authenticator/token/bootstrap/bootstrap.go`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use podium_api::Kind as _;

use crate::{auth::Identity, registry::Registry};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// Whoever shows such a token is in this group.
const GROUP: &str = "system:bootstrappers";
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;

/// Whose token it is; nobody's when no Secret says so.
pub(crate) fn identity(registry: &Registry, token: &str) -> Option<Identity> {
    let (id, _) = parts(token)?;
    let secrets = registry.of(&Secret::NAMES).ok()?;
    let entry = secrets.cache.get(NAMESPACE, &format!("bootstrap-token-{id}"))?;
    judge(entry.object.downcast_ref()?, token, registry.clock().now())
}

/// Its id and its secret.
fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let fits = id.len() == ID_CHARS && secret.len() == SECRET_CHARS && is_plain(id) && is_plain(secret);
    fits.then_some((id, secret))
}

fn judge(kept: &Secret, token: &str, now: Timestamp) -> Option<Identity> {
    let (id, secret) = parts(token)?;
    if kept.metadata.deletion_timestamp.is_some() || kept.type_.as_deref() != Some(TYPE) {
        return None;
    }
    let field = |name: &str| {
        let value = kept.data.as_ref().and_then(|data| data.get(name));
        value.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).unwrap_or_default()
    };
    let expired = match field("expiration") {
        "" => false,
        // What cannot be read might have been long ago.
        text => text.parse::<Timestamp>().map_or(true, |at| at <= now),
    };
    let same = same(field("token-secret"), secret) && field("token-id") == id;
    if !same || expired || field("usage-bootstrap-authentication") != "true" {
        return None;
    }
    let mut groups = vec![GROUP];
    let extra: Vec<&str> = field("auth-extra-groups").split(',').map(str::trim).filter(|g| !g.is_empty()).collect();
    if !extra.iter().all(|group| is_bootstrap_group(group)) {
        return None;
    }
    groups.extend(extra);
    groups.push("system:authenticated");
    Some(Identity::new(format!("system:bootstrap:{id}"), &groups))
}

/// Takes as long whatever was guessed.
fn same(kept: &str, given: &str) -> bool {
    kept.len() == given.len() && kept.bytes().zip(given.bytes()).fold(0, |acc, (a, b)| acc | (a ^ b)) == 0
}

/// A token can be in no other groups.
fn is_bootstrap_group(group: &str) -> bool {
    group.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-';
        let last = rest.bytes().last();
        rest.len() <= 256 && rest.bytes().all(plain) && last.is_some_and(|b| b != b':' && b != b'-')
    })
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde_json::{Map, Value, json};

    use super::*;

    const TOKEN: &str = "abcdef.0123456789abcdef";

    fn secret(changes: &[(&str, &str)]) -> Secret {
        let mut fields = vec![
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", "2026-01-02T00:00:00Z"),
        ];
        fields.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        fields.extend(changes);
        let data: Map<String, Value> =
            fields.into_iter().map(|(name, value)| (name.to_owned(), STANDARD.encode(value).into())).collect();
        serde_json::from_value(json!({ "metadata": { "name": "x" }, "type": TYPE, "data": data })).unwrap()
    }

    #[test]
    fn only_what_the_secret_says_is_good() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let groups = |changes: &[(&str, &str)], token: &str| {
            judge(&secret(changes), token, now).map(|who| (who.user, who.groups.join(" ")))
        };
        let (user, of) = groups(&[], TOKEN).unwrap();
        assert_eq!(
            (user.as_str(), of.as_str()),
            ("system:bootstrap:abcdef", "system:bootstrappers system:authenticated")
        );
        let more = "system:bootstrappers:kubeadm:default-node-token";
        let found = groups(&[("auth-extra-groups", more)], TOKEN).unwrap().1;
        assert_eq!(found, format!("system:bootstrappers {more} system:authenticated"));
        for (changes, token, why) in [
            (&[][..], "abcdef.0123456789abcdeg", "another secret"),
            (&[], "abcdeg.0123456789abcdef", "another id"),
            (&[], "abcdef.0123456789ABCDEF", "upper case"),
            (&[], "abcdef0123456789abcdef", "no dot"),
            (&[("token-id", "abcdeg")], TOKEN, "the Secret is of another token"),
            (&[("expiration", "2026-01-01T12:00:00Z")], TOKEN, "expired"),
            (&[("expiration", "tomorrow")], TOKEN, "no time"),
            (&[("usage-bootstrap-authentication", "false")], TOKEN, "not to be shown"),
            (&[("auth-extra-groups", "system:masters")], TOKEN, "a group that it cannot be in"),
            (&[("auth-extra-groups", "system:bootstrappers:")], TOKEN, "no group"),
        ] {
            assert_eq!(groups(changes, token), None, "{why}");
        }
        let other = Secret { type_: Some("Opaque".to_owned()), ..secret(&[]) };
        assert_eq!(judge(&other, TOKEN, now), None);
        assert!(groups(&[("expiration", "")], TOKEN).is_some(), "one without an end");
    }
}
