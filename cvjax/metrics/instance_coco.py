"""COCO's average precision of masks and of joints, equal to pycocotools', image by image.

Detections are matched as boxes are, `cvjax.metrics.coco.match`; what differs is the overlap. That of masks is counted
in pixels, over runs of them (RLE), by pycocotools itself; that of joints is object keypoint similarity, OKS. A set of
any size passes through: of each detection only its verdicts are kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools import mask as rle

from cvjax.errors import UserError
from cvjax.metrics import coco
from cvjax.metrics.pairs import Arrays, Detections, Objects, Pairs, list_detections, list_objects
from cvjax.ops.instance_masks import threshold_masks

MASK_FIGURES = tuple(f"mask_{name}" for name in coco.FIGURES)
KEYPOINT_FIGURES = ("keypoint_ap", "keypoint_ap50", "keypoint_ap75", "keypoint_ap_medium", "keypoint_ap_large")
KEYPOINT_FIGURES += tuple(name.replace("_ap", "_ar") for name in KEYPOINT_FIGURES)
KEYPOINT_LIMITS = (20,)  # people in an image that count

Rows = Iterable[tuple[Arrays, Arrays]]
Runs = dict[str, Any]  # an RLE of pycocotools: size, counts
Sigmas = Sequence[float] | Float[np.ndarray, " joints"]
Overlaps = Float[np.ndarray, "detections objects"]


# --- masks --------------------------------------------------------------------------------------------------------


def encode(mask: Bool[np.ndarray, "height width"]) -> Runs:
    """Returns a mask as COCO's run-length encoding, with bytes as `counts`."""
    return rle.encode(np.asfortranarray(mask, dtype=np.uint8))


def encode_part(part: Bool[np.ndarray, "rows columns"], corner: tuple[int, int], height: int, width: int) -> Runs:
    """Returns the encoding of an image's mask of which only a part is not empty; it takes no longer than the part.

    `corner` is the row and column of the part's upper left pixel.
    """
    columns, rows = np.nonzero(part.T)
    places = (columns + corner[1]) * height + rows + corner[0]
    ends = np.flatnonzero(np.diff(places, append=-1) != 1)
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    edges = np.stack([places[starts], places[ends] + 1], axis=1).ravel()
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    return rle.frPyObjects(
        {"size": [height, width], "counts": counts[: len(counts) - (counts[-1] == 0)]}, height, width
    )


def true_mask(batch: Arrays, image: int, slot: int) -> Bool[np.ndarray, "height width"]:
    """Returns the mask of an object: of `masks`, which may overlap, or of `instances`, numbered from 1 in box order."""
    return batch["masks"][image, slot] if "masks" in batch else batch["instances"][image] == slot + 1


