//! What ComfyUI calls the things that a proposal of bindings looks for: its own nodes', and those of common custom nodes.

use crate::images::template::{Pictures, ProposeRules, SizeInputs, Texts};

const NOT_IN_HISTORY: &str = "it sends its picture over the WebSocket and leaves none in the history, where the sidecar reads \
                              it: use SaveImage";

pub(super) const RULES: ProposeRules = ProposeRules {
    savers: &["SaveImage", "PreviewImage", "SaveImageAdvanced"],
    previews: &["Preview"],
    self_saving: &[("image_output", &["Save", "Hide/Save"])],
    saved: &["images", "image"],
    unreadable: &[("WebSocket", NOT_IN_HISTORY), ("Websocket", NOT_IN_HISTORY)],
    films: &[
        "Video",
        "video",
        "SaveAnimated",
        "SaveWEBM",
        "AnimateDiffCombine",
        "SaveAudio",
        "PreviewAudio",
        "VHS_",
        "SVD_img2vid",
    ],
    frames: &["length", "video_frames", "num_frames"],
    texts: Texts {
        positive: &["positive", "positive_prompt", "prompt_positive", "positive_text"],
        negative: &["negative", "negative_prompt", "neg_conditioning", "prompt_negative", "negative_text"],
        passes: &["conditioning", "cond"],
        encoder: &["text", "prompt", "text_g", "text_l", "clip_l", "clip_g", "t5xxl", "llama"],
        parts: &[
            "text", "string", "value", "prompt", "part", "wildcard", "input", "prefix", "suffix", "any",
            "on_true", "on_false",
        ],
        zeroed: &["ConditioningZeroOut"],
    },
    seeds: &["seed", "noise_seed", "rand_seed"],
    steps: &["steps"],
    cfg: &["cfg"],
    guidance: &["guidance"],
    schedulers: &["sampler_name", "scheduler"],
    scheduler_classes: &[],
    sizes: SizeInputs {
        latents: &[
            (&["Empty", "Latent"], "width", "height"),
            (&[], "empty_latent_width", "empty_latent_height"),
        ],
        agreeing: &[
            ("Flux2Scheduler", "width", "height"),
            ("ModelSamplingFlux", "width", "height"),
            ("CLIPTextEncodeSDXL", "width", "height"),
            ("CLIPTextEncodeSDXL", "target_width", "target_height"),
        ],
        scalers: &["Scale", "Upscale", "Resize"],
    },
    pictures: Pictures {
        loaders: &["LoadImage"],
        images: &["image"],
        masks: &[],
        mask_loaders: &["LoadImageMask"],
        to_mask: &["ImageToMask", "Image To Mask", "ImageColorToMask"],
        transparency: Some("1"),
        repaint: &["Inpaint", "NoiseMask", "Composite", "BrushNet", "PowerPaint", "Fill"],
        inverters: &["Invert"],
        unusable: &["Base64", "Output", "URL", "Url", "Path", "Folder", "Dir"],
        references: &[],
        strength: &["denoise"],
        start: &[],
        latents: &["latent_image"],
        noise_masks: &["NoiseMask"],
        noise_mask_inputs: &[],
    },
    models: &["unet_name", "ckpt_name"],
    model_loaders: &[],
    loras: &["lora_name"],
    batches: &["batch_size"],
    record: None,
};
