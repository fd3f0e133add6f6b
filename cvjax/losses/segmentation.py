"""Losses of class maps: cross-entropy, focal, Dice and Lovász-softmax.

A pixel is void if its label is not one of 0, ..., classes - 1, as 255 in VOC. Void pixels have no loss and no gradient,
and a map of nothing else has the loss 0.

Focal: Lin et al., 2017 (arXiv:1708.02002). Dice: Milletari et al., V-Net, 2016 (arXiv:1606.04797). Lovász: Berman et
al., The Lovász-Softmax loss, 2018 (arXiv:1705.08790).
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cvjax.ops.precision import at_least_float32
from cvjax.signature import NonNegative

Logits = Float[Array, "*pixels classes"]
Labels = Int[Array, "*pixels"]


def split_void(labels: Labels, classes: int) -> tuple[Labels, Bool[Array, "*pixels"]]:
    """Returns labels with 0 in place of void, and a mask of the pixels that are not void."""
    known = (labels >= 0) & (labels < classes)
    return jnp.where(known, labels, 0), known


def cross_entropy(logits: Logits, labels: Labels) -> Float[Array, "*pixels"]:
    """Returns -log p of each pixel's true class in nats, 0 where void."""
    labels, known = split_void(labels, logits.shape[-1])
    return jnp.where(known, -_log_likelihood(logits, labels), 0)


def focal(logits: Logits, labels: Labels, gamma: float = 2.0) -> Float[Array, "*pixels"]:
    """Returns the focal loss of each pixel in nats, -(1 - p)^gamma log p with p of the true class; 0 where void.

    Value and gradient are exact at any logits and any gamma >= 0; gamma = 0 is the cross-entropy.
    """
    labels, known = split_void(labels, logits.shape[-1])
    logits = at_least_float32(logits)
    others = jnp.where(jax.nn.one_hot(labels, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    log_rest = jax.nn.logsumexp(others, axis=-1) - jax.nn.logsumexp(logits, axis=-1)  # log (1 - p)
    return jnp.where(known, -jnp.exp(gamma * log_rest) * _log_likelihood(logits, labels), 0)


def weighted_mean_loss(
    losses: Float[Array, "*pixels"],
    labels: Labels,
    classes: int,
    class_weights: Sequence[float] = (),
    pixel_weights: Float[Array, "*pixels"] | None = None,
) -> Float[Array, ""]:
    """Averages the losses of all pixels that are not void, as torch's `cross_entropy(weight, ignore_index)` does.

    Returns sum(weight * loss) / sum(weight), or 0 if no pixel has a weight.

    Args:
      class_weights: of the classes; (): all 1.
      pixel_weights: of the pixels, such as U-Net's border weights; None: all 1.
    """
    labels, known = split_void(labels, classes)
    losses = at_least_float32(losses)
    weights = known.astype(losses.dtype)
    if class_weights:
        weights *= jnp.asarray(class_weights, losses.dtype)[labels]
    if pixel_weights is not None:
        weights *= pixel_weights
    total = weights.sum()
    return (weights * losses).sum() / jnp.where(total > 0, total, 1)


def dice_loss(logits: Logits, labels: Labels, smooth: float = 0.0, epsilon: float = 1e-7) -> Float[Array, ""]:
    """Computes the soft Dice loss over all pixels of a batch, averaged over all classes.

    Returns the mean of 1 - (2 sum(p t) + smooth) / (sum(p + t) + smooth) over the classes; t is 1 for the true class,
    and `epsilon` the smallest denominator. A class without a pixel has no loss, but is averaged, as in
    segmentation_models_pytorch.
    """
    probabilities, true, _ = _flat(logits, labels)
    overlap, size = (probabilities * true).sum(0), (probabilities + true).sum(0)
    scores = (2 * overlap + smooth) / jnp.maximum(size + smooth, epsilon)
    return jnp.where(true.sum(0) > 0, 1 - scores, 0).mean()


def lovasz_softmax_loss(logits: Logits, labels: Labels) -> Float[Array, ""]:
    """Computes the Lovász-softmax loss over all pixels of a batch: a convex surrogate of 1 - mean IoU.

    Returns the mean over the classes that the labels have (section 3.1, "classes present"); 0 if they have none.
    """
    probabilities, true, known = _flat(logits, labels)
    errors = jnp.abs(true - probabilities)
    order = jnp.argsort(-jax.lax.stop_gradient(jnp.where(known[:, None], errors, -1)), axis=0)  # void comes last
    errors, hits = (jnp.take_along_axis(values, order, axis=0) for values in (errors, true))
    size = hits.sum(0)
    # Jaccard loss of the set of the first n pixels, n = 1, 2, ...; its differences are the gradient (algorithm 1).
    union = size + (1 - hits).cumsum(0)
    jaccard = 1 - (size - hits.cumsum(0)) / union
    weights = jnp.diff(jaccard, axis=0, prepend=0)
    present = size > 0
    losses = jnp.where(present, (errors * weights).sum(0), 0)
    return losses.sum() / jnp.maximum(present.sum(), 1)


@dataclasses.dataclass(frozen=True)
class MapLoss:
    """The loss of a segmenter as a weighted sum: `config.recipe.loss`.

    Attributes:
      cross_entropy, focal, dice, lovasz: weights of the parts.
      gamma: of the focal loss.
      class_weights: of the classes in the cross-entropy and the focal loss; (): all 1.
    """

    cross_entropy: NonNegative = 1.0
    focal: NonNegative = 0.0
    dice: NonNegative = 0.0
    lovasz: NonNegative = 0.0
    gamma: NonNegative = 2.0
    class_weights: tuple[NonNegative, ...] = ()


def parts(
    logits: Logits, labels: Labels, loss: MapLoss, pixel_weights: Float[Array, "*pixels"] | None = None
) -> dict[str, Float[Array, ""]]:
    """Returns {name: weighted part} of the parts of a loss that have a weight; the loss is their sum."""
    classes = logits.shape[-1]
    pixels = {"cross_entropy": cross_entropy, "focal": lambda *both: focal(*both, loss.gamma)}
    regions = {"dice": dice_loss, "lovasz": lovasz_softmax_loss}
    found = {}
    for name, function in {**pixels, **regions}.items():
        weight = getattr(loss, name)
        if not weight:
            continue
        value = function(logits, labels)
        if name in pixels:
            value = weighted_mean_loss(value, labels, classes, loss.class_weights, pixel_weights)
        found[name] = weight * value
    return found


def _log_likelihood(logits: Logits, labels: Labels) -> Float[Array, "*pixels"]:
    log_probabilities = jax.nn.log_softmax(at_least_float32(logits))
    return jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]


def _flat(
    logits: Logits, labels: Labels
) -> tuple[Float[Array, "all classes"], Float[Array, "all classes"], Bool[Array, " all"]]:
    """Returns probabilities and one-hot labels of all pixels, both 0 where void, and the mask of known pixels."""
    classes = logits.shape[-1]
    labels, known = (flat.reshape(-1) for flat in split_void(labels, classes))
    probabilities = jax.nn.softmax(at_least_float32(logits).reshape(-1, classes))
    true = jax.nn.one_hot(labels, classes, dtype=probabilities.dtype)
    return known[:, None] * probabilities, known[:, None] * true, known
