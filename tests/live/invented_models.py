"""Models as InvokeAI 6.14.2 lists them, for each family that it has: none of them exists."""

MAIN = {
    "sd-1": ["normal", "inpaint"],
    "sdxl": ["normal", "inpaint"],
    "sd-3": [None],
    "flux": ["schnell", "dev", "dev_fill"],
    "flux2": ["klein_4b", "klein_9b", "klein_4b_base", "klein_9b_base", "dev"],
    "z-image": ["turbo", "zbase"],
    "qwen-image": ["generate", "edit"],
    "krea-2": ["krea2_turbo", "krea2_base"],
    "cogview4": [None],
    "anima": [None],
    "ernie-image": [None],
    "ideogram-4": [None],
}
# What a model in a single file needs beside it: type, base, variant.
PARTS = [
    ("vae", "flux", None), ("vae", "flux2", None), ("vae", "qwen-image", None), ("vae", "anima", None), ("vae", "sd-3", None),
    ("t5_encoder", "any", None), ("clip_embed", "any", "large"), ("clip_embed", "any", "gigantic"),
    ("qwen3_encoder", "any", "qwen3_4b"), ("qwen3_encoder", "any", "qwen3_8b"), ("qwen3_encoder", "any", "qwen3_06b"),
    ("qwen_vl_encoder", "any", None), ("qwen3_vl_encoder", "any", None), ("mistral_encoder", "any", None),
]


def model(kind, base, variant, form, name=None):
    name = name or "-".join(["invented", kind, base, *([variant] if variant else []), form])
    return {"key": name, "hash": f"blake3:{name}", "name": name, "base": base, "type": kind, "variant": variant,
            "format": form, "default_settings": None}


def invented():
    mains = [model("main", base, variant, form)
             for base, variants in MAIN.items() for variant in variants for form in ("diffusers", "checkpoint")]
    kontext = model("main", "flux", "dev", "checkpoint", "invented FLUX.1 Kontext dev")
    parts = [model(*part, "checkpoint") for part in PARTS]
    loras = [{**model("lora", base, None, "lycoris", f"invented-lora-{base}-{n}")} for base in MAIN for n in (1, 2)]
    return [*mains, kontext, *parts, *loras]
