//! The table of all parameters: OpenAI's and extensions. The reference is tested against it. Malformed values are always
//! 400; parameters that are not in the table are ignored.

/// How a parameter is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It has its effect.
    Works,
    /// It is checked and has no effect: clients send it without needing it.
    Ignored,
    /// Some values are rejected with the reason; the others work.
    Partly,
    /// It is 400, with what to send instead.
    Rejected,
}

/// One parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name and aliases.
    pub names: &'static [&'static str],
    /// How it is treated.
    pub treatment: Treatment,
    /// Its description in the reference.
    pub description: &'static str,
}

const fn row(names: &'static [&'static str], treatment: Treatment, description: &'static str) -> Parameter {
    Parameter { names, treatment, description }
}

/// All parameters.
pub const PARAMETERS: &[Parameter] = &[
    row(&["prompt"], Treatment::Works, "required, up to 32,000 characters"),
    row(
        &["model"],
        Treatment::Works,
        "an engine model's key or name, a preset, `sd-xl-base-1.0` or `sd-v1-5`; OpenAI's names or none: the default; a model that cannot be used is 400 with the reason, an unknown one 404 with a list (see *Models*)",
    ),
    row(
        &["n"],
        Treatment::Works,
        "1 to `max_n`, with consecutive seeds; all images or an error; 1 with `stream`",
    ),
    row(
        &["size"],
        Treatment::Works,
        "`WxH` from 64, up to `max_pixels`, in multiples of the model's `capabilities.size.multiple`: 8 for SD 1.5 and SDXL, 16 or 32 for most families; `auto` or none: the default of the model or workflow, for edits the size of the upright source image; rejected if a template takes no size",
    ),
    row(
        &["quality"],
        Treatment::Works,
        "`low` half, `high`, `hd`, `xhigh`, `max` one and a half times the usual steps, or the workflow's own; `steps` wins",
    ),
    row(
        &["response_format"],
        Treatment::Works,
        "`b64_json` (default) or `url`: an address on this server, kept for the last 128 MiB of images",
    ),
    row(&["output_format"], Treatment::Partly, "`png`, `jpeg`, `webp`; `gif` and `svg` are rejected"),
    row(
        &["output_compression"],
        Treatment::Works,
        "0 to 100, the quality of `jpeg` and `webp`; no effect for `png`",
    ),
    row(&["background"], Treatment::Partly, "`auto`, `opaque`; `transparent` is rejected"),
    row(&["stream"], Treatment::Works, "server-sent events as OpenAI's"),
    row(&["partial_images"], Treatment::Works, "0 to 3 of the engine's own previews, with `stream`"),
    row(
        &["image", "image[]"],
        Treatment::Partly,
        "edits: PNG, JPEG or WebP up to 40 megapixels each, rotated by their EXIF orientation, in the order of the form's parts, or of their indices (`image[0]`), then those in `ref_images`; in JSON `image` or `images`, a `data:` URL, `{\"image_url\": \"data:…\"}` or a list of these; at most 16, and as many as the model takes (`capabilities.max_images`); rejected for new images, as are `mask` and `ref_images`",
    ),
    row(
        &["mask"],
        Treatment::Works,
        "edits: transparent where to repaint, rotated by its EXIF orientation; without one, the image's own transparency",
    ),
    row(
        &["markup"],
        Treatment::Rejected,
        "draw the marks into `image` and say in `prompt` what they mean, or send a `mask`",
    ),
    row(&["style"], Treatment::Ignored, "describe it in the prompt"),
    row(&["moderation"], Treatment::Ignored, "there is no moderation"),
    row(&["user"], Treatment::Ignored, "users are not distinguished"),
    row(
        &["safety_identifier"],
        Treatment::Works,
        "returned in the response (not in a stream's events); users are not distinguished",
    ),
    row(&["input_fidelity"], Treatment::Ignored, "use `strength`"),
    row(
        &["seed"],
        Treatment::Works,
        "0 to 4294967295, with ComfyUI to 18446744073709551615; -1 or none: random; the same request and seed give the same image",
    ),
    row(&["steps", "num_inference_steps"], Treatment::Works, "1 to 150"),
    row(&["cfg_scale", "guidance_scale"], Treatment::Works, "1 to 30; 0 and 1 turn guidance off"),
    row(&["negative_prompt", "negative"], Treatment::Works, "up to 32,000 characters"),
    row(&["scheduler", "sampler"], Treatment::Works, "one of InvokeAI's names, on every engine"),
    row(
        &["strength"],
        Treatment::Works,
        "edits: 0 (the image unchanged) to 1 (nothing of it remains); usually 0.75, with a mask 1; no effect where images are references",
    ),
    row(
        &["loras"],
        Treatment::Works,
        "a list of up to 8 `{\"name\", \"weight\"}`, weights from -4 to 4 (usually 1); the names that `/v1/models/{id}` lists for the model; in a form as JSON text",
    ),
];
