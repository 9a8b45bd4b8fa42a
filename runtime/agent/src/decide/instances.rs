//! What a pod's annotations say about its instances. What cannot be read says nothing, and the defaults hold.

use std::{collections::BTreeMap, path::PathBuf, str::FromStr, time::Duration};

use podium_sandbox::{CoreDumps, Initialise, Instances, Limits, Reuse};

use super::local::Slot;

/// Requests that one instance may answer; `0` or `1`: a fresh instance for each.
pub(crate) const REUSE: &str = "podium.dev/instance-reuse";
/// Requests that are in one instance of a 0.3 service at once.
pub(crate) const INSTANCE_CONCURRENCY: &str = "podium.dev/instance-concurrency";
/// Seconds that an instance waits for another request.
pub(crate) const INSTANCE_IDLE: &str = "podium.dev/instance-idle-seconds";
/// Seconds after which an instance takes no more requests.
pub(crate) const INSTANCE_AGE: &str = "podium.dev/instance-age-seconds";
/// Instances that may wait at once.
pub(crate) const INSTANCES_KEPT: &str = "podium.dev/instances-kept";
/// Requests that a container answers at once.
pub(crate) const CONCURRENCY: &str = "podium.dev/concurrency";
/// Requests that may wait; more are answered with 503.
pub(crate) const QUEUE: &str = "podium.dev/request-queue";
/// Seconds that a request may take.
pub(crate) const REQUEST_TIMEOUT: &str = "podium.dev/request-timeout-seconds";
/// The export that is called once, when an image is loaded; `off`: none. Of one container with its name behind a dot.
pub(crate) const INITIALIZE: &str = "podium.dev/initialize";
/// Core dumps kept of each container.
pub(crate) const CORE_DUMPS: &str = "podium.dev/core-dumps";

/// Most core dumps of a container, whatever is asked for.
const CORE_DUMPS_MAX: u32 = 20;
/// Largest core dump.
const CORE_DUMP_BYTES_MAX: u64 = 128 << 20;
/// Most requests at once, and most that wait, of a container.
const REQUESTS_MAX: u32 = 100_000;

type Annotations<'a> = Option<&'a BTreeMap<String, String>>;

fn read<T: FromStr>(annotations: Annotations<'_>, name: &str) -> Option<T> {
    annotations?.get(name)?.trim().parse().ok()
}

fn seconds(annotations: Annotations<'_>, name: &str) -> Option<Duration> {
    read(annotations, name).map(|seconds: u32| Duration::from_secs(seconds.into()))
}

/// Changes the limits as the pod asks.
pub(crate) fn apply(mut limits: Limits, annotations: Annotations<'_>) -> Limits {
    limits.reuse = reuse(annotations);
    let requests = |name| read(annotations, name).map(|n: u32| n.min(REQUESTS_MAX));
    limits.concurrency_max = requests(CONCURRENCY).filter(|n| *n > 0).unwrap_or(limits.concurrency_max);
    limits.queue_max = requests(QUEUE).unwrap_or(limits.queue_max);
    let timeout = seconds(annotations, REQUEST_TIMEOUT).filter(|time| !time.is_zero());
    limits.request_timeout = timeout.unwrap_or(limits.request_timeout);
    limits
}

/// As the interface means it, unless the pod says otherwise.
fn reuse(annotations: Annotations<'_>) -> Instances {
    let requests: Option<u32> = read(annotations, REUSE);
    let bounds = [INSTANCE_CONCURRENCY, INSTANCE_IDLE, INSTANCE_AGE, INSTANCES_KEPT];
    let bounded = bounds.iter().any(|name| annotations.is_some_and(|a| a.contains_key(*name)));
    let mut reuse = match requests {
        Some(0 | 1) => return Instances::PerRequest,
        Some(requests_max) => Reuse::requests(requests_max),
        None if bounded => Reuse::shared(),
        None => return Instances::ByKind,
    };
    let number = |name, otherwise| read(annotations, name).filter(|n: &u32| *n > 0).unwrap_or(otherwise);
    reuse.concurrency_max = number(INSTANCE_CONCURRENCY, reuse.concurrency_max);
    reuse.idle_instances_max = number(INSTANCES_KEPT, reuse.idle_instances_max);
    reuse.idle = seconds(annotations, INSTANCE_IDLE).unwrap_or(reuse.idle);
    reuse.age_max = seconds(annotations, INSTANCE_AGE).unwrap_or(reuse.age_max);
    Instances::Reused(reuse)
}

