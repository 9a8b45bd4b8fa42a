//! Flags of `podium up` for the API server, under Kubernetes' names.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use podium_apiserver::{AuditConfig, AuditPolicy, ServerConfig};

/// What the API server is told.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ApiArgs {
    /// Policy that says what is audited
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    pub(crate) audit_policy_file: Option<PathBuf>,
    /// Where the audit log is written
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub(crate) audit_log_path: Option<PathBuf>,
    /// MiB after which a new audit log is begun
    #[arg(long, value_name = "MIB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    pub(crate) audit_log_maxsize: u64,
    /// How many old audit logs are kept
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub(crate) audit_log_maxbackup: u16,
    /// Seconds for which /readyz fails and requests are still served when the cluster stops
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub(crate) shutdown_delay_duration: u64,
    /// Names and addresses beside its own that the API server's certificate has. Repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) apiserver_cert_extra_sans: Vec<String>,
    /// Seconds for which a node may be silent before it counts as lost
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) node_monitor_grace_period: u32,
}

impl ApiArgs {
    /// What controllers are told.
    pub(crate) fn controllers(&self) -> podium_drivers::ControllerSettings {
        podium_drivers::ControllerSettings { node_grace_seconds: self.node_monitor_grace_period.into() }
    }

    /// Puts the flags into a configuration.
    ///
    /// # Errors
    /// When the audit policy cannot be used.
    pub(crate) fn apply(&self, config: &mut ServerConfig) -> Result<()> {
        config.extra_names.clone_from(&self.apiserver_cert_extra_sans);
        config.limits.shutdown_delay = Duration::from_secs(self.shutdown_delay_duration);
        let (Some(policy), Some(log)) = (&self.audit_policy_file, &self.audit_log_path) else { return Ok(()) };
        config.audit = Some(AuditConfig {
            policy: AuditPolicy::read(policy)?,
            log_path: log.clone(),
            max_bytes: self.audit_log_maxsize * 1024 * 1024,
            max_backups: self.audit_log_maxbackup.into(),
        });
        Ok(())
    }
}
