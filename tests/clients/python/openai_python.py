"""OpenAI's own library for Python."""

import base64
import time
from pathlib import Path

from openai import OpenAI

from checks import PROMPT, Script, at_once, fetched, main

MODEL = "sd-xl-base-1.0"


def decoded(answer):
    return [base64.b64decode(one.b64_json) for one in answer.data]


class OpenAIPython(Script):
    def client(self, **settings):
        return OpenAI(**{"base_url": self.url, "api_key": self.token, **settings})

    def generate(self, client=None, **more):
        request = {"model": MODEL, "prompt": PROMPT, "size": "512x512", "response_format": "b64_json", **more}
        return decoded((client or self.client()).images.generate(**request))

    def models(self):
        return [model.id for model in self.client().models.list()]

    def model(self):
        return self.client().models.retrieve("sd-v1-5").id

    def one_image(self):
        return self.generate()

    def two_images(self):
        return self.generate(n=2)

    def sizes(self):
        return [self.generate(size=size) for size in ("768x512", "512x768", "1024x1024")]

    def openai_model_name(self):
        answer = self.client().images.generate(model="gpt-image-1", prompt=PROMPT, size="512x512", quality="low")
        return decoded(answer)

    def address(self):
        answer = self.client().images.generate(model=MODEL, prompt=PROMPT, size="512x512", response_format="url")
        return [fetched(one.url) for one in answer.data]

    def jpeg_and_webp(self):
        return [self.generate(output_format=form, output_compression=80) for form in ("jpeg", "webp")]

    def seed(self):
        return [self.generate(extra_body={"seed": 7, "steps": 5}) for _ in range(2)]

    def edit(self):
        # A list of one, which the library sends as `image[]`.
        answer = self.client().images.edit(model="gpt-image-1", prompt=PROMPT, image=[Path(self.source)])
        return decoded(answer)

    def edit_with_mask(self):
        with open(self.source, "rb") as image, open(self.mask, "rb") as mask:
            answer = self.client().images.edit(model=MODEL, prompt=PROMPT, image=image, mask=mask,
                                               response_format="b64_json")
        return decoded(answer)

    def edit_by_engine_model(self):
        answer = self.client().images.edit(model="sd-v1-5", prompt=PROMPT, image=Path(self.source))
        return [base64.b64decode(one.b64_json) if one.b64_json else fetched(one.url) for one in answer.data]

    def stream(self):
        events = self.client().images.generate(model=MODEL, prompt=PROMPT, size="512x512", stream=True,
                                               partial_images=2)
        return self.streamed(events, "image_generation")

    def stream_edit(self):
        events = self.client().images.edit(model=MODEL, prompt=PROMPT, image=Path(self.source), stream=True,
                                           partial_images=2)
        return self.streamed(events, "image_edit")

    @staticmethod
    def streamed(events, kind):
        seen = list(events)
        types = [event.type for event in seen]
        assert types == [f"{kind}.partial_image"] * 2 + [f"{kind}.completed"], types
        assert [event.partial_image_index for event in seen[:2]] == [0, 1]
        assert seen[2].usage.total_tokens is not None and seen[2].size == "512x512"
        return [base64.b64decode(event.b64_json) for event in seen]

    def wrong_token(self):
        return self.generate(self.client(api_key="not-the-token"))

    def unknown_model(self):
        return self.generate(model="no-such-model")

    def bad_size(self):
        return self.generate(size="513x512")

    def over_capacity(self):
        return at_once(lambda: self.generate(self.client(max_retries=0), model="slow"), 3)

    def busy_then_served(self):
        return at_once(self.generate, 3)

    def not_ready(self):
        return self.generate(self.client(base_url=self.not_ready_url))

    def soon_enough(self):
        return self.generate(self.client(timeout=2, max_retries=0), model="quick")

    def timeout(self):
        left = at_once(lambda: self.generate(self.client(timeout=2, max_retries=0), model="slow"), 1)
        time.sleep(1)
        # Both slots are free again, or one of these would be refused.
        return left + at_once(lambda: self.generate(self.client(max_retries=0)), 2)


if __name__ == "__main__":
    main(OpenAIPython)
