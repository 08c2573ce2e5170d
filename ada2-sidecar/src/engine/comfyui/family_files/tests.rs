//! Which families are complete, and with which files.

mod host;

use std::collections::{BTreeSet, HashMap};

use self::host::{Host, published_families};
use super::*;
use crate::engine::comfyui::{gguf::GGUF_LOADERS, graphs};

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

#[test]
fn with_everything_that_is_published_each_family_has_its_own_files() {
    let found = Host::published().families();
    let split = |files: &Vec<String>| files.join(" ");
    let found: Vec<_> =
        found.iter().map(|(name, (mains, others))| (name.as_str(), split(mains), split(others))).collect();
    let expected: Vec<_> = published_families()
        .into_iter()
        .map(|(name, mains, others)| (name, mains.to_owned(), others.to_owned()))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_family_needs_a_file_for_each_of_its_inputs() {
    let z_image: &[(&str, &[&str])] =
        &[("diffusion_models", &["z_image_turbo_bf16"]), ("text_encoders", &["qwen_3_4b"]), ("vae", &["ae"])];
    let flux1: &[(&str, &[&str])] = &[
        ("diffusion_models", &["flux1-dev"]),
        ("text_encoders", &["clip_l", "t5xxl_fp16"]),
        ("vae", &["ae"]),
    ];
    for (files, expected) in [
        (&[][..], &[][..]),
        (z_image, &["z-image-turbo"]),
        (flux1, &["flux1-dev"]),
        (&[("diffusion_models", &["z_image_turbo_bf16"]), ("vae", &["ae"])], &[]),
        (&[("diffusion_models", &["flux1-dev"]), ("text_encoders", &["qwen_3_4b"]), ("vae", &["ae"])], &[]),
        (&[("text_encoders", &["qwen_3_4b"]), ("vae", &["ae"])], &[]),
        (
            &[
                ("checkpoints", &["flux1-dev"]),
                ("text_encoders", &["clip_l", "t5xxl_fp16"]),
                ("vae", &["ae"]),
            ],
            &[],
        ),
    ] {
        assert_eq!(Host::new(files).names(), expected, "{files:?}");
    }
    let encoder_missing = Host::new(z_image).without(&["qwen_3_4b"]);
    assert!(encoder_missing.lacks("z-image-turbo").starts_with("a file qwen_3_4b or "));
    assert!(encoder_missing.lacks("z-image-turbo").ends_with(" in models/text_encoders"));
    assert!(Host::published().without(&["ae.", "flux2-vae"]).lacks("flux1-dev").ends_with(" in models/vae"));
    // The encoder of the smaller model does not serve the larger one, nor the other way round.
    let small = Host::published().without(&["qwen_3_8b"]).names();
    assert!(
        small.contains(&"flux2-klein".to_owned()) && !small.contains(&"flux2-klein-9b".to_owned()),
        "{small:?}"
    );
    let large = Host::published().without(&["qwen_3_4b"]).names();
    assert!(
        !large.contains(&"flux2-klein".to_owned()) && large.contains(&"flux2-klein-9b".to_owned()),
        "{large:?}"
    );
}

#[test]
fn another_variant_is_not_taken_for_a_missing_one() {
    for (word, gone) in [
        ("z_image_bf16", "z-image"),
        ("z_image_turbo", "z-image-turbo"),
        ("flux1-dev.", "flux1-dev"),
        ("kontext", "flux1-kontext"),
        ("fill", "flux1-fill"),
        ("klein-4b", "flux2-klein"),
        ("klein-base-4b", "flux2-klein-base"),
        ("klein-9b", "flux2-klein-9b"),
        ("klein-base-9b", "flux2-klein-base-9b"),
        ("flux2_dev", "flux2-dev"),
        ("image-klein-base", "flux3-klein-base"),
        ("edit_2509", "qwen-image-edit-2509"),
        ("edit_2511", "qwen-image-edit"),
        ("2.1_turbo", "qwen-image-2.1-turbo"),
    ] {
        let host = Host::published().without(&["int8_convrot", word]);
        assert!(host.files.len() < Host::published().files.len(), "{word}");
        assert!(!host.names().contains(&gone.to_owned()), "{gone}");
    }
    let no_distilled = Host::published().without(&["image-klein-bf16", "image-klein-int8"]).names();
    assert!(
        !no_distilled.contains(&"flux3-klein".to_owned())
            && no_distilled.contains(&"flux3-klein-base".to_owned())
    );
    let first_only = Host::published().without(&["2512"]).families();
    assert_eq!(first_only["qwen-image"].0, ["qwen_image_fp8_e4m3fn"]);
    assert_eq!(first_only["qwen-image-lightning"].1[1], "Qwen-Image-Lightning-4steps-V1.0");
    let only_21 = Host::published().without(&["qwen_image_fp8", "2512"]).names();
    assert!(!only_21.contains(&"qwen-image".to_owned()) && only_21.contains(&"qwen-image-2.1".to_owned()));
}

#[test]
fn families_that_are_a_lora_need_its_file() {
    for (lora, family, without_it) in [
        ("Flux_2-Turbo", "flux2-dev-turbo", "flux2-dev"),
        ("Edit-2509-Lightning", "qwen-image-edit-2509-lightning", "qwen-image-edit-2509"),
        ("Edit-2511-Lightning", "qwen-image-edit-lightning", "qwen-image-edit"),
        ("Lightning-4steps", "qwen-image-lightning", "qwen-image"),
        ("anima-turbo", "anima-turbo", "anima"),
        ("krea2_style", "krea-2-style", "krea-2"),
        ("ControlNet", "qwen-image-inpaint", "qwen-image"),
    ] {
        let names = Host::published().without(&[lora]).names();
        assert!(
            !names.contains(&family.to_owned()) && names.contains(&without_it.to_owned()),
            "{family}: {names:?}"
        );
    }
}

#[test]
fn the_best_of_several_files_is_first() {
    let mixed = |main: &[&str], encoders: &[&str]| {
        let host = Host::new(&[("diffusion_models", main), ("text_encoders", encoders), ("vae", &["ae"])]);
        host.families()["z-image-turbo"].clone()
    };
    let (mains, others) = mixed(
        &["z_image_turbo_fp8_e4m3fn", "z_image_turbo_bf16", "z_image_turbo_nvfp4"],
        &["qwen_3_4b_fp4_flux2", "qwen_3_4b_fp8_mixed"],
    );
    assert_eq!(mains, ["z_image_turbo_bf16", "z_image_turbo_fp8_e4m3fn", "z_image_turbo_nvfp4"]);
    assert_eq!(others, ["qwen_3_4b_fp8_mixed", "ae"]);
    let (mains, others) = mixed(&["sub/z_image_turbo_fp8_e4m3fn"], &["qwen_3_4b", "qwen_3_4b_fp8_mixed"]);
    assert_eq!(
        (mains.as_slice(), others[0].as_str()),
        (&["sub/z_image_turbo_fp8_e4m3fn".to_owned()][..], "qwen_3_4b")
    );
}

#[test]
fn gguf_files_need_the_node_pack_that_reads_them() {
    let files: &[(&str, &[&str])] = &[
        (
            "diffusion_models",
            &[
                "flux1-dev-Q2_K.gguf",
                "flux1-dev-Q8_0.gguf",
                "flux1-kontext-dev-Q4_K_M.gguf",
                "z_image_turbo-Q4_K_M.gguf",
                "Qwen-Image-Edit-2509-Q4_K_M.gguf",
                "flux-2-klein-4b-Q4_K_M.gguf",
            ],
        ),
        (
            "text_encoders",
            &[
                "clip_l",
                "t5-v1_1-xxl-encoder-Q8_0.gguf",
                "Qwen3-4B-Q4_K_M.gguf",
                "Qwen2.5-VL-7B-Instruct-Q4_K_M.gguf",
            ],
        ),
        ("vae", &["ae", "flux2-vae", "qwen_image_vae"]),
    ];
    let without = Host::new(files);
    assert_eq!(without.names(), [""; 0]);
    let with = Host { has_gguf: true, ..Host::new(files) };
    let found = with.families();
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["flux1-dev", "flux1-kontext", "flux2-klein", "qwen-image-edit-2509", "z-image-turbo"]);
    assert_eq!(found["flux1-dev"].0, ["flux1-dev-Q8_0", "flux1-dev-Q2_K"]);
    assert_eq!(found["flux1-dev"].1, ["clip_l", "t5-v1_1-xxl-encoder-Q8_0", "ae"]);
    // Beside a file that ComfyUI reads itself, it is the second choice.
    let both = Host::new(&[files, &[("diffusion_models", &["flux1-dev-fp8"][..])]].concat());
    assert_eq!(Host { has_gguf: true, ..both }.families()["flux1-dev"].0[0], "flux1-dev-fp8");
}

