"""The common parts of all detectors: the selection of detections from scored boxes, their figures and pictures."""

import abc
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from cvjax.core import Batch, Pictures, State
from cvjax.metrics import detection as metrics
from cvjax.metrics.instance_coco import true_mask
from cvjax.ops import boxes as box_ops
from cvjax.ops.instance_drawing import draw_instances
from cvjax.ops.nms import batched_nms
from cvjax.signature import Count, Share

Images = Float[Array, "batch height width channels"]
Found = dict[str, Shaped[Array, "batch detections *rest"]]
Candidates = tuple[Float[Array, "batch candidates 4"], Float[Array, "batch candidates"], Int[Array, "batch candidates"]]
Objects = tuple[Float[Array, "batch objects 4"], Int[Array, "batch objects"], Bool[Array, "batch objects"]]

LEGIBLE = 256  # pixels to which small images are enlarged for drawing


@dataclasses.dataclass(frozen=True)
class Detection:
    """How detections are selected from candidates: `config.recipe.detection` of every detector.

    Attributes:
      score_threshold: candidates that score this or less are dropped.
      iou_threshold: candidates whose IoU with a better one of their class is greater are dropped.
      max_detections: largest number of detections of an image.
      flip_test: search the mirrored image too.
      across_classes: candidates suppress those of other classes too.
    """

    score_threshold: Share = 0.005
    iou_threshold: Share = 0.5
    max_detections: Count = 100
    flip_test: bool = False
    across_classes: bool = False


def find_and_select(find: Callable[[Images], Candidates], images: Images, detection: Detection) -> Found:
    """Returns the detections among the candidates found in images, and in the mirrored images if asked for."""
    found = find(images)
    if detection.flip_test:
        boxes, *others = find(images[:, :, ::-1])
        mirrored = (box_ops.flip(boxes, images.shape[2]), *others)
        found = tuple(jnp.concatenate(both, axis=1) for both in zip(found, mirrored, strict=True))
    return select(*found, detection)


def select(
    boxes: Float[Array, "batch candidates 4"],
    scores: Float[Array, "batch candidates"],
    labels: Int[Array, "batch candidates"],
    detection: Detection,
) -> Found:
    """Selects the detections of each image by greedy non-maximum suppression.

    Felzenszwalb et al., Object Detection with Discriminatively Trained Part-Based Models, 2010, section 7.2. A box of
    several possible classes is several candidates. Returns boxes, scores in [0, 1] and labels by falling score, padded
    with zeros, and detected, which is False in the padding.
    """

    def of_image(boxes, scores, labels):
        kept, detected = batched_nms(
            boxes,
            scores,
            jnp.zeros_like(labels) if detection.across_classes else labels,
            iou_threshold=detection.iou_threshold,
            max_outputs=detection.max_detections,
            mask=scores > detection.score_threshold,
        )
        return {
            "boxes": jnp.where(detected[:, None], boxes[kept], 0),
            "scores": jnp.where(detected, scores[kept], 0),
            "labels": jnp.where(detected, labels[kept], 0).astype(jnp.int32),
            "detected": detected,
        }

    return jax.vmap(of_image)(boxes, scores, labels)


def training_objects(batch: Batch) -> Objects:
    """Returns a batch's boxes, labels and mask without difficult and crowd objects, as Darknet and Detectron do."""
    return batch["boxes"], batch["labels"], batch["mask"] & ~batch["difficult"] & ~batch["crowd"]


def draw(
    batch: Mapping[str, Any], found: Mapping[str, Any], names: Sequence[str], least_score: float = 0.3, count: int = 16
) -> Float[np.ndarray, "images height width 3"]:
    """Returns images in pairs, true boxes on the left and detections on the right; small images are enlarged.

    Draws the first `count` images, with detections that score `least_score` or more; `found` is what `select` returns.
    Where it has `masks` or `keypoints` too, they are drawn, and the batch's beside them.
    """
    batch, found = ({key: np.asarray(value) for key, value in rows.items()} for rows in (batch, found))
    joints = ("keypoints", "visibility") if "keypoints" in found else ()
    pictures = []
    for row, image in enumerate(batch["image"][:count]):
        scale = max(1, LEGIBLE // image.shape[0])
        true, sure = batch["mask"][row], found["detected"][row] & (found["scores"][row] >= least_score)
        objects = {name: batch[name][row][true] for name in ("boxes", "labels", *joints)}
        if "masks" in found:
            objects["masks"] = np.stack([true_mask(batch, row, slot) for slot in range(len(true))])[true]
        detections = {name: values[row][sure] for name, values in found.items() if name != "detected"}
        both = (draw_instances(image, drawn, names, scale) for drawn in (objects, detections))
        pictures.append(np.concatenate(list(both), axis=1))
    return np.stack(pictures)


@dataclasses.dataclass(frozen=True)
class Detector(abc.ABC):
    """Base of the detectors, which add networks, `init`, `train_step` and `find`; attributes are recipes' arguments."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    ema: float
    detection: Detection
    tx: optax.GradientTransformation

    @abc.abstractmethod
    def find(self, state: State, images: Images) -> Candidates:
        """Finds candidates: boxes xyxy in pixels, scores in [0, 1], labels."""

    @property
    def shown_classes(self) -> tuple[str, ...]:
        """Names of the labels that `predict` returns."""
        return self.classes

    @partial(jax.jit, static_argnums=0)
    def detect(self, state: State, images: Images) -> Found:
        """Detects objects in images."""
        return find_and_select(partial(self.find, state), images, self.detection)

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> Found:
        """Detects objects in a batch."""
        return self.detect(state, batch["image"])

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes mean average precisions: `cvjax.metrics.detection.figures`."""
        return metrics.figures(rows, self.classes)

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> Found:
        """Detects objects in images."""
        return self.detect(state, inputs["image"])

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws true boxes beside detections."""
        return {"detections": draw(batch, self.predict(state, {"image": batch["image"]}, key), self.shown_classes)}
