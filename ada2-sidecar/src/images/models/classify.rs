//! Classifies checkpoint files by their metadata, else by unambiguous tokens in their names.

mod lora;

pub use self::lora::lora_family;
use super::{
    DetectedFamily, Evidence, ModelKind, ModelVariant,
    families::{self, Family},
    tokens::{contains_phrase, mentions_xl, tokenize},
};

/// The part of a file's metadata that identifies it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelMetadata {
    /// `modelspec.architecture`.
    pub architecture: Option<String>,
    /// `ss_base_model_version`: the model that it was trained on.
    pub base_version: Option<String>,
    /// `ss_network_module`: a network that was trained for a model, not a model.
    pub network: Option<String>,
}

/// Phrases in names of models that are not text-to-image. The first match counts: an adapter for inpainting is an adapter.
const VARIANTS: &[(&str, ModelVariant)] = &[
    ("lora", ModelVariant::Other),
    ("loras", ModelVariant::Other),
    ("*xllora*", ModelVariant::Other),
    ("lycoris", ModelVariant::Other),
    ("locon", ModelVariant::Other),
    ("loha", ModelVariant::Other),
    ("lokr", ModelVariant::Other),
    ("control", ModelVariant::Other),
    ("controlnet*", ModelVariant::Other),
    ("controllora*", ModelVariant::Other),
    ("controllllite", ModelVariant::Other),
    ("adapter*", ModelVariant::Other),
    ("ipadapter*", ModelVariant::Other),
    ("photomaker", ModelVariant::Other),
    ("instantid", ModelVariant::Other),
    ("animatediff*", ModelVariant::Other),
    ("^mm sdxl", ModelVariant::Other),
    ("depth", ModelVariant::Other),
    ("canny", ModelVariant::Other),
    ("openpose*", ModelVariant::Other),
    ("open pose", ModelVariant::Other),
    ("scribble", ModelVariant::Other),
    ("lineart", ModelVariant::Other),
    ("softedge", ModelVariant::Other),
    ("unclip", ModelVariant::Other),
    // Text encoders.
    ("qwen 3", ModelVariant::Other),
    ("qwen 2 5 vl", ModelVariant::Other),
    ("upscale", ModelVariant::Other),
    ("upscaler", ModelVariant::Other),
    ("esrgan*", ModelVariant::Other),
    ("embedding", ModelVariant::Other),
    ("embeddings", ModelVariant::Other),
    ("textual inversion", ModelVariant::Other),
    // After another word it says what a checkpoint contains: `sd_xl_base_1.0_0.9vae`.
    ("^vae", ModelVariant::Other),
    ("^xl vae", ModelVariant::Other),
    ("sdxl vae", ModelVariant::Other),
    ("sd xl vae", ModelVariant::Other),
    ("vae ft", ModelVariant::Other),
    ("vae approx", ModelVariant::Other),
    ("taesd*", ModelVariant::Other),
    ("*inpaint*", ModelVariant::Inpaint),
    ("*outpaint*", ModelVariant::Inpaint),
    ("fill dev", ModelVariant::Inpaint),
    ("flux fill", ModelVariant::Inpaint),
    ("*refiner*", ModelVariant::Refiner),
    ("edit", ModelVariant::Edit),
    ("kontext", ModelVariant::Edit),
    ("instruct", ModelVariant::Edit),
    ("*pix2pix*", ModelVariant::Edit),
    ("pix 2 pix", ModelVariant::Edit),
];

/// Suffixes of an architecture that denote a model. All others (`lora`, `vae`, `controlnet`, `textual-inversion`, …) do not.
const ARCHITECTURE_SUFFIXES: &[(&str, ModelVariant)] =
    &[("inpaint", ModelVariant::Inpaint), ("kontext", ModelVariant::Edit), ("edit", ModelVariant::Edit)];

/// Classifies a checkpoint by its metadata and its name: the path without extension.
pub fn classify_checkpoint(metadata: Option<&ModelMetadata>, name: &str) -> ModelKind {
    metadata.and_then(|metadata| kind_from_metadata(metadata, name)).unwrap_or_else(|| kind_from_name(name))
}

