//! The table of model families: how engines, files and people name each one. What runs a family is each engine's matter
//! (`images/graph_set.rs`).

mod others;

use self::others::OTHERS;

/// A family of models.
#[derive(Debug)]
pub struct Family {
    /// Its name in the configuration, and in InvokeAI's list of models (`base`).
    pub name: &'static str,
    /// Its name in messages.
    pub label: &'static str,
    /// How a file's own metadata may call it: `modelspec.architecture` and `ss_base_model_version`, in lower case with `-`
    /// between words. Each is also the beginning of longer ones: `stable-diffusion-xl-v1` of `stable-diffusion-xl-v1-base`.
    pub metadata_prefixes: &'static [&'static str],
    /// Phrases in a file name that identify it, in the syntax of `tokens::contains_phrase`.
    pub phrases: &'static [&'static str],
    /// Phrases that suggest it, unless the name has another family's `phrases` as well.
    pub hints: &'static [&'static str],
    /// Families whose phrases also match its names (`flux 2` contains `flux`, and means this one), or whose tensors are named
    /// and shaped like its own.
    pub overrides: &'static [&'static str],
}

const EMPTY_FAMILY: Family =
    Family { name: "", label: "", metadata_prefixes: &[], phrases: &[], hints: &[], overrides: &[] };

/// Stable Diffusion 1.5.
pub static SD_1: Family = Family {
    name: "sd-1",
    label: "SD 1.5",
    metadata_prefixes: &[
        "stable-diffusion-v1",
        "stable-diffusion-1",
        "sd-v1",
        "sd-1",
        "sd1",
        "sd-15",
        "sd15",
        "sd-1x",
        "sd1x",
    ],
    phrases: &[
        "sd 1 4",
        "sd 1 5",
        "sd 14",
        "sd 15",
        "sd 1 x",
        "sd v 1",
        "sd v 14",
        "sd v 15",
        "sdv 1 4",
        "sdv 1 5",
        "sdv 15",
        "stable diffusion 1 5",
        "stable diffusion v 1",
        "^v 1 4",
        "^v 1 5",
        "v 1 5 pruned",
        "*emaonly",
    ],
    ..EMPTY_FAMILY
};

/// Stable Diffusion XL.
pub static SDXL: Family = Family {
    name: "sdxl",
    label: "SDXL",
    metadata_prefixes: &["stable-diffusion-xl", "segmind-stable-diffusion-1b", "sdxl", "sd-xl"],
    phrases: &["*sdxl*", "sd xl", "stable diffusion xl"],
    hints: &[
        "pony",
        "ponydiffusion*",
        "ponyrealism*",
        "*illustrious",
        "illustrious*",
        "noob",
        "noobai*",
        "animagine",
        "xl",
    ],
    ..EMPTY_FAMILY
};

/// Families are equal if their names are.
impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Family {}

/// All families.
pub fn all() -> impl Iterator<Item = &'static Family> {
    [&SD_1, &SDXL].into_iter().chain(OTHERS)
}

/// The family with this name in the configuration.
pub fn by_name(name: &str) -> Option<&'static Family> {
    all().find(|family| family.name.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_phrase_belongs_to_one_family() {
        let assert_unique = |of: fn(&Family) -> &[&'static str]| {
            let all: Vec<_> = all().flat_map(|family| of(family).iter().copied()).collect();
            let different: HashSet<_> = all.iter().copied().collect();
            assert_eq!(all.len(), different.len(), "{all:?}");
        };
        assert_unique(|family| family.phrases);
        assert_unique(|family| family.metadata_prefixes);
        let names: HashSet<_> = all().map(|family| family.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|family| !family.name.is_empty() && !family.label.is_empty()));
    }
}
