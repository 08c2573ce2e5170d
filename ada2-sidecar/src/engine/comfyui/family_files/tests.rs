//! Which families are complete, and with which files.

use std::collections::HashMap;

use super::*;

#[test]
fn patterns_match_names_without_directories_and_extensions() {
    for (pattern, file, expected) in [
        ("ae", "ae.safetensors", true),
        ("ae", "flux/AE.sft", true),
        ("ae", "tae.safetensors", false),
        ("z_image_turbo*", "z_image_turbo_bf16.safetensors", true),
        ("z_image_turbo*", "sub/z_image_turbo-Q4_K_M.gguf", true),
        ("z_image_turbo*", "z_image_bf16.safetensors", false),
        ("*klein*4b*", "flux-2-klein-4b-fp8.safetensors", true),
        ("*klein*4b", "flux-2-klein-4b-fp8.safetensors", false),
        ("*klein*4b", "flux-2-klein-4b.safetensors", true),
        ("*", "anything.pt", true),
    ] {
        assert_eq!(matches(pattern, file), expected, "{pattern} {file}");
    }
}

fn graph_with(loader: &str, file: &str) -> Value {
    json!({"model": {"class_type": loader, "inputs": {"unet_name": file, "weight_dtype": "default"}}})
}

#[test]
fn gguf_files_have_loaders_of_their_own() {
    let mut graph = graph_with("UNETLoader", "z.gguf");
    use_gguf_loaders(&mut graph);
    assert_eq!(graph["model"], json!({"class_type": "UnetLoaderGGUF", "inputs": {"unet_name": "z.gguf"}}));
    let mut graph = graph_with("UNETLoader", "z.safetensors");
    use_gguf_loaders(&mut graph);
    assert_eq!(graph, graph_with("UNETLoader", "z.safetensors"));
    assert_eq!(installed(&HashMap::new(), "UNETLoader", "unet_name"), [""; 0]);
}
