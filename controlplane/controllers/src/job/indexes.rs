//! [`Indexes`]: sets of completion indexes, as indexed Jobs write them: `1,3-5,7`.
//!
//! # Source
//! Kubernetes `pkg/controller/job/indexed_job_utils.go`.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::api::core::v1::Pod;

use super::INDEX;

/// Intervals with both bounds, in increasing order, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads a list; what is no index below `completions` is left out.
    pub(super) fn parse(list: &str, completions: i32) -> Self {
        let interval = |text: &str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
            (0 <= first && first < completions && first <= last).then(|| (first, last.min(completions - 1)))
        };
        list.split(',').filter_map(interval).fold(Self::default(), Self::push)
    }

    /// With some more.
    pub(super) fn with(&self, more: &BTreeSet<i32>) -> Self {
        let more = more.iter().map(|index| (*index, *index)).fold(Self::default(), Self::push);
        self.union(&more)
    }

    /// Those of both.
    pub(super) fn union(&self, other: &Self) -> Self {
        let mut all: Vec<_> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        all.into_iter().fold(Self::default(), Self::push)
    }

    /// The next interval, which begins no earlier than the last.
    fn push(mut self, (first, last): (i32, i32)) -> Self {
        match self.0.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = last.max(before.1),
            _ => self.0.push((first, last)),
        }
        self
    }

    /// How many there are.
    pub(super) fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether this is one of them.
    pub(super) fn has(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many are in both.
    pub(super) fn shared(&self, other: &Self) -> i32 {
        let (mut mine, mut theirs, mut shared) = (self.0.iter().peekable(), other.0.iter().peekable(), 0);
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            shared += (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
            if a.1 <= b.1 {
                mine.next();
            } else {
                theirs.next();
            }
        }
        shared
    }

    /// The lowest `count` below `completions` that are not among them.
    pub(super) fn missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let ends = self.0.iter().copied().chain([(completions, completions)]);
        let mut candidate = 0;
        let mut missing = Vec::with_capacity(count.min(self.0.len() + 1));
        for (first, last) in ends {
            missing.extend((candidate..first.min(completions)).take(count - missing.len()));
            candidate = last.saturating_add(1);
        }
        missing
    }
}

/// `0,2-4`; two in a row stand apart: `0,1`.
impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// The completion index of a pod, when it is below `completions`.
pub(super) fn index_of(pod: &Pod, completions: i32) -> Option<i32> {
    any_index_of(pod).filter(|index| *index < completions)
}

/// The completion index of a pod, however high.
pub(super) fn any_index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok().filter(|index| *index >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (list, shown, total) in [
            ("", "", 0),
            ("0", "0", 1),
            ("0-1", "0,1", 2),
            ("1,3-5,7", "1,3-5,7", 5),
            ("1,2,3", "1-3", 3),
            ("8-20", "8,9", 2),
            ("x,4,10", "4", 1),
        ] {
            let indexes = Indexes::parse(list, 10);
            assert_eq!((indexes.to_string().as_str(), indexes.total()), (shown, total), "{list}");
        }
    }

    #[test]
    fn sets() {
        let set = Indexes::parse("1,3-5,8", 10);
        assert_eq!((0..10).filter(|i| set.has(*i)).collect::<Vec<_>>(), [1, 3, 4, 5, 8]);
        assert_eq!(set.with(&[0, 2, 9].into()).to_string(), "0-5,8,9");
        assert_eq!(set.union(&Indexes::parse("4-6", 10)).to_string(), "1,3-6,8");
        for (other, shared) in [("", 0), ("0-9", 5), ("4,8,9", 2), ("2", 0), ("5-8", 2)] {
            assert_eq!(set.shared(&Indexes::parse(other, 10)), shared, "{other}");
        }
        assert_eq!(set.missing(3, 10), [0, 2, 6]);
        assert_eq!(set.missing(100, 10), [0, 2, 6, 7, 9]);
        assert_eq!(set.missing(100, 4), [0, 2]);
        assert_eq!(Indexes::default().missing(2, 5), [0, 1]);
        assert!(set.missing(0, 10).is_empty());
    }
}
