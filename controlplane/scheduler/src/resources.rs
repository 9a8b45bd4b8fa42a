//! [`Resources`]: an amount of everything that nodes offer and pods request, in fixed units, cheap to add and compare.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use podium_api::quantity::Quantity;

/// Amounts. A quantity that cannot be read counts as zero: validation keeps such objects out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Number of pods.
    pub pods: i64,
    /// CPU in thousandths of a core.
    pub millicores: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Local storage in bytes.
    pub ephemeral_bytes: i64,
    /// Anything else (`example.com/gpu`), by name, in order of the names.
    pub other: Vec<(Arc<str>, i64)>,
}

impl Resources {
    /// Reads a resource list.
    pub fn of(list: &BTreeMap<String, WireQuantity>) -> Self {
        let mut sum = Self::default();
        for (name, quantity) in list {
            let Ok(quantity) = quantity.0.parse::<Quantity>() else { continue };
            match name.as_str() {
                "pods" => sum.pods = quantity.value(),
                "cpu" => sum.millicores = quantity.milli(),
                "memory" => sum.memory_bytes = quantity.value(),
                "ephemeral-storage" => sum.ephemeral_bytes = quantity.value(),
                other => sum.other.push((other.into(), quantity.value())),
            }
        }
        sum
    }

    /// The amount of a resource that has no field of its own.
    pub fn other(&self, name: &str) -> i64 {
        self.other.iter().find(|(n, _)| &**n == name).map_or(0, |(_, amount)| *amount)
    }

    /// Whether both ask for some of the same. The number of pods does not count: every pod is one.
    pub fn shares(&self, with: &Self) -> bool {
        let both = |a: i64, b: i64| a > 0 && b > 0;
        both(self.millicores, with.millicores)
            || both(self.memory_bytes, with.memory_bytes)
            || both(self.ephemeral_bytes, with.ephemeral_bytes)
            || self.other.iter().any(|(name, amount)| both(*amount, with.other(name)))
    }

    /// Adds amounts.
    pub fn add(&mut self, more: &Self) {
        self.combine(more, i64::saturating_add);
    }

    /// Takes amounts away.
    pub fn subtract(&mut self, less: &Self) {
        self.combine(less, i64::saturating_sub);
    }

    /// Takes the greater of each amount.
    pub fn raise_to(&mut self, least: &Self) {
        self.combine(least, i64::max);
    }

    fn combine(&mut self, with: &Self, how: fn(i64, i64) -> i64) {
        self.pods = how(self.pods, with.pods);
        self.millicores = how(self.millicores, with.millicores);
        self.memory_bytes = how(self.memory_bytes, with.memory_bytes);
        self.ephemeral_bytes = how(self.ephemeral_bytes, with.ephemeral_bytes);
        for (name, amount) in &with.other {
            match self.other.binary_search_by(|(n, _)| n.cmp(name)) {
                Ok(at) => self.other[at].1 = how(self.other[at].1, *amount),
                Err(at) => self.other.insert(at, (name.clone(), how(0, *amount))),
            }
        }
    }
}
