"""Faster R-CNN: Ren et al., Towards Real-Time Object Detection with Region Proposal Networks, 2015 (arXiv:1506.01497).

Trained in one go by approximate joint training (section 3.2); `cvjax.detection.alternating` is the other way. With a
pyramid: Lin et al., Feature Pyramid Networks for Object Detection, 2017 (arXiv:1612.03144). Details that the papers
leave open follow the authors' code.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from cvjax import optim
from cvjax.core import Batch, Metrics, Recipe, State, advance, check_images, class_names, descend, start, variables
from cvjax.detection.detector import Candidates, Detection, Detector, Images, Objects, training_objects
from cvjax.detection.region_heads import (
    FOREGROUND,
    RegionHead,
    Regions,
    count_positives,
    find_objects,
    multi_task_loss,
    outside_crowds,
    sample_regions,
)
from cvjax.detection.rpn import RPN, Proposals, Proposing, proposal_loss, propose, sample_anchors
from cvjax.errors import UserError
from cvjax.nets.fpn import FPN
from cvjax.nets.resnet import ResNet, stage_strides
from cvjax.nets.vgg import DEPTHS, VGG
from cvjax.ops import anchors as grids
from cvjax.ops.roi import assign_levels, pool_pyramid, roi_align, roi_pool
from cvjax.signature import Count, NonNegative, Positive, Share

Boxes = Float[Array, "batch boxes 4"]
Mask = Bool[Array, "batch boxes"]
Levels = list[Float[Array, "batch _ _ features"]]
Apply = Callable[[str, Any], Any]  # of a network's name and its input
Losses = dict[str, Float[Array, ""]]

# --- features -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Features:
    """The network of features: `config.recipe.features`.

    Attributes:
      backbone: a VGG's last convolution has cells of 16 pixels, a ResNet is read at its last stage, or by a pyramid.
      depth, width: as in `cvjax.nets.vgg.VGG` and `cvjax.nets.resnet.ResNet`.
      stem, strides: of the ResNet.
      fpn: read a pyramid over all stages of the ResNet; one more level, half as fine as the last, is for proposals.
      channels: of the pyramid.
    """

    backbone: Literal["vgg", "resnet"] = "vgg"
    depth: Count = 16
    width: Count = 64
    stem: Literal["imagenet", "small"] = "imagenet"
    strides: tuple[Count, ...] = (1, 2, 2, 2)
    fpn: bool = False
    channels: Count = 256


@dataclasses.dataclass(frozen=True)
class Maps:
    """Networks that compute maps of an image, from fine to coarse; `strides` are of their cells in pixels."""

    backbone: ResNet | VGG
    fpn: FPN | None
    strides: tuple[int, ...]

    @classmethod
    def of(cls, features: Features) -> "Maps":
        """Builds the networks; raises a UserError for a pyramid over a VGG, or a depth or stem that there is not."""
        depth = features.depth
        if features.backbone == "vgg":
            if features.fpn or depth not in DEPTHS:
                known = ", ".join(map(str, DEPTHS))
                raise UserError(
                    f"config.recipe.features: backbone='vgg' has depth={known} (not {depth}) and no pyramid; "
                    f"fpn={features.fpn}."
                )
            return cls(VGG(depth, capture=(f"relu5_{DEPTHS[depth][-1]}",), width=features.width), None, (16,))
        totals = stage_strides(features.stem, features.strides)  # refuses what no ResNet has
        net, strides = ResNet(depth, features.width, features.stem, features.strides), (*totals.values(),)
        if not features.fpn:
            return cls(net, None, strides[-1:])
        stages = tuple(int(stage.removeprefix("c")) for stage in totals)
        return cls(net, FPN(features.channels, stages), (*strides, 2 * strides[-1]))

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by their names in the state."""
        backbone = {"resnet" if isinstance(self.backbone, ResNet) else "vgg": self.backbone}
        return backbone | ({"fpn": self.fpn} if self.fpn else {})

    def __call__(self, apply: Apply, images: Images) -> Levels:
        """Returns the maps to propose from."""
        if isinstance(self.backbone, VGG):
            return [*apply("vgg", images)[1].values()]
        stages = apply("resnet", images)
        if self.fpn is None:
            return [[*stages.values()][-1]]
        levels = [*apply("fpn", stages).values()]
        return [*levels, levels[-1][:, ::2, ::2]]  # the pyramid's footnote 1: proposals are made on P6, too


