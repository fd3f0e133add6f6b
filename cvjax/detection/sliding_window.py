"""Sliding windows: a small CNN classifies windows of every size at every location.

The image pyramid and hard background windows are those of Rowley, Baluja & Kanade, Neural Network-Based Face Detection,
1998; the convolution over pictures is that of Sermanet et al., OverFeat, 2014 (arXiv:1312.6229), section 3.5.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from cvjax import optim
from cvjax.core import Batch, Metrics, Recipe, State, advance, check_images, class_names, descend, start, variables
from cvjax.detection.detector import Candidates, Detection, Detector, Images
from cvjax.errors import UserError
from cvjax.nets.layers import Conv
from cvjax.ops import boxes as box_ops
from cvjax.ops.pooling import max_pool
from cvjax.signature import Count, NonNegative, Range, Share

STRIDE = 4  # pixels between windows of a picture: the network halves twice
CONTEXT = 2  # pixels of a window around its box

Logits = Float[Array, "batch rows columns outputs"]

# --- net ----------------------------------------------------------------------------------------------------------


class WindowClassifier(nn.Module):
    """Classifies all windows of a picture, one every `STRIDE` pixels; background is the last class.

    No convolution pads: a window's logits depend on that window alone. The attributes are arguments of `recipe`.
    """

    classes: int
    window: int = 20
    width: int = 16
    hidden: int = 128
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> Logits:
        """Returns the logits of each window; training needs the random stream "dropout"."""
        init = nn.initializers.he_normal()
        x = 2 * images - 1
        x = max_pool(nn.relu(Conv(self.width, 5, kernel_init=init)(x)))
        x = max_pool(nn.relu(Conv(2 * self.width, 3, kernel_init=init)(x)))
        x = nn.relu(Conv(self.hidden, (self.window - 8) // 4, kernel_init=init, name="hidden")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Conv(self.classes + 1, 1, name="logits")(x)


# --- windows ------------------------------------------------------------------------------------------------------


def window_boxes(
    shape: tuple[int, int], sizes: Sequence[tuple[float, float]], core: int
) -> list[Float[np.ndarray, "rows columns 4"]]:
    """Returns a grid of the windows' boxes for each (width, height) in `sizes`; the last reach or cross the border.

    `shape` is the image's (height, width), `core` the side of a box in pixels of the resized picture.
    """

    def starts(side: int, box: float) -> np.ndarray:
        step = STRIDE / core * box
        return step * np.arange(max(1, math.ceil((side - box) / step - 1e-6) + 1))

    grids = []
    for width, height in sizes:
        y, x = np.meshgrid(starts(shape[0], height), starts(shape[1], width), indexing="ij")
        grids.append(np.stack([x, y, x + width, y + height], axis=-1).astype(np.float32))
    return grids


def show(
    image: Float[Array, "height width channels"], box: Float[Array, "4"], core: int, rows: int, columns: int
) -> Float[Array, "rows columns channels"]:
    """Returns the picture around a box: the image resized so that the box, not empty, is `core` pixels wide and high.

    Bilinear and antialiased, black outside the image. The box starts `CONTEXT` pixels from the picture's corner.
    """
    scale = core / jnp.stack([box[3] - box[1], box[2] - box[0]])
    shift = CONTEXT - scale * jnp.stack([box[1], box[0]])
    shape = (rows, columns, image.shape[2])
    return jax.image.scale_and_translate(image, shape, (0, 1), scale, shift, "linear", antialias=True)


def classify_windows(
    classify: Callable[[Images], Logits], images: Images, window: int, convolutional: bool = True
) -> Logits:
    """Returns the logits of all windows of pictures, by one convolution or separately, with the same result.

    One convolution computes what windows share only once. Rows and columns after the last window are ignored.
    """
    batch, *sides, channels = images.shape
    rows, columns = ((side - window) // STRIDE + 1 for side in sides)
    if convolutional:
        return classify(images[:, : STRIDE * (rows - 1) + window, : STRIDE * (columns - 1) + window])
    row = STRIDE * jnp.arange(rows)[:, None, None, None] + jnp.arange(window)[:, None]
    column = STRIDE * jnp.arange(columns)[:, None, None] + jnp.arange(window)
    crops = images[:, row, column].reshape(-1, window, window, channels)
    return classify(crops).reshape(batch, rows, columns, -1)


def near_windows(
    key: Key[Array, ""],
    boxes: Float[Array, "objects 4"],
    mask: Bool[Array, " objects"],
    count: int,
    shift: float,
    scale: float,
) -> Float[Array, "count 4"]:
    """Returns boxes of windows near objects, all objects with the same probability; meaningless without any object."""
    which_key, shift_key, scale_key = jax.random.split(key, 3)
    which = jax.random.categorical(which_key, jnp.where(mask, 0.0, -1e9), shape=(count,))
    near = box_ops.to_centre(boxes[which])
    moves = jax.random.uniform(shift_key, (count, 2), minval=-shift, maxval=shift)
    factors = jnp.exp(jax.random.uniform(scale_key, (count, 2), minval=-1.0) * math.log(scale))
    sizes = jnp.maximum(near[:, 2:], 1.0)  # of degenerate boxes
    return box_ops.from_centre(jnp.concatenate([near[:, :2] + moves * sizes, sizes * factors], axis=-1))


def label_windows(
    windows: Float[Array, "windows 4"],
    boxes: Float[Array, "objects 4"],
    labels: Int[Array, " objects"],
    mask: Bool[Array, " objects"],
    ignored: Bool[Array, " objects"],
    classes: int,
    positive_iou: float,
    negative_iou: float,
) -> tuple[Int[Array, " windows"], Bool[Array, " windows"]]:
    """Returns the label of the object that overlaps each window most, and whether it is certain.

    Below `negative_iou` the window is background, whose label is `classes`; between that and `positive_iou`, it is
    uncertain. Objects `ignored` count neither as objects nor as background.
    """
    overlap = jnp.where(mask, box_ops.iou(windows, boxes), 0.0)
    best, which = overlap.max(axis=1), overlap.argmax(axis=1)
    shown, clear = best >= positive_iou, best < negative_iou
    return jnp.where(shown, labels[which], classes), clear | (shown & ~ignored[which])


def hardest_background(
    logits: Float[Array, "windows outputs"],
    labels: Int[Array, " windows"],
    certain: Bool[Array, " windows"],
    count: int,
) -> Int[Array, " hardest"]:
    """Returns the indices of the background windows of highest loss, padded with others if there are too few."""
    background = certain & (labels == logits.shape[-1] - 1)
    return jax.lax.top_k(jnp.where(background, -jax.nn.log_softmax(logits)[:, -1], -jnp.inf), count)[1]


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WindowDetector(Detector):
    """Sliding windows' functions; the attributes are those of `Detector`, the network and arguments of `recipe`."""

    net: WindowClassifier
    sizes: tuple[tuple[float, float], ...]
    near: int
    shift: float
    scale: float
    far: int
    hardest: int
    positive_iou: float
    negative_iou: float
    convolutional: bool
    candidates: int

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network, by its name in the state."""
        return {"classifier": self.net}

    @property
    def core(self) -> int:
        """Side of a window's box in the picture."""
        return self.net.window - 2 * CONTEXT

    @functools.cached_property
    def grids(self) -> list[Float[np.ndarray, "rows columns 4"]]:
        """Boxes of the windows of each size."""
        return window_boxes(self.shape[:2], self.sizes, self.core)

    @functools.cached_property
    def windows(self) -> Float[np.ndarray, "windows 4"]:
        """Boxes of all windows."""
        return np.concatenate([grid.reshape(-1, 4) for grid in self.grids])

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the network, its optimiser and its average."""
        check_images(batch, self.shape)
        classifier = self.net.init(key, jnp.zeros((1, self.net.window, self.net.window, self.shape[2])))
        opt = {"classifier": self.tx.init(classifier["params"])}
        return start({"classifier": classifier}, opt, averaged=("classifier",) if self.ema else ())

    def draw_windows(
        self, key: Key[Array, ""], image: Float[Array, "height width channels"], objects: Batch
    ) -> tuple[Float[Array, "windows _ _ channels"], Int[Array, " windows"], Bool[Array, " windows"]]:
        """Draws windows of an image, those near objects first: crops, labels, and which labels are certain."""
        near_key, far_key = jax.random.split(key)
        sought = objects["mask"] & ~objects["ignored"]
        near = near_windows(near_key, objects["boxes"], sought, self.near, self.shift, self.scale)
        windows = jnp.concatenate([near, jax.random.choice(far_key, self.windows, (self.far,))])
        thresholds = dict(positive_iou=self.positive_iou, negative_iou=self.negative_iou)
        labels, certain = label_windows(windows, **objects, classes=len(self.classes), **thresholds)
        crops = jax.vmap(lambda box: show(image, box, self.core, self.net.window, self.net.window))(windows)
        return crops, labels, certain & (sought.any() | (jnp.arange(len(windows)) >= self.near))

    def classify(
        self, params: PyTree, crops: Float[Array, "batch windows _ _ _"], **options: Any
    ) -> Float[Array, "batch windows outputs"]:
        """Returns the logits of crops of each image; options are those of `net.apply`."""
        logits = self.net.apply({"params": params}, crops.reshape(-1, *crops.shape[2:]), **options)
        return logits.reshape(*crops.shape[:2], -1)

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step on windows near objects and on the hardest background."""
        draw_key, dropout_key = jax.random.split(key)
        keys, near = jax.random.split(draw_key, len(batch["image"])), self.near
        boxes, mask = box_ops.visible(batch["boxes"], batch["mask"], *self.shape[:2])
        objects = dict(boxes=boxes, labels=batch["labels"], mask=mask, ignored=batch["difficult"] | batch["crowd"])
        crops, labels, certain = jax.vmap(self.draw_windows)(keys, batch["image"], objects)
        guesses = self.classify(state.params["classifier"], crops[:, near:])
        find_hardest = jax.vmap(functools.partial(hardest_background, count=self.hardest))
        hard = near + find_hardest(guesses, labels[:, near:], certain[:, near:])
        kept = jnp.concatenate([jnp.broadcast_to(jnp.arange(near), (len(hard), near)), hard], axis=1)
        crops, labels, certain = (rows[jnp.arange(len(kept))[:, None], kept] for rows in (crops, labels, certain))
        total = jnp.maximum(certain.sum(), 1)

        def loss_fn(params):
            logits = self.classify(params, crops, train=True, rngs={"dropout": dropout_key})
            errors = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.where(certain, errors, 0.0).sum() / total, logits.argmax(-1) == labels

        params, opt, loss, right = descend(self.tx, loss_fn, state.params["classifier"], state.opt["classifier"])
        state = advance(state, {"classifier": params}, {"classifier": opt}, keep=self.ema)
        shown = certain & (labels < len(self.classes))
        shares = {"share/right": (right & certain).sum() / total, "share/objects": shown.sum() / total}
        return state, {"loss/cross_entropy": loss} | shares

    def find(self, state: State, images: Images) -> Candidates:
        """Finds the windows of all sizes with the highest class probabilities."""
        net, window, logits = functools.partial(self.net.apply, variables(state, "classifier")), self.net.window, []
        for (width, height), grid in zip(self.sizes, self.grids, strict=True):
            rows, columns = (window + STRIDE * (count - 1) for count in grid.shape[:2])
            resize = functools.partial(show, core=self.core, rows=rows, columns=columns)
            pictures = jax.vmap(resize, (0, None))(images, jnp.array([0.0, 0.0, width, height]))
            found = classify_windows(net, pictures, window, self.convolutional)
            logits.append(found.reshape(len(images), -1, len(self.classes) + 1))
        probabilities = jax.nn.softmax(jnp.concatenate(logits, axis=1))[..., :-1]
        scores, which = jax.lax.top_k(probabilities.max(-1), min(self.candidates, len(self.windows)))
        labels = jnp.take_along_axis(probabilities.argmax(-1), which, axis=1)
        return box_ops.clip(jnp.asarray(self.windows)[which], *self.shape[:2]), scores, labels


