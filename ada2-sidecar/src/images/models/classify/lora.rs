//! Which models a LoRA is for.

use super::{DetectedFamily, Family, ModelMetadata, family_from_metadata, kind_from_name, sanitized};

/// The family of the models that a LoRA works with, by its metadata, else by its name: the path without extension. None if
/// neither says it, or if its metadata says a family that is not in the table.
pub fn lora_family(metadata: Option<&ModelMetadata>, name: &str) -> Option<&'static Family> {
    let architecture = metadata.and_then(|metadata| sanitized(metadata.architecture.as_deref()));
    let base = metadata.and_then(|metadata| sanitized(metadata.base_version.as_deref()));
    let known = |text: &String| {
        let model = text.split_once('/').map_or(text.as_str(), |(model, _)| model);
        known(family_from_metadata(model))
    };
    if architecture.is_none() && base.is_none() {
        return self::known(kind_from_name(name).family);
    }
    architecture.as_ref().and_then(known).or_else(|| base.as_ref().and_then(known))
}

fn known(family: DetectedFamily) -> Option<&'static Family> {
    match family {
        DetectedFamily::Known(family) => Some(family),
        DetectedFamily::Unlisted(_) | DetectedFamily::Unknown => None,
    }
}
