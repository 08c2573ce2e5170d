//! The built-in graphs, one for each task, whatever the model's family: templates like a user's own.

use std::collections::HashMap;

use super::GRAPH_FORMAT;
use crate::images::{Task, template::Template};

/// By task.
pub(super) type ComfyUiTemplates = HashMap<Task, Template>;

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

pub(super) fn all() -> ComfyUiTemplates {
    HashMap::from([
        (Task::Generate, template!("generate")),
        (Task::Edit, template!("edit")),
        (Task::Inpaint, template!("inpaint")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::template::Binding as B;

    #[test]
    fn the_shipped_templates_bind_everything() {
        for (task, template) in all() {
            assert_eq!(template.check_task(task), Ok(()), "{task:?}");
            for binding in [B::NegativePrompt, B::Steps, B::CfgScale, B::Scheduler, B::Model] {
                assert!(!template.inputs_bound_to(binding).is_empty(), "{task:?} {binding:?}");
            }
            // An edit has the size of its source.
            let generates = task == Task::Generate;
            assert_eq!(template.inputs_bound_to(B::Width).is_empty(), !generates);
            assert_eq!(template.inputs_bound_to(B::Height).is_empty(), !generates);
            assert_eq!(template.inputs_bound_to(B::Strength).is_empty(), generates);
        }
    }
}
