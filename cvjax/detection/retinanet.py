"""RetinaNet: Lin et al., Focal Loss for Dense Object Detection, 2017 (arXiv:1708.02002).

A ResNet, a feature pyramid, and two small networks that slide over its levels: one tells the class of each anchor, the
other moves it onto the object. Where the paper is silent, this file does as Detectron, the authors' code, does.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from cvjax import optim
from cvjax.core import Recipe, advance, check_images, class_names, descend, start, variables
from cvjax.detection.selection import find_candidates, make_detector, select
from cvjax.errors import UserError
from cvjax.losses.focal import sigmoid_focal, smooth_l1
from cvjax.nets.fpn import FPN
from cvjax.nets.layers import Conv
from cvjax.nets.resnet import ResNet, stage_strides
from cvjax.ops import anchors as grids
from cvjax.ops import boxes as box_ops
from cvjax.signature import Count, Range, Share

# --- nets ---------------------------------------------------------------------------------------------------------


class Subnet(nn.Module):
    """3x3 convolutions with ReLUs between them (section 4); the same for every level.

    Attributes:
      outputs: channels of the last.
      channels: of the others.
      depth: how many others there are.
      bias: of the last, at first.
      deviation: of the kernels, drawn from a normal distribution.
      dtype: of the computation.
    """

    outputs: int
    channels: int = 256
    depth: int = 4
    bias: float = 0.0
    deviation: float = 0.01
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch rows columns channels"]
    ) -> Float[Array, "batch rows columns {self.outputs}"]:
        """Returns the outputs at each place."""
        conv = partial(Conv, kernel=3, padding=1, kernel_init=nn.initializers.normal(self.deviation), dtype=self.dtype)
        for index in range(self.depth):
            x = nn.relu(conv(self.channels, name=f"conv_{index + 1}")(x))
        return conv(self.outputs, bias_init=nn.initializers.constant(self.bias), name="output")(x)


class RetinaNet(nn.Module):
    """What stands on the backbone: a feature pyramid and the two subnets.

    Attributes:
      classes: how many.
      anchors: how many at each place.
      levels: of the pyramid.
      fpn: False: the subnets see C4 through a 1x1 convolution, and no other level.
      channels: of the pyramid and the subnets.
      depth: 3x3 convolutions in a subnet before the last.
      prior: probability of every class at every anchor that the network starts with (section 4.1).
      deviation: of the subnets' kernels at first.
      dtype: of the computation; the outputs are float32.
    """

    classes: int
    anchors: int = 9
    levels: Sequence[int] = (3, 4, 5, 6, 7)
    fpn: bool = True
    channels: int = 256
    depth: int = 4
    prior: float = 0.01
    deviation: float = 0.01
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(
        self, stages: Mapping[str, Float[Array, "batch _ _ _"]]
    ) -> list[tuple[Float[Array, "batch _ {self.classes}"], Float[Array, "batch _ 4"]]]:
        """Returns the logits of each anchor's classes and the offsets of its box, level by level."""
        subnet = partial(Subnet, channels=self.channels, depth=self.depth, deviation=self.deviation, dtype=self.dtype)
        bias = -math.log((1 - self.prior) / self.prior)
        classify = subnet(self.anchors * self.classes, bias=bias, name="classification")
        regress = subnet(self.anchors * 4, name="boxes")
        if self.fpn:
            pyramid = FPN(self.channels, self.levels, self.dtype, name="fpn")(stages)
        else:
            pyramid = {"p4": Conv(self.channels, 1, dtype=self.dtype, name="lateral_4")(stages["c4"])}

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
    """Lays the anchors of every level in the order of the network's outputs.

    Args:
      image_size: height and width in pixels.
      stages: stride of each of the backbone's stages; each level beyond them doubles the last.
      levels: of the pyramid.
      sizes: side of each level's square anchor.
      scales: factors of the sizes.
      ratios: heights by widths of anchors of the same area.
      fpn: False: the anchors of all levels lie on C4.

    Returns:
      Anchors, xyxy in pixels, level by level.
    """
    last = max(int(stage.removeprefix("c")) for stage in stages)
    if fpn:
        strides = [stages[f"c{min(level, last)}"] * 2 ** max(level - last, 0) for level in levels]
        return grids.pyramid(image_size, strides, sizes, scales, ratios)
    rows, columns = (math.ceil(length / stages["c4"]) for length in image_size)
    cell = jnp.concatenate([grids.cell_anchors(size, scales, ratios) for size in sizes])
    return [grids.grid((rows, columns), stages["c4"], cell)]


