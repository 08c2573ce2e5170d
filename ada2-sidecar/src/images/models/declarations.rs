//! What the configuration declares about models (`models: {name: {base: …}}`), before all other evidence.

use std::sync::Arc;

use super::{
    DetectedFamily, EngineModel, Evidence, ModelKind, ModelVariant, completion::with_kind, families::Family,
};

/// What is declared about one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelDeclaration {
    /// The engine model's key or name.
    pub model: String,
    /// Its family.
    pub family: &'static Family,
    /// Its variant; None: as detected.
    pub variant: Option<ModelVariant>,
}

impl ModelDeclaration {
    /// Whether it refers to this model.
    pub fn applies_to(&self, model: &EngineModel) -> bool {
        model.matches_name(&self.model)
    }

    fn override_kind(&self, detected: &ModelKind) -> ModelKind {
        // The variant of something that is not a model means nothing.
        let default = if matches!(detected.family, DetectedFamily::Unlisted(_)) {
            ModelVariant::Main
        } else {
            detected.variant
        };
        // That comes from where the file lies, and cannot be declared.
        let variant = if detected.variant == ModelVariant::Split {
            ModelVariant::Split
        } else {
            self.variant.unwrap_or(default)
        };
        ModelKind { family: DetectedFamily::Known(self.family), variant, evidence: Evidence::Declared }
    }
}

/// The engine's models, with the declared kinds.
pub fn apply_declarations(declared: &[ModelDeclaration], models: &Arc<[EngineModel]>) -> Arc<[EngineModel]> {
    if declared.is_empty() {
        return models.clone();
    }
    let of = |model: &EngineModel| declared.iter().find(|declared| declared.applies_to(model));
    let with = |model: &EngineModel| match of(model) {
        Some(declared) => with_kind(model, declared.override_kind(&model.kind)),
        None => model.clone(),
    };
    models.iter().map(with).collect()
}

/// A warning for each declared model that the engine does not have.
pub fn undeclared_model_warnings(declared: &[ModelDeclaration], models: &[EngineModel]) -> Vec<String> {
    let is_missing = |declared: &&ModelDeclaration| !models.iter().any(|model| declared.applies_to(model));
    let warning = |declared: &ModelDeclaration| {
        format!(
            "models: {:?} is declared, but the engine has no such model: fix the name or remove the entry",
            declared.model
        )
    };
    declared.iter().filter(is_missing).map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::models::{SD_1, families};

    #[test]
    fn declarations_win_over_everything_else() {
        let file = |file: &str, kind| EngineModel {
            kind,
            ..EngineModel::in_process(file, file.trim_end_matches(".ckpt"), &SD_1)
        };
        let foreign = ModelKind {
            family: DetectedFamily::Unlisted("x/lora".into()),
            ..ModelKind::unknown(ModelVariant::Other)
        };
        let models: Arc<[_]> = Arc::new([
            file("dreamshaper_8.ckpt", ModelKind::unknown(ModelVariant::Main)),
            file("mine-inpainting.ckpt", ModelKind::unknown(ModelVariant::Inpaint)),
            file("odd.ckpt", foreign),
            file("plain.ckpt", ModelKind::main(&families::SD_1, Evidence::Name)),
            file("unet.ckpt", ModelKind::unknown(ModelVariant::Split)),
        ]);
        let say =
            |model: &str, family, variant| ModelDeclaration { model: model.to_owned(), family, variant };
        let declared = [
            say("DreamShaper_8", &families::SD_1, None),
            say("mine-inpainting.ckpt", &families::SD_1, None),
            say("odd", &families::SDXL, None),
            say("plain", &families::SDXL, Some(ModelVariant::Refiner)),
            say("unet", &families::SDXL, Some(ModelVariant::Main)),
            say("gone", &families::SDXL, None),
        ];
        let kinds: Vec<_> =
            apply_declarations(&declared, &models).iter().map(|model| model.kind.to_string()).collect();
        assert_eq!(
            kinds,
            [
                "SD 1.5",
                "SD 1.5 inpainting",
                "SDXL",
                "SDXL refiner",
                "SDXL, a diffusion model without text encoder and VAE"
            ]
        );
        assert_eq!(undeclared_model_warnings(&declared, &models).len(), 1);
        assert!(undeclared_model_warnings(&declared, &models)[0].contains("\"gone\" is declared"));
        assert!(Arc::ptr_eq(&apply_declarations(&[], &models), &models));
    }
}
