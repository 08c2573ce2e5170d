//! What to warn about in `models` and `presets` once the engine's models are known.

use std::sync::Arc;

use super::{
    choice,
    models::{self, EngineModel, ModelDeclaration, Preset},
};

/// Models that are declared or named by a preset and missing, and models whose type is unknown.
pub fn model_warnings(
    installed: &Arc<[EngineModel]>,
    declared: &[ModelDeclaration],
    presets: &[Arc<Preset>],
) -> Vec<String> {
    let models = models::apply_declarations(declared, installed);
    let unknown = models.iter().filter(|model| model.kind.is_unknown()).map(|model| {
        let name = &model.name;
        format!(
            "models: cannot detect the kind of {name:?}, so only a preset with a graph of its own can use it: declare it \
             (models: {{{name:?}: {{base: sd-1}}}}; or sdxl …)"
        )
    });
    let missing = presets.iter().filter_map(|preset| {
        let model = preset.model.as_deref().filter(|model| !choice::has_model(&models, model))?;
        let name = &preset.name;
        Some(format!(
            "presets: {name:?} names the model {model:?}, which the engine does not have: fix the name, or install the model"
        ))
    });
    models::undeclared_model_warnings(declared, installed).into_iter().chain(missing).chain(unknown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::models::SDXL;

    #[test]
    fn a_preset_with_a_missing_model_is_a_warning() {
        let models: Arc<[_]> = Arc::new([EngineModel::in_process("k", "mine", &SDXL)]);
        let preset = |model: Option<&str>| {
            Arc::new(Preset { name: "p".into(), model: model.map(str::to_owned), ..Preset::default() })
        };
        let warnings = |model| model_warnings(&models, &[], &[preset(model)]);
        for there in [None, Some("K"), Some("Mine"), Some("sd-xl-base-1.0")] {
            assert_eq!(warnings(there), [""; 0], "{there:?}");
        }
        assert!(warnings(Some("gone"))[0].starts_with("presets: \"p\" names the model \"gone\""));
    }
}
