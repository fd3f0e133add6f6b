"""The pixels of objects in COCO's format: polygons [x1, y1, x2, y2, ...] or run lengths, compressed or not.

Run lengths {"size": [height, width], "counts": ...} go down the columns and begin with the pixels outside.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco

from cvjax.data.annotated import numbers_of


def rasterise(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "height width"]:
    """Draws an object of COCO's format as pycocotools does.

    Raises a ValueError if a polygon has fewer than three points, or run lengths are those of an image of another size.
    """
    if isinstance(segmentation, Mapping):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"its size is {list(segmentation['size'])} and the image's {[height, width]}")
        counts = segmentation["counts"]
        runs = coco.frPyObjects(segmentation, height, width) if isinstance(counts, list) else segmentation
        return coco.decode(runs).astype(bool)
    if not segmentation:
        return np.zeros((height, width), bool)
    for polygon in segmentation:
        if len(polygon) < 6 or len(polygon) % 2:  # pycocotools takes four numbers for a box
            raise ValueError(f"a polygon of {len(polygon)} numbers; three points have 6")
    return coco.decode(coco.merge(coco.frPyObjects(segmentation, height, width))).astype(bool)


def scaled(segmentation: Any, height: int, width: int) -> list[list[float]]:
    """Returns polygons in pixels from polygons in shares of the sides."""
    return [(np.asarray(polygon) * np.resize([width, height], len(polygon))).tolist() for polygon in segmentation]


def fault(segmentation: Any, height: int, width: int) -> str:
    """Returns why an object cannot be drawn on an image of this size, or ""."""
    if not segmentation:
        return "it has no segmentation"
    if isinstance(segmentation, Mapping):
        return _fault_of_runs(segmentation, height, width)
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        return f"segmentation={str(segmentation)[:60]} is neither a list of polygons nor run lengths"
    outside = True
    for polygon in segmentation:
        numbers = numbers_of(polygon)
        if numbers is None:
            return f"a polygon has what is no number: {str(polygon)[:60]}"
        if len(numbers) % 2:
            return f"a polygon has {len(numbers)} numbers, and those of points come in pairs"
        if len(numbers) < 6:
            return f"a polygon has {len(numbers) // 2} points, and needs 3"
        across, down = numbers[::2], numbers[1::2]
        outside &= max(across) <= 0 or max(down) <= 0 or min(across) >= width or min(down) >= height
    return f"its polygons are outside the image of {width}x{height} pixels" if outside else ""


def _fault_of_runs(runs: Mapping[str, Any], height: int, width: int) -> str:
    if runs.get("size") != [height, width]:
        return f"its run lengths are of the size {runs.get('size')}, and the image is {[height, width]}"
    counts = runs.get("counts")
    if isinstance(counts, str | bytes):
        counts = run_lengths(counts if isinstance(counts, str) else counts.decode("latin-1"))
    whole = isinstance(counts, list) and all(isinstance(count, int) and count >= 0 for count in counts)
    if not whole:
        return f"its run lengths cannot be read: {str(runs.get('counts'))[:60]}"
    if sum(counts) != height * width:  # pycocotools would write beyond the image
        return f"its run lengths are of {sum(counts)} pixels, and the image has {height * width}"
    return "" if sum(counts[1::2]) else "its run lengths have no pixel inside"


def run_lengths(text: str) -> list[int] | None:
    """Returns the run lengths that pycocotools compressed to a text, None if it is none.

    Each is written in digits of five bits, the lowest first, with a sixth bit where more follow, as a signed
    difference to the last but one from the fourth on.
    """
    found: list[int] = []
    digits: Sequence[int] = [ord(letter) - 48 for letter in text]
    value, place = 0, 0
    for digit in digits:
        if not 0 <= digit < 64:
            return None
        value, place = value | (digit & 31) << place, place + 5
        if not digit & 32:
            value -= (digit & 16) << (place - 4)  # the sign
            found.append(value + (found[-2] if len(found) > 2 else 0))
            value, place = 0, 0
    return None if place else found
