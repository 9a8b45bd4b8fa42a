//! What is counted for each route of Ingresses and Gateways. So many routes have series of their own; for another one the
//! series of that which was used last the longest ago are forgotten.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::StatusCode;
use parking_lot::RwLock;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, core::Collector};

use super::{BUCKETS, CLASSES, counters};
use crate::bodies::Hears;

/// Routes with series.
const ROUTES_MAX: usize = 1024;

/// The series of all routes.
#[derive(Clone)]
pub(super) struct RouteSeries {
    requests: IntCounterVec,
    seconds: HistogramVec,
    bytes: IntCounterVec,
    known: Arc<RwLock<HashMap<Arc<str>, Arc<RouteMetrics>>>>,
    uses: Arc<AtomicU64>,
}

/// The series of one route, looked up once.
pub(crate) struct RouteMetrics {
    /// By class of the status, as for Services.
    classes: [IntCounter; 6],
    seconds: Histogram,
    bytes: IntCounter,
    used: AtomicU64,
}

impl Default for RouteSeries {
    fn default() -> Self {
        let seconds = HistogramOpts::new(
            "podium_route_request_duration_seconds",
            "Time from a request by a route to the head of its response.",
        );
        let seconds = HistogramVec::new(seconds.buckets(BUCKETS.to_vec()), &["route"]);
        Self {
            requests: counters(
                "podium_route_requests_total",
                "Requests of clients outside by a route, by class of the answer.",
                &["route", "code"],
            ),
            seconds: seconds.expect("invariant: the metric's name and labels are well-formed"),
            bytes: counters("podium_route_bytes_total", "Bytes of bodies of answers by a route.", &["route"]),
            known: Arc::default(),
            uses: Arc::default(),
        }
    }
}

impl RouteSeries {
    pub(super) fn collectors(&self) -> [Box<dyn Collector>; 3] {
        [Box::new(self.requests.clone()), Box::new(self.seconds.clone()), Box::new(self.bytes.clone())]
    }

    pub(super) fn of(&self, route: &Arc<str>) -> Arc<RouteMetrics> {
        let now = self.uses.fetch_add(1, Ordering::Relaxed);
        if let Some(known) = self.known.read().get(route) {
            known.used.store(now, Ordering::Relaxed);
            return known.clone();
        }
        let mut known = self.known.write();
        if known.len() >= ROUTES_MAX {
            let oldest =
                known.iter().min_by_key(|(_, of)| of.used.load(Ordering::Relaxed)).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                known.remove(&oldest);
                self.forget(&oldest);
            }
        }
        let made = RouteMetrics {
            classes: CLASSES.map(|class| self.requests.with_label_values(&[route, class])),
            seconds: self.seconds.with_label_values(&[route]),
            bytes: self.bytes.with_label_values(&[route]),
            used: AtomicU64::new(now),
        };
        known.entry(route.clone()).or_insert_with(|| Arc::new(made)).clone()
    }

    fn forget(&self, route: &str) {
        // Absent is as good as removed.
        CLASSES.iter().for_each(|class| drop(self.requests.remove_label_values(&[route, class])));
        let _ = self.seconds.remove_label_values(&[route]);
        let _ = self.bytes.remove_label_values(&[route]);
    }
}

impl RouteMetrics {
    pub(crate) fn answered(&self, status: StatusCode, seconds: f64) {
        self.classes[usize::from(status.as_u16() / 100).clamp(1, 5) - 1].inc();
        self.seconds.observe(seconds);
    }
}

impl Hears for Arc<RouteMetrics> {
    fn bytes(&mut self, count: u64) {
        self.bytes.inc_by(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_routes_have_series() {
        let series = RouteSeries::default();
        let route = |n: usize| Arc::from(format!("default/r{n}"));
        for n in 0..ROUTES_MAX {
            series.of(&route(n)).answered(StatusCode::OK, 0.001);
        }
        series.of(&route(0));
        series.of(&route(ROUTES_MAX)).answered(StatusCode::NOT_FOUND, 0.001);
        let families = series.requests.collect();
        let routes: std::collections::BTreeSet<_> =
            families[0].get_metric().iter().map(|m| m.get_label()[1].value().to_owned()).collect();
        assert_eq!(routes.len(), ROUTES_MAX);
        assert!(routes.contains("default/r0") && !routes.contains("default/r1"), "the one that was used is kept");
        assert_eq!(series.of(&route(0)).classes[1].get(), 1);
    }
}
