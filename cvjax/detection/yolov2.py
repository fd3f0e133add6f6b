"""YOLOv2: Redmon & Farhadi, YOLO9000: Better, Faster, Stronger, 2017 (arXiv:1612.08242), section 2.

`cvjax.detection.region` decodes its output and has its loss. `python -m cvjax.programs.anchors` clusters anchors.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cvjax import optim
from cvjax.core import Batch, Metrics, Recipe, State, advance, check_images, class_names, descend, start, variables
from cvjax.detection.detector import Candidates, Detection, Detector, Images, training_objects
from cvjax.detection.region import DARKNET, Anchors, Outputs, RegionLoss, class_scores, decode, losses, rank
from cvjax.errors import UserError
from cvjax.nets.darknet import STAGES, ConvBlock, Darknet, check_stages, reorganise
from cvjax.nets.layers import Conv
from cvjax.ops import boxes as box_ops
from cvjax.ops.anchors import kmeans, shape_iou
from cvjax.signature import Count, Natural, Share

VOC_ANCHORS = ((1.3221, 1.73145), (3.19275, 4.00944), (5.05587, 8.09892), (9.47112, 4.84053), (11.2364, 10.0071))

Parts = dict[str, Float[Array, " batch"]]

# --- net ----------------------------------------------------------------------------------------------------------


class YoloV2(nn.Module):
    """Darknet-19 with three more convolutions; the last one also sees the features of twice the resolution.

    The attributes are arguments of `recipe`; `anchors` and `classes` are their numbers. As in Darknet's yolov2.cfg, a
    1x1 convolution narrows the passed features, which the paper does not mention.
    """

    anchors: int
    classes: int
    width: int = 32
    stages: Sequence[int] = STAGES
    head: int = 3
    passthrough: bool = True

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> Outputs:
        """Returns x, y, width, height, objectness and class logits of each box, float32, before any sigmoid."""
        *finer, x = Darknet(self.width, self.stages, name="darknet")(images, train)
        features = x.shape[-1]
        for index in range(self.head - 1):
            x = ConvBlock(features, name=f"head_{index}")(x, train)
        if self.passthrough:
            fine = ConvBlock(2 * self.width, 1, name="passthrough")(finer[-1], train)
            x = jnp.concatenate([reorganise(fine), x], axis=-1)
        if self.head:
            x = ConvBlock(features, name=f"head_{self.head - 1}")(x, train)
        x = Conv(self.anchors * (5 + self.classes), 1, name="predictions")(x)
        return x.reshape(*x.shape[:3], self.anchors, -1).astype(jnp.float32)


# --- multi-scale training -----------------------------------------------------------------------------------------


def resize(batch: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Returns a batch with its images resized to a height and width, and its boxes with them."""
    images = batch["image"]
    scale = jnp.array([size[1] / images.shape[2], size[0] / images.shape[1]] * 2)
    resized = jax.image.resize(images, (len(images), *size, images.shape[3]), "linear")
    return {**batch, "image": resized, "boxes": batch["boxes"] * scale}


