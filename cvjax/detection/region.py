"""The last layer of YOLOv2 and YOLO9000, Darknet's region layer: boxes from anchors in the cells of a grid.

Redmon & Farhadi, YOLO9000: Better, Faster, Stronger, 2017 (arXiv:1612.08242), section 2. The paper does not give the
loss; this is the one of Darknet's `src/region_layer.c`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from cvjax.ops import boxes as box_ops
from cvjax.ops.anchors import shape_iou
from cvjax.signature import NonNegative, Share

Outputs = Float[Array, "batch rows columns anchors outputs"]
Boxes = Float[Array, "batch objects 4"]
Labels = Int[Array, "batch objects"]
Mask = Bool[Array, "batch objects"]
Anchors = Sequence[Sequence[float]]  # widths and heights in cells

# --- boxes --------------------------------------------------------------------------------------------------------


def decode(outputs: Outputs, anchors: Anchors, stride: int) -> Float[Array, "batch rows columns anchors 4"]:
    """Returns the predicted boxes in pixels (section 2, direct location prediction)."""
    rows, columns = outputs.shape[1:3]
    corner = jnp.stack(jnp.meshgrid(jnp.arange(columns), jnp.arange(rows)), axis=-1)[:, :, None]
    centre = corner + jax.nn.sigmoid(outputs[..., :2])
    factor = jnp.exp(jnp.minimum(outputs[..., 2:4], jnp.log(1000.0)))  # early predictions must not overflow
    size = jnp.array(anchors) * factor
    return box_ops.from_centre(stride * jnp.concatenate([centre, size], axis=-1))


def assign(
    boxes: Boxes, mask: Mask, anchors: Anchors, grid: tuple[int, int], stride: int
) -> tuple[Int[Array, "batch objects"], Mask]:
    """Assigns each object to a predictor: the anchor closest in shape, in the cell that contains the object's centre.

    Centres outside the image belong to the nearest cell; empty boxes get no predictor. Of several objects that share
    one, the last keeps it, as in Darknet. `mask` is False in padding; anchors are (width, height) in cells of `stride`
    pixels; the grid is (rows, columns). Returns (flat index of the predictor over rows, columns and anchors; which
    objects have one).
    """
    centre, size = jnp.split(box_ops.to_centre(boxes) / stride, 2, axis=-1)
    column, row = (jnp.clip(jnp.floor(centre[..., i]), 0, grid[1 - i] - 1).astype(jnp.int32) for i in range(2))
    anchor = shape_iou(size.reshape(-1, 2), jnp.array(anchors)).argmax(-1).reshape(mask.shape)
    predictor = (row * grid[1] + column) * len(anchors) + anchor
    present = mask & (size > 0).all(-1)
    same = predictor[:, :, None] == predictor[:, None, :]
    later = jnp.triu(jnp.ones(same.shape[1:], bool), k=1) & present[:, None]
    return predictor, present & ~(same & later).any(-1)


# --- loss ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RegionLoss:
    """Weights of Darknet's loss: `config.recipe.loss` of YOLOv2 and YOLO9000.

    Attributes:
      object_weight: of the objectness of predictors with an object.
      no_object_weight: of the objectness of the others.
      class_weight: of the classification loss.
      coordinate_weight: of an object's box, times 2 - its share of the image, so that small objects count more.
      ignore_iou: predictors without an object are not penalised if their box overlaps one by more than this.
      rescore: the target of an object's objectness is the IoU with the predicted box instead of 1.
    """

    object_weight: NonNegative = 5.0
    no_object_weight: NonNegative = 1.0
    class_weight: NonNegative = 1.0
    coordinate_weight: NonNegative = 1.0
    ignore_iou: Share = 0.6
    rescore: bool = True


DARKNET = RegionLoss()  # the weights of its yolov2.cfg


def cross_entropy(logits: Float[Array, "*batch classes"], labels: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Returns the softmax cross-entropy of the class of each box, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def losses(
    outputs: Outputs,
    boxes: Boxes,
    labels: Labels,
    mask: Mask,
    anchors: Anchors,
    stride: int,
    weights: RegionLoss = DARKNET,
    prior_weight: Float[Array, ""] | float = 0.0,
    class_loss: Callable = cross_entropy,
) -> tuple[dict[str, Float[Array, " batch"]], dict[str, Float[Array, " batch"]]]:
    """Computes the parts of Darknet's loss; the gradient of their sum is the region layer's negative `delta`.

    Centres and objectness have squared errors after the sigmoid, sizes squared errors of the logarithm, all halved.
    Objects are clipped to the image; they, anchors and stride are as in `assign`. Returns (coordinates, object,
    no_object, class, prior: weighted sums over each image), and counts for the log (objects: how many have a predictor;
    iou: sum of their IoU with its box).

    Args:
      prior_weight: pulls predictors without an object towards the centre of their cell and the shape of their anchor.
      class_loss: (logits, labels) -> loss of each object.
    """
    batch, rows, columns, _, width = outputs.shape
    boxes, mask = box_ops.visible(boxes, mask, rows * stride, columns * stride)
    labels = jnp.where(mask, labels, 0)
    predictor, assigned = assign(boxes, mask, anchors, (rows, columns), stride)
    flat = outputs.reshape(batch, -1, width)
    objectness = jax.nn.sigmoid(flat[..., 4])
    predicted = jax.lax.stop_gradient(decode(outputs, anchors, stride)).reshape(batch, -1, 4)
    overlap = box_ops.iou(predicted, boxes)
    has_object = ((jnp.arange(flat.shape[1])[:, None] == predictor[:, None]) & assigned[:, None]).any(-1)
    free = 1.0 - has_object
    ignored = overlap.max(-1) > weights.ignore_iou

    chosen = jnp.take_along_axis(flat, predictor[..., None], axis=1)
    iou = jnp.take_along_axis(overlap, predictor[:, None], axis=1)[:, 0]
    centre, size = jnp.split(box_ops.to_centre(boxes) / stride, 2, axis=-1)
    cell = jnp.stack([predictor // len(anchors) % columns, predictor // len(anchors) // columns], axis=-1)
    scale = jnp.log(jnp.where(assigned[..., None], size, 1.0) / jnp.array(anchors)[predictor % len(anchors)])
    errors = jnp.concatenate([jax.nn.sigmoid(chosen[..., :2]) - (centre - cell), chosen[..., 2:4] - scale], axis=-1)
    importance = weights.coordinate_weight * (2 - size.prod(-1) / (rows * columns))
    confidence = jnp.square(jax.nn.sigmoid(chosen[..., 4]) - (iou if weights.rescore else 1))
    drift = jnp.concatenate([jax.nn.sigmoid(flat[..., :2]) - 0.5, flat[..., 2:4]], axis=-1)

    def total(factors: Float[Array, "batch n"], squares: Float[Array, "batch n"]) -> Float[Array, " batch"]:
        return (factors * squares).sum(-1) / 2

    parts = {
        "coordinates": total(assigned * importance, jnp.square(errors).sum(-1)),
        "object": total(weights.object_weight * assigned, confidence),
        "no_object": total(weights.no_object_weight * free * ~ignored, jnp.square(objectness)),
        "class": 2 * weights.class_weight * total(1.0 * assigned, class_loss(chosen[..., 5:], labels)),
        "prior": total(prior_weight * free, jnp.square(drift).sum(-1)),
    }
    return parts, {"objects": assigned.sum(-1) * 1.0, "iou": (assigned * iou).sum(-1)}


# --- detections ---------------------------------------------------------------------------------------------------


def class_scores(outputs: Outputs) -> Float[Array, "batch rows columns anchors classes"]:
    """Returns the score of each box for each class, objectness times class probability."""
    return jax.nn.sigmoid(outputs[..., 4:5]) * jax.nn.softmax(outputs[..., 5:])


def rank(
    boxes: Float[Array, "batch rows columns anchors 4"],
    scores: Float[Array, "batch rows columns anchors classes"],
    count: int = 1000,
) -> tuple[Float[Array, "batch candidates 4"], Float[Array, "batch candidates"], Int[Array, "batch candidates"]]:
    """Returns the boxes, scores and classes of the best pairs of a box and a class of each image."""
    batch, classes = len(boxes), scores.shape[-1]
    best, index = jax.lax.top_k(scores.reshape(batch, -1), min(count, scores[0].size))
    boxes = jnp.take_along_axis(boxes.reshape(batch, -1, 4), index[..., None] // classes, axis=1)
    return boxes, best, index % classes
