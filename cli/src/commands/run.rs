//! `podium run`: one pod of one image.

use std::process::ExitCode;

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Map, Value, json};

use super::logs;
use crate::{
    Usage,
    connect::{Call, ConnectOptions, JSON, escape},
    output::{Format, object_text, print, print_line},
};

/// Starts a pod of an image
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium run hello --image file:///srv/hello.wasm --port 8080
  podium run job --image file:///srv/job.wasm --restart Never --env LEVEL=debug -- --input x
  podium run hello --image file:///srv/hello.wasm --dry-run -o yaml > pod.yaml")]
pub(crate) struct RunArgs {
    /// Name of the pod
    name: String,
    /// The image
    #[arg(long, value_name = "IMAGE")]
    image: String,
    /// Environment variable. Repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Labels; without it run=NAME
    #[arg(short, long, value_name = "KEY=VALUE,…")]
    labels: Option<String>,
    /// Port that the container serves
    #[arg(long)]
    port: Option<u16>,
    /// Whether it is started again when it ends
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    restart: Restart,
    /// Limits, for example cpu=250m,memory=64Mi
    #[arg(long, value_name = "KEY=VALUE,…")]
    limits: Option<String>,
    /// The words after -- are the command, not its arguments
    #[arg(long)]
    command: bool,
    /// Only print the object
    #[arg(long)]
    dry_run: bool,
    /// Format of the printed object
    #[arg(short, long, value_enum, default_value_t = Format::Yaml, requires = "dry_run")]
    output: Format,
    /// Arguments of the container
    #[arg(last = true)]
    args: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Restart {
    #[default]
    #[value(name = "Always")]
    Always,
    #[value(name = "OnFailure")]
    OnFailure,
    #[value(name = "Never")]
    Never,
}

/// Runs the command.
///
/// # Errors
/// What the server says.
pub(crate) async fn run(args: RunArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    let pod = pod(&args)?;
    if args.dry_run {
        print(&object_text(&pod, args.output)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let connection = connect.connect().await?;
    let path = format!("/api/v1/namespaces/{}/pods", escape(&connection.namespace));
    connection.json(Call::new(Method::POST, path).query("fieldValidation", "Strict").body(JSON, &pod)).await?;
    print_line(&format!("pod/{} created", args.name))?;
    logs::hint(&args.name)?;
    Ok(ExitCode::SUCCESS)
}

fn pod(args: &RunArgs) -> Result<Value> {
    let labels = args.labels.clone().unwrap_or_else(|| format!("run={}", args.name));
    let mut container = json!({ "name": args.name, "image": args.image });
    if !args.env.is_empty() {
        let variable = |text: &String| pair(text).map(|(k, v)| json!({ "name": k, "value": v }));
        container["env"] = args.env.iter().map(variable).collect::<Result<Value>>()?;
    }
    if let Some(port) = args.port {
        container["ports"] = json!([{ "containerPort": port }]);
    }
    if let Some(limits) = &args.limits {
        container["resources"] = json!({ "limits": pairs(limits)? });
    }
    if !args.args.is_empty() {
        container[if args.command { "command" } else { "args" }] = json!(args.args);
    }
    let restart = match args.restart {
        Restart::Always => "Always",
        Restart::OnFailure => "OnFailure",
        Restart::Never => "Never",
    };
    Ok(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": args.name, "labels": pairs(&labels)? },
        "spec": { "containers": [container], "restartPolicy": restart },
    }))
}

fn pair(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => bail!(Usage(format!("{text:?} is not of the form KEY=VALUE"))),
    }
}

fn pairs(text: &str) -> Result<Map<String, Value>> {
    text.split(',').filter(|p| !p.is_empty()).map(|p| pair(p).map(|(k, v)| (k, Value::from(v)))).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    #[test]
    fn pods_as_asked_for() {
        let of = |line: &str| pod(&Line::try_parse_from(line.split_whitespace()).unwrap().run);
        let plain = of("run web --image x").unwrap();
        assert_eq!(plain["metadata"]["labels"], json!({"run": "web"}));
        assert_eq!(plain["spec"], json!({"containers": [{"name": "web", "image": "x"}], "restartPolicy": "Always"}));
        let full = of("run j --image x --env A=1 --env B= --port 80 --labels a=b,c=d --restart onfailure --limits cpu=1,memory=2Mi -- -v x").unwrap();
        assert_eq!(full["spec"]["restartPolicy"], "OnFailure");
        assert_eq!(
            full["spec"]["containers"][0],
            json!({
                "name": "j", "image": "x", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}],
                "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1", "memory": "2Mi"}}, "args": ["-v", "x"],
            })
        );
        assert!(of("run j --image x --env A").is_err());
        assert_eq!(of("run j --image x --command -- sh").unwrap()["spec"]["containers"][0]["command"], json!(["sh"]));
    }
}
