//! The interfaces between client, `gateway` and `ada2-sidecar`: the OpenAI dialect and the readiness report.

pub mod health;

/// The OpenAI dialect that both programs speak: parsing requests, writing responses and errors.
pub mod openai {
    pub mod data_url;
    pub mod error;
    pub mod fields;
    pub mod form_images;
    pub mod images;
    pub mod inline_images;
    pub mod models;
    pub mod object;
}
