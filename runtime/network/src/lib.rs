//! podium-network
