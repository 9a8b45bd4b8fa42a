//! podium-scheduler
