//! Checks graphs against ComfyUI's descriptions of its node classes.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::api::ComfyUiApi;
use crate::{
    engine::EngineError,
    images::template::{Template, TemplateError},
};

/// Asks once for each class in the graphs.
pub(super) async fn validate(
    api: &ComfyUiApi,
    templates: &[&Template],
) -> Result<Vec<Vec<TemplateError>>, EngineError> {
    let mut classes = HashMap::new();
    for (_, class, _) in templates.iter().flat_map(|template| template.nodes()) {
        if !classes.contains_key(class) {
            classes.insert(class.to_owned(), api.node_class(class).await?);
        }
    }
    Ok(templates.iter().map(|template| check_template(template, &classes)).collect())
}

/// A class's description; None if it is not installed.
pub(super) type Classes = HashMap<String, Option<Value>>;

pub(super) fn check_template(template: &Template, classes: &Classes) -> Vec<TemplateError> {
    let mut errors = Vec::new();
    for (id, class, inputs) in template.nodes() {
        let Some(description) = classes.get(class).and_then(Option::as_ref) else {
            errors.push(format!("the node {id:?} is of class {class:?}, which this ComfyUI does not know"));
            continue;
        };
        let name = format!("the node {id:?} ({class})");
        let bound: Vec<&str> = template
            .bound_inputs()
            .filter(|input| input.node == id)
            .map(|input| input.field.as_str())
            .collect();
        let takes = |input: &str| {
            input_spec(description, "required", input).or_else(|| input_spec(description, "optional", input))
        };
        let unknown =
            bound.iter().filter(|input| takes(input).is_none() && !is_dynamic_input(description, input));
        errors.extend(unknown.map(|input| format!("{name} takes no input {input:?}")));
        let missing = required(description).filter(|input| !inputs.contains_key(*input));
        errors.extend(missing.map(|input| format!("{name} is missing its input {input:?}")));
        for (input, value) in inputs.iter().filter(|(input, _)| !bound.contains(&input.as_str())) {
            if let Some(value) = takes(input).and_then(|spec| disallowed_value(spec, value)) {
                errors.push(format!("{name} does not accept {value} as {input:?}"));
            }
        }
        if id == template.output && description["output_node"] == false {
            errors.push(format!("{name} is the output, but outputs no images (use SaveImage)"));
        }
    }
    errors.into_iter().map(TemplateError).collect()
}

/// The values that an input takes, if it has a list of them.
pub(super) fn listed_values<'a>(description: &'a Value, input: &str) -> Vec<&'a Value> {
    let spec = ["required", "optional"].into_iter().find_map(|group| input_spec(description, group, input));
    spec.and_then(value_list).into_iter().flatten().collect()
}

/// There are two forms of lists.
fn value_list(spec: &Value) -> Option<&Vec<Value>> {
    spec[0].as_array().or_else(|| spec[1]["options"].as_array())
}

fn input_spec<'a>(description: &'a Value, group: &str, input: &str) -> Option<&'a Value> {
    description["input"][group].get(input)
}

/// Whether an input such as `images.image_1` belongs to one of the newer types, which contain inputs.
fn is_dynamic_input(description: &Value, input: &str) -> bool {
    let outer = input.split_once('.').map(|(outer, _)| outer);
    let declared =
        |outer| ["required", "optional"].into_iter().find_map(|group| input_spec(description, group, outer));
    outer.and_then(declared).and_then(|spec| spec[0].as_str()).is_some_and(|kind| kind.starts_with("COMFY_"))
}

/// Inputs that must be present. Those of the newer dynamic types appear in graphs under other names.
fn required(description: &Value) -> impl Iterator<Item = &str> {
    let all: Option<&Map<String, Value>> = description["input"]["required"].as_object();
    let is_plain = |spec: &Value| !spec[0].as_str().is_some_and(|kind| kind.starts_with("COMFY_"));
    all.into_iter().flatten().filter(move |(_, spec)| is_plain(spec)).map(|(name, _)| name.as_str())
}

/// The value, if the input only takes values of a list and this is not one of them.
fn disallowed_value<'a>(spec: &Value, value: &'a Value) -> Option<&'a Value> {
    let list = value_list(spec)?;
    let options = &spec[1];
    // Images can lie in directories that are not listed.
    let is_file = options["image_upload"] == true || options["image_folder"].is_string();
    let is_link = value.is_array();
    // A choice with inputs of its own is an object with its name as `key`.
    let is_listed = list.iter().any(|choice| choice == value || choice.get("key") == Some(value));
    (!is_file && !is_link && !is_listed).then_some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::engine::comfyui;

    fn classes() -> Classes {
        let sampler = json!({"input": {"required": {"seed": ["INT", {}], "steps": ["INT", {}],
            "sampler_name": [["euler", "ddim"], {}], "scheduler": ["COMBO", {"options": ["normal"]}],
            "format": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "png", "inputs": {}}]}]}, "optional": {"mask": ["MASK"]}}, "output_node": false});
        let save = json!({"input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING"]}}, "output_node": true});
        let load = json!({"input": {"required": {"image": [["a.png"], {"image_upload": true}]}}, "output_node": false});
        HashMap::from([
            ("KSampler".into(), Some(sampler)),
            ("SaveImage".into(), Some(save)),
            ("LoadImage".into(), Some(load)),
            ("Lost".into(), None),
        ])
    }

    fn messages(graph: &Value, output: &str, seed: &str) -> Vec<String> {
        let yaml = format!("output: {output}\nbindings: {{seed: [{seed}]}}");
        let template = Template::read(comfyui::GRAPH_FORMAT, &graph.to_string(), &yaml).unwrap();
        check_template(&template, &classes()).into_iter().map(|error| error.0).collect()
    }

    #[test]
    fn a_valid_graph_has_no_errors() {
        let graph = json!({
            "3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 2, "sampler_name": "ddim", "scheduler": "normal",
                "mask": ["4", 1], "format": "png", "format.bit_depth": 8}},
            "4": {"class_type": "LoadImage", "inputs": {"image": "folder/b.png"}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}}});
        assert_eq!(messages(&graph, "'9'", "3.seed"), [""; 0]);
        assert_eq!(messages(&graph, "'9'", "3.format.bit_depth"), [""; 0]);
    }

    #[test]
    fn every_error_names_node_class_and_input() {
        let graph = json!({
            "3": {"class_type": "KSampler", "inputs": {"sead": 1, "seed": 1, "sampler_name": "nope", "scheduler": "beta",
                "format": "gif"}},
            "7": {"class_type": "Lost", "inputs": {}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}}});
        let mut messages = messages(&graph, "'3'", "3.sead");
        messages.sort();
        assert_eq!(
            messages,
            [
                "the node \"3\" (KSampler) does not accept \"beta\" as \"scheduler\"",
                "the node \"3\" (KSampler) does not accept \"gif\" as \"format\"",
                "the node \"3\" (KSampler) does not accept \"nope\" as \"sampler_name\"",
                "the node \"3\" (KSampler) is missing its input \"steps\"",
                "the node \"3\" (KSampler) is the output, but outputs no images (use SaveImage)",
                "the node \"3\" (KSampler) takes no input \"sead\"",
                "the node \"7\" is of class \"Lost\", which this ComfyUI does not know",
            ]
        );
    }
}
