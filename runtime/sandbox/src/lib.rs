//! podium-sandbox
