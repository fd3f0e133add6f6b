"""DeepFool: Moosavi-Dezfooli, Fawzi & Frossard, DeepFool: A Simple and Accurate Method to Fool Deep Neural Networks.

CVPR 2016 (arXiv:1511.04599), algorithm 2. A classifier is taken for linear, and images move to the nearest boundary of
their class until they have crossed one.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Integer

from cvjax.attacks.attack import Images, Labels, LogitsFn, fooled
from cvjax.attacks.projection import norms


def deepfool(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    steps: int = 50,
    candidates: int = 10,
    overshoot: float = 0.02,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Images:
    """Returns images, each moved across the nearest boundary of its class, in [lower, upper].

    Images that are of another class than their label already stay as they are. Some may not have crossed a boundary
    after the last step.

    Args:
      labels: the classes to leave, usually those that the classifier sees.
      candidates: the boundaries to the most probable other classes; the gradient of each is computed.
      overshoot: share of the way added to it, to end beyond the boundary.
    """
    logits = logits_fn(images)
    others = jnp.where(jax.nn.one_hot(labels, logits.shape[-1], dtype=bool), -jnp.inf, logits)
    _, rivals = jax.lax.top_k(others, min(candidates, logits.shape[-1] - 1))

    def away(logits):
        return fooled(logits, labels, targeted=False)

    def unfinished(held):
        _, step, done, _ = held
        return (step < steps) & ~done.all()

    def move(held):
        total, step, done, moved = held
        total = total + jnp.where(done.reshape(-1, 1, 1, 1), 0, _to_boundary(logits_fn, moved, labels, rivals))
        moved = jnp.where(done.reshape(-1, 1, 1, 1), moved, jnp.clip(images + (1 + overshoot) * total, lower, upper))
        return total, step + 1, done | away(logits_fn(moved)), moved

    begin = (jnp.zeros_like(images), 0, away(logits), images)
    return jax.lax.while_loop(unfinished, move, begin)[-1]


def _to_boundary(
    logits_fn: LogitsFn, images: Images, labels: Labels, rivals: Integer[Array, "batch candidates"]
) -> Images:
    """The shortest way to the boundary between the label and a rival of a linear classifier (equation 10)."""
    logits, pull_back = jax.vjp(logits_fn, images)
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    behind = own - jnp.take_along_axis(logits, rivals, axis=-1)  # positive until the boundary

    def normal(rival: Integer[Array, " batch"]) -> Images:
        ahead = jax.nn.one_hot(rival, logits.shape[-1]) - jax.nn.one_hot(labels, logits.shape[-1])
        return pull_back(ahead.astype(logits.dtype))[0]

    normals = jax.lax.map(normal, rivals.T)
    lengths = jax.vmap(norms)(normals)[..., 0, 0, 0]
    distances = jnp.abs(behind.T) / jnp.maximum(lengths, 1e-8)
    nearest = distances.argmin(axis=0)
    rows = jnp.arange(len(images))
    scale = distances[nearest, rows] / jnp.maximum(lengths[nearest, rows], 1e-8)
    return scale.reshape(-1, 1, 1, 1) * normals[nearest, rows]
