//! The table of model families: what engines, files and people call each, and which built-in graphs serve it. One more family
//! is one more row.

use super::Base;

/// A family of models.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its word in the configuration.
    pub name: &'static str,
    /// For people.
    pub label: &'static str,
    /// What InvokeAI calls it (`base` in its list of models).
    pub invokeai: &'static [&'static str],
    /// How a file's own metadata may call it: `modelspec.architecture` and `ss_base_model_version`, in lower case with `-`
    /// between words. Each is also the beginning of longer ones: `stable-diffusion-xl-v1` of `stable-diffusion-xl-v1-base`.
    pub metadata: &'static [&'static str],
    /// Words of a name that say nothing else, as `super::words::has` reads them.
    pub words: &'static [&'static str],
    /// Words that say it unless another family's own words are in the name as well.
    pub hints: &'static [&'static str],
    /// Families whose words are said with its own: `flux 2` is a `flux`, and means this one.
    pub over: &'static [&'static str],
    /// The built-in graphs that serve it.
    pub graphs: Option<Base>,
}

const ROW: Family = Family {
    name: "",
    label: "",
    invokeai: &[],
    metadata: &[],
    words: &[],
    hints: &[],
    over: &[],
    graphs: None,
};

/// Stable Diffusion 1.5.
pub(super) static SD_1: Family = Family {
    name: "sd-1",
    label: "SD 1.5",
    invokeai: &["sd-1"],
    metadata: &[
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
    words: &[
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
    graphs: Some(Base::Sd1),
    ..ROW
};

/// Stable Diffusion XL.
pub(super) static SDXL: Family = Family {
    name: "sdxl",
    label: "SDXL",
    invokeai: &["sdxl", "sdxl-refiner"],
    metadata: &["stable-diffusion-xl", "segmind-stable-diffusion-1b", "sdxl", "sd-xl"],
    words: &["*sdxl*", "sd xl", "stable diffusion xl"],
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
    graphs: Some(Base::Sdxl),
    ..ROW
};

/// Those that no built-in graph serves.
static OTHERS: &[Family] = &[
    Family {
        name: "sd-2",
        label: "SD 2",
        invokeai: &["sd-2"],
        metadata: &["stable-diffusion-v2", "stable-diffusion-2", "sd-v2", "sd-2", "sd2"],
        words: &[
            "sd 2",
            "sd 2 1",
            "sd 20",
            "sd 21",
            "sd v 2",
            "sdv 2",
            "stable diffusion 2",
            "stable diffusion v 2",
            "^v 2 0",
            "^v 2 1",
            "sd turbo",
            "^wd 1 5",
            "^512 base ema",
            "^512 inpainting ema",
            "^512 depth ema",
            "^768 v ema",
            "x 4 upscaler",
        ],
        ..ROW
    },
    Family {
        name: "sd-3",
        label: "SD 3",
        invokeai: &["sd-3"],
        metadata: &["stable-diffusion-v3", "stable-diffusion-3", "sd-3", "sd3", "sd3m", "sd35", "sd-35"],
        words: &["sd 3", "sd 35", "sdv 3", "stable diffusion 3", "stable diffusion v 3"],
        ..ROW
    },
    Family {
        name: "flux2",
        label: "FLUX.2",
        invokeai: &["flux2"],
        metadata: &["flux-2", "flux2"],
        words: &["flux 2"],
        hints: &["klein"],
        over: &["flux"],
        ..ROW
    },
    Family {
        name: "flux3",
        label: "FLUX.3",
        invokeai: &["flux3"],
        metadata: &["flux-3", "flux3"],
        words: &["flux 3"],
        over: &["flux"],
        ..ROW
    },
    Family {
        name: "flux",
        label: "FLUX.1",
        invokeai: &["flux"],
        metadata: &["flux-1", "flux1", "flux"],
        words: &["flux*"],
        ..ROW
    },
    Family {
        name: "chroma",
        label: "Chroma",
        metadata: &["chroma"],
        words: &["chroma"],
        over: &["flux"],
        ..ROW
    },
    Family {
        name: "z-image",
        label: "Z-Image",
        invokeai: &["z-image"],
        metadata: &["z-image", "zimage"],
        words: &["z image", "zimage*"],
        ..ROW
    },
    Family {
        name: "qwen-image",
        label: "Qwen-Image",
        invokeai: &["qwen-image"],
        metadata: &["qwen-image", "qwen"],
        words: &["qwen*"],
        ..ROW
    },
    Family {
        name: "krea-2",
        label: "Krea 2",
        invokeai: &["krea-2"],
        metadata: &["krea-2", "krea2"],
        words: &["krea 2"],
        ..ROW
    },
    Family {
        name: "anima",
        label: "Anima",
        invokeai: &["anima"],
        metadata: &["anima"],
        words: &["anima base", "anima preview", "anima turbo"],
        ..ROW
    },
    Family { name: "cogview4", label: "CogView 4", invokeai: &["cogview4"], words: &["cogview*"], ..ROW },
    Family {
        name: "ernie-image",
        label: "ERNIE-Image",
        invokeai: &["ernie-image"],
        metadata: &["ernie-image"],
        words: &["ernie"],
        ..ROW
    },
    Family {
        name: "ideogram-4",
        label: "Ideogram 4",
        invokeai: &["ideogram-4"],
        metadata: &["ideogram-4"],
        words: &["ideogram*"],
        ..ROW
    },
    Family {
        name: "lumina-2",
        label: "Lumina 2",
        metadata: &["lumina"],
        words: &["lumina*", "netayume*"],
        ..ROW
    },
    Family {
        name: "hidream",
        label: "HiDream",
        metadata: &["hidream"],
        words: &["hidream*", "hi dream"],
        ..ROW
    },
    Family {
        name: "auraflow",
        label: "AuraFlow",
        metadata: &["auraflow"],
        words: &["aura flow", "auraflow*", "pony v 7"],
        ..ROW
    },
    Family { name: "pixart", label: "PixArt", metadata: &["pixart"], words: &["pixart*", "pix art"], ..ROW },
    Family { name: "kolors", label: "Kolors", words: &["kolors"], ..ROW },
    Family {
        name: "omnigen",
        label: "OmniGen",
        metadata: &["omnigen"],
        words: &["omnigen*", "omni gen"],
        ..ROW
    },
    Family {
        name: "stable-cascade",
        label: "Stable Cascade",
        metadata: &["stable-cascade"],
        words: &["stable cascade"],
        ..ROW
    },
    Family {
        name: "svd",
        label: "Stable Video Diffusion",
        metadata: &["stable-video-diffusion"],
        words: &["svd", "sv 3", "sv 4", "stable video"],
        ..ROW
    },
    Family { name: "ltx", label: "LTX Video", metadata: &["lightricks-ltx", "ltx"], words: &["ltx*"], ..ROW },
    Family {
        name: "wan",
        label: "Wan Video",
        invokeai: &["wan"],
        metadata: &["wan"],
        words: &["wan"],
        ..ROW
    },
    Family {
        name: "hunyuan",
        label: "Hunyuan",
        metadata: &["hunyuan", "hunyuanvideo"],
        words: &["hunyuan*", "hun yuan"],
        ..ROW
    },
    Family {
        name: "mochi",
        label: "Mochi",
        metadata: &["genmo-mochi"],
        words: &["mochi preview", "genmo*"],
        ..ROW
    },
    Family {
        name: "cosmos",
        label: "Cosmos",
        metadata: &["nvidia-cosmos"],
        words: &["cosmos predict", "cosmos 1"],
        ..ROW
    },
    Family { name: "stable-zero123", label: "Stable Zero123", words: &["zero 123"], ..ROW },
    Family {
        name: "stable-audio",
        label: "Stable Audio",
        metadata: &["stable-audio"],
        words: &["stable audio"],
        hints: &["audio"],
        ..ROW
    },
    Family {
        name: "ace-step",
        label: "ACE-Step",
        metadata: &["ace-step"],
        words: &["ace step", "acestep*"],
        ..ROW
    },
    Family {
        name: "sam",
        label: "Segment Anything",
        words: &["sam 2", "sam 3", "sam vit", "segment anything"],
        ..ROW
    },
    Family { name: "sdpose", label: "SDPose", words: &["sdpose*", "sd pose"], ..ROW },
    Family { name: "yue", label: "YuE", words: &["yue"], ..ROW },
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Family> {
    [&SD_1, &SDXL].into_iter().chain(OTHERS.iter())
}

/// The family of this word in the configuration.
pub fn named(name: &str) -> Option<&'static Family> {
    all().find(|family| family.name.eq_ignore_ascii_case(name))
}

/// The family that InvokeAI calls so.
pub fn of_invokeai(base: &str) -> Option<&'static Family> {
    all().find(|family| family.invokeai.contains(&base))
}

impl Base {
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
        words(|family| family.words);
        words(|family| family.metadata);
        words(|family| family.invokeai);
        let names: HashSet<_> = all().map(|family| family.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(all().all(|family| !family.name.is_empty() && !family.label.is_empty()));
    }

    #[test]
    fn graphs_and_families_name_each_other() {
        for base in [Base::Sd1, Base::Sdxl] {
            assert_eq!(base.family().graphs, Some(base));
        }
        assert_eq!(all().filter(|family| family.graphs.is_some()).count(), 2);
    }
}
