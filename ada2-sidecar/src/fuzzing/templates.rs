//! Graphs, their binding files, and workflows as people export them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    engine::{comfyui, invokeai},
    images::template::{Binding, GraphFormat, Template, TemplateFile, TemplateTasks, propose},
};

/// Between the graph and its binding file.
const SEPARATOR: &str = "\n---\n";

fn formats() -> [GraphFormat; 2] {
    [comfyui::GRAPH_FORMAT, invokeai::GRAPH_FORMAT]
}

fn node_ids(format: GraphFormat, graph: &Value) -> BTreeSet<String> {
    format.nodes(graph).into_iter().map(|(id, ..)| id.to_owned()).collect()
}

/// Whatever a job asks for, the graph keeps its nodes, and every edge has both its ends.
fn check(format: GraphFormat, template: &Template) {
    let (fewest, most) = template.image_counts();
    let loras = template.max_loras();
    for (images, loras) in [(fewest, 0), (most, loras), (fewest.max(1).min(most), 1.min(loras))] {
        let template = template.expand(images, loras);
        let kept = template.render(|_, _| None);
        let set = template.render(|binding, _| match binding {
            Binding::Prompt => Some(json!("\"},{\"x\":{")),
            _ => Some(json!(1)),
        });
        let nodes = node_ids(format, &kept);
        assert_eq!(node_ids(format, &set), nodes, "a value adds no node and removes none");
        for edge in format.edges(&kept) {
            assert!(nodes.contains(&edge.source) && nodes.contains(&edge.target.node), "{edge}");
        }
        assert!(nodes.contains(&template.output));
        let _ = (template.default_steps(), template.default_cfg_scale(), template.default_scheduler());
        let _ = (template.default_strength(), template.default_size(), template.summary());
    }
}

/// A graph (JSON), a line `---`, and its binding file (YAML).
pub fn template(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (graph, declaration) = text.split_once(SEPARATOR).unwrap_or((text, ""));
    for format in formats() {
        match TemplateFile::read(format, graph, declaration) {
            Ok(TemplateFile { tasks: TemplateTasks::Undeclared(template), .. }) => check(format, &template),
            Ok(TemplateFile { tasks: TemplateTasks::Declared(tasks), .. }) => {
                for template in tasks.values() {
                    check(format, template);
                }
            }
            Err(errors) => assert!(!errors.is_empty()),
        }
    }
}

/// A workflow: what is proposed for it and called usable is a template that works.
pub fn workflow(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    for format in formats() {
        let proposal = propose(format, text);
        match &proposal.outcome {
            Ok(task) => {
                let template = Template::read(format, text, &proposal.text).expect("it is usable");
                assert_eq!(template.check_task(*task), Ok(()));
                check(format, &template);
            }
            Err(reasons) => assert!(!reasons.is_empty()),
        }
    }
}