def draw_size(step: Int[Array, ""], count: int) -> Int[Array, ""]:
    """Returns the index of the image size of a step, drawn every ten steps (section 2, multi-scale training)."""
    return jax.random.randint(jax.random.fold_in(jax.random.key(0), step // 10), (), 0, count)


def training_sizes(net: YoloV2, shape: Sequence[int], heights: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Returns the (height, width) of images to train on: `heights` with widths in proportion, or (): the shape's own.

    A UserError says that the network cannot halve a size, or has no stage for its passthrough.
    """
    stride = check_stages(net.stages)
    if net.passthrough and len(net.stages) < 2:
        raise UserError(f"config.recipe.stages={tuple(net.stages)}: passthrough needs a stage before the last one.")
    sizes = tuple((height, round(height * shape[1] / shape[0])) for height in heights) or (tuple(shape[:2]),)
    for side in {*shape[:2], *np.ravel(sizes).tolist()}:
        if side % stride or side < stride:
            raise UserError(
                f"config.recipe: images of {side} pixels cannot be halved {len(net.stages) - 1} times: shape="
                f"{tuple(shape)} and sizes={tuple(heights)} have to be multiples of {stride}."
            )
    return sizes


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class YoloV2Detector(Detector):
    """YOLOv2's functions; attributes are those of `Detector`, the network and `recipe`'s; sizes are (height, width)."""

    net: YoloV2
    anchors: Anchors
    sizes: tuple[tuple[int, int], ...]
    prior_images: int
    loss: RegionLoss

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The network, by its name in the state."""
        return {"detector": self.net}

    @property
    def stride(self) -> int:
        """Pixels per cell."""
        return check_stages(self.net.stages)

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the network, its optimiser and its average."""
        check_images(batch, self.shape)
        detector = self.net.init(key, jnp.zeros((1, *self.shape)))
        opt = {"detector": self.tx.init(detector["params"])}
        return start({"detector": detector}, opt, averaged=("detector",) if self.ema else ())

    def losses(self, outputs: Outputs, batch: Batch, prior_weight: Float[Array, ""]) -> tuple[Parts, Parts]:
        """Returns the parts of the loss of each image, and counts, as `region.losses` does."""
        truth = training_objects(batch)
        return losses(outputs, *truth, self.anchors, self.stride, self.loss, prior_weight)

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the loss, at a size that changes every ten steps."""
        if len(self.sizes) == 1:
            return self.train_at(self.sizes[0], state, batch)
        branches = [functools.partial(self.train_at, size) for size in self.sizes]
        return jax.lax.switch(draw_size(state.step, len(self.sizes)), branches, state, batch)

    def train_at(self, size: tuple[int, int], state: State, batch: Batch) -> tuple[State, Metrics]:
        """Takes a step on images resized to a height and width."""
        batch = batch if size == self.shape[:2] else resize(batch, size)
        prior_weight = 0.01 * (state.step * len(batch["image"]) < self.prior_images)

        def loss_fn(params):
            detector = {"params": params, "batch_stats": state.stats["detector"]}
            outputs, new = self.net.apply(detector, batch["image"], train=True, mutable=["batch_stats"])
            parts, counts = self.losses(outputs, batch, prior_weight)
            return sum(parts.values()).mean(), (parts, counts, new["batch_stats"])

        step = descend(self.tx, loss_fn, state.params["detector"], state.opt["detector"])
        params, opt, loss, (parts, counts, stats) = step
        metrics = {f"loss/{name}": part.mean() for name, part in parts.items()}
        metrics |= {"loss/total": loss, "iou": counts["iou"].sum() / jnp.maximum(counts["objects"].sum(), 1)}
        state = advance(state, {"detector": params}, {"detector": opt}, {"detector": stats}, keep=self.ema)
        return state, metrics

    def find(self, state: State, images: Images, scores: Callable[[Outputs], Array] = class_scores) -> Candidates:
        """Finds the best pairs of a box and a class; `scores` maps the network's outputs to those of each pair."""
        outputs = self.net.apply(variables(state, "detector"), images)
        boxes = box_ops.clip(decode(outputs, self.anchors, self.stride), *self.shape[:2])
        return rank(boxes, scores(outputs))


PAPER = {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}  # section 3
DETECTION = Detection(score_threshold=0.005, iou_threshold=0.45)  # Darknet's


def recipe(
    shape: tuple[Count, Count, Count] = (416, 416, 3),
    classes: Count | tuple[str, ...] = 20,
    anchors: tuple[tuple[float, float], ...] = VOC_ANCHORS,
    width: Count = 32,
    stages: tuple[Count, ...] = STAGES,
    head: Natural = 3,
    passthrough: bool = True,
    sizes: tuple[Count, ...] = (),
    prior_images: Natural = 12_800,
    loss: RegionLoss = DARKNET,
    ema: Share = 0.0,
    detection: Detection = DETECTION,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes YOLOv2.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      anchors: widths and heights in cells, as `python -m cvjax.programs.anchors` prints them.
      width: channels of the first convolution.
      stages: number of convolutions between poolings; a cell is 2 ** (stages - 1) pixels wide.
      head: number of 3x3 convolutions after Darknet-19.
      passthrough: concatenate features of twice the resolution before the last of them.
      sizes: image heights between which training switches every ten steps; (): the shape's only.
      prior_images: number of images, at the start, that also pull predictors without an object to their anchors.
      loss: weights of the loss.
      ema: share of the moving average that each step keeps; 0: no average.
      detection: how detections are selected.
      optimiser: as in `cvjax.optim.build`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`.

    Raises:
      UserError: stages or sizes that do not fit.
    """
    names = class_names(classes)
    net = YoloV2(len(anchors), len(names), width, tuple(stages), head, passthrough)
    base = (tuple(shape), names, ema, detection, optim.build(optimiser))
    sizes = training_sizes(net, shape, sizes)
    return Recipe.of(YoloV2Detector(*base, net, anchors, sizes, prior_images, loss))


def cluster(batches: Iterable[Mapping[str, Any]], stride: int, count: int) -> tuple[Anchors, float]:
    """Returns (anchors, mean IoU of the boxes of a training set with the closest one): section 2, dimension clusters.

    Batches have `boxes`, `mask`, `difficult`, `crowd` and `valid`; anchors are (width, height) in cells.
    """
    used = (b["boxes"][b["mask"] & ~b["difficult"] & ~b["crowd"] & b["valid"][:, None]] for b in batches)
    boxes = np.concatenate(list(used))
    sizes = jnp.asarray(boxes[:, 2:] - boxes[:, :2])[(boxes[:, 2:] > boxes[:, :2]).all(-1)] / stride
    anchors = kmeans(jax.random.key(0), sizes, count)
    rounded = [[round(side, 3) for side in anchor] for anchor in anchors.tolist()]
    return rounded, float(shape_iou(sizes, anchors).max(-1).mean())
