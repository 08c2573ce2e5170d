"""Small random weights of today's families for ComfyUI 0.33: tiny_families_comfyui.py COMFYUI HOME

COMFYUI is a checkout, whose own modules give the names and shapes of the weights; HOME is what the server gets as
--base-directory. The files have the names of the published ones, in their folders; what is there already is kept. Those of
families without small weights are empty: a graph that names them is accepted and fails when it runs. Images are noise
that differs by seed, prompt and source images. Nothing is downloaded.
"""

import os
import re
import shutil
import sys
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

checkout, home = (Path(argument).resolve() for argument in sys.argv[1:3])
nodes = Path(__file__).resolve().parent / "comfyui_nodes"
sys.path[:0] = [str(checkout), str(nodes)]

from comfy.cli_args import args  # noqa: E402

args.cpu = True  # Before the import of anything that looks for a GPU.

import narrow_text_encoders  # noqa: E402, F401
from comfy import ops, sd1_clip  # noqa: E402
from comfy.ldm.anima.model import Anima  # noqa: E402
from comfy.ldm.flux.model import Flux  # noqa: E402
from comfy.ldm.krea2.model import SingleStreamDiT  # noqa: E402
from comfy.ldm.lumina.model import NextDiT  # noqa: E402
from comfy.ldm.models.autoencoder import AutoencoderKL  # noqa: E402
from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT  # noqa: E402
from comfy.ldm.qwen_image.controlnet import QwenImageControlNetModel  # noqa: E402
from comfy.ldm.qwen_image.model import QwenImageTransformer2DModel  # noqa: E402
from comfy.ldm.wan.vae import WanVAE  # noqa: E402
from comfy.taesd.taesd import TAESD  # noqa: E402
from comfy.text_encoders import llama, qwen3vl, t5  # noqa: E402

DTYPE, PLAIN = torch.bfloat16, ops.disable_weight_init
HALF = {"dtype": DTYPE, "device": "cpu", "operations": PLAIN}


@torch.no_grad()
def weights(module):
    """Random ones that keep the size of what passes through."""
    for name, weight in [*module.named_parameters(), *module.named_buffers()]:
        if not weight.is_floating_point() or not weight.numel():
            continue
        if weight.dim() < 2 or "gamma" in name:
            weight.fill_(name.endswith(("weight", "scale", "gamma", "running_var")))
        else:
            weight.normal_(std=0.02 if "embed" in name or "shared" in name else weight[0].numel() ** -0.5)
    return module.state_dict()


# Text encoders.


def language_model(kind):
    return weights(kind({}, DTYPE, "cpu", PLAIN))


def qwen3vl_4b():
    class Sized(qwen3vl.Qwen3VL):
        model_type = "qwen3vl_4b"

    # ComfyUI tells it by the names in the whole model's file.
    return {
        re.sub("^model[.](?!language_model)", "model.language_model.", key) if key.startswith("model.") else f"model.{key}": weight
        for key, weight in language_model(Sized).items()
    }


def clip_l():
    return weights(sd1_clip.SDClipModel(device="cpu", dtype=torch.float16).transformer)


def t5xxl():
    sizes = {"d_model": 4096, "d_kv": 64, "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True, "model_type": "t5",
             "vocab_size": 32128}
    return weights(t5.T5(sizes, DTYPE, "cpu", PLAIN))


# VAEs.


def small_vae():
    made = weights(TAESD(latent_channels=16).half())
    # Pixels around the middle grey: as they come, most are black.
    last = max(int(key.split(".")[1]) for key in made if key.startswith("taesd_decoder."))
    made[f"taesd_decoder.{last}.weight"] *= 0.2
    made[f"taesd_decoder.{last}.bias"] += 0.5
    return made


