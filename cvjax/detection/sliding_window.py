"""Sliding windows: a small CNN classifies a window at every place, in every size.

The pyramid of images is that of Rowley, Baluja & Kanade, Neural Network-Based Face Detection, 1998, and so is learning
the background from the windows that are most easily mistaken. The network runs on each window by itself, or as a
convolution over the whole picture, which computes once what windows share: Sermanet et al., OverFeat, 2014
(arXiv:1312.6229), section 3.5.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from cvjax import optim
from cvjax.core import Recipe, advance, check_images, class_names, descend, start, variables
from cvjax.detection.selection import find_candidates, make_detector, select
from cvjax.errors import UserError
from cvjax.nets.layers import Conv
from cvjax.ops import boxes as box_ops
from cvjax.ops.pooling import max_pool
from cvjax.signature import Count, Range, Share

STRIDE = 4  # pixels between two windows of a picture: the network halves twice
CONTEXT = 2  # pixels that a window shows around the box that it stands for

Images = Float[Array, "batch height width channels"]
Logits = Float[Array, "batch rows columns outputs"]

# --- net ----------------------------------------------------------------------------------------------------------


class WindowClassifier(nn.Module):
    """Classifies every window of a picture, one each `STRIDE` pixels; a picture as large as a window has one.

    No convolution pads, so that what is said about a window depends on nothing outside of it.

    Attributes:
      classes: how many; the background comes after them.
      window: height and width of a window, a multiple of 4 and at least 16.
      width: channels of the first convolution.
      hidden: channels of the layer that sees a whole window.
      dropout: share of these dropped while training.
    """

    classes: int
    window: int = 20
    width: int = 16
    hidden: int = 128
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> Logits:
        """Returns the logits of each window; in training it takes the random stream "dropout"."""
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
    """Lists the boxes that all windows of an image stand for.

    Args:
      shape: height and width of the image in pixels.
      sizes: (width, height) of the boxes sought, in pixels.
      core: of the boxes in pixels of the resized pictures.

    Returns:
      For each size a grid of corners in pixels, from the upper left corner until the last touch or cross the border.
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
    """Resizes an image so that a box becomes `core` pixels wide and high, and cuts out a picture around it.

    The box begins `CONTEXT` pixels from the picture's upper left corner. Outside the image it is black.

    Args:
      image: the image.
      box: corners in pixels, neither empty nor inside out.
      core: size of the box in the picture.
      rows: height of the picture.
      columns: width of the picture.

    Returns:
      The picture; resampling is bilinear, and antialiased where it shrinks.
    """
    scale = core / jnp.stack([box[3] - box[1], box[2] - box[0]])
    shift = CONTEXT - scale * jnp.stack([box[1], box[0]])
    shape = (rows, columns, image.shape[2])
    return jax.image.scale_and_translate(image, shape, (0, 1), scale, shift, "linear", antialias=True)


