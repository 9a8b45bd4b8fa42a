//! Balancing case by case: what is picked, passed over, begun slowly. Many requests over time are in `sim`.

use rand::{SeedableRng as _, rngs::StdRng};

use super::*;

fn endpoints(n: u16) -> Vec<Arc<Endpoint>> {
    (0..n).map(|i| Arc::new(Endpoint::new(([10, 0, 0, 1], 1000 + i).into(), false, Moment(0)))).collect()
}

fn pick(all: &[Arc<Endpoint>], tried: &[SocketAddr], now: Moment, rng: &mut StdRng) -> Option<u16> {
    let mut chooser = Chooser { slow_start: Duration::ZERO, now, rng };
    chooser.pick(all, tried).map(|endpoint| endpoint.address.port() - 1000)
}

fn seconds(n: u64) -> Moment {
    Moment(n * 1_000_000_000)
}

#[test]
fn a_peak_counts_at_once_and_fades_gradually() {
    let second = 1_000_000_000;
    assert_eq!(peak_ewma(1_000, 9_000, 1), 9_000);
    assert_eq!(peak_ewma(9_000, 1_000, 0), 9_000);
    let faded = peak_ewma(9_000, 1_000, 10 * second);
    assert!((3_900..4_000).contains(&faded), "{faded}");
    assert!(peak_ewma(9_000, 1_000, 1_000 * second) <= 1_001);
}

#[test]
fn the_less_loaded_is_picked() {
    let (all, mut rng) = (endpoints(2), StdRng::seed_from_u64(1));
    let _busy: Vec<_> = (0..5).map(|_| all[0].begin(Moment(0))).collect();
    for _ in 0..20 {
        assert_eq!(pick(&all, &[], Moment(0), &mut rng), Some(1));
    }
}

#[test]
fn what_was_tried_is_not_picked_again() {
    let (all, mut rng) = (endpoints(3), StdRng::seed_from_u64(2));
    let tried = [all[0].address, all[2].address];
    assert_eq!(pick(&all, &tried, Moment(0), &mut rng), Some(1));
    let every: Vec<_> = all.iter().map(|e| e.address).collect();
    assert_eq!(pick(&all, &every, Moment(0), &mut rng), None);
    assert_eq!(pick(&all[..1], &tried, Moment(0), &mut rng), None);
    assert_eq!(pick(&[], &[], Moment(0), &mut rng), None);
}

#[test]
fn idle_endpoints_share_evenly() {
    let (all, mut rng) = (endpoints(4), StdRng::seed_from_u64(3));
    let mut counts = [0u32; 4];
    for _ in 0..4_000 {
        counts[usize::from(pick(&all, &[], Moment(0), &mut rng).unwrap())] += 1;
    }
    assert!(counts.iter().all(|c| (700..1300).contains(c)), "{counts:?}");
}

#[test]
fn a_little_slower_is_as_good() {
    let (all, mut rng) = (endpoints(3), StdRng::seed_from_u64(5));
    for (endpoint, micros) in all.iter().zip([40, 300, 1_900]) {
        endpoint.latency_nanos.store(micros * 1_000, Ordering::Relaxed);
    }
    let mut counts = [0u32; 3];
    for _ in 0..3_000 {
        counts[usize::from(pick(&all, &[], Moment(0), &mut rng).unwrap())] += 1;
    }
    assert!(counts.iter().all(|c| (850..1150).contains(c)), "{counts:?}");
    all[2].latency_nanos.store(9_000_000, Ordering::Relaxed);
    assert!((0..200).all(|_| pick(&all, &[], Moment(0), &mut rng) != Some(2)), "much slower is not");
}

/// Fails once, and says whether that led to an ejection.
fn fail(all: &[Arc<Endpoint>], which: usize, now: Moment) -> bool {
    all[which].begin(now).end(Outcome::Failed, all, &Outliers::default(), now)
}

