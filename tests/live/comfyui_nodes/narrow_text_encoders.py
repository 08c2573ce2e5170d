"""For ComfyUI: the large text encoders, narrow. ComfyUI has one size of each and does not read it from the file."""

from functools import partial

from comfy.text_encoders import llama, qwen3vl, qwen_vl, t5

NODE_CLASS_MAPPINGS = {}
NARROW = {"intermediate_size": 64, "num_attention_heads": 1, "num_key_value_heads": 1}


class NarrowT5(t5.T5):
    def __init__(self, sizes, *more):
        super().__init__({**sizes, "num_layers": 1, "num_heads": 1, "d_ff": 64}, *more)


t5.T5 = NarrowT5
llama.Qwen3_06BConfig = partial(llama.Qwen3_06BConfig, **NARROW)
llama.Qwen3_4BConfig = partial(llama.Qwen3_4BConfig, **NARROW)
# Told from others by its four key heads.
llama.Qwen25_7BVLI_Config = partial(
    llama.Qwen25_7BVLI_Config, **{**NARROW, "num_attention_heads": 4, "num_key_value_heads": 4}
)
qwen_vl.Qwen2VLVisionTransformer = partial(qwen_vl.Qwen2VLVisionTransformer, intermediate_size=64, num_layers=1)
qwen3vl.QWEN3VL_CONFIGS["qwen3vl_4b"] = partial(qwen3vl.QWEN3VL_CONFIGS["qwen3vl_4b"], **NARROW)
qwen3vl.QWEN3VL_VISION["qwen3vl_4b"] = {
    "hidden_size": 64, "intermediate_size": 64, "depth": 3, "deepstack_visual_indexes": [0, 1, 2],
}
