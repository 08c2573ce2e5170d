//! What a picture depends on, and what it does not.

use std::collections::BTreeMap;

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};

use super::{super::evaluation::Evaluation, *};

const SIDE: u32 = 64;

fn png(image: &DynamicImage) -> Bytes {
    let mut bytes = Vec::new();
    image.write_to(&mut std::io::Cursor::new(&mut bytes), ImageFormat::Png).unwrap();
    bytes.into()
}

fn picture(blue: u8) -> RgbImage {
    RgbImage::from_fn(SIDE, SIDE, |x, y| Rgb([u8::try_from(x).unwrap(), u8::try_from(y).unwrap(), blue]))
}

/// Two pictures, and a mask that is black, which means repainted, in its left half.
fn images() -> BTreeMap<String, Bytes> {
    let mask = GrayImage::from_fn(SIDE, SIDE, |x, _| Luma([if x < SIDE / 2 { 0 } else { 255 }]));
    BTreeMap::from([
        ("first".to_owned(), png(&picture(1).into())),
        ("second".to_owned(), png(&picture(2).into())),
        ("mask".to_owned(), png(&mask.into())),
    ])
}

fn run(graph: &Value) -> RgbImage {
    (*Evaluation::of(graph, &images()).picture()).clone()
}

fn graph(nodes: &[(&str, Value)], edges: &[(&str, &str)]) -> Value {
    let mut graph = json!({"id": "graph", "nodes": {}, "edges": []});
    for (id, node) in nodes {
        graph["nodes"][id] = node.clone();
        graph["nodes"][id]["id"] = json!(id);
    }
    let end = |text: &str| {
        let (node, field) = text.split_once('.').unwrap();
        json!({"node_id": node, "field": field})
    };
    graph["edges"] =
        edges.iter().map(|(from, to)| json!({"source": end(from), "destination": end(to)})).collect();
    graph
}

fn image(name: &str) -> Value {
    json!({ "image_name": name })
}

/// Two references in a chain and two LoRAs.
fn references() -> Value {
    let lora = |name: &str, weight: f64| json!({"type": "lora_selector", "lora": {"key": name, "name": name, "base": "flux2"}, "weight": weight});
    graph(
        &[
            ("loader", json!({"type": "flux2_klein_model_loader", "model": {"key": "m", "base": "flux2"}})),
            ("pos", json!({"type": "flux2_klein_text_encoder", "prompt": "a cat"})),
            ("neg", json!({"type": "flux2_klein_text_encoder", "prompt": ""})),
            (
                "denoise",
                json!({"type": "flux2_denoise", "num_steps": 4, "cfg_scale": 1.0, "seed": 7, "width": 64,
                "height": 48, "scheduler": "euler"}),
            ),
            ("decode", json!({"type": "flux2_vae_decode", "is_intermediate": false})),
            ("ref", json!({"type": "flux_kontext", "image": image("first")})),
            ("refs", json!({"type": "collect"})),
            ("ref2", json!({"type": "flux_kontext", "image": image("second")})),
            ("refs2", json!({"type": "collect"})),
            ("lora", lora("one", 0.5)),
            ("lora2", lora("two", 1.0)),
            ("loras", json!({"type": "collect"})),
            ("applied", json!({"type": "flux2_klein_lora_collection_loader"})),
            ("meta", json!({"type": "core_metadata", "seed": 99, "steps": 77})),
        ],
        &[
            ("loader.qwen3_encoder", "pos.qwen3_encoder"),
            ("loader.qwen3_encoder", "neg.qwen3_encoder"),
            ("loader.transformer", "applied.transformer"),
            ("lora.lora", "loras.item"),
            ("lora2.lora", "loras.item"),
            ("loras.collection", "applied.loras"),
            ("applied.transformer", "denoise.transformer"),
            ("pos.conditioning", "denoise.positive_text_conditioning"),
            ("neg.conditioning", "denoise.negative_text_conditioning"),
            ("ref.kontext_cond", "refs.item"),
            ("refs.collection", "refs2.collection"),
            ("ref2.kontext_cond", "refs2.item"),
            ("refs2.collection", "denoise.kontext_conditioning"),
            ("denoise.latents", "decode.latents"),
            ("meta.metadata", "decode.metadata"),
        ],
    )
}

