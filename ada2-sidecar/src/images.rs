//! What an image request asks for, and the job that it becomes. Pure: reading, ranges and defaults; no clock, no
//! engine, no HTTP.

pub mod choice;
mod job;
pub mod models;
pub mod parameters;
mod request;
mod resolve;
pub mod template;

pub use job::{EditPlan, Job, SourceImage, Task};
pub use request::{
    ImageRequest, ImageRoute, Limits, Output, ParameterNames, Quality, REQUEST_FIELDS, ResponseFormat,
};

/// For numbers that were read with a range below 2^32.
fn to_u32(number: u64) -> u32 {
    u32::try_from(number).expect("read with a range that fits")
}

#[cfg(test)]
pub(crate) mod tests;
