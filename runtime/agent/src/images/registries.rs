//! Which registries are asked for an image: mirrors, plain HTTP, names that mean others. Plain data, checked once.

use std::path::PathBuf;

use serde::Deserialize;

/// How images are found. [`Default`]: as Docker does, names without a host are Docker Hub's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Registries {
    /// Where images without a host in their name come from. None: the cluster's own registry, or `docker.io` when there is none.
    pub default_registry: Option<String>,
    /// What is special about single registries.
    pub registries: Vec<Registry>,
    /// Names that mean others; the longest that fits counts, once.
    pub rewrites: Vec<Rewrite>,
    /// The cluster's own registry, as `host:port`; spoken to over plain HTTP. Not read from files.
    #[serde(skip)]
    pub built_in: Option<String>,
}

/// What is special about one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registry {
    /// Its host as it stands in images' names, with the port if it has one.
    pub host: String,
    /// Registries that are asked before it, in this order: `host[:port][/prefix]`, `http://` before it for plain HTTP.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Whether it is spoken to over plain HTTP. Loopback addresses always are.
    #[serde(default)]
    pub insecure: bool,
    /// A file of certificates (PEM) that are trusted beside the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// Images whose name begins with `from` are taken from `to` instead.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// Whole words of a name: `docker.io/library/nginx`, `docker.io/library/`, `nginx`. With a tag it means this tag alone.
    pub from: String,
    /// What stands there instead. With a tag or digest of its own, that of the image is dropped.
    pub to: String,
}

impl Registries {
    /// Says what cannot be meant.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), String> {
        for (i, registry) in self.registries.iter().enumerate() {
            if registry.host.is_empty() || registry.host.contains('/') {
                return Err(format!("registries[{i}].host: {:?} is no host: write host or host:port", registry.host));
            }
            if let Some(mirror) =
                registry.mirrors.iter().find(|m| super::remote::Endpoint::mirror(m, "a", None).is_none())
            {
                return Err(format!("registries[{i}].mirrors: {mirror:?} is no host[:port][/prefix]"));
            }
        }
        for (i, rewrite) in self.rewrites.iter().enumerate() {
            if rewrite.from.is_empty() || rewrite.to.is_empty() {
                return Err(format!("rewrites[{i}]: from and to must not be empty"));
            }
        }
        Ok(())
    }

    /// The settings of a host.
    pub(crate) fn of(&self, host: &str) -> Option<&Registry> {
        self.registries.iter().find(|registry| registry.host == host)
    }

    /// The name that an image is taken from. Rules are tried on the name as written and as Docker completes it.
    pub(crate) fn rewritten(&self, image: &str) -> String {
        let mut forms = vec![image.to_owned()];
        let first = image.split('/').next().unwrap_or_default();
        if !image.contains('/') {
            forms.push(format!("docker.io/library/{image}"));
        } else if !super::reference::is_host(first) {
            forms.push(format!("docker.io/{image}"));
        }
        let fits = |rule: &&Rewrite| forms.iter().find_map(|form| rest(form, &rule.from).map(str::to_owned));
        let best = self.rewrites.iter().filter(|rule| fits(rule).is_some()).max_by_key(|rule| rule.from.len());
        let Some((rule, rest)) = best.and_then(|rule| Some((rule, fits(&rule)?))) else { return image.to_owned() };
        let last = rule.to.rsplit('/').next().unwrap_or_default();
        let whole = last.contains(':') || last.contains('@');
        if whole { rule.to.clone() } else { format!("{}{rest}", rule.to) }
    }
}

/// What follows a prefix that ends where a word ends.
fn rest<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(prefix)?;
    let ends = rest.is_empty() || prefix.ends_with('/') || rest.starts_with(['/', ':', '@']);
    ends.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rewritten_by_the_longest_rule() {
        let rule = |from: &str, to: &str| Rewrite { from: from.to_owned(), to: to.to_owned() };
        let registries = Registries {
            rewrites: vec![
                rule("docker.io/library/", "hub/"),
                rule("docker.io/library/nginx", "demo/nginx-wasm"),
                rule("ghcr.io/x/y:v1", "demo/y:wasm"),
                rule("quay.io", "mirror.local/quay"),
            ],
            ..Registries::default()
        };
        for (image, expected) in [
            ("nginx:1.27", "demo/nginx-wasm:1.27"),
            ("nginx", "demo/nginx-wasm"),
            ("library/nginx:1", "demo/nginx-wasm:1"),
            ("docker.io/library/nginx@sha256:ab", "demo/nginx-wasm@sha256:ab"),
            ("redis:7", "hub/redis:7"),
            ("nginx-unit:1", "hub/nginx-unit:1"),
            ("ghcr.io/x/y:v1", "demo/y:wasm"),
            ("ghcr.io/x/y:v10", "ghcr.io/x/y:v10"),
            ("quay.io/a/b:c", "mirror.local/quay/a/b:c"),
            ("quay.io.evil/a", "quay.io.evil/a"),
            ("demo/app:v1", "demo/app:v1"),
        ] {
            assert_eq!(registries.rewritten(image), expected, "{image}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let of = |registry: Registry| Registries { registries: vec![registry], ..Registries::default() }.check();
        let host = |host: &str| Registry { host: host.to_owned(), ..Registry::default() };
        assert!(of(host("a/b")).unwrap_err().contains("registries[0].host"));
        let mirrors = vec!["ftp://x".to_owned()];
        assert!(of(Registry { mirrors, ..host("a.b") }).unwrap_err().contains("ftp://x"));
        assert_eq!(of(Registry { mirrors: vec!["http://m:5000/hub".to_owned()], ..host("docker.io") }), Ok(()));
    }
}
