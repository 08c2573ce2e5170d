//! A checkpoint file as a model.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::images::models::{
    self, Completion, EngineModel, ModelKind, ModelSettings, ModelVariant, Runner, classify_checkpoint,
};

/// The only files whose metadata the server reads.
pub(super) const WITH_METADATA: &str = ".safetensors";

/// The part of a file's metadata that classifies it. Tools write values of any type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct RawMetadata {
    #[serde(default, rename = "modelspec.architecture", deserialize_with = "text")]
    architecture: Option<String>,
    #[serde(default, rename = "ss_base_model_version", deserialize_with = "text")]
    base_version: Option<String>,
    #[serde(default, rename = "ss_network_module", deserialize_with = "text")]
    network: Option<String>,
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

impl From<RawMetadata> for models::ModelMetadata {
    fn from(RawMetadata { architecture, base_version, network }: RawMetadata) -> Self {
        Self { architecture, base_version, network }
    }
}

/// Identifies a version of a file: metadata is read once for each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FileStamp {
    pub(super) modified: f64,
    pub(super) size: u64,
}

/// A checkpoint. Clients name it by its file, with or without extension. `header`: what its header says.
pub(super) fn model(
    file: &str,
    metadata: Option<&models::ModelMetadata>,
    header: Option<ModelKind>,
    completion: &Arc<Completion>,
) -> EngineModel {
    let model = unclassified(file);
    let kind = classify_checkpoint(metadata, &model.name).with_header(header);
    let mut model = EngineModel { kind, completion: Some(completion.clone()), ..model };
    model.runner = completion.runner(&model);
    model
}

/// A file's name without its extension.
pub(super) fn stem(file: &str) -> &str {
    let extensions = [WITH_METADATA, ".sft", ".ckpt", ".pt", ".pt2", ".bin", ".pth", ".gguf"];
    extensions.iter().find_map(|extension| file.strip_suffix(extension)).unwrap_or(file)
}

fn unclassified(file: &str) -> EngineModel {
    EngineModel {
        key: file.to_owned(),
        name: stem(file).to_owned(),
        kind: ModelKind::unknown(ModelVariant::Main),
        variant: None,
        format: None,
        handle: json!(file),
        runner: Runner::None,
        is_listed: true,
        settings: ModelSettings::default(),
        completion: None,
    }
}

/// A diffusion model without text encoder and VAE.
pub(super) fn diffusion_model(file: &str, header: Option<ModelKind>) -> EngineModel {
    let model = unclassified(file);
    let kind = classify_checkpoint(None, &model.name).with_header(header);
    EngineModel { kind: ModelKind { variant: ModelVariant::Split, ..kind }, ..model }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_named_by_its_file_with_and_without_extension() {
        for (file, name, kind) in [
            ("juggernautXL_v9.safetensors", "juggernautXL_v9", "SDXL"),
            ("ponyDiffusionV6XL.ckpt", "ponyDiffusionV6XL", "SDXL"),
            ("anime/Illustrious-v1.safetensors", "anime/Illustrious-v1", "SDXL"),
            ("v1-5-pruned-emaonly.safetensors", "v1-5-pruned-emaonly", "SD 1.5"),
            ("dreamshaper_8", "dreamshaper_8", "of unknown kind"),
        ] {
            let completion = Completion { catalog: super::super::graphs::catalog(), submodels: Vec::new() };
            let read = model(file, None, None, &Arc::new(completion));
            assert_eq!((read.key.as_str(), read.name.as_str()), (file, name));
            assert_eq!((read.kind.to_string().as_str(), &read.handle), (kind, &json!(file)));
        }
    }

    #[test]
    fn metadata_is_read_whatever_else_is_in_it() {
        let read = |text: &str| serde_json::from_str::<RawMetadata>(text).ok();
        let expected = RawMetadata { architecture: Some("flux-1-dev".into()), ..RawMetadata::default() };
        let thumbnail = "A".repeat(100_000);
        let model = format!(
            r#"{{"modelspec.thumbnail":"{thumbnail}","modelspec.architecture":"flux-1-dev","x":[{{}}]}}"#
        );
        assert_eq!(read(&model), Some(expected));
        assert_eq!(
            read(r#"{"modelspec.architecture":7,"ss_base_model_version":null}"#),
            Some(RawMetadata::default())
        );
        assert_eq!(read("{}"), Some(RawMetadata::default()));
        assert_eq!(read("<!DOCTYPE html>"), None);
    }
}
