"""Boxes `x1, y1, x2, y2` in pixels, far edges exclusive: what is inside has x1 <= x < x2 and y1 <= y < y2.

A box whose far edge lies before its near one is empty, as one of no width is: its area is 0 and it overlaps nothing.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

SMALLEST = 1e-3  # pixels; `encode` takes a thinner box for one as thin as this, so that its logarithm is finite

Boxes = Float[Array, "*batch 4"]
Length = Real[ArrayLike, ""]


def area(boxes: Boxes) -> Float[Array, "*batch"]:
    """Measures boxes.

    Args:
      boxes: corners.

    Returns:
      Areas in square pixels; 0 for empty boxes.
    """
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    return _product(jnp.maximum(x2 - x1, 0), jnp.maximum(y2 - y1, 0))


def iou(a: Float[Array, "*batch n 4"], b: Float[Array, "*batch m 4"]) -> Float[Array, "*batch n m"]:
    """Measures the intersection over union of every pair.

    Args:
      a: boxes.
      b: others.

    Returns:
      In [0, 1]; 0 where the union is empty. A box and itself give exactly 1.
    """
    overlap, union, _ = _pairs(a, b)
    return _ratio(overlap, union)


def generalised_iou(a: Float[Array, "*batch n 4"], b: Float[Array, "*batch m 4"]) -> Float[Array, "*batch n m"]:
    """Measures the generalised intersection over union of every pair: Rezatofighi et al. 2019, algorithm 1.

    Args:
      a: boxes.
      b: others.

    Returns:
      In [-1, 1]: IoU less the share of the smallest enclosing box that neither covers.
    """
    overlap, union, hull = _pairs(a, b)
    return _ratio(overlap, union) - _ratio(hull - union, hull)


def clip(boxes: Boxes, height: Length, width: Length) -> Boxes:
    """Cuts boxes off at the border of an image.

    Args:
      boxes: corners.
      height: of the image, in pixels.
      width: of the image, in pixels.

    Returns:
      What of them lies in the image. A box outside becomes an empty one on the border.
    """
    return jnp.clip(boxes, 0, jnp.array([width, height, width, height], boxes.dtype))


def visible(
    boxes: Boxes, mask: Bool[Array, "*batch"], height: Length, width: Length
) -> tuple[Boxes, Bool[Array, "*batch"]]:
    """Cuts objects off at the border of an image, and leaves out those of which nothing is to be seen.

    Args:
      boxes: corners of objects and of padding, which may be any numbers, NaN as well.
      mask: which of them are objects.
      height: of the image, in pixels.
      width: of the image, in pixels.

    Returns:
      (boxes, 0 where there is none; which of them are objects still: not those without width or height, nor those
      that lie outside).
    """
    boxes = clip(boxes, height, width)
    seen = mask & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    return jnp.where(seen[..., None], boxes, 0), seen


def to_centre(boxes: Boxes) -> Boxes:
    """Converts corners to centres and sizes.

    Args:
      boxes: x1, y1, x2, y2.

    Returns:
      Centre x, centre y, width, height.
    """
    return jnp.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


def from_centre(boxes: Boxes) -> Boxes:
    """Converts centres and sizes to corners.

    Args:
      boxes: centre x, centre y, width, height.

    Returns:
      x1, y1, x2, y2.
    """
    half = boxes[..., 2:] / 2
    return jnp.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], -1)


def encode(boxes: Boxes, anchors: Boxes, weights: Sequence[float | int] = (1.0, 1.0, 1.0, 1.0)) -> Boxes:
    """Expresses boxes relative to anchors: Girshick et al., R-CNN, 2014, equations 6 to 9.

    Args:
      boxes: what to express. A width or height under 0.001 px is taken for that.
      anchors: relative to what, one a box; wider and higher than 0.
      weights: factors of x, y, width, height; (10, 10, 5, 5) gives the heads of Fast R-CNN targets of unit variance.

    Returns:
      Offsets of the centre in widths and heights of the anchor, logarithms of the ratios of width and height; weighted.
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

    Args:
      deltas: as `encode` returns them.
      anchors: what they are relative to.
      weights: as in `encode`.
      max_log_scale: where the logarithms of the scales are cut off, so that no early prediction overflows.

    Returns:
      Corners, not clipped to any image.
    """
    anchors, deltas = to_centre(anchors), deltas / jnp.array(weights, deltas.dtype)
    centres = anchors[..., :2] + deltas[..., :2] * anchors[..., 2:]
    sizes = anchors[..., 2:] * jnp.exp(jnp.minimum(deltas[..., 2:], max_log_scale))
    return from_centre(jnp.concatenate([centres, sizes], -1))


def flip(boxes: Boxes, width: Length) -> Boxes:
    """Mirrors boxes left to right with their image.

    Args:
      boxes: corners.
      width: of the image, in pixels.

    Returns:
      The boxes of the same things in the mirrored image.
    """
    x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
    return jnp.stack([width - x2, y1, width - x1, y2], -1)


def _pairs(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """Areas [..., n, m] of intersection, union and smallest enclosing box."""
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
    """part / whole, and 0 where there is no whole; its gradient is finite there too."""
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1), 0)
