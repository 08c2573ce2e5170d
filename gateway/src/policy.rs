//! Where a request may go, and what is left to the old gateway. Pure: no clock, no wait.

pub(crate) mod legacy;
pub(crate) mod routing;
