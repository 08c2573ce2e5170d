//! The built-in graphs: a kind of model and a task each. They are templates like a user's own.

use std::collections::HashMap;

use crate::images::{
    Task,
    models::BaseModel,
    template::{GraphFormat, Template},
};

/// By kind of model and task.
pub(super) type InvokeAiTemplates = HashMap<(BaseModel, Task), Template>;

macro_rules! template {
    ($name:literal) => {
        Template::read(
            GraphFormat::InvokeAi,
            include_str!(concat!("graphs/", $name, ".json")),
            include_str!(concat!("graphs/", $name, ".yaml")),
        )
        .expect("the shipped templates are read by a test")
    };
}

/// All of them.
pub(super) fn all() -> InvokeAiTemplates {
    HashMap::from([
        ((BaseModel::Sd1, Task::Generate), template!("sd-1")),
        ((BaseModel::Sd1, Task::Edit), template!("sd-1-edit")),
        ((BaseModel::Sd1, Task::Inpaint), template!("sd-1-inpaint")),
        ((BaseModel::Sdxl, Task::Generate), template!("sdxl")),
        ((BaseModel::Sdxl, Task::Edit), template!("sdxl-edit")),
        ((BaseModel::Sdxl, Task::Inpaint), template!("sdxl-inpaint")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::template::Binding as B;

    #[test]
    fn the_shipped_templates_bind_everything() {
        for ((base, task), template) in all() {
            assert_eq!(template.check_task(task), Ok(()), "{base:?} {task:?}");
            for binding in
                [B::NegativePrompt, B::Width, B::Height, B::Steps, B::CfgScale, B::Scheduler, B::Model]
            {
                assert!(!template.inputs_bound_to(binding).is_empty(), "{base:?} {task:?} {binding:?}");
            }
            assert_eq!(template.inputs_bound_to(B::Strength).is_empty(), task == Task::Generate);
        }
    }
}
