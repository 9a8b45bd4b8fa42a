//! Plans for finished Jobs.

use expect_test::{Expect, expect};
use podium_api::Kind as _;

use super::*;
use crate::job::fixture::world;

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(job: &str, expected: Expect) {
    expected.assert_eq(&world(job, "").plan(&TtlAfterFinished, &Job::NAMES, "pi"));
}

#[test]
fn deletes_when_the_time_is_up() {
    check("ttl=10 said=Complete since=10", expect!["delete job pi Foreground"]);
    check("ttl=10 said=Complete since=4", expect!["look again after 6s"]);
    check("ttl=0 said=Failed since=0", expect!["delete job pi Foreground"]);
    check("ttl=10 said=Failed since=11 going", expect![]);
    check("ttl=10 said=SuccessCriteriaMet since=11", expect![]);
    check("said=Complete since=1000", expect![]);
}
