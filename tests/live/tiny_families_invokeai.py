"""Small models with random weights of today's families, in a running InvokeAI: tiny_families_invokeai.py DIRECTORY URL

Needs the Python of InvokeAI's environment. DIRECTORY gets one folder per pipeline and one file per LoRA; what is there
already is kept, what InvokeAI does not know yet is registered in place. InvokeAI is as it is: it reads every size from the
folders' own configuration. Images are noise that differs by seed, prompt and source images. Nothing is downloaded.
"""

import json
import re
import shutil
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

import diffusers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

import tiny_models

# The words that the encoders' prompts are built of, and that their code looks up by number.
PAD, TURN, TURN_END, SEE, SEE_END, PICTURE, FILM = WORDS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)
TEMPLATE = "{% for m in messages %}" + TURN + "{{ m.role }}\n{{ m.content }}" + TURN_END + "\n{% endfor %}" + TURN + "assistant\n"


def tokenizer():
    """Knows bytes and WORDS, nothing longer."""
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bytewise = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.add_special_tokens(list(WORDS))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bytewise, pad_token=PAD, eos_token=TURN_END, chat_template=TEMPLATE, model_max_length=4096
    )


def number(word):
    return tokenizer().convert_tokens_to_ids(word)


def language(width, layers, **more):
    """The sizes of a language model, as Qwen's configurations name them."""
    return {
        "vocab_size": 512, "hidden_size": width, "num_hidden_layers": layers, "intermediate_size": 64,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096, "tie_word_embeddings": True,
        "pad_token_id": number(PAD), "bos_token_id": number(PAD), "eos_token_id": number(TURN_END), **more,
    }


def with_eyes(config, sections, text, **vision):
    """The configuration of a language model that sees; sections divide half a head's width."""
    return config(
        text_config={**text, "rope_scaling": {"rope_type": "default", **sections}},
        vision_config={"hidden_size": 32, "intermediate_size": 32, "depth": 1, "num_heads": 2,
                       "out_hidden_size": text["hidden_size"], **vision},
        vision_start_token_id=number(SEE), vision_end_token_id=number(SEE_END),
        image_token_id=number(PICTURE), video_token_id=number(FILM),
    )


def qwen3(width):
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**language(width, 3, head_dim=32)))


def mistral(width):
    # FLUX.2 dev reads layers up to the 30th.
    sizes = {**language(width, 30, head_dim=32), "num_attention_heads": 1, "intermediate_size": 32}
    return transformers.MistralForCausalLM(transformers.MistralConfig(**sizes)).to(torch.bfloat16)


def qwen25_vl():
    return transformers.Qwen2_5_VLForConditionalGeneration(with_eyes(
        transformers.Qwen2_5_VLConfig, {"mrope_section": [4, 6, 6]}, language(64, 2), fullatt_block_indexes=[0]
    ))


def qwen3_vl():
    # Krea 2 reads layers up to the 36th.
    return transformers.Qwen3VLModel(with_eyes(
        transformers.Qwen3VLConfig, {"mrope_section": [6, 5, 5], "mrope_interleaved": True},
        language(64, 36, head_dim=32), deepstack_visual_indexes=[0], num_position_embeddings=256,
    ))


def clip(width, heads):
    """An encoder and its tokenizer: InvokeAI tells both CLIPs of SD 3 by their widths."""
    with tempfile.TemporaryDirectory() as directory:
        words = tiny_models.tokenizer(Path(directory) / "clip", tiny_models.END)
        reader = transformers.CLIPTokenizer.from_pretrained(Path(directory) / "clip")
    return tiny_models.text_encoder(transformers.CLIPTextModelWithProjection, words, width, heads), reader


def t5(width):
    letters = [(chr(code), -3.0) for code in range(33, 127)]
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters]
    config = transformers.T5Config(vocab_size=len(words) + 100, d_model=width, d_kv=32, d_ff=64, num_layers=1, num_heads=2)
    return transformers.T5EncoderModel(config), transformers.T5Tokenizer(vocab=words)