class Outputs(NamedTuple):
    """What the region proposal network says of each level, and the anchors there."""

    logits: list[Float[Array, "batch _"]]
    offsets: list[Float[Array, "batch _ 4"]]
    anchors: list[Float[Array, "_ 4"]]


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Classifying:
    """How regions are read and classified: `config.recipe.classifying`.

    Attributes:
      pooling: features of a region by "pool", RoIPool, or "align", RoIAlign.
      pooled: bins a side.
      canonical: with a pyramid, square root of the area of regions that are read from its third level.
      hidden: units of the two fully connected layers.
      dropout: share of their outputs that training drops.
      count: number of regions that train them on an image.
      beta: error at which the smooth L1 of boxes turns from quadratic to linear.
    """

    pooling: Literal["pool", "align"] = "pool"
    pooled: Count = 7
    canonical: Positive = 224.0
    hidden: Count = 4096
    dropout: Share = 0.5
    count: Count = 128
    beta: NonNegative = 1.0


@dataclasses.dataclass(frozen=True)
class FasterRCNN(Detector):
    """Faster R-CNN's functions; the attributes are those of `Detector`, the networks and arguments of `recipe`."""

    maps: Maps
    rpn: RPN
    head: RegionHead
    cells: tuple[tuple[tuple[float, float], ...], ...]  # width and height of the anchors of each level
    proposing: Proposing
    classifying: Classifying

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        classes: int | Sequence[str],
        features: Features,
        proposing: Proposing,
        classifying: Classifying,
        ema: float,
        detection: Detection,
        optimiser: Mapping[str, Any],
        **others: Any,
    ) -> "FasterRCNN":
        """Builds the networks from the arguments of `recipe`; `others` are attributes of a class based on this one.

        Raises a UserError as `recipe` does.
        """
        names, sizes, ratios = class_names(classes), proposing.sizes, proposing.ratios
        count_positives(classifying.count, FOREGROUND, of="classifying.count")
        maps = Maps.of(features)
        if len(sizes) != len(maps.strides) or len({len(level) for level in sizes}) != 1:
            wanted = f"{len(maps.strides)} groups of one length, for levels of cells of {maps.strides} pixels"
            raise UserError(f"config.recipe.proposing.sizes={sizes}: there have to be {wanted}.")
        if not ratios or not sizes[0]:
            raise UserError(
                f"config.recipe.proposing: ratios={ratios} and sizes={sizes}: there have to be some of each."
            )
        if shape[2] not in (1, 3):
            raise UserError(f"config.recipe.shape={tuple(shape)}: images have one channel or three.")
        cells = tuple(tuple(map(tuple, grids.cell_anchors(1, level, ratios).tolist())) for level in sizes)
        rpn = RPN(len(cells[0]), proposing.channels)
        head = RegionHead(len(names), classifying.hidden, classifying.dropout)
        base = (tuple(shape), names, ema, detection, optim.build(optimiser))
        return cls(*base, maps, rpn, head, cells, proposing, classifying, **others)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by their names in the state."""
        return self.maps.networks | {"rpn": self.rpn, "head": self.head}

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the networks that are not trained."""
        return ()

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the networks, their common optimiser and their averages."""
        check_images(batch, self.shape)
        keys, held = dict(zip(self.networks, jax.random.split(key, len(self.networks)), strict=True)), {}

        def grow(name: str, x: Any) -> Any:
            outputs, held[name] = self.networks[name].init_with_output(keys[name], x)
            return outputs

        self.visit(grow, jnp.zeros((1, *self.shape)))
        frozen = {name: held.pop(name) for name in self.frozen}
        opt = {"faster_rcnn": self.tx.init({name: held[name]["params"] for name in held})}
        return start(held, opt, averaged=tuple(held) if self.ema else (), frozen=frozen)

    def visit(self, apply: Apply, images: Images) -> None:
        """Calls each network once, on an input of the right shape."""
        levels = self.maps(apply, images)
        apply("rpn", levels[0])
        apply("head", jnp.zeros((1, 1, self.classifying.pooled, self.classifying.pooled, levels[0].shape[-1])))

    def lay_anchors(self, levels: Levels) -> list[Float[Array, "_ 4"]]:
        """Places the anchors of every level."""
        return [
            grids.grid(x.shape[1:3], stride, jnp.array(cell))
            for x, stride, cell in zip(levels, self.maps.strides, self.cells, strict=True)
        ]

    def read(
        self, levels: Levels, boxes: Boxes, mask: Mask, size: int | None = None
    ) -> Float[Array, "batch boxes _ _ features"]:
        """Reads regions, each from the level of its size, in `size` bins a side, by default `pooled`."""
        settings = self.classifying
        pool = partial({"align": roi_align, "pool": roi_pool}[settings.pooling], size=size or settings.pooled)
        scales = [1 / stride for stride in self.maps.strides]
        if self.maps.fpn is None:
            return pool(levels[0], boxes, mask, scale=scales[0])
        levels, scales = levels[:-1], scales[:-1]  # P6 is for proposals alone
        chosen = assign_levels(boxes, len(levels), finest=0, size=settings.canonical, level=2)
        return pool_pyramid(pool, levels, boxes, mask, scales=scales, levels=chosen)

    # --- training

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down all losses at once."""
        draw_key, dropout_key = jax.random.split(key)

        def loss_fn(params):
            stats = {}

            def apply(name, x):
                net = self.networks[name]
                if name in state.frozen:
                    return net.apply(variables(state, name), x)
                given = {"params": params[name], "batch_stats": state.stats.get(name, {})}
                if not isinstance(net, ResNet | VGG | RegionHead):
                    return net.apply(given, x)
                rngs = {"dropout": dropout_key}
                outputs, new = net.apply(given, x, train=True, mutable=["batch_stats"], rngs=rngs)
                stats[name] = new.get("batch_stats")
                return outputs

            losses, shown = self.losses(draw_key, apply, batch)
            return sum(losses.values()), (losses, shown, stats)

        step = descend(self.tx, loss_fn, state.params, state.opt["faster_rcnn"])
        params, opt, loss, (losses, shown, stats) = step
        metrics = {f"loss/{name}": value for name, value in losses.items()} | {"loss/total": loss} | shown
        return advance(state, params, {"faster_rcnn": opt}, stats, keep=self.ema), metrics

    def losses(self, key: Key[Array, ""], apply: Apply, batch: Batch) -> tuple[Losses, Metrics]:
        """Computes the losses of a batch by name, and what else is shown of it."""
        keys = jax.random.split(key, (2, len(batch["image"])))
        levels = self.maps(apply, batch["image"])
        outputs = self.outputs(apply, levels)
        losses, shown = self.proposal_losses(keys[0], outputs, batch)
        boxes, mask, _ = propose(*outputs, self.shape[:2], self.proposing, train=True)
        others, more = self.region_losses(keys[1], apply, levels, boxes, mask, batch)
        return losses | others, shown | more

    def outputs(self, apply: Apply, levels: Levels) -> Outputs:
        """Returns what the region proposal network says of all levels."""
        logits, offsets = zip(*(apply("rpn", x) for x in levels), strict=True)
        return Outputs([*logits], [*offsets], self.lay_anchors(levels))

    def proposal_losses(self, key: Key[Array, " batch"], outputs: Outputs, batch: Batch) -> tuple[Losses, Metrics]:
        """Computes the region proposal network's two losses."""
        boxes, _, present = solid_objects(batch)
        draw = partial(sample_anchors, size=self.shape[:2], count=self.proposing.anchors)
        anchors = jnp.concatenate(outputs.anchors)
        outside = jax.vmap(outside_crowds, (None, 0, 0))(anchors, batch["boxes"], batch["mask"] & batch["crowd"])
        drawn = jax.vmap(draw, (0, None, 0, 0, 0))(key, anchors, boxes, present, outside)
        both = (jnp.concatenate(each, axis=1) for each in outputs[:2])
        objectness, moved = proposal_loss(*both, anchors, boxes, drawn)
        return {"objectness": objectness, "proposals": moved}, {"positive_anchors": drawn[1].sum(1).mean()}

    def draw_regions(self, key: Key[Array, " batch"], boxes: Boxes, mask: Mask, batch: Batch) -> Regions:
        """Draws regions to train on among proposals and objects."""
        choose = partial(sample_regions, count=self.classifying.count)
        outside = outside_crowds(boxes, batch["boxes"], batch["mask"] & batch["crowd"])
        return Regions(*jax.vmap(choose)(key, boxes, mask, *solid_objects(batch), outside))

    def region_losses(
        self, key: Key[Array, " batch"], apply: Apply, levels: Levels, boxes: Boxes, mask: Mask, batch: Batch
    ) -> tuple[Losses, Metrics]:
        """Computes the losses of regions drawn among proposals."""
        drawn = self.draw_regions(key, boxes, mask, batch)
        shown = {"positive_regions": (drawn.labels > 0).sum(1).mean()}
        return self.drawn_losses(apply, levels, drawn, batch), shown

    def drawn_losses(self, apply: Apply, levels: Levels, drawn: Regions, batch: Batch) -> Losses:
        """Computes the losses of regions that were drawn."""
        outputs = apply("head", self.read(levels, drawn.boxes, drawn.mask))
        return dict(
            zip(("classification", "boxes"), multi_task_loss(*outputs, drawn, self.classifying.beta), strict=True)
        )

    # --- detection

    def call(self, state: State, name: str, x: Any) -> Any:
        """Calls a network as detection does."""
        return self.networks[name].apply(variables(state, name), x)

    def propose(self, apply: Apply, levels: Levels, images: Images, train: bool = False) -> Proposals:
        """Returns the proposals of images with these maps."""
        return propose(*self.outputs(apply, levels), self.shape[:2], self.proposing, train)

    def find(self, state: State, images: Images) -> Candidates:
        """Finds the proposals of every class."""
        apply = partial(self.call, state)
        return self.find_on(apply, self.maps(apply, images), images)

    def find_on(self, apply: Apply, levels: Levels, images: Images) -> Candidates:
        """Finds the proposals of every class in images with these maps."""
        boxes, mask, _ = self.propose(apply, levels, images)
        return find_objects(*apply("head", self.read(levels, boxes, mask)), boxes, mask, self.shape[:2])


