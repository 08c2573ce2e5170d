//! Which model a request means. Pure. Never a silent swap: what is not known is refused with a list of what is.

use std::sync::Arc;

use crate::models::{Base, EngineModel, Preset};

/// Names that today's clients have wired in, and the kind of model that they mean.
const ALIASES: &[(&str, Base)] = &[("sd-xl-base-1.0", Base::Sdxl), ("sd-v1-5", Base::Sd1)];

/// OpenAI's image models: clients hard-code these names and mean "the default".
const OPENAI_NAMES: &[&str] = &["gpt-image", "chatgpt-image", "dall-e"];

/// No such model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownModel {
    /// What was asked for; none when not even a default exists.
    pub asked: Option<String>,
    /// What there is.
    pub available: Vec<String>,
}

impl std::fmt::Display for UnknownModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let available = self.available.join(", ");
        match &self.asked {
            _ if self.available.is_empty() => {
                f.write_str("The engine has no model of a kind that is served here.")
            }
            Some(asked) => write!(f, "The model {asked:?} does not exist. Available: {available}."),
            None => write!(f, "No model is the default. Available: {available}."),
        }
    }
}

/// What a request's `model` came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// What it is called, for logs.
    pub name: String,
    /// The engine's model; none where a preset's template loads its own.
    pub model: Option<EngineModel>,
    /// The preset that was named.
    pub preset: Option<Arc<Preset>>,
}

/// Resolves a request's `model`: a preset, an engine model by key or name, a wired-in alias, an OpenAI name, or none at
/// all.
pub fn resolve(
    models: &[EngineModel],
    presets: &[Arc<Preset>],
    asked: Option<&str>,
    default: Option<&str>,
) -> Result<Choice, UnknownModel> {
    let unknown = |asked: Option<&str>| UnknownModel {
        asked: asked.map(|asked| asked.chars().take(200).collect()),
        available: names(models, presets),
    };
    let find = |asked: &str| match preset(presets, asked) {
        Some(preset) => of_preset(models, preset).ok_or_else(|| unknown(preset.model.as_deref())),
        None => named(models, asked).map(of_model).ok_or_else(|| unknown(Some(asked))),
    };
    let is_known = |asked: &str| preset(presets, asked).is_some() || named(models, asked).is_some();
    match asked.filter(|asked| is_known(asked) || !is_openai_name(asked)) {
        Some(asked) => find(asked),
        None => match default {
            Some(default) => find(default),
            None => models.first().map(of_model).ok_or_else(|| unknown(None)),
        },
    }
}

fn of_model(model: &EngineModel) -> Choice {
    Choice { name: model.name.clone(), model: Some(model.clone()), preset: None }
}

/// A preset that names a model needs it; one that names none needs templates, or means the engine's first model.
fn of_preset(models: &[EngineModel], preset: &Arc<Preset>) -> Option<Choice> {
    let model = match &preset.model {
        Some(name) => Some(named(models, name)?.clone()),
        None if preset.templates.is_empty() => Some(models.first()?.clone()),
        None => None,
    };
    Some(Choice { name: preset.name.clone(), model, preset: Some(preset.clone()) })
}

fn preset<'a>(presets: &'a [Arc<Preset>], asked: &str) -> Option<&'a Arc<Preset>> {
    presets.iter().find(|preset| preset.name.eq_ignore_ascii_case(asked))
}

/// Every name that resolves, for `/v1/models` and for error messages.
pub fn names(models: &[EngineModel], presets: &[Arc<Preset>]) -> Vec<String> {
    let usable = presets.iter().filter(|preset| of_preset(models, preset).is_some());
    let mut names: Vec<String> = usable.map(|preset| preset.name.clone()).collect();
    let is_new = |names: &[String], name: &str| !names.iter().any(|known| known.eq_ignore_ascii_case(name));
    for model in models {
        if is_new(&names, &model.name) {
            names.push(model.name.clone());
        }
    }
    for (alias, base) in ALIASES {
        if of_base(models, *base).is_some() && is_new(&names, alias) {
            names.push((*alias).to_owned());
        }
    }
    names
}

fn named<'a>(models: &'a [EngineModel], asked: &str) -> Option<&'a EngineModel> {
    let alias = || ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(asked));
    named_exactly(models, asked).or_else(|| alias().and_then(|(_, base)| of_base(models, *base)))
}

