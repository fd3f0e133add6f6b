"""YOLO: Redmon, Divvala, Girshick & Farhadi, You Only Look Once: Unified, Real-Time Object Detection, 2016.

arXiv:1506.02640; details that it leaves open follow the authors' Darknet. The paper's first 20 convolutions were
pretrained on ImageNet; nothing is pretrained here.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from cvjax import optim
from cvjax.core import Batch, Metrics, Recipe, State, advance, check_images, class_names, descend, start, variables
from cvjax.detection.detector import Candidates, Detection, Detector, Images, training_objects
from cvjax.errors import UserError
from cvjax.nets.layers import Conv
from cvjax.ops import boxes as box_ops
from cvjax.ops.pooling import max_pool
from cvjax.signature import Count, Natural, NonNegative, Share

Boxes = Float[Array, "batch objects 4"]
Outputs = Float[Array, "batch rows columns features"]
Coordinates = Float[Array, "batch rows columns predictors 4"]
Layers = tuple[tuple[int, int, int], ...]

# --- net ----------------------------------------------------------------------------------------------------------

POOL = (0, 2, 2)  # a maximum over 2 x 2; all other rows are convolutions: channels, kernel, stride
LAYERS: Mapping[str, Layers] = {
    # Figure 3: 24 convolutions that shrink the image by 64.
    "yolo": (
        *((64, 7, 2), POOL, (192, 3, 1), POOL, (128, 1, 1), (256, 3, 1), (256, 1, 1), (512, 3, 1), POOL),
        *((256, 1, 1), (512, 3, 1)) * 4,
        *((512, 1, 1), (1024, 3, 1), POOL),
        *((512, 1, 1), (1024, 3, 1)) * 2,
        *((1024, 3, 1), (1024, 3, 2), (1024, 3, 1), (1024, 3, 1)),
    ),
    # Fast YOLO: 9 convolutions, says the paper; these are those of Darknet's yolo-tiny.cfg.
    "fast": (
        *((16, 3, 1), POOL, (32, 3, 1), POOL, (64, 3, 1), POOL, (128, 3, 1), POOL, (256, 3, 1), POOL),
        *((512, 3, 1), POOL, (1024, 3, 1), (1024, 3, 1), (1024, 3, 1)),
    ),
}


class Yolo(nn.Module):
    """Convolutions, then dense layers over the whole image (section 2.1) to `features` outputs in each cell."""

    layers: Layers
    features: int
    width: float = 1.0
    bottleneck: int = 0
    hidden: int = 4096
    dropout: float = 0.5
    batch_norm: bool = False
    shared: bool = False

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> Outputs:
        """Returns the outputs that `read` splits, of images in [0, 1]; training needs the random stream "dropout"."""

        def scaled(features: int) -> int:
            return max(1, round(self.width * features))

        x = 2 * images - 1
        for features, kernel, stride in self.layers:
            if not features:
                x = max_pool(x)
                continue
            x = Conv(scaled(features), kernel, stride, padding=kernel // 2, use_bias=not self.batch_norm)(x)
            if self.batch_norm:
                x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5)(x)
            x = nn.leaky_relu(x, 0.1)
        batch, rows, columns, _ = x.shape
        cells = 1 if self.shared else rows * columns  # seen by the dense layers at a time
        x = x.reshape(batch, rows * columns // cells, -1)
        if self.bottleneck:
            x = nn.Dense(scaled(self.bottleneck), name="bottleneck")(x)
        x = nn.leaky_relu(nn.Dense(scaled(self.hidden), name="hidden")(x), 0.1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.Dense(cells * self.features, name="cells")(x).astype(jnp.float32)
        return x.reshape(batch, rows, columns, self.features)


# --- loss ---------------------------------------------------------------------------------------------------------


def read(
    outputs: Outputs, predictors: int
) -> tuple[Coordinates, Float[Array, "batch rows columns predictors"], Float[Array, "batch rows columns classes"]]:
    """Splits the network's output: five numbers for each of the cell's predictors, then one for each class.

    Returns (centres x, y as shares of the cell and square roots of width and height as shares of the image, as in
    Darknet; confidences; class probabilities). All are linear outputs.
    """
    numbers = outputs[..., : 5 * predictors].reshape(*outputs.shape[:3], predictors, 5)
    return numbers[..., :4], numbers[..., 4], outputs[..., 5 * predictors :]


def place(coordinates: Coordinates, shape: tuple[int, int]) -> Coordinates:
    """Returns the corners in pixels of predicted coordinates, as `read` returns them, in an image (height, width)."""
    rows, columns = coordinates.shape[1:3]
    size = jnp.array(shape[::-1])
    centres = (coordinates[..., :2] + _corners(rows, columns)[:, :, None]) / jnp.array([columns, rows]) * size
    return box_ops.from_centre(jnp.concatenate([centres, jnp.square(coordinates[..., 2:]) * size], axis=-1))


def unplace(
    boxes: Float[Array, "batch rows columns 4"], shape: tuple[int, int]
) -> Float[Array, "batch rows columns 4"]:
    """Returns the coordinates to predict for the box of each cell, the inverse of `place`."""
    rows, columns = boxes.shape[1:3]
    parts = box_ops.to_centre(boxes) / jnp.array([shape[1], shape[0]] * 2)
    centres = parts[..., :2] * jnp.array([columns, rows]) - _corners(rows, columns)
    return jnp.concatenate([centres, jnp.sqrt(jnp.maximum(parts[..., 2:], 0))], axis=-1)


def _corners(rows: int, columns: int) -> Array:
    """Upper left corner (x, y) of each cell, in cells."""
    return jnp.stack(jnp.meshgrid(jnp.arange(float(columns)), jnp.arange(float(rows))), axis=-1)


def objects_of_cells(
    boxes: Boxes, mask: Bool[Array, "batch objects"], grid: tuple[int, int], shape: tuple[int, int]
) -> tuple[Int[Array, "batch rows columns"], Bool[Array, "batch rows columns"]]:
    """Returns (index of the object that each cell has to predict, whether it has one).

    It is the first whose centre the cell contains, as in Darknet; centres outside the image belong to the nearest cell.
    `mask` is False in padding, `grid` is (rows, columns), and `shape` the image's (height, width).
    """
    rows, columns = grid
    centres = box_ops.to_centre(boxes)[..., :2] / jnp.array(shape[::-1]) * jnp.array([columns, rows])
    column, row = jnp.moveaxis(jnp.clip(jnp.floor(centres), 0, jnp.array([columns - 1, rows - 1])), -1, 0)
    inside = ((row * columns + column)[..., None] == jnp.arange(rows * columns)) & mask[..., None]
    return tuple(found.reshape(-1, rows, columns) for found in (inside.argmax(axis=1), inside.any(axis=1)))


def choose_responsible(
    predicted: Float[Array, "*cells predictors 4"], truth: Float[Array, "*cells 4"], shape: tuple[int, int]
) -> tuple[Int[Array, "*cells"], Float[Array, "*cells predictors"]]:
    """Returns (predictor responsible for each cell's object, IoU of every predictor with it).

    It is the predictor of highest IoU, or of the lowest RMSE if all are 0. In the RMSE, centres and sizes are shares of
    the image's (height, width), `shape`, as in Darknet.
    """
    overlap = box_ops.iou(predicted, truth[..., None, :])[..., 0]
    difference = box_ops.to_centre(predicted) - box_ops.to_centre(truth)[..., None, :]
    distance = jnp.square(difference / jnp.array([shape[1], shape[0]] * 2)).sum(-1)
    return jnp.where(overlap.max(-1) > 0, overlap.argmax(-1), distance.argmin(-1)), overlap


def losses(
    outputs: Outputs,
    boxes: Boxes,
    labels: Int[Array, "batch objects"],
    mask: Bool[Array, "batch objects"],
    predictors: int,
    shape: tuple[int, int],
    coordinate_weight: float = 5.0,
    no_object_weight: float = 0.5,
) -> dict[str, Float[Array, " batch"]]:
    """Computes the parts of the paper's loss, equation 3: sums of squares over cells, predictors and classes.

    The target of a responsible predictor's confidence is its IoU, without gradient; that of all others is 0. Class
    probabilities have neither softmax nor sigmoid, and count in cells with an object. Objects are clipped to the image,
    whose (height, width) is `shape`. The paper's lambda_coord, of the responsible predictors' centres and roots of
    sizes, is `coordinate_weight`; lambda_noobj, of the confidences of all others, is `no_object_weight`. Returns
    coordinates, object, no_object and classes: weighted sums over each image, which add up to its loss; and iou, for
    the log: the mean IoU of its responsible predictors, 0 if there are none.
    """
    coordinates, confidence, classes = read(outputs, predictors)
    boxes, mask = box_ops.visible(boxes, mask, *shape)
    index, occupied = objects_of_cells(boxes, mask, outputs.shape[1:3], shape)
    rows = jnp.arange(len(boxes))[:, None, None]
    truth = boxes[rows, index]
    chosen, overlap = jax.lax.stop_gradient(choose_responsible(place(coordinates, shape), truth, shape))
    chosen = jax.nn.one_hot(chosen, predictors) * occupied[..., None]

    def total(squares: Float[Array, "batch rows columns last"]) -> Float[Array, " batch"]:
        return squares.sum(axis=(1, 2, 3))

    away = jnp.square(coordinates - unplace(truth, shape)[..., None, :]).sum(-1)
    wrong = jnp.square(classes - jax.nn.one_hot(labels[rows, index], classes.shape[-1]))
    return {
        "coordinates": coordinate_weight * total(chosen * away),
        "object": total(chosen * jnp.square(confidence - overlap)),
        "no_object": no_object_weight * total((1 - chosen) * jnp.square(confidence)),
        "classes": total(occupied[..., None] * wrong),
        "iou": total(chosen * overlap) / jnp.maximum(total(chosen), 1),
    }


# --- detections ---------------------------------------------------------------------------------------------------


def candidates(
    outputs: Outputs, predictors: int, shape: tuple[int, int]
) -> tuple[Float[Array, "batch candidates 4"], Float[Array, "batch candidates"], Int[Array, "batch candidates"]]:
    """Returns each predicted box as a candidate of every class; scores are class probability times confidence."""
    coordinates, confidence, classes = read(outputs, predictors)
    scores = jnp.clip(confidence, 0, 1)[..., None] * jnp.clip(classes, 0, 1)[..., None, :]
    boxes = box_ops.clip(place(coordinates, shape), *shape)[..., None, :]
    boxes = jnp.broadcast_to(boxes, (*scores.shape, 4)).reshape(len(outputs), -1, 4)
    labels = jnp.broadcast_to(jnp.arange(classes.shape[-1]), scores.shape)
    return boxes, scores.reshape(len(outputs), -1), labels.reshape(len(outputs), -1)


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class YoloDetector(Detector):
    """YOLO's functions; the attributes are those of `Detector`, the network and arguments of `recipe`."""

    net: Yolo
    predictors: int
    coordinate_weight: float
    no_object_weight: float

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network, by its name in the state."""
        return {"yolo": self.net}

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the network, its optimiser and its average."""
        check_images(batch, self.shape)
        yolo = self.net.init(key, jnp.zeros((1, *self.shape)))
        return start({"yolo": yolo}, {"yolo": self.tx.init(yolo["params"])}, averaged=("yolo",) if self.ema else ())

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the loss."""
        objects, weights = training_objects(batch), (self.coordinate_weight, self.no_object_weight)

        def loss_fn(params):
            yolo = {"params": params, "batch_stats": state.stats.get("yolo", {})}
            options = dict(train=True, mutable=["batch_stats"], rngs={"dropout": key})
            outputs, new = self.net.apply(yolo, batch["image"], **options)
            parts = losses(outputs, *objects, self.predictors, self.shape[:2], *weights)
            iou = parts.pop("iou")
            return sum(parts.values()).mean(), (parts, iou, new.get("batch_stats", {}))

        params, opt, loss, (parts, iou, stats) = descend(self.tx, loss_fn, state.params["yolo"], state.opt["yolo"])
        metrics = {"iou": iou.mean(), "loss/total": loss}
        metrics |= {f"loss/{name}": part.mean() for name, part in parts.items()}
        return advance(state, {"yolo": params}, {"yolo": opt}, {"yolo": stats}, keep=self.ema), metrics

    def find(self, state: State, images: Images) -> Candidates:
        """Finds every predicted box as a candidate of every class."""
        outputs = self.net.apply(variables(state, "yolo"), images)
        return candidates(outputs, self.predictors, self.shape[:2])


PAPER = {"name": "sgd", "learning_rate": 1e-2, "momentum": 0.9, "weight_decay": 5e-4}  # section 2.2
DETECTION = Detection(score_threshold=0.001, iou_threshold=0.5)


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    layers: Literal["yolo", "fast"] | Layers = "yolo",
    width: NonNegative = 1.0,
    predictors: Count = 2,
    bottleneck: Natural = 0,
    hidden: Count = 4096,
    dropout: Share = 0.5,
    batch_norm: bool = False,
    shared: bool = False,
    coordinate_weight: NonNegative = 5.0,
    no_object_weight: NonNegative = 0.5,
    ema: Share = 0.0,
    detection: Detection = DETECTION,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes YOLO, by default with the paper's network and loss; Fast YOLO is layers="fast", bottleneck=256.

    Args:
      shape: height, width, channels of the images. The layers shrink it to the grid: 448 pixels to 7 cells.
      classes: number of classes, or their names.
      layers: the convolutions: "yolo" (24), "fast" (9), or rows of (channels, kernel, stride), where (0, 2, 2) pools.
      width: multiplies the channels of all layers but the last.
      predictors: B, the number of boxes per cell.
      bottleneck: size of a linear dense layer before the hidden one; 0: none.
      hidden: size of the hidden dense layer.
      dropout: of the hidden layer.
      batch_norm: normalise after each convolution, which the paper does not.
      shared: apply the dense layers to each cell with the same weights. The paper's learn every cell separately.
      coordinate_weight: lambda_coord.
      no_object_weight: lambda_noobj.
      ema: share of the moving average that each step keeps; 0: no average.
      detection: how detections are selected.
      optimiser: as in `cvjax.optim.build`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`.

    Raises:
      UserError: the image is smaller than one cell.
    """
    names, layers = class_names(classes), LAYERS[layers] if isinstance(layers, str) else layers
    if min(shape[:2]) < (stride := math.prod(row[2] for row in layers)):
        raise UserError(
            f"config.recipe.shape={shape}: config.recipe.layers turn {stride} pixels into one cell; the image needs "
            "at least that many along each side."
        )
    net = Yolo(layers, 5 * predictors + len(names), width, bottleneck, hidden, dropout, batch_norm, shared)
    base = (tuple(shape), names, ema, detection, optim.build(optimiser))
    return Recipe.of(YoloDetector(*base, net, predictors, coordinate_weight, no_object_weight))
