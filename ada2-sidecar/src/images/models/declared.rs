//! What the configuration says of models (`models: {name: {base: …}}`): it counts before everything else. Pure.

use std::sync::Arc;

use super::{EngineModel, Evidence, Kind, Told, Variant, families::Family};

/// What is said of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The engine model's key or name.
    pub model: String,
    /// Its family.
    pub family: &'static Family,
    /// What it is made for; none where that stays as engine, metadata or name tell.
    pub variant: Option<Variant>,
}

impl Declared {
    /// Whether it is about this model.
    pub fn is_of(&self, model: &EngineModel) -> bool {
        model.is_called(&self.model)
    }

    fn kind(&self, told: &Kind) -> Kind {
        // What was told of something else says nothing of this.
        let kept = if matches!(told.family, Told::Foreign(_)) { Variant::Main } else { told.variant };
        // Where a file lies is no matter of opinion.
        let variant =
            if told.variant == Variant::Split { Variant::Split } else { self.variant.unwrap_or(kept) };
        Kind { family: Told::Family(self.family), variant, evidence: Evidence::Declared }
    }
}

/// The engine's models, of the kinds that are declared.
pub fn apply(declared: &[Declared], models: &Arc<[EngineModel]>) -> Arc<[EngineModel]> {
    if declared.is_empty() {
        return models.clone();
    }
    let of = |model: &EngineModel| declared.iter().find(|declared| declared.is_of(model));
    let with = |model: &EngineModel| match of(model) {
        Some(declared) => EngineModel { kind: declared.kind(&model.kind), ..model.clone() },
        None => model.clone(),
    };
    models.iter().map(with).collect()
}

/// What is said of models that the engine does not have, a sentence each.
pub fn missing(declared: &[Declared], models: &[EngineModel]) -> Vec<String> {
    let is_missing = |declared: &&Declared| !models.iter().any(|model| declared.is_of(model));
    let words = |declared: &Declared| {
        format!(
            "models: {:?} is declared, but the engine has no such model: correct the name, or take it out",
            declared.model
        )
    };
    declared.iter().filter(is_missing).map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::models::{Base, families};

    #[test]
    fn what_is_declared_counts_before_everything_else() {
        let file = |file: &str, kind| EngineModel {
            kind,
            ..EngineModel::plain(file, file.trim_end_matches(".ckpt"), Base::Sd1)
        };
        let foreign = Kind { family: Told::Foreign("x/lora".into()), ..Kind::unknown(Variant::Other) };
        let models: Arc<[_]> = Arc::new([
            file("dreamshaper_8.ckpt", Kind::unknown(Variant::Main)),
            file("mine-inpainting.ckpt", Kind::unknown(Variant::Inpaint)),
            file("odd.ckpt", foreign),
            file("plain.ckpt", Kind::main(&families::SD_1, Evidence::Name)),
            file("unet.ckpt", Kind::unknown(Variant::Split)),
        ]);
        let say = |model: &str, family, variant| Declared { model: model.to_owned(), family, variant };
        let declared = [
            say("DreamShaper_8", &families::SD_1, None),
            say("mine-inpainting.ckpt", &families::SD_1, None),
            say("odd", &families::SDXL, None),
            say("plain", &families::SDXL, Some(Variant::Refiner)),
            say("unet", &families::SDXL, Some(Variant::Main)),
            say("gone", &families::SDXL, None),
        ];
        let kinds: Vec<_> = apply(&declared, &models).iter().map(|model| model.kind.to_string()).collect();
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
        assert_eq!(missing(&declared, &models).len(), 1);
        assert!(missing(&declared, &models)[0].contains("\"gone\" is declared"));
        assert!(Arc::ptr_eq(&apply(&[], &models), &models));
    }
}
