"""Anchors: the boxes that a detector's outputs are relative to, and how to choose their sizes."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Key, Real

from cvjax.errors import UserError, number_of
from cvjax.ops.precision import at_least_float32

Sizes = Float[Array, "k 2"]
Anchors = Float[Array, "anchors 4"]


def grid(shape: tuple[int, int], stride: float | int, sizes: Sizes) -> Anchors:
    """Lays anchors of every size on every cell of a feature map.

    Returns corners of rows * columns * k anchors in the order of a head's output [rows, columns, k * 4].

    Args:
      shape: rows and columns of the feature map.
      stride: pixels of the image from one cell to the next; cell (0, 0) is centred at (stride / 2, stride / 2).
      sizes: width and height of each kind of anchor, in pixels.
    """
    sizes = at_least_float32(sizes)
    y, x = ((jnp.arange(length, dtype=sizes.dtype) + 0.5) * stride for length in shape)
    centres = jnp.stack(jnp.meshgrid(x, y), -1)[:, :, None]
    return jnp.concatenate([centres - sizes / 2, centres + sizes / 2], -1).reshape(-1, 4)


def cell_anchors(size: float | int, scales: Sequence[float | int], ratios: Sequence[float | int]) -> Sizes:
    """Lists the anchors of a cell by scale and shape: Ren et al., Faster R-CNN, 2015, section 3.1.1.

    Returns the width and height of each, ratio by ratio, the scales of a ratio side by side.

    Args:
      size: side of the square anchor of scale 1, in pixels.
      scales: factors of the side.
      ratios: height by width; the area does not depend on it.
    """
    sides = [(size * scale, math.sqrt(ratio)) for ratio in ratios for scale in scales]
    return jnp.array([(side / root, side * root) for side, root in sides], jnp.float32).reshape(-1, 2)


def pyramid(
    image_shape: tuple[int, int],
    strides: Sequence[int],
    sizes: Sequence[float | int],
    scales: Sequence[float | int],
    ratios: Sequence[float | int],
) -> list[Anchors]:
    """Lays anchors on a feature pyramid, one size per level: Lin et al., Focal Loss for Dense Object Detection, 2017.

    Returns each level's anchors as `grid` orders them, on ceil(height / stride) rows and ceil(width / stride) columns.

    Args:
      image_shape: height and width of the image, in pixels.
      sizes: of each level's square anchor of scale 1, in pixels.
      scales, ratios: as in `cell_anchors`, on every level.
    """
    shapes = [tuple(math.ceil(length / stride) for length in image_shape) for stride in strides]
    cells = [cell_anchors(size, scales, ratios) for size in sizes]
    return [grid(shape, stride, cell) for shape, stride, cell in zip(shapes, strides, cells, strict=True)]


def shape_iou(a: Float[Array, "n 2"], b: Float[Array, "m 2"]) -> Float[Array, "n m"]:
    """Returns the intersection over union of boxes with a common centre, by width and height; 0 if both are empty."""
    a, b = at_least_float32(a), at_least_float32(b)
    overlap = jnp.minimum(a[:, None], b).prod(-1)
    union = a.prod(-1)[:, None] + b.prod(-1) - overlap
    return overlap / jnp.where(union > 0, union, 1)


def kmeans(
    key: Key[Array, ""], sizes: Real[ArrayLike, "boxes 2"], k: int, *, iterations: int = 50, restarts: int = 8
) -> Sizes:
    """Clusters the shapes of boxes by the distance 1 - IoU: Redmon & Farhadi, YOLO9000, 2017, section 2.

    The first centres are spread out as by k-means++. As the mean does not minimise 1 - IoU, the best iteration of the
    best start counts. Returns each cluster's mean width and height, from the smallest area to the largest.

    Args:
      sizes: widths and heights of a training set's boxes, in any unit.
      iterations: of each start.

    Raises:
      UserError: there are fewer boxes than clusters.
    """
    if len(sizes) < k:
        raise UserError(f"{k} clusters cannot be made of {number_of(len(sizes), 'box')}: ask for at most {len(sizes)}.")
    sizes = at_least_float32(sizes)
    centres, fits = lax.map(lambda key: _cluster(key, sizes, k, iterations), jax.random.split(key, restarts))
    best = centres[fits.argmax()]
    return best[best.prod(-1).argsort()]


def _cluster(key: Array, sizes: Array, k: int, iterations: int) -> tuple[Array, Array]:
    """The best centres on the way from one start, and their mean IoU with the boxes."""

    def improve(state, _):
        centres, best, best_fit = state
        overlaps = shape_iou(sizes, centres)
        fit = overlaps.max(-1).mean()
        best, best_fit = jnp.where(fit > best_fit, centres, best), jnp.maximum(fit, best_fit)
        members = jax.nn.one_hot(overlaps.argmax(-1), k, dtype=sizes.dtype)
        count = members.sum(0)[:, None]
        means = jnp.einsum("nk,nd->kd", members, sizes, precision="highest") / jnp.maximum(count, 1)
        return (jnp.where(count > 0, means, centres), best, best_fit), None

    start = _spread(key, sizes, k)
    (_, best, fit), _ = lax.scan(improve, (start, start, -jnp.inf), length=iterations + 1)
    return best, fit


def _spread(key: Array, sizes: Array, k: int) -> Array:
    """Boxes drawn one after another with probabilities of their squared distance to the nearest drawn before."""
    centres = jnp.zeros((k, 2), sizes.dtype)  # an empty box is at distance 1 from all
    for i, draw_key in enumerate(jax.random.split(key, k)):
        distance = 1 - shape_iou(sizes, centres).max(-1)
        drawn = jax.random.categorical(draw_key, 2 * jnp.log(jnp.maximum(distance, 1e-12)))
        centres = centres.at[i].set(sizes[drawn])
    return centres
