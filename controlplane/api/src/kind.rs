//! [`Kind`]: everything the registry has to know of one kind, as data and small pure functions.
//!
//! A kind never does I/O and never sees a request. Verbs that are not plain storage (`binding`, `log`, `exec`) are
//! declared in `SUBRESOURCES` and served by the API server's table of verbs, not by the kind.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    schemars::{JsonSchema, Schema, SchemaGenerator},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::ApiError,
    field::FieldErrors,
    names::NameRule,
    object::{KindRef, Object},
};

/// The names of a kind, as discovery shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version inside the group, for example `v1`.
    pub version: &'static str,
    /// The `kind` field, for example `ReplicaSet`.
    pub kind: &'static str,
    /// The resource in paths, for example `replicasets`.
    pub plural: &'static str,
    /// The lower-case kind, for example `replicaset`.
    pub singular: &'static str,
    /// kubectl's abbreviations, for example `rs`.
    pub short: &'static [&'static str],
    /// Groups of resources that kubectl expands, for example `all`.
    pub categories: &'static [&'static str],
    /// How objects may be named.
    pub name_rule: NameRule,
    /// Whether finalizers may go without a domain, as those of custom resources may.
    pub any_finalizers: bool,
}

impl Names {
    /// Names of a kind without short names and categories.
    pub const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        singular: &'static str,
    ) -> Self {
        Self {
            group,
            version,
            kind,
            plural,
            singular,
            short: &[],
            categories: &[],
            name_rule: NameRule::Dns1123Subdomain,
            any_finalizers: false,
        }
    }

    /// Adds the short names.
    pub const fn short(mut self, short: &'static [&'static str]) -> Self {
        self.short = short;
        self
    }

    /// Adds the categories.
    pub const fn categories(mut self, categories: &'static [&'static str]) -> Self {
        self.categories = categories;
        self
    }

    /// Sets how objects may be named, where it is not as a DNS subdomain.
    pub const fn name_rule(mut self, rule: NameRule) -> Self {
        self.name_rule = rule;
        self
    }

    /// Lets finalizers go without a domain.
    pub const fn any_finalizers(mut self) -> Self {
        self.any_finalizers = true;
        self
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> Cow<'static, str> {
        if self.group.is_empty() {
            Cow::Borrowed(self.version)
        } else {
            Cow::Owned(format!("{}/{}", self.group, self.version))
        }
    }

    /// `pods` or `deployments.apps`, as in error messages.
    pub fn qualified_resource(&self) -> Cow<'static, str> {
        if self.group.is_empty() {
            Cow::Borrowed(self.plural)
        } else {
            Cow::Owned(format!("{}.{}", self.plural, self.group))
        }
    }

    /// `Pod` or `Deployment.apps`, as in the messages of `Invalid` errors.
    pub fn qualified_kind(&self) -> Cow<'static, str> {
        if self.group.is_empty() {
            Cow::Borrowed(self.kind)
        } else {
            Cow::Owned(format!("{}.{}", self.kind, self.group))
        }
    }
}

/// Whether objects of a kind live in namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One set of names for the cluster.
    Cluster,
    /// One set of names for each namespace.
    Namespaced,
}

/// What becomes of an object that is created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Storage {
    /// It is stored: all verbs.
    #[default]
    Stored,
    /// It is made by the server itself and can only be read.
    Computed,
    /// It is a question: the API server fills its status and answers with it at once. Only `create`; it needs no name.
    Answered,
}

/// A verb of the API server that is reached through a subresource and is not plain storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `POST pods/binding`: puts a pod on a node.
    Binding,
    /// `GET pods/log`: the node agent's log stream.
    Log,
    /// `GET pods/coredump`: what a container that trapped has left, from its node. Podium's own.
    CoreDump,
    /// `pods/exec`: runs a command in a container.
    Exec,
    /// `pods/attach`: takes part in what a container runs.
    Attach,
    /// `pods/portforward`: connections to a pod's ports.
    PortForward,
    /// `pods/proxy`, `services/proxy`, `nodes/proxy`: HTTP requests that are passed on.
    Proxy,
    /// `POST pods/eviction`: a deletion that honours disruption budgets.
    Eviction,
    /// `PUT namespaces/finalize`: removes `spec.finalizers`.
    Finalize,
    /// `POST serviceaccounts/token`: a `TokenRequest` is answered with a token.
    Token,
}

