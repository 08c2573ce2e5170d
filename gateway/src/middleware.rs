//! What every request passes, whatever its route.

pub(crate) mod access_log;
pub(crate) mod gate;
