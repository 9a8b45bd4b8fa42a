//! [`Env`]: what expressions may name. [`Vars`]: what it is in one evaluation.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use serde_json::Value as Json;

use super::{Authorizer, Expression, Field, Size, Struct, Type, value::Value};
use crate::schema::{Additional, Kind, Schema};

/// What expressions may name, and its types.
#[derive(Debug, Clone, Default)]
pub struct Env {
    pub(crate) variables: HashMap<String, Field>,
    /// The fields of `variables`.
    pub(crate) composed: Option<BTreeMap<String, Field>>,
    /// Whether `Object{...}` and `JSONPatch{...}` are known.
    pub(crate) patches: bool,
}

/// Which of the names of admission there are.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdmissionEnv {
    /// `params`
    pub params: bool,
    /// `authorizer` and `authorizer.requestResource`
    pub authorizer: bool,
    /// `variables`
    pub variables: bool,
    /// `Object{...}` and `JSONPatch{...}`
    pub patches: bool,
}

impl Env {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a variable.
    pub fn variable(mut self, name: &str, of: Type) -> Self {
        self.declare(name, of, Size::UNKNOWN);
        self
    }

    /// Adds a variable of a known size.
    pub fn declare(&mut self, name: &str, of: Type, size: Size) {
        self.variables.insert(name.to_owned(), Field { of, size });
    }

    /// Adds `variables.NAME`, for those that come later.
    pub fn compose(&mut self, name: &str, of: Type) {
        self.composed.get_or_insert_default().insert(name.to_owned(), Field { of, size: Size::UNKNOWN });
    }

    /// The names of admission policies and match conditions: `object`, `oldObject`, `request`, `namespaceObject`, and more.
    pub fn admission(with: AdmissionEnv) -> Self {
        let mut env = Self::new()
            .variable("object", Type::Dyn)
            .variable("oldObject", Type::Dyn)
            .variable("request", Type::Struct(Arc::clone(&REQUEST)))
            .variable("namespaceObject", Type::Struct(Arc::clone(&NAMESPACE)));
        if with.params {
            env = env.variable("params", Type::Dyn);
        }
        if with.authorizer {
            env = env.variable("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"));
            env = env.variable("authorizer.requestResource", Type::Opaque("kubernetes.authorization.ResourceCheck"));
        }
        if with.variables {
            env.composed = Some(BTreeMap::new());
        }
        env.patches = with.patches;
        env
    }
}

fn structure(name: &str, fields: &[(&str, Type)]) -> Arc<Struct> {
    let fields = fields.iter().map(|(n, of)| ((*n).to_owned(), Field { of: of.clone(), size: Size::UNKNOWN }));
    Arc::new(Struct { name: name.to_owned(), fields: fields.collect(), open: false })
}

fn strings() -> Type {
    Type::list(Type::String)
}

