//! Transcripts: files of commands and what they print, run anew and compared.
//!
//! A line that begins with `$ ` is a command for bash; what follows up to the next is its output, with everything that
//! differs from run to run (ages, hashes, addresses, ports, times) replaced by a word, and runs of spaces by one. A command that does
//! not end with 0 has `[exit N]` after its output. Lines that begin with `#` are comments.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use regex::Regex;

use crate::cluster::Cluster;

/// Runs a transcript's commands in a cluster; answers with the transcript as it came out this time.
///
/// # Errors
/// A command cannot be started.
pub fn replay(script: &str, cluster: &Cluster, podium: &Path) -> Result<String> {
    let normal = Normal::new()?;
    let mut out = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            out.push_str(line);
            out.push('\n');
            out.push_str(&normal.apply(&run(command, cluster, podium)?));
        } else if line.starts_with('#') {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(line);
            out.push('\n');
        }
    }
    Ok(out)
}

fn run(command: &str, cluster: &Cluster, podium: &Path) -> Result<String> {
    let bin = podium.parent().context("the binary lies in a folder")?;
    let search = std::env::var_os("PATH").unwrap_or_default();
    let mut path = bin.as_os_str().to_owned();
    path.push(":");
    path.push(&search);
    let output = Command::new("bash")
        .args(["-c", &format!("exec 2>&1; {command}")])
        .current_dir(&cluster.work_dir)
        .env("PATH", path)
        .env("HOME", cluster.folder())
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("URL", &cluster.podium.url)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {command}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if !output.status.success() {
        let code = output.status.code().map_or("signal".to_owned(), |c| c.to_string());
        text.push_str(&format!("[exit {code}]\n"));
    }
    Ok(text)
}

/// Replaces what differs from run to run.
struct Normal(Vec<(Regex, &'static str)>);

impl Normal {
    fn new() -> Result<Self> {
        let rules = [
            (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UID"),
            (r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
            (r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", "TIME"),
            (r"sha256:[0-9a-f]{12,64}", "sha256:DIGEST"),
            (r"\b127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
            (r"\b10\.\d+\.\d+\.\d+\b", "IP"),
            // Pods of a Deployment, its ReplicaSets, then the bare hash.
            (r"-[bcdf0-9][bcdfghjklmnpqrstvwxz0-9]{5,9}-[bcdfghjklmnpqrstvwxz2456789]{5}\b", "-HASH-POD"),
            (r"(pod-template-hash=)[bcdfghjklmnpqrstvwxz0-9]{6,10}\b", "${1}HASH"),
            (
                r"(replicaset(?:\.apps)?/[a-z]+|[Rr]eplica set [a-z]+|ReplicaSets?: +[a-z]+|\b(?:hello|web))-[bcdfghjklmnpqrstvwxz0-9]{6,10}\b",
                "${1}-HASH",
            ),
            (r"\b(\d+d)?(\d+h)?(\d+m)?\d+(\.\d+)?(ms|µs|us|s)\b", "AGE"),
            // What newer kubectls add.
            (r" deleted from [a-z0-9-]+ namespace", " deleted"),
            (r"(?m)[ \t]+", " "),
            (r"(?m) +$", ""),
        ];
        let compiled = rules.into_iter().map(|(from, to)| Ok((Regex::new(from)?, to)));
        Ok(Self(compiled.collect::<Result<_>>()?))
    }

    fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (from, to)| from.replace_all(&text, *to).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_replaced() {
        let normal = Normal::new().unwrap();
        for (text, expected) in [
            ("hello-6d8f7c9b5d-x2x9p   1/1  Running 0   12s", "hello-HASH-POD 1/1 Running 0 AGE"),
            ("Scaled up replica set web-7c5ddbdf54 from 0 to 3", "Scaled up replica set web-HASH from 0 to 3"),
            ("hello ClusterIP 10.96.12.7 <none> 80/TCP 3m10s", "hello ClusterIP IP <none> 80/TCP AGE"),
            ("at 2026-11-21T02:20:19Z on 127.0.0.1:34567", "at TIME on 127.0.0.1:PORT"),
            ("deployment.apps/hello scaled", "deployment.apps/hello scaled"),
        ] {
            assert_eq!(normal.apply(text), expected);
        }
    }
}
