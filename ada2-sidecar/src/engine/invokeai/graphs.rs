//! The built-in graphs, for each family of models and task: templates like a user's own.

use std::collections::HashMap;

use super::GRAPH_FORMAT;
use crate::images::{Task, template::Template};

/// By the family's name and the task.
pub(super) type InvokeAiTemplates = HashMap<(&'static str, Task), Template>;

macro_rules! template {
    ($name:literal) => {
        Template::read(
            GRAPH_FORMAT,
            include_str!(concat!("graphs/", $name, ".json")),
            include_str!(concat!("graphs/", $name, ".yaml")),
        )
        .expect("the shipped templates are read by a test")
    };
}

pub(super) fn all() -> InvokeAiTemplates {
    HashMap::from([
        (("sd-1", Task::Generate), template!("sd-1")),
        (("sd-1", Task::Edit), template!("sd-1-edit")),
        (("sd-1", Task::Inpaint), template!("sd-1-inpaint")),
        (("sdxl", Task::Generate), template!("sdxl")),
        (("sdxl", Task::Edit), template!("sdxl-edit")),
        (("sdxl", Task::Inpaint), template!("sdxl-inpaint")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::template::Binding as B;

    #[test]
    fn the_shipped_templates_bind_everything() {
        for ((family, task), template) in all() {
            assert_eq!(template.check_task(task), Ok(()), "{family} {task:?}");
            for binding in
                [B::NegativePrompt, B::Width, B::Height, B::Steps, B::CfgScale, B::Scheduler, B::Model]
            {
                assert!(!template.inputs_bound_to(binding).is_empty(), "{family} {task:?} {binding:?}");
            }
            assert_eq!(template.inputs_bound_to(B::Strength).is_empty(), task == Task::Generate);
        }
    }
}