def flux2_vae():
    # ComfyUI reads the decoder's width only.
    sizes = {"double_z": True, "z_channels": 32, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "dropout": 0.0,
             "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "batch_norm_latent": True}
    return weights(AutoencoderKL(ddconfig=sizes, embed_dim=32, decoder_ddconfig={**sizes, "ch": 32}).half())


def qwen_image_vae():
    return weights(WanVAE(
        dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[], temperal_downsample=[False, True, True],
        image_channels=3, conv_out_channels=3, dropout=0.0,
    ).half())


# Diffusion models: as small as what ComfyUI reads from the file allows.


def z_image():
    # A width of 3840 says that it is Z-Image; so 1.7 GB.
    return weights(NextDiT(
        dim=3840, n_heads=30, n_kv_heads=30, n_layers=1, patch_size=2, in_channels=16, qk_norm=True, cap_feat_dim=2560,
        axes_dims=[32, 48, 48], axes_lens=[1536, 512, 512], rope_theta=256.0, ffn_dim_multiplier=8 / 3, time_scale=1000.0,
        z_image_modulation=True, pad_tokens_multiple=32, **HALF,
    ))


def flux(**more):
    return weights(Flux(hidden_size=256, num_heads=2, depth=1, depth_single_blocks=1, **more, **HALF))


def flux2_klein():
    return flux(
        image_model="flux2", in_channels=128, out_channels=128, vec_in_dim=None, context_in_dim=3 * 2560, mlp_ratio=3.0,
        axes_dim=[32] * 4, theta=2000, patch_size=1, qkv_bias=False, guidance_embed=False, txt_ids_dims=[3],
        global_modulation=True, mlp_silu_act=True, ops_bias=False,
    )


def flux1(channels=16, guidance=True):
    return flux(
        image_model="flux", in_channels=channels, out_channels=16, vec_in_dim=768, context_in_dim=4096, mlp_ratio=4.0,
        axes_dim=[16, 56, 56], theta=10000, patch_size=2, qkv_bias=True, guidance_embed=guidance, txt_ids_dims=[],
    )


def flux1_fill():
    # Beside the noise: the picture's latents and 64 pixels of mask for each.
    return flux1(16 + 16 + 64)


def flux1_schnell():
    return flux1(guidance=False)


def krea_2():
    return weights(SingleStreamDiT(features=256, heads=2, kvheads=1, layers=1, **HALF))


def qwen_image(**more):
    return weights(QwenImageTransformer2DModel(num_layers=1, **more, **HALF))


def qwen_image_edit_2511():
    return qwen_image(default_ref_method="index_timestep_zero")


def anima():
    return weights(Anima(
        max_img_h=240, max_img_w=240, max_frames=128, in_channels=16, out_channels=16, patch_spatial=2, patch_temporal=1,
        concat_padding_mask=True, model_channels=2048, num_blocks=1, num_heads=16, crossattn_emb_channels=1024,
        pos_emb_cls="rope3d", pos_emb_learnable=True, pos_emb_interpolation="crop", min_fps=1, max_fps=30,
        use_adaln_lora=True, adaln_lora_dim=256, extra_per_block_abs_pos_emb=False, rope_h_extrapolation_ratio=4.0,
        rope_w_extrapolation_ratio=4.0, rope_t_extrapolation_ratio=1.0, **HALF,
    ))


def qwen_image_inpainting():
    # Beside the picture's latents: four channels of mask.
    return weights(QwenImageControlNetModel(extra_condition_channels=4, num_layers=1, **HALF))


# Checkpoints: all parts in one file.


def together(parts):
    return {prefix + key: weight for prefix, part in parts.items() for key, weight in part.items()}


def sd3_5():
    # With CLIP-L only: ComfyUI does without the other two encoders.
    return together({
        "model.diffusion_model.": weights(MMDiT(
            depth=2, in_channels=16, out_channels=16, adm_in_channels=2048, qk_norm="rms", input_size=None, num_patches=1024,
            pos_embed_max_size=32, pos_embed_scaling_factor=None, context_embedder_config={
                "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}}, **HALF)),
        "text_encoders.clip_l.transformer.": clip_l(),
        "first_stage_model.": small_vae(),
    })


def flux1_checkpoint(model=flux1):
    return together({"model.diffusion_model.": model(), "text_encoders.clip_l.transformer.": clip_l(),
                     "text_encoders.t5xxl.transformer.": t5xxl(), "vae.": small_vae()})


def lora(file, layers):
    """One that changes these layers of a file that is there already."""
    made, is_checkpoint = {}, file.startswith("checkpoints/")
    for key, weight in load_file(path(file)).items():
        key = key.removeprefix("model.diffusion_model.")
        if re.fullmatch(f"(?:{layers}).weight", key):
            name = key.removesuffix(".weight")
            # As trainers write them, for the old families and for the new ones.
            name = "lora_unet_" + name.replace(".", "_") if is_checkpoint else f"diffusion_model.{name}"
            made[f"{name}.lora_down.weight"] = torch.randn(4, weight.shape[1]) * weight.shape[1] ** -0.5
            made[f"{name}.lora_up.weight"] = torch.randn(weight.shape[0], 4) * 0.5
    if not made:
        sys.exit(f"{file} has no layers {layers}")
    return made


LORAS = {
    ("checkpoints/tiny-sd15", r".*\.attn[12]\.to_[qv]"): ["tiny-sd-1-lora"],
    ("checkpoints/tiny-sdxl", r".*\.attn[12]\.to_[qv]"): ["tiny-sdxl-lora"],
    ("diffusion_models/z_image_turbo_bf16", r"layers\.\d+\.attention\.qkv"): ["tiny-z-image-lora", "tiny-z-image-lora-2"],
    ("diffusion_models/flux1-dev", r"double_blocks\.\d+\.img_attn\.qkv"): ["tiny-flux-lora"],
    ("diffusion_models/flux-2-klein-4b", r"double_blocks\.\d+\.img_attn\.qkv"): ["tiny-flux2-lora"],
    ("diffusion_models/krea2_turbo_fp8_scaled", r"blocks\.\d+\.attn\.w[qkv]"): ["tiny-krea-2-lora", "krea2_style_reference"],
    ("diffusion_models/anima-base-v1.0", r"blocks\.\d+\.self_attn\.[qkv]_proj"): ["anima-turbo-lora-v0.2"],
    ("diffusion_models/qwen_image_fp8_e4m3fn", r"transformer_blocks\.\d+\.attn\.to_[qkv]"): [
        "tiny-qwen-image-lora", "Qwen-Image-2512-Lightning-4steps-V1.0-fp32",
        "Qwen-Image-Edit-2509-Lightning-4steps-V1.0-bf16", "Qwen-Image-Edit-2511-Lightning-4steps-V1.0-bf16"],
}

RUN = {
    "text_encoders/qwen_3_4b": lambda: language_model(llama.Qwen3_4B),
    "text_encoders/qwen_3_06b_base": lambda: language_model(llama.Qwen3_06B),
    "text_encoders/qwen_2.5_vl_7b_fp8_scaled": lambda: language_model(llama.Qwen25_7BVLI),
    "text_encoders/qwen3vl_4b_fp8_scaled": qwen3vl_4b,
    "text_encoders/clip_l": clip_l,
    "text_encoders/t5xxl_fp16": t5xxl,
    "vae/ae": small_vae,
    "vae/flux2-vae": flux2_vae,
    "vae/qwen_image_vae": qwen_image_vae,
    "diffusion_models/z_image_turbo_bf16": z_image,
    "diffusion_models/flux-2-klein-4b": flux2_klein,
    "diffusion_models/krea2_turbo_fp8_scaled": krea_2,
    "diffusion_models/qwen_image_fp8_e4m3fn": qwen_image,
    "diffusion_models/qwen_image_edit_2511_bf16": qwen_image_edit_2511,
    "diffusion_models/flux1-dev": flux1,
    "diffusion_models/flux1-schnell": flux1_schnell,
    "diffusion_models/flux1-fill-dev": flux1_fill,
    "diffusion_models/anima-base-v1.0": anima,
    "controlnet/Qwen-Image-InstantX-ControlNet-Inpainting": qwen_image_inpainting,
    "checkpoints/sd3.5_large_fp8_scaled": sd3_5,
    "checkpoints/flux1-dev-fp8": flux1_checkpoint,
    "checkpoints/flux1-schnell-fp8": lambda: flux1_checkpoint(flux1_schnell),
}
# Another published model of the same shape: the same file.
SAME = {
    "text_encoders/qwen3vl_4b_int8_convrot": "text_encoders/qwen3vl_4b_fp8_scaled",
    "vae/full_encoder_small_decoder": "vae/flux2-vae",
    "diffusion_models/z_image_bf16": "diffusion_models/z_image_turbo_bf16",
    "diffusion_models/flux-2-klein-base-4b": "diffusion_models/flux-2-klein-4b",
    "diffusion_models/qwen_image_2512_fp8_e4m3fn": "diffusion_models/qwen_image_fp8_e4m3fn",
    "diffusion_models/qwen_image_edit_2509_fp8_e4m3fn": "diffusion_models/qwen_image_fp8_e4m3fn",
    "diffusion_models/flux1-dev-kontext_fp8_scaled": "diffusion_models/flux1-dev",
    "checkpoints/sd3.5_large_turbo": "checkpoints/sd3.5_large_fp8_scaled",
}
EMPTY = [
    "text_encoders/qwen_3_8b_fp8mixed", "text_encoders/mistral_3_small_flux2_bf16", "text_encoders/qwen3vl_8b_int8_convrot",
    "vae/qwen_image_2.1_vae_bf16",
    "diffusion_models/qwen_image_2.1_int8_convrot", "diffusion_models/qwen_image_2.1_turbo_int8_convrot",
    "diffusion_models/flux-2-klein-9b-fp8", "diffusion_models/flux-2-klein-base-9b-fp8", "diffusion_models/flux2_dev_fp8mixed",
    "diffusion_models/flux3-image-klein-int8-convrot", "diffusion_models/flux3-image-klein-base-int8-convrot",
    "loras/Flux_2-Turbo-LoRA_comfyui",
]


def path(name):
    file = home / "models" / f"{name}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def main():
    torch.manual_seed(1)
    loras = {f"loras/{name}": partial(lora, *of) for of, names in LORAS.items() for name in names}
    for name, make in {**RUN, **loras}.items():
        file = path(name)
        if not file.exists() or not file.stat().st_size:
            # Under another name first: a file with its own name is whole.
            part = file.with_suffix(".part")
            save_file({key: weight.contiguous() for key, weight in make().items()}, part)
            os.replace(part, file)
            print(f"{name}: {file.stat().st_size >> 20} MiB", flush=True)
    for name, other in SAME.items():
        if not path(name).exists():
            os.link(path(other), path(name))
    for name in EMPTY:
        path(name).touch()
    (home / "custom_nodes").mkdir(exist_ok=True)
    for node in nodes.glob("*.py"):
        shutil.copy(node, home / "custom_nodes")


if __name__ == "__main__":
    main()
