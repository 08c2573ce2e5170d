//! Reads a request: every known field within its range, or an error that names the field.

use picture::Format;
use wire::openai::{
    fields::{FieldError, Fields},
    images::ImageSize,
};

use super::{loras, models::LoraChoice, to_u32};

/// The fields that are read, on both routes.
pub const REQUEST_FIELDS: &[&str] = &[
    "prompt",
    "negative_prompt",
    "negative",
    "model",
    "n",
    "size",
    "seed",
    "steps",
    "num_inference_steps",
    "cfg_scale",
    "guidance_scale",
    "scheduler",
    "sampler",
    "strength",
    "loras",
    "quality",
    "response_format",
    "output_format",
    "output_compression",
    "background",
    "stream",
    "partial_images",
    "safety_identifier",
];
const MAX_PROMPT_CHARS: usize = 32_000;
const MAX_STEPS: u64 = 150;
/// Small, and without visible loss.
const DEFAULT_COMPRESSION: u8 = 90;

/// The limits of one request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Images.
    pub max_n: u64,
    /// Pixels per image.
    pub max_pixels: u64,
    /// The largest seed that the engine takes: all bits of its width.
    pub max_seed: u64,
    /// The engine's names of schedulers.
    pub schedulers: &'static [&'static str],
}

/// Which route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageRoute {
    /// `/v1/images/generations`.
    Generations,
    /// `/v1/images/edits`.
    Edits,
}

/// How an image is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFormat {
    /// `b64_json`.
    B64Json,
    /// `url`.
    Url,
}

/// The file format of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// Its format.
    pub format: Format,
    /// The quality of JPEG and WebP, 0 to 100.
    pub quality: u8,
}

/// Scales the default steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// Half.
    Low,
    /// Unchanged.
    Medium,
    /// One and a half times.
    High,
}

impl Quality {
    /// Its name in the response.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    pub(super) const fn scale_steps(self, steps: u32) -> u32 {
        match self {
            Self::Low => steps.div_ceil(2),
            Self::Medium => steps,
            Self::High => steps + steps / 2,
        }
    }
}

/// The names that the request uses for parameters with several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the name of the parameter of that name")]
pub struct ParameterNames {
    pub steps: &'static str,
    pub cfg_scale: &'static str,
    pub negative_prompt: &'static str,
    pub scheduler: &'static str,
}

/// A valid request.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each field is the request's field of the same name")]
pub struct ImageRequest {
    pub prompt: String,
    pub negative_prompt: String,
    pub model: Option<String>,
    pub n: u64,
    pub size: Option<ImageSize>,
    pub seed: Option<u64>,
    pub steps: Option<u32>,
    pub cfg_scale: Option<f64>,
    pub scheduler: Option<String>,
    pub strength: Option<f64>,
    /// None: the preset's.
    pub loras: Option<Vec<LoraChoice>>,
    pub quality: Quality,
    pub response_format: ResponseFormat,
    pub output: Output,
    /// How many previews to stream; None without streaming.
    pub partial_images: Option<u8>,
    pub safety_identifier: Option<String>,
    pub parameter_names: ParameterNames,
}

impl ImageRequest {
    /// Reads the request. Extensions have the names that existing clients send; the first one present counts.
    pub fn read(fields: &Fields, limits: Limits) -> Result<Self, FieldError> {
        let steps_name = fields.first_present(&["steps", "num_inference_steps"]);
        let cfg_name = fields.first_present(&["cfg_scale", "guidance_scale"]);
        let negative_name = fields.first_present(&["negative_prompt", "negative"]);
        let scheduler_name = fields.first_present(&["scheduler", "sampler"]);
        let n = fields.integer("n", 1..=limits.max_n)?.unwrap_or(1);
        background(fields)?;
        Ok(Self {
            prompt: prompt(fields, "prompt")?
                .ok_or_else(|| FieldError::new("prompt", "prompt is required: describe the image."))?,
            negative_prompt: prompt(fields, negative_name)?.unwrap_or_default(),
            model: fields.name("model")?.map(str::trim).filter(|model| !model.is_empty()).map(str::to_owned),
            n,
            size: size(fields, limits.max_pixels)?,
            seed: fields.seed("seed", limits.max_seed)?,
            steps: fields.integer(steps_name, 1..=MAX_STEPS)?.map(to_u32),
            cfg_scale: guidance(fields, cfg_name)?,
            scheduler: one_of(fields, scheduler_name, limits.schedulers)?.map(str::to_owned),
            strength: fields.number("strength", 0.0..=1.0)?,
            loras: loras::read(fields)?,
            quality: quality(fields)?,
            response_format: match one_of(fields, "response_format", &["b64_json", "url"])? {
                Some("url") => ResponseFormat::Url,
                _ => ResponseFormat::B64Json,
            },
            output: output(fields)?,
            partial_images: stream(fields, n)?,
            safety_identifier: fields.name("safety_identifier")?.map(str::to_owned),
            parameter_names: ParameterNames {
                steps: steps_name,
                cfg_scale: cfg_name,
                negative_prompt: negative_name,
                scheduler: scheduler_name,
            },
        })
    }
}

