//! The table of model families: what engines, files and people call each, and which built-in graphs serve it. One more family
//! is one more row.

mod unsupported;

use self::unsupported::UNSUPPORTED;
use super::BaseModel;

/// A family of models.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its word in the configuration.
    pub name: &'static str,
    /// For people.
    pub label: &'static str,
    /// What InvokeAI calls it (`base` in its list of models).
    pub invokeai_bases: &'static [&'static str],
    /// How a file's own metadata may call it: `modelspec.architecture` and `ss_base_model_version`, in lower case with `-`
    /// between words. Each is also the beginning of longer ones: `stable-diffusion-xl-v1` of `stable-diffusion-xl-v1-base`.
    pub metadata_prefixes: &'static [&'static str],
    /// Words of a name that say nothing else, as `super::words::has` reads them.
    pub phrases: &'static [&'static str],
    /// Words that say it unless another family's own words are in the name as well.
    pub hints: &'static [&'static str],
    /// Families whose words are said with its own: `flux 2` is a `flux`, and means this one.
    pub overrides: &'static [&'static str],
    /// The built-in graphs that serve it.
    pub graphs: Option<BaseModel>,
}

const EMPTY_FAMILY: Family = Family {
    name: "",
    label: "",
    invokeai_bases: &[],
    metadata_prefixes: &[],
    phrases: &[],
    hints: &[],
    overrides: &[],
    graphs: None,
};

/// Stable Diffusion 1.5.
pub(super) static SD_1: Family = Family {
    name: "sd-1",
    label: "SD 1.5",
    invokeai_bases: &["sd-1"],
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
    graphs: Some(BaseModel::Sd1),
    ..EMPTY_FAMILY
};

/// Stable Diffusion XL.
pub(super) static SDXL: Family = Family {
    name: "sdxl",
    label: "SDXL",
    invokeai_bases: &["sdxl", "sdxl-refiner"],
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
    graphs: Some(BaseModel::Sdxl),
    ..EMPTY_FAMILY
};

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Family> {
    [&SD_1, &SDXL].into_iter().chain(UNSUPPORTED.iter())
}

/// The family of this word in the configuration.
pub fn by_name(name: &str) -> Option<&'static Family> {
    all().find(|family| family.name.eq_ignore_ascii_case(name))
}

/// The family that InvokeAI calls so.
pub fn by_invokeai_base(base: &str) -> Option<&'static Family> {
    all().find(|family| family.invokeai_bases.contains(&base))
}

impl BaseModel {
    /// The family that these graphs are for.
    pub const fn family(self) -> &'static Family {
        match self {
            Self::Sd1 => &SD_1,
            Self::Sdxl => &SDXL,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_word_means_one_family() {
        let words = |of: fn(&Family) -> &[&'static str]| {
            let all: Vec<_> = all().flat_map(|family| of(family).iter().copied()).collect();
            let different: HashSet<_> = all.iter().copied().collect();
            assert_eq!(all.len(), different.len(), "{all:?}");
        };
        words(|family| family.phrases);
        words(|family| family.metadata_prefixes);
        words(|family| family.invokeai_bases);
        let names: HashSet<_> = all().map(|family| family.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|family| !family.name.is_empty() && !family.label.is_empty()));
    }

    #[test]
    fn graphs_and_families_name_each_other() {
        for base in [BaseModel::Sd1, BaseModel::Sdxl] {
            assert_eq!(base.family().graphs, Some(base));
        }
        assert_eq!(all().filter(|family| family.graphs.is_some()).count(), 2);
    }
}
