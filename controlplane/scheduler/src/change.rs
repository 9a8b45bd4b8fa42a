//! [`Changes`]: what may happen in a cluster that lets a refused pod fit after all.

use std::ops::{BitOr, BitOrAssign};

/// A set of kinds of changes. Filters say which may unblock what they refused; the snapshot says which happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Changes(u8);

impl Changes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// A node appeared.
    pub const NODE_ADDED: Self = Self(1);
    /// A node offers more of something, or of something else.
    pub const NODE_ALLOCATABLE: Self = Self(1 << 1);
    /// A node's labels are different.
    pub const NODE_LABELS: Self = Self(1 << 2);
    /// A node's taints are different.
    pub const NODE_TAINTS: Self = Self(1 << 3);
    /// A node was cordoned or uncordoned.
    pub const NODE_UNSCHEDULABLE: Self = Self(1 << 4);
    /// A pod left a node (deleted or finished).
    pub const POD_REMOVED: Self = Self(1 << 5);

    /// How many kinds of changes there are.
    pub(crate) const COUNT: usize = 6;

    /// Whether the two sets share a kind of change.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether nothing happened.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The positions of the kinds in this set, each below [`Changes::COUNT`].
    pub(crate) fn positions(self) -> impl Iterator<Item = usize> {
        (0..Self::COUNT).filter(move |i| self.0 & (1 << i) != 0)
    }
}

impl BitOr for Changes {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Changes {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
