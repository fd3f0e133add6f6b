"""Average precision of PASCAL VOC: Everingham et al., The PASCAL Visual Object Classes Challenge, 2010, section 4.2.

As in Girshick's Python port of the development kit, with which papers measure, a match *exceeds* the threshold, and the
recalls of 2007 are sums of tenths. The kit's boxes have both edges inclusive, so it adds 1 to widths and heights; ours
have far edges exclusive, and nothing is added.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from cvjax.metrics.pairs import Detections, Objects, Pairs, best

FOUND, FALSE, NEITHER = 1, 0, -1
# The kit's recalls of 2007 come from adding up tenths: 0.30000000000000004 is more than the 0.3 of 3 found of 10.
RECALLS_2007 = np.arange(0.0, 1.1, 0.1)


def match(
    detections: Detections, objects: Objects, pairs: Pairs, iou_threshold: float = 0.5
) -> tuple[Int[np.ndarray, " detections"], Int[np.ndarray, " detections"]]:
    """Judges detections as the kit does.

    Each is for the object of its class that it overlaps most (the first of equal ones), found already or not. If they
    overlap by more than the threshold, the first detection of an object finds it, the others are false, and those of a
    difficult object (or crowd) are neither. The kit goes through the detections of all images by falling score; as
    those of one image do not touch the objects of another, judging each image by itself gives the same.

    Returns (FOUND, FALSE or NEITHER for each detection, the object that it is for or -1).
    """
    overlap, target = best(pairs, np.ones(len(pairs.iou), bool), len(detections.group))
    target = np.where(overlap > iou_threshold, target, -1)
    out = np.append(objects.difficult | objects.crowd, False)[target]  # -1: for none
    verdict = np.where(out, NEITHER, FALSE)
    claims = np.flatnonzero((target >= 0) & ~out)
    _, first = np.unique(target[claims], return_index=True)  # detections of a group lie by falling score
    verdict[claims[first]] = FOUND
    return verdict, target


def curve(
    scores: Float[np.ndarray, " detections"], found: Bool[np.ndarray, " detections"], count: int
) -> tuple[Float[np.ndarray, " detections"], Float[np.ndarray, " detections"]]:
    """Returns (recall, precision) after each detection of a class, by falling score; equal ones stay in their order.

    `found` says whether each finds an object; the others are false. `count` is the number of objects without difficult
    ones, at least 1.
    """
    hits = np.cumsum(found[np.argsort(-scores, kind="stable")])
    return hits / count, hits / np.arange(1, len(hits) + 1)


def average_precision(
    recall: Float[np.ndarray, " detections"],
    precision: Float[np.ndarray, " detections"],
    method: Literal["2007", "area"],
) -> float:
    """Returns the precision averaged over recalls, in [0, 1]; 0 without detections.

    Args:
      recall, precision: as `curve` returns them.
      method: "2007": the mean of the best precisions at 11 recalls and above; "area", as in the kits since 2010: the
        area under the curve, made to fall.
    """
    falling = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if method == "2007":
        return float(falling[np.searchsorted(recall, RECALLS_2007)].mean())
    return float(np.sum(np.diff(recall, prepend=0.0) * falling[:-1]))


class Tally:
    """Judges batch after batch, and keeps of each detection its class, its score and its verdict."""

    def __init__(self, classes: int, iou_threshold: float = 0.5):
        self.classes, self.iou_threshold = classes, iou_threshold
        self.counts = np.zeros(classes, np.int64)
        self._kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, detections: Detections, objects: Objects, pairs: Pairs) -> None:
        """Judges the detections of some images."""
        counted = ~(objects.difficult | objects.crowd)
        self.counts += np.bincount(objects.group[counted] % self.classes, minlength=self.classes)
        verdict, _ = match(detections, objects, pairs, self.iou_threshold)
        kept = verdict != NEITHER
        self._kept.append((detections.group[kept] % self.classes, detections.scores[kept], verdict[kept] == FOUND))

    def curves(self) -> dict[int, tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]]:
        """Returns class -> (recall, precision) after each detection, for every class with an object."""
        if not self._kept:
            return {}
        labels, scores, found = (np.concatenate(column) for column in zip(*self._kept, strict=True))
        present = np.flatnonzero(self.counts)
        return {int(c): curve(scores[labels == c], found[labels == c], int(self.counts[c])) for c in present}