def classify_by_crops(classify: Callable[[Images], Logits], images: Images, window: int) -> Logits:
    """Classifies each window of pictures by itself: most of the work is done again for the next window.

    Args:
      classify: the network.
      images: pictures.
      window: height and width of a window.

    Returns:
      Logits of each window.
    """
    batch, height, width, channels = images.shape
    rows, columns = ((side - window) // STRIDE + 1 for side in (height, width))
    row = STRIDE * jnp.arange(rows)[:, None, None, None] + jnp.arange(window)[:, None]
    column = STRIDE * jnp.arange(columns)[:, None, None] + jnp.arange(window)
    crops = images[:, row, column].reshape(-1, window, window, channels)
    return classify(crops).reshape(batch, rows, columns, -1)


def classify_by_convolution(classify: Callable[[Images], Logits], images: Images, window: int) -> Logits:
    """Classifies all windows of pictures at once, with what they share computed once.

    Args:
      classify: the network.
      images: pictures; what is left of them behind the last window is not looked at.
      window: height and width of a window.

    Returns:
      Logits of each window, those of `classify_by_crops`.
    """
    height, width = ((side - window) // STRIDE * STRIDE + window for side in images.shape[1:3])
    return classify(images[:, :height, :width])


# --- training -----------------------------------------------------------------------------------------------------


def near_windows(
    key: Key[Array, ""],
    boxes: Float[Array, "objects 4"],
    mask: Bool[Array, " objects"],
    count: int,
    shift: float,
    scale: float,
) -> Float[Array, "count 4"]:
    """Draws windows near objects, each object as likely.

    Args:
      key: of the draws.
      boxes: corners in pixels.
      mask: which of them are objects. Without any, the windows are anywhere.
      count: how many windows.
      shift: largest distance of the centres along each axis, as a share of the object's size.
      scale: largest factor between the sizes along each axis, or its inverse.

    Returns:
      The boxes that the windows stand for.
    """
    which_key, shift_key, scale_key = jax.random.split(key, 3)
    which = jax.random.categorical(which_key, jnp.where(mask, 0.0, -1e9), shape=(count,))
    near = box_ops.to_centre(boxes[which])
    moves = jax.random.uniform(shift_key, (count, 2), minval=-shift, maxval=shift)
    factors = jnp.exp(jax.random.uniform(scale_key, (count, 2), minval=-1.0) * math.log(scale))
    sizes = jnp.maximum(near[:, 2:], 1.0)  # a degenerate box has a window too
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
    """Says what a window shows, by the IoU of its box with the object that overlaps it most.

    Args:
      windows: the boxes that they stand for.
      boxes: of the objects.
      labels: of the objects.
      mask: which of them are objects.
      ignored: objects that are neither to be found nor background.
      classes: how many there are; this is the background's number.
      positive_iou: from which on a window shows the object.
      negative_iou: below which it shows background.

    Returns:
      (labels, whether they are certain; between the two IoUs they are not).
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
    """Finds the windows of background that the network is most wrong about.

    Args:
      logits: of the windows.
      labels: what they show, the last class being background.
      certain: whether they do.
      count: how many to find.

    Returns:
      Their indices; where there are too few, others'.
    """
    background = certain & (labels == logits.shape[-1] - 1)
    return jax.lax.top_k(jnp.where(background, -jax.nn.log_softmax(logits)[:, -1], -jnp.inf), count)[1]


# --- recipe -------------------------------------------------------------------------------------------------------


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    sizes: tuple[tuple[float, float], ...],
    window: Count = 20,
    width: Count = 16,
    hidden: Count = 128,
    dropout: Share = 0.0,
    near: Count = 16,
    shift: Annotated[float, Range(0)] = 0.3,
    scale: Annotated[float, Range(1)] = 1.3,
    far: Count = 48,
    hardest: Count = 16,
    positive_iou: Share = 0.55,
    negative_iou: Share = 0.4,
    convolutional: bool = True,
    candidates: Count = 300,
    ema: Share = 0.0,
    flip_test: bool = False,
    score_threshold: Share = 0.01,
    iou_threshold: Share = 0.3,
    across_classes: bool = True,
    max_detections: Count = 100,
    optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 1e-3},
) -> Recipe:
    """Makes a classifier of windows, trained on windows of the batch's images and run on all of them.

    Difficult and crowd objects count neither as objects nor as background.

    Args:
      shape: height, width, channels of the images.
      classes: how many, or their names, which figures and drawings then bear.
      sizes: (width, height) in pixels of the boxes sought.
      window: height and width of what the network sees, a multiple of 4; a box fills all but 2 pixels around it.
      width: channels of the first convolution.
      hidden: channels of the layer that sees a whole window.
      dropout: share of these dropped while training.
      near: windows near objects that are drawn from each image.
      shift: how far from their objects, as a share of the object's size.
      scale: how much larger or smaller than their objects.
      far: windows that are drawn anywhere, of which the
      hardest: so many, are learnt as background.
      positive_iou: from which on a window shows an object.
      negative_iou: below which it shows background.
      convolutional: run the network over whole pictures; False: on every window by itself.
      candidates: windows of an image, the best, that may become detections.
      ema: share that each step keeps of the averaged network, which then detects; (1 + step) / (10 + step) where that
        is less. 0: no average.
      flip_test: detect in the mirrored image too.
      score_threshold: probability of the class below which nothing is detected.
      iou_threshold: of the suppression of overlapping detections.
      across_classes: whether a detection suppresses those of other classes too, as where one object is, there is no
        other (Rowley et al., section 2.2, overlap elimination).
      max_detections: how many an image may have.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`.

    Raises:
      UserError: a window that the network cannot halve twice, or no sizes.
    """
    if window % 4 or window < 16:
        raise UserError(f"config.recipe.window={window}: expected 16, 20, 24, ...")
    if not sizes or min(map(min, sizes)) <= 0:
        raise UserError(f"config.recipe.sizes={sizes}: expected (width, height) in pixels of the boxes sought.")
    if hardest > far:
        raise UserError(f"config.recipe.hardest={hardest} of far={far} windows: there are not so many.")
    names = class_names(classes)
    net, tx = WindowClassifier(len(names), window, width, hidden, dropout), optim.build(optimiser)
    core = window - 2 * CONTEXT
    grids = window_boxes(shape[:2], sizes, core)
    everywhere = np.concatenate([grid.reshape(-1, 4) for grid in grids])
    run = classify_by_convolution if convolutional else classify_by_crops
    thresholds = dict(score_threshold=score_threshold, iou_threshold=iou_threshold, max_detections=max_detections)
    thresholds |= dict(across_classes=across_classes)

    def init(key, batch):
        check_images(batch, shape)
        classifier = net.init(key, jnp.zeros((1, window, window, shape[2])))
        opt = {"classifier": tx.init(classifier["params"])}
        return start({"classifier": classifier}, opt, averaged=("classifier",) if ema else ())

    def classify(params, crops, **options):
        logits = net.apply({"params": params}, crops.reshape(-1, window, window, shape[2]), **options)
        return logits.reshape(*crops.shape[:2], -1)

    def draw_windows(key, image, boxes, labels, mask, ignored):
        """Windows of an image: crops, labels, and which labels are certain."""
        near_key, far_key = jax.random.split(key)
        sought = mask & ~ignored
        around = near_windows(near_key, boxes, sought, near, shift, scale)
        windows = jnp.concatenate([around, jax.random.choice(far_key, everywhere, (far,))])
        labels, certain = label_windows(windows, boxes, labels, mask, ignored, len(names), positive_iou, negative_iou)
        crops = jax.vmap(lambda box: show(image, box, core, window, window))(windows)
        return crops, labels, certain & (sought.any() | (jnp.arange(near + far) >= near))

    def train_step(state, batch, key):
        draw_key, dropout_key = jax.random.split(key)
        keys, ignored = jax.random.split(draw_key, len(batch["image"])), batch["difficult"] | batch["crowd"]
        boxes, mask = box_ops.visible(batch["boxes"], batch["mask"], *shape[:2])
        objects = (boxes, batch["labels"], mask, ignored)
        crops, labels, certain = jax.vmap(draw_windows)(keys, batch["image"], *objects)
        guesses = classify(state.params["classifier"], crops[:, near:])
        find = jax.vmap(partial(hardest_background, count=hardest))
        hard = near + find(guesses, labels[:, near:], certain[:, near:])
        kept = jnp.concatenate([jnp.broadcast_to(jnp.arange(near), (len(hard), near)), hard], axis=1)
        crops, labels, certain = (rows[jnp.arange(len(kept))[:, None], kept] for rows in (crops, labels, certain))
        total = jnp.maximum(certain.sum(), 1)

        def loss_fn(params):
            logits = classify(params, crops, train=True, rngs={"dropout": dropout_key})
            errors = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.where(certain, errors, 0.0).sum() / total, logits.argmax(-1) == labels

        params, opt, loss, right = descend(tx, loss_fn, state.params["classifier"], state.opt["classifier"])
        state = advance(state, {"classifier": params}, {"classifier": opt}, keep=ema)
        shown = certain & (labels < len(names))
        shares = {"share/right": (right & certain).sum() / total, "share/objects": shown.sum() / total}
        return state, {"loss/cross_entropy": loss} | shares

    def scan(classifier, images):
        """The best windows of images: boxes, scores and labels of all sizes together."""
        logits = []
        for (box_width, box_height), grid in zip(sizes, grids, strict=True):
            box = jnp.array([0.0, 0.0, box_width, box_height])
            rows, columns = (window + STRIDE * (count - 1) for count in grid.shape[:2])
            pictures = jax.vmap(lambda image, b=box, r=rows, c=columns: show(image, b, core, r, c))(images)
            found = run(partial(net.apply, classifier), pictures, window)
            logits.append(found.reshape(len(images), -1, len(names) + 1))
        probabilities = jax.nn.softmax(jnp.concatenate(logits, axis=1))[..., :-1]
        scores, which = jax.lax.top_k(probabilities.max(-1), min(candidates, len(everywhere)))
        labels = jnp.take_along_axis(probabilities.argmax(-1), which, axis=1)
        return box_ops.clip(jnp.asarray(everywhere)[which], *shape[:2]), scores, labels

    def detect(state, images):
        scan_with = partial(scan, variables(state, "classifier"))
        return select(*find_candidates(scan_with, images, flip_test), **thresholds)

    return make_detector({"classifier": net}, init, train_step, detect, names)
