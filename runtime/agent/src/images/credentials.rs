//! Pull secrets: which user name and password fit which image. Nothing here prints a secret.
//!
//! # Source
//! Kubernetes `pkg/credentialprovider/keyring.go`, `config.go`.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use super::digest;

/// A user name and password, or a token that a registry takes as it is.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    Basic { user: String, password: String },
    Token(String),
}

impl Credential {
    /// Tells credentials apart without saying what they are.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Basic { user, password } => digest(format!("basic\0{user}\0{password}").as_bytes()),
            Self::Token(token) => digest(format!("token\0{token}").as_bytes()),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// The pull secrets of a pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keyring {
    entries: Vec<(Place, Credential)>,
}

/// What a key of a secret stands for: a host, whose words may hold `*`, and the beginning of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    path: String,
}

#[derive(Deserialize)]
struct DockerConfigJson {
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    registrytoken: String,
}

impl Keyring {
    /// Adds what a secret holds.
    ///
    /// # Errors
    /// What is wrong with it, without its values.
    pub(crate) fn add(&mut self, secret: &Secret) -> Result<(), String> {
        let bytes = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
        let read = |what: serde_json::Error| format!("line {}, column {} cannot be read", what.line(), what.column());
        let auths: BTreeMap<String, Auth> = if let Some(json) = bytes(".dockerconfigjson") {
            serde_json::from_slice::<DockerConfigJson>(json).map_err(read)?.auths
        } else if let Some(json) = bytes(".dockercfg") {
            serde_json::from_slice(json).map_err(read)?
        } else {
            return Err("it has neither .dockerconfigjson nor .dockercfg".to_owned());
        };
        self.entries.extend(auths.into_iter().filter_map(|(key, auth)| Some((Place::parse(&key), credential(auth)?))));
        Ok(())
    }

    /// Tells keyrings apart.
    pub(crate) fn id(&self) -> String {
        let ids =
            self.entries.iter().map(|(place, credential)| format!("{} {} {}", place.host, place.path, credential.id()));
        digest(ids.collect::<Vec<_>>().join("\n").as_bytes())
    }

    /// Credentials for an image, the one for the longest path first.
    pub(crate) fn find(&self, host: &str, repository: &str) -> Vec<Credential> {
        let mut found: Vec<_> = self.entries.iter().filter(|(place, _)| place.fits(host, repository)).collect();
        found.sort_by_key(|(place, _)| (std::cmp::Reverse(place.path.len()), place.host.contains('*')));
        let mut credentials: Vec<Credential> = Vec::new();
        for (_, credential) in found {
            if !credentials.contains(credential) {
                credentials.push(credential.clone());
            }
        }
        credentials
    }
}

fn credential(auth: Auth) -> Option<Credential> {
    if !auth.registrytoken.is_empty() {
        return Some(Credential::Token(auth.registrytoken));
    }
    let (mut user, mut password) = (auth.username, auth.password);
    if !auth.auth.is_empty() {
        let text = String::from_utf8(STANDARD.decode(auth.auth.trim()).ok()?).ok()?;
        let (first, second) = text.split_once(':')?;
        (user, password) = (first.to_owned(), second.trim_end_matches('\0').to_owned());
    }
    (!user.is_empty() || !password.is_empty()).then_some(Credential::Basic { user, password })
}

impl Place {
    fn parse(key: &str) -> Self {
        let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        let (host, path) = key.split_once('/').unwrap_or((key, ""));
        let path = path.trim_matches('/');
        // How Docker used to name registries, not a repository.
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        Self { host: hub(host).to_owned(), path: path.to_owned() }
    }

    fn fits(&self, host: &str, repository: &str) -> bool {
        let path = self.path.is_empty()
            || repository.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        path && host_fits(&self.host, hub(host))
    }
}

fn hub(host: &str) -> &str {
    if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host }
}

/// Word by word, so that `*.example.com` is no `a.b.example.com`. The port must be the same.
fn host_fits(pattern: &str, host: &str) -> bool {
    let port = |name: &str| name.rsplit_once(':').map(|(_, port)| port.to_owned());
    if port(pattern) != port(host) {
        return false;
    }
    let words =
        |name: &str| name.split(':').next().unwrap_or_default().split('.').map(str::to_owned).collect::<Vec<_>>();
    let (pattern, host) = (words(pattern), words(host));
    pattern.len() == host.len() && pattern.iter().zip(&host).all(|(pattern, word)| word_fits(pattern, word))
}

fn word_fits(pattern: &str, word: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == word,
        Some((before, after)) => {
            let Some(rest) = word.strip_prefix(before) else { return false };
            (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| word_fits(after, rest)))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(key: &str, content: &serde_json::Value) -> Secret {
        let data = json!({ key: STANDARD.encode(content.to_string()) });
        serde_json::from_value(json!({ "metadata": {}, "data": data })).unwrap()
    }

    fn users(keyring: &Keyring, host: &str, repository: &str) -> Vec<String> {
        let user = |credential: Credential| match credential {
            Credential::Basic { user, password } => format!("{user}:{password}"),
            Credential::Token(token) => token,
        };
        keyring.find(host, repository).into_iter().map(user).collect()
    }

    #[test]
    fn the_longest_path_comes_first() {
        let mut keyring = Keyring::default();
        let auths = json!({ "auths": {
            "https://index.docker.io/v1/": { "auth": STANDARD.encode("hub:p:w") },
            "ghcr.io": { "username": "all", "password": "1" },
            "ghcr.io/team/app": { "username": "app", "password": "2" },
            "ghcr.io/team": { "username": "team", "password": "3" },
            "*.example.com": { "username": "glob", "password": "4" },
            "reg.local:5000": { "registrytoken": "t" },
            "empty.io": {},
        } });
        keyring.add(&secret(".dockerconfigjson", &auths)).unwrap();
        keyring.add(&secret(".dockercfg", &json!({ "ghcr.io": { "username": "old", "password": "5" } }))).unwrap();
        for (host, repository, expected) in [
            ("docker.io", "library/nginx", vec!["hub:p:w"]),
            ("ghcr.io", "team/app", vec!["app:2", "team:3", "all:1", "old:5"]),
            ("ghcr.io", "team/application", vec!["team:3", "all:1", "old:5"]),
            ("ghcr.io", "teammate/x", vec!["all:1", "old:5"]),
            ("a.example.com", "x", vec!["glob:4"]),
            ("a.b.example.com", "x", vec![]),
            ("a.example.com:444", "x", vec![]),
            ("reg.local:5000", "x", vec!["t"]),
            ("reg.local", "x", vec![]),
            ("empty.io", "x", vec![]),
        ] {
            assert_eq!(users(&keyring, host, repository), expected, "{host}/{repository}");
        }
        assert!(!format!("{keyring:?}").contains("p:w"));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        let mut keyring = Keyring::default();
        let bad = secret(".dockerconfigjson", &json!({ "auths": { "x": { "username": 7, "password": "hush" } } }));
        let said = keyring.add(&bad).unwrap_err();
        assert!(said.contains("cannot be read") && !said.contains("hush"), "{said}");
        assert!(keyring.add(&secret("other", &json!({}))).unwrap_err().contains("neither"));
    }
}
