//! What a model is: family, variant, and the evidence for it.

use std::fmt;

use serde::Deserialize;

use super::families::Family;

/// What a model is, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelKind {
    /// Its family.
    pub family: DetectedFamily,
    /// Its variant.
    pub variant: ModelVariant,
    /// Where this comes from.
    pub evidence: Evidence,
}

/// A model's family, as detected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectedFamily {
    /// One in the table.
    Known(&'static Family),
    /// One that is not in the table, by the engine's or the file's name for it. It has no built-in graphs.
    Unlisted(String),
    /// Not known.
    Unknown,
}

/// What a model is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelVariant {
    /// Text to image.
    Main,
    /// Inpainting.
    Inpaint,
    /// The last steps of another model's images.
    Refiner,
    /// Editing by instruction.
    Edit,
    /// A diffusion model with text encoder and VAE in separate files: only a template that names those can load it.
    Split,
    /// Anything else: depth, canny, upscaling, files that are not models.
    Other,
}

/// Where the knowledge comes from, in order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The configuration (`models`).
    Declared,
    /// The engine.
    Engine,
    /// The file's own metadata.
    Metadata,
    /// The file's tensors.
    Header,
    /// Its name, or nothing.
    Name,
}

impl ModelKind {
    /// A text-to-image model of this family.
    pub const fn main(family: &'static Family, evidence: Evidence) -> Self {
        Self { family: DetectedFamily::Known(family), variant: ModelVariant::Main, evidence }
    }

    /// A model of unknown family.
    pub const fn unknown(variant: ModelVariant) -> Self {
        Self { family: DetectedFamily::Unknown, variant, evidence: Evidence::Name }
    }

    /// The name of its family, if it has one.
    pub fn family_name(&self) -> Option<&str> {
        match &self.family {
            DetectedFamily::Known(family) => Some(family.name),
            DetectedFamily::Unlisted(name) => Some(name),
            DetectedFamily::Unknown => None,
        }
    }

    /// Whether its family is unknown, and declaring it would help.
    pub fn is_unknown(&self) -> bool {
        self.family == DetectedFamily::Unknown && self.variant != ModelVariant::Split
    }
}

impl ModelVariant {
    /// The values of the setting `variant`.
    pub const SETTING_VALUES: [(&'static str, Self); 5] = [
        ("main", Self::Main),
        ("inpaint", Self::Inpaint),
        ("refiner", Self::Refiner),
        ("edit", Self::Edit),
        ("other", Self::Other),
    ];
}

/// In messages: `SDXL`, `SDXL inpainting`, `of unknown kind`.
impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.family {
            DetectedFamily::Known(family) => f.write_str(family.label)?,
            DetectedFamily::Unlisted(name) => write!(f, "{name:?}")?,
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
