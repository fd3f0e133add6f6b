"""The figures of a detector: mean average precision of PASCAL VOC 2007 and after, and of COCO 2014."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from cvjax.metrics import coco, voc
from cvjax.metrics.pairs import Arrays, list_detections, list_objects, pair

Rows = Iterable[tuple[Arrays, Arrays]]


def measure(rows: Rows, classes: Sequence[str]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Measures detections batch by batch, so that a set of any size passes through.

    Returns (figures of all classes, figures of each class), -1 without objects. Of all: map_voc07 and map_voc, the mean
    over classes with objects; COCO's twelve, ap, ap50, ap75, ap_small, ..., ar_large. Of each: voc07 and voc, by eleven
    points and by area, at IoU 0.5; ap and ap50; objects, their number for the VOC.

    Args:
      rows: (batch, outputs): `boxes`, `labels`, `mask` and optionally `difficult`, `crowd` and `area` of the batch;
        `boxes`, `scores`, `labels` and `detected` of the outputs. Padding of batches has been removed.

    Raises:
      UserError: a label is not one of the classes.
    """
    by_voc, by_coco = voc.Tally(len(classes)), coco.Tally(len(classes))
    for batch, outputs in rows:
        detections, objects = list_detections(outputs, len(classes)), list_objects(batch, len(classes))
        pairs = pair(detections, objects)
        by_voc.add(detections, objects, pairs)
        by_coco.add(detections, objects, pairs)
    curves = by_voc.curves()
    columns = {
        name: [voc.average_precision(*curves[c], method) if c in curves else -1.0 for c in range(len(classes))]
        for name, method in [("voc07", "2007"), ("voc", "area")]
    }
    means = {f"map_{name}": _mean(values) for name, values in columns.items()}
    totals, columns["ap"], columns["ap50"] = by_coco.figures()
    columns["objects"] = by_voc.counts.tolist()
    per_class = {label: {name: columns[name][c] for name in columns} for c, label in enumerate(classes)}
    return means | totals, per_class


def figures(rows: Rows, classes: Sequence[str]) -> dict[str, float]:
    """Returns the figures of all classes by `measure`, and voc07/<class> and ap/<class> of each class."""
    totals, per_class = measure(rows, classes)
    return totals | {f"{name}/{label}": per_class[label][name] for name in ("voc07", "ap") for label in classes}


def table(per_class: Mapping[str, Mapping[str, float]]) -> str:
    """Returns the figures of each class by `measure` as a table in Markdown, with a dash for those without objects."""
    lines = ["| class | objects | VOC 2007 AP | VOC AP | COCO AP | COCO AP at 0.5 |", "|---" + "|---:" * 5 + "|"]
    for label, found in per_class.items():
        cells = [f"{found[name]:.3f}" if found[name] >= 0 else "–" for name in ("voc07", "voc", "ap", "ap50")]
        lines.append(f"| {label} | {found['objects']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def precision_recall(
    rows: Rows, classes: Sequence[str], iou_threshold: float = 0.5
) -> dict[str, tuple[Float[np.ndarray, " detections"], Float[np.ndarray, " detections"]]]:
    """Returns class -> (recall, precision) after each detection, by falling score, for every class with an object.

    The arguments are as in `measure`; a match exceeds the threshold. Raises a UserError as `measure` does.
    """
    tally = voc.Tally(len(classes), iou_threshold)
    for batch, outputs in rows:
        detections, objects = list_detections(outputs, len(classes)), list_objects(batch, len(classes))
        tally.add(detections, objects, pair(detections, objects))
    return {classes[c]: curve for c, curve in tally.curves().items()}


def _mean(values: Sequence[float]) -> float:
    measured = [value for value in values if value >= 0]
    return float(np.mean(measured)) if measured else -1.0
