//! Files in GGUF format, which a node pack's own loaders read.

use serde_json::{Value, json};

/// A loader, the class of a node pack that reads the same files in GGUF format, and the inputs that only the first has.
pub(super) const GGUF_LOADERS: [(&str, &str, &[&str]); 3] = [
    ("UNETLoader", "UnetLoaderGGUF", &["weight_dtype"]),
    ("CLIPLoader", "CLIPLoaderGGUF", &["device"]),
    ("DualCLIPLoader", "DualCLIPLoaderGGUF", &["device"]),
];
/// The extension.
pub(super) const GGUF: &str = ".gguf";

/// The row of a loader.
pub(super) fn gguf_loader(class: &str) -> Option<(&'static str, &'static str, &'static [&'static str])> {
    GGUF_LOADERS.into_iter().find(|(loader, ..)| *loader == class)
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
mod tests {
    use super::*;

    #[test]
    fn gguf_files_have_loaders_of_their_own() {
        let graph_with = |file: &str| json!({"model": {"class_type": "UNETLoader", "inputs": {"unet_name": file, "weight_dtype": "default"}}});
        let mut graph = graph_with("z.gguf");
        use_gguf_loaders(&mut graph);
        assert_eq!(
            graph["model"],
            json!({"class_type": "UnetLoaderGGUF", "inputs": {"unet_name": "z.gguf"}})
        );
        let mut graph = graph_with("z.safetensors");
        use_gguf_loaders(&mut graph);
        assert_eq!(graph, graph_with("z.safetensors"));
    }
}
