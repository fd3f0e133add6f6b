"""The attack of Carlini & Wagner in Euclidean norm: Towards Evaluating the Robustness of Neural Networks, 2017.

arXiv:1608.04644, sections V and VI-A: Adam on a change of variables that keeps to the box, and for each image a search
for the constant that weighs the distance against the aim.
"""

import jax
import jax.numpy as jnp
import optax

from cvjax.attacks.attack import Images, Labels, LogitsFn, lead

INSIDE = 1 - 1e-6  # of the open interval (-1, 1) on which the change of variables is finite


def carlini_wagner(
    logits_fn: LogitsFn,
    images: Images,
    labels: Labels,
    targeted: bool = False,
    steps: int = 1000,
    search_steps: int = 9,
    learning_rate: float = 0.01,
    constant: float = 1e-3,
    confidence: float = 0.0,
    lower: float = 0.0,
    upper: float = 1.0,
) -> Images:
    """Returns the nearest images found that are of another class than the labels or, if targeted, of the labels.

    Images for which none is found are returned as they are; all are in [lower, upper].

    Args:
      steps: of Adam, for each constant.
      search_steps: constants that are tried: ten times larger until one succeeds, then by bisection.
      learning_rate: Adam's, in the space of w, where an image is tanh(w) scaled to the box.
      constant: the first one.
      confidence: by how much the wanted class should lead in logits (kappa).
    """
    size = upper - lower
    shares = (images - lower) / size * INSIDE + (1 - INSIDE) / 2
    begin = (jnp.log(shares) - jnp.log1p(-shares)) / 2
    adam = optax.adam(learning_rate)

    def to_box(w):
        # (1 + tanh(w)) / 2 = sigmoid(2 w), whose slope does not vanish in float32 at a black pixel.
        return jnp.clip(size * jax.nn.sigmoid(2 * w) + lower, lower, upper)

    def objective(w, constants):
        moved = to_box(w)
        margin = lead(logits_fn(moved), labels)
        ahead = margin if targeted else -margin
        distances = jnp.square(moved - images).sum(axis=(1, 2, 3))
        loss = distances + constants * jnp.maximum(confidence - ahead, 0)
        return loss.sum(), (moved, distances, ahead > confidence)

    def search(held, _):
        best, nearest, low, high, constants = held

        def step(held, _):
            w, state, best, nearest, there = held
            gradient, (moved, distances, reached) = jax.grad(objective, has_aux=True)(w, constants)
            better = reached & (distances < nearest)
            best = jnp.where(better.reshape(-1, 1, 1, 1), moved, best)
            updates, state = adam.update(gradient, state)
            return (w + updates, state, best, jnp.where(better, distances, nearest), there | reached), None

        start = (begin, adam.init(begin), best, nearest, jnp.zeros(len(images), bool))
        (_, _, best, nearest, there), _ = jax.lax.scan(step, start, length=steps)
        low, high = jnp.where(there, low, constants), jnp.where(there, constants, high)
        constants = jnp.where(jnp.isinf(high), 10 * constants, (low + high) / 2)
        return (best, nearest, low, high, constants), None

    each = jnp.zeros(len(images))
    held = (images, each + jnp.inf, each, each + jnp.inf, each + constant)
    (best, *_), _ = jax.lax.scan(search, held, length=search_steps)
    return best
