"""Faster R-CNN: Ren et al., Towards Real-Time Object Detection with Region Proposal Networks, 2015 (arXiv:1506.01497).

Trained in one go by approximate joint training (section 3.2). With a pyramid: Lin et al., Feature Pyramid Networks for
Object Detection, 2017 (arXiv:1612.03144). Details that the papers leave open follow the authors' code.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from cvjax import optim
from cvjax.core import Batch, Metrics, Recipe, State, advance, check_images, class_names, descend, start, variables
from cvjax.detection.detector import Candidates, Detection, Detector, Images, training_objects
from cvjax.detection.region_heads import (
    RegionHead,
    Regions,
    count_positives,
    find_objects,
    multi_task_loss,
    random_subset,
    sample_regions,
)
from cvjax.detection.retinanet import match
from cvjax.errors import UserError
from cvjax.losses.focal import smooth_l1
from cvjax.nets.fpn import FPN
from cvjax.nets.layers import Conv
from cvjax.nets.resnet import ResNet, stage_strides
from cvjax.nets.vgg import DEPTHS, VGG
from cvjax.ops import anchors as grids
from cvjax.ops import boxes as box_ops
from cvjax.ops.nms import batched_nms
from cvjax.ops.roi import assign_levels, roi_align, roi_pool
from cvjax.signature import Count, NonNegative, Positive, Share

Boxes = Float[Array, "batch boxes 4"]
Mask = Bool[Array, "batch boxes"]

# --- region proposal network --------------------------------------------------------------------------------------


class RPN(nn.Module):
    """A 3x3 convolution, and what tells `anchors` boxes at each place: whether they hold an object, and offsets."""

    anchors: int = 9
    channels: int = 512

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch rows columns features"]
    ) -> tuple[Float[Array, "batch _"], Float[Array, "batch _ 4"]]:
        """Returns the logit and the offsets of every anchor, as `cvjax.ops.anchors.grid` orders them, float32."""
        conv = partial(Conv, kernel_init=nn.initializers.normal(0.01))  # section 3.1.3
        x = nn.relu(conv(self.channels, 3, padding=1, name="conv")(x))
        logits, offsets = conv(self.anchors, 1, name="logits")(x), conv(4 * self.anchors, 1, name="offsets")(x)
        return logits.reshape(len(x), -1).astype(jnp.float32), offsets.reshape(len(x), -1, 4).astype(jnp.float32)


def sample_anchors(
    key: Key[Array, ""],
    anchors: Float[Array, "anchors 4"],
    boxes: Float[Array, "objects 4"],
    present: Bool[Array, " objects"],
    size: Sequence[int],
    count: int = 256,
    positive: float = 0.7,
    negative: float = 0.3,
) -> tuple[Int[Array, " anchors"], Bool[Array, " anchors"], Bool[Array, " anchors"]]:
    """Draws the anchors that an image of `size` (height, width) trains the network on (sections 3.1.2 and 3.1.3).

    Returns (object of each anchor, which anchors are drawn for an object, which for background): at most half of
    `count` for objects, the rest for background. Those that cross the image's border are never drawn. Drawn for an
    object are those of an IoU of at least `positive` with it, and all those inside that overlap it most.
    """
    height, width = size
    inside = (anchors[:, :2] >= 0).all(-1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height)
    matched, positives, ignored = match(jnp.where(inside[:, None], anchors, 0), boxes, present, positive, negative)
    keys = jax.random.split(key)
    chosen = random_subset(keys[0], inside & positives, count // 2)
    others = random_subset(keys[1], inside & ~positives & ~ignored, count - chosen.sum())
    return matched, chosen, others


def proposal_loss(
    logits: Float[Array, "batch anchors"],
    offsets: Float[Array, "batch anchors 4"],
    anchors: Float[Array, "anchors 4"],
    boxes: Float[Array, "batch objects 4"],
    drawn: tuple[Int[Array, "batch anchors"], Bool[Array, "batch anchors"], Bool[Array, "batch anchors"]],
    beta: float = 1 / 9,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Computes the cross-entropy of the drawn anchors and the smooth L1 of those drawn for an object (equation 1).

    Returns both over the number of drawn anchors. The paper divides the second by the number of places, about 2,400,
    and multiplies it by 10, which is as much for 256 drawn anchors.
    """
    matched, chosen, others = drawn
    count = jnp.maximum((chosen | others).sum(), 1)
    entropies = optax.sigmoid_binary_cross_entropy(logits, chosen)
    # Anchors without an object are their own target, so that the values discarded below are finite.
    anchors = jnp.broadcast_to(anchors, offsets.shape)
    targets = jnp.where(chosen[..., None], jnp.take_along_axis(boxes, matched[..., None], axis=1), anchors)
    distances = smooth_l1(offsets, box_ops.encode(targets, anchors), beta).sum(-1)
    return jnp.where(chosen | others, entropies, 0).sum() / count, jnp.where(chosen, distances, 0).sum() / count


