//! What a model accepts besides what its graph takes.

use super::{
    Binding,
    binding_file::{BindingFile, Omission, QualityRule, SizeRule},
};

/// The sides of an image are multiples of this, unless a binding file says otherwise.
pub const DEFAULT_MULTIPLE: u32 = 8;

/// The rules of a binding file.
#[derive(Debug, Clone, PartialEq)]
pub struct GraphRules {
    /// What happens to a size that the graph does not take itself. None: it is rejected.
    pub size: Option<SizeRule>,
    /// What every request has, and the graph has no input for.
    pub without: Vec<Binding>,
    /// The guidance that the graph always has.
    pub fixed_cfg_scale: Option<f64>,
    /// The steps that the graph always takes.
    pub fixed_steps: Option<u32>,
    /// Whether `quality` scales the steps.
    pub scales_steps: bool,
    /// The schedulers that it takes. None: all of the engine's.
    pub schedulers: Option<Vec<String>>,
    /// Width and height are multiples of this.
    pub multiple: u32,
    /// Source images with more pixels are scaled down. None: the limit of the request.
    pub image_pixels: Option<u64>,
    /// How `strength` becomes the point where denoising starts: 1 - strength^exponent. None: 1.
    pub strength_exponent: Option<f64>,
}

impl GraphRules {
    pub(super) fn read(file: &BindingFile) -> Self {
        Self {
            size: file.size,
            without: file.without.iter().copied().map(Omission::binding).collect(),
            fixed_cfg_scale: file.fixed.cfg_scale,
            fixed_steps: file.fixed.steps,
            scales_steps: file.quality != Some(QualityRule::Ignore),
            schedulers: file.schedulers.clone(),
            multiple: file.multiple.unwrap_or(DEFAULT_MULTIPLE),
            image_pixels: file.image_pixels,
            strength_exponent: file.strength_exponent,
        }
    }
}
