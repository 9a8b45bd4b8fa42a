//! FlowSchema: which requests belong together, and which priority they have.

use k8s_openapi::api::flowcontrol::v1::{
    FlowDistinguisherMethod, FlowSchema, FlowSchemaSpec, GroupSubject, NonResourcePolicyRule, PolicyRulesWithSubjects,
    PriorityLevelConfigurationReference, ResourcePolicyRule, ServiceAccountSubject, Subject,
};

use super::GROUP;
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
    names,
};

const PRECEDENCE: i32 = 1000;
const PRECEDENCE_MAX: i32 = 10_000;
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

impl Kind for FlowSchema {
    const NAMES: Names = Names::new(GROUP, "v1", "FlowSchema", "flowschemas", "flowschema");
    const SCOPE: Scope = Scope::Cluster;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("PriorityLevel", |f, _| Cell::from(spec(f).priority_level_configuration.name))
            .field::<PriorityLevelConfigurationReference>("name"),
        Column::<Self>::text("MatchingPrecedence", |f, _| Cell::from(spec(f).matching_precedence.unwrap_or_default()))
            .field::<FlowSchemaSpec>("matchingPrecedence"),
        Column::<Self>::text("DistinguisherMethod", |f, _| {
            Cell::from(spec(f).distinguisher_method.map_or_else(|| "<none>".to_owned(), |m| m.type_))
        })
        .field::<FlowSchemaSpec>("distinguisherMethod"),
        Column::AGE,
        Column::<Self>::text("MissingPL", |f, _| Cell::from(dangling(f)))
            .help("references a broken or non-existent PriorityLevelConfiguration"),
    ];

    fn fill_defaults(&mut self) {
        let precedence = &mut self.spec.get_or_insert_default().matching_precedence;
        *precedence = precedence.filter(|p| *p != 0).or(Some(PRECEDENCE));
    }

    crate::kind::status_apart!();
    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let (name, spec, path) =
            (self.metadata.name.as_deref().unwrap_or_default(), spec(self), FieldPath::new("spec"));
        validate_spec(&spec, name, &path, errs);
        let mandatory = match name {
            "exempt" => exempt(),
            "catch-all" => catch_all(),
            _ => return,
        };
        if spec != mandatory {
            let value = serde_json::to_value(&spec).unwrap_or_default();
            errs.invalid(&path, value, &format!("spec of '{name}' must equal the fixed value"));
        }
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let conditions = self.status.iter().flat_map(|s| s.conditions.iter().flatten());
        super::validate_conditions(conditions.map(|c| c.type_.as_ref()), errs);
    }
}

fn spec(schema: &FlowSchema) -> FlowSchemaSpec {
    schema.spec.clone().unwrap_or_default()
}

fn dangling(schema: &FlowSchema) -> String {
    let mut conditions = schema.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let dangling = conditions.find(|c| c.type_.as_deref() == Some("Dangling"));
    dangling.map_or_else(|| "?".to_owned(), |c| c.status.clone().unwrap_or_default())
}

/// Rules by which some groups may do everything.
fn everything(groups: &[&str]) -> PolicyRulesWithSubjects {
    let all = || vec!["*".to_owned()];
    let group = |name: &&str| Subject {
        kind: "Group".to_owned(),
        group: Some(GroupSubject { name: (*name).to_owned() }),
        ..Subject::default()
    };
    PolicyRulesWithSubjects {
        subjects: groups.iter().map(group).collect(),
        resource_rules: Some(vec![ResourcePolicyRule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            cluster_scope: Some(true),
            namespaces: Some(all()),
        }]),
        non_resource_rules: Some(vec![NonResourcePolicyRule { verbs: all(), non_resource_urls: all() }]),
    }
}

/// # Source
/// Kubernetes `staging/src/k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go`.
fn exempt() -> FlowSchemaSpec {
    FlowSchemaSpec {
        priority_level_configuration: PriorityLevelConfigurationReference { name: "exempt".to_owned() },
        matching_precedence: Some(1),
        distinguisher_method: None,
        rules: Some(vec![everything(&["system:masters"])]),
    }
}

fn catch_all() -> FlowSchemaSpec {
    FlowSchemaSpec {
        priority_level_configuration: PriorityLevelConfigurationReference { name: "catch-all".to_owned() },
        matching_precedence: Some(PRECEDENCE_MAX),
        distinguisher_method: Some(FlowDistinguisherMethod { type_: "ByUser".to_owned() }),
        rules: Some(vec![everything(&["system:unauthenticated", "system:authenticated"])]),
    }
}

