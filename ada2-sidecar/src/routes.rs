//! The handlers, one file per subject.

pub(crate) mod health;
pub(crate) mod images;
mod metrics;
pub(crate) mod models;
