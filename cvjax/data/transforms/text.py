"""Transforms of an image's texts."""

import dataclasses
from typing import Annotated

import numpy as np

from cvjax.data.transforms.scene import Scene
from cvjax.data.vocabulary import PAD, Vocabulary, encode
from cvjax.errors import UserError
from cvjax.signature import Range

Length = Annotated[int, Range(3)]  # start, one word and end


def random_text(generator: np.random.Generator, image: Scene, text: str = "caption") -> Scene:
    """Keeps a random text among those that an example has under the name `text`."""
    several = _find(image, text)
    chosen = (several[int(generator.integers(len(several)))],) if several else ()
    return dataclasses.replace(image, texts={**image.texts, text: chosen})


def tokenise(
    image: Scene, vocabulary: Vocabulary, length: Length, text: str = "caption", name: str = "tokens"
) -> Scene:
    """Replaces a text, the first of several, by tokens called `name` and `{name}_mask`, False where they are padding.

    `length` counts all tokens, start, end and padding included.
    """
    tokens = encode((*_find(image, text), "")[0], vocabulary, length)
    texts = {key: value for key, value in image.texts.items() if key != text}
    return dataclasses.replace(image, texts=texts, tokens={**image.tokens, name: tokens, f"{name}_mask": tokens != PAD})


def _find(image: Scene, text: str) -> tuple[str, ...]:
    if not isinstance(image, Scene) or text not in image.texts:
        raise UserError(f"there is no text {text!r}: tokenise has put tokens in its place, or it was never there")
    return image.texts[text]
