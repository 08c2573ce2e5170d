//! The pure domain: an image request, the model that it means, and the job that it becomes. No clock, no engine, no HTTP.

pub mod capabilities;
pub mod choice;
pub mod graph_set;
mod job;
pub(crate) mod loras;
mod model_warnings;
pub mod models;
pub mod parameters;
mod request;
mod resolve;
mod settings;
mod task;
pub mod template;

pub use job::Job;
pub use model_warnings::model_warnings;
pub use request::{
    ImageRequest, ImageRoute, Limits, Output, ParameterNames, Quality, REQUEST_FIELDS, ResponseFormat,
};
pub use task::{EditPlan, Scaling, SourceImages, Task};

/// For numbers whose range was checked to be below 2^32.
fn to_u32(number: u64) -> u32 {
    u32::try_from(number).expect("its range was checked")
}

#[cfg(test)]
pub(crate) mod tests;
