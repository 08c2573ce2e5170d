//! What an image request asks for, and the job that it becomes. Pure: reading, ranges and defaults; no clock, no
//! engine, no HTTP.

use shared::openai::{
    fields::{FieldError, Fields},
    images::Size,
};

use crate::models::{Base, EngineModel, SCHEDULERS};

/// The largest seed that the engines take: 32 bits.
pub const MAX_SEED: u64 = u32::MAX as u64;

const MAX_PROMPT_CHARS: usize = 32_000;
const MAX_STEPS: u64 = 150;

/// What one request may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Pictures.
    pub max_n: u64,
    /// Pixels a picture.
    pub max_pixels: u64,
}

/// How a picture travels in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// `b64_json`.
    Base64,
    /// `url`.
    Address,
}

/// How much effort: scales the steps that are the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// Half of them.
    Low,
    /// As they are.
    Medium,
    /// Half as many again.
    High,
}

impl Quality {
    /// The name in the answer.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    const fn of(self, steps: u32) -> u32 {
        match self {
            Self::Low => steps.div_ceil(2),
            Self::Medium => steps,
            Self::High => steps + steps / 2,
        }
    }
}

/// A request for pictures, read and in range.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each field is the request's field of the same name")]
pub struct GenerationRequest {
    pub prompt: String,
    pub negative_prompt: String,
    pub model: Option<String>,
    pub n: u64,
    pub size: Option<Size>,
    pub seed: Option<u64>,
    pub steps: Option<u32>,
    pub cfg_scale: Option<f64>,
    pub scheduler: Option<String>,
    pub quality: Quality,
    pub delivery: Delivery,
}