fn validate_spec(spec: &FlowSchemaSpec, name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let (precedence, at) = (spec.matching_precedence.unwrap_or_default(), path.child("matchingPrecedence"));
    if precedence <= 0 {
        errs.invalid(&at, precedence, "must be a positive value");
    }
    if precedence > PRECEDENCE_MAX {
        errs.invalid(&at, precedence, &format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && name != "exempt" {
        errs.invalid(&at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = spec.distinguisher_method.as_ref().filter(|m| !matches!(&*m.type_, "ByNamespace" | "ByUser"))
    {
        let at = path.child("distinguisherMethod").child("type");
        errs.not_supported(&at, &method.type_, &["ByNamespace", "ByUser"]);
    }
    let at = path.child("priorityLevelConfiguration").child("name");
    match spec.priority_level_configuration.name.as_str() {
        "" => errs.required(&at, "must reference a priority level"),
        name => errs.invalid_each(&at, name, names::is_dns1123_subdomain(name)),
    }
    for (i, rules) in spec.rules.iter().flatten().enumerate() {
        validate_rules(rules, &path.child("rules").index(i), errs);
    }
}

fn validate_rules(rules: &PolicyRulesWithSubjects, path: &FieldPath, errs: &mut FieldErrors) {
    for (i, subject) in rules.subjects.iter().enumerate() {
        validate_subject(subject, &path.child("subjects").index(i), errs);
    }
    if rules.subjects.is_empty() {
        errs.required(&path.child("subjects"), "subjects must contain at least one value");
    }
    let resources = rules.resource_rules.as_deref().unwrap_or_default();
    let urls = rules.non_resource_rules.as_deref().unwrap_or_default();
    if resources.is_empty() && urls.is_empty() {
        errs.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (i, rule) in resources.iter().enumerate() {
        validate_resource_rule(rule, &path.child("resourceRules").index(i), errs);
    }
    for (i, rule) in urls.iter().enumerate() {
        validate_url_rule(rule, &path.child("nonResourceRules").index(i), errs);
    }
}

/// One of three, named by `kind`.
fn validate_subject(subject: &Subject, path: &FieldPath, errs: &mut FieldErrors) {
    let parts = [
        ("ServiceAccount", "serviceAccount", subject.service_account.as_ref().map(|a| a.name.as_str())),
        ("User", "user", subject.user.as_ref().map(|u| u.name.as_str())),
        ("Group", "group", subject.group.as_ref().map(|g| g.name.as_str())),
    ];
    let kind = subject.kind.as_str();
    if !parts.iter().any(|(own, ..)| *own == kind) {
        return errs.not_supported(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"]);
    }
    for (own, field, name) in parts {
        let at = path.child(field);
        match name {
            None if own == kind => errs.required(&at, &format!("{field} is required when subject kind is '{own}'")),
            Some("") if own == kind => errs.required(&at.child("name"), ""),
            Some(_) if own != kind => {
                errs.forbidden(&at, &format!("{field} is forbidden when subject kind is not '{own}'"));
            }
            _ => {}
        }
    }
    if let Some(account) = subject.service_account.as_ref().filter(|_| kind == "ServiceAccount") {
        validate_account(account, &path.child("serviceAccount"), errs);
    }
}

fn validate_account(account: &ServiceAccountSubject, path: &FieldPath, errs: &mut FieldErrors) {
    if !matches!(account.name.as_str(), "" | "*") {
        errs.invalid_each(&path.child("name"), &account.name, names::is_dns1123_subdomain(&account.name));
    }
    match account.namespace.as_str() {
        "" => errs.required(&path.child("namespace"), "must specify namespace for service account"),
        namespace => errs.invalid_each(&path.child("namespace"), namespace, names::is_dns1123_label(namespace)),
    }
}

fn has_wildcard(list: &[String]) -> bool {
    list.iter().any(|v| v == "*")
}

/// A list that is not empty and in which `*` stands alone. Whether there is more to check.
fn validate_list(list: &[String], path: &FieldPath, (empty, what): (&str, &str), errs: &mut FieldErrors) -> bool {
    if list.is_empty() {
        errs.required(path, empty);
    } else if list.len() > 1 && has_wildcard(list) {
        errs.invalid(path, list, &format!("if '*' is present, must not specify other {what}"));
    }
    !list.is_empty() && !has_wildcard(list)
}

fn validate_verbs(verbs: &[String], path: &FieldPath, errs: &mut FieldErrors) {
    let specific = validate_list(verbs, path, ("verbs must contain at least one value", "verbs"), errs);
    if specific && !verbs.iter().all(|v| VERBS.contains(&v.as_str())) {
        errs.not_supported(path, &verbs.join(","), VERBS);
    }
}

fn validate_resource_rule(rule: &ResourcePolicyRule, path: &FieldPath, errs: &mut FieldErrors) {
    validate_verbs(&rule.verbs, &path.child("verbs"), errs);
    let groups = ("resource rules must supply at least one api group", "api groups");
    validate_list(&rule.api_groups, &path.child("apiGroups"), groups, errs);
    let resources = ("resource rules must supply at least one resource", "resources");
    validate_list(&rule.resources, &path.child("resources"), resources, errs);
    let (namespaces, at) = (rule.namespaces.as_deref().unwrap_or_default(), path.child("namespaces"));
    if namespaces.is_empty() && rule.cluster_scope == Some(true) {
        return;
    }
    let words = ("resource rules that are not cluster scoped must supply at least one namespace", "namespaces");
    if validate_list(namespaces, &at, words, errs) {
        for (i, namespace) in namespaces.iter().enumerate() {
            let messages = names::is_dns1123_label(namespace).into_iter();
            let messages = messages.map(|m| format!("each member of this list must be '*' or a DNS-1123 label; {m}"));
            errs.invalid_each(&at.index(i), namespace, messages.collect());
        }
    }
}

fn validate_url_rule(rule: &NonResourcePolicyRule, path: &FieldPath, errs: &mut FieldErrors) {
    validate_verbs(&rule.verbs, &path.child("verbs"), errs);
    let (urls, at) = (&rule.non_resource_urls, path.child("nonResourceURLs"));
    let words = ("nonResourceURLs must contain at least one value", "non-resource URLs");
    if validate_list(urls, &at, words, errs) {
        for (i, url) in urls.iter().enumerate() {
            if let Some(wrong) = wrong_with_url(url) {
                errs.invalid(&at.index(i), url.as_str(), wrong);
            }
        }
    }
}

fn wrong_with_url(url: &str) -> Option<&'static str> {
    let stars = url.matches('*').count();
    Some(match url {
        "" => "must not be empty",
        "/" => return None,
        url if !url.starts_with('/') => "must start with slash",
        url if url.contains(' ') => "must not contain white-space",
        url if url.contains("//") => "must not contain double slash",
        url if stars > 1 || (stars == 1 && !url.ends_with("/*")) => "wildcard can only do suffix matching",
        _ => return None,
    })
}
