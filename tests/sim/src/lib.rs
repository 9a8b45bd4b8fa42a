//! podium-sim
