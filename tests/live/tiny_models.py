"""Makes two models with random weights, shaped so that InvokeAI takes them for SD 1.5 and SDXL: tiny_models.py DIRECTORY

Their images are noise, and every node of a normal graph runs. Nothing is downloaded.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

START, END = "<|startoftext|>", "<|endoftext|>"


def tokenizer(directory, pad):
    """A CLIP tokenizer without merges: every byte is a token of its own."""
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    # Bytes that do not print have stand-ins from 256 on, in the order of the bytes.
    stand_ins = [chr(256 + i) for i in range(256 - len(plain))]
    letters = [chr(b) for b in plain] + stand_ins
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), START, END]
    directory.mkdir(parents=True)
    (directory / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (directory / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    (directory / "special_tokens_map.json").write_text(json.dumps(special))
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


def text_encoder(kind, words, width, heads):
    return kind(
        CLIPTextConfig(
            vocab_size=words, hidden_size=width, projection_dim=width, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=heads, bos_token_id=words - 2, eos_token_id=words - 1, pad_token_id=words - 1,
        )
    )


def unet(context, **more):
    # Attention only at a quarter of the size: its cost grows with the square of the pixels.
    return UNet2DConditionModel(
        in_channels=4, out_channels=4, layers_per_block=1, norm_num_groups=8, block_out_channels=(16, 32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"), cross_attention_dim=context, **more,
    )


def vae(scaling):
    # Four blocks: a latent pixel is 8 x 8 pixels, as in the real ones.
    return AutoencoderKL(
        latent_channels=4, block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4, scaling_factor=scaling,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )


def save(directory, pipeline, parts):
    """Writes the parts and, last, the index: a directory with an index is whole."""
    index = {"_class_name": pipeline, "_diffusers_version": "0.30.0", "force_zeros_for_empty_prompt": True}
    for name, part in parts.items():
        part.save_pretrained(directory / name)
        library = "transformers" if name.startswith("text") else "diffusers"
        index[name] = [library, type(part).__name__]
    for path in directory.glob("tokenizer*"):
        index[path.name] = ["transformers", "CLIPTokenizer"]
    (directory / "model_index.json").write_text(json.dumps(index, indent=2))


def main(out):
    shutil.rmtree(out, ignore_errors=True)
    torch.manual_seed(1)
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

    directory = out / "tiny-sd1"
    words = tokenizer(directory / "tokenizer", END)
    save(directory, "StableDiffusionPipeline", {
        "text_encoder": text_encoder(CLIPTextModel, words, 768, 12),
        "unet": unet(768, sample_size=64, attention_head_dim=4),
        "vae": vae(0.18215),
        "scheduler": scheduler,
    })

    directory = out / "tiny-sdxl"
    words = tokenizer(directory / "tokenizer", END)
    tokenizer(directory / "tokenizer_2", "!")
    save(directory, "StableDiffusionXLPipeline", {
        "text_encoder": text_encoder(CLIPTextModel, words, 768, 12),
        "text_encoder_2": text_encoder(CLIPTextModelWithProjection, words, 1280, 20),
        "unet": unet(
            2048, sample_size=128, attention_head_dim=(2, 4, 8), transformer_layers_per_block=(1, 1, 2),
            use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=1280 + 6 * 8,
        ),
        "vae": vae(0.13025),
        "scheduler": scheduler,
    })


if __name__ == "__main__":
    main(Path(sys.argv[1]))
