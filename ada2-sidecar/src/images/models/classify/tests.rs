//! Real file names and metadata, and what each is.

use proptest::prelude::*;

use super::*;

/// `sdxl`, `sd-1 inpaint`, `?` for unknown; a word of the file's own in quotes.
fn display(kind: &ModelKind) -> String {
    let family = match &kind.family {
        DetectedFamily::Known(family) => family.name.to_owned(),
        DetectedFamily::Unlisted(text) => format!("{text:?}"),
        DetectedFamily::Unknown => "?".to_owned(),
    };
    let variant =
        ModelVariant::SETTING_VALUES.iter().find(|(_, variant)| *variant == kind.variant).unwrap().0;
    if variant == "main" { family } else { format!("{family} {variant}") }
}

/// By kind, names of files without their ending.
const NAMES: &[(&str, &str)] = &[
    (
        "sdxl",
        "sd_xl_base_1.0 sd_xl_base_1.0_0.9vae sdxl sd_xl_turbo_1.0_fp16 sdxl_lightning_4step juggernautXL \
             juggernautXL_v9Rundiffusionphoto2 juggernautXL_ragnarokBy ponyDiffusionV6XL ponyDiffusionV6XL_v6StartWithThisOne \
             ponyRealism_V23ULTRA realvisxlV50_v50Bakedvae zavychromaxl_v100 dreamshaperXL10_alpha2Xl10 dreamshaperXLbase \
             epicrealismXL_vxviiCrystalclear animagineXLV31_v31 animagine-xl-4.0 waiNSFWIllustrious_v140 \
             waiIllustriousSDXL_v160 Illustrious-XL-v0.1 illustriousXL20_v20 hassakuXLIllustrious_v21 noobaiXLNAIXL_vPred10Version \
             NoobAI-XL-v1.1 noob_v_pencil halcyonSDXL_v19 counterfeitxl_v25 leosamsHelloworldXL_helloworldXL70 newXL \
             stable-diffusion-xl-base-1.0 DreamShaperXL_Turbo_v2 samaritan3dCartoon_v40SDXL copaxTimelessxlSDXL1_v12 \
             anime/Illustrious-v1 SDXL/mymodel sdxl/flat/mymodel SDXL\\mymodel tiny-sdxl animaPencilXL_v500 \
             sdxlUnstableDiffusers_v11 RealVisXL_V5.0_fp16",
    ),
    (
        "sdxl inpaint",
        "sdxl-inpaint SDXL-Outpaint sd_xl_base_1.0_inpainting_0.1 juggernautXL_versionXInpaint dreamshaperXLinpainting",
    ),
    ("sdxl refiner", "sd_xl_refiner_1.0 sd_xl_refiner SDXL-Refiner sdxlRefiner"),
    (
        "sdxl other",
        "a_sdxl_lora sd_xl_offset_example-lora_1.0 control-lora-sdxl ip-adapter_sdxl sdxl-depth sdxl_vae sd_xl_vae \
             lcm-lora-sdxl sdxllora controlnet-inpaint-sdxl loras/detailXL sdxl-canny t2i-adapter-sdxl mm_sdxl_v10_beta \
             sdxlEmbedding sdxl_upscaler xlVAE_v1 controlnetxlCNXL_openpose",
    ),
    ("sdxl edit", "sdxl_instruct sdxl_edit ponyXL_kontext sdxl-instruct-pix2pix"),
    (
        "sd-1",
        "v1-5-pruned-emaonly v1-5-pruned v1-5-pruned-emaonly-fp16 sd-v1-5 sd15 tiny-sd15 random-sd15 sd1.5 sd-v1-4 \
             stable-diffusion-v1-5 stable_diffusion_1.5 mymix_sd15 realistic_sd1.5_mix SD1.5/dreamshaper_8 sd15/deliberate_v2 \
             deliberate_v2_sd15 model_sdv1-5",
    ),
    ("sd-1 inpaint", "sd-v1-5-inpainting v1-5-inpainting sd15/realisticVisionV51-inpainting"),
    (
        "sd-2",
        "sd21 sd-turbo sd_turbo v2-1_768-nonema-pruned v2-1_768-ema-pruned 768-v-ema 512-base-ema wd-1-5-beta3",
    ),
    ("sd-2 inpaint", "512-inpainting-ema"),
    ("sd-2 other", "512-depth-ema sd21-unclip-h x4-upscaler-ema"),
    (
        "sd-3",
        "sd3.5_large sd3.5_large_turbo stableDiffusion35_large sd3.5_large_fp8_scaled sd3.5_medium sd3_medium_incl_clips_t5xxlfp8 sd35_large SD3/mymodel",
    ),
    (
        "flux",
        "flux1-dev flux1-schnell flux-dev2pro flux1-dev-bnb-nf4-v2 fluxFusionV2 stoiqoNewrealityFLUX_f1dAlpha flux1-dev-fp8 flux1-schnell-fp8 flux_dev flux1-krea-dev fluxmania_V fluxedUpFluxNSFW_v51FP8 FLUX.1-dev",
    ),
    ("flux inpaint", "flux1-fill-dev fluxFillFP8_v10 flux.1-fill-dev-fp8"),
    ("flux edit", "flux1-dev-kontext_fp8_scaled flux1-kontext-dev"),
    ("flux other", "flux1-canny-dev flux1-depth-dev"),
    (
        "flux2",
        "flux2_dev_fp8mixed flux2-dev flux-2-klein-4b flux-2-klein-4b-fp8 flux-2-klein-base-4b flux-2-klein-base-4b-fp8 \
             flux-2-klein-9b-fp8 flux-2-klein-base-9b-fp8 klein_mix fluxKlein_9b Flux_2-Turbo_comfyui",
    ),
    (
        "flux3",
        "flux3-image-klein-int8-convrot flux3-image-klein-base-int8-convrot flux3-image-klein-bf16 flux.3-image-klein",
    ),
    ("chroma", "Chroma1-HD chroma-unlocked-v50 Chroma1-HD-fp8mixed chroma-radiance-x0"),
    (
        "z-image",
        "z_image_turbo_bf16 z_image_turbo_int8_convrot z_image_bf16 z_image_int8_convrot zImageTurbo_v1 z-image-base \
             zimage_mine ZImage_base zImageTurboNSFW_v20",
    ),
    (
        "qwen-image",
        "qwen_image_2.1_bf16 qwen_image_2.1_int8_convrot qwen_image_2.1_turbo_bf16 qwen_image_2.1_turbo_int8_convrot \
             qwen_image_fp8_e4m3fn qwen_image_2512_fp8_e4m3fn qwen_image_2512 Qwen-Rapid-AIO-v5 \
             Qwen-Image-Lightning-4steps-V1.0",
    ),
    (
        "qwen-image edit",
        "qwen_image_edit_2509_fp8_e4m3fn qwen_image_edit_2511_int8_convrot qwen_image_edit_2511_fp8mixed \
             qwen_image_edit_2511_bf16 qwen_image_edit_2509 Qwen-Image-Edit-2509-Lightning-4steps-V1.0-bf16",
    ),
    ("qwen-image other", "qwen_3_4b_fp8_mixed qwen3vl_8b_int8_convrot qwen_2.5_vl_7b_fp8_scaled"),
    ("krea-2", "krea2_turbo_fp8_scaled krea2_turbo_int8_convrot krea2_raw_bf16 krea-2-turbo"),
    ("anima", "anima-base-v1.0 anima-preview anima_base_v10"),
    ("moss-image", "moss_image_bf16 MOSS-Image-fp8"),
    ("cogview4", "cogview4-6b CogView4_bf16"),
    ("ernie-image", "ernie_image_turbo ernie-image-bf16"),
    ("ideogram-4", "ideogram4_fp8 ideogram-4"),
    ("longcat-image", "longcat_image_bf16"),
    ("ovis-image", "ovis_image_bf16"),
    ("omnigen", "omnigen2_fp16"),
    ("sdpose", "sdpose_wholebody SDPose-Body"),
    ("yue", "yue_s1_7b"),
    ("cogvideox", "cogvideox_5b CogVideoX1.5-I2V"),
    (
        "lumina-2",
        "lumina_2 netayume_lumina_v4 NetaYume_v35_pretrained netayumeLumina_v35 Illustrious-Lumina-v0.03",
    ),
    ("auraflow", "auraflow_v0.3 pony-v7-base ponyV7 ponyDiffusionV7_base pony_7"),
    ("pixart", "PixArt-Sigma-XL-2-1024-MS"),
    ("svd", "svd svd_xt svd_xt_1_1 sv3d_u stable-video-diffusion-img2vid"),
    (
        "ltx",
        "ltx-2.3 ltx-2.3-22b-dev-fp8 ltx-2.3-22b-distilled ltx-2-19b-distilled ltx-video-2b-v0.9.5 ltx-2-19b-dev-fp8 ltxv-13b",
    ),
    ("wan", "wan2.2-rapid-mega-aio wan_2.1 wan2.2_t2v_high_noise_14B_fp8_scaled wan2.1_vace_1.3B_fp16"),
    (
        "hunyuan",
        "hunyuan_dit_1.2 hunyuan3d-dit-v2 HunyuanVideo hunyuan-image hunyuan_3d_v2.1 hunyuanimage2.1_bf16",
    ),
    ("hidream", "hidream_o1 HiDream-I1 hidream_o1_image_bf16 hidream_i1_full_fp8"),
    ("stable-audio", "stable-audio-open-1.0 stable_audio_3_medium audio_mine"),
    ("ace-step", "ace_step_v1_3.5b ace_step_1.5_turbo_aio acestep_v1.5"),
    ("sam", "sam3 sam3.1 sam3.1_multiplex_fp16 sam2_hiera_large sam_vit_h"),
    ("stable-cascade", "stable_cascade_stage_c"),
    ("stable-zero123", "stable_zero123"),
    (
        "?",
        "dreamshaper_8 deliberate_v2 anything-v5 anythingV5 realisticVisionV60B1_v51VAE majicmixRealistic_v7 exxxl \
             mymodel_v1.5 mymodel-v1-5 hyper_1.5 pixl axl model other t5xxl_fp16 sdxl_flux_mix flux_sd15_mix sdxl_sd15_merge \
             fluxXL_flux_sdxl swan influx panorama sketch 1 a edition mysd15 toonyou_beta6 epicphotogasm_ultimateFidelity \
             triposplat my3dmodel trellis2 minimax_h3 newModel_v10",
    ),
    ("? inpaint", "dreamshaper_8Inpainting inpainting epicrealism_pureEvolutionV5-inpainting"),
    ("? refiner", "refiner"),
];

