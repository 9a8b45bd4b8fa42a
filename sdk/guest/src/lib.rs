//! podium-guest