#[test]
fn all_that_reaches_the_denoiser_shows_in_the_picture_and_nothing_else_does() {
    let base = references();
    let before = run(&base);
    assert_eq!(before.dimensions(), (64, 48));
    assert_eq!(run(&base), before);
    for (node, field, value) in [
        ("pos", "prompt", json!("a dog")),
        ("denoise", "seed", json!(8)),
        ("denoise", "num_steps", json!(5)),
        ("denoise", "scheduler", json!("heun")),
        ("denoise", "height", json!(64)),
        ("ref2", "image", image("first")),
        ("lora", "weight", json!(0.6)),
        ("lora2", "lora", json!({"key": "three", "name": "three", "base": "flux2"})),
        ("loader", "model", json!({"key": "other"})),
    ] {
        let mut graph = base.clone();
        graph["nodes"][node][field] = value;
        assert_ne!(run(&graph), before, "{node}.{field}");
    }
    let mut swapped = base.clone();
    (swapped["nodes"]["ref"]["image"], swapped["nodes"]["ref2"]["image"]) = (image("second"), image("first"));
    assert_ne!(run(&swapped), before, "the pictures' order");
    for lost in ["refs.collection", "lora2.lora", "applied.transformer"] {
        let mut graph = base.clone();
        let (node, field) = lost.split_once('.').unwrap();
        let source = json!({"node_id": node, "field": field});
        graph["edges"].as_array_mut().unwrap().retain(|edge| edge["source"] != source);
        assert_ne!(run(&graph), before, "{lost}");
    }
    for (node, field, value) in [
        ("meta", "seed", json!(1)),
        ("neg", "prompt", json!("without guidance it is not used")),
        ("decode", "is_intermediate", json!(true)),
    ] {
        let mut graph = base.clone();
        graph["nodes"][node][field] = value;
        assert_eq!(run(&graph), before, "{node}.{field}");
    }
}

#[test]
fn an_items_values_come_from_what_its_picture_needs() {
    let graph = references();
    assert_eq!(super::super::graph::last(&graph), Some("decode"));
    assert_eq!(super::super::graph::value(&graph, "seed"), Some(&json!(7)));
    assert_eq!(super::super::graph::pictures(&graph), ["first", "second"]);
    assert_eq!(super::super::graph::loras(&graph), [("one".to_owned(), 0.5), ("two".to_owned(), 1.0)]);
}

/// Without the paste back there is no edge to it, and the decoder's picture is the last.
fn inpaint(paste: Value) -> Value {
    let mask = json!({"type": "create_gradient_mask", "image": image("first"), "mask": image("mask")});
    graph(
        &[
            (
                "denoise",
                json!({"type": "z_image_denoise", "seed": 1, "width": 64, "height": 64,
                "denoising_start": 0.0}),
            ),
            ("decode", json!({"type": "z_image_l2i"})),
            ("encode", json!({"type": "z_image_i2l", "image": image("first")})),
            ("mask", mask),
            ("paste", paste),
        ],
        &[
            ("encode.latents", "denoise.latents"),
            ("mask.denoise_mask", "denoise.denoise_mask"),
            ("denoise.latents", "decode.latents"),
            ("decode.image", "paste.target_image"),
        ],
    )
}

fn paste(source: &str, mask: &str) -> Value {
    json!({"type": "canvas_paste_back", "source_image": image(source), "mask": image(mask), "mask_blur": 0})
}

/// How many pixels of each half are the source's: all are 2048.
fn kept(made: &RgbImage) -> (usize, usize) {
    let source = picture(1);
    let is_kept = |(x, y, pixel): &(u32, u32, &Rgb<u8>)| *pixel == source.get_pixel(*x, *y);
    let (left, right): (Vec<_>, Vec<_>) =
        made.enumerate_pixels().filter(is_kept).partition(|(x, ..)| *x < SIDE / 2);
    (left.len(), right.len())
}

#[test]
fn only_a_paste_with_its_edges_the_right_way_round_keeps_pixels() {
    let right_way = inpaint(paste("first", "mask"));
    let (left, right) = kept(&run(&right_way));
    assert!(left < 20 && right == 2048, "{left} {right}");
    let mut alone = right_way.clone();
    alone["edges"].as_array_mut().unwrap().pop();
    alone["nodes"].as_object_mut().unwrap().remove("paste");
    let mut to_source = right_way.clone();
    to_source["edges"][3]["destination"]["field"] = json!("source_image");
    to_source["nodes"]["paste"]["target_image"] = image("first");
    for (what, graph) in [
        ("no paste", alone),
        ("the ends swapped", to_source),
        ("another picture", inpaint(paste("second", "mask"))),
        ("no mask", inpaint(paste("first", "second"))),
    ] {
        let (left, right) = kept(&run(&graph));
        assert!(left > 20 || right < 2048, "{what}: {left} {right}");
    }
}
