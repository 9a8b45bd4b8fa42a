//! `podium debug`: what is left of containers that went wrong.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    Usage,
    connect::{Call, ConnectOptions, Pieces, escape},
    output::print,
};

/// Looks at what went wrong
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium debug core-dump web-5d9c > web.coredump   of an instance that trapped
  kubectl debug web-5d9c -it --image=podium.dev/tools --target=app -- sh
                                                  a shell beside a container that runs")]
pub(crate) struct DebugArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Action {
    CoreDump(CoreDumpArgs),
}

/// Fetches the core dump of an instance that trapped
///
/// Pods ask for core dumps with the annotation `podium.dev/core-dumps: "3"`, the number that is kept of each container.
/// They go when their pod goes. A dump has the memory of the instance, secrets included: whoever fetches it must be allowed
/// to get `pods/coredump`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium debug core-dump web-5d9c > web.coredump
  podium debug core-dump web-5d9c -c app --list
  podium debug core-dump web-5d9c --name 1763739331000-0.coredump -o web.coredump
  wasm-tools print web.coredump                    shows it: stack, globals, memory

Exit codes: 0 fetched or listed, 1 there is none or it cannot be had, 2 wrong command line")]
struct CoreDumpArgs {
    /// The pod
    pod: String,
    /// The container, if the pod has several
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    container: String,
    /// Which one, as the event `Trapped` names it [default: the newest]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    name: String,
    /// Lists those that there are, the newest first
    #[arg(long, conflicts_with_all = ["name", "output"])]
    list: bool,
    /// Where to write it instead of the standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// No such pod, container or dump; the node cannot be asked; the file cannot be written.
pub(crate) async fn run(args: DebugArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    match args.action {
        Action::CoreDump(args) => core_dump(args, connect).await,
    }
}

async fn core_dump(args: CoreDumpArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    if !args.list && args.output.is_none() && std::io::stdout().is_terminal() {
        bail!(Usage("a core dump is no text: name a file with -o, or send it somewhere else with >".to_owned()));
    }
    let connection = connect.connect().await?;
    let pod = args.pod.strip_prefix("pod/").unwrap_or(&args.pod);
    let path = format!("/api/v1/namespaces/{}/pods/{}/coredump", escape(&connection.namespace), escape(pod));
    let call = Call::get(path).accept("*/*").query("container", &args.container);
    if args.list {
        print(&table(&connection.json(call.query("list", "true")).await?))?;
        return Ok(ExitCode::SUCCESS);
    }
    // A file is made only when there is something to write.
    let stream = connection.stream(call.query("name", &args.name)).await?;
    match &args.output {
        None => write(stream, std::io::stdout().lock()).await?,
        Some(path) => {
            let said = || format!("cannot write {}", path.display());
            write(stream, create(path).with_context(said)?).await.with_context(said)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Nobody else is to read what was in a guest's memory.
fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

async fn write(mut stream: Pieces, mut out: impl Write) -> Result<()> {
    while let Some(bytes) = stream.next().await? {
        out.write_all(&bytes)?;
    }
    Ok(out.flush()?)
}

/// One line for each.
fn table(list: &Value) -> String {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut text = format!("{:<40}{}\n", "NAME", "BYTES");
    for item in items {
        text.push_str(&format!("{:<40}{}\n", item["name"].as_str().unwrap_or_default(), item["bytes"]));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dump_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = create(&dir.path().join("dump")).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn lists_have_a_line_for_each() {
        let list = json!({ "items": [{ "container": "a", "name": "2-0.coredump", "bytes": 12 }] });
        let text = table(&list);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [["NAME", "BYTES"], ["2-0.coredump", "12"]]);
    }
}
