//! What an image request asks for, and the job that it becomes. Pure: reading, ranges and defaults; no clock, no
//! engine, no HTTP.

pub mod choice;
mod job;
mod model_warnings;
pub mod models;
pub mod parameters;
mod request;
mod resolve;
mod task;
pub mod template;

pub use job::Job;
pub use model_warnings::model_warnings;
pub use request::{
    ImageRequest, ImageRoute, Limits, Output, ParameterNames, Quality, REQUEST_FIELDS, ResponseFormat,
};
pub use resolve::DEFAULT_SCHEDULER;
pub use task::{EditPlan, SourceImage, Task};

/// For numbers that were read with a range below 2^32.
fn to_u32(number: u64) -> u32 {
    u32::try_from(number).expect("read with a range that fits")
}

#[cfg(test)]
pub(crate) mod tests;
