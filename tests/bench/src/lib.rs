//! podium-bench
