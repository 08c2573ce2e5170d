//! Which models a LoRA is for.

use super::{DetectedFamily, Family, kind_from_name};

/// The family of the models that a LoRA works with, by its name: the path without extension. None if that does not say it.
pub fn lora_family(name: &str) -> Option<&'static Family> {
    match kind_from_name(name).family {
        DetectedFamily::Known(family) => Some(family),
        DetectedFamily::Unlisted(_) | DetectedFamily::Unknown => None,
    }
}
