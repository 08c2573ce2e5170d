//! What kind a checkpoint file is: its own metadata says it, else unmistakable words in its name, else nobody. Pure.

use super::{
    Evidence, Kind, Told, Variant,
    families::{self, Family},
    words::{has, says_xl, words},
};

/// What a file's metadata says of its kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `modelspec.architecture`.
    pub architecture: Option<String>,
    /// `ss_base_model_version`: what it was trained on.
    pub base_version: Option<String>,
    /// `ss_network_module`: then it is a network that was trained for a model, and none itself.
    pub network: Option<String>,
}

/// Words of what is not made for pictures from words alone. The first that is there counts: an adapter for inpainting is an
/// adapter.
const VARIANTS: &[(&str, Variant)] = &[
    ("lora", Variant::Other),
    ("loras", Variant::Other),
    ("*xllora*", Variant::Other),
    ("lycoris", Variant::Other),
    ("locon", Variant::Other),
    ("loha", Variant::Other),
    ("lokr", Variant::Other),
    ("control", Variant::Other),
    ("controlnet*", Variant::Other),
    ("controllora*", Variant::Other),
    ("controllllite", Variant::Other),
    ("adapter*", Variant::Other),
    ("ipadapter*", Variant::Other),
    ("photomaker", Variant::Other),
    ("instantid", Variant::Other),
    ("animatediff*", Variant::Other),
    ("^mm sdxl", Variant::Other),
    ("depth", Variant::Other),
    ("canny", Variant::Other),
    ("openpose*", Variant::Other),
    ("open pose", Variant::Other),
    ("scribble", Variant::Other),
    ("lineart", Variant::Other),
    ("softedge", Variant::Other),
    ("unclip", Variant::Other),
    ("upscale", Variant::Other),
    ("upscaler", Variant::Other),
    ("esrgan*", Variant::Other),
    ("embedding", Variant::Other),
    ("embeddings", Variant::Other),
    ("textual inversion", Variant::Other),
    // Behind another word it is what a checkpoint brings along: `sd_xl_base_1.0_0.9vae`.
    ("^vae", Variant::Other),
    ("^xl vae", Variant::Other),
    ("sdxl vae", Variant::Other),
    ("sd xl vae", Variant::Other),
    ("vae ft", Variant::Other),
    ("vae approx", Variant::Other),
    ("taesd*", Variant::Other),
    ("*inpaint*", Variant::Inpaint),
    ("*outpaint*", Variant::Inpaint),
    ("fill dev", Variant::Inpaint),
    ("*refiner*", Variant::Refiner),
    ("edit", Variant::Edit),
    ("kontext", Variant::Edit),
    ("instruct", Variant::Edit),
    ("*pix2pix*", Variant::Edit),
    ("pix 2 pix", Variant::Edit),
];

/// What follows the slash of an architecture, where that is a model all the same. Everything else (`lora`, `vae`,
/// `controlnet`, `textual-inversion`, …) is not.
const MODELS_BEHIND_SLASH: &[(&str, Variant)] =
    &[("inpaint", Variant::Inpaint), ("kontext", Variant::Edit), ("edit", Variant::Edit)];

/// The kind of a checkpoint with this metadata, if it has any, and this name: its path without the ending.
pub fn checkpoint(metadata: Option<&Metadata>, name: &str) -> Kind {
    metadata.and_then(|metadata| by_metadata(metadata, name)).unwrap_or_else(|| by_name(name))
}