#[test]
fn names_of_real_files() {
    let mut wrong = Vec::new();
    for (kind, names) in NAMES {
        for name in names.split_whitespace() {
            let found = display(&classify_checkpoint(None, name));
            if found != *kind {
                wrong.push(format!("{name} is {kind}, not {found}: {:?}", tokenize(name)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn metadata(architecture: &str, base_version: &str) -> ModelMetadata {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    ModelMetadata { architecture: text(architecture), base_version: text(base_version), network: None }
}

#[test]
fn metadata_of_real_files() {
    for (kind, architectures) in [
        (
            "sdxl",
            "stable-diffusion-xl-v1-base stable-diffusion-xl-v0_9-base stable-diffusion-xl-turbo-v1 segmind-stable-diffusion-1b SDXL Stable-Diffusion-XL",
        ),
        ("sdxl refiner", "stable-diffusion-xl-v1-refiner"),
        ("sdxl edit", "stable-diffusion-xl-v1-edit"),
        ("sd-1", "stable-diffusion-v1 sd_1.5"),
        ("sd-1 inpaint", "stable-diffusion-v1-inpainting stable-diffusion-v1/inpaint"),
        ("sd-2", "stable-diffusion-v2-512 stable-diffusion-v2-768-v stable-diffusion-v2-turbo"),
        (
            "sd-3",
            "stable-diffusion-3 stable-diffusion-3-medium stable-diffusion-v3-medium stable-diffusion-v3.5-large stable-diffusion-3-3-5-large",
        ),
        ("flux", "flux-1-dev flux-1-schnell flux-1 Flux.1-dev flux-dev"),
        ("flux edit", "Flux.1-dev/kontext"),
        ("flux inpaint", "flux.1-fill-dev Flux.1-dev/inpaint"),
        ("flux2", "flux.2-klein-4b"),
        ("chroma", "chroma chroma-radiance"),
        ("moss-image", "moss-image"),
        ("lumina-2", "lumina-2 lumina"),
        ("z-image", "z-image z-image-turbo"),
        ("hunyuan", "hunyuan-image-2.1 hunyuan-image-2_1 hunyuanvideo1.5_480p_t2v"),
        ("svd", "stable-video-diffusion-img2vid-v1"),
        ("ltx", "lightricks-ltx-video-2-3"),
        ("pixart", "pixart-ms-sigma-xl-2"),
    ] {
        for architecture in architectures.split_whitespace() {
            let classified = classify_checkpoint(Some(&metadata(architecture, "")), "mymodel");
            assert_eq!(display(&classified), kind, "{architecture}");
            assert_eq!(classified.evidence, Evidence::Metadata);
        }
    }
    for (version, kind) in [
        ("sd_v1", "sd-1"),
        ("sd_v2_v", "sd-2"),
        ("sdxl_base_v1-0", "sdxl"),
        ("sdxl_base_v0-9", "sdxl"),
        ("flux1", "flux"),
        ("flux2_klein_9b", "flux2"),
        ("sd3m", "sd-3"),
        ("zimage", "z-image"),
    ] {
        assert_eq!(display(&classify_checkpoint(Some(&metadata("", version)), "mymodel")), kind, "{version}");
    }
}

#[test]
fn metadata_wins_over_the_name_and_missing_metadata_means_nothing() {
    let classified = |architecture: &str, name: &str| {
        display(&classify_checkpoint(Some(&metadata(architecture, "")), name))
    };
    assert_eq!(classified("flux-1-dev", "sd_xl_base_1.0"), "flux");
    assert_eq!(classified("stable-diffusion-xl-v1-base", "dreamshaper_8"), "sdxl");
    assert_eq!(
        classified("stable-diffusion-xl-v1-base", "dreamshaper-inpainting"),
        "sdxl inpaint",
        "a repacked file"
    );
    assert_eq!(
        classified("minimax-h3", "sd_xl_base_1.0"),
        "\"minimax-h3\"",
        "told, though we have no row for it"
    );
    assert_eq!(classified("SDXL 1.0", "mymodel"), "sdxl", "as people write it");
    for silent in ["", " ", "\u{7}"] {
        assert_eq!(classified(silent, "sd15"), "sd-1", "{silent:?}");
    }
    let both =
        ModelMetadata { base_version: Some("sd_v1".into()), ..metadata("stable-diffusion-xl-v1-base", "") };
    assert_eq!(display(&classify_checkpoint(Some(&both), "x")), "sdxl");
    assert_eq!(classify_checkpoint(Some(&ModelMetadata::default()), "sd15").evidence, Evidence::Name);
    let long = "x".repeat(500);
    assert_eq!(classified(&long, "sd15").len(), 82, "it is shown to people");
}

#[test]
fn files_that_are_not_models_are_of_no_kind_that_runs() {
    for part in ["lora", "textual-inversion", "controlnet", "vae", "control-lora", "tensorrt", "anything"] {
        let kind =
            classify_checkpoint(Some(&metadata(&format!("stable-diffusion-xl-v1-base/{part}"), "")), "sdxl");
        assert!(kind.variant == ModelVariant::Other && !kind.is_unknown(), "{part}");
    }
    let network = ModelMetadata { network: Some("networks.lora".into()), ..metadata("", "sdxl_base_v1-0") };
    assert_eq!(classify_checkpoint(Some(&network), "sdxl").variant, ModelVariant::Other);
}

/// A LoRA's name, and the family of its models.
const LORAS: &[(&str, &str)] = &[
    ("Flux_2-Turbo-LoRA_comfyui", "flux2"),
    ("Qwen-Image-Lightning-8steps-V1.0", "qwen-image"),
    ("Qwen-Image-Edit-2511-Lightning-4steps-V1.0-bf16", "qwen-image"),
    ("krea2_style_reference", "krea-2"),
    ("anima-turbo-lora-v0.2", "anima"),
    ("lcm-lora-sdv1-5", "sd-1"),
    ("lcm-lora-sdxl", "sdxl"),
    ("Hyper-FLUX.1-dev-8steps-lora", "flux"),
    ("pony/detail_tweaker", "sdxl"),
    ("zimage/detail_tweaker", "z-image"),
    ("add_detail", "?"),
    ("flux_sdxl_style", "?"),
    ("sdxl_style", "sdxl"),
];

#[test]
fn a_lora_is_for_the_models_that_its_name_says() {
    for (name, expected) in LORAS {
        assert_eq!(lora_family(name).map_or("?", |family| family.name), *expected, "{name}");
    }
}

proptest! {
    #[test]
    fn only_known_phrases_make_a_model_a_default(name in "[a-z_]{1,20}") {
        let kind = classify_checkpoint(None, &name);
        let is_sd = matches!(kind.family_name(), Some("sd-1" | "sdxl")) && kind.variant == ModelVariant::Main;
        let says = ["xl", "pony", "illustrious", "noob", "animagine", "emaonly"];
        prop_assert!(!is_sd || says.iter().any(|word| name.contains(word)), "{name}");
    }

    #[test]
    fn any_text_is_read(name in "\\PC{0,60}", architecture in "\\PC{0,60}", version in "\\PC{0,60}") {
        let kind = classify_checkpoint(Some(&metadata(&architecture, &version)), &name);
        prop_assert!(!kind.is_unknown() || kind.family_name().is_none());
    }
}
