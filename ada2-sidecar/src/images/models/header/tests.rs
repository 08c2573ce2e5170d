//! Headers as files of each kind have them, cut down to what tells them apart.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const KEY_NORM: &str = "double_blocks.0.img_attn.norm.key_norm.scale";
const TEXT: &str = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight";
const LABEL: &str = "label_emb.0.0.weight";
const INPUT: &str = "input_blocks.0.0.weight";
const Z_NORM: &str = "noise_refiner.0.attention.k_norm.weight";

fn header(prefix: &str, tensors: &[(&str, &[u64])]) -> Tensors {
    let tensor = |(name, shape): &(&str, &[u64])| {
        (format!("{prefix}{name}"), json!({"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}))
    };
    let mut header: serde_json::Map<String, Value> = tensors.iter().map(tensor).collect();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    header.insert(
        "first_stage_model.encoder.conv_in.weight".to_owned(),
        json!({"dtype": "F16", "shape": [128, 3, 3, 3]}),
    );
    serde_json::from_value(header.into()).unwrap()
}

/// `SD 1.5 inpainting`, or `?`.
fn display(tensors: &Tensors) -> String {
    kind_from_header(tensors).map_or("?".to_owned(), |kind| kind.to_string())
}

type Row = (&'static str, &'static [(&'static str, &'static [u64])]);

const HEADERS: &[Row] = &[
    ("SD 1.5", &[(TEXT, &[640, 768]), (INPUT, &[320, 4, 3, 3])]),
    ("SD 1.5 inpainting", &[(TEXT, &[640, 768]), (INPUT, &[320, 9, 3, 3])]),
    ("SD 1.5 edit", &[(TEXT, &[640, 768]), (INPUT, &[320, 8, 3, 3])]),
    ("SD 2", &[(TEXT, &[640, 1024]), (INPUT, &[320, 4, 3, 3])]),
    ("SD 2 inpainting", &[(TEXT, &[640, 1024]), (INPUT, &[320, 9, 3, 3])]),
    ("SD 2, not a text-to-image model", &[(TEXT, &[640, 1024]), (INPUT, &[320, 5, 3, 3])]),
    ("SDXL", &[(TEXT, &[640, 2048]), (INPUT, &[320, 4, 3, 3]), (LABEL, &[1280, 2816])]),
    ("SDXL inpainting", &[(TEXT, &[640, 2048]), (INPUT, &[320, 9, 3, 3]), (LABEL, &[1280, 2816])]),
    ("SDXL edit", &[(TEXT, &[640, 2048]), (INPUT, &[320, 8, 3, 3]), (LABEL, &[1280, 2816])]),
    ("SDXL refiner", &[(TEXT, &[768, 1280]), (INPUT, &[384, 4, 3, 3]), (LABEL, &[1536, 2560])]),
    ("Kolors", &[(TEXT, &[640, 2048]), (INPUT, &[320, 4, 3, 3]), (LABEL, &[1280, 5632])]),
    (
        "Stable Video Diffusion",
        &[
            ("input_blocks.1.1.time_stack.0.attn1.to_q.weight", &[320, 320]),
            (TEXT, &[640, 1024]),
            (INPUT, &[320, 8, 3, 3]),
        ],
    ),
    ("SD 3", &[("joint_blocks.0.context_block.attn.qkv.weight", &[7296, 2432])]),
    ("FLUX.1", &[(KEY_NORM, &[128]), ("img_in.weight", &[3072, 64])]),
    ("FLUX.1", &[("double_blocks.0.img_attn.norm.key_norm.weight", &[128]), ("img_in.weight", &[98304, 1])]),
    ("FLUX.1 inpainting", &[(KEY_NORM, &[128]), ("img_in.weight", &[3072, 384])]),
    ("FLUX.1, not a text-to-image model", &[(KEY_NORM, &[128]), ("img_in.weight", &[3072, 128])]),
    (
        "FLUX.2",
        &[
            (KEY_NORM, &[128]),
            ("img_in.weight", &[3072, 128]),
            ("double_stream_modulation_img.lin.weight", &[18432, 3072]),
        ],
    ),
    (
        "Chroma",
        &[
            (KEY_NORM, &[128]),
            ("img_in.weight", &[3072, 64]),
            ("distilled_guidance_layer.norms.0.scale", &[5120]),
        ],
    ),
    (
        "LongCat-Image",
        &[(KEY_NORM, &[128]), ("img_in.weight", &[3072, 64]), ("txt_in.weight", &[3072, 3584])],
    ),
    ("Z-Image", &[(Z_NORM, &[128]), ("cap_embedder.1.weight", &[3840, 2560])]),
    ("Lumina 2", &[(Z_NORM, &[96]), ("cap_embedder.1.weight", &[2304, 2304])]),
    ("?", &[(Z_NORM, &[96]), ("cap_embedder.1.weight", &[1024, 2304])]),
    ("Qwen-Image", &[("txt_norm.weight", &[3584]), ("img_in.weight", &[3072, 64])]),
    ("Qwen-Image edit", &[("txt_norm.weight", &[3584]), ("__index_timestep_zero__", &[])]),
    (
        "Qwen-Image",
        &[
            ("txt_in.text_norm.weight", &[4096]),
            ("modulation.1.weight", &[1]),
            ("img_in.weight", &[3072, 64]),
        ],
    ),
    ("?", &[("txt_norm.weight", &[2560]), ("img_in.weight", &[3072, 128])]),
    ("Krea 2", &[("txtfusion.projector.weight", &[1, 12])]),
    (
        "Anima",
        &[
            ("llm_adapter.blocks.0.cross_attn.q_proj.weight", &[1024, 1024]),
            ("blocks.0.mlp.layer1.weight", &[1]),
        ],
    ),
    ("LTX Video", &[("adaln_single.emb.timestep_embedder.linear_1.bias", &[2048])]),
    (
        "LTX Video",
        &[
            ("adaln_single.emb.timestep_embedder.linear_1.bias", &[4096]),
            ("audio_adaln_single.linear.weight", &[12288, 2048]),
        ],
    ),
    (
        "PixArt",
        &[("adaln_single.emb.timestep_embedder.linear_1.bias", &[1152]), ("pos_embed.proj.bias", &[1152])],
    ),
    ("Wan Video", &[("head.modulation", &[1, 2, 5120]), ("patch_embedding.weight", &[5120, 16, 1, 2, 2])]),
    (
        "Hunyuan",
        &[
            ("txt_in.individual_token_refiner.blocks.0.norm1.weight", &[3072]),
            (KEY_NORM, &[128]),
            ("img_in.proj.weight", &[3072, 16, 1, 2, 2]),
        ],
    ),
    (
        "\"LoRA\"",
        &[("blocks.0.attn.wq.lora_A.weight", &[16, 3072]), ("txtfusion.projector.weight", &[1, 12])],
    ),
    ("\"LoRA\"", &[("lora_unet_input_blocks_4_1_proj_in.lora_down.weight", &[16, 640])]),
    (
        "\"ControlNet\"",
        &[(INPUT, &[320, 4, 3, 3]), (TEXT, &[640, 768]), ("zero_convs.0.0.weight", &[320, 320, 1, 1])],
    ),
    ("?", &[("encoder.conv_in.weight", &[128, 3, 3, 3])]),
    ("?", &[("input_blocks.0.0.weight", &[])]),
    ("?", &[]),
];

#[test]
fn a_header_says_what_a_file_is_with_and_without_the_prefix_of_a_checkpoint() {
    for (expected, tensors) in HEADERS {
        for prefix in ["", "model.diffusion_model.", "model."] {
            assert_eq!(display(&header(prefix, tensors)), *expected, "{prefix:?} {tensors:?}");
        }
        let elsewhere = display(&header("first_stage_model.", tensors));
        let is_part = expected.starts_with('"');
        assert_eq!(elsewhere, if is_part { *expected } else { "?" }, "below another prefix: {tensors:?}");
    }
}

#[test]
fn every_layout_is_of_a_family_and_can_be_reached() {
    for layout in LAYOUTS {
        assert!(families::by_name(layout.family).is_some(), "{}", layout.family);
        let tensors = layout.traits.iter().map(|of| match *of {
            Trait::Has(name) => (name.replace('*', "x"), vec![1, 1]),
            Trait::Size(name, dimension, size) => {
                let mut shape = vec![1; 2];
                shape[dimension] = size;
                (name.to_owned(), shape)
            }
        });
        let kind = kind_from_header(&Tensors(tensors.collect())).unwrap();
        let DetectedFamily::Known(family) = kind.family else { panic!("{}", layout.family) };
        assert_eq!((family.name, kind.variant), (layout.family, layout.variant));
        assert_eq!(kind.evidence, Evidence::Header);
    }
}

#[test]
fn the_name_says_what_tensors_cannot() {
    let by = |name: &str| super::super::classify_checkpoint(None, name);
    let of = |row: usize| kind_from_header(&header("", HEADERS[row].1));
    let nth = |kind: &str| HEADERS.iter().position(|(expected, _)| *expected == kind).unwrap();
    for (name, header, expected) in [
        ("dreamshaper_8", "SD 1.5", "SD 1.5"),
        ("dreamshaper_8", "SD 1.5 inpainting", "SD 1.5 inpainting"),
        ("sd_xl_base_1.0", "FLUX.1", "FLUX.1"),
        ("mymodel-inpainting", "SDXL", "SDXL inpainting"),
        ("flux1-dev-kontext", "FLUX.1", "FLUX.1 edit"),
        ("flux3-image-klein", "FLUX.2", "FLUX.3"),
        ("klein", "FLUX.2", "FLUX.2"),
        ("ponyV7", "SDXL", "SDXL"),
    ] {
        assert_eq!(by(name).with_header(of(nth(header))).to_string(), expected, "{name} {header}");
    }
    assert_eq!(by("mymodel").with_header(None), by("mymodel"));
    let told = ModelKind { evidence: Evidence::Metadata, ..by("sdxl") };
    assert_eq!(told.clone().with_header(of(nth("FLUX.1"))), told, "metadata counts more");
}

#[test]
fn what_is_no_header_is_refused() {
    for text in [
        "",
        "{",
        "[]",
        "7",
        "{\"a\": 7}",
        "{\"a\": {\"shape\": \"x\"}}",
        "{\"a\": {\"shape\": [-1]}}",
        "{\"a\": {}}",
    ] {
        assert!(serde_json::from_str::<Tensors>(text).is_err(), "{text}");
    }
    let many: Vec<_> = (0..=MAX_TENSORS).map(|nth| format!("\"{nth}\":{{\"shape\":[]}}")).collect();
    assert!(serde_json::from_str::<Tensors>(&format!("{{{}}}", many.join(","))).is_err());
    assert!(serde_json::from_str::<Tensors>(&format!("{{{}}}", many[1..].join(","))).is_ok());
    assert_eq!(serde_json::from_str::<Tensors>("{\"__metadata__\": [1]}").unwrap(), Tensors::default());
}

proptest! {
    #[test]
    fn any_tensors_are_read(names in proptest::collection::btree_map("[a-z0-9_.]{0,40}", proptest::collection::vec(any::<u64>(), 0..5), 0..20)) {
        let kind = kind_from_header(&Tensors(names));
        prop_assert!(kind.is_none_or(|kind| kind.evidence == Evidence::Header));
    }
}
