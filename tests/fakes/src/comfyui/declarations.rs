//! What each class of nodes takes and gives, by version and by the files that are installed.

use std::{iter, sync::LazyLock};

use serde_json::{Value, json};

use super::{
    queue::ComfyState,
    script::{ComfyScript, ComfyVersion},
};

/// `/object_info`, as recorded.
static RECORDED: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../fixtures/comfyui/object_info.json")).expect("a JSON fixture")
});

/// Further classes in the same form, and since which version classes and choices are there.
static FAMILIES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../fixtures/comfyui/families.json")).expect("a JSON fixture")
});

/// How the classes of the custom nodes for GGUF files begin their module's name.
const GGUF_MODULE: &str = "custom_nodes.ComfyUI-GGUF";

/// What any version says of a class.
pub(super) fn class(class: &str) -> Option<&'static Value> {
    RECORDED.get(class).or_else(|| FAMILIES["classes"].get(class))
}

/// `/object_info` of a class, with the files of this moment. None for a class that the server has not.
pub(super) fn object_info(state: &ComfyState, class: &str) -> Option<Value> {
    let script = &state.script;
    let mut about = self::class(class)?.clone();
    let is_gguf = about["python_module"] == GGUF_MODULE;
    let is_removed = script.removed_classes.iter().any(|removed| removed == class);
    if is_removed || (is_gguf && !script.gguf_nodes) || !is_there(&FAMILIES["since"][class], script.version) {
        return None;
    }
    for (name, spec) in about["input"]["required"].as_object_mut().into_iter().flatten() {
        if let Some(files) = files_of(script, name, is_gguf) {
            spec[0] = json!(files);
        }
    }
    if class.contains("CLIPLoader") && !class.starts_with("Dual") {
        about["input"]["required"]["type"][0] = clip_types(&about["input"]["required"]["type"][0], script);
    }
    Some(about)
}

/// Always, unless it came with a version.
fn is_there(since: &Value, version: ComfyVersion) -> bool {
    let part = |at: usize| u16::try_from(since[at].as_u64().unwrap_or(0)).expect("a version's part");
    version >= ComfyVersion(part(0), part(1), part(2))
}

/// The recorded choices that this version has, and those of later versions.
fn clip_types(recorded: &Value, script: &ComfyScript) -> Value {
    let since = &FAMILIES["clip_types"];
    let recorded: Vec<&str> = recorded.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let later = since.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let later = later.filter(|name| !recorded.contains(name)).collect::<Vec<_>>();
    let all = recorded.iter().copied().chain(later);
    all.filter(|name| is_there(&since[*name], script.version)).collect()
}

/// The files that an input takes, if it takes files.
fn files_of(script: &ComfyScript, input: &str, is_gguf: bool) -> Option<Vec<String>> {
    let folders: &[&str] = match (input, is_gguf) {
        ("ckpt_name", _) => &["checkpoints"],
        ("unet_name", false) => &["diffusion_models"],
        ("unet_name", true) => &["unet_gguf"],
        ("clip_name" | "clip_name1" | "clip_name2", false) => &["text_encoders"],
        ("clip_name" | "clip_name1" | "clip_name2", true) => &["text_encoders", "clip_gguf"],
        ("vae_name", _) => &["vae"],
        ("lora_name", _) => &["loras"],
        ("control_net_name", _) => &["controlnet"],
        _ => return None,
    };
    let mut files: Vec<String> =
        folders.iter().filter_map(|folder| script.folder(folder)).flatten().cloned().collect();
    if input == "vae_name" {
        // No file, and always a choice.
        files.push("pixel_space".to_owned());
    }
    Some(files)
}

/// An input of a node: its name as the graph spells it, its declaration, and whether the node runs without.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) spec: Value,
    pub(super) required: bool,
}

/// The inputs of a node in their declared order. Of a growing input and of a choice with inputs of its own, those that
/// this node's values ask for.
pub(super) fn inputs(about: &Value, values: &Value) -> Vec<Input> {
    declared(about, "").into_iter().flat_map(|input| expand(input, values)).collect()
}

fn declared(about: &Value, prefix: &str) -> Vec<Input> {
    let of = |group: &'static str| {
        let specs = &about["input"][group];
        let order = about["input_order"][group].as_array().map_or_else(
            || specs.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>(),
            |names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        );
        order.into_iter().map(move |name| Input {
            spec: specs[&name].clone(),
            name: format!("{prefix}{name}"),
            required: group == "required",
        })
    };
    of("required").chain(of("optional")).collect()
}

fn expand(input: Input, values: &Value) -> Vec<Input> {
    match input.spec[0].as_str() {
        Some("COMFY_AUTOGROW_V3") => grown(&input, values),
        Some("COMFY_DYNAMICCOMBO_V3") => {
            let options = input.spec[1]["options"].as_array().into_iter().flatten();
            let chosen = options.into_iter().find(|option| option["key"] == values[&input.name]);
            let prefix = format!("{}.", input.name);
            let own = chosen.map(|option| declared(&json!({"input": option["inputs"]}), &prefix));
            iter::once(input).chain(own.into_iter().flatten()).collect()
        }
        _ => vec![input],
    }
}

fn grown(input: &Input, values: &Value) -> Vec<Input> {
    let template = &input.spec[1]["template"];
    let max = template["max"].as_u64().unwrap_or(0);
    let names: Vec<String> = match template["names"].as_array() {
        Some(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        None => {
            (0..max).map(|at| format!("{}{at}", template["prefix"].as_str().unwrap_or_default())).collect()
        }
    };
    let spec = template["input"]["required"].as_object().and_then(|specs| specs.values().next());
    let min = usize::try_from(template["min"].as_u64().unwrap_or(0)).expect("few inputs");
    let of = |(at, name): (usize, String)| Input {
        name: format!("{}.{name}", input.name),
        spec: spec.cloned().unwrap_or_default(),
        required: at < min,
    };
    let is_used = |input: &Input| input.required || values.get(&input.name).is_some();
    names.into_iter().enumerate().map(of).filter(is_used).collect()
}
