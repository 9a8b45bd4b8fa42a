//! The pods of a Job, made from its template, and their names.
//!
//! A name follows from the Job's uid and from which names are taken or were. Whoever has not seen that a pod was made asks
//! for the same name again and is refused. Pods may be found by name before they are found by owner: then none is made until
//! they are.

use std::collections::HashSet;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_api::{Kind as _, ObjectKey};

use super::{
    FINALIZER, INDEX,
    manage::{FAILURES, IGNORED_FAILURES},
    sync::Sync,
};
use crate::owners::{controller_ref, is_controlled_by};

const ENV: &str = "JOB_COMPLETION_INDEX";
/// Names that the API makes up are no longer than 63 with their five letters at the end.
const PREFIX_MAX: usize = 58;
/// What such letters are taken from: nothing that makes words.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const LETTERS_COUNT: usize = 5;

/// So many pods that differ in nothing but their names.
pub(super) fn any_pods(sync: &Sync<'_>, count: usize) -> Vec<Pod> {
    let prefix = format!("{}-", job_name(sync.job));
    let pod = new_pod(sync.job, sync.spec, &prefix);
    let names = free_names(sync, &prefix);
    let named = |name: String| {
        let mut pod = pod.clone();
        pod.metadata.name = Some(name);
        pod
    };
    names.take(count).map(named).collect()
}

/// The pod of an index; `failures` of those before it, counted and ignored, when they are limited per index. `None`: there
/// is one that was not seen yet.
pub(super) fn indexed_pod(sync: &Sync<'_>, index: i32, failures: Option<(i32, i32)>) -> Option<Pod> {
    let job = sync.job;
    let end = format!("-{index}-");
    let mut prefix = job_name(job).to_owned();
    prefix.truncate(PREFIX_MAX - end.len());
    prefix.push_str(&end);
    let mut pod = new_pod(job, sync.spec, &prefix);
    pod.metadata.name = Some(free_names(sync, &prefix).next()?);
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if let Some((counted, ignored)) = failures {
        annotations.insert(FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED_FAILURES.to_owned(), ignored.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{}-{index}", job_name(job)));
        spec.init_containers.iter_mut().flatten().for_each(tell_index);
        spec.containers.iter_mut().for_each(tell_index);
    }
    Some(pod)
}

fn job_name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}

fn new_pod(job: &Job, spec: &JobSpec, prefix: &str) -> Pod {
    let given = spec.template.metadata.clone().unwrap_or_default();
    let mut finalizers = given.finalizers.unwrap_or_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let metadata = ObjectMeta {
        generate_name: Some(prefix.to_owned()),
        namespace: job.metadata.namespace.clone(),
        labels: given.labels,
        annotations: given.annotations,
        finalizers: Some(finalizers),
        owner_references: Some(vec![controller_ref(job)]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: spec.template.spec.clone(), status: None }
}

/// In the environment, unless the user has set it.
fn tell_index(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == ENV) {
        return;
    }
    let field_ref = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
    let value_from = Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() });
    env.push(EnvVar { name: ENV.to_owned(), value: None, value_from });
}

/// Names that no pod has or is known to have had, always in the same order; they end at a pod of this Job that was not found as such.
fn free_names<'s>(sync: &'s Sync<'_>, prefix: &str) -> impl Iterator<Item = String> + use<'s> {
    let meta = &sync.job.metadata;
    let (uid, namespace) = (meta.uid.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default());
    let mut end = prefix.len().min(PREFIX_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let prefix = prefix[..end].to_owned();
    let mut taken: HashSet<String> = sync.pods.iter().filter_map(|pod| pod.metadata.name.clone()).collect();
    let names = (0_u64..).map(move |i| format!("{prefix}{}", letters(uid, &prefix, i)));
    let names = names.filter(move |name| taken.insert(name.clone()));
    let other = move |name: &str| sync.view.get(&Pod::NAMES, &ObjectKey::new(namespace, name));
    let is_unseen = move |name: &String| other(name).is_some_and(|pod| is_controlled_by(pod.meta(), uid));
    // Whoever waits until a pod is gone must not be shown its successor.
    let was = move |name: &str| sync.view.freed(&Pod::NAMES, &ObjectKey::new(namespace, name)).is_some();
    names.take_while(move |name| !is_unseen(name)).filter(move |name| other(name).is_none() && !was(name))
}

/// Five letters from FNV-1a over uid, prefix and number.
fn letters(uid: &str, prefix: &str, number: u64) -> String {
    let bytes = uid.bytes().chain(prefix.bytes()).chain(number.to_le_bytes());
    let mut hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // The low bits of such a hash follow from the low bits of what went in.
    hash ^= hash >> 32;
    let mut letters = String::with_capacity(LETTERS_COUNT);
    for _ in 0..LETTERS_COUNT {
        let at = usize::try_from(hash % 27).unwrap_or(0);
        letters.push(char::from(LETTERS[at]));
        hash /= 27;
    }
    letters
}
