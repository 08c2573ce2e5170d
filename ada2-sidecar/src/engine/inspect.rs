//! What models an engine has, what it says it is and whether its events come, asked by a command: unlike a survey it
//! touches no job.

use std::sync::Arc;

use super::{Engine, EngineError, builtin, event_probe};
use crate::images::{
    choice,
    models::{self, EngineModel, ModelDeclaration, Preset},
};

/// What an engine says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineIdentity {
    /// Its version.
    pub version: String,
    /// Why this version wants attention, if it does.
    pub warning: Option<String>,
}

impl Engine {
    /// Its version; an error if what answers is another engine, or one too old to work with.
    pub async fn identity(&self) -> Result<EngineIdentity, EngineError> {
        match self {
            Self::InvokeAi(engine) => engine.identity().await,
            Self::ComfyUi(engine) => engine.identity().await,
            Self::Builtin(_) => {
                Ok(EngineIdentity { version: env!("CARGO_PKG_VERSION").to_owned(), warning: None })
            }
        }
    }

    /// Whether its events can be followed: connects to its WebSocket and waits for the engine's first frame.
    pub async fn check_events(&self) -> Result<(), String> {
        match self {
            Self::InvokeAi(engine) => event_probe::probe(engine.events_url(), "0{").await,
            Self::ComfyUi(engine) => event_probe::probe(engine.events_url(), "{\"type\"").await,
            Self::Builtin(_) => Ok(()),
        }
    }

    /// Its models, of whatever kind.
    pub async fn list_models(&self) -> Result<Arc<[EngineModel]>, EngineError> {
        match self {
            Self::InvokeAi(engine) => engine.list_models().await,
            Self::ComfyUi(engine) => engine.list_models().await,
            Self::Builtin(_) => Ok(builtin::models().into()),
        }
    }
}

/// What is worth a warning: models that are declared or named by a preset and not there, and those that nothing tells the
/// kind of.
pub fn model_warnings(
    installed: &Arc<[EngineModel]>,
    declared: &[ModelDeclaration],
    presets: &[Arc<Preset>],
) -> Vec<String> {
    let models = models::apply_declarations(declared, installed);
    let unknown = models.iter().filter(|model| model.kind.is_unknown()).map(|model| {
        let name = &model.name;
        format!(
            "models: nothing tells what kind {name:?} is, so only a preset with a graph of its own can use it: declare it \
             (models: {{{name:?}: {{base: sd-1}}}}; or sdxl …)"
        )
    });
    let lost = presets.iter().filter_map(|preset| {
        let model = preset.model.as_deref().filter(|model| !choice::has_model(&models, model))?;
        let name = &preset.name;
        Some(format!(
            "presets: {name:?} names the model {model:?}, which the engine does not have: correct the name, or install it"
        ))
    });
    models::undeclared_model_warnings(declared, installed).into_iter().chain(lost).chain(unknown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::models::BaseModel;

    #[test]
    fn a_preset_whose_model_is_not_there_is_warned_of() {
        let models: Arc<[_]> = Arc::new([EngineModel::without_settings("k", "mine", BaseModel::Sdxl)]);
        let preset = |model: Option<&str>| {
            Arc::new(Preset { name: "p".into(), model: model.map(str::to_owned), ..Preset::default() })
        };
        let told = |model| model_warnings(&models, &[], &[preset(model)]);
        for there in [None, Some("K"), Some("Mine"), Some("sd-xl-base-1.0")] {
            assert_eq!(told(there), [""; 0], "{there:?}");
        }
        assert!(told(Some("gone"))[0].starts_with("presets: \"p\" names the model \"gone\""));
    }
}
