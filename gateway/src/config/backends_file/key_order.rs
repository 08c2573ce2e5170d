//! The order of the backends in the file, which the parsed value does not preserve: the first backend with a capability is
//! its default.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// The names under `backends`, in the order of a valid file.
pub(super) fn backend_names(text: &str) -> Vec<String> {
    serde_saphyr::from_str::<Top>(text.trim_start_matches('\u{feff}'))
        .map(|top| top.backends.0)
        .unwrap_or_default()
}

#[derive(Deserialize)]
struct Top {
    backends: BackendNames,
}

struct BackendNames(Vec<String>);

impl<'de> Deserialize<'de> for BackendNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Keys)
    }
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = BackendNames;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one entry per backend")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<BackendNames, A::Error> {
        let mut names = Vec::new();
        while let Some((name, IgnoredAny)) = access.next_entry::<String, IgnoredAny>()? {
            names.push(name);
        }
        Ok(BackendNames(names))
    }
}
