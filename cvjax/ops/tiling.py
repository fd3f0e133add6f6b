"""Large images worked on tile by tile: Ronneberger et al., U-Net, 2015 (arXiv:1505.04597), figure 2.

Only one tile is in memory at a time, so that images and results may be memory-mapped.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Array, Float, Float32, Integer, Shaped

from cvjax.errors import UserError

Window = Float32[np.ndarray, "1 rows columns channels"]
Inner = Shaped[Array | np.ndarray, "1 tile_rows tile_columns features"]


def map_tiles(
    function: Callable[[Window], Inner],
    image: Shaped[np.ndarray, "height width channels"],
    tile: int,
    margin: int,
    scale: int = 1,
    step: int | None = None,
    out: Shaped[np.ndarray, "rows columns features"] | None = None,
) -> Shaped[np.ndarray, "rows columns features"]:
    """Returns a function of an image of any size, applied tile by tile; the result is `scale` times as large.

    Each tile is seen with a margin around it; beyond the image it is mirrored. A tile's result is that of the whole
    mirrored image if the margin covers the field of view of the function, and the step is a multiple of its strides. A
    step that leaves gaps, or results that are not of a tile's size, raise a UserError.

    Args:
      function: images of side tile + 2 * margin -> the result for their inner part, of side scale * tile.
      image: uint8, or floats in [0, 1].
      step: pixels from one tile to the next, by default `tile`; the first tile to see a pixel decides.
      out: receives the result; by default a new array.
    """
    height, width = image.shape[:2]
    step = step or tile
    if not 0 < step <= tile:
        raise UserError(f"map_tiles: step={step} must be from 1 to tile={tile}.")
    for top, left in itertools.product(range(0, height, step), range(0, width, step)):
        window = _read(image, top - margin, left - margin, tile + 2 * margin)
        found = np.asarray(function(window[None]))[0]
        if found.shape[:2] != (scale * tile, scale * tile):
            size = "x".join(map(str, found.shape[:2]))
            raise UserError(f"map_tiles: the function returned {size} for a tile of {tile}x{tile} at scale={scale}.")
        if out is None:
            out = np.empty((scale * height, scale * width, found.shape[2]), found.dtype)
        down, right = (tile - step if at else 0 for at in (top, left))  # seen by the tile before
        part = found[scale * down : scale * (height - top), scale * right : scale * (width - left)]
        rows = slice(scale * (top + down), scale * (top + tile))
        out[rows, scale * (left + right) : scale * (left + tile)] = part
    return out


def fit_tile(pixels: int, margin: int, multiple: int) -> int:
    """Returns the largest side of a tile, a multiple, with which a tile and its margins have no more pixels; or 0."""
    return max(0, (math.isqrt(pixels) - 2 * margin) // multiple * multiple)


def predict_tiles(
    segment: Callable[[Window], Float[Array | np.ndarray, "1 tile_rows tile_columns classes"]],
    image: Shaped[np.ndarray, "height width channels"],
    tile: int = 388,
    margin: int = 92,
    step: int | None = None,
    out: Integer[np.ndarray, "height width"] | None = None,
) -> Integer[np.ndarray, "height width"]:
    """Returns the most probable class of each pixel of an image of any size, as `map_tiles` finds it.

    Args:
      segment: images of side tile + 2 * margin -> logits of their inner part, of side tile.
      image, step, out: as of `map_tiles`.
    """
    out = np.empty(image.shape[:2], np.int32) if out is None else out

    def classes(window: np.ndarray) -> np.ndarray:
        return np.asarray(segment(window)).argmax(-1)[..., None]

    map_tiles(classes, image, tile, margin, step=step, out=out[..., None])  # a view
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