class MaskTally:
    """Judges masks batch after batch.

    Objects marked difficult count like any others, as with COCO's boxes.
    """

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self._tally = coco.Tally(len(self.classes))

    def add(self, batch: Arrays, outputs: Arrays) -> None:
        """Judges the masks of some images.

        Args:
          batch: as for `cvjax.metrics.detection.measure`, and `masks` bool [batch, objects, height, width] or
            `instances` [batch, height, width]. Sizes go by `area`, or the pixels of the masks without it.
          outputs: as there, and `masks`, probabilities float32 [batch, detections, size, size] in the boxes, which are
            pasted, or bool [batch, detections, height, width].
        """
        height, width = np.shape(batch["masks" if "masks" in batch else "instances"])[-2:]
        detections, objects = list_detections(outputs, len(self.classes)), list_objects(batch, len(self.classes))
        detections = Detections(*(column[detections.rank < coco.LIMITS[-1]] for column in detections))
        found = [self._detected(outputs, detections, row, height, width) for row in range(len(detections.group))]
        places = zip((objects.group // len(self.classes)).tolist(), objects.slot.tolist(), strict=True)
        true = [encode(true_mask(batch, image, slot)) for image, slot in places]
        detections = detections._replace(area=np.array([float(rle.area(runs)) for runs in found]))
        if "area" not in batch:
            objects = objects._replace(area=np.array([float(rle.area(runs)) for runs in true]))

        def overlaps(some: slice, others: slice) -> Overlaps:
            return rle.iou(found[some], true[others], objects.crowd[others].tolist())

        self._tally.add(detections, objects, pair_by(overlaps, detections, objects))

    def _detected(self, outputs: Arrays, detections: Detections, row: int, height: int, width: int) -> Runs:
        image, slot = detections.group[row] // len(self.classes), detections.slot[row]
        mask = outputs["masks"][image, slot]
        if mask.dtype == bool:
            return encode(mask)
        return encode(threshold_masks(mask[None], outputs["boxes"][image, slot][None], height, width)[0])

    def figures(self) -> dict[str, float]:
        """Returns COCO's twelve, `mask_ap`, ..., and `mask_ap/<class>` of each class; -1 without objects."""
        totals, per_class, _ = self._tally.figures()
        named = {f"mask_{name}": value for name, value in totals.items()}
        return named | {f"mask_ap/{label}": value for label, value in zip(self.classes, per_class, strict=True)}


def mask_figures(rows: Rows, classes: Sequence[str]) -> dict[str, float]:
    """Returns the figures of all masks; the arguments are those of `MaskTally` and its `add`."""
    tally = MaskTally(classes)
    for batch, outputs in rows:
        tally.add(batch, outputs)
    return tally.figures()


# --- joints -------------------------------------------------------------------------------------------------------


def keypoint_similarity(
    found: Float[np.ndarray, "detections joints 2"],
    true: Float[np.ndarray, "joints 2"],
    labelled: Bool[np.ndarray, " joints"],
    box: Float[np.ndarray, "4"],
    area: float,
    sigmas: Float[np.ndarray, " joints"],
) -> Float[np.ndarray, " detections"]:
    """Returns the OKS of detections with one object (https://cocodataset.org/#keypoints-eval, read 2026).

    It is the mean over labelled joints of exp(-d^2 / (2 (2 sigma)^2 area)). Of an object without labelled joints, which
    is ignored, d is how far a joint lies outside of the box doubled in all directions, over all joints.
    """
    if labelled.any():
        x, y = np.moveaxis(found - true, -1, 0)
    else:
        size = box[2:] - box[:2]
        low, high = box[:2] - size, box[:2] + size * 2
        x, y = np.moveaxis(np.maximum(0, low - found) + np.maximum(0, found - high), -1, 0)
    exponent = (x**2 + y**2) / (sigmas * 2) ** 2 / (area + np.spacing(1)) / 2
    kept = exponent[:, labelled] if labelled.any() else exponent
    return np.exp(-np.ascontiguousarray(kept)).sum(1) / kept.shape[1]


class KeypointTally:
    """Judges joints batch after batch; objects marked difficult count like any others.

    Args:
      sigmas: how far annotators lay apart, of each joint, over the square root of the object's area.
      classes: names of the classes.
    """

    def __init__(self, sigmas: Sigmas, classes: Sequence[str] = ("person",)):
        self.sigmas, self.classes = np.asarray(sigmas, np.float64), tuple(classes)
        self._tally = coco.Tally(len(self.classes), KEYPOINT_LIMITS)

    def add(self, batch: Arrays, outputs: Arrays) -> None:
        """Judges the joints of some images.

        Args:
          batch: as for `cvjax.metrics.detection.measure`, and `keypoints` [batch, objects, joints, 2 or more], `x, y`
            in pixels, and `visibility` [batch, objects, joints], 0 where a joint is not labelled.
          outputs: as there, and `keypoints` [batch, detections, joints, 2 or more].

        Raises:
          UserError: another number of joints than sigmas.
        """
        for what, arrays in (("batch", batch), ("outputs", outputs)):
            if (joints := np.shape(arrays["keypoints"])[2]) != len(self.sigmas):
                raise UserError(f"The {what} have {joints} joints an object, and there are {len(self.sigmas)} sigmas.")
        detections, objects = list_detections(outputs, len(self.classes)), list_objects(batch, len(self.classes))
        detections = Detections(*(column[detections.rank < KEYPOINT_LIMITS[-1]] for column in detections))
        found = outputs["keypoints"][detections.group // len(self.classes), detections.slot][..., :2].astype(np.float64)
        place = objects.group // len(self.classes), objects.slot
        true, labelled = batch["keypoints"][place][..., :2].astype(np.float64), batch["visibility"][place] > 0
        detections = detections._replace(area=np.ptp(found, axis=1).prod(1))
        objects = objects._replace(ignored=objects.crowd | ~labelled.any(1))

        def overlaps(some: slice, others: slice) -> Overlaps:
            columns = zip(true[others], labelled[others], objects.boxes[others], objects.area[others], strict=True)
            return np.stack([keypoint_similarity(found[some], *column, self.sigmas) for column in columns], axis=1)

        self._tally.add(detections, objects, pair_by(overlaps, detections, objects))

    def figures(self) -> dict[str, float]:
        """Returns COCO's ten, `keypoint_ap`, ..., `keypoint_ar_large`; -1 without objects that have labelled joints."""
        p, r = self._tally.tables()
        parts = [(table[:, 0], table[:, 0, 0], table[:, 0, 5], table[:, 2], table[:, 3]) for table in (p, r)]
        values = map(coco.mean, (*parts[0], *parts[1]))
        return dict(zip(KEYPOINT_FIGURES, values, strict=True))


def keypoint_figures(rows: Rows, sigmas: Sigmas, classes: Sequence[str] = ("person",)) -> dict[str, float]:
    """Returns the figures of all joints; the arguments are those of `KeypointTally` and its `add`."""
    tally = KeypointTally(sigmas, classes)
    for batch, outputs in rows:
        tally.add(batch, outputs)
    return tally.figures()


# --- both ---------------------------------------------------------------------------------------------------------


def watch(rows: Rows, *tallies: MaskTally | KeypointTally) -> Iterator[tuple[Arrays, Arrays]]:
    """Returns an iterator over rows that each tally sees as they pass: several measures of one stream."""
    for batch, outputs in rows:
        for tally in tallies:
            tally.add(batch, outputs)
        yield batch, outputs


def pair_by(overlaps: Callable[[slice, slice], Overlaps], detections: Detections, objects: Objects) -> Pairs:
    """Returns every detection with every object of its class in its image, as `cvjax.metrics.pairs.pair` does.

    `overlaps` gives those of some detections and some objects, of crowds as COCO has it.
    """
    columns: list[tuple[np.ndarray, ...]] = [(*2 * [np.zeros(0, int)], np.zeros(0))]
    for group in np.intersect1d(detections.group, objects.group).tolist():
        some, others = (_span(rows.group, group) for rows in (detections, objects))
        left, right = np.mgrid[some, others]
        columns.append((left.ravel(), right.ravel(), np.asarray(overlaps(some, others), np.float64).ravel()))
    left, right, overlap = map(np.concatenate, zip(*columns, strict=True))
    return Pairs(left, right, overlap, overlap)


def _span(groups: Int[np.ndarray, " rows"], group: int) -> slice:
    first, end = np.searchsorted(groups, [group, group + 1])
    return slice(int(first), int(end))
