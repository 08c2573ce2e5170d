"""LangChain's image tool. It asks OpenAI's library for images without saying in which form, and takes the `url`."""

import time

from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper

from checks import PROMPT, Script, at_once, fetched, main

NO_CALL = "the wrapper has no such call"
NO_FIELD = "the wrapper has no such field"


class LangChain(Script):
    CANNOT = {
        "models": NO_CALL,
        "model": NO_CALL,
        "openai_model_name": "gpt-image names are answered with base64, which the wrapper does not read",
        "jpeg_and_webp": NO_FIELD,
        "seed": NO_FIELD,
        "edit": NO_CALL,
        "edit_with_mask": NO_CALL,
        "edit_by_engine_model": NO_CALL,
        "stream": NO_CALL,
        "stream_edit": NO_CALL,
    }

    def generate(self, **more):
        settings = {"base_url": self.url, "api_key": self.token, "model": "dall-e-2", "size": "512x512", **more}
        return [fetched(url) for url in DallEAPIWrapper(**settings).run(PROMPT).split("\n")]

    def one_image(self):
        return self.generate()

    def two_images(self):
        return self.generate(n=2)

    def sizes(self):
        return [self.generate(size=size) for size in ("768x512", "512x768", "1024x1024")]

    def address(self):
        return self.generate()

    def wrong_token(self):
        return self.generate(api_key="not-the-token")

    def unknown_model(self):
        return self.generate(model="no-such-model")

    def bad_size(self):
        return self.generate(size="513x512")

    def over_capacity(self):
        return at_once(lambda: self.generate(model="slow", max_retries=0), 3)

    def busy_then_served(self):
        return at_once(self.generate, 3)

    def not_ready(self):
        return self.generate(base_url=self.not_ready_url)

    def soon_enough(self):
        return self.generate(model="quick", timeout=2, max_retries=0)

    def timeout(self):
        left = at_once(lambda: self.generate(model="slow", timeout=2, max_retries=0), 1)
        time.sleep(1)
        return left + at_once(lambda: self.generate(max_retries=0), 2)


if __name__ == "__main__":
    main(LangChain)
