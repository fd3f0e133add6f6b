"""Non-maximum suppression: of overlapping boxes only the one with the highest score is kept.

Shapes are static, for `jax.jit`, `jax.vmap` and any number of devices. Rows with a score of -inf or NaN are padding:
they are never chosen and suppress nothing.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from cvjax.errors import UserError
from cvjax.ops.boxes import iou

TILE = 128  # boxes decided at a time

Boxes = Float[Array, "boxes 4"]
Threshold = Real[ArrayLike, ""]
Scores = Float[Array, " boxes"]
Chosen = tuple[Int[Array, " chosen"], Bool[Array, " chosen"]]


def nms(boxes: Boxes, scores: Scores, *, iou_threshold: Threshold, max_outputs: int) -> Chosen:
    """Chooses boxes greedily: the best one left, which suppresses all that overlap it too much, and so on.

    The result is exactly that of the greedy algorithm. Of equal scores the lower index wins. Boxes with an IoU above
    the threshold with a chosen box are suppressed; a UserError is raised if the threshold is not in [0, 1].

    Returns (indices of the chosen boxes by falling score, which of them are valid), both of length `max_outputs`.
    Invalid indices are 0.
    """
    return _greedy(boxes, scores, None, iou_threshold, max_outputs)


def batched_nms(
    boxes: Boxes,
    scores: Scores,
    labels: Int[Array, " boxes"],
    *,
    iou_threshold: Threshold,
    max_outputs: int,
    mask: Bool[Array, " boxes"] | None = None,
) -> Chosen:
    """Chooses boxes as `nms` does, but only boxes of the same class suppress each other.

    Returns the same, for all classes together. `mask` is False in padding.
    """
    scores = scores if mask is None else jnp.where(mask, scores, -jnp.inf)
    return _greedy(boxes, scores, labels, iou_threshold, max_outputs)


def _pad(boxes: Array, scores: Array, labels: Array, rows: int) -> tuple[Array, Array, Array]:
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    scores = jnp.pad(scores, (0, rows), constant_values=-jnp.inf)
    return lax.stop_gradient((jnp.pad(boxes, ((0, rows), (0, 0))), scores, jnp.pad(labels, (0, rows))))


def _greedy(boxes: Array, scores: Array, labels: Array | None, threshold: Threshold, max_outputs: int) -> Chosen:
    """Decides boxes in tiles by falling score: against all boxes chosen before, then within the tile."""
    if isinstance(threshold, (int, float)) and not 0 <= threshold <= 1:
        raise UserError(f"iou_threshold={threshold} is not in [0, 1].")
    labels = jnp.zeros(len(boxes), jnp.int32) if labels is None else labels
    boxes, scores, labels = _pad(boxes, scores, labels, TILE - len(boxes) % TILE)
    order = jnp.argsort(-scores).astype(jnp.int32)  # stable
    alive = scores[order] > -jnp.inf  # the last one is padding, which ends the loop
    rows = (boxes[order].T, labels[order][None], order[None])  # coordinates first, which is several times faster

    def tile_at(start):
        return tuple(lax.dynamic_slice_in_dim(row, start, TILE, 1) for row in rows)

    def unsettled(state):
        start, count, *_ = state
        return (count < max_outputs) & alive[jnp.minimum(start, len(alive) - 1)]

    def settle(state):
        start, count, tile, chosen = state
        left = lax.dynamic_slice_in_dim(alive, start, TILE) & ~_overlap(chosen, tile, threshold).any(0)
        kept = _fixed_point(jnp.triu(_overlap(tile, tile, threshold), 1), left)
        first = jnp.argsort(~kept)  # stable: kept boxes first, in order; the next tile overwrites the others
        new = tuple(jnp.where(kept[first], row[:, first], 0) for row in tile)
        chosen = tuple(lax.dynamic_update_slice_in_dim(c, n, count, 1) for c, n in zip(chosen, new, strict=True))
        # The next tile is carried: XLA does not vectorise the loop over pairs if the slice is fused into it.
        return start + TILE, count + kept.sum(dtype=jnp.int32), tile_at(start + TILE), chosen

    room = min(max_outputs, len(boxes))
    none = tuple(jnp.zeros((len(row), room + TILE), row.dtype) for row in rows)
    _, count, _, (_, _, chosen) = lax.while_loop(unsettled, settle, (jnp.int32(0), jnp.int32(0), tile_at(0), none))
    valid = jnp.arange(max_outputs) < count
    return jnp.where(valid, jnp.pad(chosen[0, :room], (0, max_outputs - room)), 0), valid


def _overlap(a: tuple[Array, ...], b: tuple[Array, ...], threshold: Threshold) -> Array:
    """Whether boxes [4, n] and [4, m] of one label overlap by more than the threshold, [n, m]."""
    return (iou(a[0].T, b[0].T) > threshold) & (b[1] == a[1].T)


def _fixed_point(suppresses: Array, left: Array) -> Array:
    """Decides which boxes stay, where [i, j] says that box i suppresses a later box j if it stays itself.

    After n rounds the first n boxes are final, so that the greedy solution is the only fixed point.
    """

    def again(state):
        return (state[0] != state[1]).any()

    def advance(state):
        kept = state[1]
        return kept, left & ~(suppresses & kept[:, None]).any(0)

    return lax.while_loop(again, advance, advance((left, left)))[1]
