//! Which model a request means. Pure. Never a silent swap: what is not known is refused with a list of what is.

use crate::models::{Base, EngineModel};

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

/// Resolves a request's `model`: an engine model by key or name, a wired-in alias, an OpenAI name, or none at all.
pub fn resolve<'a>(
    models: &'a [EngineModel],
    asked: Option<&str>,
    default: Option<&str>,
) -> Result<&'a EngineModel, UnknownModel> {
    let unknown = |asked: Option<&str>| UnknownModel {
        asked: asked.map(|asked| asked.chars().take(200).collect()),
        available: names(models),
    };
    match asked.filter(|asked| named(models, asked).is_some() || !is_openai_name(asked)) {
        Some(asked) => named(models, asked).ok_or_else(|| unknown(Some(asked))),
        None => match default {
            Some(default) => named(models, default).ok_or_else(|| unknown(Some(default))),
            None => models.first().ok_or_else(|| unknown(None)),
        },
    }
}

/// Every name that resolves, for `/v1/models` and for error messages.
pub fn names(models: &[EngineModel]) -> Vec<String> {
    let aliases = ALIASES.iter().filter(|(_, base)| of_base(models, *base).is_some());
    let mut names: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
    names.extend(
        aliases.map(|(alias, _)| (*alias).to_owned()).filter(|alias| named_exactly(models, alias).is_none()),
    );
    names
}

fn named<'a>(models: &'a [EngineModel], asked: &str) -> Option<&'a EngineModel> {
    let alias = || ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(asked));
    named_exactly(models, asked).or_else(|| alias().and_then(|(_, base)| of_base(models, *base)))
}

fn named_exactly<'a>(models: &'a [EngineModel], asked: &str) -> Option<&'a EngineModel> {
    let by_key = models.iter().find(|model| model.key == asked);
    by_key.or_else(|| models.iter().find(|model| model.name.to_lowercase() == asked.to_lowercase()))
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
        let key = |asked, default| resolve(&models, asked, default).map(|model| model.key.as_str());
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
            assert_eq!(key(asked, default), Ok(expected), "{asked:?} {default:?}");
        }
    }

    #[test]
    fn an_unknown_model_is_refused_with_what_there_is() {
        let models = models();
        let error = resolve(&models, Some("flux"), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "The model \"flux\" does not exist. Available: Juggernaut XL, Dreamshaper 8, \
             stable-diffusion-xl-base-1-0, sd-xl-base-1.0, sd-v1-5."
        );
        assert!(
            resolve(&models, None, Some("gone")).is_err(),
            "a default that is gone is never replaced silently"
        );
        assert!(resolve(&[], Some("gpt-image-1"), None).is_err());
        let only_xl = &models[..1];
        assert!(resolve(only_xl, Some("sd-v1-5"), None).is_err(), "never another kind of model");
        assert_eq!(names(only_xl), ["Juggernaut XL", "sd-xl-base-1.0"]);
    }
}
