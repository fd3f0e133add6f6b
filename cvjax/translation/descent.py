"""Descent of an array of pixels on a loss by any optimiser of optax, counted in evaluations of the gradient.

Optimisers with a line search, such as L-BFGS (Liu & Nocedal, On the limited memory BFGS method for large scale
optimization, 1989), evaluate it several times a step: at equal evaluations they compare with those that do not.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Pixels = Float[Array, "..."]


def minimise(
    loss_fn: Callable[[Pixels], Float[Array, ""]],
    picture: Pixels,
    tx: optax.GradientTransformation,
    bounds: Float[Array, " stages"],
) -> tuple[Float[Array, "stages ..."], Float[Array, " stages"], Float[Array, " stages"]]:
    """Descends on a loss until it has been evaluated, with its gradient, as often as each of `bounds` says.

    Returns (pictures, losses, evaluations), each as soon as a bound was reached. A step of an optimiser with a line
    search ends before its evaluations are counted, so that those of L-BFGS exceed a bound by a few.

    Args:
      tx: any optimiser; one whose state has the gradient at the end of its line search is not asked for it again.
      bounds: numbers of evaluations, ascending.
    """
    evaluate, get = jax.value_and_grad(loss_fn), optax.tree_utils.tree_get
    state = tx.init(picture)
    searches = get(state, "grad") is not None
    update = optax.with_extra_args_support(tx).update

    def step(carry):
        picture, state, loss, gradient, count = carry
        updates, state = update(gradient, state, picture, value=loss, grad=gradient, value_fn=loss_fn)
        picture = optax.apply_updates(picture, updates)
        if searches:
            loss, gradient = get(state, "value"), get(state, "grad")
            count += jnp.maximum(get(state, "num_linesearch_steps"), 1)
        else:
            (loss, gradient), count = evaluate(picture), count + 1
        return picture, state, loss, gradient, count

    def descend_to(carry, bound):
        carry = jax.lax.while_loop(lambda carry: carry[4] < bound, step, carry)
        return carry, (carry[0], carry[2], carry[4])

    loss, gradient = evaluate(picture)
    return jax.lax.scan(descend_to, (picture, state, loss, gradient, jnp.float32(1)), bounds)[1]
