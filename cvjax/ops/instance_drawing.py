"""Objects drawn with all that is known of them: boxes, masks and joints, on the host."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped

from cvjax.data import people
from cvjax.ops.drawing import Drawn, Image, draw_boxes, draw_masks, draw_skeletons
from cvjax.ops.instance_masks import threshold_masks

Objects = Mapping[str, Shaped[np.ndarray, "objects ..."]]
TRUE = ("boxes", "labels", "masks", "keypoints", "visibility")  # what a batch may have of its objects to be drawn


def draw_instances(
    image: Image,
    objects: Objects,
    names: Sequence[str],
    scale: int = 1,
    skeleton: Sequence[tuple[int, int]] = (),
) -> Drawn:
    """Returns a copy of a grey or RGB image with objects, true ones or found ones.

    Those with masks or joints have a colour each, the others that of their class.

    Args:
      objects: `boxes` [objects, 4] and `labels`; optionally `scores`; `masks` bool [objects, height, width], or
        probabilities [objects, size, size] inside of `mask_boxes`, by default the boxes; `keypoints` [objects, joints,
        2 or more], x and y, and their `visibility`, by default visible. All are in pixels of the image.
      names: of the classes.
      scale: whole factor by which the image is enlarged first.
      skeleton: pairs of joints that are connected; (): those of `skeleton_of`.
    """
    picture = image.repeat(scale, 0).repeat(scale, 1)
    own = np.arange(len(objects["labels"])) if {"masks", "keypoints"} & objects.keys() else None
    if "masks" in objects:
        placed = _placed(objects, scale, *picture.shape[:2])
        picture = draw_masks(picture, [part for part, _ in placed], [corner for _, corner in placed])
    boxes, labels, scores = scale * objects["boxes"], objects["labels"], objects.get("scores")
    picture = draw_boxes(picture, boxes, labels, names, scores, colours=own)
    if "keypoints" in objects:
        joints = scale * objects["keypoints"][..., :2]
        visibility = objects.get("visibility", np.full(joints.shape[:2], people.VISIBLE))
        picture = draw_skeletons(picture, joints, visibility, skeleton or skeleton_of(joints.shape[1]))
    return picture


def _placed(
    objects: Objects, scale: int, height: int, width: int
) -> list[tuple[Bool[np.ndarray, "rows columns"], tuple[int, int]]]:
    """The masks as parts of an enlarged image of this size."""
    if objects["masks"].dtype == bool:
        return [(mask.repeat(scale, 0).repeat(scale, 1), (0, 0)) for mask in objects["masks"]]
    boxes = scale * objects.get("mask_boxes", objects["boxes"])
    return [paste_part(mask, box, height, width) for mask, box in zip(objects["masks"], boxes, strict=True)]


def skeleton_of(joints: int) -> tuple[tuple[int, int], ...]:
    """Returns the pairs of joints that are connected: those of COCO's people, and none of other joints."""
    return people.SKELETON if joints == len(people.JOINTS) else ()


def paste_part(
    mask: Float[np.ndarray, "size size"], box: Float[np.ndarray, "4"], height: int, width: int
) -> tuple[Bool[np.ndarray, "rows columns"], tuple[int, int]]:
    """Returns the part of an image of this size that the mask of a box may fill, and its upper left row and column.

    `box` is in pixels of that image, and may reach beyond it.
    """
    if not np.isfinite(box).all():
        return np.zeros((0, 0), bool), (0, 0)
    left, top, right, bottom = box.astype(np.float64).tolist()
    across, down = ((far - near) / len(mask) + 1 for near, far in ((left, right), (top, bottom)))  # a bin and a pixel
    x, y = (math.floor(min(max(edge, 0), most)) for edge, most in ((left - across, width), (top - down, height)))
    right, bottom = (
        math.ceil(min(max(edge, 0), most)) for edge, most in ((right + across, width), (bottom + down, height))
    )
    rows, columns = max(bottom - y, 0), max(right - x, 0)
    shifted = box[None].astype(np.float64) - (x, y, x, y)
    return threshold_masks(mask[None], shifted, rows, columns)[0], (y, x)
