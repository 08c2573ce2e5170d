//! The builtin engine: a procedural picture, for the quick start and for contract tests. It takes its time a step at
//! a time, as a real engine does, and every picture says that no model made it.

use std::{sync::Arc, time::Duration};

use shared::picture::{Format, paint::Painting};

use super::{Desk, EngineError, ImageEngine, Picture, Survey};
use crate::{
    images::Job,
    models::{Base, EngineModel},
};

const STEP: Duration = Duration::from_millis(20);

/// The engine; it has no state.
#[derive(Debug, Clone, Copy)]
pub struct Builtin;

impl ImageEngine for Builtin {
    async fn survey(&self) -> Result<Survey, EngineError> {
        let models = [
            EngineModel::plain("sd-xl-base-1.0", "sd-xl-base-1.0", Base::Sdxl),
            EngineModel::plain("sd-v1-5", "sd-v1-5", Base::Sd1),
        ];
        Ok(Survey {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            caution: None,
            paused: false,
            busy: false,
            queue_depth: 0,
            others_waiting: 0,
            models: Arc::new(models),
        })
    }

    async fn run(&self, job: &Job, desk: &Desk) -> Result<Vec<Picture>, EngineError> {
        let mut pictures = Vec::with_capacity(job.seeds.len());
        for &seed in &job.seeds {
            for _ in 0..job.steps {
                tokio::select! {
                    () = desk.cancel.cancelled() => return Err(EngineError::Cancelled),
                    () = tokio::time::sleep(STEP) => {}
                }
            }
            let (prompt, size) = (job.prompt.clone(), job.size);
            let painting = tokio::task::spawn_blocking(move || {
                Painting {
                    painter: "ada2-sidecar builtin engine",
                    prompt: &prompt,
                    seed: u64::from(seed),
                    size,
                }
                .to_png()
            });
            let bytes = painting.await.map_err(|_| EngineError::Failed("the painter panicked".to_owned()))?;
            pictures.push(Picture { bytes: bytes.into(), format: Format::Png, seed });
        }
        Ok(pictures)
    }
}