fn by_metadata(metadata: &Metadata, name: &str) -> Option<Kind> {
    let kind = |family, variant| Kind { family, variant, evidence: Evidence::Metadata };
    if let Some(network) = said(metadata.network.as_deref()) {
        return Some(kind(Told::Foreign(network), Variant::Other));
    }
    let architecture = said(metadata.architecture.as_deref());
    let text = architecture.or_else(|| said(metadata.base_version.as_deref()))?;
    let Some((model, part)) = text.split_once('/') else {
        let variant = variant(&words(&text)).or_else(|| variant(&words(name)));
        return Some(kind(family_of_metadata(&text), variant.unwrap_or(Variant::Main)));
    };
    let of_part = MODELS_BEHIND_SLASH.iter().find(|(word, _)| part.eq_ignore_ascii_case(word));
    Some(match of_part {
        Some((_, variant)) => kind(family_of_metadata(model), *variant),
        None => kind(Told::Foreign(text), Variant::Other),
    })
}

/// A text of the metadata, cut: it is shown to people.
fn said(text: Option<&str>) -> Option<String> {
    let text: String = text?.trim().chars().filter(|letter| !letter.is_control()).take(80).collect();
    Some(text).filter(|text| !text.is_empty())
}

/// By the table; else by the words in it, which tools write as they please (`SDXL 1.0`); else by no family of ours.
fn family_of_metadata(text: &str) -> Told {
    let plain: String = text
        .to_lowercase()
        .chars()
        .map(|letter| if letter.is_alphanumeric() { letter } else { '-' })
        .collect();
    let begins =
        |start: &&str| plain.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    let length = |family: &Family| family.metadata.iter().copied().filter(begins).map(str::len).max();
    let longest = families::all()
        .filter_map(|family| Some((length(family)?, family)))
        .max_by_key(|(length, _)| *length);
    match longest {
        Some((_, family)) => Told::Family(family),
        None => family_of_words(&words(text)).map_or_else(|| Told::Foreign(text.to_owned()), Told::Family),
    }
}

/// By the words of the file's own name, else by those of the folders that it lies in.
fn by_name(name: &str) -> Kind {
    let (folders, file) = name.rsplit_once(['/', '\\']).unwrap_or(("", name));
    let (of_file, of_folders) = (words(file), words(folders));
    let says_something = |words: &[String]| families::all().any(|family| says(family, words));
    let family =
        if says_something(&of_file) { family_of_words(&of_file) } else { family_of_words(&of_folders) };
    let variant = variant(&of_file).or_else(|| variant(&of_folders)).unwrap_or(Variant::Main);
    match family {
        Some(family) => Kind { family: Told::Family(family), variant, evidence: Evidence::Name },
        None => Kind::unknown(variant),
    }
}

/// The one family whose own words are there, else the one that is hinted at. Two contradict each other.
fn family_of_words(words: &[String]) -> Option<&'static Family> {
    let said: Vec<_> = families::all().filter(|family| says_outright(family, words)).collect();
    if said.is_empty() {
        return only(families::all().filter(|family| hints_at(family, words)));
    }
    let is_meant = |family: &&'static Family| !said.iter().any(|other| other.over.contains(&family.name));
    only(said.iter().copied().filter(is_meant))
}

fn only(mut families: impl Iterator<Item = &'static Family>) -> Option<&'static Family> {
    families.next().filter(|_| families.next().is_none())
}

fn says(family: &Family, words: &[String]) -> bool {
    says_outright(family, words) || hints_at(family, words)
}

fn says_outright(family: &Family, words: &[String]) -> bool {
    family.words.iter().any(|phrase| has(words, phrase))
}

fn hints_at(family: &Family, words: &[String]) -> bool {
    family.hints.iter().any(|phrase| if *phrase == "xl" { says_xl(words) } else { has(words, phrase) })
}

/// Whether this is a word of the name.
pub fn has_word(name: &str, word: &str) -> bool {
    has(&words(name), word)
}

/// What words say that it is made for, if they say anything.
pub fn variant_of(name: &str) -> Option<Variant> {
    variant(&words(name))
}

fn variant(words: &[String]) -> Option<Variant> {
    VARIANTS.iter().find(|(phrase, _)| has(words, phrase)).map(|(_, variant)| *variant)
}

#[cfg(test)]
mod tests;
