"""Which detections could be which objects: pairs of one class in one image, from which all measures start."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from cvjax.errors import UserError

Arrays = Mapping[str, Shaped[np.ndarray, "batch ..."]]
Boxes = Float[np.ndarray, "rows 4"]


class Detections(NamedTuple):
    """The detections of some images, in groups of one class in one image, each by falling score.

    The group's number is image * classes + class; the rank is the place in it, from 0. Boxes and scores are float64.

    Attributes:
      area: by which they are small or large, in square pixels: width times height, negative for boxes inside out.
      slot: the place in the padded arrays of the image.
    """

    group: Int[np.ndarray, " detections"]
    boxes: Float[np.ndarray, "detections 4"]
    scores: Float[np.ndarray, " detections"]
    rank: Int[np.ndarray, " detections"]
    area: Float[np.ndarray, " detections"]
    slot: Int[np.ndarray, " detections"]


class Objects(NamedTuple):
    """The objects of some images, in groups as `Detections`, in a group as annotated.

    Attributes:
      boxes: float64.
      difficult: of the VOC.
      crowd: of COCO: the box holds several objects.
      area: as annotated, in square pixels.
      ignored: of COCO: neither missed nor found, as crowds are.
      slot: the place in the padded arrays of the image.
    """

    group: Int[np.ndarray, " objects"]
    boxes: Float[np.ndarray, "objects 4"]
    difficult: Bool[np.ndarray, " objects"]
    crowd: Bool[np.ndarray, " objects"]
    area: Float[np.ndarray, " objects"]
    ignored: Bool[np.ndarray, " objects"]
    slot: Int[np.ndarray, " objects"]


class Pairs(NamedTuple):
    """Pairs of a detection and an object of the same group: detection by detection, in each object by object.

    Attributes:
      detection, object: indices.
      iou: intersection over union.
      cover: intersection over the area of the detection.
    """

    detection: Int[np.ndarray, " pairs"]
    object: Int[np.ndarray, " pairs"]
    iou: Float[np.ndarray, " pairs"]
    cover: Float[np.ndarray, " pairs"]


def list_detections(outputs: Arrays, classes: int) -> Detections:
    """Returns all that are `detected` in padded arrays; of equal scores the one of lower index comes first.

    The arrays are boxes [batch, k, 4] in pixels, scores, labels and detected [batch, k]. Raises a UserError if a label
    is not one of the classes.
    """
    image, slot = np.nonzero(outputs["detected"])
    scores = outputs["scores"][image, slot].astype(np.float64)
    group = _groups(image, outputs["labels"][image, slot], classes, "detection")
    order = np.lexsort((-scores, group))  # stable
    group, image, slot = group[order], image[order], slot[order]
    rank = np.arange(len(group)) - np.searchsorted(group, group)
    boxes = outputs["boxes"][image, slot].astype(np.float64)
    return Detections(group, boxes, scores[order], rank, (boxes[:, 2:] - boxes[:, :2]).prod(1), slot)


def list_objects(batch: Arrays, classes: int) -> Objects:
    """Returns all that `mask` leaves in padded arrays; raises a UserError if a label is not one of the classes.

    The arrays are boxes [batch, n, 4] in pixels, labels and mask [batch, n]; optionally difficult, crowd and area
    [batch, n], by default False, False and the area of the box.
    """
    image, slot = np.nonzero(batch["mask"])
    group = _groups(image, batch["labels"][image, slot], classes, "object")
    order = np.argsort(group, kind="stable")
    image, slot = image[order], slot[order]
    boxes = batch["boxes"][image, slot].astype(np.float64)
    none = np.zeros_like(batch["mask"], bool)
    difficult, crowd = (np.asarray(batch.get(name, none), bool)[image, slot] for name in ("difficult", "crowd"))
    area = batch["area"][image, slot].astype(np.float64) if "area" in batch else areas(boxes)
    return Objects(group[order], boxes, difficult, crowd, area, crowd, slot)


def areas(boxes: Boxes) -> Float[np.ndarray, " rows"]:
    """Returns areas in square pixels, 0 for empty boxes."""
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def overlaps(a: Boxes, b: Boxes) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Returns (intersection over union, intersection over the area of a) of boxes row by row; 0 without overlap."""
    size = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0)
    shared, own = size[:, 0] * size[:, 1], areas(a)
    union = own + areas(b) - shared
    zeros = np.zeros(len(a))
    return tuple(np.divide(shared, whole, out=zeros.copy(), where=shared > 0) for whole in (union, own))


def pair(detections: Detections, objects: Objects) -> Pairs:
    """Returns every detection with every object of its class in its image, and their overlaps."""
    first = np.searchsorted(objects.group, detections.group)
    count = np.searchsorted(objects.group, detections.group, side="right") - first
    left = np.repeat(np.arange(len(count)), count)
    right = np.arange(count.sum()) - np.repeat(count.cumsum() - count - first, count)
    return Pairs(left, right, *overlaps(detections.boxes[left], objects.boxes[right]))


def best(
    pairs: Pairs, chosen: Bool[np.ndarray, " pairs"], count: int
) -> tuple[Float[np.ndarray, " detections"], Int[np.ndarray, " detections"]]:
    """Finds the object that each detection overlaps most, the first of equal ones.

    Returns (its intersection over union, its index) for each of `count` detections, 0 and -1 if no chosen pair
    overlaps.
    """
    detection, overlap = pairs.detection[chosen], pairs.iou[chosen]
    greatest = np.zeros(count)
    np.maximum.at(greatest, detection, overlap)
    hits = np.flatnonzero((overlap > 0) & (overlap == greatest[detection]))
    who, first = np.unique(detection[hits], return_index=True)
    where = np.full(count, -1)
    where[who] = pairs.object[chosen][hits[first]]
    return greatest, where


def _groups(image: np.ndarray, labels: np.ndarray, classes: int, what: str) -> np.ndarray:
    labels = labels.astype(np.int64)
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise UserError(f"A label of an {what} is {wrong[0]}; there are {classes} classes, 0 to {classes - 1}.")
    return image.astype(np.int64) * classes + labels
