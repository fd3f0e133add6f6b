"""Embeddings by triplets: Schroff, Kalenichenko & Philbin, FaceNet, 2015 (arXiv:1503.03832).

An anchor should be nearer to every picture of its person than to any of another, by a margin. Which triplets of a batch
count is the choice that decides how well it learns: `cvjax.recognition.metric_losses.choose_triplets`. By default it is
batch-hard: Hermans, Beyer & Leibe, In Defense of the Triplet Loss, 2017 (arXiv:1703.07737).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from cvjax import optim
from cvjax.core import Metrics, Params, Recipe
from cvjax.recognition.embedding import BACKBONE, OPTIMISER, Backbone, EmbeddingSystem, make_embedder
from cvjax.recognition.metric_losses import (
    Average,
    Choice,
    Embeddings,
    Labels,
    choose_triplets,
    chosen_distances,
    root,
    triplet_loss,
)
from cvjax.signature import Count, Natural, NonNegative, Share


@dataclasses.dataclass(frozen=True)
class Triplet(EmbeddingSystem):
    """An embedder that learns by triplets; the attributes are made of `recipe`'s arguments."""

    choice: Choice
    margin: float
    soft_margin: bool
    squared: bool
    average: Average
    easy_steps: int

    def loss(
        self, key: Key[Array, ""], step: Int[Array, ""], params: Params, embeddings: Embeddings, labels: Labels
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the mean loss of the chosen triplets; `active`, the share of them within the margin; distances."""

        def by(choice):
            return lambda embeddings: self.loss_of(key, choice, embeddings, labels)

        if not self.easy_steps:
            return by(self.choice)(embeddings)
        return jax.lax.cond(step < self.easy_steps, by("semi_hard"), by(self.choice), embeddings)

    def loss_of(
        self, key: Key[Array, ""], choice: Choice, embeddings: Embeddings, labels: Labels
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss and the metrics of one choice of triplets."""
        chosen = choose_triplets(key, embeddings, labels, choice, self.margin, self.squared)
        positive, negative = (chosen_distances(embeddings, each) for each in (chosen.positive, chosen.negative))
        if not self.squared:
            positive, negative = root(positive), root(negative)
        loss = triplet_loss(positive, negative, chosen.chosen, self.margin, self.soft_margin, self.average)
        count = jnp.maximum(chosen.chosen.sum(), 1)
        means = {"active": positive - negative + self.margin > 0, "distance/one": positive, "distance/two": negative}
        metrics = {name: jnp.where(chosen.chosen, each, 0).sum() / count for name, each in means.items()}
        return loss, metrics | {"triplets": chosen.chosen.sum().astype(jnp.float32)}


def recipe(
    shape: tuple[Count, Count, Count],
    choice: Choice = "batch_hard",
    margin: NonNegative = 0.2,
    soft_margin: bool = False,
    squared: bool = True,
    average: Average = "all",
    easy_steps: Natural = 0,
    backbone: Backbone = BACKBONE,
    ema: Share = 0.0,
    flip_test: bool = False,
    optimiser: Mapping[str, Any] = OPTIMISER,
) -> Recipe:
    """Makes an embedder that learns by triplets; `data.per_class` says how many pictures of a person a batch has.

    Args:
      shape: height, width, channels of the images.
      choice: the triplets of a batch: of each anchor "batch_hard" has its furthest positive with its nearest negative,
        and the others have all positives: "hardest" with the nearest negative, "semi_hard" with the nearest that is
        further than the positive by less than the margin, and "random" with any.
      margin: by which a negative should be further than a positive, in units of the distance.
      soft_margin: log(1 + exp(positive - negative)) takes the margin's place.
      squared: compare squared distances, as in FaceNet, or the distances themselves, as Hermans et al. advise.
      average: the mean is over "all" chosen triplets, or over those that are "active", whose loss is not 0.
      easy_steps: steps at the beginning whose triplets are semi-hard, whatever the choice: from a network that knows
        nothing, the hardest ones often lead to one answer for everything (FaceNet, section 3.2).
      backbone: the network; a group of keys.
      ema: share of the averaged network, the one that is judged, that each step keeps; 0: none.
      flip_test: judge and embed by the direction of the sum of an image's embedding and its mirror image's.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `cvjax.recognition.unseen.figures`.

    Raises:
      UserError: not one to four strides.
    """
    attributes = make_embedder(backbone), tuple(shape), ema, flip_test, optim.build(optimiser), None
    return Recipe.of(Triplet(*attributes, choice, margin, soft_margin, squared, average, easy_steps))
