//! `models`: what a model is, said by whoever knows.

use std::collections::BTreeMap;

use serde_json::Value;
use service::settings::{Settings, nearest_few, unknown_key};

use crate::images::models::{Declared, Family, Variant, families, family_named};

const KEYS: [&str; 2] = ["base", "variant"];

/// Reads the section; every problem is noted under `models`.
pub(super) fn read(s: &mut Settings) -> Option<Vec<Declared>> {
    let Some(text) = s.raw("models").map(str::to_owned) else { return Some(Vec::new()) };
    let Ok(section) = serde_saphyr::from_str::<BTreeMap<String, Value>>(&text) else {
        s.complain("models", "expected a map of names to {base, variant}");
        return None;
    };
    let (mut models, mut problems) = (Vec::new(), Vec::new());
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    for name in section.keys() {
        if let Some(first) = known.insert(name.to_lowercase(), name) {
            problems.push(format!(
                "{name}: differs from {first:?} in capitals only, which models do not: keep one"
            ));
        }
    }
    for (name, value) in &section {
        match declared(name, value) {
            Ok(model) => models.push(model),
            Err(faults) => problems.extend(faults.into_iter().map(|fault| format!("{name}: {fault}"))),
        }
    }
    let sound = problems.is_empty();
    for problem in problems {
        s.complain("models", problem);
    }
    sound.then_some(models)
}

fn declared(name: &str, value: &Value) -> Result<Declared, Vec<String>> {
    let Some(map) = value.as_object() else {
        return Err(vec!["expected a map of settings, like {base: sdxl}".to_owned()]);
    };
    let mut faults: Vec<String> = map
        .keys()
        .filter(|key| !KEYS.contains(&key.as_str()))
        .map(|key| format!("{key}: {}", unknown_key(key, KEYS.into_iter())))
        .collect();
    let family = match map.get("base") {
        Some(base) => family(base),
        None => Err(format!("base: expected one of {}", bases())),
    };
    let variant = map.get("variant").map(variant).transpose();
    match (family, variant) {
        (Ok(family), Ok(variant)) if faults.is_empty() => {
            Ok(Declared { model: name.to_owned(), family, variant })
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
        let near = nearest_few(&name, families().map(|family| family.name), 1).concat();
        format!("base: no family is named {name:?}; did you mean {near:?}? There are {}", bases())
    })
}

fn bases() -> String {
    families().map(|family| family.name).collect::<Vec<_>>().join(", ")
}

fn variant(value: &Value) -> Result<Variant, String> {
    let found = Variant::WORDS.iter().find(|(word, _)| value.as_str() == Some(word));
    found.map(|(_, variant)| *variant).ok_or_else(|| {
        let words: Vec<_> = Variant::WORDS.iter().map(|(word, _)| *word).collect();
        format!("variant: expected one of {}", words.join(", "))
    })
}
