//! `podium rollout`: follows, undoes, repeats and lists the changes of a workload's pods.
//!
//! What a status or history means is decided by the pure functions in [`mod@progress`] and [`history`]; this file only reads and
//! writes.

mod history;
mod progress;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use http::Method;
use jiff::Timestamp;
use podium_api::{ApiError, Reason};
use serde_json::{Value, json};
use tokio::time::Instant;

use self::{
    history::{Revision, revisions, table, target},
    progress::{Progress, progress},
};
use crate::{
    Usage,
    connect::{Call, ConnectOptions, Connection},
    output::{print, print_line},
    resources::{Resource, Resources, targets},
};

/// Follows and steers the rollout of a Deployment, DaemonSet or StatefulSet
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  podium rollout status deployment/web      wait until it is rolled out
  podium rollout history statefulset/db
  podium rollout undo deployment/web        back to the revision before
  podium rollout restart deployment/web     new pods of the same template")]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Action {
    /// Waits until the newest change is rolled out
    #[command(after_help = "Example:\n  podium rollout status deployment/web --timeout 60s")]
    Status(StatusArgs),
    /// Lists the revisions
    #[command(after_help = "Example:\n  podium rollout history deployment/web --revision 2")]
    History(RevisionArgs),
    /// Goes back to an earlier revision
    #[command(after_help = "Example:\n  podium rollout undo deployment/web --to-revision 2")]
    Undo(UndoArgs),
    /// Replaces all pods by new ones
    #[command(after_help = "Example:\n  podium rollout restart deployment/web")]
    Restart(TargetArgs),
    /// Lets changes of the template wait
    #[command(after_help = "Example:\n  podium rollout pause deployment/web")]
    Pause(TargetArgs),
    /// Rolls out what has waited
    #[command(after_help = "Example:\n  podium rollout resume deployment/web")]
    Resume(TargetArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct TargetArgs {
    /// TYPE/NAME, or TYPE NAME
    #[arg(required = true, value_name = "TYPE/NAME")]
    target: Vec<String>,
}

#[derive(Debug, Clone, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Wait until it is done
    #[arg(short, long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    watch: bool,
    /// How long to wait; 0s: for as long as it takes
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = crate::duration_seconds)]
    timeout: u64,
}

#[derive(Debug, Clone, clap::Args)]
struct RevisionArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Show the template of this revision
    #[arg(long, value_name = "NUMBER")]
    revision: Option<i64>,
}

#[derive(Debug, Clone, clap::Args)]
struct UndoArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// The revision to go back to; 0: the one before
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    to_revision: i64,
}

/// Runs the command.
///
/// # Errors
/// What the server says; a rollout that failed or took too long.
pub(crate) async fn run(args: RolloutArgs, connect: &ConnectOptions) -> Result<ExitCode> {
    let connection = connect.connect().await?;
    let resources = Resources::discover(&connection).await?;
    let target = match &args.action {
        Action::Status(args) => &args.target,
        Action::History(args) => &args.target,
        Action::Undo(args) => &args.target,
        Action::Restart(target) | Action::Pause(target) | Action::Resume(target) => target,
    };
    let rollout = Rollout::of(&connection, &resources, target)?;
    match &args.action {
        Action::Status(args) => rollout.status(args).await?,
        Action::History(args) => rollout.history(args.revision).await?,
        Action::Undo(args) => rollout.undo(args.to_revision).await?,
        Action::Restart(_) => rollout.restart().await?,
        Action::Pause(_) => rollout.pause(true).await?,
        Action::Resume(_) => rollout.pause(false).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What has rollouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workload {
    Deployment,
    DaemonSet,
    StatefulSet,
}

impl Workload {
    fn of_kind(kind: &str) -> Option<Self> {
        match kind {
            "Deployment" => Some(Self::Deployment),
            "DaemonSet" => Some(Self::DaemonSet),
            "StatefulSet" => Some(Self::StatefulSet),
            _ => None,
        }
    }

    /// As kubectl calls it in sentences.
    const fn noun(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::DaemonSet => "daemon set",
            Self::StatefulSet => "statefulset",
        }
    }

    /// The kind that keeps its revisions.
    const fn kept_as(self) -> &'static str {
        match self {
            Self::Deployment => "ReplicaSet",
            Self::DaemonSet | Self::StatefulSet => "ControllerRevision",
        }
    }
}

struct Rollout<'a> {
    connection: &'a Connection,
    resources: &'a Resources,
    resource: &'a Resource,
    workload: Workload,
    name: String,
}

impl<'a> Rollout<'a> {
    fn of(connection: &'a Connection, resources: &'a Resources, target: &TargetArgs) -> Result<Self> {
        let named = targets(&target.target)?;
        let [(kind, Some(name))] = named.as_slice() else {
            bail!(Usage("name one workload, for example deployment/web".to_owned()));
        };
        let resource = resources.one(kind)?;
        let Some(workload) = Workload::of_kind(&resource.kind) else {
            bail!("no rollouts of {}: only Deployments, DaemonSets and StatefulSets have them", resource.plural);
        };
        Ok(Self { connection, resources, resource, workload, name: name.clone() })
    }

    fn path(&self) -> String {
        self.resource.object(&self.connection.namespace, &self.name)
    }

    fn done(&self, what: &str) -> Result<()> {
        print_line(&format!("{} {what}", self.resource.display(&self.name)))?;
        Ok(())
    }

