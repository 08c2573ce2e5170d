//! Which families are complete, and with which files.

use std::collections::{BTreeSet, HashMap};

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

/// The inputs that list files, by directory; with a GGUF pack also its own.
const LISTS: [(&str, &str, &str); 9] = [
    ("diffusion_models", "UNETLoader", "unet_name"),
    ("text_encoders", "CLIPLoader", "clip_name"),
    ("text_encoders", "DualCLIPLoader", "clip_name1"),
    ("text_encoders", "DualCLIPLoader", "clip_name2"),
    ("vae", "VAELoader", "vae_name"),
    ("loras", "LoraLoaderModelOnly", "lora_name"),
    ("loras", "LoraLoader", "lora_name"),
    ("controlnet", "ControlNetLoader", "control_net_name"),
    ("checkpoints", "CheckpointLoaderSimple", "ckpt_name"),
];

/// What people download today, in the directories that ComfyUI has for it.
const PUBLISHED: [(&str, &[&str]); 5] = [
    (
        "diffusion_models",
        &[
            "anima-base-v1.0",
            "flux-2-klein-4b",
            "flux-2-klein-4b-fp8",
            "flux-2-klein-9b-fp8",
            "flux-2-klein-base-4b",
            "flux-2-klein-base-4b-fp8",
            "flux-2-klein-base-9b-fp8",
            "flux1-dev",
            "flux1-dev-kontext_fp8_scaled",
            "flux1-fill-dev",
            "flux1-schnell",
            "flux2_dev_fp8mixed",
            "flux3-image-klein-base-bf16",
            "flux3-image-klein-base-int8-convrot",
            "flux3-image-klein-bf16",
            "flux3-image-klein-int8-convrot",
            "krea2_turbo_fp8_scaled",
            "krea2_turbo_int8_convrot",
            "qwen_image_2.1_bf16",
            "qwen_image_2.1_int8_convrot",
            "qwen_image_2.1_turbo_bf16",
            "qwen_image_2.1_turbo_int8_convrot",
            "qwen_image_2512_fp8_e4m3fn",
            "qwen_image_edit_2509_fp8_e4m3fn",
            "qwen_image_edit_2511_bf16",
            "qwen_image_edit_2511_fp8mixed",
            "qwen_image_edit_2511_int8_convrot",
            "qwen_image_fp8_e4m3fn",
            "qwen_image_layered_bf16",
            "wan2.2_t2v_high_noise_14B_fp8_scaled",
            "z_image_bf16",
            "z_image_int8_convrot",
            "z_image_turbo_bf16",
            "z_image_turbo_int8_convrot",
        ],
    ),
    (
        "text_encoders",
        &[
            "clip_l",
            "mistral_3_small_flux2_bf16",
            "mistral_3_small_flux2_fp8",
            "qwen3vl_4b_bf16",
            "qwen3vl_4b_fp8_scaled",
            "qwen3vl_4b_int8_convrot",
            "qwen3vl_8b_bf16",
            "qwen3vl_8b_int8_convrot",
            "qwen_2.5_vl_7b_fp8_scaled",
            "qwen_3_06b_base",
            "qwen_3_4b",
            "qwen_3_4b_fp8_mixed",
            "qwen_3_8b_fp8mixed",
            "t5xxl_fp16",
            "t5xxl_fp8_e4m3fn_scaled",
            "umt5_xxl_fp8_e4m3fn_scaled",
        ],
    ),
    (
        "vae",
        &[
            "ae",
            "flux2-vae",
            "full_encoder_small_decoder",
            "qwen_image_2.1_vae_bf16",
            "qwen_image_vae",
            "wan_2.1_vae",
        ],
    ),
    (
        "loras",
        &[
            "Flux_2-Turbo-LoRA_comfyui",
            "Qwen-Image-2512-Lightning-4steps-V1.0-fp32",
            "Qwen-Image-Edit-2509-Lightning-4steps-V1.0-bf16",
            "Qwen-Image-Edit-2511-Lightning-4steps-V1.0-bf16",
            "Qwen-Image-Lightning-4steps-V1.0",
            "Qwen-Image-Lightning-8steps-V1.0",
            "anima-turbo-lora-v0.2",
            "krea2_style_reference",
        ],
    ),
    ("controlnet", &["Qwen-Image-InstantX-ControlNet-Inpainting"]),
];

