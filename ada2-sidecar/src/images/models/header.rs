//! What a file is by its safetensors header: the names and shapes of its tensors, which depend on the architecture alone.

mod layouts;

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};

use self::layouts::{LAYOUTS, PARTS, Trait};
use super::{DetectedFamily, Evidence, ModelKind, ModelVariant, families};

/// More than any model has.
const MAX_TENSORS: usize = 100_000;
/// Where a file has its diffusion model: a checkpoint below the first, a file without text encoder below the last.
const PREFIXES: [&str; 6] =
    ["model.diffusion_model.", "model.model.", "diffusion_model.", "net.", "model.", ""];

/// The tensors of a file: names and shapes. Read from the JSON of its header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tensors(BTreeMap<String, Vec<u64>>);

impl Tensors {
    fn has(&self, name: &str) -> bool {
        match name.strip_suffix('*') {
            Some(start) => {
                self.0.range(start.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(start))
            }
            None => self.0.contains_key(name),
        }
    }

    fn satisfies(&self, prefix: &str, expected: &Trait) -> bool {
        match *expected {
            Trait::Has(name) => self.has(&format!("{prefix}{name}")),
            Trait::Size(name, dimension, size) => {
                let shape = self.0.get(&format!("{prefix}{name}"));
                shape.and_then(|shape| shape.get(dimension)) == Some(&size)
            }
        }
    }
}

/// What the file is; None if these tensors are of no known architecture.
pub fn kind_from_header(tensors: &Tensors) -> Option<ModelKind> {
    let kind = |family, variant| ModelKind { family, variant, evidence: Evidence::Header };
    let is_part = |&&(word, _): &&(&str, &str)| tensors.0.keys().any(|name| name.contains(word));
    if let Some((_, label)) = PARTS.iter().find(is_part) {
        return Some(kind(DetectedFamily::Unlisted((*label).to_owned()), ModelVariant::Other));
    }
    let layout = PREFIXES.iter().find_map(|prefix| {
        LAYOUTS.iter().find(|layout| layout.traits.iter().all(|of| tensors.satisfies(prefix, of)))
    })?;
    Some(kind(DetectedFamily::Known(families::by_name(layout.family)?), layout.variant))
}

impl ModelKind {
    /// With what the file's header says, which counts more than its name and less than its metadata. What tensors cannot
    /// tell still comes from the name: a variant that has them in common with the main model, a family with another's.
    #[must_use]
    pub fn with_header(self, header: Option<Self>) -> Self {
        let Some(header) = header.filter(|_| self.evidence == Evidence::Name) else { return self };
        if let (DetectedFamily::Known(named), DetectedFamily::Known(family)) = (&self.family, &header.family)
            && named.overrides.contains(&family.name)
        {
            return self;
        }
        let variant = if header.variant == ModelVariant::Main { self.variant } else { header.variant };
        Self { variant, ..header }
    }
}

impl<'de> Deserialize<'de> for Tensors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Tensors;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the header of a safetensors file")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tensors, A::Error> {
        #[derive(Deserialize)]
        struct Tensor {
            shape: Vec<u64>,
        }
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if tensors.len() == MAX_TENSORS {
                return Err(A::Error::custom("too many tensors"));
            }
            tensors.insert(name, map.next_value::<Tensor>()?.shape);
        }
        Ok(Tensors(tensors))
    }
}

#[cfg(test)]
mod tests;
