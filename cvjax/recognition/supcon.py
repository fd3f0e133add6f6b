"""Supervised contrastive learning: Khosla et al., 2020 (arXiv:2004.11362), with the loss L_out.

Every other picture of the batch that is of the anchor's person should be found among all others. The two views that
the paper makes of a picture are here the several pictures of a person in a batch, transformed as `data.transforms` say.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, Int, Key

from cvjax import optim
from cvjax.core import Metrics, Params, Recipe
from cvjax.recognition.embedding import BACKBONE, OPTIMISER, Backbone, EmbeddingSystem, make_embedder
from cvjax.recognition.metric_losses import Embeddings, Labels, supervised_contrastive_loss, unit
from cvjax.signature import Count, Natural, Positive, Share


class Projection(nn.Module):
    """A hidden layer and 128 outputs on a unit sphere (section 3.1); used by the loss alone."""

    hidden: int
    size: int = 128

    @nn.compact
    def __call__(self, embeddings: Embeddings) -> Float[Array, "batch size"]:
        """Returns unit vectors."""
        return unit(nn.Dense(self.size, name="output")(nn.relu(nn.Dense(self.hidden, name="hidden")(embeddings))))


@dataclasses.dataclass(frozen=True)
class SupCon(EmbeddingSystem):
    """An embedder that learns by contrast with the batch; the attributes are made of `recipe`'s arguments."""

    temperature: float

    def loss(
        self, key: Key[Array, ""], step: Int[Array, ""], params: Params, embeddings: Embeddings, labels: Labels
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the mean loss of the anchors."""
        if self.head is not None:
            embeddings = self.head.apply({"params": params["head"]}, embeddings)
        return supervised_contrastive_loss(embeddings, labels, self.temperature), {}


def recipe(
    shape: tuple[Count, Count, Count],
    temperature: Positive = 0.1,
    projection: Natural = 2048,
    backbone: Backbone = BACKBONE,
    ema: Share = 0.0,
    flip_test: bool = False,
    optimiser: Mapping[str, Any] = OPTIMISER,
) -> Recipe:
    """Makes an embedder that learns by supervised contrast, in batches with `data.per_class` pictures of a person.

    Args:
      shape: height, width, channels of the images.
      temperature: by which cosines are divided.
      projection: hidden units between the embedding and what the loss sees; 0: it sees the embedding.
      backbone: the network; a group of keys.
      ema: share of the averaged network, the one that is judged, that each step keeps; 0: none.
      flip_test: judge and embed by the direction of the sum of an image's embedding and its mirror image's.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `cvjax.recognition.unseen.figures`.

    Raises:
      UserError: not one to four strides.
    """
    head = Projection(projection) if projection else None
    attributes = make_embedder(backbone), tuple(shape), ema, flip_test, optim.build(optimiser), head
    return Recipe.of(SupCon(*attributes, temperature))
