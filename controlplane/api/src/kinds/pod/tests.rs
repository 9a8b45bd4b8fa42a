//! Tables of cases for pods.
