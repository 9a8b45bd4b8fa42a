//! Checks the workspace against its own rules; each failure lists every offender with what to do.

mod crates;
mod sources;

use cargo_metadata::{Metadata, MetadataCommand};

/// The workspace with all its dependencies, as locked.
fn metadata() -> Metadata {
    let command = MetadataCommand::new().other_options(vec!["--locked".to_owned()]).exec();
    command.expect("cargo metadata of this workspace, with an up-to-date Cargo.lock")
}

#[track_caller]
fn assert_none(offenders: &[String]) {
    assert!(offenders.is_empty(), "{} offenders:\n{}", offenders.len(), offenders.join("\n"));
}
