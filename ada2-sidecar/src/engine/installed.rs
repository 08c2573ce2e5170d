//! What models an engine has, asked by a command: unlike a survey it touches no job.

use std::sync::Arc;

use super::{Engine, EngineError, builtin};
use crate::models::{self, Declared, EngineModel};

impl Engine {
    /// Its models, of whatever kind.
    pub async fn installed(&self) -> Result<Arc<[EngineModel]>, EngineError> {
        match self {
            Self::InvokeAi(engine) => engine.installed().await,
            Self::ComfyUi(engine) => engine.installed().await,
            Self::Builtin(_) => Ok(builtin::models().into()),
        }
    }
}

/// What is worth a warning: models that are declared and not there, and those that nothing tells the kind of.
pub fn warnings(installed: &Arc<[EngineModel]>, declared: &[Declared]) -> Vec<String> {
    let models = models::apply(declared, installed);
    let unknown = models.iter().filter(|model| model.kind.is_unknown()).map(|model| {
        let name = &model.name;
        format!(
            "models: nothing tells what kind {name:?} is, so only a preset with a graph of its own can use it: declare it \
             (models: {{{name:?}: {{base: sd-1}}}}; or sdxl …)"
        )
    });
    models::missing(declared, installed).into_iter().chain(unknown).collect()
}
