//! The OpenAI dialect that both programs speak: reading requests, writing answers and errors.

pub mod data_url;
pub mod error;
pub mod fields;
pub mod images;
pub mod inline_images;
pub mod models;
pub mod object;
