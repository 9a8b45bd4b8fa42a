//! Plans of CronJobs. Now is 1970-01-12 13:46:40 UTC, a Monday.

use expect_test::{Expect, expect};
use podium_api::Kind as _;
use serde_json::{Value, json};

use super::*;
use crate::{
    job::fixture::job,
    test_support::{World, ago, show},
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
    check(
        json!({}),
        json!({}),
        &[],
        expect![[r#"
        create job tick-16666 {"annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"1970-01-12T13:46:00Z"},"spec":{}}; tell SuccessfulCreate: Created job …
        status cronjob tick {"lastScheduleTime":"1970-01-12T13:46:00Z"}
        look again after 20.1s"#]],
    );
    check(json!({"schedule": "0 * * * *"}), json!({}), &[], expect!["look again after 800.1s"]);
    check(
        json!({"schedule": "@every 45s"}),
        json!({}),
        &[],
        expect![[r#"
        create job tick-16666 {"annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"1970-01-12T13:46:40Z"},"spec":{}}; tell SuccessfulCreate: Created job …
        status cronjob tick {"lastScheduleTime":"1970-01-12T13:46:40Z"}
        look again after 45.1s"#]],
    );
    check(json!({"suspend": true}), json!({}), &[], expect![]);
    check(json!({}), json!({"lastScheduleTime": ago(40)}), &[], expect!["look again after 20.1s"]);
    // Nine in the morning in New York, where it is 8:46 now.
    check(
        json!({"schedule": "45 8 * * *", "timeZone": "America/New_York"}),
        json!({}),
        &[],
        expect!["look again after 86300.1s"],
    );
}

#[test]
fn says_what_is_wrong_with_its_schedule() {
    check(
        json!({"timeZone": "Mars/Olympus"}),
        json!({}),
        &[],
        expect![[r#"event Warning UnknownTimeZone: invalid timeZone: "Mars/Olympus": unknown time zone Mars/Olympus"#]],
    );
    check(
        json!({"schedule": "x * * * *"}),
        json!({}),
        &[],
        expect![[
            r#"event Warning UnparseableSchedule: unparseable schedule: "x * * * *" : failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax"#
        ]],
    );
    check(
        json!({"schedule": "0 0 31 2 *"}),
        json!({}),
        &[],
        expect![
            "event Warning InvalidSchedule: invalid schedule: 0 0 31 2 * : time difference between two schedules is less than 1 second"
        ],
    );
    check(
        json!({"schedule": "TZ=Europe/Berlin 0 0 * * *"}),
        json!({}),
        &[],
        expect![[r#"
        event Warning UnsupportedSchedule: CRON_TZ or TZ used in schedule "TZ=Europe/Berlin 0 0 * * *" is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details
        look again after 33200.1s"#]],
    );
}

#[test]
fn starts_the_last_of_many_that_were_missed() {
    check(
        json!({}),
        json!({"lastScheduleTime": ago(60 * 50)}),
        &[],
        expect![[r#"
        create job tick-16666 {"annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"1970-01-12T13:46:00Z"},"spec":{}}; tell SuccessfulCreate: Created job …
        status cronjob tick {"lastScheduleTime":"1970-01-12T13:46:00Z"}
        look again after 20.1s"#]],
    );
    check(
        json!({}),
        json!({"lastScheduleTime": ago(60 * 200)}),
        &[],
        expect![[r#"
        create job tick-16666 {"annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"1970-01-12T13:46:00Z"},"spec":{}}; tell SuccessfulCreate: Created job …
        status cronjob tick {"lastScheduleTime":"1970-01-12T13:46:00Z"}
        event Warning TooManyMissedTimes: too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew
        look again after 20.1s"#]],
    );
    check(
        json!({"startingDeadlineSeconds": 600}),
        json!({"lastScheduleTime": ago(60 * 200)}),
        &[],
        expect![[r#"
        create job tick-16666 {"annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"1970-01-12T13:46:00Z"},"spec":{}}; tell SuccessfulCreate: Created job …
        status cronjob tick {"lastScheduleTime":"1970-01-12T13:46:00Z"}
        look again after 20.1s"#]],
    );
    check(json!({"startingDeadlineSeconds": 30}), json!({}), &[], expect!["look again after 20.1s"]);
    check(
        json!({"schedule": "46 * * * *", "startingDeadlineSeconds": 30}),
        json!({}),
        &[],
        expect!["look again after 3560.1s"],
    );
}

#[test]
fn lets_jobs_overlap_or_not() {
    let (running, listed) = (owned("tick-16665", Some(100), ""), active("tick-16665"));
    for policy in ["Allow", "Forbid", "Replace"] {
        let plan = plan(cron(json!({"concurrencyPolicy": policy}), listed.clone()), std::slice::from_ref(&running));
        let expected = match policy {
            "Allow" => expect![[r#"
                create job tick-16666 {"annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"1970-01-12T13:46:00Z"},"spec":{}}; tell SuccessfulCreate: Created job …
                status cronjob tick {"active":[{"name":"tick-16665"}],"lastScheduleTime":"1970-01-12T13:46:00Z"}
                look again after 20.1s"#]],
            "Forbid" => expect![[r#"
                event Normal JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid
                look again after 20.1s"#]],
            _ => expect![[r#"
                delete job tick-16665 Background
                create job tick-16666 {"annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"1970-01-12T13:46:00Z"},"spec":{}}; tell SuccessfulCreate: Created job …
                status cronjob tick {"lastScheduleTime":"1970-01-12T13:46:00Z"}
                event Normal SuccessfulDelete: Deleted job tick-16665
                look again after 20.1s"#]],
        };
        expected.assert_eq(&plan);
    }
}

#[test]
fn lists_what_runs() {
    let late = json!({"lastScheduleTime": ago(100)});
    // Made, and then something failed before the status said so.
    check(
        json!({}),
        late.clone(),
        &[owned("tick-16666", Some(40), "")],
        expect![[r#"
        status cronjob tick {"active":[{"apiVersion":"batch/v1","kind":"Job","name":"tick-16666"}],"lastScheduleTime":"1970-01-12T13:46:00Z"}
        look again after 20.1s"#]],
    );
    check(
        json!({}),
        late,
        &[owned("tick-16666", Some(40), "said=Complete started=30")],
        expect![[r#"
        status cronjob tick {"lastScheduleTime":"1970-01-12T13:46:00Z"}
        look again after 20.1s"#]],
    );
    let now = json!({"lastScheduleTime": ago(40)});
    check(
        json!({}),
        now,
        &[owned("by-hand", None, "")],
        expect![[r#"
        event Warning UnexpectedJob: Saw a job that the controller did not create or forgot: by-hand
        look again after 20.1s"#]],
    );
    let mut listed = active("tick-16666");
    listed["lastScheduleTime"] = ago(40).into();
    let mut ended = owned("tick-16666", Some(40), "said=Complete started=30");
    ended["status"]["completionTime"] = ago(5).into();
    check(
        json!({}),
        listed.clone(),
        &[ended],
        expect![[r#"
        status cronjob tick {"lastScheduleTime":"1970-01-12T13:46:00Z","lastSuccessfulTime":"1970-01-12T13:46:35Z"}
        event Normal SawCompletedJob: Saw completed job: tick-16666, condition: Complete
        look again after 20.1s"#]],
    );
    check(
        json!({}),
        listed.clone(),
        &[owned("tick-16666", Some(40), "said=Failed started=30")],
        expect![[r#"
        status cronjob tick {"lastScheduleTime":"1970-01-12T13:46:00Z"}
        event Normal SawCompletedJob: Saw completed job: tick-16666, condition: Failed
        look again after 20.1s"#]],
    );
    check(
        json!({}),
        listed.clone(),
        &[],
        expect![[r#"
        status cronjob tick {"lastScheduleTime":"1970-01-12T13:46:00Z"}
        event Normal MissingJob: Active job went missing: tick-16666
        look again after 20.1s"#]],
    );
    let world = World::of("").plus::<CronJob>(cron(json!({}), listed)).at(6);
    expect!["look again after 1s"].assert_eq(&world.plan(&CronJobs, &CronJob::NAMES, "tick"));
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
    check(
        json!({}),
        json!({"lastScheduleTime": ago(40)}),
        &jobs,
        expect![[r#"
        delete job b Background
        delete job d Background
        delete job c Background
        event Normal SuccessfulDelete: Deleted job b
        event Normal SuccessfulDelete: Deleted job d
        event Normal SuccessfulDelete: Deleted job c
        look again after 20.1s"#]],
    );
}

#[test]
fn keeps_a_job_until_its_time_is_written() {
    let ended = owned("tick-16666", Some(40), "said=Complete started=30");
    let none = json!({"successfulJobsHistoryLimit": 0});
    check(
        none.clone(),
        json!({}),
        std::slice::from_ref(&ended),
        expect![[r#"
        status cronjob tick {"lastScheduleTime":"1970-01-12T13:46:00Z"}
        look again after 20.1s"#]],
    );
    check(
        none,
        json!({"lastScheduleTime": ago(40)}),
        &[ended],
        expect![[r#"
        delete job tick-16666 Background
        event Normal SuccessfulDelete: Deleted job tick-16666
        look again after 20.1s"#]],
    );
}

#[test]
fn says_when_jobs_are_refused() {
    let world = World::of("").plus::<CronJob>(cron(json!({}), active("gone")));
    let error = ApiError::forbidden(&Job::NAMES, "tick-1", "exceeded quota");
    let key = Key::new(&CronJob::NAMES, ObjectKey::new("d", "tick"));
    let now = Timestamp::from_second(crate::test_support::NOW).unwrap();
    expect![[r#"
        event Warning FailedCreate: Error creating job: jobs.batch "tick-1" is forbidden: exceeded quota
        status cronjob tick {}
        event Normal MissingJob: Active job went missing: gone"#]]
    .assert_eq(&show(&CronJobs.refused(&key, &error, &world, now)));
}
