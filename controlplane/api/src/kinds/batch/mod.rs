//! Work that ends: Jobs, and CronJobs that make them by the clock.

mod cron_job;
mod job;
mod schedule;

pub use schedule::{Schedule, time_zone};