/// What a subresource does.
pub enum SubBehaviour<K> {
    /// `get`, `update` and `patch` of the status alone.
    Status,
    /// `autoscaling/v1 Scale` over the number of replicas.
    Scale {
        /// Wanted replicas, current replicas and the label selector in its string form.
        read: fn(&K) -> ScaleView,
        /// Sets the wanted replicas.
        write: fn(&mut K, i32),
    },
    /// `get`, `update` and `patch` of another part of the object, in the form of the whole.
    Part {
        /// Carries over everything but the part.
        prepare: fn(new: &mut K, old: &K),
        /// Checks a write of the part.
        validate: fn(new: &K, old: &K, errs: &mut FieldErrors),
    },
    /// Served by the API server's table of verbs.
    Verb(Verb),
}

impl<K> Clone for SubBehaviour<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for SubBehaviour<K> {}

/// What a Scale shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleView {
    /// Wanted replicas (`spec.replicas`).
    pub spec_replicas: i32,
    /// Observed replicas (`status.replicas`).
    pub status_replicas: i32,
    /// Label selector of the pods, in its string form.
    pub selector: String,
}

/// A subresource of a kind.
pub struct Sub<K> {
    /// Name in the path, for example `status`.
    pub name: &'static str,
    /// What it does.
    pub behaviour: SubBehaviour<K>,
}

impl<K> Sub<K> {
    /// The status subresource.
    pub const STATUS: Self = Self { name: "status", behaviour: SubBehaviour::Status };

    /// The scale subresource.
    pub const fn scale(read: fn(&K) -> ScaleView, write: fn(&mut K, i32)) -> Self {
        Self { name: "scale", behaviour: SubBehaviour::Scale { read, write } }
    }

    /// A part of the object that is written through a subresource of its own.
    pub const fn part(name: &'static str, prepare: fn(&mut K, &K), validate: fn(&K, &K, &mut FieldErrors)) -> Self {
        Self { name, behaviour: SubBehaviour::Part { prepare, validate } }
    }

    /// A subresource served by the API server's table of verbs.
    pub const fn verb(name: &'static str, verb: Verb) -> Self {
        Self { name, behaviour: SubBehaviour::Verb(verb) }
    }
}

/// One cell of a Table row: a JSON string, number or null.
pub type Cell = serde_json::Value;

/// The type of a Table column, as kubectl sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// Any text; the name column has the format `name`.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// A boolean.
    Boolean,
    /// A time.
    Date,
}

/// What a column's definition says of it.
#[derive(Clone, Copy)]
pub enum Help {
    /// These words.
    Text(&'static str),
    /// What the API's documentation says of a field.
    Field {
        /// The schema of the type that has the field.
        of: fn(&mut SchemaGenerator) -> Schema,
        /// The field's name.
        field: &'static str,
    },
}

impl Help {
    /// Of names of objects.
    pub const NAME: Self = Self::of::<ObjectMeta>("name");
    /// Of the times when objects were made.
    pub const CREATED: Self = Self::of::<ObjectMeta>("creationTimestamp");

    /// As the API tells of a field of `T`.
    pub const fn of<T: JsonSchema>(field: &'static str) -> Self {
        Self::Field { of: T::json_schema, field }
    }

    /// The words; empty when the type has no such field, which a test over all kinds rules out.
    pub fn words(self) -> Cow<'static, str> {
        let (of, field) = match self {
            Self::Text(text) => return Cow::Borrowed(text),
            Self::Field { of, field } => (of, field),
        };
        let schema = of(&mut crate::schema::generator());
        let property = schema.get("properties").and_then(|p| p.get(field));
        let words = property.and_then(|p| p.get("description")).and_then(serde_json::Value::as_str);
        Cow::Owned(words.unwrap_or_default().to_owned())
    }
}

/// A column of the Table that `kubectl get` prints.
pub struct Column<K> {
    /// Heading, for example `Ready`.
    pub name: &'static str,
    /// Type of the cells.
    pub kind: ColumnType,
    /// Format of the cells: `name` for names of objects, mostly empty.
    pub format: &'static str,
    /// What it shows.
    pub help: Help,
    /// `0` is always printed, greater only with `-o wide`.
    pub priority: i32,
    /// The cell of one object. `now` is for ages.
    pub value: fn(&K, now: Timestamp) -> Cell,
}