    async fn read(&self) -> Result<Value, ApiError> {
        self.connection.json(Call::get(self.path())).await
    }

    async fn patch(&self, media_type: &'static str, patch: &Value) -> Result<(), ApiError> {
        self.connection.json(Call::new(Method::PATCH, self.path()).body(media_type, patch)).await.map(drop)
    }

    /// Prints each step once, until it is done or failed.
    async fn status(&self, args: &StatusArgs) -> Result<()> {
        let wait = self.wait(args.watch);
        if args.timeout == 0 {
            return wait.await;
        }
        match tokio::time::timeout_at(Instant::now() + Duration::from_secs(args.timeout), wait).await {
            Ok(done) => done,
            Err(_) => bail!("{} {:?} is not rolled out after {} s", self.workload.noun(), self.name, args.timeout),
        }
    }

    async fn wait(&self, watch: bool) -> Result<()> {
        let mut said = String::new();
        loop {
            let object = self.read().await?;
            if self.tell(&object, &mut said)? || !watch {
                return Ok(());
            }
            if self.follow(&object, &mut said).await? {
                return Ok(());
            }
        }
    }

    /// Says what is new; whether the rollout is done.
    fn tell(&self, object: &Value, said: &mut String) -> Result<bool> {
        let (line, done) = match progress(self.workload, object) {
            Progress::Done(line) => (line, true),
            Progress::Waiting(line) => (line, false),
            Progress::Failed(why) => bail!(why),
        };
        if *said != line {
            print_line(&line)?;
            *said = line;
        }
        Ok(done)
    }

    /// Follows one watch to its end; whether the rollout was done in it.
    async fn follow(&self, object: &Value, said: &mut String) -> Result<bool> {
        let call = Call::get(self.resource.collection(Some(&self.connection.namespace)))
            .query("watch", true)
            .query("fieldSelector", format!("metadata.name={}", self.name))
            .query("resourceVersion", object["metadata"]["resourceVersion"].as_str().unwrap_or_default());
        let mut stream = match self.connection.stream(call).await {
            Err(error) if matches!(error.reason, Reason::Expired | Reason::Gone) => return Ok(false),
            other => other?,
        };
        while let Some(line) = stream.next_line().await? {
            let event: Value = serde_json::from_slice(&line)?;
            match event["type"].as_str().unwrap_or_default() {
                "ADDED" | "MODIFIED" if self.tell(&event["object"], said)? => return Ok(true),
                "DELETED" => bail!("{} {:?} was deleted", self.workload.noun(), self.name),
                "ERROR" => return Ok(false),
                _ => {}
            }
        }
        Ok(false)
    }

    /// The workload and its revisions, oldest first.
    async fn revisions(&self) -> Result<(Value, Vec<Revision>)> {
        let object = self.read().await?;
        let kept = self.resources.of_kind("apps/v1", self.workload.kept_as())?;
        let list = self.connection.json(Call::get(kept.collection(Some(&self.connection.namespace)))).await?;
        let revisions = revisions(self.workload, &object, &list);
        Ok((object, revisions))
    }

    async fn history(&self, revision: Option<i64>) -> Result<()> {
        let (_, revisions) = self.revisions().await?;
        let display = self.resource.display(&self.name);
        let Some(wanted) = revision else {
            print(&format!("{display} \n{}", table(&revisions)))?;
            return Ok(());
        };
        let found = revisions.iter().find(|revision| revision.number == wanted);
        let found = found.with_context(|| format!("unable to find the specified revision {wanted}"))?;
        let template = serde_yaml::to_string(&found.template(self.workload))?;
        print(&format!("{display} with revision #{wanted}\n{template}"))?;
        Ok(())
    }

    async fn undo(&self, to_revision: i64) -> Result<()> {
        let (object, revisions) = self.revisions().await?;
        if object["spec"]["paused"] == true {
            bail!(
                "you cannot roll back a paused deployment; resume it first with `podium rollout resume` and try again"
            );
        }
        let revision = target(&revisions, to_revision)?;
        let Some(patch) = revision.undo(self.workload, &object) else {
            let number = revision.number;
            return self.done(&format!("skipped rollback (current template already matches revision {number})"));
        };
        self.patch("application/json-patch+json", &patch).await?;
        self.done("rolled back")
    }

    async fn restart(&self) -> Result<()> {
        if self.read().await?["spec"]["paused"] == true {
            bail!("can't restart paused deployment (run rollout resume first)");
        }
        let now = Timestamp::from_second(Timestamp::now().as_second())?.to_string();
        let annotations = json!({ "kubectl.kubernetes.io/restartedAt": now });
        let patch = json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } });
        self.patch("application/merge-patch+json", &patch).await?;
        self.done("restarted")
    }

    async fn pause(&self, pause: bool) -> Result<()> {
        if self.workload != Workload::Deployment {
            let what = if pause { "pausing" } else { "resuming" };
            bail!("{}.{} {:?} {what} is not supported", self.resource.plural, self.resource.group, self.name);
        }
        let (state, already) = if pause { ("paused", "already paused") } else { ("resumed", "not paused") };
        if (self.read().await?["spec"]["paused"] == true) == pause {
            bail!("{} is {already}", self.resource.display(&self.name));
        }
        self.patch("application/merge-patch+json", &json!({ "spec": { "paused": pause } })).await?;
        self.done(state)
    }
}
