//! Plans of CronJobs. Now is 1970-01-12 13:46:40 UTC, a Monday.

use expect_test::{Expect, expect};
use podium_api::Kind as _;
use serde_json::{Value, json};

use super::*;
use crate::{
    job::fixture::{ago, job},
    test_support::{World, show},
};

/// A CronJob `tick`, made 90 s ago: the minute 13:46 has passed since.
fn cron(spec: Value, status: Value) -> Value {
    let mut cron = json!({
        "metadata": {
            "name": "tick", "namespace": "d", "uid": "cron/tick", "resourceVersion": "7", "creationTimestamp": ago(90),
        },
        "spec": {
            "schedule": "* * * * *", "concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}},
            },
        },
        "status": status,
    });
    for (field, value) in spec.as_object().unwrap() {
        cron["spec"][field] = value.clone();
    }
    cron
}

/// A Job of `tick`; `at` is the time it is of, so many seconds ago.
fn owned(name: &str, at: Option<i64>, words: &str) -> Value {
    let mut job = job(name, words);
    job["metadata"]["ownerReferences"] = json!([
        {"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": "cron/tick", "controller": true},
    ]);
    if let Some(at) = at {
        job["metadata"]["annotations"][SCHEDULED] = ago(at).into();
    }
    job
}

fn active(name: &str) -> Value {
    json!({"active": [{"name": name, "namespace": "d", "uid": format!("job/{name}")}]})
}

fn plan(cron: Value, jobs: &[Value]) -> String {
    let world = World::of("").plus::<CronJob>(cron);
    let world = jobs.iter().fold(world, |world, job| world.plus::<Job>(job.clone()));
    world.plan(&CronJobs, &CronJob::NAMES, "tick")
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(spec: Value, status: Value, jobs: &[Value], expected: Expect) {
    expected.assert_eq(&plan(cron(spec, status), jobs));
}

#[test]
fn starts_what_is_due() {
    check(json!({}), json!({}), &[], expect![]);
    check(json!({"schedule": "0 * * * *"}), json!({}), &[], expect![]);
    check(json!({"schedule": "@every 45s"}), json!({}), &[], expect![]);
    check(json!({"suspend": true}), json!({}), &[], expect![]);
    check(json!({}), json!({"lastScheduleTime": ago(40)}), &[], expect![]);
    // Nine in the morning in New York, where it is 8:46 now.
    check(json!({"schedule": "45 8 * * *", "timeZone": "America/New_York"}), json!({}), &[], expect![]);
}

#[test]
fn says_what_is_wrong_with_its_schedule() {
    check(json!({"timeZone": "Mars/Olympus"}), json!({}), &[], expect![]);
    check(json!({"schedule": "x * * * *"}), json!({}), &[], expect![]);
    check(json!({"schedule": "0 0 31 2 *"}), json!({}), &[], expect![]);
    check(json!({"schedule": "TZ=Europe/Berlin 0 0 * * *"}), json!({}), &[], expect![]);
}

#[test]
fn starts_the_last_of_many_that_were_missed() {
    check(json!({}), json!({"lastScheduleTime": ago(60 * 50)}), &[], expect![]);
    check(json!({}), json!({"lastScheduleTime": ago(60 * 200)}), &[], expect![]);
    check(json!({"startingDeadlineSeconds": 600}), json!({"lastScheduleTime": ago(60 * 200)}), &[], expect![]);
    check(json!({"startingDeadlineSeconds": 30}), json!({}), &[], expect![]);
    check(json!({"schedule": "46 * * * *", "startingDeadlineSeconds": 30}), json!({}), &[], expect![]);
}

#[test]
fn lets_jobs_overlap_or_not() {
    let (running, listed) = (owned("tick-16665", Some(100), ""), active("tick-16665"));
    for policy in ["Allow", "Forbid", "Replace"] {
        let plan = plan(cron(json!({"concurrencyPolicy": policy}), listed.clone()), std::slice::from_ref(&running));
        let expected = match policy {
            "Allow" => expect![],
            "Forbid" => expect![],
            _ => expect![],
        };
        expected.assert_eq(&plan);
    }
}

#[test]
fn lists_what_runs() {
    let late = json!({"lastScheduleTime": ago(100)});
    // Made, and then something failed before the status said so.
    check(json!({}), late.clone(), &[owned("tick-16666", Some(40), "")], expect![]);
    check(json!({}), late, &[owned("tick-16666", Some(40), "said=Complete started=30")], expect![]);
    let now = json!({"lastScheduleTime": ago(40)});
    check(json!({}), now.clone(), &[owned("by-hand", None, "")], expect![]);
    let mut listed = active("tick-16666");
    listed["lastScheduleTime"] = ago(40).into();
    let mut ended = owned("tick-16666", Some(40), "said=Complete started=30");
    ended["status"]["completionTime"] = ago(5).into();
    check(json!({}), listed.clone(), &[ended], expect![]);
    check(json!({}), listed.clone(), &[owned("tick-16666", Some(40), "said=Failed started=30")], expect![]);
    check(json!({}), listed.clone(), &[], expect![]);
    let world = World::of("").plus::<CronJob>(cron(json!({}), listed)).at(6);
    expect![].assert_eq(&world.plan(&CronJobs, &CronJob::NAMES, "tick"));
}

#[test]
fn keeps_a_history() {
    let ended = |name: &str, said: &str, started: i64| owned(name, None, &format!("said={said} started={started}"));
    let jobs = [
        ended("a", "Complete", 30),
        ended("b", "Complete", 50),
        ended("c", "Failed", 20),
        ended("d", "Complete", 40),
        ended("e", "Failed", 10),
    ];
    check(json!({}), json!({"lastScheduleTime": ago(40)}), &jobs, expect![]);
}

#[test]
fn says_when_jobs_are_refused() {
    let world = World::of("").plus::<CronJob>(cron(json!({}), active("gone")));
    let error = ApiError::forbidden(&Job::NAMES, "tick-1", "exceeded quota");
    let key = Key::new(&CronJob::NAMES, ObjectKey::new("d", "tick"));
    let now = Timestamp::from_second(crate::test_support::NOW).unwrap();
    expect![].assert_eq(&show(&CronJobs.refused(&key, &error, &world, now)));
}
