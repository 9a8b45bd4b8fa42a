//! [`Key`]: what a controller is asked about. Most controllers have keys of one kind; the garbage collector of all.

use std::fmt;

use podium_api::{Names, Object, ObjectKey};

/// One object of one kind, there or not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// API group of the kind, empty for core.
    pub group: &'static str,
    /// Plural name of the kind, for example `replicasets`.
    pub resource: &'static str,
    /// Which one.
    pub object: ObjectKey,
}

impl Key {
    /// A key of a kind.
    pub fn new(names: &Names, object: ObjectKey) -> Self {
        Self { group: names.group, resource: names.plural, object }
    }

    /// The key of an object.
    pub fn of(object: &dyn Object) -> Self {
        Self::new(&object.names(), object.key())
    }

    /// Whether it is of this kind.
    pub fn is(&self, names: &Names) -> bool {
        self.group == names.group && self.resource == names.plural
    }
}

/// `replicasets.apps default/web`, for logs.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{} {}", self.resource, self.group, self.object)
    }
}
