//! The builtin engine: a procedural picture, for the quick start and for contract tests. It takes its time a step at
//! a time, as a real engine does, and every picture says that no model made it.

use std::{sync::Arc, time::Duration};

use image::{DynamicImage, ImageFormat, Rgb};
use picture::{Format, painter::ProceduralImage};
use wire::openai::images::ImageSize;

use super::{EngineError, EngineStatus, GeneratedImage, ImageEngine, JobContext, JobProgress, Preview};
use crate::images::{
    Job, SourceImage,
    models::{BaseModel, EngineModel},
    template::{Template, TemplateError},
};

const STEP: Duration = Duration::from_millis(20);
/// A preview's sides are this much shorter, as InvokeAI's are.
const PREVIEW_SCALE: u32 = 8;

/// Where a preset's template would decide, which nobody runs here.
const STEPS: u32 = 30;
const SIZE: ImageSize = ImageSize::new(512, 512);

/// The engine; it has no state.
#[derive(Debug, Clone, Copy)]
pub struct Builtin;

/// What it offers.
pub(super) fn models() -> [EngineModel; 2] {
    let model = |name, base| EngineModel::without_settings(name, name, base);
    [model("sd-xl-base-1.0", BaseModel::Sdxl), model("sd-v1-5", BaseModel::Sd1)]
}

impl ImageEngine for Builtin {
    async fn status(&self) -> Result<EngineStatus, EngineError> {
        Ok(EngineStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            warning: None,
            paused: false,
            busy: false,
            queue_depth: 0,
            others_waiting: 0,
            models: Arc::new(models()),
            unclassified_models: 0,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "a handful of pictures")]
    async fn run(&self, job: &Job, context: &JobContext) -> Result<Vec<GeneratedImage>, EngineError> {
        let (size, steps) = (job.size.unwrap_or(SIZE), job.steps.unwrap_or(STEPS));
        let mut images = Vec::with_capacity(job.seeds.len());
        for (index, &seed) in job.seeds.iter().enumerate() {
            for step in 0..steps {
                tokio::select! {
                    () = context.cancel.cancelled() => return Err(EngineError::Cancelled),
                    () = tokio::time::sleep(STEP) => {}
                }
                let within = f64::from(step + 1) / f64::from(steps);
                let fraction = (index as f64 + within) / job.seeds.len() as f64;
                let preview = job.previews.then(|| preview(&job.prompt, seed, size));
                context.progress.send_replace(JobProgress {
                    fraction,
                    image_index: index,
                    image_fraction: within,
                    preview,
                });
            }
            let (prompt, source) = (job.prompt.clone(), job.source.clone());
            let strength = job.strength.unwrap_or(1.0);
            let painting = tokio::task::spawn_blocking(move || {
                let painted = paint(&prompt, seed, size);
                match source {
                    Some(source) => blend_over_source(&source, strength, &painted),
                    None => Ok(painted),
                }
            });
            let bytes =
                painting.await.map_err(|_| EngineError::Failed("the painter panicked".to_owned()))??;
            images.push(GeneratedImage { bytes: bytes.into(), format: Format::Png, seed });
        }
        Ok(images)
    }

    async fn validate(&self, templates: &[&Template]) -> Result<Vec<Vec<TemplateError>>, EngineError> {
        let fault = || vec![TemplateError("the builtin engine runs no graphs".to_owned())];
        Ok(templates.iter().map(|_| fault()).collect())
    }
}

fn paint(prompt: &str, seed: u64, size: ImageSize) -> Vec<u8> {
    ProceduralImage { label: "ada2-sidecar builtin engine", prompt, seed, size }.to_png()
}

fn preview(prompt: &str, seed: u64, of: ImageSize) -> Preview {
    let size = ImageSize::new((of.width / PREVIEW_SCALE).max(8), (of.height / PREVIEW_SCALE).max(8));
    Preview { bytes: paint(prompt, seed, size).into(), format: Format::Png }
}

/// The painting over the source: where the mask is black, or everywhere, as far as the source is given up.
fn blend_over_source(source: &SourceImage, strength: f64, painted: &[u8]) -> Result<Vec<u8>, EngineError> {
    let decode = |bytes: &[u8]| {
        image::load_from_memory_with_format(bytes, ImageFormat::Png)
            .map_err(|error| EngineError::Failed(format!("a picture cannot be read: {error}")))
    };
    let mut blended = decode(&source.image)?.into_rgb8();
    let painted = decode(painted)?.into_rgb8();
    let mask = source.mask.as_deref().map(decode).transpose()?.map(DynamicImage::into_luma8);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of two bytes is one")]
    let mix = |was: u8, is: u8| (f64::from(was) * (1.0 - strength) + f64::from(is) * strength).round() as u8;
    for (x, y, pixel) in blended.enumerate_pixels_mut() {
        if mask.as_ref().is_none_or(|mask| mask.get_pixel(x, y)[0] == 0) {
            let Rgb([r, g, b]) = *painted.get_pixel(x, y);
            *pixel = Rgb([mix(pixel[0], r), mix(pixel[1], g), mix(pixel[2], b)]);
        }
    }
    let mut bytes = Vec::new();
    blended
        .write_to(&mut std::io::Cursor::new(&mut bytes), ImageFormat::Png)
        .map_err(|error| EngineError::Failed(format!("the picture cannot be written: {error}")))?;
    Ok(bytes)
}
