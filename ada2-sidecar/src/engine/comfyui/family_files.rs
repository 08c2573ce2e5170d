//! Families whose models are split files: which of the built-in graphs can run with the nodes and files that the engine has.
//! Pure: everything is read from the descriptions of node classes, whose inputs list the installed files.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    checkpoint_file::stem,
    validate::{Classes, check_template, listed_values},
};
use crate::images::{
    Task,
    graph_set::GraphSet,
    models::{
        DetectedFamily, EngineModel, Evidence, ModelKind, ModelSettings, ModelVariant, Runner, family_named,
    },
    template::{Binding, NodeInput, Template},
};

/// A loader, the class of a node pack that reads the same files in GGUF format, and the inputs that only the first has.
const GGUF_LOADERS: [(&str, &str, &[&str]); 3] = [
    ("UNETLoader", "UnetLoaderGGUF", &["weight_dtype"]),
    ("CLIPLoader", "CLIPLoaderGGUF", &["device"]),
    ("DualCLIPLoader", "DualCLIPLoaderGGUF", &["device"]),
];
const GGUF: &str = ".gguf";
/// File names that a message suggests.
const MAX_NAMED: usize = 2;

/// The classes that the graphs of a set need, GGUF loaders included.
pub(super) fn classes_of(set: &GraphSet) -> impl Iterator<Item = &str> {
    let nodes = set.templates.values().flat_map(|template| template.nodes().map(|(_, class, _)| class));
    nodes.flat_map(|class| std::iter::once(class).chain(gguf_loader(class).map(|(_, loader, _)| loader)))
}

/// Whether the files that are installed show in the description of this class.
pub(super) fn lists_files(class: &str) -> bool {
    class.contains("Loader")
}

fn gguf_loader(class: &str) -> Option<(&'static str, &'static str, &'static [&'static str])> {
    GGUF_LOADERS.into_iter().find(|(loader, ..)| *loader == class)
}

/// The models of a set: one under the family's name, and one for each file that it could use instead, unlisted. If nothing
/// can run, one that says what is missing.
pub(super) fn models(set: &Arc<GraphSet>, classes: &Classes) -> Vec<EngineModel> {
    let found = FilesOfSet::find(set, classes);
    let Some(complete) = complete_set(set, &found, classes) else {
        let lacks = first_fault(set, &found, classes);
        let runner = Runner::Incomplete { graphs: set.family.name.clone(), lacks, is_installed: false };
        return vec![EngineModel { is_listed: false, ..model(set, &set.family.name, Value::Null, runner) }];
    };
    let Some(input) = main_input(&complete).filter(|input| found.chosen.contains_key(input)) else {
        return Vec::new();
    };
    let mut inputs = found.chosen.clone();
    let main_file = inputs.remove(&input).unwrap_or_default();
    let runner = Runner::Graphs {
        set: complete,
        inputs: inputs.into_iter().map(|(input, file)| (input, json!(file))).collect(),
    };
    let listed = model(set, &set.family.name, json!(main_file), runner.clone());
    let by_file = found.of_main.iter().map(|file| EngineModel {
        key: file.clone(),
        name: stem(file).to_owned(),
        is_listed: false,
        ..model(set, file, json!(file), runner.clone())
    });
    std::iter::once(listed).chain(by_file).collect()
}

fn model(set: &GraphSet, name: &str, handle: Value, runner: Runner) -> EngineModel {
    let family = &set.family;
    let makes_new =
        matches!(&runner, Runner::Graphs { set, .. } if set.templates.contains_key(&Task::Generate));
    EngineModel {
        key: name.to_owned(),
        name: name.to_owned(),
        kind: ModelKind {
            family: match family_named(&family.base) {
                Some(known) => DetectedFamily::Known(known),
                None => DetectedFamily::Unlisted(family.base.clone()),
            },
            variant: if makes_new { ModelVariant::Main } else { ModelVariant::Edit },
            evidence: Evidence::Name,
        },
        variant: family.variant.clone(),
        format: None,
        handle,
        runner,
        is_listed: true,
        settings: ModelSettings::default(),
        completion: None,
    }
}

/// The input that takes the diffusion model.
fn main_input(set: &GraphSet) -> Option<NodeInput> {
    set.templates.values().find_map(|template| template.inputs_bound_to(Binding::Model).first().cloned())
}

/// The files of a set that are installed.
struct FilesOfSet {
    /// The best file of each input.
    chosen: BTreeMap<NodeInput, String>,
    /// All files that the main input could take, the best first.
    of_main: Vec<String>,
    /// Inputs without a file, with the patterns.
    missing: BTreeMap<NodeInput, Vec<String>>,
}

