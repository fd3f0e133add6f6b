"""Formatting of numbers, tables, parameters and images for display."""

import base64
import contextlib
import functools
import io
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import SupportsFloat

import jax
import numpy as np
import PIL.Image
from jaxtyping import ArrayLike, Float, UInt8

_PADDING = 2  # pixels between images
_LEGIBLE = 48  # minimum side of images in pixels; smaller ones are enlarged
_FOLD = 40  # maximum rows of an unfolded parameter table


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Prints what is being done, and afterwards how long it took, if that was a second or more."""
    begun = time.perf_counter()
    print(f"{what} ...", flush=True)
    yield
    seconds = time.perf_counter() - begun
    if seconds >= 1:
        print(f"{what} took {format_number(seconds, 2)} s", flush=True)


def format_number(value: SupportsFloat, digits: int = 3) -> str:
    """Formats a number with a readable number of digits: 0.0123, 1.21, 12.35, 12,345, 3.1e-05.

    Below 10 it has `digits` significant digits, above one more. The integer part is always complete.
    """
    value = float(value)
    if not math.isfinite(value):
        return {"nan": "NaN", "inf": "∞", "-inf": "-∞"}[str(value)]
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-3:
        return re.sub(r"\.?0*e", "e", f"{value:.{digits - 1}e}")
    if size >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.{digits + (size >= 10)}g}"


def format_scaled(value: SupportsFloat, unit: str) -> str:
    """Returns a quantity with an SI prefix, such as 1.23 TFLOP/s."""
    value = float(value)
    power = min(max(int(math.log10(abs(value)) // 3), 0), 5) if value and math.isfinite(value) else 0
    return f"{format_number(value / 1000**power)} {['', 'k', 'M', 'G', 'T', 'P'][power]}{unit}"


def format_columns(lines: Sequence[Sequence[str]], align: str) -> str:
    """Returns lines of cells as a plain-text table; `align` has "<" or ">" for each column."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(line, align, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in table)


def list_parameters(params: Mapping) -> list[tuple[str, str, int]]:
    """Returns (path, shapes, count) of each module in order; long lists fold to networks and top-level modules."""
    leaves = [
        ([str(getattr(key, "key", getattr(key, "idx", key))) for key in path], np.shape(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(dict(params))
    ]
    long = len({tuple(path[:-1]) for path, _ in leaves}) > _FOLD
    modules: dict[str, list] = {}
    for path, shape in leaves:
        module = path[:-1] or path
        modules.setdefault("/".join(module[:2] if long else module), []).append((path[-1], shape))

    def describe(arrays):
        if len(arrays) > 4:
            return f"{len(arrays)} arrays"
        return ", ".join(f"{name} {'×'.join(map(str, shape)) or 'scalar'}" for name, shape in arrays)

    return [(path, describe(arrays), sum(math.prod(s) for _, s in arrays)) for path, arrays in modules.items()]


def grid(images: Float[ArrayLike, "..."]) -> UInt8[np.ndarray, "..."]:
    """Arranges images row by row in a near-square grid; returns bytes [height, width, channels + 1].

    Images are [count, height, width, channels] or a single one, with 1 or 3 channels. Values are clipped, NaN becomes
    black, and images smaller than 48 pixels are enlarged by an integer factor. The last channel of the grid is opacity,
    0 in gaps and empty cells.
    """
    images = np.asarray(images, np.float32)
    if images.ndim == 3:
        images = images[None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise ValueError(f"images are [count,] height, width, 1 or 3 channels; these have the shape {images.shape}")
    levels = np.round(255 * np.clip(np.nan_to_num(images), 0, 1)).astype(np.uint8)
    scale = math.ceil(_LEGIBLE / max(levels.shape[1:3]))
    levels = levels.repeat(scale, 1).repeat(scale, 2)
    levels = np.concatenate([levels, np.full_like(levels[..., :1], 255)], -1)
    levels = np.pad(levels, ((0, 0), (0, _PADDING), (0, _PADDING), (0, 0)))
    count, height, width, channels = levels.shape
    columns = _columns(count, ideal=math.sqrt(count * height / width))
    cells = np.zeros((math.ceil(count / columns) * columns, height, width, channels), np.uint8)
    cells[:count] = levels
    sheet = cells.reshape(-1, columns, height, width, channels).swapaxes(1, 2)
    return sheet.reshape(-1, columns * width, channels)[:-_PADDING, :-_PADDING]


def _columns(count: int, ideal: float) -> int:
    """Returns the number of columns nearest to `ideal` that leaves no cell empty, if one is within a factor of two."""
    even = [n for n in range(1, count + 1) if count % n == 0 and ideal / 2 < n < ideal * 2]
    return min(even, key=lambda n: (round(abs(math.log(n / ideal)), 6), -n), default=min(count, max(1, round(ideal))))


@functools.lru_cache(maxsize=256)  # a run rewrites its page often, and old figures do not change
def embed_image(path: Path, modified: int, limit: int) -> tuple[str, int, int]:
    """Returns (data URI, width of the file's image, height); an image over `limit` bytes is re-encoded as WebP.

    The limit is before base64 encoding; the smallest WebP (160 pixels) is used even if larger. The cache key `modified`
    is the file's modification time in ns.
    """
    content, kind = path.read_bytes(), "png"
    with PIL.Image.open(path) as picture:
        width, height = picture.size
        for side in (1024, 640, 400, 256, 160):
            if len(content) <= limit:
                break
            smaller, encoded = picture.convert("RGBA"), io.BytesIO()
            smaller.thumbnail((side, side))
            smaller.save(encoded, "webp", quality=80)
            content, kind = encoded.getvalue(), "webp"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}", width, height
