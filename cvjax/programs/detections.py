"""Detections, with their masks and joints, drawn on their images, and in COCO's format."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from pycocotools import mask as rle

from cvjax.data import people
from cvjax.metrics.instance_coco import encode_part
from cvjax.ops.instance_drawing import draw_instances, paste_part, skeleton_of
from cvjax.predictor import Predictor, Prepared
from cvjax.programs.images import LEGIBLE

Found = Mapping[str, np.ndarray]
Record = tuple[str, tuple[int, int], list[dict[str, Any]]]


def draw_detections(
    predictor: Predictor, prepared: Prepared, found: Found, threshold: float
) -> Float[np.ndarray, "height width 3"]:
    """Draws detections that score at least `threshold`, with class names and scores, on a copy of their image.

    Their boxes are in pixels of the original. Small images are enlarged so that names are legible.
    """
    sure = {name: value[found["scores"] >= threshold] for name, value in found.items()}
    scale = max(1, LEGIBLE // min(prepared.original.shape[:2]))
    return draw_instances(prepared.original, sure, predictor.classes, scale)


def coco_record(name: str, size: tuple[int, int], found: Found) -> Record:
    """Returns an image's file name, height and width, and its detections as annotations, which have no numbers yet.

    They have scores, boxes as `x, y, width, height` and areas. With masks, those are `segmentation` as RLE of the
    image's size, and areas are theirs. With joints, `keypoints` has `x, y, 2` of each, where the middle of
    the first pixel is at 0, 0 as COCO has it, and `keypoint_scores` scores.
    """
    annotations = []
    for row, (box, score, label) in enumerate(zip(found["boxes"], found["scores"], found["labels"], strict=True)):
        x, y, right, bottom = (round(float(edge), 3) for edge in box)
        bbox = [x, y, round(right - x, 3), round(bottom - y, 3)]
        annotation = {"category_id": int(label) + 1, "bbox": bbox, "score": round(float(score), 5)}
        annotation |= {"area": round(bbox[2] * bbox[3], 3), "iscrowd": 0}
        if "masks" in found:
            part, corner = paste_part(found["masks"][row], found["mask_boxes"][row], *size)
            runs = encode_part(part, corner, *size)
            annotation["area"] = float(rle.area(runs))
            annotation["segmentation"] = {"size": list(size), "counts": runs["counts"].decode("ascii")}
        if "keypoints" in found:
            joints = found["keypoints"][row].astype(np.float64)
            flat = [number for place in joints for number in (*np.round(place[:2] - 0.5, 3).tolist(), people.VISIBLE)]
            annotation |= {"keypoints": flat, "num_keypoints": len(joints)}
            annotation["keypoint_scores"] = np.round(joints[:, 2], 5).tolist()
        annotations.append(annotation)
    return name, size, annotations


def coco_format(records: Sequence[Record], classes: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Converts detections to COCO's dataset format (https://cocodataset.org/#format-data, read 2026).

    Returns images, categories, whose ids are labels + 1, and annotations. Categories name their joints, if any, and
    have the skeleton of COCO's people.
    """
    images, annotations = [], []
    for number, (name, (height, width), found) in enumerate(records, start=1):
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for annotation in found:
            annotations.append({"id": len(annotations) + 1, "image_id": number} | annotation)
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    joints = next((annotation["num_keypoints"] for annotation in annotations if "keypoints" in annotation), 0)
    if joints:
        named = people.JOINTS if joints == len(people.JOINTS) else map(str, range(1, joints + 1))
        skeleton = [[one + 1, other + 1] for one, other in skeleton_of(joints)]  # COCO numbers joints from 1
        joined = {"keypoints": list(named), "skeleton": skeleton}
        categories = [category | joined for category in categories]
    return {"images": images, "categories": categories, "annotations": annotations}
