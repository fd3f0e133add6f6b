"""Average precision and recall of COCO (Lin et al., Microsoft COCO, 2014), equal to pycocotools', image by image.

pycocotools holds a whole set in memory and matches detection by detection in Python. `Tally` judges a batch at once,
and keeps some thirty bytes of each detection. `convert` and `pycocotools_figures` are the official way to the same
figures.
"""

import contextlib
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cvjax.metrics.pairs import Arrays, Detections, Objects, Pairs, areas

IOUS = np.linspace(0.5, 0.95, 10)  # as pycocotools makes them, to the last bit
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"all": (0, 1e5**2), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e5**2)}  # both inclusive
LIMITS = (1, 10, 100)  # detections of a class in an image that count
FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
FIGURES += ("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large")

Verdicts = Bool[np.ndarray, "detections areas ious"]


def match(detections: Detections, objects: Objects, pairs: Pairs) -> tuple[Verdicts, Verdicts]:
    """Judges detections in every range of areas, at every threshold.

    By falling score each takes, of the objects left that it overlaps by the threshold, the one that it overlaps most
    (the last of equal ones). Objects that are ignored and those outside the range of areas are second choice: a
    detection that takes one, or that takes none and lies outside the range itself, is ignored. A crowd is measured by
    how much of the detection it covers, and is never taken up.

    Returns (whether each detection finds an object, whether it is ignored).
    """
    found = np.zeros((len(detections.group), len(AREAS), len(IOUS)), bool)
    ignored = np.zeros_like(found)
    second = objects.ignored[:, None] | _outside(objects.area)
    taken = np.zeros((len(objects.group), len(AREAS), len(IOUS)), bool)
    overlap = np.where(objects.crowd[pairs.object], pairs.cover, pairs.iou)
    close = np.flatnonzero(overlap >= IOUS[0])
    close = close[np.lexsort((pairs.object[close], overlap[close], pairs.detection[close]))]  # the best come last
    detection, candidate, overlap = pairs.detection[close], pairs.object[close], overlap[close]
    place = np.arange(len(close))
    # Detections of one image and class take turns; all images and classes take theirs at the same time.
    turn = _turns(detection, detections.group)
    for now in np.split(np.argsort(turn, kind="stable"), np.cumsum(np.bincount(turn))[:-1]) if len(turn) else ():
        d, o = detection[now], candidate[now]
        free = ~taken[o] | objects.crowd[o, None, None]
        eligible = free & (overlap[now, None] >= IOUS)[:, None]
        choice = np.where(eligible, place[now, None, None] + len(close) * ~second[o][:, :, None], -1)
        starts = np.flatnonzero(np.diff(d, prepend=-1))
        best = np.maximum.reduceat(choice, starts)
        who, area, threshold = np.nonzero(best >= 0)
        what = candidate[best[who, area, threshold] % len(close)]
        taken[what, area, threshold] = True
        found[d[starts][who], area, threshold] = ~second[what, area]
        ignored[d[starts][who], area, threshold] = second[what, area]
    return found, ignored | (~found & _outside(detections.area)[:, :, None])  # as pycocotools: negative areas too


def _outside(area: np.ndarray) -> np.ndarray:
    """Whether areas lie outside each range, [n, ranges]."""
    low, high = np.array(list(AREAS.values())).T
    return (area[:, None] < low) | (area[:, None] > high)


def _turns(detection: np.ndarray, group: np.ndarray) -> np.ndarray:
    """How many other detections of the same group come before, for pairs that lie detection by detection."""
    new = np.diff(detection, prepend=-1) > 0
    count, groups = np.cumsum(new) - 1, group[detection]
    return count - count[np.searchsorted(groups, groups)]


