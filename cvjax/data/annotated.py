"""Images and their boxes as files of annotations have them, before anything is checked against the images."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cvjax.data.coco_entries import Place

Where = str | Place  # file and line, as text or what becomes text


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """A box as a file has it, with the name of its class.

    Attributes:
      where: file and line.
      corners: x1, y1, x2, y2 in pixels or, if `relative`, as shares of the sides.
      difficult, crowd: as VOC and COCO mark objects.
      area: of the object's mask in square pixels; None: the box's.
      fault: what is wrong with the line, or "".
      segmentation: as for `cvjax.data.segmentations`; relative if the corners are.
      keypoints: x, y and visibility of each joint in turn, as COCO writes them.
    """

    where: Where
    name: str = ""
    corners: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    relative: bool = False
    difficult: bool = False
    crowd: bool = False
    area: float | None = None
    fault: str = ""
    segmentation: Any = None
    keypoints: Any = None


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image and its boxes, in the order of their file; `file` is None if the image is missing.

    Attributes:
      where: file and line that name the image; "" if none does.
      size: height and width that the annotation gives, if any.
      splits: names of the splits that lists, or the annotation's file, give, if any.
      fault: what is wrong apart from the boxes, or "".
    """

    file: Path | None
    boxes: tuple[Box, ...] = ()
    where: Where = ""
    size: tuple[int, int] | None = None
    splits: tuple[str, ...] = ()
    fault: str = ""


@dataclasses.dataclass(frozen=True)
class Boxes:
    """All boxes of a folder in one format, "COCO", "VOC" or "YOLO"; `classes` are in the order of their labels.

    Attributes:
      pictures: images that exist, in the order of their paths, and before them annotations without an image.
      unannotated: images that COCO's or VOC's files do not name, which are left out.
      listed: whether lists divide the images, so that each has a split.
      unlisted: images of no split, where lists divide the others, which are left out.
      joints: the names of the keypoints of each class that has some; those of two classes may be the same.
      skeleton: pairs of keypoints to be connected, as the first such class has them, from 0 on.
    """

    kind: str
    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    unannotated: tuple[Path, ...] = ()
    listed: bool = False
    unlisted: tuple[Path, ...] = ()
    joints: tuple[tuple[str, ...], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()


def size_of(height: Any, width: Any) -> tuple[int, int] | None:
    """Returns the size that an annotation gives, None if it gives none or zero."""
    sides = numbers_of([height, width])
    return (int(sides[0]), int(sides[1])) if sides and all(sides) else None


def numbers_of(values: Sequence[Any]) -> list[float] | None:
    """Returns finite numbers, None if a value is not one."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
