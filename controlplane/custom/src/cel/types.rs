//! [`Type`]: what is known of a value before it is there.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

/// A type of CEL.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// Known only when it is there.
    Dyn,
    /// `null_type`
    Null,
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `uint`
    Uint,
    /// `double`
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// `google.protobuf.Duration`
    Duration,
    /// `google.protobuf.Timestamp`
    Timestamp,
    /// `type`
    Type,
    /// `list(T)`
    List(Arc<Type>),
    /// `map(K, V)`
    Map(Arc<Type>, Arc<Type>),
    /// `optional_type(T)`
    Optional(Arc<Type>),
    /// An object with known fields.
    Struct(Arc<Struct>),
    /// A type of a library, for example `kubernetes.Quantity`.
    Opaque(&'static str),
    /// A type parameter of a function.
    Param(u8),
}

/// An object with known fields.
#[derive(Debug, Default)]
pub struct Struct {
    /// Its name, for example `Object.spec`.
    pub name: String,
    /// Its fields by their escaped names.
    pub fields: BTreeMap<String, Field>,
    /// Whether it has fields of any name, of any type: `Object{...}` of an unknown kind.
    pub open: bool,
}

/// A field of an object.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its type.
    pub of: Type,
    /// The largest size that its schema allows.
    pub size: super::Size,
}

impl PartialEq for Struct {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.name == other.name && !self.name.is_empty())
    }
}

impl Type {
    /// `list(T)`.
    pub fn list(of: Self) -> Self {
        Self::List(Arc::new(of))
    }

    /// `map(K, V)`.
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    /// `optional_type(T)`.
    pub fn optional(of: Self) -> Self {
        Self::Optional(Arc::new(of))
    }

    /// Whether a value of the other type may stand where this one is asked for.
    pub fn accepts(&self, other: &Self) -> bool {
        unify(self, other, &mut HashMap::new())
    }

    /// Whether nothing is known.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }

    fn is_nullable(&self) -> bool {
        matches!(
            self,
            Self::Struct(_)
                | Self::Opaque(_)
                | Self::Duration
                | Self::Timestamp
                | Self::Optional(_)
                | Self::Null
                | Self::Dyn
        )
    }
}

/// Whether `want` (with parameters) takes `got`; binds the parameters.
pub(crate) fn unify(want: &Type, got: &Type, bound: &mut HashMap<u8, Type>) -> bool {
    match (want, got) {
        (Type::Param(p), got) => match bound.get(p).cloned() {
            None => {
                bound.insert(*p, got.clone());
                true
            }
            Some(Type::Dyn) => true,
            Some(known) => {
                if got.is_dyn() {
                    return true;
                }
                let fits = unify(&known, got, bound);
                if !fits && unify(got, &known, bound) {
                    bound.insert(*p, got.clone());
                    return true;
                }
                fits
            }
        },
        (Type::Dyn, _) | (_, Type::Dyn | Type::Param(_)) => true,
        (want, Type::Null) => want.is_nullable(),
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => unify(a, b, bound),
        (Type::Map(ka, va), Type::Map(kb, vb)) => unify(ka, kb, bound) && unify(va, vb, bound),
        (a, b) => a == b,
    }
}

/// A type with its parameters replaced; those that nothing is known of become `dyn`.
pub(crate) fn substitute(of: &Type, bound: &HashMap<u8, Type>) -> Type {
    match of {
        Type::Param(p) => bound.get(p).cloned().unwrap_or(Type::Dyn),
        Type::List(t) => Type::list(substitute(t, bound)),
        Type::Optional(t) => Type::optional(substitute(t, bound)),
        Type::Map(k, v) => Type::map(substitute(k, bound), substitute(v, bound)),
        other => other.clone(),
    }
}

/// The type that takes both.
pub(crate) fn join(a: &Type, b: &Type) -> Type {
    if a == b || unify(a, b, &mut HashMap::new()) && !a.is_dyn() {
        if matches!(a, Type::Null) { b.clone() } else { a.clone() }
    } else if unify(b, a, &mut HashMap::new()) && !b.is_dyn() {
        b.clone()
    } else {
        Type::Dyn
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null_type"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Duration => f.write_str("google.protobuf.Duration"),
            Self::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Self::Type => f.write_str("type"),
            Self::List(t) => write!(f, "list({t})"),
            Self::Map(k, v) => write!(f, "map({k}, {v})"),
            Self::Optional(t) => write!(f, "optional_type({t})"),
            Self::Struct(s) => f.write_str(&s.name),
            Self::Opaque(name) => f.write_str(name),
            Self::Param(p) => write!(f, "{}", char::from(b'A' + (p % 26))),
        }
    }
}
