"""The distance of pixels: are two pictures of one person if they look the same? Nothing is learnt.

The baseline of face verification before features: Huang et al., Labeled Faces in the Wild, 2007, reports such ones.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import flax.linen as nn
import jax
from jaxtyping import Array, Float, Key

from cvjax.core import Batch, Pictures, Recipe, State, check_images, start
from cvjax.recognition import unseen
from cvjax.recognition.embedding import Images, draw
from cvjax.signature import Count


class Pixels(nn.Module):
    """The pixels of an image in one row, in the place of an embedding."""

    def __call__(self, images: Images) -> Float[Array, "batch pixels"]:
        """Returns pixels, in [0, 1]."""
        return images.reshape(len(images), -1)


@dataclasses.dataclass(frozen=True)
class PixelDistance:
    """A system without a network, whose embeddings are pixels; the attribute is `recipe`'s."""

    shape: tuple[int, int, int]
    net: Pixels
    train_step = None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The pixels."""
        return {"embedder": self.net}

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Makes a state without anything to learn."""
        check_images(batch, self.shape)
        return start({}, {})

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch pixels"]]:
        """Returns the pixels as embeddings."""
        return {"embedding": self.net.apply({}, batch["image"])}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `cvjax.recognition.unseen`."""
        labels, outputs = unseen.columns(rows)
        return unseen.figures(outputs["embedding"], labels)

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws the pictures of `cvjax.recognition.unseen`, of one batch."""
        return draw(key, self, state, batch)

    @functools.partial(jax.jit, static_argnums=0)
    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch pixels"]]:
        """Returns the pixels as embeddings."""
        return self.eval_step(state, inputs, key)


def recipe(shape: tuple[Count, Count, Count]) -> Recipe:
    """Makes the distance of pixels, to compare embeddings with; set `steps=0`.

    Args:
      shape: height, width, channels of the images.

    Returns:
      The recipe. Its figures are those of `cvjax.recognition.unseen.figures`.
    """
    return Recipe.of(PixelDistance(tuple(shape), Pixels()))
