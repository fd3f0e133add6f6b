"""Siamese networks: one embedder for both pictures of a pair, and the question whether they are of one person.

"logistic": a logistic unit on the absolute differences of the embeddings, as in Taigman et al., DeepFace, 2014, and
Koch, Zemel & Salakhutdinov, Siamese Neural Networks for One-shot Image Recognition, 2015. "contrastive": Hadsell,
Chopra & LeCun, Dimensionality Reduction by Learning an Invariant Mapping, 2006.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from cvjax import optim
from cvjax.core import Batch, Metrics, Params, Recipe, State, variables
from cvjax.metrics import verification
from cvjax.recognition import unseen
from cvjax.recognition.embedding import BACKBONE, OPTIMISER, Backbone, EmbeddingSystem, make_embedder
from cvjax.recognition.metric_losses import Embeddings, Labels, balanced_pairs, contrastive, root
from cvjax.signature import Count, Positive, Share


class LogisticHead(nn.Module):
    """The logit of "one person" from |f(a) - f(b)|, the absolute differences of two embeddings."""

    @nn.compact
    def __call__(self, gaps: Float[Array, "pairs features"]) -> Float[Array, " pairs"]:
        """Returns logits, at first half the expected differences of unrelated unit vectors less the differences.

        A bias that begins at 0 takes a thousand steps to get there, in which all pairs seem to be of two people.
        """
        bias = nn.initializers.constant(math.sqrt(gaps.shape[1] / math.pi))  # each differs by 2 / sqrt(pi features)
        return nn.Dense(1, kernel_init=nn.initializers.constant(-1.0), bias_init=bias, name="logit")(gaps)[:, 0]


@dataclasses.dataclass(frozen=True)
class Siamese(EmbeddingSystem):
    """An embedder that learns by pairs; the attributes are made of `recipe`'s arguments."""

    margin: float

    def loss(
        self, key: Key[Array, ""], step: Int[Array, ""], params: Params, embeddings: Embeddings, labels: Labels
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the mean loss of as many pairs of one person as of two, and the share that is decided right."""
        pairs = balanced_pairs(key, labels)
        gaps = embeddings[pairs.left] - embeddings[pairs.right]
        if self.head is None:
            distances = root(jnp.square(gaps).sum(axis=1))
            losses, guess = contrastive(distances, pairs.same, self.margin), distances < self.margin / 2
        else:
            logits = self.head.apply({"params": params["head"]}, jnp.abs(gaps)).astype(jnp.float32)
            losses, guess = optax.sigmoid_binary_cross_entropy(logits, pairs.same), logits > 0
        return _mean(losses, pairs.there), {"right": _mean(guess == pairs.same, pairs.there)}

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> dict[str, Float[Array, "batch ..."]]:
        """Embeds the images; with each row comes the head, for `score` has no state."""
        found = super().eval_step(state, batch, key)
        if self.head is None:
            return found
        head = variables(state, "head")["params"]["logit"]
        numbers = jnp.append(head["kernel"][:, 0], head["bias"])
        return found | {"head": jnp.broadcast_to(numbers, (len(batch["image"]), len(numbers)))}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `recipe`."""
        labels, outputs = unseen.columns(rows)
        found = unseen.figures(outputs["embedding"], labels)
        if self.head is None or "verification" not in found:
            return found
        pairs = verification.draw_pairs(labels)
        logits = logits_of(outputs["head"][0], *(outputs["embedding"][side] for side in (pairs.left, pairs.right)))
        folded = verification.ten_fold_accuracy(-logits, pairs.same, pairs.fold)
        by_distance = {"verification_by_distance": found["verification"]}
        return found | by_distance | {"verification": folded.mean, "verification_error": folded.standard_error}


def logits_of(
    head: Float[np.ndarray, " numbers"],
    left: Float[np.ndarray, "pairs features"],
    right: Float[np.ndarray, "pairs features"],
) -> Float[np.ndarray, " pairs"]:
    """Returns the logits of a head, its weights and then its bias, for pairs of embeddings."""
    return np.abs(left - right).astype(np.float64) @ head[:-1] + head[-1]


def _mean(values: Float[Array, " pairs"] | Bool[Array, " pairs"], there: Bool[Array, " pairs"]) -> Float[Array, ""]:
    return jnp.where(there, values, 0).sum() / jnp.maximum(there.sum(), 1)


def recipe(
    shape: tuple[Count, Count, Count],
    loss: Literal["logistic", "contrastive"] = "logistic",
    margin: Positive = 1.0,
    backbone: Backbone = BACKBONE,
    ema: Share = 0.0,
    flip_test: bool = False,
    optimiser: Mapping[str, Any] = OPTIMISER,
) -> Recipe:
    """Makes a siamese network, on pairs that are drawn in a batch with `data.per_class` pictures of a person.

    Args:
      shape: height, width, channels of the images.
      loss: "logistic": cross-entropy of a logistic unit on |f(a) - f(b)|; "contrastive": squared distances for one
        person, and squares of what lacks to the margin for two.
      margin: the distance from which on "contrastive" leaves two people alone; of unit vectors it is 2 at most.
      backbone: the network; a group of keys.
      ema: share of the averaged network, the one that is judged, that each step keeps; 0: none.
      flip_test: judge and embed by the direction of the sum of an image's embedding and its mirror image's.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `cvjax.recognition.unseen.figures`. With the logistic unit, `verification`
      and `verification_error` are by its logits, and `verification_by_distance` by Euclidean distances, as the others.

    Raises:
      UserError: not one to four strides.
    """
    head = LogisticHead() if loss == "logistic" else None
    attributes = make_embedder(backbone), tuple(shape), ema, flip_test, optim.build(optimiser), head
    return Recipe.of(Siamese(*attributes, margin))
