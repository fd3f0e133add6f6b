"""What every detector does with scored boxes: it selects its detections, and shows them beside the truth.

Each system says what its boxes and scores are; the selection follows Felzenszwalb et al., Object Detection with
Discriminatively Trained Part-Based Models, 2010, section 7.2: greedy suppression, within a class if not said otherwise.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from cvjax.core import Recipe, State
from cvjax.metrics import detection
from cvjax.ops import boxes as box_ops
from cvjax.ops.drawing import draw_boxes
from cvjax.ops.nms import batched_nms

Images = Float[Array, "batch height width channels"]
LEGIBLE = 256  # pixels to which small images are enlarged for drawing
Found = dict[str, Shaped[Array, "batch detections *rest"]]
Candidates = tuple[Float[Array, "batch candidates 4"], Float[Array, "batch candidates"], Int[Array, "batch candidates"]]


def find_candidates(find: Callable[[Images], Candidates], images: Images, flip: bool) -> Candidates:
    """Finds candidates in images, and for a test-time flip in their mirror images too, whose boxes are turned back.

    Args:
      find: a function of images.
      images: where.
      flip: whether the mirror images are looked at.

    Returns:
      (boxes xyxy in pixels, scores, labels).
    """
    found = find(images)
    if not flip:
        return found
    boxes, *others = find(images[:, :, ::-1])
    mirrored = (box_ops.flip(boxes, images.shape[2]), *others)
    return tuple(jnp.concatenate(both, axis=1) for both in zip(found, mirrored, strict=True))


def select(
    boxes: Float[Array, "batch candidates 4"],
    scores: Float[Array, "batch candidates"],
    labels: Int[Array, "batch candidates"],
    *,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int,
    across_classes: bool = False,
) -> Found:
    """Selects the detections of each image by non-maximum suppression.

    Args:
      boxes: candidates, xyxy in pixels.
      scores: of the candidates, in [0, 1].
      labels: their classes. A box that may be of several classes is as many candidates.
      score_threshold: what scores no more than this is dropped.
      iou_threshold: what overlaps a better box of its class by more is dropped.
      max_detections: length of the result.
      across_classes: drop what overlaps a better box of any class.

    Returns:
      boxes, scores and labels by falling score, and detected: which of them are not padding.
    """

    def of_image(boxes, scores, labels):
        kept, detected = batched_nms(
            boxes,
            scores,
            jnp.zeros_like(labels) if across_classes else labels,
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


def make_detector(
    networks: Mapping[str, nn.Module],
    init: Callable[..., State],
    train_step: Callable[..., tuple[State, dict[str, Any]]],
    detect: Callable[[State, Images], Found],
    names: Sequence[str],
) -> Recipe:
    """Makes the recipe of a system whose evaluation, pictures and predictions are all its detections.

    Args:
      networks: as in `Recipe`.
      init: as in `Recipe`.
      train_step: as in `Recipe`.
      detect: (state, images) -> what `select` returns.
      names: of the classes.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`.
    """
    compiled = jax.jit(detect)

    def eval_step(state, batch, key):
        return detect(state, batch["image"])

    def visualise(state, batch, key):
        return {"detections": draw(batch, compiled(state, batch["image"]), names)}

    def predict(state, inputs, key):
        return compiled(state, inputs["image"])

    score = partial(detection.figures, classes=names)
    return Recipe(networks, init, train_step, eval_step, score, visualise, predict)
