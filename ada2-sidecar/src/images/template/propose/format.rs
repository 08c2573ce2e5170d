//! Writes the binding file.

use std::fmt::Write;

use super::{
    draft::Draft,
    graph::{Workflow, one_line},
};
use crate::images::Task;

impl Draft {
    pub(super) fn to_yaml(&self, workflow: &Workflow<'_>) -> String {
        let task = self.task();
        let why = match task {
            Task::Generate => "it takes no picture",
            Task::Edit => "it takes a picture and no mask",
            Task::Inpaint => "it takes a picture and a mask",
        };
        let mut text = format!("# Task: {}. {}.\n", task.name(), capitalized(why));
        let output = workflow.describe(&self.output);
        let _ =
            writeln!(text, "# The result is the picture of {}: {}.", output, one_line(&self.output_reason));
        let _ = writeln!(text, "output: {}\nbindings:", quoted(&self.output));
        for bound in &self.bound {
            let inputs: Vec<_> = bound.inputs.iter().map(|input| quoted(&input.to_string())).collect();
            let _ = writeln!(text, "  # {}", one_line(&bound.why));
            let _ = writeln!(text, "  {}: [{}]", bound.name, inputs.join(", "));
        }
        for (name, reason) in &self.without {
            let _ = writeln!(text, "# No {name}: {}.", one_line(reason));
        }
        if !self.without.is_empty() {
            let names: Vec<_> = self.without.iter().map(|(name, _)| *name).collect();
            let _ = writeln!(text, "without: [{}]", names.join(", "));
        }
        if self.is_without_guidance {
            text += "# No request changes it: models that are distilled need it.\nfixed: {cfg_scale: 1}\n";
        }
        if !self.schedulers.is_empty() {
            let _ = writeln!(text, "# The only ones that the bound nodes take.");
            let _ = writeln!(text, "schedulers: [{}]", self.schedulers.join(", "));
        }
        if self.bound.is_empty() {
            text = text.replace("\nbindings:\n", "\nbindings: {}\n");
        }
        text
    }
}

/// JSON's strings are YAML's double-quoted ones.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
