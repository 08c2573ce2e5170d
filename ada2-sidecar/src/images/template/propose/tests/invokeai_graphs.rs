//! InvokeAI's graphs and exports.

use super::*;

fn edge(from: &str, output: &str, to: &str, field: &str) -> Value {
    json!({"source": {"node_id": from, "field": output}, "destination": {"node_id": to, "field": field}})
}

fn invoke_graph() -> Value {
    json!({"nodes": {
        "loader": {"id": "loader", "type": "sdxl_model_loader", "model": null},
        "pos": {"id": "pos", "type": "sdxl_compel_prompt", "prompt": "a cat", "style": "", "original_width": 1024,
            "original_height": 1024, "target_width": 512, "target_height": 512},
        "neg": {"id": "neg", "type": "sdxl_compel_prompt", "prompt": "", "style": ""},
        "noise": {"id": "noise", "type": "noise", "seed": 1, "width": 1024, "height": 1024},
        "denoise": {"id": "denoise", "type": "denoise_latents", "steps": 30, "cfg_scale": 7.5, "scheduler": "euler",
            "denoising_start": 0.3},
        "i2l": {"id": "i2l", "type": "i2l", "image": null},
        "mask": {"id": "mask", "type": "create_denoise_mask", "image": null, "mask": null},
        "l2i": {"id": "l2i", "type": "l2i"},
        "paste": {"id": "paste", "type": "canvas_paste_back", "source_image": null, "mask": null},
        "meta": {"id": "meta", "type": "core_metadata", "positive_prompt": "", "seed": 0, "cfg_scale": 7.5}},
     "edges": [
        edge("pos", "conditioning", "denoise", "positive_conditioning"),
        edge("neg", "conditioning", "denoise", "negative_conditioning"),
        edge("loader", "unet", "denoise", "unet"), edge("noise", "noise", "denoise", "noise"),
        edge("i2l", "latents", "denoise", "latents"), edge("mask", "denoise_mask", "denoise", "denoise_mask"),
        edge("denoise", "latents", "l2i", "latents"), edge("l2i", "image", "paste", "target_image"),
        edge("meta", "metadata", "paste", "metadata")]})
}

#[test]
fn invokeais_graphs_are_read_the_same_way() {
    let proposal = propose(invokeai::GRAPH_FORMAT, &invoke_graph().to_string());
    assert_eq!(output(&proposal), "paste");
    for (name, inputs) in [
        ("prompt", "pos.prompt, meta.positive_prompt"),
        ("negative_prompt", "neg.prompt, neg.style"),
        ("width", "noise.width, pos.original_width"),
        ("seed", "noise.seed, meta.seed"),
        ("steps", "denoise.steps"),
        ("cfg_scale", "denoise.cfg_scale, meta.cfg_scale"),
        ("scheduler", "denoise.scheduler"),
        ("image", "paste.source_image, i2l.image, mask.image"),
        ("mask", "paste.mask, mask.mask"),
        ("strength", "denoise.denoising_start"),
        ("model", "loader.model"),
    ] {
        assert_eq!(bound(&proposal, name), inputs, "{name}: {proposal:?}");
    }
    assert_eq!(proposal.outcome, Ok(Task::Inpaint));
    let mut flux = invoke_graph();
    for id in ["noise", "i2l", "mask", "paste", "meta", "neg"] {
        flux["nodes"].as_object_mut().unwrap().remove(id);
    }
    flux["nodes"]["pos"] = json!({"id": "pos", "type": "flux_text_encoder", "prompt": "a cat"});
    flux["nodes"]["denoise"] = json!({"id": "denoise", "type": "flux_denoise", "num_steps": 20, "cfg_scale": 1, "guidance": 4,
        "scheduler": "euler", "seed": 4, "width": 512, "height": 512});
    flux["edges"] = json!([
        edge("pos", "conditioning", "denoise", "positive_text_conditioning"),
        edge("denoise", "latents", "l2i", "latents")
    ]);
    let proposal = propose(invokeai::GRAPH_FORMAT, &flux.to_string());
    assert_eq!(
        (bound(&proposal, "cfg_scale"), bound(&proposal, "scheduler")),
        ("denoise.guidance".into(), "denoise.scheduler".into())
    );
    assert!(proposal.text.contains("\nschedulers: [euler, heun, lcm]\n"), "{}", proposal.text);
    assert_eq!(
        (bound(&proposal, "width"), proposal.outcome.clone()),
        ("denoise.width".into(), Ok(Task::Generate))
    );
    flux["nodes"]["denoise"]["type"] = json!("new_denoise");
    let unknown = propose(invokeai::GRAPH_FORMAT, &flux.to_string());
    assert_eq!((bound(&unknown, "scheduler"), unknown.text.contains("schedulers:")), (String::new(), false));
    assert!(notes(&unknown).contains("takes other names"), "{unknown:?}");
}

#[test]
fn invokeais_exports_are_read_too() {
    let node = |id: &str, kind: &str, inputs: Value| {
        let inputs: serde_json::Map<String, Value> = inputs
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), json!({"value": value})))
            .collect();
        json!({"id": id, "type": "invocation", "data": {"id": id, "type": kind, "inputs": inputs}})
    };
    let edge = |from: &str, output: &str, to: &str, field: &str| json!({"type": "default", "source": from, "sourceHandle": output, "target": to, "targetHandle": field});
    let export = json!({"name": "mine", "nodes": [
        node("text", "string", json!({"value": "a cat"})),
        node("random", "rand_int", json!({"low": 0, "high": 9})),
        node("pos", "z_image_text_encoder", json!({"prompt": ""})),
        node("denoise", "z_image_denoise", json!({"steps": 9, "guidance_scale": 1, "seed": 0, "width": 64, "height": 64})),
        node("decode", "z_image_l2i", json!({"latents": null}))],
        "edges": [edge("text", "value", "pos", "prompt"), edge("random", "value", "denoise", "seed"),
            edge("pos", "conditioning", "denoise", "positive_conditioning"), edge("denoise", "latents", "decode", "latents")]});
    assert!(invokeai::GRAPH_FORMAT.recognizes(&export));
    let proposal = propose(invokeai::GRAPH_FORMAT, &export.to_string());
    assert_eq!(
        (bound(&proposal, "prompt"), bound(&proposal, "seed")),
        ("text.value".into(), "denoise.seed".into())
    );
    assert_eq!(proposal.outcome, Ok(Task::Generate), "{proposal:?}");
}
