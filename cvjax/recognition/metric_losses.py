"""Losses of embeddings, and the choice of pairs and triplets in a batch with several pictures of a class.

Contrastive: Hadsell, Chopra & LeCun, Dimensionality Reduction by Learning an Invariant Mapping, 2006. Triplets:
Schroff, Kalenichenko & Philbin, FaceNet, 2015 (arXiv:1503.03832). Batch-hard and the soft margin: Hermans, Beyer &
Leibe, In Defense of the Triplet Loss, 2017 (arXiv:1703.07737). ArcFace: Deng, Guo, Xue & Zafeiriou, 2019
(arXiv:1801.07698). Supervised contrastive: Khosla et al., 2020 (arXiv:2004.11362).

Everything is pure, of fixed shapes, and computed in float32; gradients are finite for identical pictures too.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from cvjax.ops.precision import at_least_float32

Embeddings = Float[Array, "batch features"]
Labels = Integer[Array, " batch"]
Scalar = Float[Array, ""]
Choice = Literal["batch_hard", "semi_hard", "hardest", "random"]
Average = Literal["all", "active"]
TINY = 1e-12  # a square below which a length counts as 0


class Pairs(NamedTuple):
    """Pairs of rows of a batch, whether they are of one class, and which pairs there are."""

    left: Int[Array, " pairs"]
    right: Int[Array, " pairs"]
    same: Bool[Array, " pairs"]
    there: Bool[Array, " pairs"]


class Triplets(NamedTuple):
    """For each row of a batch, the anchor: the rows of its triplets' positives and negatives, and which count."""

    positive: Int[Array, "batch triplets"]
    negative: Int[Array, "batch triplets"]
    chosen: Bool[Array, "batch triplets"]


# --- distances ----------------------------------------------------------------------------------------------------


def unit(vectors: Float[Array, "*rows features"]) -> Float[Array, "*rows features"]:
    """Returns vectors divided by their lengths; a vector of zeros stays one."""
    vectors = at_least_float32(vectors)
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.square(vectors).sum(axis=-1, keepdims=True), TINY))


