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

    Raises a ValueError for what `damage` finds.
    """
    if segmentation and (found := damage(segmentation, height, width)):
        raise ValueError(found)
    if isinstance(segmentation, Mapping):
        counts = segmentation["counts"]
        runs = coco.frPyObjects(segmentation, height, width) if isinstance(counts, list) else segmentation
        return coco.decode(runs).astype(bool)
    if not segmentation:
        return np.zeros((height, width), bool)
    return coco.decode(coco.merge(coco.frPyObjects(segmentation, height, width))).astype(bool)


def scaled(segmentation: Any, height: int, width: int) -> list[list[float]]:
    """Returns polygons in pixels from polygons in shares of the sides."""
    return [(np.asarray(polygon) * np.resize([width, height], len(polygon))).tolist() for polygon in segmentation]


def fault(segmentation: Any, height: int, width: int) -> str:
    """Returns why nothing of an object is drawn on an image of this size, or ""."""
    if not segmentation:
        return "it has no segmentation"
    if found := damage(segmentation, height, width):
        return found
    if isinstance(segmentation, Mapping):
        return "" if sum(_counts(segmentation)[1::2]) else "its run lengths have no pixel inside"
    for polygon in segmentation:
        across, down = polygon[::2], polygon[1::2]
        if max(across) > 0 and max(down) > 0 and min(across) < width and min(down) < height:
            return ""
    return f"its polygons are outside the image of {width}x{height} pixels"


def damage(segmentation: Any, height: int, width: int) -> str:
    """Returns what is wrong with polygons or run lengths for an image of this size, or ""."""
    if isinstance(segmentation, Mapping):
        return _damage_of_runs(segmentation, height, width)
    if not isinstance(segmentation, list) or not all(isinstance(polygon, list) for polygon in segmentation):
        return f"segmentation={str(segmentation)[:60]} is neither a list of polygons nor run lengths"
    for polygon in segmentation:
        numbers = numbers_of(polygon)
        if numbers is None:
            return f"a polygon has what is no number: {str(polygon)[:60]}"
        if len(numbers) % 2:
            return f"a polygon has {len(numbers)} numbers, and those of points come in pairs"
        if len(numbers) < 6:  # pycocotools takes four numbers for a box
            return f"a polygon has {len(numbers) // 2} points, and needs 3"
        for row, side in ((numbers[::2], width), (numbers[1::2], height)):
            if min(row) < -side or max(row) > 2 * side:  # pycocotools works with whole numbers of a limited size
                return f"a polygon has points further outside the image of {width}x{height} pixels than it is large"
    return ""


def _counts(runs: Mapping[str, Any]) -> Any:
    counts = runs.get("counts")
    if isinstance(counts, str | bytes):
        counts = run_lengths(counts if isinstance(counts, str) else counts.decode("latin-1"))
    return counts


def _damage_of_runs(runs: Mapping[str, Any], height: int, width: int) -> str:
    if runs.get("size") != [height, width]:
        return f"its run lengths are of the size {runs.get('size')}, and the image is {[height, width]}"
    counts = _counts(runs)
    if not (isinstance(counts, list) and all(isinstance(count, int) and count >= 0 for count in counts)):
        return f"its run lengths cannot be read: {str(runs.get('counts'))[:60]}"
    if sum(counts) != height * width:  # pycocotools would write beyond the image
        return f"its run lengths are of {sum(counts)} pixels, and the image has {height * width}"
    return ""


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
