//! How many seats each priority level has: by its shares, and, as levels lend and borrow, by what was asked of it. Pure.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go` (`updateBorrowingLocked`),
//! `conc_alloc.go` and `fairqueuing/integrator.go`.

use k8s_openapi::api::flowcontrol::v1::PriorityLevelConfigurationSpec;

/// What shares of a level without any are.
const SHARES: i32 = 30;
/// How slowly a demand that was high is forgotten: to one half in five minutes.
const SMOOTHING: f64 = 0.977;
/// A smaller target is taken for this.
const TARGET_MIN: f64 = 0.001;

/// What the seats of a level may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bounds {
    pub(super) nominal: usize,
    /// Without what it lends.
    pub(super) min: usize,
    /// With what it may borrow.
    pub(super) max: usize,
}

impl Bounds {
    /// A level's part of `total`, when all shares add up to `sum`.
    pub(super) fn of(spec: &PriorityLevelConfigurationSpec, total: usize, sum: usize) -> Self {
        let (lendable, borrowing) = match (&spec.limited, &spec.exempt) {
            (Some(limited), _) => (limited.lendable_percent, limited.borrowing_limit_percent),
            (None, Some(exempt)) => (exempt.lendable_percent, None),
            (None, None) => (None, None),
        };
        let nominal = (total * shares(spec)).div_ceil(sum.max(1));
        let percent = |of: i32| (nominal * usize::try_from(of).unwrap_or(0) + 50) / 100;
        let lent = lendable.map_or(0, percent).min(nominal);
        Self { nominal, min: nominal - lent, max: nominal + borrowing.map_or(total, percent) }
    }

    /// What a level begins with.
    pub(super) fn initial(self) -> usize {
        self.nominal - (self.nominal - self.min) / 2
    }
}

/// The shares of a level.
pub(super) fn shares(spec: &PriorityLevelConfigurationSpec) -> usize {
    let shares = match (&spec.limited, &spec.exempt) {
        (Some(limited), _) => limited.nominal_concurrency_shares.unwrap_or(SHARES),
        (None, Some(exempt)) => exempt.nominal_concurrency_shares.unwrap_or(0),
        (None, None) => 0,
    };
    usize::try_from(shares).unwrap_or(0)
}

/// How many seats were wanted over some time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Demand {
    seconds: f64,
    area: f64,
    squares: f64,
    highest: usize,
}

impl Demand {
    pub(super) fn starting_at(wanted: usize) -> Self {
        Self { highest: wanted, ..Self::default() }
    }

    pub(super) fn note(&mut self, wanted: usize) {
        self.highest = self.highest.max(wanted);
    }

    pub(super) fn pass(&mut self, wanted: usize, seconds: f64) {
        let wanted = wanted as f64;
        self.seconds += seconds;
        self.area += wanted * seconds;
        self.squares += wanted * wanted * seconds;
    }

    pub(super) fn average(&self) -> f64 {
        if self.seconds > 0.0 { self.area / self.seconds } else { 0.0 }
    }

    pub(super) fn deviation(&self) -> f64 {
        let average = self.average();
        if self.seconds > 0.0 { (self.squares / self.seconds - average * average).max(0.0).sqrt() } else { 0.0 }
    }

    pub(super) fn highest(&self) -> usize {
        self.highest
    }

    /// What is expected, from what was expected before.
    pub(super) fn smoothed(&self, before: f64) -> f64 {
        if self.seconds <= 0.0 {
            return before;
        }
        let envelope = self.average() + self.deviation();
        envelope.max(SMOOTHING * before + (1.0 - SMOOTHING) * envelope)
    }
}

/// A level whose seats are to be found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) bounds: Bounds,
    /// The most that was wanted since the last time.
    pub(super) highest: usize,
    /// What is expected.
    pub(super) smoothed: f64,
    pub(super) exempt: bool,
}

impl Claim {
    /// What it keeps in any case: what it used, as far as that is its own.
    fn floor(&self) -> usize {
        match self.exempt {
            true => self.bounds.min.max(self.highest),
            false => self.bounds.min.max(self.bounds.nominal.min(self.highest)),
        }
    }
}