TIE = 1e-6  # by how much, relatively, equal overlaps may be rounded differently


def match(
    anchors: Float[Array, "anchors 4"],
    boxes: Float[Array, "objects 4"],
    present: Bool[Array, " objects"],
    positive: float = 0.5,
    negative: float = 0.4,
    force: bool = True,
) -> tuple[Int[Array, " anchors"], Bool[Array, " anchors"], Bool[Array, " anchors"]]:
    """Finds the object that each anchor is trained on, if any (section 4, "Anchors").

    Args:
      anchors: xyxy in pixels.
      boxes: of the objects, likewise.
      present: False in padding.
      positive: overlap (intersection over union) from which an anchor is trained on its object.
      negative: overlap below which it is trained as background.
      force: the anchors that overlap an object most, however little, are trained on the object that they overlap most,
        as in Detectron and torchvision; the paper does not say so.

    Returns:
      (the object of greatest overlap, whether the anchor is trained on it, whether it is ignored: neither trained on an
      object nor as background).
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
    """Computes both losses of each image, divided by the number of anchors that are trained on an object.

    An image without objects keeps its classification loss, as if one anchor were.

    Args:
      logits: of each anchor's classes.
      deltas: offsets of each anchor's box, as `cvjax.ops.boxes.encode` makes them.
      anchors: xyxy in pixels.
      boxes: of the objects, likewise.
      labels: classes of the objects.
      present: False in padding.
      gamma: of the focal loss; 0 is the cross-entropy.
      alpha: of the focal loss; None weighs all alike.
      beta: of the smooth L1 loss.
      force: as in `match`.

    Returns:
      (focal loss summed over anchors and classes, smooth L1 summed over anchors and offsets, number of anchors trained
      on an object).
    """
    matched, positives, ignored = jax.vmap(partial(match, force=force), (None, 0, 0))(anchors, boxes, present)
    count = jnp.maximum(positives.sum(axis=1), 1).astype(logits.dtype)
    classes = jnp.take_along_axis(labels, matched, axis=1)[..., None] == jnp.arange(logits.shape[-1])
    focal = sigmoid_focal(logits, classes & positives[..., None], gamma, alpha)
    classification = jnp.where(ignored[..., None], 0, focal).sum(axis=(1, 2)) / count
    # Anchors without an object stand in for it, so that what is thrown away below is finite.
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
    """Decodes each image's best pairs of an anchor and a class in one level (section 4.1, "Inference").

    Args:
      logits: of each anchor's classes.
      deltas: offsets of each anchor's box.
      anchors: xyxy in pixels.
      size: height and width of the images, to which boxes are clipped.
      count: how many pairs at most.

    Returns:
      (boxes, scores by which they fall, classes).
    """
    scores, indices = jax.lax.top_k(logits.reshape(len(logits), -1), min(count, math.prod(logits.shape[1:])))
    at, labels = jnp.divmod(indices, logits.shape[2])
    boxes = box_ops.decode(jnp.take_along_axis(deltas, at[..., None], axis=1), anchors[at])
    return box_ops.clip(boxes, *size), jax.nn.sigmoid(scores), labels


# --- recipe -------------------------------------------------------------------------------------------------------

# Section 4.1, "Optimization". The warm-up is that of Goyal et al. (arXiv:1706.02677), in Detectron 500 steps.
PAPER = {"name": "sgd", "learning_rate": 1e-2, "momentum": 0.9, "weight_decay": 1e-4, "warmup": 500}


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
    subnet_depth: Annotated[int, Range(0)] = 4,
    subnet_deviation: float = 0.01,
    prior: Annotated[float, Range(1e-6, 0.5)] = 0.01,
    gamma: Annotated[float, Range(0)] = 2.0,
    alpha: Share | None = 0.25,
    beta: Annotated[float, Range(0)] = 1 / 9,
    force_match: bool = True,
    ema: Share = 0.0,
    flip_test: bool = False,
    score_threshold: Share = 0.05,
    candidates: Count = 1000,
    iou_threshold: Share = 0.5,
    max_detections: Count = 100,
    dtype: Literal["float32", "bfloat16"] = "float32",
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes RetinaNet. The defaults are the paper's for 800-pixel images of COCO.

    Difficult and crowd objects are not trained on, as in Detectron.

    Args:
      shape: height, width, channels of the images.
      classes: how many, or their names, which figures and drawings then bear.
      depth: of the ResNet.
      width: channels of the ResNet's stem.
      stem: of the ResNet.
      strides: of the ResNet's stages; as many are made.
      fpn: False: all anchors lie on C4, and the subnets see nothing else.
      levels: of the pyramid.
      sizes: side of each level's square anchor in pixels, before `scales`.
      scales: factors of the sizes.
      ratios: heights by widths of anchors of the same area.
      channels: of the pyramid and the subnets.
      subnet_depth: 3x3 convolutions in a subnet before the last.
      subnet_deviation: standard deviation of the subnets' kernels at first; fewer channels want more.
      prior: probability of every class at every anchor that the network starts with.
      gamma: of the focal loss; 0 (with alpha=None) is the cross-entropy.
      alpha: of the focal loss; None weighs all alike.
      beta: of the smooth L1 loss: Detectron's; 0 is L1, as in torchvision.
      force_match: as `force` of `match`.
      ema: share of the averaged network, the one that detects, that each step keeps; (1 + step) / (10 + step) where
        that is less. 0: none.
      flip_test: detect in the mirrored image too.
      score_threshold: class probability up to which nothing is detected.
      candidates: how many detections of a level are decoded.
      iou_threshold: of the suppression of overlapping detections of a class.
      max_detections: how many an image may have.
      dtype: of the networks' computation.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`.

    Raises:
      UserError: levels that the ResNet does not have, or not one size for each; or an unknown stem.
    """
    if len(sizes) != len(levels):
        raise UserError(f"config.recipe.sizes={sizes}: levels={levels} want {len(levels)} of them.")
    if not fpn and len(strides) < 3:
        raise UserError(f"config.recipe.fpn=False puts all anchors on C4; strides={strides} end before.")
    names = class_names(classes)
    size = shape[:2]
    lay = partial(lay_anchors, size, stage_strides(stem, strides), levels, sizes, scales, ratios, fpn)
    resnet = ResNet(depth, width, stem, strides, dtype)
    anchors = len(scales) * len(ratios) * (1 if fpn else len(sizes))
    subnets = dict(channels=channels, depth=subnet_depth, prior=prior, deviation=subnet_deviation, dtype=dtype)
    retinanet = RetinaNet(len(names), anchors, levels, fpn, **subnets)
    tx = optim.build(optimiser)

    def init(key, batch):
        check_images(batch, shape)
        keys, images = jax.random.split(key), jnp.zeros((1, *shape))
        stages, backbone = resnet.init_with_output(keys[0], images)
        head = retinanet.init(keys[1], stages)
        opt = {"retinanet": tx.init({"resnet": backbone["params"], "retinanet": head["params"]})}
        return start({"resnet": backbone, "retinanet": head}, opt, averaged=("resnet", "retinanet") if ema else ())

    def train_step(state, batch, key):
        present = batch["mask"] & ~batch["difficult"] & ~batch["crowd"]
        truth = (jnp.concatenate(lay()), batch["boxes"], batch["labels"], present)

        def loss_fn(params):
            backbone = {"params": params["resnet"], "batch_stats": state.stats["resnet"]}
            stages, new = resnet.apply(backbone, batch["image"], train=True, mutable=["batch_stats"])
            levels = retinanet.apply({"params": params["retinanet"]}, stages)
            logits, deltas = (jnp.concatenate(outputs, axis=1) for outputs in zip(*levels, strict=True))
            parts = detection_losses(logits, deltas, *truth, gamma, alpha, beta, force_match)
            classification, regression, positives = (part.mean() for part in parts)
            return classification + regression, ((classification, regression, positives), new["batch_stats"])

        params, opt, loss, (means, stats) = descend(tx, loss_fn, state.params, state.opt["retinanet"])
        state = advance(state, params, {"retinanet": opt}, {"resnet": stats}, keep=ema)
        metrics = dict(zip(("loss/classification", "loss/boxes", "positive_anchors"), means, strict=True))
        return state, {**metrics, "loss/total": loss}

    def detect(state, images):
        def find(images):
            stages = resnet.apply(variables(state, "resnet"), images)
            levels = zip(retinanet.apply(variables(state, "retinanet"), stages), lay(), strict=True)
            proposals = [propose(*level, anchors, size, candidates) for level, anchors in levels]
            return tuple(jnp.concatenate(rows, axis=1) for rows in zip(*proposals, strict=True))

        thresholds = dict(score_threshold=score_threshold, iou_threshold=iou_threshold, max_detections=max_detections)
        return select(*find_candidates(find, images, flip_test), **thresholds)

    return make_detector({"resnet": resnet, "retinanet": retinanet}, init, train_step, detect, names)
