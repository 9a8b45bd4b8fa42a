//! [`Running`]: what the machines really run, whatever the API shows of it.
//!
//! No two machines ever run pods of one name: a StatefulSet's ordinal is there once, also while a machine is cut off and
//! its pods are to go.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// All machines' pods.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// By the pod's uid: its name, and where it runs.
    pods: Mutex<BTreeMap<String, (String, String)>>,
}

impl Running {
    /// A pod runs on a machine from now on.
    pub(crate) fn start(&self, uid: &str, name: &str, machine: &str) {
        self.pods.lock().insert(uid.to_owned(), (name.to_owned(), machine.to_owned()));
    }

    /// It does not run any more.
    pub(crate) fn stop(&self, uid: &str) {
        self.pods.lock().remove(uid);
    }

    /// A machine runs no others than these.
    pub(crate) fn only(&self, machine: &str, uids: impl Fn(&str) -> bool) {
        self.pods.lock().retain(|uid, (_, on)| on != machine || uids(uid));
    }

    /// # Errors
    /// Two pods of one name run.
    pub(crate) fn check(&self) -> Result<(), String> {
        let pods = self.pods.lock();
        let mut places: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, machine) in pods.values() {
            if let Some(other) = places.insert(name, machine) {
                return Err(format!("pod {name} runs twice: on {other} and on {machine}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_name() {
        let running = Running::default();
        running.start("1", "db-0", "n0");
        running.start("2", "db-1", "n0");
        running.start("1", "db-0", "n0");
        assert_eq!(running.check(), Ok(()));
        running.start("3", "db-0", "n1");
        assert_eq!(running.check(), Err("pod db-0 runs twice: on n0 and on n1".to_owned()));
        running.stop("1");
        assert_eq!(running.check(), Ok(()));
        running.start("4", "db-1", "n1");
        assert!(running.check().is_err());
        running.only("n0", |_| false);
        assert_eq!(running.check(), Ok(()), "n0 has crashed");
    }
}