#[test]
fn families_that_are_newer_than_the_engine_are_incomplete() {
    let mut classes = Host::published().classes();
    classes.insert("TextEncodeQwenImage21".to_owned(), None);
    let types = classes.get_mut("CLIPLoader").and_then(Option::as_mut).unwrap();
    let types = types["input"]["optional"]["type"][0].as_array_mut().unwrap();
    types.retain(|name| name != "flux3");
    let lacks = |name: &str| {
        let set = graphs::catalog().sets().find(|set| set.family.name == name).unwrap();
        match models(set, &classes).remove(0).runner {
            Runner::Incomplete { lacks, .. } => Some(lacks),
            _ => None,
        }
    };
    assert!(
        lacks("qwen-image-2.1").unwrap().starts_with("the node TextEncodeQwenImage21, which this ComfyUI")
    );
    assert!(lacks("flux3-klein").unwrap().contains("does not accept \"flux3\" as \"type\""));
    assert_eq!(lacks("flux2-klein"), None);
}

#[test]
fn tasks_whose_nodes_are_missing_are_left_out() {
    let mut classes = Host::published().classes();
    classes.insert("DifferentialDiffusion".to_owned(), None);
    let set = graphs::catalog().sets().find(|set| set.family.name == "z-image-turbo").unwrap();
    let Runner::Graphs { set, .. } = models(set, &classes).remove(0).runner else { panic!("incomplete") };
    assert_eq!(set.templates.keys().copied().collect::<Vec<_>>(), [Task::Generate, Task::Edit]);
}
