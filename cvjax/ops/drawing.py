"""Boxes drawn on images, on the host."""

import colorsys
import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jaxtyping import Float, Integer
from matplotlib import ft2font
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

Image = Float[np.ndarray, "height width channels"]


def colour(label: int) -> tuple[float, float, float]:
    """Returns red, green, blue in [0, 1] of the class of this number, far from the colours of the classes before it."""
    return colorsys.hsv_to_rgb(label * 0.61803398875 % 1, 0.9 - 0.3 * (label // 8 % 2), 1.0)


def label_text(label: int, names: Sequence[str]) -> str:
    """Returns the name of a class, or its number if it has no name or one whose letters DejaVu Sans lacks."""
    return names[label] if 0 <= label < len(names) and set(map(ord, names[label])) <= _letters() else str(label)


def draw_boxes(
    image: Image,
    boxes: Float[np.ndarray, "boxes 4"],
    labels: Integer[np.ndarray, " boxes"],
    names: Sequence[str],
    scores: Float[np.ndarray, " boxes"] | None = None,
    scale: int = 1,
) -> Float[np.ndarray, "rows columns 3"]:
    """Returns a copy of a grey or RGB image with boxes and the names of their classes, the first of them on top.

    Args:
      boxes: in pixels of the image. Empty boxes and those outside the image are left out.
      names: of the classes, shown as `label_text` has them.
      scores: in [0, 1], shown in per cent after the names.
      scale: whole factor by which the image is enlarged first, so that names are legible on small images.
    """
    levels = np.round(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
    levels = np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)).repeat(scale, 0).repeat(scale, 1))
    height, width = levels.shape[:2]
    thickness = max(1, round(min(height, width) / 250))
    for i in reversed(range(len(boxes))):
        box = boxes[i] * scale
        seen = np.minimum(box[2:], (width, height)) > np.maximum(box[:2], 0)
        if not seen.all():  # also false for NaN
            continue
        # The outermost pixels that the box touches, clipped: distant ones would overflow OpenCV's integers.
        x1, y1 = np.clip(np.floor(box[:2]), -thickness, (width, height)).astype(int).tolist()
        x2, y2 = np.clip(np.ceil(box[2:]) - 1, -1, (width + thickness, height + thickness)).astype(int).tolist()
        label = int(labels[i])
        ink = tuple(round(255 * part) for part in colour(label))
        cv2.rectangle(levels, (x1, y1), (x2, y2), ink, thickness)
        name = label_text(label, names)
        _write(levels, name if scores is None else f"{name} {100 * scores[i]:.0f}", x1, y1, ink, 0.3 + 0.1 * thickness)
    return levels.astype(np.float32) / 255


def _write(levels: np.ndarray, text: str, x: int, y: int, paper: tuple[int, ...], size: float) -> None:
    """Writes on a strip of the class's colour, above the corner of the box or, at the border, inside of it."""
    ink = (0, 0, 0) if np.dot(paper, (0.299, 0.587, 0.114)) > 110 else (255, 255, 255)
    font = _font(round(28 * size))
    strip = PILImage.new("RGB", (2 + round(font.getlength(text)), sum(font.getmetrics())), paper)
    ImageDraw.Draw(strip).text((1, 0), text, ink, font)
    height, width = strip.height, strip.width
    x = max(0, min(x, levels.shape[1] - width))
    y = y - height if y >= height else max(0, y)
    window = levels[y : y + height, x : x + width]
    window[:] = np.asarray(strip)[: window.shape[0], : window.shape[1]]


FONT = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


@functools.lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT, size)


@functools.cache
def _letters() -> frozenset[int]:
    return frozenset(ft2font.FT2Font(str(FONT)).get_charmap())