static REQUEST: LazyLock<Arc<Struct>> = LazyLock::new(|| {
    let text = |name| (name, Type::String);
    let kind = structure("kubernetes.GroupVersionKind", &[text("group"), text("version"), text("kind")]);
    let resource = structure("kubernetes.GroupVersionResource", &[text("group"), text("version"), text("resource")]);
    let extra = Type::map(Type::String, strings());
    let user = [text("username"), text("uid"), ("groups", strings()), ("extra", extra)];
    let user = structure("kubernetes.UserInfo", &user);
    structure(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", Type::Struct(Arc::clone(&kind))),
            ("resource", Type::Struct(Arc::clone(&resource))),
            text("subResource"),
            ("requestKind", Type::Struct(kind)),
            ("requestResource", Type::Struct(resource)),
            text("requestSubResource"),
            text("name"),
            text("namespace"),
            text("operation"),
            ("userInfo", Type::Struct(user)),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
});

static NAMESPACE: LazyLock<Arc<Struct>> = LazyLock::new(|| {
    let texts = || Type::map(Type::String, Type::String);
    let meta = structure(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("uid", Type::String),
            ("resourceVersion", Type::String),
            ("generation", Type::Int),
            ("creationTimestamp", Type::Timestamp),
            ("deletionTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("labels", texts()),
            ("annotations", texts()),
        ],
    );
    let spec = structure("kubernetes.NamespaceSpec", &[("finalizers", strings())]);
    let status = structure("kubernetes.NamespaceStatus", &[("phase", Type::String)]);
    structure(
        "kubernetes.Namespace",
        &[("metadata", Type::Struct(meta)), ("spec", Type::Struct(spec)), ("status", Type::Struct(status))],
    )
});

/// The same fields, for values.
static NAMESPACE_SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let of = |kind| Schema { kind, ..Schema::default() };
    let text = || of(Kind::String);
    let mut time = text();
    time.limits.format = Some("date-time".to_owned());
    let object = |fields: Vec<(&str, Schema)>| {
        let properties = fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
        Schema { properties, ..of(Kind::Object) }
    };
    let texts = || Schema { additional: Additional::Schema(Box::new(text())), ..of(Kind::Object) };
    let list = || Schema { items: Some(Box::new(text())), ..of(Kind::Array) };
    let meta = object(vec![
        ("name", text()),
        ("generateName", text()),
        ("namespace", text()),
        ("uid", text()),
        ("resourceVersion", text()),
        ("generation", of(Kind::Integer)),
        ("creationTimestamp", time.clone()),
        ("deletionTimestamp", time),
        ("deletionGracePeriodSeconds", of(Kind::Integer)),
        ("labels", texts()),
        ("annotations", texts()),
    ]);
    let spec = object(vec![("finalizers", list())]);
    object(vec![("metadata", meta), ("spec", spec), ("status", object(vec![("phase", text())]))])
});

/// What the names of an [`Env`] are in one evaluation.
#[derive(Default)]
pub struct Vars<'a> {
    pub(crate) values: HashMap<&'a str, Value<'a>>,
    pub(crate) composed: Vec<(&'a str, &'a Expression)>,
    pub(crate) done: RefCell<HashMap<&'a str, Result<Value<'a>, super::EvalError>>>,
    pub(crate) authorizer: Option<&'a dyn Authorizer>,
}

impl<'a> Vars<'a> {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// A value of which nothing is known.
    pub fn json(mut self, name: &'a str, value: &'a Json) -> Self {
        self.values.insert(name, Value::json(value, None));
        self
    }

    /// A value with a schema: its dates are timestamps, its names are escaped.
    pub fn typed(mut self, name: &'a str, value: &'a Json, schema: &'a crate::schema::Schema) -> Self {
        self.values.insert(name, Value::json(value, Some(schema)));
        self
    }

    /// `namespaceObject`, whose times are timestamps; `None` for what is in no namespace.
    pub fn namespace(self, namespace: Option<&'a Json>) -> Self {
        match namespace {
            Some(namespace) => self.typed("namespaceObject", namespace, &NAMESPACE_SCHEMA),
            None => self.null("namespaceObject"),
        }
    }

    /// Any value.
    pub fn value(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.values.insert(name, value);
        self
    }

    /// `null`.
    pub fn null(self, name: &'a str) -> Self {
        self.value(name, Value::Null)
    }

    /// `variables.NAME`: evaluated when it is first asked for, once, at the cost of who asks.
    pub fn variable(mut self, name: &'a str, expression: &'a Expression) -> Self {
        self.composed.push((name, expression));
        self
    }

    /// `authorizer`, and `authorizer.requestResource` about these attributes.
    pub fn authorizer(mut self, authorizer: &'a dyn Authorizer, request: super::Attributes) -> Self {
        self.authorizer = Some(authorizer);
        self.values.insert("authorizer", Value::Authorizer(Arc::default()));
        self.values.insert("authorizer.requestResource", Value::resource_check(request));
        self
    }
}
