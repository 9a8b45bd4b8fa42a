//! What the server serves, by discovery, and the names by which users call it: `po`, `deploy/web`, `deployments.apps`.

use anyhow::{Result, bail};
use podium_api::ApiError;
use serde_json::Value;

use crate::connect::{Call, Connection, escape};

/// A kind as discovery tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) verbs: Vec<String>,
    pub(crate) subresources: Vec<String>,
    pub(crate) namespaced: bool,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployment.apps/web`, as results are reported.
    pub(crate) fn display(&self, name: &str) -> String {
        format!("{}/{name}", self.qualified_singular())
    }

    /// `pod` or `deployment.apps`.
    pub(crate) fn qualified_singular(&self) -> String {
        let singular = if self.singular.is_empty() { self.kind.to_lowercase() } else { self.singular.clone() };
        if self.group.is_empty() { singular } else { format!("{singular}.{}", self.group) }
    }

    /// The path of the collection; of all namespaces when `namespace` is `None`.
    pub(crate) fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => {
                format!("{root}/{}/namespaces/{}/{}", self.api_version(), escape(namespace), self.plural)
            }
            None => format!("{root}/{}/{}", self.api_version(), self.plural),
        }
    }

    /// The path of an object.
    pub(crate) fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{}", self.collection(Some(namespace)), escape(name))
    }

    fn is_called(&self, name: &str) -> bool {
        let is = |own: &str| own.eq_ignore_ascii_case(name);
        is(&self.plural) || is(&self.singular) || is(&self.kind) || self.short.iter().any(|s| is(s))
    }
}

/// Everything that the server serves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resources(Vec<Resource>);

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
     application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

impl Resources {
    /// Asks the server.
    ///
    /// # Errors
    /// As [`Connection::json`].
    pub(crate) async fn discover(connection: &Connection) -> Result<Self, ApiError> {
        let (core, groups) = tokio::try_join!(
            connection.json(Call::get("/api").accept(AGGREGATED)),
            connection.json(Call::get("/apis").accept(AGGREGATED)),
        )?;
        let mut resources = Vec::new();
        for list in [core, groups] {
            if list["kind"] != "APIGroupDiscoveryList" {
                let message = format!(
                    "{} has no aggregated discovery: podium needs a Kubernetes API of 1.27 or newer",
                    connection.server
                );
                return Err(ApiError::internal(message));
            }
            read_groups(&list, &mut resources);
        }
        Ok(Self(resources))
    }

    /// The kind of a manifest.
    ///
    /// # Errors
    /// The server does not serve it.
    pub(crate) fn of_kind(&self, api_version: &str, kind: &str) -> Result<&Resource> {
        let found = self.0.iter().find(|r| r.kind == kind && r.api_version() == api_version);
        if let Some(found) = found {
            return Ok(found);
        }
        let hint = match self.0.iter().find(|r| r.kind.eq_ignore_ascii_case(kind)) {
            Some(near) => format!("did you mean kind {:?} in version {:?}?", near.kind, near.api_version()),
            None => "the server does not know it".to_owned(),
        };
        bail!("no matches for kind {kind:?} in version {api_version:?}: {hint}")
    }

    /// The kinds that a name means: one, or those of a category such as `all`.
    ///
    /// # Errors
    /// None.
    pub(crate) fn called(&self, name: &str) -> Result<Vec<&Resource>> {
        let (plain, group) = name.split_once('.').map_or((name, None), |(n, g)| (n, Some(g)));
        let in_group = |r: &&Resource| {
            group.is_none_or(|g| {
                g == r.group || g == format!("{}.{}", r.version, r.group) || g == r.version && r.group.is_empty()
            })
        };
        if let Some(found) = self.0.iter().filter(in_group).find(|r| r.is_called(plain)) {
            return Ok(vec![found]);
        }
        let listed = |r: &&Resource| r.categories.iter().any(|c| c == name) && r.verbs.iter().any(|v| v == "list");
        let of_category: Vec<&Resource> = self.0.iter().filter(listed).collect();
        if of_category.is_empty() {
            bail!("the server doesn't have a resource type {name:?}");
        }
        Ok(of_category)
    }

    /// The one kind that a name means.
    ///
    /// # Errors
    /// None, or several.
    pub(crate) fn one(&self, name: &str) -> Result<&Resource> {
        match self.called(name)?.as_slice() {
            [one] => Ok(one),
            _ => bail!("{name:?} means several resource types: name one of them"),
        }
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn read_groups(list: &Value, out: &mut Vec<Resource>) {
    for group in items(&list["items"]) {
        for version in items(&group["versions"]) {
            for resource in items(&version["resources"]) {
                out.push(Resource {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    kind: text(&resource["responseKind"]["kind"]),
                    plural: text(&resource["resource"]),
                    singular: text(&resource["singularResource"]),
                    short: strings(&resource["shortNames"]),
                    categories: strings(&resource["categories"]),
                    verbs: strings(&resource["verbs"]),
                    subresources: items(&resource["subresources"]).map(|s| text(&s["subresource"])).collect(),
                    namespaced: resource["scope"] == "Namespaced",
                });
            }
        }
    }
}

/// What the arguments of a command name: `pods`, `pods a b`, `pod/a svc/b`, `pods,services`.
///
/// # Errors
/// A mixture of forms, or nothing.
pub(crate) fn targets(args: &[String]) -> Result<Vec<(String, Option<String>)>> {
    let Some(first) = args.first() else {
        bail!(crate::Usage("name a resource type, for example `pods`, or `deployment/web`".to_owned()));
    };
    if args.iter().any(|a| a.contains('/')) {
        let pair = |arg: &String| match arg.split_once('/') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok((kind.to_owned(), Some(name.to_owned()))),
            _ => bail!(crate::Usage(format!("{arg:?}: beside TYPE/NAME all arguments must be of that form"))),
        };
        return args.iter().map(pair).collect();
    }
    let kinds = first.split(',').filter(|k| !k.is_empty());
    let names = &args[1..];
    let with_names = |kind: &str| -> Vec<(String, Option<String>)> {
        match names {
            [] => vec![(kind.to_owned(), None)],
            names => names.iter().map(|n| (kind.to_owned(), Some(n.clone()))).collect(),
        }
    };
    Ok(kinds.flat_map(with_names).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> Resources {
        let kinds = podium_api::kinds::all();
        let mut out = Vec::new();
        read_groups(&podium_api::discovery::aggregated_core(&kinds, podium_api::discovery::Beta(false)), &mut out);
        read_groups(&podium_api::discovery::aggregated_groups(&kinds, podium_api::discovery::Beta(false)), &mut out);
        Resources(out)
    }

    #[test]
    fn names_of_all_forms() {
        let served = served();
        for (name, path) in [
            ("po", "/api/v1/namespaces/d/pods"),
            ("Pod", "/api/v1/namespaces/d/pods"),
            ("deploy", "/apis/apps/v1/namespaces/d/deployments"),
            ("deployments.apps", "/apis/apps/v1/namespaces/d/deployments"),
            ("deployments.v1.apps", "/apis/apps/v1/namespaces/d/deployments"),
            ("ns", "/api/v1/namespaces"),
            ("ingress", "/apis/networking.k8s.io/v1/namespaces/d/ingresses"),
        ] {
            assert_eq!(served.one(name).unwrap().collection(Some("d")), path);
        }
        assert!(served.called("all").unwrap().len() > 2);
        assert_eq!(served.one("deploy").unwrap().display("web"), "deployment.apps/web");
        assert_eq!(served.one("frogs").unwrap_err().to_string(), "the server doesn't have a resource type \"frogs\"");
        let wrong = served.of_kind("extensions/v1beta1", "Deployment").unwrap_err().to_string();
        assert!(wrong.ends_with("did you mean kind \"Deployment\" in version \"apps/v1\"?"), "{wrong}");
    }

    #[test]
    fn arguments() {
        let parse = |text: &str| targets(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let pair = |kind: &str, name: &str| (kind.to_owned(), Some(name.to_owned()).filter(|n| !n.is_empty()));
        for (text, expected) in [
            ("pods", vec![pair("pods", "")]),
            ("pods a b", vec![pair("pods", "a"), pair("pods", "b")]),
            ("pods,svc", vec![pair("pods", ""), pair("svc", "")]),
            ("pod/a svc/b", vec![pair("pod", "a"), pair("svc", "b")]),
        ] {
            assert_eq!(parse(text).unwrap(), expected);
        }
        assert!(parse("").is_err() && parse("pod/a b").is_err() && parse("pod/").is_err());
    }
}
