//! The three tasks, and what an edit starts from.

use bytes::Bytes;
use serde::Deserialize;
use wire::openai::images::ImageSize;

use super::{ImageRequest, choice::ModelChoice};

/// What a job makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// An image from a prompt.
    Generate,
    /// An image from an image and a prompt.
    Edit,
    /// The masked part of an image, repainted.
    Inpaint,
}

impl Task {
    /// Its name in configuration and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Edit => "edit",
            Self::Inpaint => "inpaint",
        }
    }
}

/// The image that an edit starts from, in the size of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceImage {
    /// PNG without transparency.
    pub image: Bytes,
    /// Greyscale PNG: black is repainted, white is kept. None: everything is repainted.
    pub mask: Option<Bytes>,
}

/// An edit as planned before its image is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EditPlan {
    /// Unless the image's own transparency turns out to be a mask.
    pub task: Task,
    /// The size that the image is scaled to.
    pub size: ImageSize,
}

impl EditPlan {
    /// `masked`: whether the request has a mask. The image is scaled to the requested size, else to `default_size`; for a
    /// graph that takes no size it keeps its `source_size`.
    pub fn new(
        request: &ImageRequest,
        choice: &ModelChoice,
        masked: bool,
        source_size: ImageSize,
        default_size: ImageSize,
    ) -> Self {
        let templates = choice.preset.as_deref().map(|preset| &preset.templates);
        let has = |task| templates.is_some_and(|templates| templates.contains_key(&task));
        let masked = masked || (has(Task::Inpaint) && !has(Task::Edit));
        let task = if masked { Task::Inpaint } else { Task::Edit };
        let template = templates.and_then(|templates| templates.get(&task));
        let takes_size = template.is_none_or(|template| template.takes_size());
        let size = if takes_size { request.size.unwrap_or(default_size) } else { source_size };
        Self { task, size }
    }
}
