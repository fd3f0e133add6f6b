"""RetinaNet: Lin et al., Focal Loss for Dense Object Detection, 2017 (arXiv:1708.02002).

Details that the paper leaves open follow Detectron, the authors' code.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from cvjax import optim
from cvjax.core import Batch, Metrics, Recipe, State, advance, check_images, class_names, descend, start, variables
from cvjax.detection.detector import Candidates, Detection, Detector, Images, training_objects
from cvjax.errors import UserError
from cvjax.losses.focal import sigmoid_focal, smooth_l1
from cvjax.nets.fpn import FPN
from cvjax.nets.layers import Conv
from cvjax.nets.resnet import ResNet, stage_strides
from cvjax.ops import anchors as grids
from cvjax.ops import boxes as box_ops
from cvjax.signature import Count, Natural, NonNegative, Range, Share

# --- nets ---------------------------------------------------------------------------------------------------------


class Subnet(nn.Module):
    """3x3 convolutions with ReLUs between them (section 4), applied to every level.

    The last one has `outputs` channels and the initial `bias`; before it are `depth` others of `channels`. The initial
    kernels have the standard deviation `deviation`.
    """

    outputs: int
    channels: int = 256
    depth: int = 4
    bias: float = 0.0
    deviation: float = 0.01

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch rows columns channels"]
    ) -> Float[Array, "batch rows columns {self.outputs}"]:
        """Returns the outputs at each location."""
        conv = partial(Conv, kernel=3, padding=1, kernel_init=nn.initializers.normal(self.deviation))
        for index in range(self.depth):
            x = nn.relu(conv(self.channels, name=f"conv_{index + 1}")(x))
        return conv(self.outputs, bias_init=nn.initializers.constant(self.bias), name="output")(x)


class RetinaNet(nn.Module):
    """A feature pyramid, and subnets that classify `anchors` anchors at each location and move them onto objects."""

    classes: int
    anchors: int = 9
    levels: Sequence[int] = (3, 4, 5, 6, 7)
    fpn: bool = True
    channels: int = 256
    depth: int = 4
    prior: float = 0.01
    deviation: float = 0.01

    @nn.compact
    def __call__(
        self, stages: Mapping[str, Float[Array, "batch _ _ _"]]
    ) -> list[tuple[Float[Array, "batch _ {self.classes}"], Float[Array, "batch _ 4"]]]:
        """Returns the logits of each anchor's classes and the offsets of its box, level by level."""
        subnet = partial(Subnet, channels=self.channels, depth=self.depth, deviation=self.deviation)
        bias = -math.log((1 - self.prior) / self.prior)
        classify = subnet(self.anchors * self.classes, bias=bias, name="classification")
        regress = subnet(self.anchors * 4, name="boxes")
        if self.fpn:
            pyramid = FPN(self.channels, self.levels, name="fpn")(stages)
        else:
            pyramid = {"p4": Conv(self.channels, 1, name="lateral_4")(stages["c4"])}

        def of_each_anchor(outputs: Array, size: int) -> Array:
            return outputs.reshape(len(outputs), -1, size).astype(jnp.float32)

        return [(of_each_anchor(classify(x), self.classes), of_each_anchor(regress(x), 4)) for x in pyramid.values()]


# --- anchors and losses -------------------------------------------------------------------------------------------


def lay_anchors(
    image_size: tuple[int, int],
    stages: Mapping[str, int],
    levels: Sequence[int],
    sizes: Sequence[float],
    scales: Sequence[float],
    ratios: Sequence[float],
    fpn: bool = True,
) -> list[Float[Array, "_ 4"]]:
    """Returns the anchors of every level of an image (height, width), in the order of the network's outputs.

    `stages` has each stage's stride, and each level beyond them doubles the last. The rest is as in `recipe`.
    """
    last = max(int(stage.removeprefix("c")) for stage in stages)
    if fpn:
        strides = [stages[f"c{min(level, last)}"] * 2 ** max(level - last, 0) for level in levels]
        return grids.pyramid(image_size, strides, sizes, scales, ratios)
    rows, columns = (math.ceil(length / stages["c4"]) for length in image_size)
    cell = jnp.concatenate([grids.cell_anchors(size, scales, ratios) for size in sizes])
    return [grids.grid((rows, columns), stages["c4"], cell)]


TIE = 1e-6  # relative rounding error of equal overlaps


def match(
    anchors: Float[Array, "anchors 4"],
    boxes: Float[Array, "objects 4"],
    present: Bool[Array, " objects"],
    positive: float = 0.5,
    negative: float = 0.4,
    force: bool = True,
) -> tuple[Int[Array, " anchors"], Bool[Array, " anchors"], Bool[Array, " anchors"]]:
    """Matches each anchor with the object that it is trained on (section 4, "Anchors").

    Returns (the object of greatest IoU, whether the anchor is trained on it, whether it is trained on nothing at all).

    Args:
      present: False in padding.
      positive: least IoU at which an anchor is trained on an object.
      negative: IoU below which an anchor is trained as background.
      force: also train the anchors that overlap an object most, on the object that they overlap most. The paper does
        not mention it. Detectron and torchvision do it, but compare bits: of equal overlaps, such as those of the
        anchors of neighbouring cells, rounding leaves them one. Here overlaps within `TIE` are equal.
    """
    overlaps = jnp.where(present, box_ops.iou(anchors, boxes), -1.0)
    greatest = overlaps.max(axis=1)
    positives = greatest >= positive
    if force:
        peaks = overlaps.max(axis=0)
        positives |= ((overlaps >= peaks * (1 - TIE)) & (peaks > 0)).any(axis=1)
    return overlaps.argmax(axis=1), positives, ~positives & (greatest >= negative)


