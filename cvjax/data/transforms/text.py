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
    """Keeps a random text of an example.

    Args:
      generator: random numbers.
      image: a scene with texts.
      text: name of the texts.
    """
    several = _find(image, text)
    chosen = (several[int(generator.integers(len(several)))],) if several else ()
    return dataclasses.replace(image, texts={**image.texts, text: chosen})


def tokenise(
    image: Scene, vocabulary: Vocabulary, length: Length, text: str = "caption", name: str = "tokens"
) -> Scene:
    """Replaces a text by tokens and a mask that is False where they are padding.

    Args:
      image: a scene with texts; the first of several is taken.
      vocabulary: the words that have a token.
      length: number of tokens, start, end and padding included.
      text: name of the text.
      name: name of the tokens; the mask is called `{name}_mask`.
    """
    tokens = encode((*_find(image, text), "")[0], vocabulary, length)
    texts = {key: value for key, value in image.texts.items() if key != text}
    return dataclasses.replace(image, texts=texts, tokens={**image.tokens, name: tokens, f"{name}_mask": tokens != PAD})


def _find(image: Scene, text: str) -> tuple[str, ...]:
    if not isinstance(image, Scene) or text not in image.texts:
        raise UserError(f"there is no text {text!r}: tokenise has put tokens in its place, or it was never there")
    return image.texts[text]
