//! The three tasks, and what an edit starts from.

use bytes::Bytes;
use serde::Deserialize;
use wire::openai::images::ImageSize;

use super::{
    ImageRequest,
    choice::ModelChoice,
    template::{DEFAULT_MULTIPLE, SizeRule},
};

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

/// The images of an edit, in the client's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceImages {
    /// PNG without transparency; at least one.
    pub images: Vec<Bytes>,
    /// Of the first image. Greyscale PNG: black is repainted, white is kept. None: everything is repainted.
    pub mask: Option<Bytes>,
}

/// An edit as planned before its images are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EditPlan {
    /// Unless the first image's own transparency turns out to be a mask.
    pub task: Task,
    /// How many images there are.
    pub images: u8,
    /// The size of the result. None: the graph decides it.
    pub size: Option<ImageSize>,
    /// How the first image is scaled.
    pub scaling: Scaling,
    /// Pixels above which further images are scaled down.
    pub max_pixels: u64,
    /// Whether the first image's own transparency serves as a mask: it is what the result starts from, not a reference, and
    /// the model can repaint a part of it.
    pub takes_transparency: bool,
}

/// How a source image is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    /// To this size: the result starts from it.
    Exactly(ImageSize),
    /// Down to so many pixels, if it has more.
    AtMost(u64),
}

impl EditPlan {
    /// Plans an edit of this many images, of which the first has this size once it is upright. `masked`: whether the request
    /// has a mask. `fit` brings a size within so many pixels, with sides that are multiples of its last argument.
    pub fn new(
        request: &ImageRequest,
        choice: &ModelChoice,
        (images, masked): (u8, bool),
        original: ImageSize,
        max_pixels: u64,
        fit: impl Fn(ImageSize, u64, u32) -> ImageSize,
    ) -> Self {
        let has = |task| choice.template(task).is_some();
        let masked = masked || (has(Task::Inpaint) && !has(Task::Edit));
        let task = if masked { Task::Inpaint } else { Task::Edit };
        let Some(template) = choice.template(task) else {
            let size = request.size.unwrap_or_else(|| fit(original, max_pixels, DEFAULT_MULTIPLE));
            let scaling = Scaling::Exactly(size);
            return Self { task, images, size: Some(size), scaling, max_pixels, takes_transparency: true };
        };
        let image_pixels = template.rules.image_pixels.unwrap_or(max_pixels).min(max_pixels);
        let fitted = fit(original, max_pixels, template.rules.multiple);
        let size = match (template.takes_size(), template.rules.size) {
            (true, _) => Some(request.size.unwrap_or(fitted)),
            (false, Some(SizeRule::Ignore)) if template.takes_references() => None,
            (false, _) => Some(if original.pixels() > max_pixels { fitted } else { original }),
        };
        let scaling = match size.filter(|_| !template.takes_references()) {
            Some(size) => Scaling::Exactly(size),
            None => Scaling::AtMost(image_pixels),
        };
        let takes_transparency =
            task == Task::Inpaint || (has(Task::Inpaint) && !template.takes_references());
        Self { task, images, size, scaling, max_pixels: image_pixels, takes_transparency }
    }
}
