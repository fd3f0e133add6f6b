"""Where a patch is printed: a disc, a square, the frame of glasses, a shirt; as masks that are drawn once, on the host.

Disc: Brown et al., Adversarial Patch, 2017 (arXiv:1712.09665). Glasses: Sharif et al., Accessorize to a Crime, 2016.
Shirt: Xu et al., Adversarial T-shirt! Evading Person Detectors in a Physical World, 2020 (arXiv:1910.11099).
"""

from typing import Literal, get_args

import cv2
import numpy as np
from jaxtyping import Float

Region = Literal["disc", "square", "glasses", "shirt"]
Mask = Float[np.ndarray, "rows columns"]
FINE = 8  # times the mask's size at which an outline is drawn, so that its edge has shades


def mask_of(region: Region, size: int) -> Mask:
    """Returns 1 where a region of this width is printed, 0 around it, and shares of a pixel along its edge.

    The disc and the square are as high as they are wide, a shirt too, and glasses 0.4 times as high.
    """
    if region not in get_args(Region):
        raise ValueError(f"no region {region!r}")
    width = FINE * size
    height = FINE * max(round(size * (0.4 if region == "glasses" else 1)), 1)
    canvas = np.zeros((height, width), np.uint8)
    DRAWN[region](canvas)
    return cv2.resize(canvas.astype(np.float32), (size, height // FINE), interpolation=cv2.INTER_AREA)


def _disc(canvas: np.ndarray) -> None:
    y, x = np.indices(canvas.shape) + 0.5
    middle = canvas.shape[0] / 2
    canvas[np.square(y - middle) + np.square(x - middle) <= middle**2] = 1


def _square(canvas: np.ndarray) -> None:
    canvas[:] = 1


def _glasses(canvas: np.ndarray) -> None:
    """Two rims, the bridge between them and the beginnings of the temples."""
    height, width = canvas.shape
    y, x = np.indices(canvas.shape) + 0.5
    x, y = x / width, y / height - 0.5
    for centre in (0.26, 0.74):
        outer = ((x - centre) / 0.24) ** 4 + (y / 0.5) ** 4 <= 1  # between an ellipse and a rectangle
        inner = ((x - centre) / 0.15) ** 4 + (y / 0.28) ** 4 <= 1
        canvas[outer & ~inner] = 1
    canvas[(np.abs(x - 0.5) < 0.1) & (y > -0.3) & (y < -0.08)] = 1
    canvas[((x < 0.05) | (x > 0.95)) & (y > -0.35) & (y < -0.1)] = 1


def _shirt(canvas: np.ndarray) -> None:
    """A body with two short sleeves and a round neck."""
    outline = [(0.34, 0.0), (0.2, 0.04), (0.0, 0.3), (0.13, 0.44), (0.23, 0.35), (0.23, 1.0)]
    outline += [(1 - x, y) for x, y in reversed(outline)]
    corners = np.round(np.multiply(outline, canvas.shape[::-1])).astype(np.int32)
    cv2.fillPoly(canvas, [corners], 1)
    height, width = canvas.shape
    cv2.ellipse(canvas, (width // 2, 0), (round(0.16 * width), round(0.13 * height)), 0, 0, 360, 0, -1)


DRAWN = {"disc": _disc, "square": _square, "glasses": _glasses, "shirt": _shirt}