fn kind_from_metadata(metadata: &ModelMetadata, name: &str) -> Option<ModelKind> {
    let kind = |family, variant| ModelKind { family, variant, evidence: Evidence::Metadata };
    if let Some(network) = sanitized(metadata.network.as_deref()) {
        return Some(kind(DetectedFamily::Unlisted(network), ModelVariant::Other));
    }
    let architecture = sanitized(metadata.architecture.as_deref());
    let text = architecture.or_else(|| sanitized(metadata.base_version.as_deref()))?;
    let Some((model, suffix)) = text.split_once('/') else {
        let variant = variant_from_tokens(&tokenize(&text)).or_else(|| variant_from_tokens(&tokenize(name)));
        return Some(kind(family_from_metadata(&text), variant.unwrap_or(ModelVariant::Main)));
    };
    let known_suffix = ARCHITECTURE_SUFFIXES.iter().find(|(word, _)| suffix.eq_ignore_ascii_case(word));
    Some(match known_suffix {
        Some((_, variant)) => kind(family_from_metadata(model), *variant),
        None => kind(DetectedFamily::Unlisted(text), ModelVariant::Other),
    })
}

/// A value of the metadata, truncated: it appears in messages.
fn sanitized(text: Option<&str>) -> Option<String> {
    let text: String = text?.trim().chars().filter(|character| !character.is_control()).take(80).collect();
    Some(text).filter(|text| !text.is_empty())
}

/// By the table, else by its tokens: tools write it in any form (`SDXL 1.0`).
fn family_from_metadata(text: &str) -> DetectedFamily {
    let plain: String = text
        .to_lowercase()
        .chars()
        .map(|character| if character.is_alphanumeric() { character } else { '-' })
        .collect();
    let begins =
        |start: &&str| plain.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let length =
        |family: &Family| family.metadata_prefixes.iter().copied().filter(begins).map(str::len).max();
    let longest = families::all()
        .filter_map(|family| Some((length(family)?, family)))
        .max_by_key(|(length, _)| *length);
    match longest {
        Some((_, family)) => DetectedFamily::Known(family),
        None => family_from_tokens(&tokenize(text))
            .map_or_else(|| DetectedFamily::Unlisted(text.to_owned()), DetectedFamily::Known),
    }
}

/// By the file's name, else by the directories above it.
fn kind_from_name(name: &str) -> ModelKind {
    let (directories, file) = name.rsplit_once(['/', '\\']).unwrap_or(("", name));
    let (file_tokens, directory_tokens) = (tokenize(file), tokenize(directories));
    let mentions_any = |tokens: &[String]| families::all().any(|family| mentions(family, tokens));
    let family = if mentions_any(&file_tokens) {
        family_from_tokens(&file_tokens)
    } else {
        family_from_tokens(&directory_tokens)
    };
    let variant = variant_from_tokens(&file_tokens)
        .or_else(|| variant_from_tokens(&directory_tokens))
        .unwrap_or(ModelVariant::Main);
    match family {
        Some(family) => {
            ModelKind { family: DetectedFamily::Known(family), variant, evidence: Evidence::Name }
        }
        None => ModelKind::unknown(variant),
    }
}

/// The only family whose phrases match, else the only one that is hinted at. Two contradict each other.
fn family_from_tokens(tokens: &[String]) -> Option<&'static Family> {
    let named: Vec<_> = families::all().filter(|family| names_explicitly(family, tokens)).collect();
    if named.is_empty() {
        return only(families::all().filter(|family| hints_at(family, tokens)));
    }
    let is_selected =
        |family: &&'static Family| !named.iter().any(|other| other.overrides.contains(&family.name));
    only(named.iter().copied().filter(is_selected))
}

fn only(mut families: impl Iterator<Item = &'static Family>) -> Option<&'static Family> {
    families.next().filter(|_| families.next().is_none())
}

fn mentions(family: &Family, tokens: &[String]) -> bool {
    names_explicitly(family, tokens) || hints_at(family, tokens)
}

fn names_explicitly(family: &Family, tokens: &[String]) -> bool {
    family.phrases.iter().any(|phrase| contains_phrase(tokens, phrase))
}

fn hints_at(family: &Family, tokens: &[String]) -> bool {
    family
        .hints
        .iter()
        .any(|phrase| if *phrase == "xl" { mentions_xl(tokens) } else { contains_phrase(tokens, phrase) })
}

/// Whether the name has this token.
pub fn has_word(name: &str, word: &str) -> bool {
    contains_phrase(&tokenize(name), word)
}

/// The variant in the name, if any.
pub fn variant_from_name(name: &str) -> Option<ModelVariant> {
    variant_from_tokens(&tokenize(name))
}

fn variant_from_tokens(tokens: &[String]) -> Option<ModelVariant> {
    VARIANTS.iter().find(|(phrase, _)| contains_phrase(tokens, phrase)).map(|(_, variant)| *variant)
}

#[cfg(test)]
mod tests;
