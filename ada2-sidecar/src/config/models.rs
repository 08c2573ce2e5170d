//! `models`: base and variant of models that cannot be detected.

use std::collections::BTreeMap;

use serde_json::Value;
use service::settings::{nearest_n, unknown_key};

use crate::images::models::{Family, ModelDeclaration, ModelVariant, families, family_named};

const MODEL_KEYS: [&str; 2] = ["base", "variant"];

/// The value of `models`, or every problem in it.
pub(super) fn parse(text: &str) -> Result<Vec<ModelDeclaration>, Vec<String>> {
    let Ok(section) = serde_saphyr::from_str::<BTreeMap<String, Value>>(text) else {
        return Err(vec!["expected a map of names to {base, variant}".to_owned()]);
    };
    let (mut models, mut problems) = (Vec::new(), Vec::new());
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for name in section.keys() {
        if let Some(first) = seen.insert(name.to_lowercase(), name) {
            problems
                .push(format!("{name}: duplicates {first:?}: model names are not case-sensitive; keep one"));
        }
    }
    for (name, value) in &section {
        match parse_declaration(name, value) {
            Ok(model) => models.push(model),
            Err(faults) => problems.extend(faults.into_iter().map(|fault| format!("{name}: {fault}"))),
        }
    }
    if problems.is_empty() { Ok(models) } else { Err(problems) }
}

fn parse_declaration(name: &str, value: &Value) -> Result<ModelDeclaration, Vec<String>> {
    let Some(map) = value.as_object() else {
        return Err(vec!["expected a map of settings, like {base: sdxl}".to_owned()]);
    };
    let mut faults: Vec<String> = map
        .keys()
        .filter(|key| !MODEL_KEYS.contains(&key.as_str()))
        .map(|key| format!("{key}: {}", unknown_key(key, MODEL_KEYS.into_iter())))
        .collect();
    let family = match map.get("base") {
        Some(base) => family(base),
        None => Err(format!("base: expected one of {}", family_names())),
    };
    let variant = map.get("variant").map(variant).transpose();
    match (family, variant) {
        (Ok(family), Ok(variant)) if faults.is_empty() => {
            Ok(ModelDeclaration { model: name.to_owned(), family, variant })
        }
        (family, variant) => {
            faults.extend(family.err());
            faults.extend(variant.err());
            Err(faults)
        }
    }
}

fn family(base: &Value) -> Result<&'static Family, String> {
    let name = base.as_str().map_or_else(|| base.to_string(), str::to_owned);
    family_named(name.trim()).ok_or_else(|| {
        let near = nearest_n(&name, families().map(|family| family.name), 1).concat();
        format!("base: unknown family {name:?}; did you mean {near:?}? The families are {}", family_names())
    })
}

fn family_names() -> String {
    families().map(|family| family.name).collect::<Vec<_>>().join(", ")
}

fn variant(value: &Value) -> Result<ModelVariant, String> {
    let found = ModelVariant::SETTING_VALUES.iter().find(|(name, _)| value.as_str() == Some(name));
    found.map(|(_, variant)| *variant).ok_or_else(|| {
        let names: Vec<_> = ModelVariant::SETTING_VALUES.iter().map(|(name, _)| *name).collect();
        format!("variant: expected one of {}", names.join(", "))
    })
}
