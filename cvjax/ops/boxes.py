"""Boxes `x1, y1, x2, y2` in pixels, far edges exclusive: what is inside has x1 <= x < x2 and y1 <= y < y2.

A box whose far edge lies before its near one is empty, like one without width: its area is 0 and it overlaps nothing.
Areas, overlaps, centres and offsets are computed and returned in float32 at least, whatever comes in.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from cvjax.ops.precision import at_least_float32

SMALLEST = 1e-3  # pixels; `encode` takes a thinner box for one as thin as this, so that its logarithm is finite

Boxes = Float[Array, "*batch 4"]
Length = Real[ArrayLike, ""]


def area(boxes: Boxes) -> Float[Array, "*batch"]:
    """Returns areas in square pixels; 0 for empty boxes."""
    x1, y1, x2, y2 = (at_least_float32(boxes)[..., i] for i in range(4))
    return _product(jnp.maximum(x2 - x1, 0), jnp.maximum(y2 - y1, 0))


def iou(a: Float[Array, "*batch n 4"], b: Float[Array, "*batch m 4"]) -> Float[Array, "*batch n m"]:
    """Returns the intersection over union of every pair; 0 where the union is empty, exactly 1 for a box and itself."""
    overlap, union, _ = _pairs(a, b)
    return _ratio(overlap, union)


def generalised_iou(a: Float[Array, "*batch n 4"], b: Float[Array, "*batch m 4"]) -> Float[Array, "*batch n m"]:
    """Returns every pair's IoU less the share of the smallest enclosing box that neither covers, in [-1, 1].

    Source: Rezatofighi et al., Generalized Intersection over Union, 2019, algorithm 1.
    """
    overlap, union, hull = _pairs(a, b)
    return _ratio(overlap, union) - _ratio(hull - union, hull)


def clip(boxes: Boxes, height: Length, width: Length) -> Boxes:
    """Returns boxes cut off at the border of an image; those outside become empty ones on the border."""
    return jnp.clip(boxes, 0, jnp.array([width, height, width, height], boxes.dtype))


def visible(
    boxes: Boxes, mask: Bool[Array, "*batch"], height: Length, width: Length
) -> tuple[Boxes, Bool[Array, "*batch"]]:
    """Cuts objects off at the border of an image of this size in pixels, and drops those that lie outside.

    `mask` says which boxes are objects; padding may be any numbers, even NaN. Returns (boxes, 0 in padding; which of
    them are still objects: those with a width and a height inside the image).
    """
    boxes = clip(boxes, height, width)
    seen = mask & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    return jnp.where(seen[..., None], boxes, 0), seen


def to_centre(boxes: Boxes) -> Boxes:
    """Returns centre x, centre y, width, height of boxes."""
    boxes = at_least_float32(boxes)
    return jnp.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


def from_centre(boxes: Boxes) -> Boxes:
    """Returns the corners of boxes given by centre x, centre y, width, height."""
    boxes = at_least_float32(boxes)
    half = boxes[..., 2:] / 2
    return jnp.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def encode(boxes: Boxes, anchors: Boxes, weights: Sequence[float | int] = (1.0, 1.0, 1.0, 1.0)) -> Boxes:
    """Expresses boxes relative to anchors: Girshick et al., R-CNN, 2014, equations 6 to 9.

    Returns offsets of the centre in widths and heights of the anchor, logarithms of the ratios of width and height;
    weighted.

    Args:
      boxes: what to express. A width or height under 0.001 px counts as 0.001.
      anchors: relative to what, one for each box; wider and higher than 0.
      weights: factors of x, y, width, height; (10, 10, 5, 5) gives the heads of Fast R-CNN targets of unit variance.
    """
    boxes, anchors = to_centre(boxes), to_centre(anchors)
    offsets = (boxes[..., :2] - anchors[..., :2]) / anchors[..., 2:]
    scales = jnp.log(jnp.maximum(boxes[..., 2:], SMALLEST) / anchors[..., 2:])
    return jnp.concatenate([offsets, scales], -1) * jnp.array(weights, boxes.dtype)


def decode(
    deltas: Boxes,
    anchors: Boxes,
    weights: Sequence[float | int] = (1.0, 1.0, 1.0, 1.0),
    max_log_scale: float | int = math.log(1000 / 16),
) -> Boxes:
    """Inverts `encode`: Girshick et al., R-CNN, 2014, equations 1 to 4.

    Returns corners, not clipped to any image. `max_log_scale` bounds the logarithms of the scales, so that no early
    prediction overflows.
    """
    deltas = at_least_float32(deltas)
    anchors, deltas = to_centre(anchors), deltas / jnp.array(weights, deltas.dtype)
    centres = anchors[..., :2] + deltas[..., :2] * anchors[..., 2:]
    sizes = anchors[..., 2:] * jnp.exp(jnp.minimum(deltas[..., 2:], max_log_scale))
    return from_centre(jnp.concatenate([centres, sizes], -1))


def flip(boxes: Boxes, width: Length) -> Boxes:
    """Returns boxes mirrored left to right with an image of this width."""
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    return jnp.stack([width - x2, y1, width - x1, y2], -1)


def _pairs(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Areas [..., n, m] of intersection, union and smallest enclosing box."""
    a, b = at_least_float32(a), at_least_float32(b)
    # Coordinate by coordinate: sums over a last axis of two or four are not vectorised.
    ax1, ay1, ax2, ay2 = (a[..., :, None, i] for i in range(4))
    bx1, by1, bx2, by2 = (b[..., None, :, i] for i in range(4))
    width = jnp.maximum(jnp.minimum(ax2, bx2) - jnp.maximum(ax1, bx1), 0)
    height = jnp.maximum(jnp.minimum(ay2, by2) - jnp.maximum(ay1, by1), 0)
    wide = jnp.maximum(jnp.maximum(ax2, bx2) - jnp.minimum(ax1, bx1), 0)
    high = jnp.maximum(jnp.maximum(ay2, by2) - jnp.minimum(ay1, by1), 0)
    overlap = _product(width, height)
    return overlap, area(a)[..., :, None] + area(b)[..., None, :] - overlap, _product(wide, high)


def _product(width: Array, height: Array) -> Array:
    """Their product, rounded: the compiler would fuse it with a sum that follows, and move IoUs across thresholds."""
    return jnp.abs(width * height)


def _ratio(part: Array, whole: Array) -> Array:
    """part / whole, or 0 if the whole is 0; its gradient is finite there too."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0)
