//! The builtin engine: a procedural picture, for the quick start and for contract tests. It takes its time a step at
//! a time, as a real engine does, and every picture says that no model made it.

use std::{sync::Arc, time::Duration};

use image::{DynamicImage, ImageFormat, Rgb};
use picture::{Format, paint::Painting};
use wire::openai::images::Size;

use super::{Desk, EngineError, ImageEngine, Picture, Preview, Progress, Survey};
use crate::images::{
    Job, Source,
    models::{Base, EngineModel},
    template::{Fault, Template},
};

const STEP: Duration = Duration::from_millis(20);
/// A preview's sides are this much shorter, as InvokeAI's are.
const PREVIEW_SCALE: u32 = 8;

/// Where a preset's template would decide, which nobody runs here.
const STEPS: u32 = 30;
const SIZE: Size = Size::new(512, 512);

/// The engine; it has no state.
#[derive(Debug, Clone, Copy)]
pub struct Builtin;

/// What it offers.
pub(super) fn models() -> [EngineModel; 2] {
    let model = |name, base| EngineModel::plain(name, name, base);
    [model("sd-xl-base-1.0", Base::Sdxl), model("sd-v1-5", Base::Sd1)]
}

impl ImageEngine for Builtin {
    async fn survey(&self) -> Result<Survey, EngineError> {
        Ok(Survey {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            caution: None,
            paused: false,
            busy: false,
            queue_depth: 0,
            others_waiting: 0,
            models: Arc::new(models()),
            unread: 0,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "a handful of pictures")]
    async fn run(&self, job: &Job, desk: &Desk) -> Result<Vec<Picture>, EngineError> {
        let (size, steps) = (job.size.unwrap_or(SIZE), job.steps.unwrap_or(STEPS));
        let mut pictures = Vec::with_capacity(job.seeds.len());
        for (picture, &seed) in job.seeds.iter().enumerate() {
            for step in 0..steps {
                tokio::select! {
                    () = desk.cancel.cancelled() => return Err(EngineError::Cancelled),
                    () = tokio::time::sleep(STEP) => {}
                }
                let within = f64::from(step + 1) / f64::from(steps);
                let fraction = (picture as f64 + within) / job.seeds.len() as f64;
                let preview = job.previews.then(|| preview(&job.prompt, seed, size));
                desk.progress.send_replace(Progress { fraction, picture, within, preview });
            }
            let (prompt, source) = (job.prompt.clone(), job.source.clone());
            let strength = job.strength.unwrap_or(1.0);
            let painting = tokio::task::spawn_blocking(move || {
                let painted = paint(&prompt, seed, size);
                match source {
                    Some(source) => over(&source, strength, &painted),
                    None => Ok(painted),
                }
            });
            let bytes =
                painting.await.map_err(|_| EngineError::Failed("the painter panicked".to_owned()))??;
            pictures.push(Picture { bytes: bytes.into(), format: Format::Png, seed });
        }
        Ok(pictures)
    }

    async fn vet(&self, templates: &[&Template]) -> Result<Vec<Vec<Fault>>, EngineError> {
        let fault = || vec![Fault("the builtin engine runs no graphs".to_owned())];
        Ok(templates.iter().map(|_| fault()).collect())
    }
}

fn paint(prompt: &str, seed: u64, size: Size) -> Vec<u8> {
    Painting { painter: "ada2-sidecar builtin engine", prompt, seed, size }.to_png()
}

fn preview(prompt: &str, seed: u64, of: Size) -> Preview {
    let size = Size::new((of.width / PREVIEW_SCALE).max(8), (of.height / PREVIEW_SCALE).max(8));
    Preview { bytes: paint(prompt, seed, size).into(), format: Format::Png }
}

/// The painting over the source: where the mask is black, or everywhere, as far as the source is given up.
fn over(source: &Source, strength: f64, painted: &[u8]) -> Result<Vec<u8>, EngineError> {
    let decode = |bytes: &[u8]| {
        image::load_from_memory_with_format(bytes, ImageFormat::Png)
            .map_err(|error| EngineError::Failed(format!("a picture cannot be read: {error}")))
    };
    let mut picture = decode(&source.picture)?.into_rgb8();
    let painted = decode(painted)?.into_rgb8();
    let mask = source.mask.as_deref().map(decode).transpose()?.map(DynamicImage::into_luma8);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of two bytes is one")]
    let mix = |was: u8, is: u8| (f64::from(was) * (1.0 - strength) + f64::from(is) * strength).round() as u8;
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        if mask.as_ref().is_none_or(|mask| mask.get_pixel(x, y)[0] == 0) {
            let Rgb([r, g, b]) = *painted.get_pixel(x, y);
            *pixel = Rgb([mix(pixel[0], r), mix(pixel[1], g), mix(pixel[2], b)]);
        }
    }
    let mut bytes = Vec::new();
    picture
        .write_to(&mut std::io::Cursor::new(&mut bytes), ImageFormat::Png)
        .map_err(|error| EngineError::Failed(format!("the picture cannot be written: {error}")))?;
    Ok(bytes)
}
