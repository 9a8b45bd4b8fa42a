//! How large values can be and what an expression can cost at most, before there are any.
//!
//! Only the greater end of cel-go's estimates is kept, which is what limits are about.
//!
//! # Source
//! cel-go `checker/cost.go`, Kubernetes `staging/src/k8s.io/apiserver/pkg/cel/library/cost.go` and `.../cel/limits.go`.

use std::sync::Arc;

/// Bytes of the largest request.
pub(crate) const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;

/// The largest size that a value can have, and that of what is in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Size {
    /// Bytes of a text, items of a list, entries of a map. `None`: as much as fits into a request.
    pub max: Option<u64>,
    /// Of a key of a map.
    pub key: Option<Arc<Size>>,
    /// Of an item of a list or a value of a map.
    pub item: Option<Arc<Size>>,
}

impl Size {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { max: None, key: None, item: None };

    /// At most so many.
    pub fn at_most(max: u64) -> Self {
        Self { max: Some(max), ..Self::UNKNOWN }
    }

    /// At most so many items of this size.
    pub fn of_items(max: u64, item: Self) -> Self {
        Self { max: Some(max), key: None, item: Some(Arc::new(item)) }
    }

    pub(crate) fn units(&self) -> u64 {
        self.max.unwrap_or(REQUEST_BYTES_MAX)
    }

    pub(crate) fn item(&self) -> Self {
        self.item.as_deref().cloned().unwrap_or(Self::UNKNOWN)
    }

    pub(crate) fn larger(self, other: &Self) -> Self {
        let max = self.max.zip(other.max).map(|(a, b)| a.max(b));
        Self { max, key: self.key, item: self.item.or_else(|| other.item.clone()) }
    }
}

/// A tenth for each byte, rounded up.
pub(crate) fn walk(bytes: u64) -> u64 {
    bytes.div_ceil(10)
}

/// What a call costs beyond its arguments, and the size of what it gives. The target of a method is the first argument.
pub(crate) fn call(name: &str, args: &[&Size]) -> (u64, Size) {
    let size = |i: usize| args.get(i).map_or(0, |s| s.units());
    let first = args.first().map_or(Size::UNKNOWN, |s| (*s).clone());
    match name {
        "check" => (350_000, Size::UNKNOWN),
        "isSorted" | "sum" | "min" | "max" | "indexOf" | "lastIndexOf" | "includes" | "sort" | "reverse" | "slice" => {
            let item = first.item.as_ref().map_or(1, |item| 1 + walk(item.units()));
            (size(0).saturating_mul(item), if matches!(name, "sum" | "min" | "max") { first.item() } else { first })
        }
        "distinct" => (size(0).saturating_mul(size(0)), first),
        "lowerAscii" | "upperAscii" | "substring" | "trim" | "url" | "jsonpatch.escapeKey" => (walk(size(0)), first),
        "replace" => {
            let grown = size(0).saturating_add(1).saturating_mul(size(2)).saturating_add(size(0));
            (walk(size(0).saturating_mul(2)), Size::at_most(grown))
        }
        "split" => (walk(size(0).saturating_mul(2)), Size::of_items(size(0), first)),
        "join" => {
            let bytes = size(0).saturating_mul(first.item().units().saturating_add(size(1)));
            (walk(bytes), Size::at_most(bytes))
        }
        "matches" | "find" | "findAll" => {
            (walk(size(0).saturating_add(1)).saturating_mul(size(1).div_ceil(4).max(1)), first)
        }
        "contains" => (walk(size(0)).saturating_mul(walk(size(1)).max(1)), Size::UNKNOWN),
        "startsWith" | "endsWith" => (walk(size(1)), Size::UNKNOWN),
        "sets.contains" | "sets.intersects" => (size(0).saturating_mul(size(1)), Size::UNKNOWN),
        "sets.equivalent" => (size(0).saturating_mul(size(1)).saturating_mul(2), Size::UNKNOWN),
        "format" => (walk(size(0)), Size::UNKNOWN),
        "bytes" | "string" | "quantity" | "isQuantity" | "ip" | "isIP" | "cidr" | "isCIDR" | "semver" | "isSemver"
        | "isURL" | "base64.encode" | "base64.decode" | "ip.isCanonical" => (walk(size(0)).max(1), first),
        "containsIP" | "containsCIDR" => (walk(size(1)).saturating_add(5), Size::UNKNOWN),
        "validate" => (walk(size(1).saturating_add(1)).saturating_mul(32), Size::UNKNOWN),
        "value" | "orValue" | "optional.of" => (1, first),
        _ => (1, Size::UNKNOWN),
    }
}
