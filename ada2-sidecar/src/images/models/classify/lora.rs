//! Which models a LoRA is for.

use super::{DetectedFamily, Family, ModelMetadata, family_from_metadata, kind_from_name, sanitized};

/// The family of the models that a LoRA works with, by its metadata, else by its name: the path without extension. None if
/// neither says it, or if its metadata says a family that is not in the table.
pub fn lora_family(metadata: Option<&ModelMetadata>, name: &str) -> Option<&'static Family> {
    let architecture = metadata.and_then(|metadata| sanitized(metadata.architecture.as_deref()));
    let base = metadata.and_then(|metadata| sanitized(metadata.base_version.as_deref()));
    // `/lora` ends an architecture.
    let said: Vec<_> =
        [architecture, base].iter().flatten().map(|text| family_of(text.split('/').next()?)).collect();
    if said.is_empty() { known(&kind_from_name(name).family) } else { said.into_iter().flatten().next() }
}

fn family_of(text: &str) -> Option<&'static Family> {
    known(&family_from_metadata(text))
}

fn known(family: &DetectedFamily) -> Option<&'static Family> {
    match family {
        DetectedFamily::Known(family) => Some(family),
        DetectedFamily::Unlisted(_) | DetectedFamily::Unknown => None,
    }
}
