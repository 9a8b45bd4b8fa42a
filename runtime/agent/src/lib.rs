//! podium-agent
