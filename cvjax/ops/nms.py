"""Non-maximum suppression: of boxes that overlap, the one with the highest score stays.

Shapes are static, so all of it is for `jax.jit`, `jax.vmap` and any number of devices. A row of score -inf (or NaN) is
padding: it is never chosen and suppresses nothing.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from cvjax.errors import UserError, suggest
from cvjax.ops.boxes import iou

TILE = 128  # boxes settled at a time

Boxes = Float[Array, "boxes 4"]
Threshold = Real[ArrayLike, ""]
Scores = Float[Array, " boxes"]
Chosen = tuple[Int[Array, " chosen"], Bool[Array, " chosen"]]


def nms(boxes: Boxes, scores: Scores, *, iou_threshold: Threshold, max_outputs: int) -> Chosen:
    """Chooses boxes greedily: the best of those left, which then suppresses all that overlap it by more.

    Exactly greedy, at every threshold and for all boxes. Of equal scores the lower index comes first. An empty box
    overlaps nothing, not even its copy.

    Args:
      boxes: corners.
      scores: of the boxes.
      iou_threshold: in [0, 1]; what overlaps a chosen box by more than this is suppressed.
      max_outputs: how many to choose at most, and the length of the result.

    Returns:
      (indices of the chosen by falling score, whether there is one). Indices that are not valid are 0.

    Raises:
      UserError: the threshold is not in [0, 1].
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
    """Chooses boxes as `nms` does, where only boxes of the same class suppress each other.

    Args:
      boxes: corners.
      scores: of the boxes.
      labels: their classes.
      iou_threshold: in [0, 1]; what overlaps a chosen box of its class by more than this is suppressed.
      max_outputs: how many to choose at most, of all classes together.
      mask: False marks padding.

    Returns:
      (indices of the chosen by falling score, whether there is one). Indices that are not valid are 0.

    Raises:
      UserError: the threshold is not in [0, 1].
    """
    scores = scores if mask is None else jnp.where(mask, scores, -jnp.inf)
    return _greedy(boxes, scores, labels, iou_threshold, max_outputs)


def soft_nms(
    boxes: Boxes,
    scores: Scores,
    labels: Int[Array, " boxes"] | None = None,
    *,
    max_outputs: int,
    method: str = "gaussian",
    sigma: Threshold = 0.5,
    iou_threshold: Threshold = 0.3,
    score_threshold: Threshold = 0.001,
) -> tuple[Int[Array, " chosen"], Float[Array, " chosen"], Bool[Array, " chosen"]]:
    """Chooses the best of the boxes left, which lowers the scores of what overlaps it: Bodla et al., Soft-NMS, 2017.

    Args:
      boxes: corners.
      scores: of the boxes, not negative.
      labels: their classes; only boxes of one class lower each other's scores. By default all are of one.
      max_outputs: how many to choose at most, and the length of the result.
      method: "gaussian" multiplies a score by exp(-IoU^2 / sigma), equation 3; "linear", if the IoU exceeds
        `iou_threshold`, by 1 - IoU, equation 2.
      sigma: of "gaussian".
      iou_threshold: of "linear".
      score_threshold: a box whose score does not exceed this is not chosen.

    Returns:
      (indices of the chosen by falling new score, new scores, whether there is one). What is not valid is 0.

    Raises:
      UserError: the method is neither.
    """
    if method not in ("gaussian", "linear"):
        raise UserError(f"method={method!r} of soft_nms is unknown. {suggest(method, ['gaussian', 'linear'])}")
    boxes, scores, labels = _pad(boxes, scores, jnp.zeros(len(boxes), jnp.int32) if labels is None else labels, 1)

    def choose(scores, _):
        best = scores.argmax().astype(jnp.int32)  # the first of equal ones
        score = scores[best]
        overlap = jnp.where(labels == labels[best], iou(boxes[best][None], boxes)[0], 0)
        if method == "gaussian":
            weight = jnp.exp(-(overlap**2) / sigma)
        else:
            weight = jnp.where(overlap > iou_threshold, 1 - overlap, 1)
        lowered = jnp.where(scores > -jnp.inf, scores * weight, -jnp.inf)
        return lowered.at[best].set(-jnp.inf), (best, score)

    _, (chosen, scores) = lax.scan(choose, scores, length=max_outputs)
    valid = scores > score_threshold
    return jnp.where(valid, chosen, 0), jnp.where(valid, scores, 0), valid


def _pad(boxes: Array, scores: Array, labels: Array, rows: int) -> tuple[Array, Array, Array]:
    """Adds rows of padding at the end, and lets no gradient through: the choice has none."""
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    scores = jnp.pad(scores, (0, rows), constant_values=-jnp.inf)
    return lax.stop_gradient((jnp.pad(boxes, ((0, rows), (0, 0))), scores, jnp.pad(labels, (0, rows))))


def _greedy(boxes: Array, scores: Array, labels: Array | None, threshold: Threshold, max_outputs: int) -> Chosen:
    """Settles boxes in tiles by falling score: first against all chosen before, then within the tile."""
    if isinstance(threshold, (int, float)) and not 0 <= threshold <= 1:
        raise UserError(f"iou_threshold={threshold} is not in [0, 1].")
    labels = jnp.zeros(len(boxes), jnp.int32) if labels is None else labels
    boxes, scores, labels = _pad(boxes, scores, labels, TILE - len(boxes) % TILE)
    order = jnp.argsort(-scores).astype(jnp.int32)  # stable
    alive = scores[order] > -jnp.inf  # the last one is not, which ends the loop
    rows = (boxes[order].T, labels[order][None], order[None])  # coordinates apart, which is several times faster

    def tile_at(start):
        return tuple(lax.dynamic_slice_in_dim(row, start, TILE, 1) for row in rows)

    def unsettled(state):
        start, count, *_ = state
        return (count < max_outputs) & alive[jnp.minimum(start, len(alive) - 1)]

    def settle(state):
        start, count, tile, chosen = state
        left = lax.dynamic_slice_in_dim(alive, start, TILE) & ~_overlap(chosen, tile, threshold).any(0)
        kept = _fixed_point(jnp.triu(_overlap(tile, tile, threshold), 1), left)
        first = jnp.argsort(~kept)  # stable: the kept ones come first, in order, and the next tile overwrites the rest
        new = tuple(jnp.where(kept[first], row[:, first], 0) for row in tile)
        chosen = tuple(lax.dynamic_update_slice_in_dim(c, n, count, 1) for c, n in zip(chosen, new, strict=True))
        # The next tile is carried, as a slice that is fused into the loop over pairs keeps it from being vectorised.
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
    """Which boxes stay if [i, j] says that i, of lower index, suppresses j where i itself stays.

    After n rounds the first n are settled for good, so that the only state that repeats itself is the greedy one.
    """

    def again(state):
        return (state[0] != state[1]).any()

    def advance(state):
        kept = state[1]
        return kept, left & ~(suppresses & kept[:, None]).any(0)

    return lax.while_loop(again, advance, advance((left, left)))[1]
