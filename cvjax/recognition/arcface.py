"""ArcFace: Deng, Guo, Xue & Zafeiriou, Additive Angular Margin Loss for Deep Face Recognition, 2019 (arXiv:1801.07698).

A softmax over the people of training, whose logits are cosines between embeddings and one direction a person. A margin
is added to the angle of the right one. The directions are thrown away; what is kept embeds anybody.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from cvjax import optim
from cvjax.core import Metrics, Params, Recipe, count_classes
from cvjax.recognition.classifier import cross_entropy
from cvjax.recognition.embedding import BACKBONE, OPTIMISER, Backbone, EmbeddingSystem, make_embedder
from cvjax.recognition.metric_losses import Embeddings, Labels, arcface_logits, unit
from cvjax.signature import Count, Positive, Range, Share


class Directions(nn.Module):
    """A direction for each class, and the cosines of embeddings to them, in float32 at any precision."""

    classes: int

    @nn.compact
    def __call__(self, embeddings: Embeddings) -> Float[Array, "batch classes"]:
        """Returns cosines."""
        shape = (self.classes, embeddings.shape[-1])
        directions = unit(self.param("kernel", nn.initializers.normal(0.01), shape, jnp.float32))
        return jnp.matmul(embeddings, directions.T, precision="highest")


@dataclasses.dataclass(frozen=True)
class ArcFace(EmbeddingSystem):
    """An embedder that learns by a softmax over angles; the attributes are made of `recipe`'s arguments."""

    margin: float
    scale: float
    easy_margin: bool
    balanced = False  # a class is compared with directions, so one picture of it will do

    def loss(
        self, key: Key[Array, ""], step: Int[Array, ""], params: Params, embeddings: Embeddings, labels: Labels
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the mean cross-entropy, and the accuracy without the margin."""
        cosines = self.head.apply({"params": params["head"]}, embeddings)
        logits = arcface_logits(cosines, labels, self.margin, self.scale, self.easy_margin)
        return cross_entropy(logits, labels).mean(), {"top1": (cosines.argmax(axis=-1) == labels).mean()}


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    margin: Annotated[float, Range(0, 1.5)] = 0.5,
    scale: Positive = 64.0,
    easy_margin: bool = False,
    backbone: Backbone = BACKBONE,
    ema: Share = 0.0,
    flip_test: bool = False,
    optimiser: Mapping[str, Any] = OPTIMISER,
) -> Recipe:
    """Makes an embedder that learns by ArcFace.

    Args:
      shape: height, width, channels of the images.
      classes: number of people, or their names.
      margin: angle in radians that is added to that of the right person.
      scale: of the logits, which are cosines times this.
      easy_margin: add the margin only to angles below a right angle.
      backbone: the network; a group of keys.
      ema: share of the averaged network, the one that is judged, that each step keeps; 0: none.
      flip_test: judge and embed by the direction of the sum of an image's embedding and its mirror image's.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `cvjax.recognition.unseen.figures`.

    Raises:
      UserError: not one to four strides.
    """
    head = Directions(count_classes(classes))
    attributes = make_embedder(backbone), tuple(shape), ema, flip_test, optim.build(optimiser), head
    return Recipe.of(ArcFace(*attributes, margin, scale, easy_margin))
