//! The image of one container: pulled as its policy says, told as events, given up when its pod is gone.

use std::time::Duration;

use k8s_openapi::{api::core::v1::Container as Spec, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::{
    super::{
        Shared,
        start::{Job, StartFailure, failure},
    },
    NotReady, PullNote, PullPolicy, Ready, Wanted, secrets,
};
use crate::{
    decide::{instances, local::FailureReason},
    images::ImageError,
};

/// How often a pull under way is asked whether its pod is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The image of a container, with the events and reasons that kubelet has for what may happen to it.
pub(crate) async fn pull(shared: &Shared, job: &Job, spec: &Spec) -> Result<Ready, StartFailure> {
    let name = spec.image.as_deref().unwrap_or_default();
    let keyring = secrets::keyring(shared, &job.id.key.namespace, &job.pod).await;
    let initialise = instances::initialise(job.pod.metadata.annotations.as_ref(), job.slot, &spec.name);
    let wanted = Wanted {
        initialise: &initialise,
        requester: &job.id.key.namespace,
        name,
        policy: PullPolicy::of(spec.image_pull_policy.as_deref(), name),
        command: spec.command.as_ref().and_then(|words| words.first()).map(String::as_str),
        keyring: &keyring,
    };
    let note = |warning, reason: &str, message: String| shared.note(&job.pod, Some(job.slot), warning, reason, message);
    let pulling = |what| note(false, "Pulling", pulling_words(name, what));
    let outcome = tokio::select! {
        outcome = shared.images.get(wanted, pulling) => outcome,
        () = unwanted(shared, job) => return Err(failure(FailureReason::ErrImagePull, "the pod is gone")),
    };
    let error = match outcome {
        Ok(ready) => {
            note(false, "Pulled", pulled_words(name, ready.pulled, ready.record.size_bytes));
            return Ok(ready);
        }
        Err(error) => error,
    };
    match error {
        NotReady::Source(ImageError::InvalidName(why)) => {
            let words = format!("Failed to apply default image tag {name:?}: {why}");
            note(true, "InspectFailed", words.clone());
            Err(failure(FailureReason::InvalidImageName, words))
        }
        NotReady::Source(ImageError::Pull(why)) => {
            note(true, "Failed", format!("Failed to pull image {name:?}: {why}"));
            Err(failure(FailureReason::ErrImagePull, why))
        }
        NotReady::Absent => {
            let words = format!("Container image {name:?} is not present with pull policy of Never");
            note(true, "ErrImageNeverPull", words.clone());
            Err(failure(FailureReason::ErrImageNeverPull, words))
        }
        NotReady::Command(why) => Err(failure(FailureReason::CreateContainerError, why)),
        NotReady::Load(why) => Err(failure(FailureReason::CreateContainerError, format!("image {name:?}: {why}"))),
    }
}

/// Ends when nobody wants the container any more, so that its pull need not go on for it.
async fn unwanted(shared: &Shared, job: &Job) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let pod = shared.pods.get(&job.id.key);
        let same = |meta: &ObjectMeta| meta.uid.as_deref() == Some(&*job.id.uid) && meta.deletion_timestamp.is_none();
        if !pod.is_some_and(|pod| same(pod.meta())) {
            return;
        }
    }
}

fn pulling_words(name: &str, what: PullNote) -> String {
    let mib = |bytes: u64| bytes >> 20;
    match what {
        PullNote::Begins => format!("Pulling image {name:?}"),
        PullNote::Goes(progress) if progress.waiting => format!("Pulling image {name:?}: waiting for other pulls"),
        PullNote::Goes(progress) => {
            format!("Pulling image {name:?}: {} of {} MiB", mib(progress.done_bytes), mib(progress.total_bytes))
        }
    }
}

fn pulled_words(name: &str, pulled: Option<Duration>, bytes: u64) -> String {
    match pulled {
        None => format!("Container image {name:?} already present on machine and can be accessed by the pod"),
        Some(took) => {
            let took = format!("{}ms", took.as_millis());
            format!(
                "Successfully pulled image {name:?} in {took} ({took} including waiting). Image size: {bytes} bytes."
            )
        }
    }
}
