//! Checks graphs against ComfyUI's descriptions of its node classes.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    api::ComfyUiApi,
    gguf::use_gguf_loaders,
    node_inputs::{Given, GrowingInput, NodeInputs},
};
use crate::{
    engine::EngineError,
    images::template::{Template, TemplateError},
};

/// Asks once for each class in the graphs.
pub(super) async fn validate(
    api: &ComfyUiApi,
    templates: &[&Template],
) -> Result<Vec<Vec<TemplateError>>, EngineError> {
    let templates: Vec<_> = templates.iter().map(|template| template.rewritten(use_gguf_loaders)).collect();
    let mut classes = HashMap::new();
    for (_, class, _) in templates.iter().flat_map(Template::nodes) {
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
        let taken = NodeInputs::read(description, &|input| match inputs.get(input) {
            _ if bound.contains(&input) => Given::Open,
            None => Given::Nothing,
            Some(Value::Array(_)) => Given::Open,
            Some(value) => Given::Value(value),
        });
        let written = inputs.keys().map(String::as_str).filter(|input| !bound.contains(input));
        // The server ignores what it does not know. In a growing input that would be an image that nobody sees.
        let unknown = bound.iter().copied().chain(written.filter(|input| taken.growing_of(input).is_some()));
        let unknown = unknown.filter(|input| !taken.takes(input));
        errors.extend(unknown.map(|input| unknown_input(&name, input, &taken)));
        let missing =
            taken.declared.iter().filter(|input| input.is_required && !inputs.contains_key(&input.name));
        errors.extend(missing.map(|input| format!("{name} is missing its input {:?}", input.name)));
        for (input, value) in inputs.iter().filter(|(input, _)| !bound.contains(&input.as_str())) {
            let Some(declared) = taken.find(input) else { continue };
            if let Some(value) = disallowed_value(declared.spec, value) {
                errors.push(format!("{name} does not accept {value} as {input:?}"));
            }
            errors.extend(wrong_link(template, classes, declared.spec, value).map(|(source, kind)| {
                let expected = declared.spec[0].as_str().unwrap_or_default();
                format!("{name} needs {expected} as {input:?}, and {source} gives {kind}")
            }));
        }
        if id == template.output && description["output_node"] == false {
            errors.push(format!("{name} is the output, but outputs no images (use SaveImage)"));
        }
    }
    errors.into_iter().map(TemplateError).collect()
}

fn unknown_input(node: &str, input: &str, taken: &NodeInputs<'_>) -> String {
    let message = format!("{node} takes no input {input:?}");
    match taken.growing_of(input) {
        Some(GrowingInput { name, members }) => match (members.first(), members.last()) {
            (Some(first), Some(last)) => {
                format!("{message}: {name:?} has places from {first:?} to {last:?}, {} in all", members.len())
            }
            _ => format!("{message}: {name:?} has no places"),
        },
        None => message,
    }
}

/// The values that an input takes, if it has a list of them.
pub(super) fn listed_values<'a>(description: &'a Value, input: &str) -> Vec<&'a Value> {
    let spec = ["required", "optional"].into_iter().find_map(|group| description["input"][group].get(input));
    spec.and_then(value_list).into_iter().flatten().collect()
}

/// There are two forms of lists.
fn value_list(spec: &Value) -> Option<&Vec<Value>> {
    spec[0].as_array().or_else(|| spec[1]["options"].as_array())
}

/// Types that the server compares by name, without exceptions.
const LINK_TYPES: [&str; 11] = [
    "MODEL",
    "CLIP",
    "VAE",
    "CONDITIONING",
    "LATENT",
    "IMAGE",
    "MASK",
    "NOISE",
    "GUIDER",
    "SAMPLER",
    "SIGMAS",
];