impl FilesOfSet {
    fn find(set: &GraphSet, classes: &Classes) -> Self {
        let mut found = Self { chosen: BTreeMap::new(), of_main: Vec::new(), missing: BTreeMap::new() };
        let main = main_input(set);
        for (input, patterns) in &set.family.files {
            let Some(input) = NodeInput::parse(input) else { continue };
            let Some(class) = class_of(set, &input.node) else { continue };
            let files = installed(classes, class, &input.field);
            let mut fitting: Vec<String> = Vec::new();
            for file in patterns.iter().flat_map(|pattern| files.iter().filter(|file| matches(pattern, file)))
            {
                if !fitting.contains(file) {
                    fitting.push(file.clone());
                }
            }
            match fitting.first() {
                Some(best) => drop(found.chosen.insert(input.clone(), best.clone())),
                None => drop(found.missing.insert(input.clone(), patterns.clone())),
            }
            if Some(&input) == main.as_ref() {
                found.of_main = fitting;
            }
        }
        found
    }

    /// The graph with these files, and with the loaders that read them.
    fn in_template(&self, template: &Template) -> Template {
        let files: Vec<_> = self.chosen.iter().map(|(input, file)| (input, json!(file))).collect();
        template.with_inputs(files.iter().map(|(input, file)| (*input, file))).rewritten(use_gguf_loaders)
    }
}

fn class_of<'a>(set: &'a GraphSet, node: &str) -> Option<&'a str> {
    let mut nodes = set.templates.values().flat_map(|template| template.nodes());
    nodes.find(|(id, ..)| *id == node).map(|(_, class, _)| class)
}

/// The files that a loader lists, those in GGUF format last.
fn installed(classes: &Classes, class: &str, input: &str) -> Vec<String> {
    let listed = |class: &str| {
        let description = classes.get(class).and_then(Option::as_ref);
        let values = description.map(|description| listed_values(description, input)).unwrap_or_default();
        values.into_iter().filter_map(|value| value.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let mut files = listed(class);
    if let Some((_, loader, _)) = gguf_loader(class) {
        files.extend(listed(loader).into_iter().filter(|file| file.ends_with(GGUF)));
    }
    files
}

/// Whether a file has a name of this pattern: without directories and extension, `*` is any text.
fn matches(pattern: &str, file: &str) -> bool {
    let name = stem(file.rsplit(['/', '\\']).next().unwrap_or(file)).to_lowercase();
    let pattern = pattern.to_lowercase();
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

/// The set with the tasks whose nodes and files are all there; none if no task has them.
fn complete_set(set: &Arc<GraphSet>, found: &FilesOfSet, classes: &Classes) -> Option<Arc<GraphSet>> {
    let is_complete = |template: &Template| fault(template, found, classes).is_none();
    let complete: BTreeMap<_, _> = set
        .templates
        .iter()
        .filter(|(_, template)| is_complete(template))
        .map(|(task, template)| (*task, template.clone()))
        .collect();
    if complete.len() == set.templates.len() {
        return Some(set.clone());
    }
    (!complete.is_empty()).then(|| Arc::new(GraphSet { family: set.family.clone(), templates: complete }))
}

fn first_fault(set: &GraphSet, found: &FilesOfSet, classes: &Classes) -> String {
    let mut faults = set.templates.values().filter_map(|template| fault(template, found, classes));
    faults.next().unwrap_or_default()
}

/// What a graph lacks, as a clause.
fn fault(template: &Template, found: &FilesOfSet, classes: &Classes) -> Option<String> {
    let missing_class =
        template.nodes().find(|(_, class, _)| !classes.get(*class).is_some_and(Option::is_some));
    if let Some((_, class, _)) = missing_class {
        return Some(format!(
            "the node {class}, which this ComfyUI does not have (update it, or install its node pack)"
        ));
    }
    let has_node = |node: &str| template.nodes().any(|(id, ..)| id == node);
    let missing = found.missing.iter().find(|(input, _)| has_node(&input.node));
    if let Some((input, patterns)) = missing {
        let named: Vec<_> = patterns.iter().take(MAX_NAMED).map(String::as_str).collect();
        return Some(format!("a file {} in {}", named.join(" or "), directory(&input.field)));
    }
    check_template(&found.in_template(template), classes).into_iter().next().map(|error| error.to_string())
}

/// Where the files of an input lie.
fn directory(input: &str) -> String {
    let name = match input {
        "unet_name" => "diffusion_models",
        "vae_name" => "vae",
        "lora_name" => "loras",
        "ckpt_name" => "checkpoints",
        "control_net_name" => "controlnet",
        name if name.starts_with("clip_name") => "text_encoders",
        other => other,
    };
    format!("models/{name}")
}

/// A file in GGUF format is loaded by another class.
pub(super) fn use_gguf_loaders(graph: &mut Value) {
    for (_, node) in graph.as_object_mut().into_iter().flatten() {
        let Some((_, class, without)) = node["class_type"].as_str().and_then(gguf_loader) else { continue };
        let Some(inputs) = node["inputs"].as_object_mut() else { continue };
        if inputs.values().any(|value| value.as_str().is_some_and(|file| file.ends_with(GGUF))) {
            for input in without {
                inputs.remove(*input);
            }
            node["class_type"] = json!(class);
        }
    }
}

#[cfg(test)]
mod tests;
