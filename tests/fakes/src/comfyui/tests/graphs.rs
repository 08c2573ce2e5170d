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
fn files() -> BTreeMap<String, Bytes> {
    let mask = GrayImage::from_fn(SIDE, SIDE, |x, _| Luma([if x < SIDE / 2 { 0 } else { 255 }]));
    BTreeMap::from([
        ("input/first.png".to_owned(), png(&picture(1).into())),
        ("input/second.png".to_owned(), png(&picture(2).into())),
        ("input/mask.png".to_owned(), png(&mask.into())),
    ])
}

fn run(graph: &Value) -> RgbImage {
    (*Evaluation::of(graph, &files()).picture("save")).clone()
}

/// Two references in a chain and two LoRAs, with a sampler of parts.
fn references() -> Value {
    json!({
        "model": {"class_type": "UNETLoader", "inputs": {"unet_name": "a", "weight_dtype": "default"}},
        "clip": {"class_type": "CLIPLoader", "inputs": {"clip_name": "b", "type": "flux2"}},
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": "c"}},
        "lora": {"class_type": "LoraLoaderModelOnly",
            "inputs": {"model": ["model", 0], "lora_name": "one", "strength_model": 0.5}},
        "lora2": {"class_type": "LoraLoaderModelOnly",
            "inputs": {"model": ["lora", 0], "lora_name": "two", "strength_model": 1.0}},
        "text": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["clip", 0]}},
        "zero": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["text", 0]}},
        "z": {"class_type": "LoadImage", "inputs": {"image": "first.png"}},
        "a": {"class_type": "LoadImage", "inputs": {"image": "second.png"}},
        "seen": {"class_type": "VAEEncode", "inputs": {"pixels": ["z", 0], "vae": ["vae", 0]}},
        "seen2": {"class_type": "VAEEncode", "inputs": {"pixels": ["a", 0], "vae": ["vae", 0]}},
        "ref": {"class_type": "ReferenceLatent", "inputs": {"conditioning": ["text", 0], "latent": ["seen", 0]}},
        "ref2": {"class_type": "ReferenceLatent", "inputs": {"conditioning": ["ref", 0], "latent": ["seen2", 0]}},
        "latent": {"class_type": "EmptyFlux2LatentImage", "inputs": {"width": 64, "height": 48, "batch_size": 1}},
        "noise": {"class_type": "RandomNoise", "inputs": {"noise_seed": 7}},
        "pick": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "sigmas": {"class_type": "Flux2Scheduler", "inputs": {"steps": 4, "width": 64, "height": 48}},
        "guider": {"class_type": "CFGGuider",
            "inputs": {"model": ["lora2", 0], "positive": ["ref2", 0], "negative": ["zero", 0], "cfg": 1.0}},
        "sampler": {"class_type": "SamplerCustomAdvanced", "inputs": {"noise": ["noise", 0], "guider": ["guider", 0],
            "sampler": ["pick", 0], "sigmas": ["sigmas", 0], "latent_image": ["latent", 0]}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": ["vae", 0]}},
        "save": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["decode", 0]}},
        "seed": {"class_type": "KSampler", "inputs": {"seed": 99, "steps": 77}}
    })
}

#[test]
fn all_that_reaches_the_sampler_shows_in_the_picture_and_nothing_else_does() {
    let base = references();
    let before = run(&base);
    assert_eq!(before.dimensions(), (64, 48));
    assert_eq!(run(&base), before);
    for (node, input, value) in [
        ("text", "text", json!("a dog")),
        ("noise", "noise_seed", json!(8)),
        ("sigmas", "steps", json!(5)),
        ("pick", "sampler_name", json!("heun")),
        ("latent", "height", json!(64)),
        ("a", "image", json!("first.png")),
        ("ref2", "conditioning", json!(["text", 0])),
        ("lora", "strength_model", json!(0.6)),
        ("lora2", "lora_name", json!("three")),
        ("guider", "model", json!(["model", 0])),
        ("model", "unet_name", json!("other")),
    ] {
        let mut graph = base.clone();
        graph[node]["inputs"][input] = value;
        assert_ne!(run(&graph), before, "{node}.{input}");
    }
    let mut swapped = base.clone();
    (swapped["z"]["inputs"]["image"], swapped["a"]["inputs"]["image"]) =
        (json!("second.png"), json!("first.png"));
    assert_ne!(run(&swapped), before, "the pictures' order");
    for (node, input, value) in
        [("save", "filename_prefix", json!("y")), ("seed", "seed", json!(1)), ("zero", "surplus", json!(1))]
    {
        let mut graph = base.clone();
        graph[node]["inputs"][input] = value;
        assert_eq!(run(&graph), before, "{node}.{input}");
    }
}

#[test]
fn a_prompts_values_come_from_what_its_output_needs() {
    let prompt = ComfyPrompt {
        prompt_id: String::new(),
        client_id: None,
        number: 0,
        extra_data: Value::Null,
        graph: references(),
        outputs: vec!["save".to_owned()],
        status: PromptStatus::Pending,
        images: Vec::new(),
    };
    assert_eq!((prompt.seed(), prompt.steps()), (7, 4));
    assert_eq!(prompt.pictures(), ["first.png", "second.png"]);
    assert_eq!(prompt.loras(), [("one".to_owned(), 0.5), ("two".to_owned(), 1.0)]);
}

fn inpaint() -> Value {
    json!({
        "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a"}},
        "text": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["model", 1]}},
        "source": {"class_type": "LoadImage", "inputs": {"image": "first.png"}},
        "kept": {"class_type": "LoadImageMask", "inputs": {"image": "mask.png", "channel": "red"}},
        "repainted": {"class_type": "InvertMask", "inputs": {"mask": ["kept", 0]}},
        "encode": {"class_type": "VAEEncode", "inputs": {"pixels": ["source", 0], "vae": ["model", 2]}},
        "latent": {"class_type": "SetLatentNoiseMask", "inputs": {"samples": ["encode", 0], "mask": ["repainted", 0]}},
        "sampler": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 2, "cfg": 7.0, "sampler_name": "euler",
            "scheduler": "normal", "denoise": 1.0, "model": ["model", 0], "positive": ["text", 0],
            "negative": ["text", 0], "latent_image": ["latent", 0]}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sampler", 0], "vae": ["model", 2]}},
        "paste": {"class_type": "ImageCompositeMasked", "inputs": {"destination": ["source", 0],
            "source": ["decode", 0], "x": 0, "y": 0, "resize_source": false, "mask": ["repainted", 0]}},
        "save": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["paste", 0]}}
    })
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
fn only_a_paste_with_its_links_the_right_way_round_keeps_pixels() {
    let (left, right) = kept(&run(&inpaint()));
    assert!(left < 20 && right == 2048, "{left} {right}");
    for (node, input, value) in [
        ("save", "images", json!(["decode", 0])),
        ("paste", "mask", json!(["kept", 0])),
        ("paste", "destination", json!(["decode", 0])),
    ] {
        let mut graph = inpaint();
        graph[node]["inputs"][input] = value;
        let (left, right) = kept(&run(&graph));
        assert!(left > 20 || right < 2048, "{node}.{input}: {left} {right}");
    }
    let mut swapped = inpaint();
    (swapped["paste"]["inputs"]["destination"], swapped["paste"]["inputs"]["source"]) =
        (json!(["decode", 0]), json!(["source", 0]));
    assert_ne!(kept(&run(&swapped)).1, 2048);
}