def root(squares: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns square roots, whose gradient at 0 is 0 and not infinite."""
    above = squares > TINY
    return jnp.where(above, jnp.sqrt(jnp.where(above, squares, 1.0)), 0.0)


def squared_distances(
    left: Float[Array, "rows features"], right: Float[Array, "columns features"]
) -> Float[Array, "rows columns"]:
    """Returns the squared Euclidean distances of all rows to all others, by one product of matrices.

    Rounding leaves an error of about 1e-7 times the squared lengths; no distance is negative.
    """
    left, right = at_least_float32(left), at_least_float32(right)
    products = jnp.matmul(left, right.T, precision="highest")
    squares = jnp.square(left).sum(axis=1)[:, None] + jnp.square(right).sum(axis=1) - 2 * products
    return jnp.maximum(squares, 0.0)


def chosen_distances(embeddings: Embeddings, others: Int[Array, "batch n"]) -> Float[Array, "batch n"]:
    """Returns the squared distances of each row to the rows that `others` has for it."""
    if others.shape[1] > 1:
        return jnp.take_along_axis(squared_distances(embeddings, embeddings), others, axis=1)
    # For one each the gradient then takes no product of matrices.
    embeddings = at_least_float32(embeddings)
    return jnp.square(embeddings - embeddings[others[:, 0]]).sum(axis=1, keepdims=True)


# --- the choice of pairs and triplets -----------------------------------------------------------------------------


def masks(labels: Labels) -> tuple[Bool[Array, "batch batch"], Bool[Array, "batch batch"]]:
    """Returns, for each row as an anchor, which rows are positives, of its class but not itself, and negatives."""
    same = labels[:, None] == labels
    return same & ~jnp.eye(len(labels), dtype=bool), ~same


def draw(key: Key[Array, ""], allowed: Bool[Array, "batch n"], count: int = 1) -> Int[Array, "batch count"]:
    """Returns columns drawn from those that each row allows, all as probable; any column if it allows none."""
    order = jnp.argsort(~allowed, axis=1, stable=True)  # those allowed come first
    size = allowed.sum(axis=1, keepdims=True)
    place = jnp.floor(jax.random.uniform(key, (len(allowed), count)) * size).astype(jnp.int32)
    return jnp.take_along_axis(order, jnp.clip(place, 0, jnp.maximum(size - 1, 0)), axis=1)


def balanced_pairs(key: Key[Array, ""], labels: Labels) -> Pairs:
    """Returns for each row a pair with one of its class and one with another class, drawn at random.

    A row that is alone in its class, or whose class is alone in the batch, has no such pair.
    """
    positives, negatives = masks(labels)
    one, other = jax.random.split(key)
    right = jnp.concatenate([draw(one, positives)[:, 0], draw(other, negatives)[:, 0]])
    there = jnp.concatenate([positives.any(axis=1), negatives.any(axis=1)])
    return Pairs(jnp.tile(jnp.arange(len(labels)), 2), right, jnp.arange(len(right)) < len(labels), there)


def choose_triplets(
    key: Key[Array, ""],
    embeddings: Embeddings,
    labels: Labels,
    choice: Choice,
    margin: float = 0.2,
    squared: bool = True,
) -> Triplets:
    """Chooses the triplets of a batch, by distances that are `squared` or not, which is the margin's unit.

    Returns for "batch_hard" one of each anchor: its furthest positive with its nearest negative (Hermans et al.,
    equation 5). The others have every positive of the anchor: with the anchor's nearest negative for "hardest", with
    any negative for "random", and for "semi_hard" with the nearest of the negatives that are further than the positive,
    which counts if it is so by less than the margin (FaceNet, equation 4). No gradient flows through the choice.
    """
    positives, negatives = masks(labels)
    distances = jax.lax.stop_gradient(squared_distances(embeddings, embeddings))
    distances = distances if squared else root(distances)
    to_negatives = jnp.where(negatives, distances, jnp.inf)
    if choice == "batch_hard":
        furthest = _first_best(jnp.where(positives, -distances, jnp.inf))
        chosen = positives.any(axis=1) & negatives.any(axis=1)
        return Triplets(furthest[:, None], _first_best(to_negatives)[:, None], chosen[:, None])
    count = len(labels)
    all_rows = jnp.broadcast_to(jnp.arange(count), (count, count))
    chosen = positives & negatives.any(axis=1, keepdims=True)
    if choice == "random":
        return Triplets(all_rows, draw(key, negatives, count), chosen)
    if choice == "hardest":
        return Triplets(all_rows, jnp.broadcast_to(_first_best(to_negatives)[:, None], (count, count)), chosen)
    order = jnp.argsort(to_negatives, axis=1)
    ordered = jnp.take_along_axis(to_negatives, order, axis=1)
    place = jax.vmap(lambda row, values: jnp.searchsorted(row, values, side="right"))(ordered, distances)
    place = jnp.minimum(place, count - 1)  # where no negative is further, at none: its cost is infinite
    there = jnp.take_along_axis(ordered, place, axis=1)
    return Triplets(all_rows, jnp.take_along_axis(order, place, axis=1), chosen & (there < distances + margin))


def _first_best(costs: Float[Array, "batch n"]) -> Int[Array, " batch"]:
    """The first column of least cost; as two plain reductions, which take less time on CPU than `argmin`."""
    columns = jnp.arange(costs.shape[1])
    least = costs.min(axis=1, keepdims=True)
    return jnp.where(costs == least, columns, costs.shape[1] - 1).min(axis=1)


# --- losses -------------------------------------------------------------------------------------------------------


def contrastive(
    distances: Float[Array, " pairs"], same: Bool[Array, " pairs"], margin: float = 1.0
) -> Float[Array, " pairs"]:
    """Returns each pair's loss, half of d^2 for one class and of max(0, margin - d)^2 for two (equation 4).

    Distances are Euclidean, not squared. pytorch-metric-learning's loss has neither the half nor the squares.
    """
    distances = at_least_float32(distances)
    return 0.5 * jnp.square(jnp.where(same, distances, jax.nn.relu(margin - distances)))


def triplet_loss(
    positive: Float[Array, "*triplets"],
    negative: Float[Array, "*triplets"],
    chosen: Bool[Array, "*triplets"],
    margin: float = 0.2,
    soft: bool = False,
    average: Average = "all",
) -> Scalar:
    """Returns the mean of max(0, positive - negative + margin) over the chosen triplets, 0 if there are none.

    Args:
      positive, negative: distances of the anchors, squared in FaceNet.
      margin: if `soft`, log(1 + exp(positive - negative)) takes its place, which is never 0.
      average: "all": over all chosen triplets; "active": over those whose loss is not 0, as in pytorch-metric-learning.
    """
    gap = at_least_float32(positive) - at_least_float32(negative)
    losses = jax.nn.softplus(gap) if soft else jax.nn.relu(gap + margin)
    losses = jnp.where(chosen, losses, 0.0)
    counted = chosen if average == "all" else losses > 0
    return losses.sum() / jnp.maximum(counted.sum(), 1)


def arcface_logits(
    cosines: Float[Array, "batch classes"],
    labels: Labels,
    margin: float = 0.5,
    scale: float = 64.0,
    easy_margin: bool = False,
) -> Float[Array, "batch classes"]:
    """Returns scale * cos(angle), to whose angle at the true class the margin, in radians, is added (equation 3).

    Past pi the cosine of the sum would rise again. Where the sum would be, the logit is cos(angle) - margin *
    sin(margin), as in the authors' code and in pytorch-metric-learning; with `easy_margin`, the margin is added only
    to angles below pi / 2.
    """
    cosines = jnp.clip(at_least_float32(cosines), -1.0, 1.0)
    true = jnp.take_along_axis(cosines, labels[:, None], axis=1)
    moved = true * math.cos(margin) - root(1 - jnp.square(true)) * math.sin(margin)
    if easy_margin:
        moved = jnp.where(true > 0, moved, true)
    else:
        moved = jnp.where(true >= -math.cos(margin), moved, true - margin * math.sin(margin))
    return scale * jnp.where(jnp.arange(cosines.shape[1]) == labels[:, None], moved, cosines)


def supervised_contrastive_loss(embeddings: Embeddings, labels: Labels, temperature: float = 0.1) -> Scalar:
    """Returns L_out of equation 2, averaged over the anchors that have a positive, 0 if there are none.

    `embeddings` are unit vectors. An anchor's loss is the mean over its positives of the cross-entropy, in nats, of
    finding this one among all other rows of the batch by their cosines divided by the temperature.
    """
    embeddings = at_least_float32(embeddings)
    positives, _ = masks(labels)
    logits = jnp.matmul(embeddings, embeddings.T, precision="highest") / temperature
    others = ~jnp.eye(len(labels), dtype=bool)
    log_shares = logits - jax.nn.logsumexp(logits, axis=1, keepdims=True, where=others)
    count = positives.sum(axis=1)
    losses = -jnp.where(positives, log_shares, 0.0).sum(axis=1) / jnp.maximum(count, 1)
    return losses.sum() / jnp.maximum((count > 0).sum(), 1)
