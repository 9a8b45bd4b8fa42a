//! [`Set`]: a set of paths, kept as a sorted tree.
//!
//! Invariants: siblings are sorted and different; every node is a member or has members below it.
//!
//! # Source
//! `sigs.k8s.io/structured-merge-diff/fieldpath/set.go`.

use super::element::PathElement;

/// A set of paths. That a path is in it says nothing of the paths above and below.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Set {
    nodes: Vec<Node>,
}

/// A path element in a [`Set`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) element: PathElement,
    /// Whether the path that ends here is in the set.
    pub(crate) member: bool,
    /// The paths that go on from here.
    pub(crate) below: Set,
}

impl Node {
    fn keep(self) -> Option<Self> {
        (self.member || !self.below.is_empty()).then_some(self)
    }
}

/// A [`Set`] in the making, of elements in any order.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    nodes: Vec<Node>,
    is_unsorted: bool,
}

impl Gathered {
    /// Adds an element with what is below it; nothing when it would be neither member nor have members.
    pub(crate) fn push(&mut self, element: PathElement, member: bool, below: Set) {
        if !member && below.is_empty() {
            return;
        }
        self.is_unsorted |= self.nodes.last().is_some_and(|last| last.element >= element);
        self.nodes.push(Node { element, member, below });
    }

    /// All of them, sorted once.
    pub(crate) fn finish(mut self) -> Set {
        if self.is_unsorted {
            self.nodes.sort_by(|a, b| a.element.cmp(&b.element));
            let mut merged: Vec<Node> = Vec::with_capacity(self.nodes.len());
            for node in self.nodes {
                match merged.last_mut() {
                    Some(last) if last.element == node.element => {
                        last.member |= node.member;
                        last.below = std::mem::take(&mut last.below).union(node.below);
                    }
                    _ => merged.push(node),
                }
            }
            self.nodes = merged;
        }
        Set { nodes: self.nodes }
    }
}

impl Set {
    pub(crate) const EMPTY: Self = Self { nodes: Vec::new() };

    pub(crate) fn new() -> Self {
        Self::EMPTY
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The set with one path of fields.
    pub(crate) fn of_fields<'a>(paths: impl IntoIterator<Item = &'a [&'a str]>) -> Self {
        let mut set = Self::new();
        for path in paths {
            let path: Vec<PathElement> = path.iter().map(|name| PathElement::field(name)).collect();
            set.insert(&path);
        }
        set
    }

    /// Adds a path; the empty one is left out, since nobody owns a whole object.
    pub(crate) fn insert(&mut self, path: &[PathElement]) {
        *self = std::mem::take(self).union(Self::of_path(path));
    }

    fn of_path(path: &[PathElement]) -> Self {
        let [first, rest @ ..] = path else { return Self::new() };
        let mut gathered = Gathered::default();
        gathered.push(first.clone(), rest.is_empty(), Self::of_path(rest));
        gathered.finish()
    }

    pub(crate) fn get(&self, element: &PathElement) -> Option<&Node> {
        let at = self.nodes.binary_search_by(|n| n.element.cmp(element)).ok()?;
        self.nodes.get(at)
    }

    /// Whether a path is in the set.
    pub(crate) fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.get(last).is_some_and(|n| n.member),
            [first, rest @ ..] => self.get(first).is_some_and(|n| n.below.has(rest)),
        }
    }

    /// What is in either.
    pub(crate) fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let mut others = other.nodes.into_iter().peekable();
        for mut node in self.nodes {
            while let Some(less) = others.next_if(|o| o.element < node.element) {
                nodes.push(less);
            }
            if let Some(equal) = others.next_if(|o| o.element == node.element) {
                node.member |= equal.member;
                node.below = node.below.union(equal.below);
            }
            nodes.push(node);
        }
        nodes.extend(others);
        Self { nodes }
    }

    /// What is in both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut others = other.nodes.iter().peekable();
        let mut nodes = Vec::new();
        for node in &self.nodes {
            while others.next_if(|o| o.element < node.element).is_some() {}
            if let Some(equal) = others.next_if(|o| o.element == node.element) {
                let below = node.below.intersection(&equal.below);
                let both = Node { element: node.element.clone(), member: node.member && equal.member, below };
                nodes.extend(both.keep());
            }
        }
        Self { nodes }
    }

    /// What is not in `other`. Paths below a path of `other` stay.
    pub(crate) fn difference(self, other: &Self) -> Self {
        self.without(other, false)
    }

    /// What is neither in `other` nor below a path of it.
    pub(crate) fn recursive_difference(self, other: &Self) -> Self {
        self.without(other, true)
    }

    fn without(self, other: &Self, recursive: bool) -> Self {
        if other.is_empty() {
            return self;
        }
        let mut others = other.nodes.iter().peekable();
        let mut nodes = Vec::with_capacity(self.nodes.len());
        for mut node in self.nodes {
            while others.next_if(|o| o.element < node.element).is_some() {}
            if let Some(equal) = others.next_if(|o| o.element == node.element) {
                if recursive && equal.member {
                    continue;
                }
                node.member &= !equal.member;
                node.below = node.below.without(&equal.below, recursive);
            }
            nodes.extend(node.keep());
        }
        Self { nodes }
    }

    /// All paths: those that end at this level first, then those below, as Kubernetes lists conflicts.
    pub(crate) fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut out = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut out);
        out
    }

    fn collect_paths(&self, prefix: &mut Vec<PathElement>, out: &mut Vec<Vec<PathElement>>) {
        for node in self.nodes.iter().filter(|n| n.member) {
            let mut path = prefix.clone();
            path.push(node.element.clone());
            out.push(path);
        }
        for node in &self.nodes {
            prefix.push(node.element.clone());
            node.below.collect_paths(prefix, out);
            prefix.pop();
        }
    }
}

/// A path as conflicts and errors show it.
pub(crate) fn path_text(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}
