"""Makes two checkpoints with random weights that ComfyUI takes for SD 1.5 and SDXL: tiny_checkpoint.py COMFYUI DIRECTORY

COMFYUI is a checkout of ComfyUI: its own modules give the names and shapes of the weights. Only the UNet and the VAE
are small; ComfyUI has one size of each text encoder. Pictures are noise that depends on the seed, the prompt and the
source image. Nothing is downloaded.
"""

import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

checkout, out = map(Path, sys.argv[1:])
sys.path.insert(0, str(checkout))

from comfy.cli_args import args  # noqa: E402

args.cpu = True  # Before the import of anything that looks for a GPU.

from comfy import ops, sd1_clip, sdxl_clip, supported_models  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from comfy.taesd.taesd import TAESD  # noqa: E402

HALF = {"device": "cpu", "dtype": torch.float16}


@torch.no_grad()
def random(module):
    """Random weights that keep the size of what passes through; norms and biases as if fresh."""
    for name, weight in module.named_parameters():
        if weight.dim() > 1:
            inputs = weight[0].numel()
            weight.copy_(torch.randn(weight.shape) * (0.02 if "embedding" in name else inputs**-0.5))
        elif weight.dim() == 1:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
    return module


def vae():
    both = random(TAESD())
    # Pixels around the middle grey: as they come, most are black.
    with torch.no_grad():
        last = both.taesd_decoder[-1]
        last.weight.mul_(0.2)
        last.bias.fill_(0.5)
    return both.half()


def save(name, model, clip, unet):
    """Writes the checkpoint under another name first: one with its name is whole."""
    unet = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "legacy": False,
            "use_spatial_transformer": True, "use_temporal_attention": False, **unet}
    config = model(unet)
    # Copies: the UNet's class takes the items out of the lists that it is given.
    sizes = {key: list(value) if isinstance(value, list) else value for key, value in config.unet_config.items()}
    weights = {
        **config.process_unet_state_dict_for_saving(
            random(UNetModel(**sizes, **HALF, operations=ops.disable_weight_init)).state_dict()
        ),
        **config.process_vae_state_dict_for_saving(vae().state_dict()),
        **config.process_clip_state_dict_for_saving(random(clip(**HALF)).state_dict()),
    }
    part = out / f".{name}.part"
    save_file({key: weight.contiguous() for key, weight in weights.items()}, part)
    os.replace(part, out / name)


out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(1)
# ComfyUI takes a model for SD 1.5 or SDXL by its channels, its context and, for SDXL, by the depths on the way down.
save("tiny-sd15.safetensors", supported_models.SD15, sd1_clip.SD1ClipModel, {
    "channel_mult": [1, 1], "num_res_blocks": [1, 1], "transformer_depth": [0, 1],
    "transformer_depth_output": [0, 0, 1, 1], "transformer_depth_middle": 1, "context_dim": 768,
    "use_linear_in_transformer": False, "adm_in_channels": None,
})
save("tiny-sdxl.safetensors", supported_models.SDXL, sdxl_clip.SDXLClipModel, {
    "channel_mult": [1, 1, 1], "num_res_blocks": [2, 2, 2], "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0] * 9, "transformer_depth_middle": 1, "context_dim": 2048,
    "use_linear_in_transformer": True, "num_classes": "sequential", "adm_in_channels": 2816,
})
