"""Boxes, masks and skeletons drawn on images, on the host."""

import colorsys
import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from matplotlib import ft2font
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from cvjax.data import people

Image = Float[np.ndarray, "height width channels"]
Drawn = Float[np.ndarray, "rows columns 3"]
Numbers = Integer[np.ndarray, " _"]


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
    colours: Numbers | None = None,
) -> Drawn:
    """Returns a copy of a grey or RGB image with boxes and the names of their classes, the first of them on top.

    Args:
      boxes: in pixels of the image. Empty boxes and those outside the image are left out.
      names: of the classes, shown as `label_text` has them.
      scores: in [0, 1], shown in per cent after the names.
      scale: whole factor by which the image is enlarged first, so that names are legible on small images.
      colours: numbers of the boxes' colours, by default those of their classes.
    """
    levels = _enlarged(image, scale)
    height, width = levels.shape[:2]
    thickness = _thickness(levels)
    for i in reversed(range(len(boxes))):
        box = boxes[i] * scale
        seen = np.minimum(box[2:], (width, height)) > np.maximum(box[:2], 0)
        if not seen.all():  # also false for NaN
            continue
        # The outermost pixels that the box touches, clipped: distant ones would overflow OpenCV's integers.
        x1, y1 = np.clip(np.floor(box[:2]), -thickness, (width, height)).astype(int).tolist()
        x2, y2 = np.clip(np.ceil(box[2:]) - 1, -1, (width + thickness, height + thickness)).astype(int).tolist()
        label = int(labels[i])
        ink = _ink(label if colours is None else int(colours[i]))
        cv2.rectangle(levels, (x1, y1), (x2, y2), ink, thickness)
        name = label_text(label, names)
        _write(levels, name if scores is None else f"{name} {100 * scores[i]:.0f}", x1, y1, ink, 0.3 + 0.1 * thickness)
    return levels.astype(np.float32) / 255


def draw_masks(
    image: Image,
    masks: Sequence[Bool[np.ndarray, "_ _"]],
    corners: Sequence[tuple[int, int]] | None = None,
    colours: Numbers | None = None,
    opacity: float = 0.45,
) -> Drawn:
    """Returns a copy of a grey or RGB image with masks painted over it, in a colour each, and their outlines.

    The first of them is on top.

    Args:
      masks: of the whole image, or of a part of it that lies inside.
      corners: row and column of the upper left pixel of each part.
      colours: their numbers, by default 0, 1, ...
      opacity: of the paint inside of the outline.
    """
    levels = _enlarged(image, 1)
    for i in reversed(range(len(masks))):
        ink, (top, left) = _ink(i if colours is None else int(colours[i])), corners[i] if corners else (0, 0)
        part = masks[i]
        window = levels[top : top + part.shape[0], left : left + part.shape[1]]
        window[part] = np.round(window[part] + opacity * (np.float32(ink) - window[part]))
        outlines, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(levels, outlines, -1, ink, _thickness(levels), offset=(left, top))
    return levels.astype(np.float32) / 255


def draw_skeletons(
    image: Image,
    positions: Float[np.ndarray, "people joints 2"],
    visibility: Integer[np.ndarray, "people joints"],
    skeleton: Sequence[tuple[int, int]] = (),
    colours: Numbers | None = None,
    scale: int = 1,
) -> Drawn:
    """Returns a copy of a grey or RGB image with joints and the limbs between them, in a colour for each person.

    The first person is on top. Limbs are drawn between joints that are both marked.

    Args:
      positions: in pixels of the image, of which (0.5, 0.5) is the middle of the first.
      visibility: 0: a joint that is not marked, and not drawn; 1: hidden, a ring; 2: visible, a disc.
      skeleton: pairs of joints.
      colours: their numbers, by default 0, 1, ...
      scale: whole factor by which the image is enlarged first.
    """
    levels = _enlarged(image, scale)
    thickness = _thickness(levels)
    marked = (visibility > 0) & np.isfinite(positions).all(-1)
    far = 4 * max(levels.shape)  # distant ones would overflow OpenCV's integers
    places = np.floor(np.clip(np.where(marked[..., None], positions * scale, 0), -far, far)).astype(int).tolist()
    for i in reversed(range(len(positions))):
        ink = _ink(i if colours is None else int(colours[i]))
        for paint, border in (((0, 0, 0), 1), (ink, 0)):  # a black border tells them from a mask of their colour
            for one, other in skeleton:
                if marked[i, one] and marked[i, other]:
                    cv2.line(levels, places[i][one], places[i][other], paint, thickness + 2 * border, cv2.LINE_AA)
            for joint in np.flatnonzero(marked[i]).tolist():
                cv2.circle(levels, places[i][joint], 2 * thickness + border, paint, cv2.FILLED)
        for joint in np.flatnonzero(marked[i]).tolist():
            if visibility[i, joint] == people.HIDDEN:
                cv2.circle(levels, places[i][joint], thickness, (255, 255, 255), cv2.FILLED)
    return levels.astype(np.float32) / 255


def _enlarged(image: np.ndarray, scale: int) -> UInt8[np.ndarray, "rows columns 3"]:
    """A copy of a grey or RGB image, in bytes."""
    levels = np.round(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
    levels = np.broadcast_to(levels, (*levels.shape[:2], 3))
    return levels.repeat(scale, 0).repeat(scale, 1)


def _thickness(levels: np.ndarray) -> int:
    """Of lines, in pixels."""
    return max(1, round(min(levels.shape[:2]) / 250))


def _ink(number: int) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in colour(number))


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
