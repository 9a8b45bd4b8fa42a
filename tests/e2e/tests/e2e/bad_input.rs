//! What a user gets wrong before anything runs: each is said with what, where and what to do, and nothing is left behind.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use podium_e2e::cluster::{self, Ended};

use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("bad_yaml_is_said_with_its_line", bad_yaml_is_said_with_its_line),
        trial("a_missing_file_is_said", a_missing_file_is_said),
        trial("a_taken_port_is_said", a_taken_port_is_said),
        trial("a_folder_of_another_version_is_refused", a_folder_of_another_version_is_refused),
        trial("wrong_usage_ends_with_2", wrong_usage_ends_with_2),
    ]
}

fn up(folder: &tempfile::TempDir, more: &[&str]) -> Result<Ended> {
    let data = folder.path().join("data");
    let data = data.to_string_lossy();
    let mut args = vec!["up", "--data-dir", &data];
    for flag in ["--api", "--http"] {
        if !more.contains(&flag) {
            args.extend([flag, "127.0.0.1:0"]);
        }
    }
    args.extend(more);
    cluster::run(&args)
}

fn check(ended: &Ended, words: &[&str]) -> Result<()> {
    ensure!(ended.status.code() == Some(1), "ended with {}: {}", ended.status, ended.stderr);
    for word in words {
        ensure!(ended.stderr.contains(word), "{word:?} is not in: {}", ended.stderr);
    }
    ensure!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    Ok(())
}

fn bad_yaml_is_said_with_its_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bad.yaml");
    std::fs::write(&file, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n   labels: {}\n")?;
    let ended = up(&folder, &["-f", &file.to_string_lossy()])?;
    check(&ended, &["bad.yaml", "line 5"])?;
    ensure!(!folder.path().join("data/store").exists(), "a store was made although nothing was to run");
    Ok(())
}

fn a_missing_file_is_said() -> Result<()> {
    let folder = tempfile::tempdir()?;
    check(&up(&folder, &["-f", "/no/such/file.yaml"])?, &["/no/such/file.yaml"])
}

fn a_taken_port_is_said() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let address = taken.local_addr()?.to_string();
    check(&up(&folder, &["--http", &address])?, &[&address, "in use", "--http"])?;
    check(&up(&folder, &["--api", &address])?, &[&address, "in use", "--api"])
}

fn a_folder_of_another_version_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir_all(folder.path().join("data"))?;
    std::fs::write(folder.path().join("data/version"), "999\n")?;
    check(&up(&folder, &[])?, &["999", "data"])
}

fn wrong_usage_ends_with_2() -> Result<()> {
    let ended = cluster::run(&["up", "--no-such-flag"])?;
    ensure!(ended.status.code() == Some(2), "ended with {}", ended.status);
    ensure!(ended.stderr.contains("--no-such-flag"), "{}", ended.stderr);
    Ok(())
}