impl GenerationRequest {
    /// Reads the request. Extensions have the names that existing clients send; the first name given counts.
    pub fn read(fields: &Fields, limits: Limits) -> Result<Self, FieldError> {
        refuse_unsupported(fields)?;
        let steps_name = fields.first_of(&["steps", "num_inference_steps"]);
        let cfg_name = fields.first_of(&["cfg_scale", "guidance_scale"]);
        let negative_name = fields.first_of(&["negative_prompt", "negative"]);
        let scheduler_name = fields.first_of(&["scheduler", "sampler"]);
        Ok(Self {
            prompt: prompt(fields, "prompt")?.ok_or_else(|| {
                FieldError::new("prompt", "prompt is required: say what the picture shows.")
            })?,
            negative_prompt: prompt(fields, negative_name)?.unwrap_or_default(),
            model: fields.text("model")?.map(str::trim).filter(|model| !model.is_empty()).map(str::to_owned),
            n: fields.integer("n", 1..=limits.max_n)?.unwrap_or(1),
            size: size(fields, limits.max_pixels)?,
            seed: fields.integer("seed", 0..=MAX_SEED)?,
            steps: fields.integer(steps_name, 1..=MAX_STEPS)?.map(narrow),
            cfg_scale: fields.number(cfg_name, 1.0..=30.0)?,
            scheduler: one_of(fields, scheduler_name, SCHEDULERS)?.map(str::to_owned),
            quality: quality(fields)?,
            delivery: match one_of(fields, "response_format", &["b64_json", "url"])? {
                Some("url") => Delivery::Address,
                _ => Delivery::Base64,
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

/// `auto` and nothing leave the size to the model.
fn size(fields: &Fields, max_pixels: u64) -> Result<Option<Size>, FieldError> {
    let text = match fields.text("size")? {
        None | Some("auto") => return Ok(None),
        Some(text) => text,
    };
    let expected = || {
        format!(
            "size must be auto or WIDTHxHEIGHT, both multiples of 8 and at least 64, with at most {max_pixels} pixels."
        )
    };
    Size::parse(text)
        .filter(|size| size.width % 8 == 0 && size.height % 8 == 0)
        .filter(|size| size.width >= 64 && size.height >= 64 && size.pixels() <= max_pixels)
        .map(Some)
        .ok_or_else(|| FieldError::new("size", expected()))
}

fn quality(fields: &Fields) -> Result<Quality, FieldError> {
    let known = ["auto", "low", "medium", "high", "standard", "hd", "xhigh", "max"];
    Ok(match one_of(fields, "quality", &known)? {
        Some("low") => Quality::Low,
        Some("high" | "hd" | "xhigh" | "max") => Quality::High,
        _ => Quality::Medium,
    })
}

/// What this version cannot do is refused where silence would give something else than was asked.
fn refuse_unsupported(fields: &Fields) -> Result<(), FieldError> {
    if fields.flag("stream")? == Some(true) {
        return Err(FieldError::new(
            "stream",
            "stream is not supported; leave it out to get the whole answer.",
        ));
    }
    if one_of(fields, "background", &["auto", "opaque", "transparent"])? == Some("transparent") {
        return Err(FieldError::new(
            "background",
            "background transparent is not possible: the models paint opaque.",
        ));
    }
    if one_of(fields, "output_format", &["png", "jpeg", "webp"])?.is_some_and(|format| format != "png") {
        return Err(FieldError::new("output_format", "output_format must be png."));
    }
    Ok(())
}

fn one_of<'a>(fields: &'a Fields, name: &str, known: &[&str]) -> Result<Option<&'a str>, FieldError> {
    let Some(text) = fields.text(name)? else { return Ok(None) };
    if known.contains(&text) {
        return Ok(Some(text));
    }
    Err(FieldError::new(name, format!("{name} must be one of {}.", known.join(", "))))
}

/// Work for the engine: everything decided.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each field says what it is by its name")]
pub struct Job {
    pub model: EngineModel,
    pub prompt: String,
    pub negative_prompt: String,
    pub size: Size,
    pub steps: u32,
    pub cfg_scale: f64,
    pub scheduler: String,
    /// One picture each, in this order.
    pub seeds: Vec<u32>,
    /// Whether the pictures stay out of the engine's own gallery.
    pub discard: bool,
}

impl Job {
    /// The smallest that has the engine load this model.
    pub fn warm_up(model: EngineModel) -> Self {
        let usual = Usual::of(model.base);
        Self {
            prompt: "warm-up".to_owned(),
            negative_prompt: String::new(),
            size: Size::new(64, 64),
            steps: 1,
            cfg_scale: usual.cfg_scale,
            scheduler: model.scheduler.clone().unwrap_or_else(|| USUAL_SCHEDULER.to_owned()),
            model,
            seeds: vec![0],
            discard: true,
        }
    }

    /// Decides what the request leaves open: the model's own settings, else those usual for its kind. `any_seed` is
    /// used if none is given. Seeds count up from the first and wrap at 32 bits, as the engines' do.
    pub fn plan(
        request: &GenerationRequest,
        model: EngineModel,
        any_seed: u32,
        limits: Limits,
    ) -> Result<Self, FieldError> {
        let usual = Usual::of(model.base);
        let size = request.size.or(model.size).unwrap_or(usual.size);
        if size.pixels() > limits.max_pixels {
            let message = format!(
                "size is not given, and the model's own, {size}, exceeds {} pixels.",
                limits.max_pixels
            );
            return Err(FieldError::new("size", message));
        }
        let first = request.seed.map_or(any_seed, narrow);
        Ok(Self {
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone(),
            size,
            steps: request.steps.unwrap_or_else(|| request.quality.of(model.steps.unwrap_or(usual.steps))),
            cfg_scale: request.cfg_scale.or(model.cfg_scale).unwrap_or(usual.cfg_scale),
            scheduler: request
                .scheduler
                .clone()
                .or_else(|| model.scheduler.clone())
                .unwrap_or_else(|| USUAL_SCHEDULER.to_owned()),
            seeds: (0..narrow(request.n)).map(|nth| first.wrapping_add(nth)).collect(),
            discard: false,
            model,
        })
    }
}

const USUAL_SCHEDULER: &str = "euler";

/// What a kind of model is usually run with.
struct Usual {
    size: Size,
    steps: u32,
    cfg_scale: f64,
}

impl Usual {
    const fn of(base: Base) -> Self {
        match base {
            Base::Sd1 => Self { size: Size::new(512, 512), steps: 30, cfg_scale: 7.5 },
            Base::Sdxl => Self { size: Size::new(1024, 1024), steps: 30, cfg_scale: 5.5 },
        }
    }
}

/// For numbers that were read with a range below 2^32.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).expect("read with a range that fits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LIMITS: Limits = Limits { max_n: 4, max_pixels: 2_000_000 };

    fn read(json: &serde_json::Value) -> Result<GenerationRequest, FieldError> {
        GenerationRequest::read(&Fields::parse(json.to_string().as_bytes()).unwrap(), LIMITS)
    }

    fn model(base: Base) -> EngineModel {
        EngineModel::plain("key", "name", base)
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        for (field, value, says) in [
            ("n", json!(0), "from 1 to 4"),
            ("n", json!(5), "from 1 to 4"),
            ("n", json!("2"), "from 1 to 4"),
            ("size", json!("513x512"), "multiples of 8"),
            ("size", json!("8x8"), "at least 64"),
            ("size", json!("2000x2000"), "at most 2000000 pixels"),
            ("size", json!("big"), "WIDTHxHEIGHT"),
            ("size", json!(512), "must be a string"),
            ("seed", json!(-1), "from 0 to 4294967295"),
            ("seed", json!(4_294_967_296_u64), "from 0 to 4294967295"),
            ("steps", json!(0), "from 1 to 150"),
            ("num_inference_steps", json!(151), "from 1 to 150"),
            ("cfg_scale", json!(0.5), "from 1 to 30"),
            ("guidance_scale", json!(31), "from 1 to 30"),
            ("scheduler", json!("magic"), "euler_a"),
            ("sampler", json!(1), "must be a string"),
            ("response_format", json!("file"), "b64_json, url"),
            ("quality", json!("ultra"), "low, medium"),
            ("background", json!("transparent"), "not possible"),
            ("output_format", json!("webp"), "must be png"),
            ("output_format", json!("gif"), "png, jpeg, webp"),
            ("stream", json!(true), "not supported"),
            ("stream", json!("yes"), "true or false"),
            ("prompt", json!(["a"]), "must be a string"),
            ("prompt", json!(null), "is required"),
            ("prompt", json!("x".repeat(32_001)), "at most 32000"),
        ] {
            let mut request = json!({"prompt": "a"});
            request[field] = value.clone();
            let error = read(&request).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(field), "{field}={value}: {error}");
            assert!(error.message.contains(says), "{field}={value}: {error}");
        }
    }

    #[test]
    fn openai_fields_without_meaning_here_are_ignored() {
        let request = read(&json!({"prompt": "a", "user": "u", "moderation": "low", "style": "vivid", "odd": [1],
            "stream": false, "background": "auto", "output_format": "png", "size": "auto", "partial_images": 2}))
        .unwrap();
        assert_eq!((request.n, request.size, request.delivery), (1, None, Delivery::Base64));
    }

    #[test]
    fn what_is_left_open_comes_from_the_model_then_from_its_kind() {
        let open = read(&json!({"prompt": "a", "quality": "hd", "n": 3, "seed": 4_294_967_295_u64})).unwrap();
        let job = Job::plan(&open, model(Base::Sdxl), 7, LIMITS).unwrap();
        assert_eq!((job.size, job.steps, job.scheduler.as_str()), (Size::new(1024, 1024), 45, "euler"));
        assert_eq!(job.seeds, [u32::MAX, 0, 1], "seeds wrap as the engine's do");
        let own = EngineModel { size: Some(Size::new(640, 512)), steps: Some(8), ..model(Base::Sd1) };
        let job =
            Job::plan(&read(&json!({"prompt": "a", "quality": "low"})).unwrap(), own, 7, LIMITS).unwrap();
        assert_eq!((job.size, job.steps, job.seeds), (Size::new(640, 512), 4, vec![7]));
    }

    #[test]
    fn what_is_given_wins() {
        let request =
            read(&json!({"prompt": "a", "negative": "b", "num_inference_steps": 9, "guidance_scale": 3,
            "sampler": "ddim", "size": "512x768", "quality": "hd", "seed": 5}))
            .unwrap();
        let job = Job::plan(&request, model(Base::Sd1), 7, LIMITS).unwrap();
        assert_eq!((job.steps, job.scheduler.as_str(), job.negative_prompt.as_str()), (9, "ddim", "b"));
        assert_eq!((job.size, job.seeds), (Size::new(512, 768), vec![5]));
    }

    #[test]
    fn the_models_own_size_is_bounded_too() {
        let request = read(&json!({"prompt": "a"})).unwrap();
        let limits = Limits { max_n: 1, max_pixels: 512 * 512 };
        let error = Job::plan(&request, model(Base::Sdxl), 7, limits).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("size"));
    }
}