fn named_exactly<'a>(models: &'a [EngineModel], asked: &str) -> Option<&'a EngineModel> {
    let by_key = models.iter().find(|model| model.key == asked);
    let asked = asked.to_lowercase();
    let is_asked = |text: &str| text.to_lowercase() == asked;
    by_key.or_else(|| models.iter().find(|model| is_asked(&model.name) || is_asked(&model.key)))
}

/// The model of this kind whose name says base, else the first.
fn of_base(models: &[EngineModel], base: Base) -> Option<&EngineModel> {
    let mut of_kind = models.iter().filter(|model| model.base == base);
    let first = of_kind.clone().next();
    of_kind.find(|model| model.name.to_lowercase().contains("base")).or(first)
}

fn is_openai_name(asked: &str) -> bool {
    let asked = asked.to_ascii_lowercase();
    OPENAI_NAMES.iter().any(|name| asked.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> Vec<EngineModel> {
        vec![
            EngineModel::plain("k1", "Juggernaut XL", Base::Sdxl),
            EngineModel::plain("k2", "Dreamshaper 8", Base::Sd1),
            EngineModel::plain("k3", "stable-diffusion-xl-base-1-0", Base::Sdxl),
        ]
    }

    #[test]
    fn who_is_meant() {
        let models = models();
        let key =
            |asked, default| resolve(&models, &[], asked, default).map(|choice| choice.model.unwrap().key);
        for (asked, default, expected) in [
            (Some("k2"), None, "k2"),
            (Some("juggernaut xl"), None, "k1"),
            (Some("sd-xl-base-1.0"), None, "k3"),
            (Some("SD-V1-5"), None, "k2"),
            (Some("gpt-image-1"), None, "k1"),
            (Some("dall-e-3"), Some("k2"), "k2"),
            (Some("chatgpt-image-latest"), Some("dreamshaper 8"), "k2"),
            (None, Some("sd-v1-5"), "k2"),
            (None, None, "k1"),
        ] {
            assert_eq!(key(asked, default), Ok(expected.to_owned()), "{asked:?} {default:?}");
        }
    }

    #[test]
    fn an_unknown_model_is_refused_with_what_there_is() {
        let models = models();
        let error = resolve(&models, &[], Some("flux"), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "The model \"flux\" does not exist. Available: Juggernaut XL, Dreamshaper 8, \
             stable-diffusion-xl-base-1-0, sd-xl-base-1.0, sd-v1-5."
        );
        assert!(
            resolve(&models, &[], None, Some("gone")).is_err(),
            "a default that is gone is never replaced silently"
        );
        assert!(resolve(&[], &[], Some("gpt-image-1"), None).is_err());
        let only_xl = &models[..1];
        assert!(resolve(only_xl, &[], Some("sd-v1-5"), None).is_err(), "never another kind of model");
        assert_eq!(names(only_xl, &[]), ["Juggernaut XL", "sd-xl-base-1.0"]);
    }

    #[test]
    fn a_preset_is_a_name_for_a_model_and_its_settings() {
        let models = models();
        let preset = |name: &str, model: Option<&str>| {
            Arc::new(Preset { name: name.into(), model: model.map(str::to_owned), ..Preset::default() })
        };
        let presets = [
            preset("gpu_fast", Some("dreamshaper 8")),
            preset("gpt-image-1", Some("k3")),
            preset("lost", Some("gone")),
        ];
        let key =
            |asked| resolve(&models, &presets, Some(asked), None).map(|choice| choice.model.unwrap().key);
        assert_eq!(key("GPU_FAST"), Ok("k2".to_owned()));
        assert_eq!(key("gpt-image-1"), Ok("k3".to_owned()), "an OpenAI name can be a preset");
        assert_eq!(key("dall-e-3"), Ok("k1".to_owned()));
        assert!(key("lost").unwrap_err().to_string().starts_with("The model \"gone\" does not exist"));
        let names = names(&models, &presets);
        assert_eq!(names[..2], ["gpu_fast", "gpt-image-1"], "a preset without its model is not offered");
        assert_eq!(resolve(&models, &presets, None, Some("gpu_fast")).unwrap().name, "gpu_fast");
    }
}
