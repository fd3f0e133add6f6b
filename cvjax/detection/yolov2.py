"""YOLOv2: Redmon & Farhadi, YOLO9000: Better, Faster, Stronger, 2017 (arXiv:1612.08242), section 2.

Every cell of a grid predicts a box for each of a few anchors, whose shapes are clustered from the training set. What is
made of the network's output, and the loss, is in `cvjax.detection.region`.

`python -m cvjax.programs.anchors --config=FILE` clusters anchors for a config.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Int

from cvjax import optim
from cvjax.core import Recipe, advance, check_images, class_names, descend, start, variables
from cvjax.detection.region import Anchors, Outputs, class_scores, decode, losses, rank
from cvjax.detection.selection import draw, find_candidates, select
from cvjax.errors import UserError
from cvjax.metrics import detection
from cvjax.nets.darknet import STAGES, ConvBlock, Darknet, check_stages, reorganise
from cvjax.nets.layers import Conv
from cvjax.ops import boxes as box_ops
from cvjax.ops.anchors import kmeans, shape_iou
from cvjax.signature import Count, Range, Share

VOC_ANCHORS = ((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071))

# --- net ----------------------------------------------------------------------------------------------------------


class YoloV2(nn.Module):
    """Darknet-19 and three more convolutions, the last of which sees the features of twice the resolution as well.

    Attributes:
      anchors: how many boxes each cell predicts.
      classes: how many classes each box has logits of.
      width: channels of the first convolution; 32 is the paper's.
      stages: as those of `Darknet`.
      head: 3x3 convolutions behind Darknet-19, of as many channels as its last one.
      passthrough: whether the finer features join in front of the last of them; as in Darknet's yolov2.cfg, a 1x1
        convolution, of which the paper does not tell, makes them fewer before.
      dtype: of the computation.
    """

    anchors: int
    classes: int
    width: int = 32
    stages: Sequence[int] = STAGES
    head: int = 3
    passthrough: bool = True
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "batch height width channels"], train: bool = False) -> Outputs:
        """Returns x, y, width, height, objectness and class logits of each box, float32, before any sigmoid."""
        *finer, x = Darknet(self.width, self.stages, self.dtype, name="darknet")(images, train)
        features = x.shape[-1]
        for index in range(self.head - 1):
            x = ConvBlock(features, dtype=self.dtype, name=f"head_{index}")(x, train)
        if self.passthrough:
            fine = ConvBlock(2 * self.width, 1, self.dtype, name="passthrough")(finer[-1], train)
            x = jnp.concatenate([reorganise(fine), x], axis=-1)
        if self.head:
            x = ConvBlock(features, dtype=self.dtype, name=f"head_{self.head - 1}")(x, train)
        x = Conv(self.anchors * (5 + self.classes), 1, dtype=self.dtype, name="predictions")(x)
        return x.reshape(*x.shape[:3], self.anchors, -1).astype(jnp.float32)


# --- recipe -------------------------------------------------------------------------------------------------------


def resize(batch: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Resizes images and their boxes.

    Args:
      batch: `image` and `boxes` are changed, all else is kept.
      size: new height and width.

    Returns:
      The batch.
    """
    images = batch["image"]
    scale = jnp.array([size[1] / images.shape[2], size[0] / images.shape[1]] * 2)
    resized = jax.image.resize(images, (len(images), *size, images.shape[3]), "linear")
    return {**batch, "image": resized, "boxes": batch["boxes"] * scale}


