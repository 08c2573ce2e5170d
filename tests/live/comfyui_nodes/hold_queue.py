"""For ComfyUI: a job that lasts until it is interrupted, at no cost. What is queued behind it can be taken back."""

import time

from comfy.model_management import throw_exception_if_processing_interrupted


class HoldQueue:
    OUTPUT_NODE = True
    RETURN_TYPES = ()
    FUNCTION = "hold"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seconds": ("INT", {"default": 600, "min": 1, "max": 3600})}}

    @classmethod
    def IS_CHANGED(cls, seconds):
        return time.monotonic()

    def hold(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            throw_exception_if_processing_interrupted()
            time.sleep(0.05)
        return ()


NODE_CLASS_MAPPINGS = {"HoldQueue": HoldQueue}
