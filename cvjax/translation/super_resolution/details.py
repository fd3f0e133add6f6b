"""Pictures of super-resolution: each picture, and where interpolation fails most, magnified, in several versions.

The captions have each version's PSNR by the convention of the title (Wang et al., 2004, and `cvjax.metrics.image`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from cvjax.metrics.image import Convention, psnr
from cvjax.metrics.plots import draw_windows

Picture = Float[np.ndarray, "_ _ channels"]

SIDE = 48  # pixels of a detail, at most


def find_detail(truth: Picture, bicubic: Picture, side: int) -> tuple[int, int]:
    """Returns the upper left corner of the square in which the squared error of an interpolation is largest."""
    errors = np.pad(((truth.astype(np.float64) - bicubic) ** 2).mean(axis=-1), ((1, 0), (1, 0)))
    sums = errors.cumsum(axis=0).cumsum(axis=1)
    squares = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    top, left = np.unravel_index(squares.argmax(), squares.shape)
    return int(top), int(left)


def draw_details(
    pictures: Sequence[tuple[Picture, Mapping[str, Picture]]], scale: int, convention: Convention
) -> Float[np.ndarray, "height width 3"]:
    """Returns a figure with a row for each picture: all of it, and a detail interpolated, found by us and true.

    The detail is chosen by the error of the bicubic interpolation.

    Args:
      pictures: the truth, and {"bicubic", "image"} found for it.
    """
    rows = []
    for truth, found in pictures:
        side = min(SIDE, *truth.shape[:2])
        top, left = find_detail(truth, found["bicubic"], side)
        versions = {"bicubic": found["bicubic"], "ours": found["image"]}
        values = {name: psnr(truth[None], version[None], convention)[0] for name, version in versions.items()}
        captions = {f"{name}, {values[name]:.2f} dB": version for name, version in versions.items()}
        rows.append((truth, (top, left, side), {**captions, "truth": truth}))
    return draw_windows(rows, f"{scale} times as large, sides cut to multiples of {scale}; PSNR of {convention}")