def detection_losses(
    logits: Float[Array, "batch anchors classes"],
    deltas: Float[Array, "batch anchors 4"],
    anchors: Float[Array, "anchors 4"],
    boxes: Float[Array, "batch objects 4"],
    labels: Int[Array, "batch objects"],
    present: Bool[Array, "batch objects"],
    gamma: float = 2.0,
    alpha: float | None = 0.25,
    beta: float = 1 / 9,
    force: bool = True,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"], Float[Array, " batch"]]:
    """Computes both losses of each image, divided by its number of anchors that are trained on an object, at least 1.

    `deltas` are offsets as in `cvjax.ops.boxes.encode`; gamma and alpha are as in `cvjax.losses.focal.sigmoid_focal`,
    beta as in its `smooth_l1`, present and force as in `match`. Returns (focal loss summed over anchors and classes,
    smooth L1 summed over anchors and offsets, number of anchors trained on an object).
    """
    matched, positives, ignored = jax.vmap(partial(match, force=force), (None, 0, 0))(anchors, boxes, present)
    count = jnp.maximum(positives.sum(axis=1), 1)
    classes = jnp.take_along_axis(labels, matched, axis=1)[..., None] == jnp.arange(logits.shape[-1])
    focal = sigmoid_focal(logits, classes & positives[..., None], gamma, alpha)
    classification = jnp.where(ignored[..., None], 0, focal).sum(axis=(1, 2)) / count
    # Anchors without an object are their own target, so that the values discarded below are finite.
    anchors = jnp.broadcast_to(anchors, deltas.shape)
    targets = jnp.where(positives[..., None], jnp.take_along_axis(boxes, matched[..., None], axis=1), anchors)
    offsets = smooth_l1(deltas, box_ops.encode(targets, anchors), beta).sum(axis=-1)
    return classification, jnp.where(positives, offsets, 0).sum(axis=1) / count, positives.sum(axis=1) + 0.0


# --- detections ---------------------------------------------------------------------------------------------------


def propose(
    logits: Float[Array, "batch anchors classes"],
    deltas: Float[Array, "batch anchors 4"],
    anchors: Float[Array, "anchors 4"],
    size: tuple[int, int],
    count: int = 1000,
) -> tuple[Float[Array, "batch proposals 4"], Float[Array, "batch proposals"], Int[Array, "batch proposals"]]:
    """Returns (boxes, scores, classes) of the best pairs of an anchor and a class in one level, by falling score.

    At most `count` are decoded, and clipped to `size`, the images' (height, width) (section 4.1, "Inference").
    """
    scores, indices = jax.lax.top_k(logits.reshape(len(logits), -1), min(count, math.prod(logits.shape[1:])))
    at, labels = jnp.divmod(indices, logits.shape[2])
    boxes = box_ops.decode(jnp.take_along_axis(deltas, at[..., None], axis=1), anchors[at])
    return box_ops.clip(boxes, *size), jax.nn.sigmoid(scores), labels


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RetinaNetDetector(Detector):
    """RetinaNet's functions; the attributes are those of `Detector`, the networks and arguments of `recipe`."""

    resnet: ResNet
    retinanet: RetinaNet
    sizes: tuple[float, ...]
    scales: tuple[float, ...]
    ratios: tuple[float, ...]
    gamma: float
    alpha: float | None
    beta: float
    force_match: bool
    candidates: int

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both networks, by their names in the state."""
        return {"resnet": self.resnet, "retinanet": self.retinanet}

    def anchors(self) -> list[Float[Array, "_ 4"]]:
        """Places the anchors of every level."""
        strides, levels = stage_strides(self.resnet.stem, self.resnet.strides), self.retinanet.levels
        shapes = (self.sizes, self.scales, self.ratios)
        return lay_anchors(self.shape[:2], strides, levels, *shapes, self.retinanet.fpn)

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises both networks, their common optimiser and their averages."""
        check_images(batch, self.shape)
        keys, images = jax.random.split(key), jnp.zeros((1, *self.shape))
        stages, resnet = self.resnet.init_with_output(keys[0], images)
        networks = {"resnet": resnet, "retinanet": self.retinanet.init(keys[1], stages)}
        opt = {"retinanet": self.tx.init({name: networks[name]["params"] for name in networks})}
        return start(networks, opt, averaged=tuple(networks) if self.ema else ())

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the focal loss of the classes and the smooth L1 loss of the boxes."""
        truth = (jnp.concatenate(self.anchors()), *training_objects(batch))

        def loss_fn(params):
            resnet = {"params": params["resnet"], "batch_stats": state.stats["resnet"]}
            stages, new = self.resnet.apply(resnet, batch["image"], train=True, mutable=["batch_stats"])
            levels = self.retinanet.apply({"params": params["retinanet"]}, stages)
            logits, deltas = (jnp.concatenate(outputs, axis=1) for outputs in zip(*levels, strict=True))
            parts = detection_losses(logits, deltas, *truth, self.gamma, self.alpha, self.beta, self.force_match)
            classification, regression, positives = (part.mean() for part in parts)
            return classification + regression, ((classification, regression, positives), new["batch_stats"])

        params, opt, loss, (means, stats) = descend(self.tx, loss_fn, state.params, state.opt["retinanet"])
        metrics = dict(zip(("loss/classification", "loss/boxes", "positive_anchors"), means, strict=True))
        state = advance(state, params, {"retinanet": opt}, {"resnet": stats}, keep=self.ema)
        return state, {**metrics, "loss/total": loss}

    def find(self, state: State, images: Images) -> Candidates:
        """Finds the best pairs of an anchor and a class in each level."""
        stages = self.resnet.apply(variables(state, "resnet"), images)
        levels = zip(self.retinanet.apply(variables(state, "retinanet"), stages), self.anchors(), strict=True)
        found = [propose(*level, anchors, self.shape[:2], self.candidates) for level, anchors in levels]
        return tuple(jnp.concatenate(rows, axis=1) for rows in zip(*found, strict=True))


# Section 4.1, "Optimization". The warm-up is that of Goyal et al. (arXiv:1706.02677), 500 steps in Detectron.
PAPER = {"name": "sgd", "learning_rate": 1e-2, "momentum": 0.9, "weight_decay": 1e-4, "warmup": 500}
DETECTION = Detection(score_threshold=0.05, iou_threshold=0.5)  # section 4.1, "Inference"


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    depth: Literal[18, 34, 50, 101] = 50,
    width: Count = 64,
    stem: Literal["imagenet", "small"] = "imagenet",
    strides: tuple[Count, ...] = (1, 2, 2, 2),
    fpn: bool = True,
    levels: tuple[Count, ...] = (3, 4, 5, 6, 7),
    sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0),
    scales: tuple[float, ...] = (1.0, 2 ** (1 / 3), 2 ** (2 / 3)),
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
    channels: Count = 256,
    subnet_depth: Natural = 4,
    subnet_deviation: float = 0.01,
    prior: Annotated[float, Range(1e-6, 0.5)] = 0.01,
    gamma: NonNegative = 2.0,
    alpha: Share | None = 0.25,
    beta: NonNegative = 1 / 9,
    force_match: bool = True,
    candidates: Count = 1000,
    ema: Share = 0.0,
    detection: Detection = DETECTION,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes RetinaNet, by default the paper's for 800-pixel images of COCO.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      depth, width, stem, strides: as in `cvjax.nets.resnet.ResNet`.
      fpn: False: no pyramid; the subnets see only C4, with all anchors placed on it.
      levels: of the pyramid.
      sizes: side of each level's square anchor in pixels, before `scales`.
      scales: factors of the sizes.
      ratios: height / width of the anchors, at equal area.
      channels: of the pyramid and the subnets.
      subnet_depth: number of 3x3 convolutions in a subnet before the last.
      subnet_deviation: standard deviation of the subnets' initial kernels; fewer channels need a larger one.
      prior: initial probability of every class at every anchor.
      gamma, alpha: of the focal loss; gamma=0 (with alpha=None) is the cross-entropy.
      beta: error at which smooth L1 turns from quadratic to linear: Detectron's; 0 is L1, as in torchvision.
      force_match: as `force` in `match`.
      candidates: number of pairs of an anchor and a class that are decoded in each level.
      ema: share of the moving average that each step keeps; 0: no average.
      detection: how detections are selected.
      optimiser: as in `cvjax.optim.build`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`.

    Raises:
      UserError: levels that the ResNet does not have, sizes that do not match them, or an unknown stem.
    """
    if len(sizes) != len(levels):
        raise UserError(f"config.recipe.sizes={sizes}: levels={levels} need {len(levels)} sizes, one each.")
    if not fpn and len(strides) < 3:
        raise UserError(f"config.recipe.fpn=False places all anchors on C4, but strides={strides} make no C4.")
    stage_strides(stem, strides)  # refuses what no ResNet has
    names, anchors = class_names(classes), len(scales) * len(ratios) * (1 if fpn else len(sizes))
    resnet = ResNet(depth, width, stem, strides)
    subnets = dict(channels=channels, depth=subnet_depth, prior=prior, deviation=subnet_deviation)
    retinanet = RetinaNet(len(names), anchors, levels, fpn, **subnets)
    base = (tuple(shape), names, ema, detection, optim.build(optimiser))
    losses = (gamma, alpha, beta, force_match)
    return Recipe.of(RetinaNetDetector(*base, resnet, retinanet, sizes, scales, ratios, *losses, candidates))
