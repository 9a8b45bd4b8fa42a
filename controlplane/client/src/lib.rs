//! podium-client
