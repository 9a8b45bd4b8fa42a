//! The client commands, one file each. All of them work against any Kubernetes API.

pub(crate) mod apply;
pub(crate) mod cluster_info;
pub(crate) mod completion;
pub(crate) mod debug;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod get;
pub(crate) mod logs;
pub(crate) mod push;
pub(crate) mod rollout;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod token;
pub(crate) mod version;

/// Prints what went wrong with one of several objects, so that the others go on.
pub(crate) fn report(error: &anyhow::Error) {
    eprintln!("Error: {error:#}");
}