def draw_size(step: Int[Array, ""], count: int) -> Int[Array, ""]:
    """Draws the size of a training step's images: the same for ten steps (section 2, multi-scale training).

    Args:
      step: training steps taken before.
      count: how many sizes there are.

    Returns:
      Number of the size, the same in every run.
    """
    return jax.random.randint(jax.random.fold_in(jax.random.key(0), step // 10), (), 0, count)


def assemble(
    net: nn.Module,
    *,
    losses_of: Callable,
    scores_of: Callable,
    names_of: Callable,
    figures: Callable,
    names: Sequence[str],
    shape: tuple[int, int, int],
    anchors: Anchors,
    sizes: Sequence[int],
    prior_images: int,
    ema: float,
    flip_test: bool,
    score_threshold: float,
    iou_threshold: float,
    max_detections: int,
    optimiser: Mapping[str, Any],
) -> Recipe:
    """Makes a recipe of a network that predicts boxes from anchors: YOLOv2 or YOLO9000.

    Args:
      net: the network, with the attributes `stages` and `passthrough`.
      losses_of: (outputs, batch, stride, weight of the prior) -> what `losses` returns.
      scores_of: outputs -> scores of each box for each class, by which figures are computed.
      names_of: outputs -> the same for what `predict` and the drawings tell.
      figures: the recipe's `score`.
      names: of the classes that are drawn.
      shape: as in `recipe`, like all below.
      anchors: likewise.
      sizes: likewise.
      prior_images: likewise.
      ema: likewise.
      flip_test: likewise.
      score_threshold: likewise.
      iou_threshold: likewise.
      max_detections: likewise.
      optimiser: likewise.

    Returns:
      The recipe.

    Raises:
      UserError: sizes that the network cannot halve as often as it wants to.
    """
    tx, stride = optim.build(optimiser), check_stages(net.stages)
    if net.passthrough and len(net.stages) < 2:
        raise UserError(f"config.recipe.stages={tuple(net.stages)}: passthrough wants a stage before the last.")
    scales = [shape[:2], *((size, round(size * shape[1] / shape[0])) for size in sizes)][bool(sizes) :]
    for side in {*shape[:2], *np.ravel(scales).tolist()}:
        if side % stride or side < stride:
            raise UserError(
                f"config.recipe: images of {side} pixels cannot be halved {len(net.stages) - 1} times: shape="
                f"{tuple(shape)} and sizes={tuple(sizes)} have to be multiples of {stride}."
            )

    def init(key, batch):
        check_images(batch, shape)
        detector = net.init(key, jnp.zeros((1, *shape)))
        opt = {"detector": tx.init(detector["params"])}
        return start({"detector": detector}, opt, averaged=("detector",) if ema else ())

    def train_at(size, state, batch):
        batch = batch if size == shape[:2] else resize(batch, size)
        prior_weight = 0.01 * (state.step * len(batch["image"]) < prior_images)

        def loss_fn(params):
            detector = {"params": params, "batch_stats": state.stats["detector"]}
            outputs, new = net.apply(detector, batch["image"], train=True, mutable=["batch_stats"])
            parts, counts = losses_of(outputs, batch, stride, prior_weight)
            return sum(parts.values()).mean(), (parts, counts, new["batch_stats"])

        params, opt, loss, (parts, counts, stats) = descend(
            tx, loss_fn, state.params["detector"], state.opt["detector"]
        )
        metrics = {f"loss/{name}": part.mean() for name, part in parts.items()}
        metrics |= {"loss/total": loss, "iou": counts["iou"].sum() / jnp.maximum(counts["objects"].sum(), 1)}
        state = advance(state, {"detector": params}, {"detector": opt}, {"detector": stats}, keep=ema)
        return state, metrics

    def train_step(state, batch, key):
        if len(scales) == 1:
            return train_at(scales[0], state, batch)
        branches = [functools.partial(train_at, size) for size in scales]
        return jax.lax.switch(draw_size(state.step, len(scales)), branches, state, batch)

    def detect(state, images, judge):
        def look(images):
            outputs = net.apply(variables(state, "detector"), images)
            boxes = box_ops.clip(decode(outputs, anchors, stride), *shape[:2])
            return rank(boxes, judge(outputs))

        thresholds = dict(score_threshold=score_threshold, iou_threshold=iou_threshold, max_detections=max_detections)
        return select(*find_candidates(look, images, flip_test), **thresholds)

    def eval_step(state, batch, key):
        return detect(state, batch["image"], scores_of)

    @jax.jit
    def predict(state, inputs, key):
        return detect(state, inputs["image"], names_of)

    def visualise(state, batch, key):
        return {"detections": draw(batch, predict(state, {"image": batch["image"]}, key), names)}

    return Recipe({"detector": net}, init, train_step, eval_step, figures, visualise, predict)


PAPER = {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}  # section 3


def recipe(
    shape: tuple[Count, Count, Count] = (416, 416, 3),
    classes: Count | tuple[str, ...] = 20,
    anchors: tuple[tuple[float, float], ...] = VOC_ANCHORS,
    width: Count = 32,
    stages: tuple[Count, ...] = STAGES,
    head: Annotated[int, Range(0)] = 3,
    passthrough: bool = True,
    sizes: tuple[Count, ...] = (),
    prior_images: Annotated[int, Range(0)] = 12_800,
    rescore: bool = True,
    object_weight: Annotated[float, Range(0)] = 5.0,
    no_object_weight: Annotated[float, Range(0)] = 1.0,
    class_weight: Annotated[float, Range(0)] = 1.0,
    coordinate_weight: Annotated[float, Range(0)] = 1.0,
    ignore_iou: Share = 0.6,
    ema: Share = 0.0,
    flip_test: bool = False,
    score_threshold: Share = 0.005,
    iou_threshold: Share = 0.45,
    max_detections: Count = 100,
    dtype: Literal["float32", "bfloat16"] = "float32",
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes YOLOv2. Difficult and crowd objects are not trained on, as in Darknet.

    Args:
      shape: height, width, channels of the images.
      classes: how many, or their names, which figures and drawings then bear.
      anchors: widths and heights in cells, as `python -m cvjax.programs.anchors` prints them.
      width: channels of the first convolution.
      stages: convolutions between the poolings; a cell is 2 ** (stages - 1) pixels wide.
      head: 3x3 convolutions behind Darknet-19.
      passthrough: whether features of twice the resolution join in front of the last of them.
      sizes: heights in pixels between which training switches every ten steps, widths in proportion; (): the shape's.
      prior_images: how many images at first pull predictors without an object to their anchors too.
      rescore: as in `losses`, like the next five.
      object_weight: likewise.
      no_object_weight: likewise.
      class_weight: likewise.
      coordinate_weight: likewise.
      ignore_iou: likewise.
      ema: share of the averaged network that each step keeps, (1 + step) / (10 + step) where that is less; it is the
        one that detects. 0: none.
      flip_test: detect in the mirrored image too.
      score_threshold: class probability times objectness below which nothing is detected.
      iou_threshold: of the suppression of overlapping detections of a class.
      max_detections: how many an image may have.
      dtype: of the network's computation; parameters, statistics and losses are float32.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`.

    Raises:
      UserError: stages or sizes that do not fit.
    """
    names = class_names(classes)
    weights = dict(object_weight=object_weight, no_object_weight=no_object_weight, class_weight=class_weight)
    weights |= dict(coordinate_weight=coordinate_weight, ignore_iou=ignore_iou, rescore=rescore)

    def losses_of(outputs, batch, stride, prior_weight):
        mask = batch["mask"] & ~batch["difficult"] & ~batch["crowd"]
        truth = (batch["boxes"], batch["labels"], mask)
        return losses(outputs, *truth, anchors, stride, prior_weight=prior_weight, **weights)

    return assemble(
        YoloV2(len(anchors), len(names), width, tuple(stages), head, passthrough, dtype),
        losses_of=losses_of,
        scores_of=class_scores,
        names_of=class_scores,
        figures=functools.partial(detection.figures, classes=names),
        names=names,
        shape=shape,
        anchors=anchors,
        sizes=sizes,
        prior_images=prior_images,
        ema=ema,
        flip_test=flip_test,
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_detections=max_detections,
        optimiser=optimiser,
    )


def cluster(batches: Iterable[Mapping[str, Any]], stride: int, count: int) -> tuple[Anchors, float]:
    """Clusters the boxes of a training set into anchors (section 2, dimension clusters).

    Boxes without width or height are left out, as they are in training.

    Args:
      batches: `boxes`, `mask`, `difficult`, `crowd` and `valid`.
      stride: pixels a cell.
      count: how many anchors.

    Returns:
      (widths and heights in cells, mean IoU of the boxes with the nearest).
    """
    used = (b["boxes"][b["mask"] & ~b["difficult"] & ~b["crowd"] & b["valid"][:, None]] for b in batches)
    boxes = np.concatenate(list(used))
    sizes = jnp.asarray(boxes[:, 2:] - boxes[:, :2])[(boxes[:, 2:] > boxes[:, :2]).all(-1)] / stride
    anchors = kmeans(jax.random.key(0), sizes, count)
    rounded = [[round(side, 3) for side in anchor] for anchor in anchors.tolist()]
    return rounded, float(shape_iou(sizes, anchors).max(-1).mean())
