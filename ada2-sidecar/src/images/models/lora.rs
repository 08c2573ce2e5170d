//! LoRAs: small networks that change a model.

use serde_json::Value;

use super::EngineModel;

/// A LoRA that the engine has.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineLora {
    /// The engine's key.
    pub key: String,
    /// Its name.
    pub name: String,
    /// The family of the models that it is for. None: not known.
    pub family: Option<String>,
    /// The variant of the models that it is for, in the engine's words. None: any, or not known.
    pub variant: Option<String>,
    /// How the engine's graphs refer to it.
    pub handle: Value,
}

impl EngineLora {
    /// Whether it is for this model, as far as that is known.
    pub fn fits(&self, model: &EngineModel) -> bool {
        let fits = |own: Option<&str>, of_model: Option<&str>| {
            own.zip(of_model).is_none_or(|(own, of_model)| own == of_model)
        };
        // A base model and the one that was distilled from it take the same.
        let undistilled = |variant: &'_ Option<String>| {
            variant.as_deref().map(|variant| variant.trim_end_matches("_base").to_owned())
        };
        fits(self.family.as_deref(), model.family_name())
            && fits(undistilled(&self.variant).as_deref(), undistilled(&model.variant).as_deref())
    }

    /// Compares key and name, ignoring case.
    pub fn matches_name(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.name.to_lowercase() == name || self.key.to_lowercase() == name
    }
}

/// A LoRA as a request or a preset names it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraChoice {
    /// Its key or name.
    pub name: String,
    /// How much of it is applied.
    pub weight: f64,
}

/// A LoRA of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraUse {
    /// The LoRA.
    pub lora: EngineLora,
    /// How much of it is applied.
    pub weight: f64,
}
