//! The builtin engine: procedural images, for the quick start and for contract tests. Each step takes time, as in a real
//! engine, and every image is marked as made without a model.

use std::{future::ready, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use image::{DynamicImage, ImageFormat, Rgb};
use picture::{Format, painter::ProceduralImage};
use wire::openai::images::ImageSize;

use super::{
    EngineAccess, EngineError, EngineIdentity, EngineSpec, EngineStatus, GeneratedImage, ImageEngine,
    JobContext, JobOutcome, JobProgress, Preview, invokeai,
};
use crate::images::{
    Job, SourceImages,
    models::{EngineModel, SD_1, SDXL},
    template::{Template, TemplateError},
};

pub(super) const SPEC: EngineSpec = EngineSpec {
    name: "builtin",
    default_unit: "ada2-sidecar.service",
    // It takes what InvokeAI takes, templates included, so that a configuration can be tried without a GPU.
    max_seed: invokeai::SPEC.max_seed,
    schedulers: invokeai::SPEC.schedulers,
    graphs: None,
    graph_format: invokeai::SPEC.graph_format,
    access: EngineAccess::InProcess(|| Arc::new(Builtin)),
};

const STEP: Duration = Duration::from_millis(20);
/// A preview's sides are this many times shorter, as InvokeAI's are.
const PREVIEW_SCALE: u32 = 8;

/// For what a preset's template would decide: none is run here.
const STEPS: u32 = 30;
const SIZE: ImageSize = ImageSize::new(512, 512);

/// The engine; it has no state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Builtin;

fn models() -> [EngineModel; 2] {
    let model = |name, family| EngineModel::in_process(name, name, family);
    [model("sd-xl-base-1.0", &SDXL), model("sd-v1-5", &SD_1)]
}

impl Builtin {
    #[expect(clippy::cast_precision_loss, reason = "a handful of images")]
    async fn generate(job: &Job, context: &JobContext) -> JobOutcome {
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
}

impl ImageEngine for Builtin {
    fn status(&self) -> BoxFuture<'_, Result<EngineStatus, EngineError>> {
        let status = EngineStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            warning: None,
            paused: false,
            busy: false,
            queue_depth: 0,
            others_waiting: 0,
            models: Arc::new(models()),
            loras: Arc::default(),
            unclassified_models: 0,
        };
        ready(Ok(status)).boxed()
    }

    fn run<'a>(&'a self, job: &'a Job, context: &'a JobContext) -> BoxFuture<'a, JobOutcome> {
        Self::generate(job, context).boxed()
    }

    fn validate<'a>(
        &'a self,
        templates: &'a [&'a Template],
    ) -> BoxFuture<'a, Result<Vec<Vec<TemplateError>>, EngineError>> {
        let error = || vec![TemplateError("the builtin engine runs no graphs".to_owned())];
        ready(Ok(templates.iter().map(|_| error()).collect())).boxed()
    }

    fn identity(&self) -> BoxFuture<'_, Result<EngineIdentity, EngineError>> {
        ready(Ok(EngineIdentity { version: env!("CARGO_PKG_VERSION").to_owned(), warning: None })).boxed()
    }

    fn list_models(&self) -> BoxFuture<'_, Result<Arc<[EngineModel]>, EngineError>> {
        ready(Ok(models().into())).boxed()
    }

    fn check_events(&self) -> BoxFuture<'_, Result<(), String>> {
        ready(Ok(())).boxed()
    }

    fn follow_events(self: Arc<Self>) -> Option<BoxFuture<'static, ()>> {
        None
    }

    fn runs_graphs(&self) -> bool {
        false
    }
}

fn paint(prompt: &str, seed: u64, size: ImageSize) -> Vec<u8> {
    ProceduralImage { label: "ada2-sidecar builtin engine", prompt, seed, size }.to_png()
}

fn preview(prompt: &str, seed: u64, of: ImageSize) -> Preview {
    let size = ImageSize::new((of.width / PREVIEW_SCALE).max(8), (of.height / PREVIEW_SCALE).max(8));
    Preview { bytes: paint(prompt, seed, size).into(), format: Format::Png }
}

/// Blends the painting over the source, where the mask is black or everywhere; `strength` is the painting's share.
fn blend_over_source(source: &SourceImages, strength: f64, painted: &[u8]) -> Result<Vec<u8>, EngineError> {
    let decode = |bytes: &[u8]| {
        image::load_from_memory_with_format(bytes, ImageFormat::Png)
            .map_err(|error| EngineError::Failed(format!("cannot decode the image: {error}")))
    };
    let mut blended = decode(&source.images[0])?.into_rgb8();
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
        .map_err(|error| EngineError::Failed(format!("cannot encode the image: {error}")))?;
    Ok(bytes)
}
