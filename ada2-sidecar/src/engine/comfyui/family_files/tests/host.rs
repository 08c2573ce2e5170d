//! A ComfyUI with these files, as its node classes list them, and the files that are published.

use super::*;

/// The inputs that list files, by directory; with a GGUF pack also its own.
pub(super) const LISTS: [(&str, &str, &str); 9] = [
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
pub(super) const PUBLISHED: [(&str, &[&str]); 5] = [
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
pub(super) struct Host {
    pub(super) files: Vec<(&'static str, String)>,
    /// Whether it has the node pack that reads GGUF files.
    pub(super) has_gguf: bool,
}

impl Host {
    pub(super) fn new(files: &[(&'static str, &[&str])]) -> Self {
        let named =
            |name: &str| if name.ends_with(GGUF) { name.to_owned() } else { format!("{name}.safetensors") };
        let files = files
            .iter()
            .flat_map(|(directory, names)| names.iter().map(move |name| (*directory, named(name))));
        Self { files: files.collect(), has_gguf: false }
    }

    pub(super) fn published() -> Self {
        Self::new(&PUBLISHED)
    }

    pub(super) fn without(mut self, words: &[&str]) -> Self {
        self.files.retain(|(_, file)| !words.iter().any(|word| file.contains(word)));
        self
    }

    /// The descriptions of the classes that the graphs use, with whatever inputs these have.
    pub(super) fn classes(&self) -> Classes {
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

    pub(super) fn list(&self, class: &str, input: &str) -> Option<Vec<&str>> {
        let row = LISTS.iter().find(|(_, listing, field)| *listing == class && *field == input)?;
        Some(self.in_directory(row.0, false))
    }

    /// ComfyUI itself does not list GGUF files.
    pub(super) fn in_directory(&self, directory: &str, with_gguf: bool) -> Vec<&str> {
        let files =
            self.files.iter().filter(|(own, file)| *own == directory && (with_gguf || !file.ends_with(GGUF)));
        let mut files: Vec<_> = files.map(|(_, file)| file.as_str()).collect();
        files.sort_unstable();
        files
    }

    /// The complete families: the name of each, the files that its diffusion model could be, the other files.
    pub(super) fn families(&self) -> BTreeMap<String, (Vec<String>, Vec<String>)> {
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

    pub(super) fn names(&self) -> Vec<String> {
        self.families().into_keys().collect()
    }

    /// What a family lacks.
    pub(super) fn lacks(&self, name: &str) -> String {
        let set = graphs::catalog().sets().find(|set| set.family.name == name).unwrap();
        match models(set, &self.classes()).remove(0).runner {
            Runner::Incomplete { lacks, .. } => lacks,
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Each family, its diffusion models, and its other files.
pub(super) fn published_families() -> Vec<(&'static str, &'static str, &'static str)> {
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
