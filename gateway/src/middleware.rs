//! What every request passes, whatever its route.

pub(crate) mod access_log;
pub(crate) mod auth;
pub(crate) mod cors;
mod start_page;