impl<K: Kind> Column<K> {
    /// A column of any type.
    const fn new(name: &'static str, kind: ColumnType, value: fn(&K, Timestamp) -> Cell) -> Self {
        Self { name, kind, format: "", help: Help::Text(""), priority: 0, value }
    }

    /// A text column.
    pub const fn text(name: &'static str, value: fn(&K, Timestamp) -> Cell) -> Self {
        Self::new(name, ColumnType::String, value)
    }

    /// A number column.
    pub const fn int(name: &'static str, value: fn(&K, Timestamp) -> Cell) -> Self {
        Self::new(name, ColumnType::Integer, value)
    }

    /// A column that says yes or no.
    pub const fn bool(name: &'static str, value: fn(&K, Timestamp) -> Cell) -> Self {
        Self::new(name, ColumnType::Boolean, value)
    }

    /// A text column that is printed only with `-o wide`.
    pub const fn wide_text(name: &'static str, value: fn(&K, Timestamp) -> Cell) -> Self {
        Self::text(name, value).wide()
    }

    /// The same column, printed only with `-o wide`.
    pub const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }

    /// The same column, whose cells are names of objects.
    pub const fn names(mut self) -> Self {
        self.format = "name";
        self
    }

    /// The same column, whose cells are the names of this kind's objects.
    pub const fn object_name(mut self) -> Self {
        self.help = Help::NAME;
        self.names()
    }

    /// The same column, told of with these words.
    pub const fn help(mut self, text: &'static str) -> Self {
        self.help = Help::Text(text);
        self
    }

    /// The same column, told of as the API tells of a field of `T`.
    pub const fn field<T: JsonSchema>(mut self, name: &'static str) -> Self {
        self.help = Help::of::<T>(name);
        self
    }

    /// `Name`.
    pub const NAME: Self =
        Self::text("Name", |k, _| Cell::from(k.metadata().name.clone().unwrap_or_default())).object_name();

    /// `Created At`, of kinds that say nothing else of themselves.
    pub const CREATED_AT: Self = Self::new("Created At", ColumnType::Date, |k, _| {
        Cell::from(k.metadata().creation_timestamp.as_ref().map(|t| whole_seconds(t.0)))
    })
    .field::<ObjectMeta>("creationTimestamp");

    /// `Age`, in kubectl's short form.
    pub const AGE: Self =
        Self::text("Age", |k, now| Cell::from(age(k.metadata(), now))).field::<ObjectMeta>("creationTimestamp");
}