# Where one object is, there is no other (Rowley et al., section 2.2, overlap elimination).
DETECTION = Detection(score_threshold=0.01, iou_threshold=0.3, across_classes=True)


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    sizes: tuple[tuple[float, float], ...],
    window: Count = 20,
    width: Count = 16,
    hidden: Count = 128,
    dropout: Share = 0.0,
    near: Count = 16,
    shift: NonNegative = 0.3,
    scale: Annotated[float, Range(1)] = 1.3,
    far: Count = 48,
    hardest: Count = 16,
    positive_iou: Share = 0.55,
    negative_iou: Share = 0.4,
    convolutional: bool = True,
    candidates: Count = 300,
    ema: Share = 0.0,
    detection: Detection = DETECTION,
    optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 1e-3},
) -> Recipe:
    """Makes a classifier of windows, trained on some windows of each image and run on all of them.

    Difficult and crowd objects count neither as objects nor as background.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      sizes: (width, height) in pixels of the boxes to find.
      window: height and width of the network's input, a multiple of 4; the box is 2 pixels smaller on each side.
      width: channels of the first convolution.
      hidden: channels of the layer that sees a whole window.
      dropout: of that layer.
      near: number of windows near objects that are drawn from each image.
      shift: their largest distance from the object along each axis, as a share of its size.
      scale: their largest ratio to the object's size along each axis.
      far: number of windows drawn anywhere in each image.
      hardest: number of those with the highest background loss that are trained on.
      positive_iou: least IoU at which a window shows an object.
      negative_iou: IoU below which a window shows background.
      convolutional: run the network over whole pictures; False: on each window separately.
      candidates: number of an image's best windows that detections are selected from.
      ema: share of the moving average that each step keeps; 0: no average.
      detection: how detections are selected.
      optimiser: as in `cvjax.optim.build`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`.

    Raises:
      UserError: a window that the network cannot halve twice, no sizes, or more hardest windows than far ones.
    """
    if window % 4 or window < 16:
        raise UserError(f"config.recipe.window={window}: expected 16, 20, 24, ...")
    if not sizes or min(map(min, sizes)) <= 0:
        raise UserError(f"config.recipe.sizes={sizes}: expected (width, height) in pixels of the boxes to find.")
    if hardest > far:
        raise UserError(f"config.recipe.hardest={hardest}: at most config.recipe.far={far} windows can be chosen.")
    names = class_names(classes)
    net = WindowClassifier(len(names), window, width, hidden, dropout)
    base = (tuple(shape), names, ema, detection, optim.build(optimiser))
    drawn = (near, shift, scale, far, hardest, positive_iou, negative_iou)
    return Recipe.of(WindowDetector(*base, net, sizes, *drawn, convolutional, candidates))
