//! What models an engine has, asked by a command: unlike a survey it touches no job.

use std::sync::Arc;

use super::{Engine, EngineError, builtin, catalog};
use crate::models::{self, Declared, EngineModel, Preset};

impl Engine {
    /// Its version: proof that it is this engine and not whatever else listens there.
    pub async fn version(&self) -> Result<String, EngineError> {
        match self {
            Self::InvokeAi(engine) => engine.version().await,
            Self::ComfyUi(engine) => engine.version().await,
            Self::Builtin(_) => Ok(env!("CARGO_PKG_VERSION").to_owned()),
        }
    }

    /// Its models, of whatever kind.
    pub async fn installed(&self) -> Result<Arc<[EngineModel]>, EngineError> {
        match self {
            Self::InvokeAi(engine) => engine.installed().await,
            Self::ComfyUi(engine) => engine.installed().await,
            Self::Builtin(_) => Ok(builtin::models().into()),
        }
    }
}

/// What is worth a warning: models that are declared or named by a preset and not there, and those that nothing tells the
/// kind of.
pub fn warnings(
    installed: &Arc<[EngineModel]>,
    declared: &[Declared],
    presets: &[Arc<Preset>],
) -> Vec<String> {
    let models = models::apply(declared, installed);
    let unknown = models.iter().filter(|model| model.kind.is_unknown()).map(|model| {
        let name = &model.name;
        format!(
            "models: nothing tells what kind {name:?} is, so only a preset with a graph of its own can use it: declare it \
             (models: {{{name:?}: {{base: sd-1}}}}; or sdxl …)"
        )
    });
    let lost = presets.iter().filter_map(|preset| {
        let model = preset.model.as_deref().filter(|model| !catalog::has(&models, model))?;
        let name = &preset.name;
        Some(format!(
            "presets: {name:?} names the model {model:?}, which the engine does not have: correct the name, or install it"
        ))
    });
    models::missing(declared, installed).into_iter().chain(lost).chain(unknown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Base;

    #[test]
    fn a_preset_whose_model_is_not_there_is_warned_of() {
        let models: Arc<[_]> = Arc::new([EngineModel::plain("k", "mine", Base::Sdxl)]);
        let preset = |model: Option<&str>| {
            Arc::new(Preset { name: "p".into(), model: model.map(str::to_owned), ..Preset::default() })
        };
        let told = |model| warnings(&models, &[], &[preset(model)]);
        for there in [None, Some("K"), Some("Mine"), Some("sd-xl-base-1.0")] {
            assert_eq!(told(there), [""; 0], "{there:?}");
        }
        assert!(told(Some("gone"))[0].starts_with("presets: \"p\" names the model \"gone\""));
    }
}