fn prompt(fields: &Fields, name: &str) -> Result<Option<String>, FieldError> {
    let Some(text) = fields.text(name)? else { return Ok(None) };
    if text.chars().count() > MAX_PROMPT_CHARS {
        return Err(FieldError::new(
            name,
            format!("{name} must have at most {MAX_PROMPT_CHARS} characters."),
        ));
    }
    Ok(Some(text.to_owned()))
}

/// Some servers write "no guidance" as 0; the engines write it as 1.
fn guidance(fields: &Fields, name: &str) -> Result<Option<f64>, FieldError> {
    match fields.number(name, 0.0..=30.0) {
        Ok(Some(0.0)) => Ok(Some(1.0)),
        Ok(scale) if scale.is_none_or(|scale| scale >= 1.0) => Ok(scale),
        _ => Err(FieldError::new(name, format!("{name} must be 0 (none) or a number from 1 to 30."))),
    }
}

/// `auto` and no value leave the size to the model.
fn size(fields: &Fields, max_pixels: u64) -> Result<Option<ImageSize>, FieldError> {
    let text = match fields.text("size")? {
        None | Some("auto") => return Ok(None),
        Some(text) => text,
    };
    let expected = || {
        format!(
            "size must be auto or WIDTHxHEIGHT, both multiples of 8 and at least 64, with at most {max_pixels} pixels."
        )
    };
    ImageSize::parse(text)
        .filter(|size| size.width % 8 == 0 && size.height % 8 == 0)
        .filter(|size| size.width >= 64 && size.height >= 64 && size.pixels() <= max_pixels)
        .map(Some)
        .ok_or_else(|| FieldError::new("size", expected()))
}

fn quality(fields: &Fields) -> Result<Quality, FieldError> {
    let allowed = ["auto", "low", "medium", "high", "standard", "hd", "xhigh", "max"];
    Ok(match one_of(fields, "quality", &allowed)? {
        Some("low") => Quality::Low,
        Some("high" | "hd" | "xhigh" | "max") => Quality::High,
        _ => Quality::Medium,
    })
}

fn background(fields: &Fields) -> Result<(), FieldError> {
    if one_of(fields, "background", &["auto", "opaque", "transparent"])? == Some("transparent") {
        return Err(FieldError::new(
            "background",
            "background must be auto or opaque: transparent images are not possible.",
        ));
    }
    Ok(())
}

fn output(fields: &Fields) -> Result<Output, FieldError> {
    let format = match one_of(fields, "output_format", &["png", "jpeg", "jpg", "webp", "gif", "svg"])? {
        None | Some("png") => Format::Png,
        Some("webp") => Format::Webp,
        Some(unable @ ("gif" | "svg")) => {
            let message = format!("output_format {unable} is not possible: use png, jpeg or webp.");
            return Err(FieldError::new("output_format", message));
        }
        Some(_) => Format::Jpeg,
    };
    let quality = fields.integer("output_compression", 0..=100)?;
    let quality = quality.map_or(DEFAULT_COMPRESSION, |percent| u8::try_from(percent).expect("at most 100"));
    Ok(Output { format, quality })
}

/// A stream has one completed event and so one image.
fn stream(fields: &Fields, n: u64) -> Result<Option<u8>, FieldError> {
    let partials = fields.integer("partial_images", 0..=3)?.unwrap_or(0);
    if fields.boolean("stream")? != Some(true) {
        return Ok(None);
    }
    if n > 1 {
        return Err(FieldError::new("n", "n must be 1 with stream."));
    }
    Ok(Some(u8::try_from(partials).expect("at most 3")))
}

fn one_of<'a>(fields: &'a Fields, name: &str, allowed: &[&str]) -> Result<Option<&'a str>, FieldError> {
    let Some(text) = fields.text(name)? else { return Ok(None) };
    if allowed.contains(&text) {
        return Ok(Some(text));
    }
    Err(FieldError::new(name, format!("{name} must be one of {}.", allowed.join(", "))))
}
