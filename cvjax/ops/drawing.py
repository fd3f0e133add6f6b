"""Boxes drawn on images, on the host."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Integer

Image = Float[np.ndarray, "height width channels"]


def colour(label: int) -> tuple[float, float, float]:
    """Gives a class its colour, far from those of the classes before it.

    Args:
      label: number of the class.

    Returns:
      Red, green, blue in [0, 1].
    """
    return colorsys.hsv_to_rgb(label * 0.61803398875 % 1, 0.9 - 0.3 * (label // 8 % 2), 1.0)


def draw_boxes(
    image: Image,
    boxes: Float[np.ndarray, "boxes 4"],
    labels: Integer[np.ndarray, " boxes"],
    names: Sequence[str],
    scores: Float[np.ndarray, " boxes"] | None = None,
    scale: int = 1,
) -> Float[np.ndarray, "rows columns 3"]:
    """Draws boxes with the names of their classes, the first of them on top.

    Args:
      image: in [0, 1], one or three channels.
      boxes: corners in pixels of the image, in any place. Empty ones and those outside are left out.
      labels: classes of the boxes.
      names: of the classes. A label beyond them is shown as a number.
      scores: in [0, 1], shown in per cent after the names.
      scale: whole factor by which the image is enlarged first, so that names are legible on a small one.

    Returns:
      A new image, float32 in [0, 1].
    """
    levels = np.round(255 * np.clip(np.nan_to_num(image), 0, 1)).astype(np.uint8)
    levels = np.ascontiguousarray(np.broadcast_to(levels, (*levels.shape[:2], 3)).repeat(scale, 0).repeat(scale, 1))
    height, width = levels.shape[:2]
    thickness = max(1, round(min(height, width) / 250))
    for i in reversed(range(len(boxes))):
        box = boxes[i] * scale
        seen = np.minimum(box[2:], (width, height)) > np.maximum(box[:2], 0)
        if not seen.all():  # nor is a box with NaN
            continue
        # The outermost pixels that the box touches, brought near the image: far ones would overflow OpenCV's integers.
        x1, y1 = np.clip(np.floor(box[:2]), -thickness, (width, height)).astype(int).tolist()
        x2, y2 = np.clip(np.ceil(box[2:]) - 1, -1, (width + thickness, height + thickness)).astype(int).tolist()
        label = int(labels[i])
        ink = tuple(round(255 * part) for part in colour(label))
        cv2.rectangle(levels, (x1, y1), (x2, y2), ink, thickness)
        name = names[label] if 0 <= label < len(names) else str(label)
        _write(levels, name if scores is None else f"{name} {100 * scores[i]:.0f}", x1, y1, ink, 0.3 + 0.1 * thickness)
    return levels.astype(np.float32) / 255


def _write(levels: np.ndarray, text: str, x: int, y: int, paper: tuple[int, ...], size: float) -> None:
    """Writes on a strip of the class's colour, above the corner of the box or, at the border, inside of it."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    ink = (0, 0, 0) if np.dot(paper, (0.299, 0.587, 0.114)) > 110 else (255, 255, 255)
    (width, height), base = cv2.getTextSize(text, font, size, 1)
    x = max(0, min(x, levels.shape[1] - width))
    strip = height + base + 1
    y = y - strip if y >= strip else max(0, y)
    cv2.rectangle(levels, (x, y), (x + width, y + strip - 1), paper, cv2.FILLED)
    cv2.putText(levels, text, (x, y + height + base // 2), font, size, ink, 1, cv2.LINE_AA)
