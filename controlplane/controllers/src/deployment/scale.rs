//! Scaling: sizes of ReplicaSets when the Deployment's size changed, also in the middle of a rollout.

use podium_api::{Object, ObjectKey};
use serde_json::json;

use super::{
    Work,
    history::{DESIRED_REPLICAS, MAX_REPLICAS},
    set::{Set, max_surge, rolls},
};
use crate::Action;

impl Work<'_> {
    /// Whether the Deployment's size changed since its ReplicaSets were sized.
    pub(super) fn is_scaling(&self) -> bool {
        let wanted = self.wanted();
        let stale = |set: &Set| set.replicas > 0 && set.number(DESIRED_REPLICAS).is_some_and(|n| n != wanted);
        self.all().any(stale)
    }

    /// With one active ReplicaSet it gets all; with a finished rollout the old ones get nothing; in the middle of a
    /// rollout each gets its share, so that the risk stays spread as it was.
    pub(super) fn scale(&mut self) {
        let wanted = self.wanted();
        let active = self.old.iter().filter(|s| s.replicas > 0).count();
        let new_active = self.new.as_ref().is_some_and(|s| s.replicas > 0);
        match (active, new_active, self.new.is_some()) {
            (0, _, true) => {
                self.scale_new(wanted);
            }
            (0, _, false) if self.old.is_empty() => {}
            (0, _, false) => {
                self.scale_old(self.old.len() - 1, wanted);
            }
            (1, false, _) => {
                if let Some(at) = self.old.iter().position(|s| s.replicas > 0) {
                    self.scale_old(at, wanted);
                }
            }
            _ if self.is_saturated() => {
                for at in 0..self.old.len() {
                    self.scale_old(at, 0);
                }
            }
            _ if rolls(self.deployment) => self.share_out(),
            _ => {}
        }
    }

    fn is_saturated(&self) -> bool {
        let wanted = self.wanted();
        self.new.as_ref().is_some_and(|set| {
            set.replicas == wanted && set.number(DESIRED_REPLICAS) == Some(wanted) && set.available() == wanted
        })
    }

    fn share_out(&mut self) {
        let wanted = self.wanted();
        let allowed = if wanted > 0 { wanted + max_surge(self.deployment) } else { 0 };
        let to_add = allowed - self.total();
        // Positions in `old`; `None` is the new one. The largest first: they take what rounding leaves over. Of equal
        // ones the newer grows first and the older shrinks first.
        let mut order: Vec<Option<usize>> = (0..self.old.len()).map(Some).chain([None]).collect();
        order.retain(|at| self.at(*at).is_some_and(|s| s.replicas > 0));
        if to_add > 0 {
            order.reverse();
        }
        order.sort_by_key(|at| std::cmp::Reverse(self.at(*at).map_or(0, |s| s.replicas)));
        let mut added = 0;
        let mut sizes: Vec<i32> = Vec::new();
        for at in &order {
            let Some(set) = self.at(*at) else { continue };
            let share = self.share(set, to_add, added);
            added += share;
            sizes.push(set.replicas + share);
        }
        if let Some(first) = sizes.first_mut().filter(|_| to_add != 0) {
            *first = (*first + to_add - added).max(0);
        }
        for (at, size) in order.into_iter().zip(sizes) {
            match at {
                Some(at) => {
                    self.scale_old(at, size);
                }
                None => {
                    self.scale_new(size);
                }
            }
        }
    }

    fn at(&self, at: Option<usize>) -> Option<&Set> {
        at.map_or(self.new.as_ref(), |at| self.old.get(at))
    }

    /// What a ReplicaSet gets of `to_add`, of which `added` has been given out.
    fn share(&self, set: &Set, to_add: i32, added: i32) -> i32 {
        if set.replicas == 0 || to_add == 0 || to_add == added {
            return 0;
        }
        let share = self.fraction(set);
        let left = to_add - added;
        if to_add > 0 { share.min(left) } else { share.max(left) }
    }

    fn fraction(&self, set: &Set) -> i32 {
        let wanted = self.wanted();
        if wanted == 0 {
            return -set.replicas;
        }
        let most = f64::from(wanted + max_surge(self.deployment));
        let before = set.number(MAX_REPLICAS).filter(|n| *n != 0).or(self.status.replicas).unwrap_or(0);
        if before == 0 {
            return 0;
        }
        let size = f64::from(set.replicas) * most / f64::from(before);
        // In range: a ReplicaSet's size times the ratio of two sizes that differ by what a user asked for.
        #[expect(clippy::cast_possible_truncation, reason = "float to integer casts saturate")]
        let rounded = size.round() as i32;
        rounded.saturating_sub(set.replicas)
    }

    /// Gives the new ReplicaSet a size; says whether that changed it.
    pub(super) fn scale_new(&mut self, replicas: i32) -> bool {
        let Some(mut set) = self.new.take() else { return false };
        let scaled = self.resize(&mut set, replicas);
        self.new = Some(set);
        scaled
    }

    /// Gives an old ReplicaSet a size; says whether that changed it.
    pub(super) fn scale_old(&mut self, at: usize, replicas: i32) -> bool {
        let mut set = self.old[at].clone();
        let scaled = self.resize(&mut set, replicas);
        self.old[at] = set;
        scaled
    }

    fn resize(&mut self, set: &mut Set, replicas: i32) -> bool {
        let (from, sizes) = (set.replicas, self.size_annotations());
        let annotated = sizes.iter().all(|(k, v)| set.annotation(k) == Some(v));
        if from == replicas && (annotated || replicas == 0) {
            return false;
        }
        let annotations: serde_json::Map<_, _> = sizes.into_iter().map(|(k, v)| (k, v.into())).collect();
        let patch = json!({
            "metadata": {"uid": set.seen.metadata.uid, "annotations": annotations},
            "spec": {"replicas": replicas},
        });
        self.plan.push(Action::MergePatch {
            kind: set.seen.kind(),
            key: ObjectKey::of(&set.seen.metadata),
            patch,
            subresource: None,
        });
        set.replicas = replicas;
        if from != replicas {
            self.tell_scaled(set.name(), from, replicas);
        }
        from != replicas
    }
}
