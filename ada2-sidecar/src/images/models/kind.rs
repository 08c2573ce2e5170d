//! What a model is: its family, what it is made for, and who says so.

use std::fmt;

use super::families::Family;

/// What a model is, as far as anybody tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelKind {
    /// Its family.
    pub family: DetectedFamily,
    /// What it is made for.
    pub variant: ModelVariant,
    /// Who says so.
    pub evidence: Evidence,
}

/// A model's family, as told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectedFamily {
    /// One of the table.
    Known(&'static Family),
    /// Something that the table does not have, in the engine's or the file's own words. No graph of ours serves it.
    Unlisted(String),
    /// Nothing tells.
    Unknown,
}

/// What a model is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelVariant {
    /// Pictures from words.
    Main,
    /// Masked parts of pictures.
    Inpaint,
    /// The last steps of another model's pictures.
    Refiner,
    /// Pictures after other pictures.
    Edit,
    /// A diffusion model whose text encoder and VAE lie in files of their own: only a graph that names those can load it.
    Split,
    /// Anything else: depth, canny, upscaling, what is no model at all.
    Other,
}

/// Who says what a model is. The first that says anything wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The configuration (`models`).
    Declared,
    /// The engine.
    Engine,
    /// The file's own metadata.
    Metadata,
    /// Its name, or nobody.
    Name,
}

impl ModelKind {
    /// Of this family, for pictures from words.
    pub const fn main(family: &'static Family, evidence: Evidence) -> Self {
        Self { family: DetectedFamily::Known(family), variant: ModelVariant::Main, evidence }
    }

    /// What nothing tells the family of.
    pub const fn unknown(variant: ModelVariant) -> Self {
        Self { family: DetectedFamily::Unknown, variant, evidence: Evidence::Name }
    }

    /// The family whose built-in graphs can run it. Inpainting models run in them too.
    pub fn graphs(&self) -> Option<&'static Family> {
        match (&self.family, self.variant) {
            (DetectedFamily::Known(family), ModelVariant::Main | ModelVariant::Inpaint) => {
                Some(*family).filter(|family| family.defaults.is_some())
            }
            _ => None,
        }
    }

    /// Whether it may be meant by a request that does not name it: told, served, and made for pictures from words.
    pub fn is_default_candidate(&self) -> bool {
        self.variant == ModelVariant::Main && self.graphs().is_some()
    }

    /// Whether nothing tells its family, and telling it would help.
    pub fn is_unknown(&self) -> bool {
        self.family == DetectedFamily::Unknown && self.variant != ModelVariant::Split
    }
}

impl ModelVariant {
    /// The words of the setting `variant`.
    pub const SETTING_VALUES: [(&'static str, Self); 5] = [
        ("main", Self::Main),
        ("inpaint", Self::Inpaint),
        ("refiner", Self::Refiner),
        ("edit", Self::Edit),
        ("other", Self::Other),
    ];
}

/// For people: `SDXL`, `SDXL inpainting`, `of unknown kind`.
impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.family {
            DetectedFamily::Known(family) => f.write_str(family.label)?,
            DetectedFamily::Unlisted(words) => write!(f, "{words:?}")?,
            DetectedFamily::Unknown => f.write_str("of unknown kind")?,
        }
        f.write_str(match self.variant {
            ModelVariant::Main => "",
            ModelVariant::Inpaint => " inpainting",
            ModelVariant::Refiner => " refiner",
            ModelVariant::Edit => " edit",
            ModelVariant::Split => ", a diffusion model without text encoder and VAE",
            ModelVariant::Other if matches!(self.family, DetectedFamily::Unlisted(_)) => "",
            ModelVariant::Other => ", not a text-to-image model",
        })
    }
}
