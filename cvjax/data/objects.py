"""Objects as TFDS's detection datasets annotate them, converted to `boxes`, `labels` and so on, and padded."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Float, Float32, Integer

# The rows of each object besides its box, and their types.
TYPES = {"labels": np.int32, "difficult": np.bool_, "crowd": np.bool_, "area": np.float32}
FEATURES = {"labels": "label", "difficult": "is_difficult", "crowd": "is_crowd", "area": "area"}  # TFDS's names
# Pascal VOC numbers pixels from 1 and includes the last; TFDS divides its numbers by the image's size.
ONE_BASED = ("voc",)


def annotated(features: tfds.features.FeaturesDict) -> dict[str, Any]:
    """Returns the features of a dataset's objects, {} if it has no objects with boxes and labels."""
    objects = dict(features.items()).get("objects")
    inner = dict(objects.feature.items()) if isinstance(objects, tfds.features.Sequence) else {}
    return inner if {"bbox", "label"} <= set(inner) else {}


def masks(features: tfds.features.FeaturesDict) -> list[str]:
    """Names the features of a dataset's objects that can be masks: those with a number for each pixel."""
    found = []
    for name, feature in annotated(features).items():
        shape = getattr(feature, "shape", ())
        if len(shape) == 2 or (len(shape) == 3 and shape[2] == 1):
            found.append(name)
    return found


def read_masks(
    values: Sequence[Integer[np.ndarray, "..."] | Bool[np.ndarray, "..."]], height: int, width: int
) -> Bool[np.ndarray, "objects height width"]:
    """Converts TFDS's masks [height, width] or [height, width, 1], one per object, not 0 inside it; they may overlap.

    Raises a ValueError if a mask differs in size from the image.
    """
    read = np.zeros((len(values), height, width), bool)
    for row, value in enumerate(values):
        if value.shape[:2] != (height, width):
            size, other = f"{height}x{width}", "x".join(map(str, value.shape[:2]))
            raise ValueError(f"the image is {size} and the mask of object {row} {other}")
        read[row] = value.reshape(height, width) != 0
    return read


def read(objects: Mapping[str, Any], height: int, width: int, one_based: bool = False) -> dict[str, np.ndarray]:
    """Converts TFDS's objects.

    Args:
      objects: `bbox` [objects, 4], normalised `ymin, xmin, ymax, xmax`, `label`, and optionally `is_difficult`,
        `is_crowd` and `area` in square pixels.
      one_based: whether pixels were numbered from 1 and the far edges included, as in Pascal VOC.

    Returns:
      `boxes` float32 [objects, 4] in pixels; `labels` int32; `difficult` and `crowd` bool, False by default; and
      `area` float32, by default that of the boxes.
    """
    normalised = np.asarray(objects["bbox"], np.float64).reshape(-1, 4)
    # A float32 fraction of a side gives the pixel to 1e-4; annotations have two decimals at most.
    boxes = np.round(normalised[:, [1, 0, 3, 2]] * (width, height, width, height), 3)
    if one_based:
        boxes -= (1, 1, 0, 0)
    rows = {"boxes": boxes.astype(np.float32), "area": box_areas(boxes)}
    for name, kind in TYPES.items():
        value = objects.get(FEATURES[name], rows.get(name, np.zeros(len(boxes))))
        rows[name] = np.asarray(value).reshape(-1).astype(kind)
    return rows


def box_areas(boxes: Float[np.ndarray, "objects 4"]) -> Float32[np.ndarray, " objects"]:
    """Returns the areas of boxes."""
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).astype(np.float32)


def padded(example: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Returns an example with objects padded to `count` rows, and `mask`, False at padding."""
    present = len(example["boxes"])
    rows = {}
    for key in {"boxes", "masks", "keypoints", "visibility", *TYPES} & example.keys():
        rows[key] = np.pad(example[key], [(0, count - present)] + [(0, 0)] * (example[key].ndim - 1))
    return {**example, **rows, "mask": np.arange(count) < present}


def padded_boxes(example: Mapping[str, np.ndarray], count: int, feature: str) -> dict[str, np.ndarray]:
    """Returns an example whose boxes `feature` are padded to `count`, with `{feature}_mask`, False at padding."""
    boxes = example[feature]
    rows = {feature: np.pad(boxes, [(0, count - len(boxes)), (0, 0)])}
    return {**example, **rows, f"{feature}_mask": np.arange(count) < len(boxes)}
