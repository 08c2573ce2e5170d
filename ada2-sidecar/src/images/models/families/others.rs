//! All families besides SD 1.5 and SDXL. Whether anything runs one of them, the graphs of an engine say.

use super::{EMPTY_FAMILY, Family};

pub(super) static OTHERS: &[Family] = &[
    Family {
        name: "sd-2",
        label: "SD 2",
        metadata_prefixes: &["stable-diffusion-v2", "stable-diffusion-2", "sd-v2", "sd-2", "sd2"],
        phrases: &[
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
        ..EMPTY_FAMILY
    },
    Family {
        name: "sd-3",
        label: "SD 3",
        metadata_prefixes: &[
            "stable-diffusion-v3",
            "stable-diffusion-3",
            "sd-3",
            "sd3",
            "sd3m",
            "sd35",
            "sd-35",
        ],
        phrases: &[
            "sd 3",
            "sd 35",
            "sdv 3",
            "stable diffusion 3",
            "stable diffusion 35",
            "stable diffusion v 3",
        ],
        ..EMPTY_FAMILY
    },
    Family {
        name: "flux2",
        label: "FLUX.2",
        metadata_prefixes: &["flux-2", "flux2"],
        phrases: &["flux 2", "flux klein"],
        hints: &["klein"],
        overrides: &["flux"],
    },
    Family {
        name: "flux3",
        label: "FLUX.3",
        metadata_prefixes: &["flux-3", "flux3"],
        phrases: &["flux 3"],
        overrides: &["flux", "flux2"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "flux",
        label: "FLUX.1",
        metadata_prefixes: &["flux-1", "flux1", "flux"],
        phrases: &["flux*"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "chroma",
        label: "Chroma",
        metadata_prefixes: &["chroma"],
        phrases: &["chroma"],
        overrides: &["flux"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "z-image",
        label: "Z-Image",
        metadata_prefixes: &["z-image", "zimage"],
        phrases: &["z image", "zimage*"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "qwen-image",
        label: "Qwen-Image",
        metadata_prefixes: &["qwen-image", "qwen"],
        phrases: &["qwen*"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "krea-2",
        label: "Krea 2",
        metadata_prefixes: &["krea-2", "krea2"],
        phrases: &["krea 2"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "anima",
        label: "Anima",
        metadata_prefixes: &["anima"],
        phrases: &["anima base", "anima preview", "anima turbo"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "cogview4",
        label: "CogView 4",
        metadata_prefixes: &["cogview"],
        phrases: &["cogview*", "cog view"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "moss-image",
        label: "MOSS-Image",
        metadata_prefixes: &["moss-image"],
        phrases: &["moss image"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "longcat-image",
        label: "LongCat-Image",
        metadata_prefixes: &["longcat-image"],
        phrases: &["longcat*", "long cat"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "ovis-image",
        label: "Ovis-Image",
        metadata_prefixes: &["ovis-image"],
        phrases: &["ovis image"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "ernie-image",
        label: "ERNIE-Image",
        metadata_prefixes: &["ernie-image"],
        phrases: &["ernie"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "ideogram-4",
        label: "Ideogram 4",
        metadata_prefixes: &["ideogram-4"],
        phrases: &["ideogram*"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "lumina-2",
        label: "Lumina 2",
        metadata_prefixes: &["lumina"],
        phrases: &["lumina*", "netayume*", "neta yume"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "hidream",
        label: "HiDream",
        metadata_prefixes: &["hidream"],
        phrases: &["hidream*", "hi dream"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "auraflow",
        label: "AuraFlow",
        metadata_prefixes: &["auraflow"],
        phrases: &["aura flow", "auraflow*", "pony v 7", "pony 7", "pony diffusion v 7", "ponydiffusion v 7"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "pixart",
        label: "PixArt",
        metadata_prefixes: &["pixart"],
        phrases: &["pixart*", "pix art"],
        ..EMPTY_FAMILY
    },
    Family { name: "kolors", label: "Kolors", phrases: &["kolors"], ..EMPTY_FAMILY },
    Family {
        name: "omnigen",
        label: "OmniGen",
        metadata_prefixes: &["omnigen"],
        phrases: &["omnigen*", "omni gen"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "stable-cascade",
        label: "Stable Cascade",
        metadata_prefixes: &["stable-cascade"],
        phrases: &["stable cascade"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "svd",
        label: "Stable Video Diffusion",
        metadata_prefixes: &["stable-video-diffusion"],
        phrases: &["svd", "sv 3", "sv 4", "stable video"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "ltx",
        label: "LTX Video",
        metadata_prefixes: &["lightricks-ltx", "ltx"],
        phrases: &["ltx*"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "wan",
        label: "Wan Video",
        metadata_prefixes: &["wan"],
        phrases: &["wan"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "hunyuan",
        label: "Hunyuan",
        metadata_prefixes: &["hunyuan", "hunyuanvideo"],
        phrases: &["hunyuan*", "hun yuan"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "cogvideox",
        label: "CogVideoX",
        metadata_prefixes: &["cogvideox"],
        phrases: &["cogvideo*", "cog video"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "mochi",
        label: "Mochi",
        metadata_prefixes: &["genmo-mochi"],
        phrases: &["mochi preview", "genmo*"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "cosmos",
        label: "Cosmos",
        metadata_prefixes: &["nvidia-cosmos"],
        phrases: &["cosmos predict", "cosmos 1"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "stable-zero123",
        label: "Stable Zero123",
        phrases: &["zero 123"],
        overrides: &["sd-1"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "stable-audio",
        label: "Stable Audio",
        metadata_prefixes: &["stable-audio"],
        phrases: &["stable audio"],
        hints: &["audio"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "ace-step",
        label: "ACE-Step",
        metadata_prefixes: &["ace-step"],
        phrases: &["ace step", "acestep*"],
        ..EMPTY_FAMILY
    },
    Family {
        name: "sam",
        label: "Segment Anything",
        phrases: &["sam 2", "sam 3", "sam vit", "segment anything"],
        ..EMPTY_FAMILY
    },
    Family { name: "sdpose", label: "SDPose", phrases: &["sdpose*", "sd pose"], ..EMPTY_FAMILY },
    Family { name: "yue", label: "YuE", phrases: &["yue"], ..EMPTY_FAMILY },
];