class Tally:
    """Judges batch after batch, and keeps of each detection its class, score, rank and verdicts.

    Objects marked difficult count like any others: COCO does not have the VOC's flag. `limits` are the numbers of
    detections of a class in an image that count.
    """

    def __init__(self, classes: int, limits: Sequence[int] = LIMITS):
        self.classes, self.limits = classes, limits
        self.counts = np.zeros((classes, len(AREAS)), np.int64)
        self._kept: list[tuple[np.ndarray, ...]] = []

    def add(self, detections: Detections, objects: Objects, pairs: Pairs) -> None:
        """Judges the detections of some images."""
        counted = ~(objects.ignored[:, None] | _outside(objects.area))
        np.add.at(self.counts, objects.group % self.classes, counted)
        in_reach = detections.rank < self.limits[-1]
        if not in_reach.all():
            pairs = Pairs(*(column[in_reach[pairs.detection]] for column in pairs))
        verdicts = match(detections, objects, pairs)
        columns = (detections.group % self.classes, detections.scores, detections.rank)
        bits = (np.packbits(verdict.reshape(len(verdict), len(AREAS) * len(IOUS)), axis=1) for verdict in verdicts)
        self._kept.append(tuple(column[in_reach] for column in (*columns, *bits)))

    def tables(
        self,
    ) -> tuple[Float[np.ndarray, "classes areas ious recalls"], Float[np.ndarray, "classes areas ious limits"]]:
        """Returns (precisions, greatest recalls); -1 without objects."""
        precision = np.full((self.classes, len(AREAS), len(IOUS), len(RECALLS)), -1.0)
        recall = np.full((self.classes, len(AREAS), len(IOUS), len(self.limits)), -1.0)
        if self._kept:
            labels, scores, ranks, *bits = (np.concatenate(column) for column in zip(*self._kept, strict=True))
            order = np.lexsort((-scores, labels))  # stable
            bounds = np.searchsorted(labels[order], np.arange(self.classes + 1))
            for c in np.flatnonzero(self.counts.any(1)):
                own = order[bounds[c] : bounds[c + 1]]
                found, ignored = (self._unpack(packed[own]) for packed in bits)
                precision[c], recall[c] = _accumulate(found, ignored, ranks[own], self.counts[c], self.limits)
        return precision, recall

    def figures(self) -> tuple[dict[str, float], list[float], list[float]]:
        """Returns (the twelve figures by name, AP of each class, its AP at 0.5); -1 without objects."""
        all_, small, medium, large = range(4)
        p, r = self.tables()
        means = [p[:, all_], p[:, all_, 0], p[:, all_, 5], p[:, small], p[:, medium], p[:, large]]
        means += [*(r[:, all_, :, i] for i in range(3)), r[:, small, :, 2], r[:, medium, :, 2], r[:, large, :, 2]]
        figures = {name: mean(values) for name, values in zip(FIGURES, means, strict=True)}
        return figures, [mean(p[c, 0]) for c in range(self.classes)], [mean(p[c, 0, 0]) for c in range(self.classes)]

    def _unpack(self, packed: np.ndarray) -> np.ndarray:
        return (
            np.unpackbits(packed, axis=1, count=len(AREAS) * len(IOUS)).reshape(-1, len(AREAS), len(IOUS)).astype(bool)
        )


def _accumulate(
    found: np.ndarray, ignored: np.ndarray, ranks: np.ndarray, counts: np.ndarray, limits: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Precisions [areas, ious, recalls] and greatest recalls [areas, ious, limits] of a class's sorted detections."""
    precision = np.full((len(AREAS), len(IOUS), len(RECALLS)), -1.0)
    recall = np.full((len(AREAS), len(IOUS), len(limits)), -1.0)
    for a in np.flatnonzero(counts):
        hits = (found[:, a] & ~ignored[:, a]).T
        recall[a] = np.stack([hits[:, ranks < limit].sum(1) / counts[a] for limit in limits], -1)
        hits_so_far = np.cumsum(hits, axis=1).astype(float)
        false_so_far = np.cumsum((~found[:, a] & ~ignored[:, a]).T, axis=1).astype(float)
        curve = hits_so_far / (false_so_far + hits_so_far + np.spacing(1))
        falling = np.maximum.accumulate(curve[:, ::-1], axis=1)[:, ::-1]
        falling = np.pad(falling, ((0, 0), (0, 1)))  # recalls that are not reached have precision 0
        for t in range(len(IOUS)):
            precision[a, t] = falling[t, np.searchsorted(hits_so_far[t] / counts[a], RECALLS)]
    return precision, recall


def mean(values: Float[np.ndarray, "..."]) -> float:
    """Returns the mean over what has objects, -1 where nothing has, as pycocotools has it."""
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def convert(
    rows: Iterable[tuple[Arrays, Arrays]], classes: Sequence[str], category_ids: Sequence[int] | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns (annotations for `pycocotools.coco.COCO.dataset`, detections for its `loadRes`).

    Args:
      rows, classes: as in `cvjax.metrics.detection.measure`. Images are numbered from 1.
      category_ids: numbers of the classes, by default from 1; COCO's own 80 have gaps.
    """
    category_ids = list(category_ids or range(1, len(classes) + 1))
    images, annotations, results = [], [], []
    for batch, outputs in rows:
        for i in range(len(batch["mask"])):
            height, width = np.shape(batch["image"])[1:3] if "image" in batch else (0, 0)
            images.append({"id": len(images) + 1, "height": height, "width": width})
            for j in np.flatnonzero(batch["mask"][i]):
                box = batch["boxes"][i, j].astype(np.float64)
                annotations.append(
                    {
                        "id": len(annotations) + 1,  # pycocotools takes a match with number 0 for none
                        "image_id": len(images),
                        "category_id": category_ids[int(batch["labels"][i, j])],
                        "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                        "area": float(batch["area"][i, j] if "area" in batch else areas(box[None])[0]),
                        "iscrowd": int(batch["crowd"][i, j]) if "crowd" in batch else 0,
                    }
                )
            for j in np.flatnonzero(outputs["detected"][i]):
                box = outputs["boxes"][i, j].astype(np.float64)
                results.append(
                    {
                        "image_id": len(images),
                        "category_id": category_ids[int(outputs["labels"][i, j])],
                        "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                        "score": float(outputs["scores"][i, j]),
                    }
                )
    categories = [{"id": number, "name": name} for number, name in zip(category_ids, classes, strict=True)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, results


def pycocotools_figures(dataset: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the twelve figures by pycocotools itself, -1 without objects; `convert` makes the arguments."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth, detected = COCO(), COCO()
        truth.dataset = dataset
        truth.createIndex()
        detected.dataset = {**dataset, "annotations": []}
        detected.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results) if results else detected, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(FIGURES, evaluation.stats.tolist(), strict=True))
