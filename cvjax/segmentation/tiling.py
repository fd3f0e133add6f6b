"""Segmentation of large images tile by tile: Ronneberger et al., U-Net, 2015 (arXiv:1505.04597), figure 2."""

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Float32, Integer, Shaped

from cvjax.errors import UserError

Segment = Callable[[Float32[np.ndarray, "1 rows columns channels"]], Float[Array, "1 tile_rows tile_columns classes"]]


def predict_tiles(
    segment: Segment,
    image: Shaped[np.ndarray, "height width channels"],
    tile: int = 388,
    margin: int = 92,
    step: int | None = None,
    out: Integer[np.ndarray, "height width"] | None = None,
) -> Integer[np.ndarray, "height width"]:
    """Returns the most probable class of each pixel of an image of any size, found tile by tile.

    Each tile is seen with a margin around it; beyond the image it is mirrored. A tile's result is that of the whole
    mirrored image if the margin covers the field of view of `segment`, and the step is a multiple of its pooling
    (2^depth of a U-Net). Only one tile is in memory at a time, so `image` and `out` may be memory-mapped. A step that
    leaves gaps, or logits that are not of a tile's size, raise a UserError.

    Args:
      segment: images of side tile + 2 * margin -> logits of their inner part, of side tile.
      image: uint8, or floats in [0, 1].
      step: pixels from one tile to the next, by default `tile`; the first tile to see a pixel decides.
      out: receives the result; by default a new array.
    """
    height, width = image.shape[:2]
    step = step or tile
    if not 0 < step <= tile:
        raise UserError(f"predict_tiles: step={step} must be from 1 to tile={tile}.")
    out = np.empty((height, width), np.int32) if out is None else out
    for top, left in itertools.product(range(0, height, step), range(0, width, step)):
        window = _read(image, top - margin, left - margin, tile + 2 * margin)
        found = np.asarray(segment(window[None]))[0]
        if found.shape[:2] != (tile, tile):
            size = "x".join(map(str, found.shape[:2]))
            raise UserError(f"predict_tiles: segment returned {size} for a tile of {tile}x{tile}.")
        down, right = (tile - step if at else 0 for at in (top, left))  # seen by the tile before
        part = found[down : height - top, right : width - left].argmax(-1)
        out[top + down : top + tile, left + right : left + tile] = part
    return out


def mirrored_indices(first: int, count: int, size: int) -> Integer[np.ndarray, " count"]:
    """Returns `count` indices of an axis from `first` on, which may be negative.

    They are mirrored at both ends as often as needed, as NumPy's `reflect` padding does.
    """
    if size == 1:
        return np.zeros(count, int)
    folded = np.arange(first, first + count) % (2 * size - 2)
    return np.minimum(folded, 2 * size - 2 - folded)


def _read(image: np.ndarray, top: int, left: int, side: int) -> Float32[np.ndarray, "side side channels"]:
    """Reads a square of a mirrored image, as floats in [0, 1]."""
    rows, columns = (mirrored_indices(*axis) for axis in ((top, side, image.shape[0]), (left, side, image.shape[1])))
    window = np.asarray(image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])
    window = window[np.ix_(rows - rows.min(), columns - columns.min())]
    scale = 1 if window.dtype.kind == "f" else np.iinfo(window.dtype).max
    return window.astype(np.float32) / np.float32(scale)
