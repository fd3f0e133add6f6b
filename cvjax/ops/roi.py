"""Features of regions: RoIPool, RoIAlign, and both from the levels of a pyramid.

A region of each image is a box, and has a vector of features in each of size x size bins. Boxes are data: gradients
reach the features alone, as in the papers. Masks leave regions out; theirs are 0. Axes beyond one of images are best
folded into it, because `jax.vmap` of RoIAlign on a CPU copies the whole map for each region.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from cvjax.errors import UserError
from cvjax.ops.boxes import area
from cvjax.ops.precision import at_least_float32
from cvjax.ops.window_maxima import window_maxima

Features = Float[Array, "batch rows columns channels"]
Boxes = Float[Array, "batch regions 4"]
Mask = Bool[Array, "batch regions"]
Pooled = Float[Array, "batch regions size size channels"]

CHUNK = 32  # regions computed at a time from whole maps
WINDOWS = (4, 8, 16, 32, 64, 128)  # cells a side of the parts of a map that are read on a CPU


# --- RoIPool ------------------------------------------------------------------------------------------------------


def roi_pool(
    features: Features, boxes: Boxes, mask: Mask | None = None, *, size: int = 7, scale: float | int = 1.0
) -> Pooled:
    """Returns the maximum in each bin of each region: Girshick, Fast R-CNN, 2015 (arXiv:1504.08083), section 2.1.

    As in the author's code, both corners are rounded to a cell, half away from zero, and both cells belong to the
    region, which so has at least one. A bin reaches from the cell in which it starts to the one in which it ends, so
    that bins overlap; one that lies outside of the map is 0. Of equal cells the first, row by row, has the gradient.

    Args:
      boxes: in pixels of the images.
      scale: cells per pixel, such as 1/16.

    Raises:
      UserError: size is less than 1.
    """
    if size < 1:
        raise UserError(f"roi_pool: size={size} has to be at least 1.")
    batch, rows, columns, channels = features.shape
    corners = _round(lax.stop_gradient(at_least_float32(boxes)) * scale)
    down = _cells(corners[..., 1], corners[..., 3], size, rows)
    across = _cells(corners[..., 0], corners[..., 2], size, columns)
    if mask is not None:
        down = jnp.where(mask[..., None, None], down, 0)
    shape = (*boxes.shape[:2], size, size)
    edges = [jnp.broadcast_to(edge[..., None], shape) for edge in jnp.moveaxis(down, -1, 0)]
    edges += [jnp.broadcast_to(edge[..., None, :], shape) for edge in jnp.moveaxis(across, -1, 0)]
    pooled = window_maxima(features, *(edge.reshape(batch, -1) for edge in edges))
    return pooled.reshape(*shape, channels)


def _round(x: Array) -> Array:
    """The nearest whole number, half away from zero as C does, where `jnp.round` takes the even one."""
    whole = jnp.trunc(x)
    return whole + jnp.sign(x) * (jnp.abs(x - whole) >= 0.5)


def _cells(first: Array, last: Array, size: int, cells: int) -> Array:
    """The first cell of each bin on an axis and the one after its last, int32[..., size, 2]; 0 and 0 of NaN."""
    bins = _divide(jnp.maximum(last - first + 1, 1)[..., None], size)
    number = jnp.arange(size, dtype=bins.dtype)
    edges = jnp.stack([jnp.floor(number * bins), jnp.ceil((number + 1) * bins)], axis=-1) + first[..., None, None]
    return jnp.nan_to_num(jnp.clip(edges, 0, cells)).astype(jnp.int32)


def _divide(lengths: Array, size: int) -> Array:
    """Lengths of bins, correctly rounded, since they are rounded up to whole cells and samples.

    If XLA knew that the divisor is one number, it would multiply by its reciprocal, and a bin in ten end a cell late.
    """
    return lengths / jnp.where(jnp.isnan(lengths), 1, jnp.asarray(size, lengths.dtype))


def _by_chunks(of_chunk: Callable[[tuple[Array, Array]], Array], down: Array, across: Array) -> Array:
    """What a function returns for [batch, regions, ...], computed for some regions at a time."""
    batch, regions = down.shape[:2]
    chunks = -(-regions // CHUNK)

    def split(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, chunks * CHUNK - regions), (0, 0), (0, 0)))
        return jnp.moveaxis(x.reshape(batch, chunks, CHUNK, *x.shape[2:]), 1, 0)

    found = jnp.moveaxis(lax.map(of_chunk, (split(down), split(across))), 0, 1)
    return found.reshape(batch, chunks * CHUNK, *found.shape[3:])[:, :regions]


# --- RoIAlign -----------------------------------------------------------------------------------------------------


def roi_align(
    features: Features,
    boxes: Boxes,
    mask: Mask | None = None,
    *,
    size: int = 7,
    scale: float | int = 1.0,
    sampling: int | None = 2,
    aligned: bool = False,
) -> Pooled:
    """Returns the mean of bilinear samples in each bin: He et al., Mask R-CNN, 2017 (arXiv:1703.06870), section 3.

    A sample up to a cell outside of the map has the value at its border, one further away is 0.

    Args:
      boxes: in pixels of the images.
      scale: cells per pixel, such as 1/16.
      sampling: samples a bin in each direction; None: as many as the bin has cells, rounded up.
      aligned: take a cell's value to be that at its middle, as Detectron2 does, and regions as small as they are. If
        not, it is that at its near corner, and regions are at least a cell wide and high.

    Raises:
      UserError: size or sampling is less than 1.
    """
    if size < 1 or (sampling is not None and sampling < 1):
        raise UserError(f"roi_align: size={size} has to be at least 1, and sampling={sampling} too, or None.")
    near, far = jnp.split(lax.stop_gradient(at_least_float32(boxes)) * scale - 0.5 * aligned, 2, -1)
    if mask is not None:
        near, far = jnp.where(mask[..., None], near, 0), jnp.where(mask[..., None], far, 0)
    lengths = far - near if aligned else jnp.maximum(far - near, 1)
    down, across = (
        _weights(near[..., axis], lengths[..., axis], size, cells, sampling)
        for axis, cells in ((1, features.shape[1]), (0, features.shape[2]))
    )
    if mask is not None:
        down = jnp.where(mask[..., None, None], down, 0)
    values = at_least_float32(features)
    pooled = lax.platform_dependent(values, down, across, cpu=_read_windows, default=_read_maps)
    return pooled.astype(features.dtype)


def _weights(start: Array, length: Array, size: int, cells: int, sampling: int | None) -> Array:
    """The share of each cell of an axis in each bin, [..., size, cells].

    A mean over a grid of bilinear samples is a product of one over rows and one over columns.
    """
    bins = _divide(length[..., None], size)
    near = start[..., None] + jnp.arange(size, dtype=start.dtype) * bins
    # Without a number, samples are at most a cell apart, and more than half a cell if there are several. Those of huge
    # boxes that lie before the map are skipped, and nothing depends on the boxes' size. NaN gives none.
    count = jnp.full_like(bins, sampling) if sampling else jnp.where(bins > 0, jnp.ceil(bins), 0)
    first = jnp.zeros_like(near) if sampling else jnp.maximum(jnp.floor((-1 - near) * count / bins) - 1, 0)
    most = sampling or jnp.clip(count.max(initial=0), 0, 2 * cells + 8).astype(jnp.int32)

    def add(index: Array, weights: Array) -> Array:
        sample = first + index
        place = near + (sample + 0.5) * bins / count
        valid = (place >= -1) & (place <= cells) & (sample < count)
        distance = jnp.abs(jnp.clip(place, 0, cells - 1)[..., None] - jnp.arange(cells, dtype=place.dtype))
        return weights + jnp.where(valid[..., None], jnp.maximum(1 - distance, 0), 0)

    weights = lax.fori_loop(0, most, add, jnp.zeros((*near.shape, cells), near.dtype))
    return weights / jnp.maximum(count, 1)[..., None]


def _read_maps(features: Array, down: Array, across: Array) -> Array:
    """RoIAlign by two matrix products over the whole map."""

    def of_chunk(weights: tuple[Array, Array]) -> Array:
        rows = jnp.einsum("briy,byxc->brixc", weights[0], features, precision="highest")
        return jnp.einsum("brjx,brixc->brijc", weights[1], rows, precision="highest")

    return _by_chunks(jax.checkpoint(of_chunk), down, across)


# On a CPU, region by region, by two matrix products over the smallest of a few windows that holds the region. The
# gradient adds into the map in place. The two are each other's transposes.


class _Place(NamedTuple):
    """A region's number, the first cell of the window around it, and the shares of the window's rows and columns."""

    region: Array
    corner: tuple[Array, Array, Array, Array]
    down: Array
    across: Array

    def window(self, channels: int) -> tuple[int, ...]:
        return (1, self.down.shape[1], self.across.shape[1], channels)


@jax.custom_vjp
def _read_windows(features: Array, down: Array, across: Array) -> Array:
    batch, regions, size, _ = down.shape
    channels = features.shape[-1]

    def read(pooled: Array, place: _Place) -> Array:
        part = lax.dynamic_slice(features, place.corner, place.window(channels))[0]
        rows = (place.down @ part.reshape(len(part), -1)).reshape(size, -1, channels)
        value = jnp.broadcast_to(place.across, (size, *place.across.shape)) @ rows
        return lax.dynamic_update_slice(pooled, value[None], (place.region, 0, 0, 0))

    pooled = jnp.zeros((batch * regions, size, size, channels), features.dtype)
    return _visit(read, pooled, down, across).reshape(batch, regions, size, size, channels)


@jax.custom_vjp
def _write_windows(pooled: Array, down: Array, across: Array) -> Array:
    batch, regions, size, _, channels = pooled.shape
    flat = pooled.reshape(batch * regions, size, size, channels)

    def write(features: Array, place: _Place) -> Array:
        value = lax.dynamic_index_in_dim(flat, place.region, keepdims=False)
        rows = jnp.broadcast_to(place.across.T, (size, *place.across.T.shape)) @ value
        part = (place.down.T @ rows.reshape(size, -1)).reshape(place.window(channels))
        before = lax.dynamic_slice(features, place.corner, part.shape)
        return lax.dynamic_update_slice(features, before + part, place.corner)

    features = jnp.zeros((batch, down.shape[-1], across.shape[-1], channels), pooled.dtype)
    return _visit(write, features, down, across)


def _visit(change: Callable[[Array, _Place], Array], carried: Array, down: Array, across: Array) -> Array:
    """Changes an array region by region, those with the smallest windows first, and leaves empty ones out."""
    _, regions, size, rows = down.shape
    columns = across.shape[-1]
    down, across = down.reshape(-1, size, rows), across.reshape(-1, size, columns)
    (top, height), (left, width) = _span(down), _span(across)
    sides = [side for side in WINDOWS if side < max(rows, columns)] + [max(rows, columns)]
    kind = jnp.searchsorted(jnp.array(sides, jnp.int32), jnp.maximum(height, width))
    kind = jnp.where((height > 0) & (width > 0), kind, len(sides))
    order = jnp.argsort(kind).astype(jnp.int32)
    ends = jnp.searchsorted(kind[order], jnp.arange(len(sides)), side="right").astype(jnp.int32)

    def step(side: int, index: Array, carried: Array) -> Array:
        region, high, wide = order[index], min(side, rows), min(side, columns)
        y, x = jnp.minimum(top[region], rows - high), jnp.minimum(left[region], columns - wide)
        parts = (
            lax.dynamic_slice(weights, (region, 0, at), (1, size, length))[0]
            for weights, at, length in ((down, y, high), (across, x, wide))
        )
        return change(carried, _Place(region, (region // regions, y, x, jnp.int32(0)), *parts))

    for begin, end, side in zip((0, *ends[:-1]), ends, sides, strict=True):
        carried = lax.fori_loop(begin, end, partial(step, side), carried)
    return carried


def _span(weights: Array) -> tuple[Array, Array]:
    """The first cell that any bin of a region needs, and the number of cells from it to the last."""
    used = (weights > 0).any(-2)
    first, after = used.argmax(-1), used.shape[-1] - used[..., ::-1].argmax(-1)
    return first.astype(jnp.int32), jnp.where(used.any(-1), after - first, 0)


def _backward(transposed: Callable[[Array, Array, Array], Array], kept: tuple[Array, Array], cotangent: Array) -> tuple:
    return transposed(cotangent, *kept), jnp.zeros_like(kept[0]), jnp.zeros_like(kept[1])


_read_windows.defvjp(lambda *of: (_read_windows(*of), of[1:]), partial(_backward, _write_windows))
_write_windows.defvjp(lambda *of: (_write_windows(*of), of[1:]), partial(_backward, _read_windows))


# --- pyramids -----------------------------------------------------------------------------------------------------


def assign_levels(
    boxes: Float[Array, "*batch 4"], levels: int, *, finest: int = 2, size: float | int = 224, level: int = 4
) -> Int[Array, "*batch"]:
    """Returns the level of a pyramid for each box, 0 for the finest: Lin et al., Feature Pyramid Networks, 2017, eq. 1.

    Args:
      levels: number of levels in the pyramid.
      finest: which of P2, P3, ... the finest is.
      size: square root of the area in pixels of the smallest boxes that belong to P`level`.
    """
    exact = level + jnp.log2(jnp.sqrt(area(boxes)) / size) + 1e-6  # torchvision's, so that rounding lowers none
    return jnp.clip(jnp.floor(exact) - finest, 0, levels - 1).astype(jnp.int32)


def pool_pyramid(
    pool: Callable[..., Pooled],
    pyramid: Sequence[Float[Array, "batch _ _ channels"]],
    boxes: Boxes,
    mask: Mask | None = None,
    *,
    scales: Sequence[float | int],
    levels: Int[Array, "batch regions"],
) -> Pooled:
    """Returns the features of each region from one level of a pyramid.

    Args:
      pool: `roi_align` or `roi_pool`, with its settings but the scale.
      scales: cells per pixel of each level.
      levels: which level each region is read from, as `assign_levels` returns them.
    """
    mask = jnp.ones(boxes.shape[:2], bool) if mask is None else mask
    each = enumerate(zip(pyramid, scales, strict=True))
    return sum(pool(features, boxes, mask & (levels == level), scale=scale) for level, (features, scale) in each)
