//! podium-tidy
