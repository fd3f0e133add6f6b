"""Losses of dense detectors: Lin et al., Focal Loss for Dense Object Detection, 2017 (arXiv:1708.02002)."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from cvjax.ops.precision import at_least_float32


def sigmoid_focal(
    logits: Float[Array, "*shape"], labels: Bool[Array, "*shape"], gamma: float = 2.0, alpha: float | None = 0.25
) -> Float[Array, "*shape"]:
    """Returns the focal loss of each decision in nats, -alpha_t (1 - p_t)^gamma log p_t (equation 5).

    Value and gradient are exact at any logit and any gamma >= 0. `optax.sigmoid_focal_loss` agrees; it takes labels
    between 0 and 1 too, and five times as long.

    Args:
      gamma: how much less what is right already counts; 0 is the cross-entropy.
      alpha: weight of positives; that of negatives is 1 - alpha. None: both are 1.
    """
    logits = at_least_float32(logits)
    margins = jnp.where(labels, logits, -logits)
    cross_entropies = jax.nn.softplus(-margins)  # -log p_t; and log (1 - p_t) is -(margin - log p_t)
    losses = jnp.exp(-gamma * (margins + cross_entropies)) * cross_entropies
    return losses if alpha is None else jnp.where(labels, alpha, 1 - alpha) * losses


def smooth_l1(
    predictions: Float[Array, "*shape"], targets: Float[Array, "*shape"], beta: float = 1.0
) -> Float[Array, "*shape"]:
    """Returns the smooth L1 loss of each number: Girshick, Fast R-CNN, 2015 (arXiv:1504.08083, equation 3).

    An error e below beta counts e^2 / (2 beta), one above it |e| - beta / 2; with beta = 0 it is L1.
    """
    predictions, targets = at_least_float32(predictions), at_least_float32(targets)
    if beta == 0:
        return jnp.abs(predictions - targets)
    return optax.huber_loss(predictions, targets, delta=beta) / beta
