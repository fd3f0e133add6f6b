"""What every detector does with scored boxes: it selects its detections, and shows them beside the truth.

Each system says what its boxes and scores are; the selection follows Felzenszwalb et al., Object Detection with
Discriminatively Trained Part-Based Models, 2010, section 7.2: greedy suppression within a class.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from cvjax.ops.drawing import draw_boxes
from cvjax.ops.nms import batched_nms

LEGIBLE = 256  # pixels to which small images are enlarged for drawing


def select(
    boxes: Float[Array, "batch candidates 4"],
    scores: Float[Array, "batch candidates"],
    labels: Int[Array, "batch candidates"],
    *,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int,
) -> dict[str, Shaped[Array, "batch detections *rest"]]:
    """Selects the detections of each image by non-maximum suppression within each class.

    Args:
      boxes: candidates, xyxy in pixels.
      scores: of the candidates, in [0, 1].
      labels: their classes. A box that may be of several classes is as many candidates.
      score_threshold: what scores no more than this is dropped.
      iou_threshold: what overlaps a better box of its class by more is dropped.
      max_detections: length of the result.

    Returns:
      boxes, scores and labels by falling score, and detected: which of them are not padding.
    """

    def of_image(boxes, scores, labels):
        kept, detected = batched_nms(
            boxes,
            scores,
            labels,
            iou_threshold=iou_threshold,
            max_outputs=max_detections,
            mask=scores > score_threshold,
        )
        return {
            "boxes": jnp.where(detected[:, None], boxes[kept], 0),
            "scores": jnp.where(detected, scores[kept], 0),
            "labels": jnp.where(detected, labels[kept], 0).astype(jnp.int32),
            "detected": detected,
        }

    return jax.vmap(of_image)(boxes, scores, labels)


def draw(
    batch: Mapping[str, Any], found: Mapping[str, Any], names: Sequence[str], least_score: float = 0.3, count: int = 16
) -> Float[np.ndarray, "images height width 3"]:
    """Draws the true boxes of images on the left and the detections on the right.

    Args:
      batch: `image`, `boxes`, `labels`, `mask`, one row an image.
      found: what `select` returns for them.
      names: of the classes.
      least_score: of the detections that are shown.
      count: how many images, the first ones.

    Returns:
      Pictures in [0, 1], small images enlarged.
    """
    batch, found = ({key: np.asarray(value) for key, value in rows.items()} for rows in (batch, found))
    pictures = []
    for row, image in enumerate(batch["image"][:count]):
        scale = max(1, LEGIBLE // image.shape[0])
        true, sure = batch["mask"][row], found["detected"][row] & (found["scores"][row] >= least_score)
        left = draw_boxes(image, batch["boxes"][row][true], batch["labels"][row][true], names, scale=scale)
        detections = [found[key][row][sure] for key in ("boxes", "labels")]
        right = draw_boxes(image, *detections, names, found["scores"][row][sure], scale)
        pictures.append(np.concatenate([left, right], axis=1))
    return np.stack(pictures)
