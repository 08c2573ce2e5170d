//! The version, from the build script (`shared/build/version.rs`).

/// With the commit if known, for people: `0.1.0 (abc1234def 2026-11-30)`.
pub(crate) const WITH_COMMIT: &str = env!("BUILD_VERSION");

/// The date of the commit, or empty.
pub(crate) const DATE: &str = env!("BUILD_DATE");
