//! podium-drivers
