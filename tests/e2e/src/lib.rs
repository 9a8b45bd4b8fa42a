//! podium-e2e
