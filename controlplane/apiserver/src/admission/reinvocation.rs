//! [`Reinvocation`]: which webhooks and policies were asked about a request, and which are to be asked a second time.
//!
//! When one of them changes the object, all plug-ins see it once more; of webhooks and policies only those that want it
//! (`reinvocationPolicy: IfNeeded`), that were asked before, and after which the object was changed. There is no third
//! time.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/reinvocation.go`,
//! `.../plugin/webhook/mutating/reinvocationcontext.go`, `.../plugin/policy/mutating/reinvocationcontext.go`.

use std::collections::BTreeSet;

use podium_api::Object;

/// What is known of one request.
#[derive(Default)]
pub(crate) struct Reinvocation {
    again: bool,
    wanted: bool,
    pub(super) policies: Asked,
    pub(super) webhooks: Asked,
}

impl Reinvocation {
    /// Begins the second time, if there is to be one.
    pub(super) fn begin_again(&mut self) -> bool {
        self.again = self.wanted;
        self.again
    }

    /// Whether this is the second time.
    pub(super) fn is_again(&self) -> bool {
        self.again
    }

    /// A webhook or policy has changed the object.
    pub(super) fn changed(&mut self) {
        self.wanted = true;
    }
}

/// Those of one kind that want to be asked again, by a name that only they have.
#[derive(Default)]
pub(super) struct Asked {
    /// Asked before, when the object has not been changed since.
    before: BTreeSet<String>,
    due: BTreeSet<String>,
    /// The object as the last of them left it; not kept when nobody could be asked again.
    output: Option<Box<dyn Object>>,
}

impl Asked {
    /// All that were asked before are due.
    pub(super) fn require(&mut self) {
        self.due.append(&mut self.before);
    }

    /// They are due also when others, between the two times, have changed the object.
    pub(super) fn require_if_changed(&mut self, object: Option<&dyn Object>) {
        let same = match (&self.output, object) {
            (Some(output), Some(object)) => output.same_as(object),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.require();
        }
    }

    /// Whether one is due.
    pub(super) fn is_due(&self, name: &str) -> bool {
        self.due.contains(name)
    }

    /// One was asked that wants to be asked again.
    pub(super) fn asked(&mut self, name: String) {
        self.before.insert(name);
    }

    /// The last of them is done.
    pub(super) fn finished(&mut self, object: Option<&dyn Object>) {
        self.output = if self.before.is_empty() { None } else { object.map(Object::boxed_clone) };
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn map(name: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map
    }

    #[test]
    fn those_before_a_change_are_due() {
        let mut asked = Asked::default();
        asked.asked("a".to_owned());
        asked.require();
        asked.asked("b".to_owned());
        assert!(asked.is_due("a") && !asked.is_due("b"));
        asked.finished(Some(&map("x")));
        asked.require_if_changed(Some(&map("x")));
        assert!(!asked.is_due("b"), "nothing has changed since");
        asked.require_if_changed(Some(&map("y")));
        assert!(asked.is_due("b"));
    }

    #[test]
    fn there_is_a_second_time_only_after_a_change() {
        let mut rounds = Reinvocation::default();
        assert!(!rounds.begin_again() && !rounds.is_again());
        rounds.changed();
        assert!(rounds.begin_again() && rounds.is_again());
    }
}
