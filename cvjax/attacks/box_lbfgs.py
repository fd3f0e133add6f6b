"""L-BFGS in a box for a whole batch of problems at once, compiled: a two-metric projection.

Bertsekas, Projected Newton Methods for Optimization Problems with Simple Constraints, 1982: variables that are at a
bound and would leave the box stay there; the others take a quasi-Newton step (Nocedal & Wright, Numerical Optimization,
2006, algorithm 7.4), projected to the box and shortened until the value falls enough. Optax's L-BFGS knows no bounds.
"""

from collections.abc import Callable

import flax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Points = Float[Array, "batch variables"]
Values = Float[Array, " batch"]
Valued = Callable[[Points], tuple[Values, Points]]
ENOUGH = 1e-4  # share of the fall that the slope predicts
HALVINGS = 12  # of a step before it is given up


@flax.struct.dataclass
class Search:
    """A batch of searches in progress.

    Attributes:
      point, value, slope: where each is, its value and its gradient there.
      moves, bends: of the latest steps, newest last: changes of the point, and of the gradient.
      done: whether a search has ended.
      step: number of steps taken.
    """

    point: Points
    value: Values
    slope: Points
    moves: Float[Array, "memory batch variables"]
    bends: Float[Array, "memory batch variables"]
    done: Bool[Array, " batch"]
    step: Int[Array, ""]


def minimise(
    valued: Valued,
    begin: Points,
    lower: float,
    upper: float,
    steps: int = 50,
    memory: int = 10,
    tolerance: float = 1e-6,
) -> tuple[Points, Values]:
    """Minimises a function of each row of a batch over [lower, upper], from `begin`.

    Args:
      valued: points -> the value of each and its gradient; a row's value may not depend on other rows.
      steps: at most, of each search.
      memory: steps whose curvature is kept.
      tolerance: a search ends when its projected gradient is below it everywhere; also when its value stops falling.

    Returns:
      The points, and their values.
    """
    begin = jnp.clip(begin, lower, upper)
    history = jnp.zeros((memory, *begin.shape), begin.dtype)
    search = Search(begin, *valued(begin), history, history, jnp.zeros(len(begin), bool), jnp.int32(0))

    def unfinished(search):
        return (search.step < steps) & ~search.done.all()

    search = jax.lax.while_loop(unfinished, lambda search: _advance(valued, search, lower, upper, tolerance), search)
    return search.point, search.value


def _advance(valued: Valued, search: Search, lower: float, upper: float, tolerance: float) -> Search:
    """Takes a step of every search that has not ended."""
    leaving = ((search.point <= lower) & (search.slope > 0)) | ((search.point >= upper) & (search.slope < 0))
    free = (~leaving).astype(search.point.dtype)
    slope = search.slope * free
    still = jnp.abs(slope).max(axis=-1) < tolerance
    way = -precondition(slope, search.moves * free, search.bends * free) * free
    downhill = jnp.sum(way * slope, axis=-1, keepdims=True) < 0
    way = jnp.where(downhill, way, -slope)
    point, value, gradient, fell = _shorten(valued, search, way, lower, upper, search.done | still)
    moved = (fell & ~search.done & ~still)[:, None]
    # Without a fall along the quasi-Newton way, the curvature is forgotten once; then the search ends.
    known = jnp.any(search.moves != 0, axis=(0, 2))
    stuck = ~fell & ~known
    flat = fell & (search.value - value <= 1e-7 * jnp.abs(search.value))
    push = jnp.where(moved, point - search.point, 0), jnp.where(moved, gradient - search.slope, 0)
    keep = (fell | search.done)[:, None]
    moves, bends = (
        jnp.where(moved, jnp.concatenate([old[1:], new[None]]), jnp.where(keep, old, 0))
        for old, new in zip((search.moves, search.bends), push, strict=True)
    )
    return Search(
        point=jnp.where(moved, point, search.point),
        value=jnp.where(moved[:, 0], value, search.value),
        slope=jnp.where(moved, gradient, search.slope),
        moves=moves,
        bends=bends,
        done=search.done | still | stuck | flat,
        step=search.step + 1,
    )


def precondition(
    slope: Points, moves: Float[Array, "memory batch variables"], bends: Float[Array, "memory batch variables"]
) -> Points:
    """Returns the product of the inverse Hessian that L-BFGS estimates and a gradient (the two-loop recursion).

    Args:
      slope: the gradient.
      moves, bends: as in `Search`; pairs without positive curvature, such as zeros, are left out.
    """
    curvature = jnp.sum(moves * bends, axis=-1)
    stiffness = jnp.sum(jnp.square(bends), axis=-1)
    valid = curvature > 1e-8 * jnp.maximum(stiffness, jnp.sum(jnp.square(moves), axis=-1))
    inverse = jnp.where(valid, 1 / jnp.where(valid, curvature, 1), 0)

    def back(q, pair):
        move, bend, inverse = pair
        alpha = inverse * jnp.sum(move * q, axis=-1)
        return q - alpha[:, None] * bend, alpha

    def forth(r, pair):
        move, bend, inverse, alpha = pair
        beta = inverse * jnp.sum(bend * r, axis=-1)
        return r + (alpha - beta)[:, None] * move, None

    q, alphas = jax.lax.scan(back, slope, (moves, bends, inverse), reverse=True)
    newest = len(moves) - 1 - jnp.argmax(valid[::-1], axis=0)
    rows = jnp.arange(slope.shape[0])
    pair = valid.any(axis=0), curvature[newest, rows], stiffness[newest, rows]
    first = 1 / jnp.maximum(jnp.abs(slope).sum(axis=-1), 1)  # as in L-BFGS-B: a step of length 1 at most
    scale = jnp.where(pair[0], pair[1] / jnp.where(pair[0], pair[2], 1), first)
    return jax.lax.scan(forth, scale[:, None] * q, (moves, bends, inverse, alphas))[0]


def _shorten(
    valued: Valued, search: Search, way: Points, lower: float, upper: float, idle: Bool[Array, " batch"]
) -> tuple[Points, Values, Points, Bool[Array, " batch"]]:
    """Halves the steps along the projected way until each value falls enough; those of `idle` searches do not matter.

    Returns the points, their values, gradients, and whether a value has fallen enough.
    """

    def unfinished(held):
        *_, enough, halvings = held
        return (halvings < HALVINGS) & ~enough.all()

    def attempt(held):
        length, point, value, gradient, enough, halvings = held
        new = jnp.clip(search.point + length[:, None] * way, lower, upper)
        new_value, new_gradient = valued(new)
        predicted = jnp.sum(search.slope * (new - search.point), axis=-1)
        fell = (new_value <= search.value + ENOUGH * predicted) & (new_value < search.value) | idle
        keep = enough[:, None]
        return (
            jnp.where(enough | fell, length, length / 2),
            jnp.where(keep, point, new),
            jnp.where(enough, value, new_value),
            jnp.where(keep, gradient, new_gradient),
            enough | fell,
            halvings + 1,
        )

    nowhere = jnp.zeros_like(idle)
    held = (jnp.ones_like(search.value), search.point, search.value, search.slope, nowhere, jnp.int32(0))
    _, point, value, gradient, enough, _ = jax.lax.while_loop(unfinished, attempt, held)
    return point, value, gradient, enough
