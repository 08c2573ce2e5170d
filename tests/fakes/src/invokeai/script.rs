//! How the fake behaves. The default is a healthy, fast server.

use std::time::Duration;

use serde_json::Value;

use crate::engine::{EngineFailure, Identity, ImageBytes};

/// Settings of the fake. Each applies until it is reset, unless it says otherwise.
#[derive(Debug, Clone)]
pub struct InvokeScript {
    /// How long an item's denoising takes in all, spread over its steps.
    pub item: Duration,
    /// Items stop in mid-denoising, after the first preview, until this is false again or they are cancelled.
    pub hold: bool,
    /// Every item fails in mid-denoising.
    pub fail: Option<EngineFailure>,
    /// After a running item was cancelled, the step in progress goes on for this long (the real one: about 0.3 s on
    /// a CPU). `processor.is_processing` stays true and nothing else starts. Setting it to zero ends it at once.
    pub cancel_tail: Duration,
    /// Events whose text contains any of these are not sent, for example `"status":"completed"`.
    pub swallow: Vec<String>,
    /// The next batch is accepted and runs, but its answer is never sent: the connection is cut instead. Once.
    pub lose_enqueue_answer: bool,
    /// Connections are accepted and nothing is answered, sent or done, like a stopped process.
    pub hang: bool,
    /// Whether it requires a login.
    pub users: Users,
    /// The user's password in multi-user mode.
    pub password: String,
    /// What the version endpoint answers.
    pub version: Identity,
    /// What the bytes of an image are.
    pub image_bytes: InvokeImageBytes,
    /// The models that are installed.
    pub models: Vec<Value>,
    /// Types of nodes that this version has no more.
    pub removed_nodes: Vec<String>,
    /// The items that the answer to an enqueue names, whatever was taken.
    pub reported_items: Option<Vec<u32>>,
    /// How many items may wait.
    pub max_queue: usize,
    /// How often the socket pings. A client that has not answered by the next one is closed.
    pub ping: Duration,
}

impl Default for InvokeScript {
    fn default() -> Self {
        let models = include_str!("../../../fixtures/invokeai/models.json");
        Self {
            item: Duration::from_millis(20),
            hold: false,
            fail: None,
            cancel_tail: Duration::from_millis(20),
            swallow: Vec::new(),
            lose_enqueue_answer: false,
            hang: false,
            users: Users::Single,
            password: super::PASSWORD.to_owned(),
            version: Identity::Engine,
            image_bytes: InvokeImageBytes::Plain(ImageBytes::Complete),
            models: serde_json::from_str(models).expect("a JSON fixture"),
            removed_nodes: Vec::new(),
            reported_items: None,
            max_queue: 10_000,
            ping: Duration::from_secs(25),
        }
    }
}

/// The setting `multiuser`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// Off: no login.
    Single,
    /// On: without a login everything but the version is 401.
    Multiple,
}

/// What `/full` sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvokeImageBytes {
    /// The image without its metadata.
    Plain(ImageBytes),
    /// The image, with the graph in a text chunk as the real server writes it.
    WithGraph,
}
