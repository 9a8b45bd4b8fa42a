//! podium-controllers