fn answer(all: &[Arc<Endpoint>], which: usize, now: Moment) {
    assert!(!all[which].begin(now).end(Outcome::Answered, all, &Outliers::default(), now));
}

#[test]
fn who_keeps_failing_is_passed_over_and_comes_back() {
    let (all, mut rng) = (endpoints(4), StdRng::seed_from_u64(4));
    let outliers = Outliers::default();
    let last = outliers.failures_max - 1;
    assert!((0..last).all(|_| !fail(&all, 0, seconds(0))));
    answer(&all, 0, seconds(0));
    assert!((0..last).all(|_| !fail(&all, 0, seconds(0))), "an answer between them begins anew");
    assert!(fail(&all, 0, seconds(0)));
    for _ in 0..200 {
        assert_ne!(pick(&all, &[], seconds(1), &mut rng), Some(0));
    }
    let back = seconds(0).after(outliers.ejection);
    assert!((0..400).any(|_| pick(&all, &[], back, &mut rng) == Some(0)));
    assert!(fail(&all, 0, back), "one more failure is enough");
    assert!(all[0].is_ejected(back.after(outliers.ejection)), "and the second time is longer");
    let again = back.after(outliers.ejection * 2);
    assert!(!all[0].is_ejected(again));
    let later = again.after(outliers.ejection);
    answer(&all, 0, later);
    assert!((0..last).all(|_| !fail(&all, 0, later)), "who has answered for long is as good as any");
    assert!(fail(&all, 0, later));
    assert!(!all[0].is_ejected(later.after(outliers.ejection)), "and is passed over for the first time again");
}

#[test]
fn not_too_many_are_passed_over() {
    let all = endpoints(4);
    let ejected: Vec<bool> = (0..4).map(|which| (0..9).any(|_| fail(&all, which, seconds(0)))).collect();
    assert_eq!(ejected, [true, true, false, false]);
    let one = endpoints(1);
    assert!((0..99).all(|_| !fail(&one, 0, seconds(0))), "the only one is never passed over");
    let off = Outliers { failures_max: 0, ..Outliers::default() };
    let all = endpoints(4);
    assert!((0..99).all(|_| !all[0].begin(Moment(0)).end(Outcome::Failed, &all, &off, Moment(0))));
}

#[test]
fn to_fail_fast_is_no_merit() {
    let all = endpoints(2);
    let cost = || all[0].latency_nanos.load(Ordering::Relaxed);
    let before = cost();
    fail(&all, 0, seconds(1));
    assert_eq!(cost(), before);
    answer(&all, 0, seconds(1));
    assert!(cost() < before);
}

#[test]
fn who_was_slow_and_has_nothing_to_do_is_asked_again_once() {
    let all = endpoints(2);
    all[0].latency_nanos.store(1_000_000_000, Ordering::Relaxed);
    let cheaper = |at: u64| all[0].cost(Duration::ZERO, seconds(at)) <= all[1].cost(Duration::ZERO, seconds(at));
    assert!(!cheaper(10));
    assert!(cheaper(100));
    let _probe = all[0].begin(seconds(100));
    assert!(!cheaper(100), "one at a time");
}

#[test]
fn who_joins_is_begun_slowly_where_that_is_asked_for() {
    let joined = Endpoint::new(([10, 0, 0, 1], 1).into(), true, seconds(10));
    let share = |slow: u64, at: u64| joined.share(Duration::from_secs(slow), seconds(at));
    assert!((share(0, 10) - 1.0).abs() < 1e-9);
    assert!((share(20, 10) - FIRST_SHARE).abs() < 1e-9);
    assert!((share(20, 20) - 0.5).abs() < 1e-9);
    assert!((share(20, 30) - 1.0).abs() < 1e-9);
    let first = Endpoint::new(([10, 0, 0, 1], 1).into(), false, seconds(10));
    assert!((first.share(Duration::from_secs(20), seconds(10)) - 1.0).abs() < 1e-9);
}