@dataclasses.dataclass(frozen=True)
class Proposing:
    """How proposals are chosen: `config.recipe.proposing`.

    Attributes:
      before: largest number of boxes of each level that are decoded and compete, while training.
      after: largest number of proposals while training.
      test_before, test_after: the same in detection.
      iou_threshold: boxes of an IoU above it with a better one of their level are dropped.
      smallest: least width and height in pixels.
    """

    before: Count = 12_000
    after: Count = 2000
    test_before: Count = 6000
    test_after: Count = 300
    iou_threshold: Share = 0.7
    smallest: NonNegative = 16.0


def propose(
    logits: Sequence[Float[Array, "batch _"]],
    offsets: Sequence[Float[Array, "batch _ 4"]],
    anchors: Sequence[Float[Array, "_ 4"]],
    size: Sequence[int],
    proposing: Proposing,
    train: bool = False,
) -> tuple[Boxes, Mask]:
    """Returns the best proposals of all levels by falling logit, and a mask of padding (section 3.3).

    They are clipped to `size`, the images' (height, width), and have no gradient.
    """
    before = proposing.before if train else proposing.test_before
    after = proposing.after if train else proposing.test_after
    found = []
    for level, (scores, deltas, laid) in enumerate(zip(logits, offsets, anchors, strict=True)):
        scores, at = jax.lax.top_k(jax.lax.stop_gradient(scores), min(before, len(laid)))
        deltas = jnp.take_along_axis(jax.lax.stop_gradient(deltas), at[..., None], axis=1)
        boxes = box_ops.clip(box_ops.decode(deltas, laid[at]), size[0], size[1])
        found.append((boxes, scores, jnp.full(scores.shape, level)))
    boxes, scores, levels = (jnp.concatenate(rows, axis=1) for rows in zip(*found, strict=True))
    large = (boxes[..., 2:] - boxes[..., :2] >= max(proposing.smallest, 1e-3)).all(-1)
    suppress = partial(batched_nms, iou_threshold=proposing.iou_threshold, max_outputs=after)
    kept, valid = jax.vmap(lambda *rows: suppress(*rows[:3], mask=rows[3]))(boxes, scores, levels, large)
    return jnp.where(valid[..., None], jnp.take_along_axis(boxes, kept[..., None], axis=1), 0), valid


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FasterRCNN(Detector):
    """Faster R-CNN's functions; the attributes are those of `Detector`, the networks and arguments of `recipe`."""

    backbone: ResNet | VGG
    fpn: FPN | None
    rpn: RPN
    head: RegionHead
    strides: tuple[int, ...]  # of each level's cells in pixels
    cells: tuple[tuple[tuple[float, float], ...], ...]  # width and height of the anchors of each level
    pooling: str
    pooled: int
    canonical: float
    anchor_count: int
    region_count: int
    beta: float
    proposing: Proposing

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by their names in the state."""
        backbone = {"resnet" if isinstance(self.backbone, ResNet) else "vgg": self.backbone}
        return backbone | ({"fpn": self.fpn} if self.fpn else {}) | {"rpn": self.rpn, "head": self.head}

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the networks, their common optimiser and their averages."""
        check_images(batch, self.shape)
        keys, networks = dict(zip(self.networks, jax.random.split(key, len(self.networks)), strict=True)), {}

        def grow(name: str, x: Any) -> Any:
            outputs, networks[name] = self.networks[name].init_with_output(keys[name], x)
            return outputs

        levels = self._levels(grow, jnp.zeros((1, *self.shape)))
        grow("rpn", levels[0])
        grow("head", jnp.zeros((1, 1, self.pooled, self.pooled, levels[0].shape[-1])))
        opt = {"faster_rcnn": self.tx.init({name: networks[name]["params"] for name in networks})}
        return start(networks, opt, averaged=tuple(networks) if self.ema else ())

    def _levels(self, apply: Any, images: Images) -> list[Array]:
        """The maps to propose from, from fine to coarse; `apply` takes a network's name and its input."""
        if isinstance(self.backbone, VGG):
            return [*apply("vgg", images)[1].values()]
        stages = apply("resnet", images)
        if self.fpn is None:
            return [[*stages.values()][-1]]
        levels = [*apply("fpn", stages).values()]
        return [*levels, levels[-1][:, ::2, ::2]]  # the pyramid's footnote 1: proposals are made on P6, too

    def lay_anchors(self, levels: Sequence[Float[Array, "batch _ _ channels"]]) -> list[Float[Array, "_ 4"]]:
        """Places the anchors of every level."""
        return [
            grids.grid(x.shape[1:3], stride, jnp.array(cell))
            for x, stride, cell in zip(levels, self.strides, self.cells, strict=True)
        ]

    def read(
        self, levels: Sequence[Float[Array, "batch _ _ channels"]], boxes: Boxes, mask: Mask
    ) -> Float[Array, "batch boxes size size channels"]:
        """Reads the features of regions, each from the level of its size."""
        pool = partial({"align": roi_align, "pool": roi_pool}[self.pooling], size=self.pooled)
        if self.fpn is None:
            return pool(levels[0], boxes, mask, scale=1 / self.strides[0])
        levels = levels[:-1]  # P6 is for proposals alone
        chosen = assign_levels(boxes, len(levels), finest=0, size=self.canonical, level=2)
        each = zip(levels, self.strides, strict=False)
        return sum(pool(x, boxes, mask & (chosen == i), scale=1 / stride) for i, (x, stride) in enumerate(each))

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the four losses at once."""
        boxes, labels, present = training_objects(batch)
        boxes = jnp.where(present[..., None], boxes, 0)
        draw_key, dropout_key = jax.random.split(key)
        keys = jax.random.split(draw_key, (2, len(boxes)))

        def loss_fn(params):
            stats = {}

            def apply(name, x):
                given = {"params": params[name], "batch_stats": state.stats.get(name, {})}
                if name in ("rpn", "fpn"):
                    return self.networks[name].apply(given, x)
                rngs = {"dropout": dropout_key}
                outputs, new = self.networks[name].apply(given, x, train=True, mutable=["batch_stats"], rngs=rngs)
                stats[name] = new.get("batch_stats")
                return outputs

            levels = self._levels(apply, batch["image"])
            laid = self.lay_anchors(levels)
            logits, offsets = zip(*(apply("rpn", x) for x in levels), strict=True)
            anchors, size = jnp.concatenate(laid), self.shape[:2]
            draw = partial(sample_anchors, size=size, count=self.anchor_count)
            drawn = jax.vmap(draw, (0, None, 0, 0))(keys[0], anchors, boxes, present)
            outputs = (jnp.concatenate(each, axis=1) for each in (logits, offsets))
            proposal = proposal_loss(*outputs, anchors, boxes, drawn)
            proposals = propose(logits, offsets, laid, size, self.proposing, train=True)
            choose = partial(sample_regions, count=self.region_count)
            regions = Regions(*jax.vmap(choose)(keys[1], *proposals, boxes, labels, present))
            classes = apply("head", self.read(levels, regions.boxes, regions.mask))
            parts = (*proposal, *multi_task_loss(*classes, regions, self.beta))
            counts = (drawn[1].sum(1).mean(), (regions.labels > 0).sum(1).mean())
            return sum(parts), (parts, counts, stats)

        step = descend(self.tx, loss_fn, state.params, state.opt["faster_rcnn"])
        params, opt, loss, (parts, counts, stats) = step
        names = ("loss/objectness", "loss/proposals", "loss/classification", "loss/boxes")
        metrics = dict(zip(names, parts, strict=True)) | {"loss/total": loss}
        metrics |= {"positive_anchors": counts[0], "positive_regions": counts[1]}
        return advance(state, params, {"faster_rcnn": opt}, stats, keep=self.ema), metrics

    def find(self, state: State, images: Images) -> Candidates:
        """Finds the proposals of every class."""

        def apply(name, x):
            return self.networks[name].apply(variables(state, name), x)

        levels, size = self._levels(apply, images), self.shape[:2]
        logits, offsets = zip(*(apply("rpn", x) for x in levels), strict=True)
        boxes, mask = propose(logits, offsets, self.lay_anchors(levels), size, self.proposing)
        return find_objects(*apply("head", self.read(levels, boxes, mask)), boxes, mask, size)


# Of the authors' code; the paper has the rate of 1e-3 for 60,000 steps of its four stages, and 1e-4 for 20,000 more.
PAPER = {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
DETECTION = Detection(score_threshold=0.05, iou_threshold=0.3)


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    backbone: Literal["vgg", "resnet"] = "vgg",
    depth: Count = 16,
    width: Count = 64,
    stem: Literal["imagenet", "small"] = "imagenet",
    strides: tuple[Count, ...] = (1, 2, 2, 2),
    fpn: bool = False,
    channels: Count = 256,
    rpn_channels: Count = 512,
    sizes: tuple[tuple[Positive, ...], ...] = ((128.0, 256.0, 512.0),),
    ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0),
    pooling: Literal["pool", "align"] = "pool",
    pooled: Count = 7,
    canonical: Positive = 224.0,
    hidden: Count = 4096,
    dropout: Share = 0.5,
    anchors: Count = 256,
    regions: Count = 128,
    beta: NonNegative = 1.0,
    proposing: Proposing = Proposing(),
    ema: Share = 0.0,
    detection: Detection = DETECTION,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes Faster R-CNN, by default the paper's of VGG-16 for 600-pixel images of the VOC.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      backbone: network of features. A VGG's last convolution has cells of 16 pixels, a ResNet is read at its last
        stage, or by a pyramid.
      depth, width: of the backbone, as in `cvjax.nets.vgg.VGG` and `cvjax.nets.resnet.ResNet`.
      stem, strides: of the ResNet.
      fpn: read a pyramid over all stages of the ResNet; one more level, half as fine as the last, is for proposals.
      channels: of the pyramid.
      rpn_channels: of the region proposal network.
      sizes: sides of the square anchors in pixels, those of each level.
      ratios: height / width of the anchors, at equal area.
      pooling: features of a region by "pool", RoIPool, or "align", RoIAlign.
      pooled: bins a side.
      canonical: square root of the area of regions that are read from the pyramid's third level.
      hidden: units of the two fully connected layers.
      dropout: share of their outputs that training drops.
      anchors: number of anchors that train the proposals of an image.
      regions: number of regions that train the classes of an image.
      beta: error at which the regions' smooth L1 turns from quadratic to linear.
      proposing: how proposals are chosen.
      ema: share of the moving average that each step keeps; 0: no average.
      detection: how detections are selected.
      optimiser: as in `cvjax.optim.build`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`.

    Raises:
      UserError: sizes that do not match the levels, different numbers of them or none, no ratios, images of other than
        one channel or three, too few regions, a pyramid over a VGG, or a depth or stem that the backbone does not have.
    """
    names = class_names(classes)
    count_positives(regions, 0.25)  # the share of `sample_regions`
    if backbone == "vgg":
        if fpn or depth not in DEPTHS:
            known = ", ".join(map(str, DEPTHS))
            raise UserError(f"config.recipe: backbone='vgg' has depth={known} (not {depth}) and no pyramid; fpn={fpn}.")
        net = VGG(depth, capture=(f"relu5_{DEPTHS[depth][-1]}",), width=width)
        pyramid, level_strides = None, (16,)
    else:
        totals = stage_strides(stem, strides)  # refuses what no ResNet has
        net, levels = ResNet(depth, width, stem, strides), [*totals.values()]
        pyramid = FPN(channels, tuple(int(stage.removeprefix("c")) for stage in totals)) if fpn else None
        level_strides = (*levels, 2 * levels[-1]) if fpn else (levels[-1],)
    if len(sizes) != len(level_strides) or len({len(level) for level in sizes}) != 1:
        wanted = f"{len(level_strides)} groups of one length, for levels of cells of {level_strides} pixels"
        raise UserError(f"config.recipe.sizes={sizes}: there have to be {wanted}.")
    if not ratios or not sizes[0]:
        raise UserError(f"config.recipe: ratios={ratios} and sizes={sizes}: there have to be some of each.")
    if shape[2] not in (1, 3):
        raise UserError(f"config.recipe.shape={tuple(shape)}: images have one channel or three.")
    cells = tuple(tuple(map(tuple, grids.cell_anchors(1, level, ratios).tolist())) for level in sizes)
    rpn, head = RPN(len(cells[0]), rpn_channels), RegionHead(len(names), hidden, dropout)
    base = (tuple(shape), names, ema, detection, optim.build(optimiser))
    reading = (level_strides, cells, pooling, pooled, canonical, anchors, regions, beta, proposing)
    return Recipe.of(FasterRCNN(*base, net, pyramid, rpn, head, *reading))
