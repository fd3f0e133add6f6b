"""Detections drawn on their images, and in COCO's format."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from cvjax.ops.drawing import draw_boxes
from cvjax.predictor import Predictor, Prepared
from cvjax.programs.images import LEGIBLE


def draw_detections(
    predictor: Predictor, prepared: Prepared, found: Mapping[str, np.ndarray], threshold: float
) -> Float[np.ndarray, "height width 3"]:
    """Draws detections that score at least `threshold`, with class names and scores, on a copy of their image.

    Their boxes are in pixels of the original. Small images are enlarged so that names are legible.
    """
    sure = found["scores"] >= threshold
    boxes, labels, scores = (found[name][sure] for name in ("boxes", "labels", "scores"))
    scale = max(1, LEGIBLE // min(prepared.original.shape[:2]))
    return draw_boxes(prepared.original, boxes, labels, predictor.classes, scores, scale)


def coco_format(
    records: Sequence[tuple[str, tuple[int, int], Mapping[str, np.ndarray]]], classes: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Converts detections to COCO's dataset format (https://cocodataset.org/#format-data, read 2026).

    Records are file name, (height, width) and detections of each image. Returns images, categories, whose ids are
    labels + 1, and annotations, which have scores and boxes as `x, y, width, height`.
    """
    images, annotations = [], []
    for number, (name, (height, width), found) in enumerate(records, start=1):
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for box, score, label in zip(found["boxes"], found["scores"], found["labels"], strict=True):
            x, y, right, bottom = (round(float(edge), 3) for edge in box)
            bbox = [x, y, round(right - x, 3), round(bottom - y, 3)]
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": int(label) + 1, "bbox": bbox}
            annotations.append(
                annotation | {"score": round(float(score), 5), "area": round(bbox[2] * bbox[3], 3), "iscrowd": 0}
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"images": images, "categories": categories, "annotations": annotations}
