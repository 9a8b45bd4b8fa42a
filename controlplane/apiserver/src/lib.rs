//! podium-apiserver