/// Files by directory: names without extension are `.safetensors`.
struct Host {
    files: Vec<(&'static str, String)>,
    /// Whether it has the node pack that reads GGUF files.
    has_gguf: bool,
}

impl Host {
    fn new(files: &[(&'static str, &[&str])]) -> Self {
        let named =
            |name: &str| if name.ends_with(GGUF) { name.to_owned() } else { format!("{name}.safetensors") };
        let files = files
            .iter()
            .flat_map(|(directory, names)| names.iter().map(move |name| (*directory, named(name))));
        Self { files: files.collect(), has_gguf: false }
    }

    fn published() -> Self {
        Self::new(&PUBLISHED)
    }

    fn without(mut self, words: &[&str]) -> Self {
        self.files.retain(|(_, file)| !words.iter().any(|word| file.contains(word)));
        self
    }

    /// The descriptions of the classes that the graphs use, with whatever inputs these have.
    fn classes(&self) -> Classes {
        let mut inputs: HashMap<&str, HashMap<&str, BTreeSet<&str>>> = HashMap::new();
        let sets = || graphs::catalog().sets();
        for (_, class, values) in
            sets().flat_map(|set| set.templates.values()).flat_map(|template| template.nodes())
        {
            let of_class = inputs.entry(class).or_default();
            for (input, value) in values {
                of_class.entry(input).or_default().extend(value.as_str());
            }
        }
        let description = |class: &str, of_class: HashMap<&str, BTreeSet<&str>>| {
            let spec = |(input, values): (&str, BTreeSet<&str>)| {
                let spec = match self.list(class, input) {
                    Some(files) => json!([files]),
                    None if values.iter().any(|value| !value.is_empty()) => json!([values]),
                    None => json!(["ANY"]),
                };
                (input.to_owned(), spec)
            };
            let optional: serde_json::Map<String, Value> = of_class.into_iter().map(spec).collect();
            json!({"input": {"required": {}, "optional": optional}, "output_node": class == "SaveImage"})
        };
        let mut classes: Classes = inputs
            .into_iter()
            .map(|(class, of_class)| (class.to_owned(), Some(description(class, of_class))))
            .collect();
        for (class, loader, _) in GGUF_LOADERS.into_iter().filter(|_| self.has_gguf) {
            let inputs = LISTS.iter().filter(|(_, listing, _)| *listing == class);
            let types = classes[class]
                .as_ref()
                .map_or(Value::Null, |class| class["input"]["optional"]["type"].clone());
            let mut optional: serde_json::Map<String, Value> = inputs
                .map(|(directory, _, input)| {
                    ((*input).to_owned(), json!([self.in_directory(directory, true)]))
                })
                .collect();
            optional.insert("type".to_owned(), types);
            classes.insert(loader.to_owned(), Some(json!({"input": {"optional": optional}})));
        }
        classes
    }

    fn list(&self, class: &str, input: &str) -> Option<Vec<&str>> {
        let row = LISTS.iter().find(|(_, listing, field)| *listing == class && *field == input)?;
        Some(self.in_directory(row.0, false))
    }

    /// ComfyUI itself does not list GGUF files.
    fn in_directory(&self, directory: &str, with_gguf: bool) -> Vec<&str> {
        let files =
            self.files.iter().filter(|(own, file)| *own == directory && (with_gguf || !file.ends_with(GGUF)));
        let mut files: Vec<_> = files.map(|(_, file)| file.as_str()).collect();
        files.sort_unstable();
        files
    }

    /// The complete families: the name of each, the files that its diffusion model could be, the other files.
    fn families(&self) -> BTreeMap<String, (Vec<String>, Vec<String>)> {
        let classes = self.classes();
        let sets = graphs::catalog().sets().filter(|set| !set.family.files.is_empty());
        let mut complete = BTreeMap::new();
        for found in sets.map(|set| models(set, &classes)) {
            let (first, by_file) = found.split_first().expect("a family that lacks something says what");
            match &first.runner {
                Runner::Graphs { inputs, .. } => {
                    assert!(
                        first.is_listed && by_file.iter().all(|model| !model.is_listed),
                        "{}",
                        first.name
                    );
                    assert_eq!(
                        by_file.first().map(|model| &model.handle),
                        Some(&first.handle),
                        "{}",
                        first.name
                    );
                    let others = inputs.values().filter_map(Value::as_str).map(|file| stem(file).to_owned());
                    let mains = by_file.iter().map(|model| model.name.clone()).collect();
                    complete.insert(first.name.clone(), (mains, others.collect()));
                }
                Runner::Incomplete { is_installed: false, .. } => {
                    assert!(!first.is_listed && by_file.is_empty());
                }
                other => panic!("{}: {other:?}", first.name),
            }
        }
        complete
    }

    fn names(&self) -> Vec<String> {
        self.families().into_keys().collect()
    }

    /// What a family lacks.
    fn lacks(&self, name: &str) -> String {
        let set = graphs::catalog().sets().find(|set| set.family.name == name).unwrap();
        match models(set, &self.classes()).remove(0).runner {
            Runner::Incomplete { lacks, .. } => lacks,
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Each family, its diffusion models, and its other files.
fn published_families() -> Vec<(&'static str, &'static str, &'static str)> {
    let qwen = "qwen_2.5_vl_7b_fp8_scaled qwen_image_vae";
    let (edit_2509, edit_2511) = (
        "qwen_image_edit_2509_fp8_e4m3fn",
        "qwen_image_edit_2511_bf16 qwen_image_edit_2511_fp8mixed qwen_image_edit_2511_int8_convrot",
    );
    let both = "qwen_image_2512_fp8_e4m3fn qwen_image_fp8_e4m3fn";
    let krea = "krea2_turbo_fp8_scaled krea2_turbo_int8_convrot";
    let flux1 = "clip_l t5xxl_fp16 ae";
    vec![
        ("anima", "anima-base-v1.0", "qwen_3_06b_base qwen_image_vae"),
        ("anima-turbo", "anima-base-v1.0", "qwen_3_06b_base anima-turbo-lora-v0.2 qwen_image_vae"),
        ("flux1-dev", "flux1-dev", flux1),
        ("flux1-fill", "flux1-fill-dev", flux1),
        ("flux1-kontext", "flux1-dev-kontext_fp8_scaled", flux1),
        ("flux1-schnell", "flux1-schnell", flux1),
        ("flux2-dev", "flux2_dev_fp8mixed", "mistral_3_small_flux2_bf16 flux2-vae"),
        (
            "flux2-dev-turbo",
            "flux2_dev_fp8mixed",
            "mistral_3_small_flux2_bf16 Flux_2-Turbo-LoRA_comfyui flux2-vae",
        ),
        ("flux2-klein", "flux-2-klein-4b flux-2-klein-4b-fp8", "qwen_3_4b flux2-vae"),
        ("flux2-klein-9b", "flux-2-klein-9b-fp8", "qwen_3_8b_fp8mixed flux2-vae"),
        ("flux2-klein-base", "flux-2-klein-base-4b flux-2-klein-base-4b-fp8", "qwen_3_4b flux2-vae"),
        ("flux2-klein-base-9b", "flux-2-klein-base-9b-fp8", "qwen_3_8b_fp8mixed flux2-vae"),
        ("flux3-klein", "flux3-image-klein-bf16 flux3-image-klein-int8-convrot", "qwen3vl_4b_bf16 flux2-vae"),
        (
            "flux3-klein-base",
            "flux3-image-klein-base-bf16 flux3-image-klein-base-int8-convrot",
            "qwen3vl_4b_bf16 flux2-vae",
        ),
        ("krea-2", krea, "qwen3vl_4b_bf16 qwen_image_vae"),
        ("krea-2-style", krea, "qwen3vl_4b_bf16 krea2_style_reference qwen_image_vae"),
        ("qwen-image", both, qwen),
        (
            "qwen-image-2.1",
            "qwen_image_2.1_bf16 qwen_image_2.1_int8_convrot",
            "qwen3vl_8b_bf16 qwen_image_2.1_vae_bf16",
        ),
        (
            "qwen-image-2.1-turbo",
            "qwen_image_2.1_turbo_bf16 qwen_image_2.1_turbo_int8_convrot",
            "qwen3vl_8b_bf16 qwen_image_2.1_vae_bf16",
        ),
        ("qwen-image-edit", edit_2511, qwen),
        ("qwen-image-edit-2509", edit_2509, qwen),
        (
            "qwen-image-edit-2509-lightning",
            edit_2509,
            "qwen_2.5_vl_7b_fp8_scaled Qwen-Image-Edit-2509-Lightning-4steps-V1.0-bf16 qwen_image_vae",
        ),
        (
            "qwen-image-edit-lightning",
            edit_2511,
            "qwen_2.5_vl_7b_fp8_scaled Qwen-Image-Edit-2511-Lightning-4steps-V1.0-bf16 qwen_image_vae",
        ),
        (
            "qwen-image-inpaint",
            "qwen_image_fp8_e4m3fn qwen_image_2512_fp8_e4m3fn",
            "qwen_2.5_vl_7b_fp8_scaled Qwen-Image-InstantX-ControlNet-Inpainting qwen_image_vae",
        ),
        (
            "qwen-image-lightning",
            both,
            "qwen_2.5_vl_7b_fp8_scaled Qwen-Image-2512-Lightning-4steps-V1.0-fp32 qwen_image_vae",
        ),
        ("z-image", "z_image_bf16 z_image_int8_convrot", "qwen_3_4b ae"),
        ("z-image-turbo", "z_image_turbo_bf16 z_image_turbo_int8_convrot", "qwen_3_4b ae"),
    ]
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
