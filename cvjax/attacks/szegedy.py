"""Minimal targeted perturbations: Szegedy et al., Intriguing Properties of Neural Networks, 2014.

arXiv:1312.6199, section 4.1: the smallest change r for which a classifier sees a chosen class, by box-constrained
L-BFGS. Beside it the plain iteration that lectures show: follow the gradient until the class is reached.
"""

import jax
import jax.numpy as jnp
import optax

from cvjax.attacks import box_lbfgs
from cvjax.attacks.attack import Images, Labels, LogitsFn, fooled
from cvjax.attacks.projection import unit

FIRST = 0.1  # weight of the loss, beside the squared length of the change


def szegedy(
    logits_fn: LogitsFn,
    images: Images,
    targets: Labels,
    steps: int = 40,
    search_steps: int = 10,
    memory: int = 10,
    confidence: float = 1e-3,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Images:
    """Returns the nearest images found that are of the target classes, in [lower, upper].

    It minimises c |r|^2 + cross-entropy(images + r, targets) over the box and searches for the largest c, for each
    image, whose minimum is of the target. The paper has c |r| and the least c: its norm has no gradient at r = 0, where
    L-BFGS begins, and a larger c, not a smaller one, has a minimum nearer to the image. Images for which none is found
    are returned as they are.

    Args:
      steps: of L-BFGS, for each c.
      search_steps: values of c that are tried: ten times smaller until one succeeds, then by bisection.
      memory: steps whose curvature L-BFGS keeps.
      confidence: by how much the target should lead in logits; at 0, rounding decides.
    """
    shape, flat = images.shape, images.reshape(len(images), -1)

    def search(held, _):
        best, nearest, low, high, weights = held

        def objective(points):
            loss = optax.softmax_cross_entropy_with_integer_labels(logits_fn(points.reshape(shape)), targets)
            values = jnp.square(points - flat).sum(axis=-1) + weights * loss
            return values.sum(), values

        def valued(points):
            gradients, values = jax.grad(objective, has_aux=True)(points)
            return values, gradients

        # A minimum of a larger weight is nearer to that of the next one than the image is.
        points, _ = box_lbfgs.minimise(valued, best, lower, upper, steps, memory)
        reached = fooled(logits_fn(points.reshape(shape)), targets, True, confidence)
        distances = jnp.square(points - flat).sum(axis=-1)
        better = reached & (distances < nearest)
        low, high = jnp.where(reached, low, weights), jnp.where(reached, weights, high)
        middle = jnp.where(low > 0, jnp.sqrt(low * high), high / 10)
        weights = jnp.where(jnp.isinf(high), 10 * weights, middle)
        best = jnp.where(better[:, None], points, best)
        return (best, jnp.where(better, distances, nearest), low, high, weights), None

    each = jnp.zeros(len(images))
    held = (flat, each + jnp.inf, each, each + jnp.inf, each + FIRST)
    (best, *_), _ = jax.lax.scan(search, held, length=search_steps)
    return best.reshape(shape)


def gradient_iteration(
    logits_fn: LogitsFn,
    images: Images,
    targets: Labels,
    steps: int = 200,
    step_size: float = 0.05,
    confidence: float = 1e-3,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Images:
    """Returns images after steps up the gradient of the targets' log-probability, each until it is of its target.

    Args:
      steps: at most.
      step_size: Euclidean length of a step, before it is clipped to [lower, upper].
      confidence: by how much the target should lead in logits.
    """

    def loss(images):
        logits = logits_fn(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).sum(), logits

    def unfinished(held):
        _, step, done = held
        return (step < steps) & ~done.all()

    def move(held):
        moved, step, _ = held
        gradient, logits = jax.grad(loss, has_aux=True)(moved)
        done = fooled(logits, targets, True, confidence)
        new = jnp.clip(moved - step_size * unit(gradient), lower, upper)
        return jnp.where(done.reshape(-1, 1, 1, 1), moved, new), step + 1, done

    return jax.lax.while_loop(unfinished, move, (images, 0, jnp.zeros(len(images), bool)))[0]
