"""The rows of the table: what every client must get, whichever it is. Images are decoded and measured here."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

# Width of the part of the test image that the mask keeps; left of the seam by more than it may be softened.
KEPT = 240


@dataclass(frozen=True)
class Refusal:
    """An error, as every client calls it, with what the server sent."""

    classes: tuple
    status: int = None
    code: str = None

    def fits(self, error):
        # LiteLLM has no code for some errors, and the status for others; else it must be the server's.
        return (error["class"] in self.classes and self.status in (None, error["status"])
                and (self.code is None or error["code"] in (None, str(error["status"]), self.code)))


@dataclass(frozen=True)
class Operation:
    """One row."""

    title: str
    # (width, height, format) of each image, in order.
    images: tuple = ()
    refusals: tuple = ()
    names: frozenset = frozenset()
    # Another error that is as good, and why.
    instead: Refusal = None
    why_instead: str = ""
    # Seconds that it takes at least, where waiting is what is tested.
    seconds: float = 0
    # A further check of the images; returns what is wrong.
    look: object = None
    # Requests that the server that is not ready sees.
    requests_not_ready: int = 0


def png(*sizes):
    return tuple((*size, "PNG") for size in sizes)


def same(images, _):
    return None if images[0].tobytes() == images[1].tobytes() else "the same seed gave two different images"


def different(images, _):
    return "both images are the same" if images[0].tobytes() == images[1].tobytes() else None


def altered(images, source):
    return "the image is as it was" if images[-1].tobytes() == source.tobytes() else None


def altered_in_the_mask_only(images, source):
    left, right = (0, 0, KEPT, 512), (512 - KEPT, 0, 512, 512)
    if images[0].crop(left).tobytes() != source.crop(left).tobytes():
        return "what the mask keeps has changed"
    if images[0].crop(right).tobytes() == source.crop(right).tobytes():
        return "what the mask gives up is as it was"
    return None


def refused(classes, status=None, code=None):
    return Refusal((*classes.split(), "AI_APICallError") if status else tuple(classes.split()), status, code)


ONE = png((512, 512))
TWO = png((512, 512), (512, 512))
PREVIEWS_AND_ONE = png((64, 64), (64, 64), (512, 512))
TIMED_OUT = "APITimeoutError APIConnectionTimeoutError Timeout TimeoutError"
BUSY = refused("RateLimitError", 429, "backend_overloaded")
MODELS = frozenset({"sd-xl-base-1.0", "sd-v1-5"})

OPERATIONS = {
    "models": Operation("list of models", names=MODELS),
    "model": Operation("one model by its name", names=frozenset({"sd-v1-5"})),
    "one_image": Operation("one image", ONE),
    "two_images": Operation("`n` 2", TWO, look=different),
    "sizes": Operation("sizes", png((768, 512), (512, 768), (1024, 1024))),
    "openai_model_name": Operation("model `gpt-image-1`", ONE),
    "address": Operation("`url`, fetched", ONE),
    "jpeg_and_webp": Operation("JPEG, WebP", ((512, 512, "JPEG"), (512, 512, "WEBP"))),
    "seed": Operation("`seed` and `steps`", TWO, look=same),
    "edit": Operation("edit", ONE, look=altered),
    "edit_with_mask": Operation("edit with mask", ONE, look=altered_in_the_mask_only),
    "edit_by_engine_model": Operation("edit, model `sd-v1-5`", ONE, look=altered),
    "stream": Operation("stream, 2 previews", PREVIEWS_AND_ONE),
    "stream_edit": Operation("streamed edit", PREVIEWS_AND_ONE, look=altered),
    "wrong_token": Operation("wrong token: 401", refusals=(refused("AuthenticationError", 401, "invalid_api_key"),)),
    "unknown_model": Operation("unknown model: 404", refusals=(refused("NotFoundError", 404, "model_not_found"),)),
    "bad_size": Operation("bad size: 400", refusals=(refused("BadRequestError", 400, "invalid_size"),)),
    "over_capacity": Operation("3 at 2 slots: one 429", TWO, refusals=(BUSY,)),
    # The client's own repeat, after the 5 seconds of `Retry-After`.
    "busy_then_served": Operation("3 at 2 slots: repeated", ONE * 3, seconds=4.5),
    "not_ready": Operation(
        "not ready: 503, requested once", requests_not_ready=1,
        refusals=(refused("InternalServerError ServiceUnavailableError", 503, "backend_not_ready"),)),
    "soon_enough": Operation("0.2 s of work, timeout 2 s", ONE),
    "timeout": Operation(
        # Two seconds of timeout, a second's pause, and two images.
        "3 s of work, timeout 2 s", TWO, seconds=2.8, refusals=(refused(TIMED_OUT),),
        instead=refused("InternalServerError Timeout", 504, "engine_timeout"),
        why_instead="the server knows the client's timeout and answers 504 `engine_timeout` before it, "
                    "which the client does not repeat"),
}

BASE64_ONLY = "the wrapper takes only `url` and does not request it; by default the sidecar answers base64"
URL_ONLY = "the provider takes only base64 and does not request it; by default the gateway answers `url` for this name"

# What a client cannot do with a server that is as documented, by server and by script or its variant: operations, the
# client's complaint, and why. It is tried all the same: if it works, or fails in another way, the table says so.
KNOWN = {
    ("sidecar", "langchain_client.py"): (
        {"one_image", "two_images", "sizes", "address", "over_capacity", "busy_then_served",
         "soon_enough", "timeout"}, "expected str instance, NoneType found", BASE64_ONLY),
    ("gateway", "@ai-sdk/openai"): ({"edit_by_engine_model"}, "Invalid JSON response", URL_ONLY),
}


def fault(operation, outcome, source):
    """What is wrong with an outcome, or nothing."""
    reported = "; ".join(f"{one['class']}: {one['message']}" for one in outcome["refusals"])
    if len(outcome["refusals"]) != len(operation.refusals):
        return f"expected {len(operation.refusals)} errors, got {reported or 'none'}"
    for expected, one in zip(operation.refusals, outcome["refusals"]):
        if not expected.fits(one) and not (operation.instead and operation.instead.fits(one)):
            return f"expected {' or '.join(expected.classes)} {expected.status or ''} {expected.code or ''}, got {one}"
    if not operation.names <= set(outcome["names"]):
        return f"expected {sorted(operation.names)} among {outcome['names']}"
    if outcome["seconds"] < operation.seconds:
        return f"it took {outcome['seconds']:.1f} s, at least {operation.seconds} s were expected"
    try:
        images = [decoded(file) for file in outcome["images"]]
    except OSError as error:
        return f"no image: {error}"
    seen = tuple((*image.size, image.format) for image in images)
    if seen != operation.images:
        return f"expected {operation.images}, got {seen}"
    return operation.look and operation.look([image.convert("RGB") for image in images], source)


def decoded(file):
    """The whole image, not only its header."""
    image = Image.open(Path(file))
    image.load()
    return image


def make_source(directory):
    """An image to edit, and a mask that gives up its right half."""
    source = Image.linear_gradient("L").resize((512, 512)).convert("RGB")
    mask = Image.new("RGBA", (512, 512), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (256, 0, 512, 512))
    source.save(directory / "source.png")
    mask.save(directory / "mask.png")
    return source
