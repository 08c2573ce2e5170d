//! `GET /v1/models`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A list of models, `{"object":"list","data":[…]}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// The models.
    pub data: Vec<Model>,
}

impl ModelList {
    /// A list of these models.
    pub fn new(data: Vec<Model>) -> Self {
        Self { object: "list".to_owned(), data }
    }
}

/// One model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Model {
    /// The value of `model` in a request.
    pub id: String,
    /// Always `model`.
    #[serde(default = "object_model")]
    pub object: String,
    /// Unix seconds.
    #[serde(default)]
    pub created: u64,
    /// The engine in the sidecar, the backend class in the gateway.
    #[serde(default)]
    pub owned_by: String,
    /// What it is and can do (an extension): members beside the others.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

impl Model {
    /// A model.
    pub fn new(id: impl Into<String>, created: u64, owned_by: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            object: object_model(),
            created,
            owned_by: owned_by.into(),
            details: Map::new(),
        }
    }
}

fn object_model() -> String {
    "model".to_owned()
}
