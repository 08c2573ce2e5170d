"""For ComfyUI 0.33: what its successors have and built-in graphs name, declared and no more. Such graphs are accepted."""

import nodes
from comfy_api.latest import ComfyExtension, io


class TextEncodeQwenImage21(io.ComfyNode):
    """ComfyUI 0.37: Qwen-Image 2.1."""

    @classmethod
    def define_schema(cls):
        pictures = io.Autogrow.TemplateNames(io.Image.Input("image"), names=[f"image_{n}" for n in range(1, 17)], min=0)
        return io.Schema(
            node_id=cls.__name__,
            inputs=[
                io.Clip.Input("clip"), io.String.Input("prompt"), io.String.Input("negative_prompt"),
                io.Vae.Input("vae", optional=True), io.Int.Input("resolution", default=1024, min=0, max=4096, step=32),
                io.Autogrow.Input("images", template=pictures),
            ],
            outputs=[io.Conditioning.Output(), io.Conditioning.Output(), io.Latent.Output()],
        )

    @classmethod
    def execute(cls, **_inputs):
        raise NotImplementedError("this ComfyUI has no Qwen-Image 2.1: only the node's inputs are declared")


class ReferenceMultiLatent(io.ComfyNode):
    """ComfyUI 0.41: FLUX 3."""

    @classmethod
    def define_schema(cls):
        pictures = io.Autogrow.TemplatePrefix(io.Image.Input("image"), prefix="image", min=1, max=100)
        resize = [io.Float.Input("megapixels", default=1.0, min=0.01, max=16.0, step=0.01)]
        return io.Schema(
            node_id=cls.__name__,
            inputs=[
                io.Conditioning.Input("positive"), io.Conditioning.Input("negative", optional=True),
                io.Vae.Input("vae", optional=True),
                io.DynamicCombo.Input("resolution", options=[
                    io.DynamicCombo.Option("keep resolution", []), io.DynamicCombo.Option("resize", resize)]),
                io.Autogrow.Input("images", template=pictures),
            ],
            outputs=[io.Conditioning.Output(), io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, **_inputs):
        raise NotImplementedError("this ComfyUI has no FLUX 3: only the node's inputs are declared")


declared = nodes.CLIPLoader.INPUT_TYPES


def with_flux3(_cls):
    inputs = declared()
    (types, *more) = inputs["required"]["type"]
    inputs["required"]["type"] = ([*types, "flux3"], *more)
    return inputs


if "flux3" not in declared()["required"]["type"][0]:
    nodes.CLIPLoader.INPUT_TYPES = classmethod(with_flux3)


class Newer(ComfyExtension):
    async def get_node_list(self):
        return [node for node in (TextEncodeQwenImage21, ReferenceMultiLatent)
                if node.__name__ not in nodes.NODE_CLASS_MAPPINGS]


async def comfy_entrypoint():
    return Newer()