/// The seats of each level now. Those of exempt ones are no limit: they are what others cannot have.
pub(super) fn divide(claims: &[Claim]) -> Vec<usize> {
    let sum = |what: &dyn Fn(&Claim) -> usize| -> usize { claims.iter().filter(|c| !c.exempt).map(what).sum() };
    let nominal: usize = claims.iter().map(|c| c.bounds.nominal).sum();
    let exempt: usize = claims.iter().filter(|c| c.exempt).map(Claim::floor).sum();
    let left = nominal.saturating_sub(exempt);
    let (lowest, used) = (sum(&|c| c.bounds.min), sum(&Claim::floor));
    let part = |claim: &Claim| -> f64 {
        let (min, floor) = (claim.bounds.min as f64, claim.floor() as f64);
        if left <= lowest {
            return min;
        }
        min + (floor - min) * (left - lowest) as f64 / (used - lowest) as f64
    };
    let proportion = if left > used { Some(fair_proportion(claims, nominal)) } else { None };
    let seats = |claim: &Claim| match proportion {
        _ if claim.exempt => claim.floor(),
        Some(proportion) => whole(granted(claim, proportion)),
        None => whole(part(claim)),
    };
    claims.iter().map(seats).collect()
}

fn granted(claim: &Claim, proportion: f64) -> f64 {
    let floor = claim.floor() as f64;
    let target = claim.smoothed.max(floor).max(TARGET_MIN);
    (target * proportion).clamp(floor, (claim.bounds.max as f64).max(floor))
}

/// That part of their targets that, within their bounds, gives the levels all seats.
fn fair_proportion(claims: &[Claim], seats: usize) -> f64 {
    let all =
        |proportion: f64| -> f64 { claims.iter().filter(|c| !c.exempt).map(|claim| granted(claim, proportion)).sum() };
    let (mut low, mut high) = (0.0, (seats as f64 + 1.0) / TARGET_MIN);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if all(middle) < seats as f64 { low = middle } else { high = middle }
    }
    high
}

/// At least one seat, so that nothing waits for ever.
fn whole(seats: f64) -> usize {
    // Bounded by the sum of all seats, which is a usize.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let seats = seats.round() as usize;
    seats.max(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(nominal: usize, min: usize, max: usize, wanted: usize) -> Claim {
        let bounds = Bounds { nominal, min, max };
        Claim { bounds, highest: wanted, smoothed: wanted as f64, exempt: false }
    }

    #[test]
    fn shares_become_seats() {
        let spec = |value| serde_json::from_value::<PriorityLevelConfigurationSpec>(value).unwrap();
        for (value, wanted) in [
            (
                json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 30, "lendablePercent": 33}}),
                (74, 50, 674),
            ),
            (json!({"type": "Limited", "limited": {"lendablePercent": 0}}), (74, 74, 674)),
            (
                json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 100, "lendablePercent": 90, "borrowingLimitPercent": 50}}),
                (245, 24, 368),
            ),
            (json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0}}), (0, 0, 600)),
        ] {
            let bounds = Bounds::of(&spec(value), 600, 245);
            assert_eq!((bounds.nominal, bounds.min, bounds.max), wanted);
        }
    }

    #[test]
    fn idle_levels_lend_and_busy_ones_borrow() {
        for (what, claims, wanted) in [
            ("all idle", vec![claim(50, 25, 100, 0), claim(50, 25, 100, 0)], vec![50, 50]),
            ("one busy", vec![claim(50, 25, 100, 0), claim(50, 25, 100, 90)], vec![25, 75]),
            ("nothing is lent", vec![claim(50, 50, 100, 0), claim(50, 25, 100, 90)], vec![50, 50]),
            ("borrowing is bounded", vec![claim(50, 0, 100, 5), claim(50, 25, 60, 500)], vec![40, 60]),
            ("both busy", vec![claim(50, 25, 100, 300), claim(50, 25, 100, 300)], vec![50, 50]),
            (
                "what is exempt takes its own",
                vec![Claim { exempt: true, ..claim(0, 0, 100, 60) }, claim(50, 20, 100, 50), claim(50, 10, 100, 50)],
                vec![60, 24, 16],
            ),
            (
                "and never what others do not lend",
                vec![Claim { exempt: true, ..claim(0, 0, 100, 600) }, claim(50, 20, 100, 50), claim(50, 10, 100, 50)],
                vec![600, 20, 10],
            ),
        ] {
            assert_eq!(divide(&claims), wanted, "{what}");
        }
    }

    #[test]
    fn demand_is_forgotten_slowly() {
        let mut quiet = Demand::default();
        quiet.pass(0, 10.0);
        assert_eq!(quiet.smoothed(100.0), 97.7);
        let mut busy = Demand::default();
        busy.pass(200, 10.0);
        assert_eq!((busy.smoothed(100.0), busy.deviation()), (200.0, 0.0));
        assert_eq!(Demand::default().smoothed(5.0), 5.0);
    }
}
