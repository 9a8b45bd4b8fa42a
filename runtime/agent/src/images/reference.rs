//! Names of images in registries: which registry, which repository, which version.
//!
//! As Docker and Kubernetes read them, but for one thing: a name without a host means the cluster's own registry where
//! there is one.

use super::{ImageError, registries::Registries};

/// Stands for the cluster's own registry in keys and messages. No host can have this name.
const BUILT_IN: &str = "(built-in)";
const HUB: &str = "docker.io";

/// A parsed name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Reference {
    /// The registry as it stands in the name; none: the cluster's own.
    pub(crate) host: Option<String>,
    pub(crate) repository: String,
    pub(crate) tag: String,
    /// Counts before the tag.
    pub(crate) digest: Option<String>,
}

/// Whether the first word of a name is a host.
pub(crate) fn is_host(word: &str) -> bool {
    word == "localhost" || word.contains(['.', ':'])
}

impl Reference {
    /// Parses a name after rewrites.
    ///
    /// # Errors
    /// When no registry could have an image of this name.
    pub(crate) fn parse(image: &str, registries: &Registries) -> Result<Self, ImageError> {
        let invalid = |why: &str| ImageError::InvalidName(format!("couldn't parse image name {image:?}: {why}"));
        if image.is_empty() || image.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(invalid("empty, or with white space"));
        }
        let image_only = image.strip_prefix("oci://").unwrap_or(image);
        if let Some((scheme, _)) = image_only.split_once("://") {
            let words = format!("images from {scheme} are not supported; name a registry's, or file:// and a path");
            return Err(ImageError::Pull(words));
        }
        let rewritten = registries.rewritten(image_only);
        let (host, rest) = match rewritten.split_once('/') {
            Some((first, rest)) if is_host(first) => (Some(first.to_owned()), rest),
            _ => (default_host(registries), rewritten.as_str()),
        };
        let host = host.map(|host| if host == "index.docker.io" { HUB.to_owned() } else { host });
        let whole = format!("{}/{rest}", host.as_deref().unwrap_or("registry.invalid"));
        let parsed: oci_client::Reference =
            whole.parse().map_err(|e: oci_client::ParseError| invalid(&e.to_string()))?;
        let digest = parsed.digest().map(str::to_owned);
        if digest.as_ref().is_some_and(|d| !d.starts_with("sha256:")) {
            return Err(invalid("only sha256 digests are supported"));
        }
        Ok(Self {
            host,
            repository: parsed.repository().to_owned(),
            tag: parsed.tag().unwrap_or("latest").to_owned(),
            digest,
        })
    }

    /// What stands behind `manifests/`.
    pub(crate) fn version(&self) -> &str {
        self.digest.as_deref().unwrap_or(&self.tag)
    }

    /// The whole name: the same for names that mean the same.
    pub(crate) fn canonical(&self) -> String {
        let host = self.host.as_deref().unwrap_or(BUILT_IN);
        match &self.digest {
            Some(digest) => format!("{host}/{}@{digest}", self.repository),
            None => format!("{host}/{}:{}", self.repository, self.tag),
        }
    }

    /// For messages.
    pub(crate) fn words(&self) -> String {
        let mark = if self.digest.is_some() { '@' } else { ':' };
        format!("{}{mark}{}", self.repository, self.version())
    }
}

fn default_host(registries: &Registries) -> Option<String> {
    match (&registries.default_registry, &registries.built_in) {
        (Some(host), _) => Some(host.clone()),
        (None, Some(_)) => None,
        (None, None) => Some(HUB.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(image: &str, registries: &Registries) -> String {
        match Reference::parse(image, registries) {
            Ok(reference) => reference.canonical(),
            Err(ImageError::InvalidName(_)) => "invalid".to_owned(),
            Err(ImageError::Pull(_)) => "refused".to_owned(),
        }
    }

    #[test]
    fn names_mean_what_they_mean_elsewhere() {
        let built_in = Registries { built_in: Some("127.0.0.1:5000".to_owned()), ..Registries::default() };
        let hub = Registries::default();
        let digest = format!("sha256:{}", "a".repeat(64));
        for (image, with_built_in, without) in [
            ("app", "(built-in)/app:latest", "docker.io/library/app:latest"),
            ("demo/app:v1", "(built-in)/demo/app:v1", "docker.io/demo/app:v1"),
            ("oci://demo/app", "(built-in)/demo/app:latest", "docker.io/demo/app:latest"),
            ("ghcr.io/a/b:c", "ghcr.io/a/b:c", "ghcr.io/a/b:c"),
            ("docker.io/nginx", "docker.io/library/nginx:latest", "docker.io/library/nginx:latest"),
            ("localhost:5000/a", "localhost:5000/a:latest", "localhost:5000/a:latest"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("Upper/app", "invalid", "invalid"),
            ("a b", "invalid", "invalid"),
            ("", "invalid", "invalid"),
            ("a:", "invalid", "invalid"),
            ("a/../b", "invalid", "invalid"),
            ("a@sha256:12", "invalid", "invalid"),
            ("http://x/y", "refused", "refused"),
        ] {
            assert_eq!(
                (canonical(image, &built_in), canonical(image, &hub)),
                (with_built_in.into(), without.into()),
                "{image}"
            );
        }
        let pinned = Reference::parse(&format!("ghcr.io/a/b:c@{digest}"), &hub).unwrap();
        assert_eq!((pinned.version(), pinned.canonical()), (digest.as_str(), format!("ghcr.io/a/b@{digest}")));
    }
}