/// The output that a link comes from, and its type, if it certainly is not the type of the input.
fn wrong_link(
    template: &Template,
    classes: &Classes,
    spec: &Value,
    value: &Value,
) -> Option<(String, String)> {
    let expected = spec[0].as_str().filter(|kind| LINK_TYPES.contains(kind))?;
    let (source, output) = (value.get(0)?.as_str()?, value.get(1)?.as_u64()?);
    let (id, class, _) = template.nodes().find(|(id, _, _)| *id == source)?;
    let outputs = classes.get(class)?.as_ref()?["output"].as_array()?;
    let kind =
        outputs.get(usize::try_from(output).ok()?)?.as_str().filter(|kind| LINK_TYPES.contains(kind))?;
    (kind != expected).then(|| (format!("output {output} of the node {id:?} ({class})"), kind.to_owned()))
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

    /// As ComfyUI 0.33 describes it.
    fn save_advanced() -> Value {
        let choices = |options: &[&str]| json!(["COMBO", {"options": options}]);
        json!({"input": {"required": {"images": ["IMAGE", {}], "filename_prefix": ["STRING", {}],
            "format": ["COMFY_DYNAMICCOMBO_V3", {"options": [
                {"key": "png", "inputs": {"required": {"bit_depth": choices(&["8-bit", "16-bit"]), "input_color_space": choices(&["sRGB"])}}},
                {"key": "exr", "inputs": {"required": {"bit_depth": choices(&["32-bit float"]), "input_color_space": choices(&["sRGB", "HDR"])}}}]}]},
            "hidden": {"prompt": ["PROMPT"]}}, "output": [], "output_node": true})
    }

    /// An encoder of up to three images, one of which it needs.
    fn encode() -> Value {
        let template = json!({"input": {"required": {"image": ["IMAGE", {}]}}, "names": ["image_1", "image_2", "image_3"], "min": 1});
        json!({"input": {"required": {"clip": ["CLIP"], "prompt": ["STRING", {}], "images": ["COMFY_AUTOGROW_V3", {"template": template}]}},
            "output": ["IMAGE"], "output_node": false})
    }

    fn classes() -> Classes {
        let sampler = json!({"input": {"required": {"seed": ["INT", {}], "steps": ["INT", {}],
            "sampler_name": [["euler", "ddim"], {}], "scheduler": ["COMBO", {"options": ["normal"]}],
            "format": ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "png", "inputs": {"optional": {"bit_depth": ["INT"]}}}]}]}, "optional": {"mask": ["MASK"]}}, "output_node": false});
        let save = json!({"input": {"required": {"images": ["IMAGE"], "filename_prefix": ["STRING"]}}, "output_node": true});
        let load = json!({"input": {"required": {"image": [["a.png"], {"image_upload": true}]}}, "output": ["IMAGE", "MASK"], "output_node": false});
        HashMap::from([
            ("KSampler".into(), Some(sampler)),
            ("SaveImage".into(), Some(save)),
            ("LoadImage".into(), Some(load)),
            ("SaveImageAdvanced".into(), Some(save_advanced())),
            ("Encode".into(), Some(encode())),
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

    /// The errors of an image that is loaded, seen by an encoder with these further inputs, and saved with these.
    fn errors_of(encoder: &Value, save: &Value) -> Vec<String> {
        let (mut encode, mut last) =
            (json!({"clip": ["1", 1], "prompt": "x"}), json!({"filename_prefix": "x"}));
        encode.as_object_mut().unwrap().extend(encoder.as_object().unwrap().clone());
        last.as_object_mut().unwrap().extend(save.as_object().unwrap().clone());
        let graph = json!({
            "1": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 2, "sampler_name": "ddim", "scheduler": "normal", "format": "png"}},
            "4": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
            "5": {"class_type": "Encode", "inputs": encode},
            "9": {"class_type": "SaveImageAdvanced", "inputs": last}});
        let yaml = "output: '9'\nbindings: {prompt: [5.prompt]}";
        let template = Template::read(comfyui::GRAPH_FORMAT, &graph.to_string(), yaml);
        let template = template.unwrap_or_else(|errors| panic!("{errors:?}"));
        check_template(&template, &classes()).into_iter().map(|error| error.0).collect()
    }

    #[test]
    fn a_dynamic_choice_is_checked_with_the_inputs_of_the_chosen_option() {
        let encoder = || json!({"images.image_1": ["4", 0]});
        let save = |more: Value| {
            let mut save = json!({"images": ["5", 0], "format": "png", "format.bit_depth": "8-bit", "format.input_color_space": "sRGB"});
            save.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            errors_of(&encoder(), &save)
        };
        assert_eq!(save(json!({})), [""; 0]);
        let float =
            json!({"format": "exr", "format.bit_depth": "32-bit float", "format.input_color_space": "HDR"});
        assert_eq!(save(float), [""; 0]);
        for (more, expected) in [
            (json!({"format": "gif"}), r#"does not accept "gif" as "format""#),
            (json!({"format": "exr"}), r#"does not accept "8-bit" as "format.bit_depth""#),
            (json!({"format.bit_depth": "12-bit"}), r#"does not accept "12-bit" as "format.bit_depth""#),
        ] {
            assert_eq!(save(more), [format!("the node \"9\" (SaveImageAdvanced) {expected}")]);
        }
        let missing = errors_of(&encoder(), &json!({"images": ["5", 0], "format": "png"}));
        let expected = ["format.bit_depth", "format.input_color_space"]
            .map(|input| format!("the node \"9\" (SaveImageAdvanced) is missing its input {input:?}"));
        assert_eq!(missing, expected);
    }

    #[test]
    fn a_link_of_a_wrong_type_names_both_ends() {
        let save = json!({"images": ["5", 0], "format": "png", "format.bit_depth": "8-bit", "format.input_color_space": "sRGB"});
        let expected = "the node \"5\" (Encode) needs IMAGE as \"images.image_1\", and output 1 of the node \"4\" (LoadImage) gives MASK";
        assert_eq!(errors_of(&json!({"images.image_1": ["4", 1]}), &save), [expected]);
    }

    #[test]
    fn a_growing_input_takes_its_names_and_no_others() {
        let save = || json!({"images": ["5", 0], "format": "png", "format.bit_depth": "8-bit", "format.input_color_space": "sRGB"});
        let three =
            json!({"images.image_1": ["4", 0], "images.image_2": ["4", 0], "images.image_3": ["4", 0]});
        assert_eq!(errors_of(&three, &save()), [""; 0]);
        let places = r#""images" has places from "image_1" to "image_3", 3 in all"#;
        for (encoder, expected) in [
            (json!({}), r#"is missing its input "images.image_1""#.to_owned()),
            (
                json!({"images.image_1": ["4", 0], "images.image_4": ["4", 0]}),
                format!(r#"takes no input "images.image_4": {places}"#),
            ),
            (
                json!({"images.image_1": ["4", 0], "images.picture": ["4", 0]}),
                format!(r#"takes no input "images.picture": {places}"#),
            ),
        ] {
            assert_eq!(errors_of(&encoder, &save()), [format!("the node \"5\" (Encode) {expected}")]);
        }
    }
}
