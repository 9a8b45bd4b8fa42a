//! [`LeaderElector`]: at most one process leads, by a coordination.k8s.io Lease.
//!
//! Invariants: who leads stops before its lease can be taken by another; expiry is judged by the time that *this*
//! process has watched a lease unchanged, never by comparing clocks of two machines.
//!
//! # Source
//! client-go `tools/leaderelection/leaderelection.go`.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use podium_api::{
    ApiError, ObjectKey,
    k8s_openapi::{
        api::coordination::v1::{Lease, LeaseSpec},
        apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    },
};
use podium_client::{ApiExt, ApiRef, ClockRef, SystemClock};
use tokio::{sync::watch, time::Instant};

use crate::{controller::stopped, metrics::Metrics};

/// Which lease, and how patiently.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Who holds it: unique for each process.
    pub identity: String,
    /// How long others wait for a holder that no longer renews.
    pub duration: Duration,
    /// How long the holder tries to renew before it stops leading; less than `duration`.
    pub renew_deadline: Duration,
    /// Pause between attempts.
    pub retry: Duration,
    /// The time of day that is written into the lease.
    pub clock: ClockRef,
}

impl LeaseConfig {
    /// Kubernetes' patience: 15 s, 10 s, 2 s; the lease is in `kube-system`.
    pub fn new(name: &str, identity: impl Into<String>) -> Self {
        Self {
            key: ObjectKey::new("kube-system", name),
            identity: identity.into(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
            clock: Arc::new(SystemClock),
        }
    }
}

/// Acquires, renews and releases one lease.
pub struct LeaderElector {
    api: ApiRef,
    config: LeaseConfig,
    metrics: Metrics,
}

/// A lease as it was seen last, and since when it has looked so.
struct Observed {
    spec: LeaseSpec,
    since: Instant,
}

impl LeaderElector {
    /// An elector that does nothing yet.
    pub fn new(api: ApiRef, config: LeaseConfig, metrics: Metrics) -> Self {
        Self { api, config, metrics }
    }

    /// Waits for the lease, runs `main` while it is held, and gives it back. `main` is told to stop when `stop` says so
    /// or when the lease is lost, and must then end within the seconds between deadline and duration.
    ///
    /// # Errors
    /// Those of `main`; and when the lease was lost.
    pub async fn while_leading<F: Future<Output = Result<(), ApiError>> + Send>(
        &self,
        mut stop: watch::Receiver<bool>,
        main: impl FnOnce(watch::Receiver<bool>) -> F + Send,
    ) -> Result<(), ApiError> {
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return Ok(()),
            () = self.acquire() => {}
        }
        let leading = self.metrics.leading.with_label_values(&[&self.config.key.name]);
        leading.set(1);
        tracing::info!(lease = %self.config.key, identity = self.config.identity, "leading");
        let (stop_main, main_stop) = watch::channel(false);
        let main = main(main_stop);
        tokio::pin!(main);
        let lost = tokio::select! {
            biased;
            result = &mut main => {
                leading.set(0);
                self.release().await;
                return result;
            }
            () = stopped(&mut stop) => false,
            () = self.renew() => true,
        };
        stop_main.send_replace(true);
        let left = self.config.duration.saturating_sub(self.config.renew_deadline);
        let limit = if lost { left } else { self.config.duration };
        let result = tokio::time::timeout(limit, main).await.unwrap_or(Ok(()));
        leading.set(0);
        if lost {
            return Err(ApiError::internal(format!("the lease {} was lost", self.config.key)));
        }
        self.release().await;
        result
    }

    /// Returns when the lease is held.
    async fn acquire(&self) {
        let mut observed = None;
        loop {
            match self.try_hold(&mut observed).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::debug!(lease = %self.config.key, %error, "not acquired"),
            }
            tokio::time::sleep(self.config.retry).await;
        }
    }

    /// Keeps the lease; returns when it is lost.
    async fn renew(&self) {
        let mut observed = None;
        let mut held = Instant::now();
        loop {
            tokio::time::sleep(self.config.retry).await;
            let attempt = tokio::time::timeout_at(held + self.config.renew_deadline, self.try_hold(&mut observed));
            match attempt.await {
                Ok(Ok(true)) => held = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(lease = %self.config.key, %error, "not renewed; trying again"),
                Err(_) => return,
            }
            if held.elapsed() >= self.config.renew_deadline {
                return;
            }
        }
    }

    /// One attempt to acquire or renew; `false` when another holds it.
    async fn try_hold(&self, observed: &mut Option<Observed>) -> Result<bool, ApiError> {
        let now = self.config.clock.now();
        let found = match self.api.get_typed::<Lease>(&self.config.key).await {
            Ok(found) => found,
            Err(error) if error.is_not_found() => {
                return self.api.create(Box::new(self.fresh(now))).await.map(|_| true);
            }
            Err(error) => return Err(error),
        };
        let spec = found.spec.clone().unwrap_or_default();
        if observed.as_ref().is_none_or(|o| o.spec != spec) {
            *observed = Some(Observed { spec: spec.clone(), since: Instant::now() });
        }
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let mine = holder == self.config.identity;
        let patience = Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0));
        let unchanged = observed.as_ref().map_or(Duration::ZERO, |o| o.since.elapsed());
        if !mine && !holder.is_empty() && unchanged < patience {
            return Ok(false);
        }
        let mut lease = (*found).clone();
        lease.spec = Some(if mine { self.renewed(spec, now) } else { self.taken(&spec, now) });
        match self.api.update(Box::new(lease), None).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() && !mine => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn fresh(&self, now: Timestamp) -> Lease {
        let ObjectKey { namespace, name } = self.config.key.clone();
        let metadata = ObjectMeta { namespace: Some(namespace), name: Some(name), ..ObjectMeta::default() };
        Lease {
            metadata,
            spec: Some(self.taken(&LeaseSpec { lease_transitions: Some(-1), ..LeaseSpec::default() }, now)),
        }
    }

    fn taken(&self, before: &LeaseSpec, now: Timestamp) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.config.duration.as_secs().max(1)).unwrap_or(i32::MAX)),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0).saturating_add(1)),
            ..LeaseSpec::default()
        }
    }

    fn renewed(&self, before: LeaseSpec, now: Timestamp) -> LeaseSpec {
        LeaseSpec { renew_time: Some(MicroTime(now)), ..before }
    }

    /// Gives the lease back, so that the next leader need not wait. Best effort: it expires anyway.
    async fn release(&self) {
        let release = async {
            let found = self.api.get_typed::<Lease>(&self.config.key).await?;
            let spec = found.spec.clone().unwrap_or_default();
            if spec.holder_identity.as_deref() != Some(&self.config.identity) {
                return Ok(());
            }
            let mut lease = (*found).clone();
            lease.spec = Some(LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                renew_time: Some(MicroTime(self.config.clock.now())),
                ..spec
            });
            self.api.update(Box::new(lease), None).await.map(drop)
        };
        match tokio::time::timeout(self.config.retry, release).await {
            Ok(Ok(())) => tracing::info!(lease = %self.config.key, "given back"),
            Ok(Err(error)) => tracing::warn!(lease = %self.config.key, %error, "not given back; it will expire"),
            Err(_) => tracing::warn!(lease = %self.config.key, "not given back in time; it will expire"),
        }
    }
}
