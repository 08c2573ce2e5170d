//! The version as the build script tells it (`shared/build/version.rs`).

/// With the commit where it is known: `0.1.0 (abc1234def 2026-11-30)`. What other programs read is the version alone.
pub(crate) const WITH_COMMIT: &str = env!("BUILD_VERSION");

/// The date of the commit, or nothing.
pub(crate) const DATE: &str = env!("BUILD_DATE");
