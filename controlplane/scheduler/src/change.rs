//! [`Changes`]: what may happen in a cluster that lets a refused pod fit after all.

use std::ops::{BitOr, BitOrAssign};

/// A set of kinds of changes. Plugins say which may unblock what they refused; the snapshot says which happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Changes(u16);

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
    /// A pod left a node (deleted or finished): there is more room.
    pub const POD_REMOVED: Self = Self(1 << 5);
    /// A pod that others may want to be near, or to be spread against, came to a node.
    pub const POD_CAME: Self = Self(1 << 6);
    /// A pod that others may want to be far from, or to be spread against, left a node.
    pub const POD_LEFT: Self = Self(1 << 7);
    /// The domains that nodes make up are different: a node came, went, or changed its labels or taints.
    pub const DOMAINS: Self = Self(1 << 8);
    /// A claim, a volume or a storage class appeared or changed.
    pub const VOLUMES: Self = Self(1 << 9);

    /// How many kinds of changes there are.
    pub(crate) const COUNT: usize = 10;
    /// What a node's own state says.
    pub(crate) const OF_NODES: Self = Self(0b1_1111);

    /// Whether the two sets share a kind of change.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What the two sets share.
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
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
