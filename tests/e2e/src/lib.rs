//! Both programs, started in this process on port 0, in front of the fakes.

pub mod gateway;
pub mod sidecar;
