//! The tensors by which ComfyUI itself tells architectures apart. The first row that matches counts.

use super::super::ModelVariant::{self, Edit, Inpaint, Main, Other, Refiner};

/// A row: all of its traits must be there.
pub(super) struct Layout {
    /// A family's name.
    pub(super) family: &'static str,
    /// Main too if it has the tensors of the main model.
    pub(super) variant: ModelVariant,
    pub(super) traits: &'static [Trait],
}

/// What the tensors of a file must be like.
pub(super) enum Trait {
    /// There is one of this name; `*` at its end stands for any text.
    Has(&'static str),
    /// It has this size in this dimension, counted from 0.
    Size(&'static str, usize, u64),
}

use Trait::{Has, Size};

/// Files that are only parts of a model, by what is in a name.
pub(super) const PARTS: &[(&str, &str)] = &[
    (".lora_", "LoRA"),
    (".lokr_", "LoRA"),
    (".hada_", "LoRA"),
    ("lora_unet_", "LoRA"),
    ("lora_te", "LoRA"),
    ("zero_convs.", "ControlNet"),
    ("controlnet_", "ControlNet"),
];

/// Of a U-Net: its second dimension is the number of input channels.
const INPUT: &str = "input_blocks.0.0.weight";
/// Of a U-Net: its second dimension is the width of the text encoder.
const TEXT: &str = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight";
/// Of a U-Net: its second dimension is the width of the other conditions (size, crop …).
const LABEL: &str = "label_emb.0.0.weight";
/// Of FLUX and its relatives.
const FLUX_NORM: Trait = Has("double_blocks.0.img_attn.norm.key_norm.*");
/// Its second dimension is the number of input channels, in patches of 2 x 2.
const IMAGE_INPUT: &str = "img_in.weight";
/// Of Z-Image and Lumina 2.
const Z_NORM: &str = "noise_refiner.0.attention.k_norm.weight";
/// Its first dimension is the model's width.
const Z_TEXT: &str = "cap_embedder.1.weight";
const LTX: Trait = Has("adaln_single.emb.timestep_embedder.linear_1.bias");

const fn row(family: &'static str, variant: ModelVariant, traits: &'static [Trait]) -> Layout {
    Layout { family, variant, traits }
}

pub(super) const LAYOUTS: &[Layout] = &[
    row("sdpose", Other, &[Has("heatmap_head.conv_layers.0.weight")]),
    row("svd", Main, &[Has("input_blocks.1.1.time_stack.*")]),
    row("sd-1", Main, &[Size(TEXT, 1, 768), Size(INPUT, 1, 4)]),
    row("sd-1", Inpaint, &[Size(TEXT, 1, 768), Size(INPUT, 1, 9)]),
    row("sd-1", Edit, &[Size(TEXT, 1, 768), Size(INPUT, 1, 8)]),
    row("sd-1", Other, &[Size(TEXT, 1, 768)]),
    row("sd-2", Main, &[Size(TEXT, 1, 1024), Size(INPUT, 1, 4)]),
    row("sd-2", Inpaint, &[Size(TEXT, 1, 1024), Size(INPUT, 1, 9)]),
    row("sd-2", Other, &[Size(TEXT, 1, 1024)]),
    row("sdxl", Refiner, &[Size(TEXT, 1, 1280), Size(LABEL, 1, 2560)]),
    row("kolors", Main, &[Size(TEXT, 1, 2048), Size(LABEL, 1, 5632)]),
    row("sdxl", Main, &[Size(TEXT, 1, 2048), Size(LABEL, 1, 2816), Size(INPUT, 1, 4)]),
    row("sdxl", Inpaint, &[Size(TEXT, 1, 2048), Size(LABEL, 1, 2816), Size(INPUT, 1, 9)]),
    row("sdxl", Edit, &[Size(TEXT, 1, 2048), Size(LABEL, 1, 2816), Size(INPUT, 1, 8)]),
    row("sdxl", Other, &[Size(TEXT, 1, 2048), Size(LABEL, 1, 2816)]),
    row("sd-3", Main, &[Has("joint_blocks.0.context_block.attn.qkv.weight")]),
    row("hunyuan", Main, &[Has("txt_in.individual_token_refiner.blocks.0.norm1.weight")]),
    row("flux2", Main, &[FLUX_NORM, Has("double_stream_modulation_img.lin.weight")]),
    row("chroma", Main, &[FLUX_NORM, Has("distilled_guidance_layer.*")]),
    row("ovis-image", Main, &[FLUX_NORM, Has("double_blocks.0.img_mlp.gate_proj.weight")]),
    row("longcat-image", Main, &[FLUX_NORM, Size("txt_in.weight", 1, 3584)]),
    // Beside the image's own 64 channels: 256 of the mask and 64 of the image below it; 64 of a control image.
    row("flux", Inpaint, &[FLUX_NORM, Size(IMAGE_INPUT, 1, 384)]),
    row("flux", Other, &[FLUX_NORM, Size(IMAGE_INPUT, 1, 128)]),
    row("flux", Main, &[FLUX_NORM, Has(IMAGE_INPUT)]),
    row("z-image", Main, &[Has(Z_NORM), Size(Z_TEXT, 0, 3840)]),
    row("lumina-2", Main, &[Has(Z_NORM), Size(Z_TEXT, 0, 2304)]),
    row("qwen-image", Edit, &[Size("txt_norm.weight", 0, 3584), Has("__index_timestep_zero__")]),
    row("qwen-image", Main, &[Size("txt_norm.weight", 0, 3584)]),
    row("qwen-image", Main, &[Has("txt_in.text_norm.weight"), Has("modulation.1.weight"), Has(IMAGE_INPUT)]),
    row("krea-2", Main, &[Has("txtfusion.projector.weight")]),
    row("anima", Main, &[Has("llm_adapter.blocks.0.cross_attn.q_proj.weight")]),
    row("ideogram-4", Main, &[Has("embed_image_indicator.weight")]),
    row("ernie-image", Main, &[Has("layers.0.mlp.linear_fc2.weight")]),
    row("hidream", Main, &[Has("caption_projection.0.linear.weight")]),
    row("hidream", Main, &[Has("t_embedder1.mlp.0.weight"), Has("x_embedder.proj1.weight")]),
    row("auraflow", Main, &[Has("double_layers.0.attn.w1q.weight")]),
    row("pixart", Main, &[LTX, Has("pos_embed.proj.bias")]),
    row("pixart", Main, &[Has("t_block.1.weight")]),
    row("omnigen", Main, &[Has("time_caption_embed.timestep_embedder.linear_1.bias")]),
    row("stable-cascade", Main, &[Has("clf.1.weight")]),
    row("hunyuan", Main, &[Has("mlp_t5.0.weight")]),
    row("hunyuan", Other, &[Has("latent_in.weight"), Has("cond_in.weight")]),
    row("ltx", Main, &[LTX]),
    row("wan", Main, &[Has("head.modulation"), Has("patch_embedding.weight")]),
    row("mochi", Main, &[Has("t5_yproj.weight")]),
    row("cosmos", Main, &[Has("blocks.block0.blocks.0.block.attn.to_q.0.weight")]),
    row("cosmos", Main, &[Has("blocks.0.mlp.layer1.weight"), Has("x_embedder.proj.1.weight")]),
    row("cogvideox", Main, &[Has("blocks.0.norm1.linear.weight"), Has("patch_embed.proj.weight")]),
    row("stable-audio", Main, &[Has("transformer.rotary_pos_emb.inv_freq")]),
    row("ace-step", Main, &[Has("genre_embedder.weight")]),
    row("ace-step", Main, &[Has("encoder.lyric_encoder.layers.0.input_layernorm.weight")]),
    row("yue", Main, &[Has("vae2llm.weight"), Has("llm2vae.weight")]),
    row("sam", Main, &[Has("detector.backbone.vision_backbone.trunk.blocks.0.attn.qkv.weight")]),
];
