//! What every request passes, whatever its route.

pub(crate) mod access_log;
pub(crate) mod cors;
pub(crate) mod gate;
mod start_page;