def flow(dynamic, shift=3.0):
    return diffusers.FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=dynamic)


# Four blocks: a latent pixel is 8 x 8 pixels, as in the real ones.
BLOCKS = {"block_out_channels": [32] * 4, "norm_num_groups": 32,
          "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}


def z_image(shift=3.0):
    # Turbo, not base, by the scheduler's shift.
    return diffusers.ZImagePipeline(
        scheduler=flow(False, shift), tokenizer=tokenizer(), text_encoder=qwen3(64),
        vae=diffusers.AutoencoderKL(latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159,
                                    use_quant_conv=False, use_post_quant_conv=False, **BLOCKS),
        transformer=diffusers.ZImageTransformer2DModel(
            dim=128, n_layers=2, n_refiner_layers=1, n_heads=1, n_kv_heads=1, cap_feat_dim=64),
    )


def flux2(pipeline, encoder, guidance, **more):
    # Klein 4B, 9B or dev: the transformer takes three times the encoder's width. Base is told by the folder's name.
    width = encoder.config.hidden_size
    return pipeline(
        scheduler=flow(True), tokenizer=tokenizer(), text_encoder=encoder, vae=diffusers.AutoencoderKLFlux2(**BLOCKS),
        transformer=diffusers.Flux2Transformer2DModel(
            num_layers=1, num_single_layers=1, num_attention_heads=1, attention_head_dim=128,
            joint_attention_dim=3 * width, guidance_embeds=guidance),
        **more,
    )


def flux2_klein():
    return flux2(diffusers.Flux2KleinPipeline, qwen3(2560), False)


def flux2_dev():
    return flux2(diffusers.Flux2Pipeline, mistral(5120), True)


def krea_2(is_distilled=True):
    # Turbo, not base: it is distilled.
    return diffusers.Krea2Pipeline(
        scheduler=flow(True), tokenizer=tokenizer(), text_encoder=qwen3_vl(), is_distilled=is_distilled,
        vae=diffusers.AutoencoderKLQwenImage(base_dim=8),
        transformer=diffusers.Krea2Transformer2DModel(
            num_layers=1, num_attention_heads=2, num_key_value_heads=1, attention_head_dim=32, intermediate_size=64,
            axes_dims_rope=(8, 12, 12), text_hidden_dim=64, text_num_attention_heads=2, text_num_key_value_heads=2,
            text_intermediate_size=64),
    )


def qwen_image(pipeline=diffusers.QwenImagePipeline, **more):
    return pipeline(
        scheduler=flow(True), tokenizer=tokenizer(), text_encoder=qwen25_vl(),
        vae=diffusers.AutoencoderKLQwenImage(base_dim=8),
        transformer=diffusers.QwenImageTransformer2DModel(
            num_layers=1, num_attention_heads=2, attention_head_dim=32, joint_attention_dim=64, axes_dims_rope=(8, 12, 12)),
        **more,
    )


def qwen_image_edit():
    # InvokeAI tells the variant by the pipeline's class.
    return qwen_image(diffusers.QwenImageEditPlusPipeline, processor=None)


def sd_3():
    (clip_l, reader_l), (clip_g, reader_g), (t5_xxl, reader_t5) = clip(768, 12), clip(1280, 20), t5(768 + 1280)
    return diffusers.StableDiffusion3Pipeline(
        scheduler=flow(False), text_encoder=clip_l, tokenizer=reader_l, text_encoder_2=clip_g, tokenizer_2=reader_g,
        text_encoder_3=t5_xxl, tokenizer_3=reader_t5,
        vae=diffusers.AutoencoderKL(latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609,
                                    use_quant_conv=False, use_post_quant_conv=False, **BLOCKS),
        transformer=diffusers.SD3Transformer2DModel(
            num_layers=2, num_attention_heads=2, attention_head_dim=32, caption_projection_dim=64, in_channels=16,
            out_channels=16, joint_attention_dim=768 + 1280, pooled_projection_dim=768 + 1280, qk_norm="rms_norm"),
    )


PIPELINES = {
    "tiny-z-image-turbo": z_image, "tiny-z-image-base": lambda: z_image(6.0),
    "tiny-flux2-klein-4b": flux2_klein, "tiny-flux2-klein-base-4b": flux2_klein, "tiny-flux2-dev": flux2_dev,
    "tiny-krea-2-turbo": krea_2, "tiny-krea-2-base": lambda: krea_2(False),
    "tiny-qwen-image": qwen_image, "tiny-qwen-image-edit": qwen_image_edit,
    "tiny-sd-3.5": sd_3,
}
# Which layers of which pipeline a LoRA changes: InvokeAI tells its family by their names.
LORAS = {
    "tiny-z-image-lora": ("tiny-z-image-turbo", "diffusion_model.", r"layers\.\d+\.attention\.to_[qkv]"),
    "tiny-z-image-lora-2": ("tiny-z-image-turbo", "diffusion_model.", r"layers\.\d+\.attention\.to_[qkv]"),
    "tiny-flux2-klein-lora": ("tiny-flux2-klein-4b", "transformer.",
                              r"context_embedder|single_transformer_blocks\.\d+\.attn\.to_qkv_mlp_proj"),
    "tiny-krea-2-lora": ("tiny-krea-2-turbo", "transformer.",
                         r"transformer_blocks\.\d+\.attn\.to_[qkv]|text_fusion\..*\.attn\.to_[qkv]"),
    "tiny-qwen-image-lora": ("tiny-qwen-image", "transformer.", r"transformer_blocks\.\d+\.attn\.to_[qkv]"),
}


def make_pipeline(directory, make):
    """Under another name first: a folder with its own name is whole."""
    part = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    make().save_pretrained(part)
    part.rename(directory)


def make_lora(file, pipeline, prefix, layers, rank=4):
    kind = getattr(diffusers, json.loads((pipeline / "transformer/config.json").read_text())["_class_name"])
    changed = {}
    for name, module in kind.from_pretrained(pipeline / "transformer").named_modules():
        if isinstance(module, torch.nn.Linear) and re.fullmatch(layers, name):
            rows, columns = module.weight.shape
            changed[f"{prefix}{name}.lora_A.weight"] = torch.randn(rank, columns) * columns**-0.5
            changed[f"{prefix}{name}.lora_B.weight"] = torch.randn(rows, rank) * 0.5
    if not changed:
        sys.exit(f"{file.name}: no layer of {pipeline.name} is called {layers}")
    part = file.with_suffix(".part")
    save_file(changed, part)
    part.rename(file)


def register(directory, url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
        return json.load(opener.open(request, timeout=60))

    known = {model["name"] for model in ask("/api/v2/models/")["models"]}
    for name in [*PIPELINES, *LORAS]:
        if name not in known:
            source = directory / (f"{name}.safetensors" if name in LORAS else name)
            query = urllib.parse.urlencode({"source": str(source), "inplace": "true"})
            job = ask(f"/api/v2/models/install?{query}", {"name": name})
            while job["status"] not in ("completed", "error", "cancelled"):
                time.sleep(0.5)
                job = ask(f"/api/v2/models/install/{job['id']}")
            if job["status"] != "completed":
                sys.exit(f"{name} was not registered: {job.get('error')}")
    for model in ask("/api/v2/models/")["models"]:
        print(model["type"], model["base"], model.get("variant") or "-", model["name"])


def main(directory, url):
    directory.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    for name, make in PIPELINES.items():
        if not (directory / name).exists():
            make_pipeline(directory / name, make)
    for name, (pipeline, prefix, layers) in LORAS.items():
        file = directory / f"{name}.safetensors"
        if not file.exists():
            make_lora(file, directory / pipeline, prefix, layers)
    register(directory, url)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