/// What of a container's image is called once, when it is loaded. What is said without a container's name holds for containers,
/// not for those that run before or beside them.
pub(crate) fn initialise(annotations: Annotations<'_>, slot: Slot, container: &str) -> Initialise {
    let find = |name: &str| annotations?.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let of_all = || find(INITIALIZE).filter(|_| matches!(slot, Slot::Main(_)));
    match find(&format!("{INITIALIZE}.{container}")).or_else(of_all) {
        None => Initialise::Usual,
        Some("off") => Initialise::Never,
        Some(export) => Initialise::Export(export.to_owned()),
    }
}

/// Core dumps, when the pod asks for some. `dir`: where those of the container go.
pub(crate) fn core_dumps(annotations: Annotations<'_>, dir: impl FnOnce() -> PathBuf) -> Option<CoreDumps> {
    let count: u32 = read(annotations, CORE_DUMPS)?;
    (count > 0).then(|| CoreDumps { dir: dir(), bytes_max: CORE_DUMP_BYTES_MAX, count_max: count.min(CORE_DUMPS_MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn instances_are_reused_when_asked_for() {
        let seconds = Duration::from_secs;
        for (pairs, expected) in [
            (vec![], Instances::ByKind),
            (vec![(REUSE, "1000")], Instances::Reused(Reuse::requests(1000))),
            (vec![(REUSE, "1")], Instances::PerRequest),
            (vec![(REUSE, "0"), (INSTANCE_IDLE, "5")], Instances::PerRequest),
            (vec![(REUSE, "yes")], Instances::ByKind),
            (vec![(REUSE, "-5")], Instances::ByKind),
            (
                vec![(REUSE, "9"), (INSTANCE_IDLE, "5"), (INSTANCE_AGE, "60"), (INSTANCES_KEPT, "2")],
                Instances::Reused(Reuse {
                    idle: seconds(5),
                    age_max: seconds(60),
                    idle_instances_max: 2,
                    ..Reuse::requests(9)
                }),
            ),
            (vec![(INSTANCE_CONCURRENCY, "100")], Instances::Reused(Reuse { concurrency_max: 100, ..Reuse::shared() })),
        ] {
            assert_eq!(reuse(Some(&annotations(&pairs))), expected, "{pairs:?}");
        }
        assert_eq!(reuse(None), Instances::ByKind);
    }

    #[test]
    fn limits_of_requests() {
        let told = |pairs: &[(&str, &str)]| {
            let limits = apply(Limits::default(), Some(&annotations(pairs)));
            (limits.concurrency_max, limits.queue_max, limits.request_timeout.as_secs())
        };
        let Limits { concurrency_max, queue_max, request_timeout, .. } = Limits::default();
        let default = (concurrency_max, queue_max, request_timeout.as_secs());
        assert_eq!(told(&[]), default);
        assert_eq!(told(&[(CONCURRENCY, "8"), (QUEUE, "0"), (REQUEST_TIMEOUT, "30")]), (8, 0, 30));
        assert_eq!(told(&[(CONCURRENCY, "0"), (QUEUE, "many"), (REQUEST_TIMEOUT, "0")]), default);
        assert_eq!(told(&[(CONCURRENCY, "4000000000")]).0, REQUESTS_MAX);
    }

    #[test]
    fn what_is_called_when_an_image_is_loaded() {
        let export = |name: &str| Initialise::Export(name.to_owned());
        let (of_all, of_app) = ("podium.dev/initialize", "podium.dev/initialize.app");
        for (pairs, slot, expected) in [
            (vec![], Slot::Main(0), Initialise::Usual),
            (vec![(of_all, "begin")], Slot::Main(0), export("begin")),
            (vec![(of_all, "begin")], Slot::Init(0), Initialise::Usual),
            (vec![(of_all, "begin")], Slot::Ephemeral(0), Initialise::Usual),
            (vec![(of_all, "begin"), (of_app, "off")], Slot::Main(0), Initialise::Never),
            (vec![(of_app, "x"), (of_all, "y")], Slot::Init(0), export("x")),
            (vec![("podium.dev/initialize.other", "x")], Slot::Main(0), Initialise::Usual),
            (vec![(of_all, " ")], Slot::Main(0), Initialise::Usual),
        ] {
            assert_eq!(initialise(Some(&annotations(&pairs)), slot, "app"), expected, "{pairs:?} {slot:?}");
        }
    }

    #[test]
    fn core_dumps_on_request() {
        let told = |value: &str| {
            core_dumps(Some(&annotations(&[(CORE_DUMPS, value)])), || "/d".into()).map(|dumps| dumps.count_max)
        };
        assert_eq!((told("3"), told("0"), told("x"), told("5000")), (Some(3), None, None, Some(CORE_DUMPS_MAX)));
    }
}
