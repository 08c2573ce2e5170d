"""LiteLLM as a library. Its images go through OpenAI's library, its edits through a client of its own."""

import base64
import time

import litellm

from checks import PROMPT, Script, at_once, fetched, main

NO_STREAM = "it has no streamed images"
MODEL = "openai/sd-xl-base-1.0"


def decoded(answer):
    return [base64.b64decode(one.b64_json) for one in answer.data]


def either(answer):
    return [base64.b64decode(one.b64_json) if one.b64_json else fetched(one.url) for one in answer.data]


class LiteLLM(Script):
    CANNOT = {"model": "it has no such call", "stream": NO_STREAM, "stream_edit": NO_STREAM}

    def ask(self, **more):
        request = {"model": MODEL, "prompt": PROMPT, "size": "512x512", "api_base": self.url, "api_key": self.token,
                 **more}
        return litellm.image_generation(**request)

    def generate(self, **more):
        return either(self.ask(**more))

    def alter(self, **more):
        with open(self.source, "rb") as image:
            return either(litellm.image_edit(**{"image": image, "prompt": PROMPT, "api_base": self.url,
                                                "api_key": self.token, **more}))

    def models(self):
        return litellm.get_valid_models(check_provider_endpoint=True, custom_llm_provider="openai",
                                        api_base=self.url.removesuffix("/v1"), api_key=self.token)

    def one_image(self):
        # `response_format` itself it refuses to send.
        return decoded(self.ask(extra_body={"response_format": "b64_json"}))

    def two_images(self):
        return self.generate(n=2)

    def sizes(self):
        return [self.generate(size=size) for size in ("768x512", "512x768", "1024x1024")]

    def openai_model_name(self):
        return decoded(self.ask(model="openai/gpt-image-1"))

    def address(self):
        return [fetched(one.url) for one in self.ask(extra_body={"response_format": "url"}).data]

    def jpeg_and_webp(self):
        return [self.generate(model="openai/gpt-image-1", output_format=form) for form in ("jpeg", "webp")]

    def seed(self):
        return [self.generate(extra_body={"seed": 7, "steps": 5}) for _ in range(2)]

    def edit(self):
        return self.alter(model="openai/gpt-image-1")

    def edit_with_mask(self):
        with open(self.mask, "rb") as mask:
            return self.alter(model="openai/gpt-image-1", mask=mask)

    def edit_by_engine_model(self):
        return self.alter(model="openai/sd-v1-5")

    def wrong_token(self):
        return self.generate(api_key="not-the-token")

    def unknown_model(self):
        return self.generate(model="openai/no-such-model")

    def bad_size(self):
        return self.generate(size="513x512")

    def over_capacity(self):
        return at_once(lambda: self.generate(model="openai/slow", max_retries=0), 3)

    def busy_then_served(self):
        return at_once(self.generate, 3)

    def not_ready(self):
        return self.generate(api_base=self.not_ready_url)

    def soon_enough(self):
        return self.generate(model="openai/quick", timeout=2, max_retries=0)

    def timeout(self):
        left = at_once(lambda: self.generate(model="openai/slow", timeout=2, max_retries=0), 1)
        time.sleep(1)
        return left + at_once(lambda: self.generate(max_retries=0), 2)


if __name__ == "__main__":
    main(LiteLLM)
