//! What InvokeAI calls the things that a proposal of bindings looks for.

use crate::images::template::{Pictures, ProposeRules, SizeInputs, Texts};

/// The schedulers of most models that are trained for flow matching.
const SHORT_LIST: &[&str] = &["euler", "heun", "lcm"];

pub(super) const RULES: ProposeRules = ProposeRules {
    savers: &["l2i", "canvas_paste_back", "save_image"],
    previews: &[],
    self_saving: &[],
    saved: &["latents", "image", "target_image"],
    unreadable: &[],
    films: &["video", "i2v", "t2v"],
    frames: &["num_frames"],
    texts: Texts {
        positive: &["positive_conditioning", "positive_text_conditioning"],
        negative: &["negative_conditioning", "negative_text_conditioning"],
        passes: &["item", "collection", "conditioning"],
        encoder: &["prompt", "style"],
        parts: &["value", "string", "prompt", "text"],
        zeroed: &[],
    },
    seeds: &["seed"],
    steps: &["steps", "num_steps"],
    cfg: &["cfg_scale", "guidance_scale"],
    guidance: &["guidance"],
    schedulers: &["scheduler"],
    scheduler_classes: &[
        ("denoise_latents", &[]),
        ("anima_denoise", &["euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "er_sde", "lcm"]),
        ("flux_denoise", SHORT_LIST),
        ("flux2_denoise", SHORT_LIST),
        ("z_image_denoise", SHORT_LIST),
        ("ernie_image_denoise", SHORT_LIST),
    ],
    sizes: SizeInputs {
        latents: &[(&["noise"], "width", "height"), (&["_denoise"], "width", "height")],
        agreeing: &[
            ("sdxl_compel_prompt", "original_width", "original_height"),
            ("sdxl_compel_prompt", "target_width", "target_height"),
        ],
        scalers: &["img_resize", "img_scale", "lscale", "lresize", "upscale"],
    },
    pictures: Pictures {
        loaders: &[],
        images: &["image", "source_image"],
        masks: &["mask"],
        mask_loaders: &["image_mask_to_tensor"],
        to_mask: &["image_mask_to_tensor"],
        transparency: None,
        repaint: &[],
        inverters: &[],
        unusable: &[],
        references: &["flux_kontext", "krea2_style_reference", "image"],
        strength: &[],
        start: &["denoising_start"],
        latents: &["latents"],
        noise_masks: &[],
        noise_mask_inputs: &["denoise_mask"],
    },
    models: &["model"],
    model_loaders: &["model_loader"],
    loras: &["lora"],
    batches: &[],
    record: Some((
        "core_metadata",
        &[
            ("prompt", "positive_prompt"),
            ("negative_prompt", "negative_prompt"),
            ("seed", "seed"),
            ("steps", "steps"),
            ("cfg_scale", "cfg_scale"),
            ("cfg_scale", "guidance"),
            ("scheduler", "scheduler"),
            ("width", "width"),
            ("height", "height"),
            ("model", "model"),
        ],
    )),
};
