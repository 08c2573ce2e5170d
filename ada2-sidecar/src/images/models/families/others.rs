//! The rows of the families that no built-in graph serves: they are told apart, and need a graph of their own.

use super::{Family, ROW};

/// Those that no built-in graph serves.
pub(super) static OTHERS: &[Family] = &[
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
        words: &["aura flow", "auraflow*", "pony v 7", "pony 7", "pony diffusion v 7", "ponydiffusion v 7"],
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
