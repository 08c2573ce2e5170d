//! The values of a job that a graph can take, and the inputs that take them.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, de::Error};

use crate::images::Task;

/// A value of the job that a graph can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the job's value of that name")]
pub enum Binding {
    Prompt,
    NegativePrompt,
    Width,
    Height,
    Seed,
    Steps,
    CfgScale,
    Scheduler,
    Model,
    /// A source image, counted from 1.
    Image(u8),
    Mask,
    Strength,
    /// Always 1: several images are several runs, each with its own seed.
    N,
    /// A LoRA, counted from 1.
    Lora(u8),
    /// Its weight.
    LoraWeight(u8),
    /// All LoRAs with their weights, as the engine's metadata lists them.
    Loras,
}

/// The most images of a request: as many as OpenAI accepts.
pub const MAX_IMAGES: u8 = 16;
/// The most LoRAs of a request.
pub const MAX_LORAS: u8 = 8;

const PLAIN: &[(&str, Binding)] = &[
    ("prompt", Binding::Prompt),
    ("negative_prompt", Binding::NegativePrompt),
    ("width", Binding::Width),
    ("height", Binding::Height),
    ("seed", Binding::Seed),
    ("steps", Binding::Steps),
    ("cfg_scale", Binding::CfgScale),
    ("scheduler", Binding::Scheduler),
    ("model", Binding::Model),
    ("image", Binding::Image(1)),
    ("mask", Binding::Mask),
    ("strength", Binding::Strength),
    ("n", Binding::N),
    ("lora", Binding::Lora(1)),
    ("lora_weight", Binding::LoraWeight(1)),
    ("loras", Binding::Loras),
];

impl Binding {
    /// Its key in a binding file.
    pub fn name(self) -> Cow<'static, str> {
        let numbered = |name: &str, number: u8| Cow::Owned(format!("{name}_{number}"));
        match self {
            Self::Image(number @ 2..) => numbered("image", number),
            Self::Lora(number @ 2..) => numbered("lora", number),
            Self::LoraWeight(number @ 2..) => numbered("lora_weight", number),
            _ => {
                let row = PLAIN.iter().find(|(_, binding)| *binding == self);
                Cow::Borrowed(row.expect("all others are in the table").0)
            }
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let numbered = || {
            let number = name.strip_prefix("image_")?.parse().ok()?;
            (2..=MAX_IMAGES).contains(&number).then_some(Self::Image(number))
        };
        PLAIN.iter().find(|(plain, _)| *plain == name).map(|(_, binding)| *binding).or_else(numbered)
    }

    /// Whether every job has a value for it. Without one, the graph keeps its own.
    pub const fn is_always_set(self) -> bool {
        matches!(
            self,
            Self::Prompt
                | Self::Seed
                | Self::Image(_)
                | Self::Mask
                | Self::N
                | Self::Lora(_)
                | Self::LoraWeight(_)
        )
    }

    /// Whether a job of this task can have a value for it.
    pub(super) const fn applies_to(self, task: Task) -> bool {
        match self {
            Self::Image(_) | Self::Strength => !matches!(task, Task::Generate),
            Self::Mask => matches!(task, Task::Inpaint),
            _ => true,
        }
    }

    /// The same value of another image or LoRA.
    pub(super) const fn with_number(self, number: u8) -> Self {
        match self {
            Self::Image(_) => Self::Image(number),
            Self::Lora(_) => Self::Lora(number),
            Self::LoraWeight(_) => Self::LoraWeight(number),
            other => other,
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl<'de> Deserialize<'de> for Binding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| {
            let names: Vec<_> = PLAIN.iter().map(|(name, _)| *name).collect();
            D::Error::custom(format!(
                "unknown value {name:?}: a binding is one of {} (image_2 … image_{MAX_IMAGES} for further images)",
                names.join(", ")
            ))
        })
    }
}

/// An input of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeInput {
    /// The node's id.
    pub node: String,
    /// Its input.
    pub field: String,
}

impl NodeInput {
    /// Reads `node.input`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (node, field) =
            text.split_once('.').filter(|(node, field)| !node.is_empty() && !field.is_empty())?;
        Some(Self { node: node.to_owned(), field: field.to_owned() })
    }
}

impl fmt::Display for NodeInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node, self.field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for (name, binding) in PLAIN {
            assert_eq!((Binding::parse(name), binding.name().as_ref()), (Some(*binding), *name));
        }
        assert_eq!(Binding::parse("image_2"), Some(Binding::Image(2)));
        assert_eq!(Binding::Image(16).name(), "image_16");
        for unknown in ["image_1", "image_17", "image_x", "mood", ""] {
            assert_eq!(Binding::parse(unknown), None, "{unknown}");
        }
    }
}
