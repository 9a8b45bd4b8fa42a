//! The scheduler's configuration file.

use std::path::Path;

use anyhow::{Context, Result};
use podium_scheduler::Config;

/// Reads a `KubeSchedulerConfiguration`; without a file, what Kubernetes does by default.
///
/// # Errors
/// When it cannot be read, or says what has no meaning.
pub(crate) fn read(path: Option<&Path>) -> Result<Config> {
    let Some(path) = path else { return Ok(Config::default()) };
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read --scheduler-config {shown}"))?;
    let value = serde_yaml::from_str(&text).with_context(|| format!("--scheduler-config {shown} is no YAML"))?;
    Config::from_value(value).with_context(|| format!("--scheduler-config {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_what_is_wrong_is_said() {
        assert_eq!(read(None).unwrap().profiles.len(), 1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler.yaml");
        let check = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(Some(&path)).map(|c| c.profiles.iter().map(|p| p.scheduler_name.clone()).collect::<Vec<_>>())
        };
        let good = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles:\n- schedulerName: a\n- schedulerName: b\n";
        assert_eq!(check(good).unwrap(), ["a", "b"]);
        let error =
            format!("{:#}", check(&good.replace("name: b", "name: a").replace("Name: b", "Name: a")).unwrap_err());
        assert!(error.ends_with(r#"profiles[1].schedulerName: Duplicate value: "a""#), "{error}");
    }
}