fn whole_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn age(meta: &ObjectMeta, now: Timestamp) -> String {
    match &meta.creation_timestamp {
        Some(t) => human_duration(now.as_second() - t.0.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// A duration in kubectl's short form: `45s`, `3m10s`, `5h`, `12d`.
///
/// # Source
/// Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/duration/duration.go`, `HumanDuration`.
pub fn human_duration(seconds: i64) -> String {
    let (s, m, h, d) = (seconds, seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{s}s"),
        120..600 => pair(m, "m", s % 60, "s"),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => pair(h, "h", m % 60, "m"),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => pair(d, "d", h % 24, "h"),
        691_200..63_072_000 => format!("{d}d"),
        63_072_000..252_288_000 => pair(d / 365, "y", d % 365, "d"),
        _ => format!("{}y", d / 365),
    }
}

/// How objects of one version are stored as those of another: one store, several ways to see it.
///
/// Conversions lose nothing that either version can say: what one cannot hold goes into annotations of the other.
pub struct Hub<K> {
    /// The kind that is stored.
    pub kind: fn() -> KindRef,
    /// To the stored kind.
    pub to: fn(&K) -> Result<Box<dyn Object>, ApiError>,
    /// From the stored kind.
    pub from: fn(&dyn Object) -> Result<K, ApiError>,
    /// Selectable fields that the stored kind knows by another path.
    pub fields: &'static [(&'static str, &'static str)],
}

/// A field that field selectors may name, beside `metadata.name` and `metadata.namespace`, which every kind has.
pub struct Field<K> {
    /// Path as in the selector, for example `spec.nodeName`.
    pub path: &'static str,
    /// Its value in an object; empty when unset.
    pub value: fn(&K) -> String,
}

/// In an `impl Kind` with `spec` and `status`: the status is written through its subresource alone, and nothing else is.
macro_rules! status_apart {
    () => {
        fn prepare_create(&mut self) {
            self.status = Some(Default::default());
        }

        crate::kind::status_kept!();
    };
}

/// The same for a kind whose objects begin with a status of their own.
macro_rules! status_kept {
    () => {
        fn prepare_update(&mut self, old: &Self) {
            self.status.clone_from(&old.status);
        }

        fn prepare_status_update(&mut self, old: &Self) {
            self.spec.clone_from(&old.spec);
        }
    };
}

/// In an `impl Kind`: the generation goes up with each change of `spec`.
macro_rules! generation_of_spec {
    () => {
        fn generation_differs(&self, old: &Self) -> Option<bool> {
            Some(self.spec != old.spec)
        }
    };
}
pub(crate) use {generation_of_spec, status_apart, status_kept};

/// A kind of the API. See the module documentation for what belongs here.
pub trait Kind:
    k8s_openapi::Metadata<Ty = ObjectMeta>
    + k8s_openapi::schemars::JsonSchema
    + Serialize
    + DeserializeOwned
    + Clone
    + Default
    + PartialEq
    + std::fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// Its names.
    const NAMES: Names;
    /// Whether it lives in namespaces.
    const SCOPE: Scope;
    /// What becomes of its objects.
    const STORAGE: Storage = Storage::Stored;
    /// Its subresources.
    const SUBRESOURCES: &'static [Sub<Self>] = &[];
    /// The columns that `kubectl get` prints.
    const COLUMNS: &'static [Column<Self>] = &[Column::NAME, Column::AGE];
    /// The fields that field selectors may name.
    const FIELDS: &'static [Field<Self>] = &[];

    /// Whether a PUT (or an apply, which always does) of an object that is not there creates it.
    const CREATE_ON_UPDATE: bool = false;
    /// Whether a PUT may leave out the `resourceVersion` and then replaces whatever is there.
    const UNCONDITIONAL_UPDATE: bool = true;
    /// Whether a deletion answers with the object and not with a `Status`.
    const RETURNS_DELETED: bool = false;
    /// Whether a deletion that does not say otherwise leaves the dependents behind, as it once did for all kinds.
    const ORPHANS_DEPENDENTS: bool = false;
    /// The version that objects are stored as, when it is not this one.
    const HUB: Option<Hub<Self>> = None;

    /// Fills what clients may leave out of a tree though its type demands it, before it is read.
    fn fill_tree(_tree: &mut serde_json::Value) {}
    /// Fills what the user left out. Idempotent.
    fn fill_defaults(&mut self) {}

    /// Gives back memory that was reserved in reading and is not used: for objects that are about to be kept. Worth it
    /// where there are many of a kind, with lists of large parts.
    fn compact(&mut self) {}
    /// Clears what a creator may not set (the status, for example).
    fn prepare_create(&mut self) {}
    /// Carries over what an updater may not change (the status, for example).
    fn prepare_update(&mut self, _old: &Self) {}
    /// Carries over everything but the status, for a write through the status subresource.
    fn prepare_status_update(&mut self, _old: &Self) {}
    /// Why it is done and what to say of that, where it can be done.
    fn completed(&self) -> Option<(&'static str, &'static str)> {
        None
    }
    /// Whether the desired state differs, so that `metadata.generation` goes up. Kinds without generation say `None`.
    fn generation_differs(&self, _old: &Self) -> Option<bool> {
        None
    }
    /// Checks a whole object, metadata excepted (the registry checks that for all kinds).
    fn validate(&self, _errs: &mut FieldErrors) {}
    /// Checks what is only asked of new objects. `validate` runs too.
    fn validate_create(&self, _errs: &mut FieldErrors) {}
    /// Checks a change: what is immutable and which transitions are allowed. `validate` runs too.
    fn validate_update(&self, _old: &Self, _errs: &mut FieldErrors) {}
    /// Checks a write of the status.
    fn validate_status_update(&self, _old: &Self, _errs: &mut FieldErrors) {}
    /// Seconds that a deletion of this object waits for its node, when the request names `requested` seconds.
    /// `None`: it goes at once.
    fn grace_seconds(&self, _requested: Option<i64>) -> Option<i64> {
        None
    }
}
