//! The I/O of controllers and scheduler: mirrors, keyed queues, applying plans, leader election, metrics.
//!
//! What to do is decided by the pure crates; here it is done, once for all of them. See [`manager`] and [`scheduler`].

mod apply;
mod controller;
mod informer;
pub mod lease;
pub mod manager;
pub mod metrics;
mod queue;
pub mod scheduler;

pub use lease::{LeaderElector, LeaseConfig};
pub use manager::{ControllerManager, Handle, ManagerConfig, controllers};
pub use metrics::Metrics;
pub use podium_controllers::Settings as ControllerSettings;
pub use scheduler::{Scheduler, SchedulerConfig};