def solid_objects(batch: Batch) -> Objects:
    """Returns boxes, labels and mask of the objects to train on; boxes of others are 0."""
    boxes, labels, present = training_objects(batch)
    return jnp.where(present[..., None], boxes, 0), labels, present


# Of the authors' code; the paper has the rate of 1e-3 for 60,000 steps of its four stages, and 1e-4 for 20,000 more.
PAPER = {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
DETECTION = Detection(score_threshold=0.05, iou_threshold=0.3)
FEATURES, PROPOSING, CLASSIFYING = Features(), Proposing(), Classifying()


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    features: Features = FEATURES,
    proposing: Proposing = PROPOSING,
    classifying: Classifying = CLASSIFYING,
    ema: Share = 0.0,
    detection: Detection = DETECTION,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes Faster R-CNN, by default the paper's of VGG-16 for 600-pixel images of the VOC.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      features: the network of features.
      proposing: how regions are proposed.
      classifying: how regions are read and classified.
      ema: share of the moving average that each step keeps; 0: no average.
      detection: how detections are selected.
      optimiser: as in `cvjax.optim.build`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`.

    Raises:
      UserError: sizes that do not match the levels, different numbers of them or none, no ratios, images of other than
        one channel or three, too few regions, a pyramid over a VGG, or a depth or stem that the backbone does not have.
    """
    return Recipe.of(FasterRCNN.of(shape, classes, features, proposing, classifying, ema, detection, optimiser))
