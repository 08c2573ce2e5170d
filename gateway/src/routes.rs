//! The handlers, one file per thing that is asked for.

pub(crate) mod files;
pub(crate) mod images;
pub(crate) mod legacy;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod probes;
pub(crate) mod status;
