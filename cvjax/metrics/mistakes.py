"""What a detector gets wrong: its confusions of classes, and its mistakes by kind.

The kinds are those of Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, 2020, section 2.2.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int

from cvjax.metrics import voc
from cvjax.metrics.pairs import Arrays, Detections, Objects, Pairs, best, list_detections, list_objects, pair

KINDS = ("correct", "localisation", "class", "both", "duplicate", "background", "missed")

Rows = Iterable[tuple[Arrays, Arrays]]


def breakdown(
    rows: Rows,
    classes: Sequence[str],
    *,
    iou_threshold: float = 0.5,
    background_iou: float = 0.1,
    score_threshold: float = 0.3,
) -> dict[str, dict[str, int]]:
    """Counts mistakes by kind.

    A detection is `correct`, or false and, the first of these that holds: `background`, it overlaps nothing;
    `localisation`, its place on an object of its class is not exact enough; `class`, it is on an object of another one;
    `duplicate`, the object had been found; `both`, neither class nor place is right. `missed` is an object that no
    detection found, took for another class or placed badly. Difficult objects and crowds are left out, with what
    detects them.

    Returns class -> kind -> count, of the detection's class; of the object's for `missed`. Raises a UserError if a
    label is not one of the classes.

    Args:
      rows, classes: as in `cvjax.metrics.detection.measure`.
      iou_threshold: more than this is on an object.
      background_iou: this or less is on nothing.
      score_threshold: detections below are left out.
    """
    counts = {label: Counter(dict.fromkeys(KINDS, 0)) for label in classes}
    for batch, outputs in rows:
        detections, objects, pairs = _in_images(batch, outputs, len(classes), score_threshold)
        same = detections.group[pairs.detection] == objects.group[pairs.object]
        own = Pairs(*(column[same] for column in pairs))
        verdict, target = voc.match(detections, objects, own, iou_threshold)
        right, its_place = best(pairs, same, len(verdict))
        wrong, its_class = best(pairs, ~same, len(verdict))
        conditions = {
            "correct": verdict == voc.FOUND,
            "ignored": verdict == voc.NEITHER,
            "background": np.maximum(right, wrong) <= background_iou,
            "localisation": (right > background_iou) & (right <= iou_threshold),
            "class": wrong > iou_threshold,
            "duplicate": right > iou_threshold,
        }
        kinds = np.select(list(conditions.values()), list(conditions), "both")
        for label, kind in zip(detections.group % len(classes), kinds, strict=True):
            counts[classes[label]][str(kind)] += 1
        seen = objects.difficult | objects.crowd
        for kind, what in [("correct", target), ("localisation", its_place), ("class", its_class)]:
            seen[what[kinds == kind]] = True
        for label in objects.group[~seen] % len(classes):
            counts[classes[label]]["missed"] += 1
    return {label: {kind: count[kind] for kind in KINDS} for label, count in counts.items()}


def confusion(
    rows: Rows, classes: Sequence[str], *, iou_threshold: float = 0.5, score_threshold: float = 0.3
) -> Int[np.ndarray, "objects detections"]:
    """Returns counts [class of the object, class of the detection], the last row and column for none.

    By falling score each detection takes, of the objects of any class left in its image that it overlaps by more than
    the threshold, the one that it overlaps most. The last row counts detections that took none, the last column objects
    that none took. Difficult objects and crowds are left out, with what detects them. Arguments and errors are as in
    `breakdown`.
    """
    nothing = len(classes)
    matrix = np.zeros((nothing + 1, nothing + 1), np.int64)
    for batch, outputs in rows:
        detections, objects, pairs = _in_images(batch, outputs, nothing, score_threshold)
        takes, taken = np.full(len(detections.group), -1), np.zeros(len(objects.group), bool)
        close = np.flatnonzero(pairs.iou > iou_threshold)
        who, what = pairs.detection[close], pairs.object[close]
        for i in np.lexsort((-pairs.iou[close], who, -detections.scores[who])):
            if takes[who[i]] < 0 and not taken[what[i]]:
                takes[who[i]], taken[what[i]] = what[i], True
        out = objects.difficult | objects.crowd
        counted = ~np.append(out, False)[takes]
        of_object = np.append(objects.group % nothing, nothing)[takes]
        np.add.at(matrix, (of_object[counted], (detections.group % nothing)[counted]), 1)
        np.add.at(matrix[:, nothing], (objects.group % nothing)[~taken & ~out], 1)
    return matrix


def _in_images(
    batch: Arrays, outputs: Arrays, classes: int, score_threshold: float
) -> tuple[Detections, Objects, Pairs]:
    """Detections that score enough, objects, and their pairs within images, of whichever class."""
    outputs = {**outputs, "detected": outputs["detected"] & (outputs["scores"] >= score_threshold)}
    detections, objects = list_detections(outputs, classes), list_objects(batch, classes)
    one_group = (rows._replace(group=rows.group // classes) for rows in (detections, objects))
    return detections, objects, pair(*one_group)
