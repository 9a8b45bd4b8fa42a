//! The pods of a Job, made from its template, and their names.
//!
//! A name follows from the Job's uid and from which names are taken. Whoever has not seen that a pod was made asks for the
//! same name again and is refused.

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
};
use crate::{View, owners::controller_ref};

const ENV: &str = "JOB_COMPLETION_INDEX";
/// Names that the API makes up are no longer than 63 with their five letters at the end.
const PREFIX_MAX: usize = 58;
/// What such letters are taken from: nothing that makes words.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const LETTERS_COUNT: usize = 5;

/// So many pods that differ in nothing but their names.
pub(super) fn any_pods(job: &Job, spec: &JobSpec, count: usize, view: &dyn View) -> Vec<Pod> {
    let prefix = format!("{}-", job_name(job));
    let pod = new_pod(job, spec, &prefix);
    let mut names = free_names(job, &prefix, view);
    let named = |name: String| {
        let mut pod = pod.clone();
        pod.metadata.name = Some(name);
        pod
    };
    names.by_ref().take(count).map(named).collect()
}

/// The pod of an index; `failures` of those before it, counted and ignored, when they are limited per index.
pub(super) fn indexed_pod(job: &Job, spec: &JobSpec, index: i32, failures: Option<(i32, i32)>, view: &dyn View) -> Pod {
    let end = format!("-{index}-");
    let mut prefix = job_name(job).to_owned();
    prefix.truncate(PREFIX_MAX - end.len());
    prefix.push_str(&end);
    let mut pod = new_pod(job, spec, &prefix);
    pod.metadata.name = free_names(job, &prefix, view).next();
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
    pod
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

/// Names that no pod has, always in the same order.
fn free_names<'v>(job: &'v Job, prefix: &str, view: &'v dyn View) -> impl Iterator<Item = String> + use<'v> {
    let (uid, namespace) = (job.metadata.uid.as_deref().unwrap_or_default(), job.metadata.namespace.as_deref());
    let namespace = namespace.unwrap_or_default();
    let mut end = prefix.len().min(PREFIX_MAX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let prefix = prefix[..end].to_owned();
    let mut given = std::collections::BTreeSet::new();
    let names = (0_u64..).map(move |i| format!("{prefix}{}", letters(uid, &prefix, i)));
    names.filter(move |name| {
        let taken = view.get(&Pod::NAMES, &ObjectKey::new(namespace, name.as_str())).is_some();
        !taken && given.insert(name.clone())
    })
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
