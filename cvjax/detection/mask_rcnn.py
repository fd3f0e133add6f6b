"""Mask R-CNN: He, Gkioxari, Dollár & Girshick, Mask R-CNN, 2017 (arXiv:1703.06870).

Faster R-CNN with RoIAlign, and branches that see inside the boxes: masks of objects, and joints of people (section 5).
Both are trained on regions that overlap an object, and read for detections only. Details that the paper leaves open
follow Detectron2.
"""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from cvjax.core import Batch, Metrics, Recipe, State, advance, descend, start, variables
from cvjax.detection import faster_rcnn
from cvjax.detection.detector import Candidates, Detection, Found, Images, find_and_select, training_objects
from cvjax.detection.faster_rcnn import FasterRCNN, Proposing, proposal_loss, propose, sample_anchors
from cvjax.detection.region_branches import KeypointHead, MaskHead, keypoint_loss, mask_loss, own_masks
from cvjax.detection.region_heads import Regions, count_positives, find_objects, multi_task_loss, sample_regions
from cvjax.errors import UserError
from cvjax.metrics import detection as metrics
from cvjax.ops.instance_masks import mask_targets, split_instances
from cvjax.ops.keypoint_heatmaps import decode_keypoints, encode_keypoints
from cvjax.signature import Count, NonNegative, Positive, Share

Levels = list[Float[Array, "batch _ _ channels"]]


def object_masks(batch: Batch) -> Bool[Array, "batch objects height width"]:
    """Returns the mask of each object of a batch: its `masks`, or those that its map `instances` numbers."""
    return batch["masks"] if "masks" in batch else split_instances(batch["instances"], batch["boxes"].shape[1])


@dataclasses.dataclass(frozen=True)
class MaskRCNN(FasterRCNN):
    """Mask R-CNN's functions; the attributes are those of `FasterRCNN`, the networks and arguments of `recipe`."""

    mask_head: MaskHead | None
    keypoint_head: KeypointHead | None
    branch_pooled: int

    @property
    def branches(self) -> dict[str, nn.Module]:
        """The networks that see inside the boxes, by their names in the state."""
        heads = {"mask_head": self.mask_head, "keypoint_head": self.keypoint_head}
        return {name: head for name, head in heads.items() if head}

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by their names in the state."""
        return super().networks | self.branches

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the networks, their common optimiser and their averages."""
        self.check(batch)
        own_key, base_key = jax.random.split(key)
        first = super().init(base_key, batch)
        networks = {name: variables(first, name, averaged=False) for name in super().networks}
        channels = networks["rpn"]["params"]["conv"]["kernel"].shape[2]
        pooled = jnp.zeros((1, 1, self.branch_pooled, self.branch_pooled, channels))
        keys = jax.random.split(own_key, len(self.branches))
        for (name, head), branch_key in zip(self.branches.items(), keys, strict=True):
            networks[name] = head.init(branch_key, pooled)
        opt = {"mask_rcnn": self.tx.init({name: networks[name]["params"] for name in networks})}
        return start(networks, opt, averaged=tuple(networks) if self.ema else ())

    def check(self, batch: Batch) -> None:
        """Raises a UserError if batches lack what the branches are trained on."""
        if self.mask_head and not {"masks", "instances"} & batch.keys():
            raise UserError(
                "config.recipe.masks=True: the batches have no masks. Set config.data.keep=('instances',) if the "
                "dataset has such a map, config.data.masks if its objects have masks, or config.recipe.masks=False."
            )
        if self.keypoint_head is None:
            return
        joints = self.keypoint_head.joints
        if not {"keypoints", "visibility"} <= batch.keys():
            raise UserError(
                f"config.recipe.keypoints={joints}: the batches have no joints. Set config.data.keypoints if the "
                "dataset has them, or leave config.recipe.keypoints out."
            )
        if (given := batch["keypoints"].shape[2]) != joints:
            raise UserError(f"config.recipe.keypoints={joints}: the dataset's objects have {given} joints.")

    # --- training -------------------------------------------------------------------------------------------------

    def branch_losses(self, apply: Any, levels: Levels, regions: Regions, batch: Batch) -> Metrics:
        """Computes the losses of the branches on the regions that show an object; `apply` takes a name and an input."""
        most = count_positives(self.region_count, 0.25)  # and the first of them
        regions = Regions(*(rows[:, :most] for rows in regions))
        positive, losses = regions.mask & (regions.labels > 0), {}
        pooled = self.read_inside(levels, regions.boxes, positive)
        if self.mask_head:
            targets = (object_masks(batch), regions.matched, regions.boxes, positive)
            targets = mask_targets(*targets, size=2 * self.branch_pooled)
            labels = jnp.where(positive, regions.labels - 1, 0)
            losses["loss/masks"] = mask_loss(apply("mask_head", pooled), targets, labels, positive)
        if self.keypoint_head:
            at = regions.matched[..., None]
            places = jnp.take_along_axis(batch["keypoints"], at[..., None], axis=1)
            labelled = jnp.take_along_axis(batch["visibility"], at, axis=1) > 0
            bins = encode_keypoints(places, labelled & positive[..., None], regions.boxes, 4 * self.branch_pooled)
            losses["loss/keypoints"] = keypoint_loss(apply("keypoint_head", pooled), *bins)
        return losses

    def read_inside(
        self, levels: Levels, boxes: Float[Array, "batch boxes 4"], mask: Bool[Array, "batch boxes"]
    ) -> Float[Array, "batch boxes {self.branch_pooled} {self.branch_pooled} channels"]:
        """Reads the features of regions for the branches."""
        return dataclasses.replace(self, pooled=self.branch_pooled).read(levels, boxes, mask)

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down all losses at once."""
        boxes, labels, present = training_objects(batch)
        boxes = jnp.where(present[..., None], boxes, 0)
        draw_key, dropout_key = jax.random.split(key)
        keys = jax.random.split(draw_key, (2, len(boxes)))

        def loss_fn(params):
            stats = {}

            def apply(name, x):
                given = {"params": params[name], "batch_stats": state.stats.get(name, {})}
                if name not in ("resnet", "vgg", "head"):
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
            names = ("loss/objectness", "loss/proposals", "loss/classification", "loss/boxes")
            losses = dict(zip(names, parts, strict=True)) | self.branch_losses(apply, levels, regions, batch)
            counts = (drawn[1].sum(1).mean(), (regions.labels > 0).sum(1).mean())
            return sum(losses.values()), (losses, counts, stats)

        step = descend(self.tx, loss_fn, state.params, state.opt["mask_rcnn"])
        params, opt, loss, (losses, counts, stats) = step
        metrics = losses | {"loss/total": loss, "positive_anchors": counts[0], "positive_regions": counts[1]}
        return advance(state, params, {"mask_rcnn": opt}, stats, keep=self.ema), metrics

    # --- detection ------------------------------------------------------------------------------------------------

    @partial(jax.jit, static_argnums=0)
    def detect(self, state: State, images: Images) -> Found:
        """Detects objects in images, and reads their masks and joints."""

        def apply(name, x):
            return self.networks[name].apply(variables(state, name), x)

        levels = self._levels(apply, images)

        def find(given: Images) -> Candidates:
            return self.find_on(apply, levels if given is images else self._levels(apply, given))

        found = find_and_select(find, images, self.detection)
        boxes, there = found["boxes"], found["detected"]
        pooled = self.read_inside(levels, boxes, there)
        if self.mask_head:
            masks = jax.nn.sigmoid(own_masks(apply("mask_head", pooled), found["labels"]))
            found["masks"] = jnp.where(there[..., None, None], masks, 0)
        if self.keypoint_head:
            logits = apply("keypoint_head", pooled)
            flat = logits.reshape(-1, *logits.shape[2:])
            places, values = decode_keypoints(flat, boxes.reshape(-1, 4), *self.shape[:2])
            # Interpolation may go beyond the largest of the bins.
            chances = jnp.exp(jnp.minimum(values - jax.nn.logsumexp(flat, axis=(1, 2)), 0))
            joints = jnp.concatenate([places, chances[..., None]], -1).reshape(*boxes.shape[:2], -1, 3)
            found["keypoints"] = jnp.where(there[..., None, None], joints, 0)
        return found

    def find_on(self, apply: Any, levels: Levels) -> Candidates:
        """Finds the proposals of every class on the maps of images."""
        logits, offsets = zip(*(apply("rpn", x) for x in levels), strict=True)
        size = self.shape[:2]
        boxes, mask = propose(logits, offsets, self.lay_anchors(levels), size, self.proposing)
        return find_objects(*apply("head", self.read(levels, boxes, mask)), boxes, mask, size)

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes mean average precisions of boxes."""
        return metrics.figures(rows, self.classes)


PAPER = {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9, "weight_decay": 1e-4}
PROPOSING = Proposing(before=2000, after=1000, test_before=1000, test_after=1000, smallest=0.0)
DETECTION = Detection(score_threshold=0.05, iou_threshold=0.5)
PYRAMID = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))

SHARED = frozenset(inspect.signature(faster_rcnn.recipe).parameters)  # arguments of both recipes


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    masks: bool = True,
    keypoints: Count | None = None,
    depth: Count = 50,
    width: Count = 64,
    stem: Literal["imagenet", "small"] = "imagenet",
    strides: tuple[Count, ...] = (1, 2, 2, 2),
    fpn: bool = True,
    channels: Count = 256,
    rpn_channels: Count = 256,
    sizes: tuple[tuple[Positive, ...], ...] = PYRAMID,
    ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0),
    pooling: Literal["pool", "align"] = "align",
    pooled: Count = 7,
    branch_pooled: Count = 14,
    canonical: Positive = 224.0,
    hidden: Count = 1024,
    mask_channels: tuple[Count, ...] = (256, 256, 256, 256),
    keypoint_channels: tuple[Count, ...] = (512,) * 8,
    anchors: Count = 256,
    regions: Count = 512,
    beta: NonNegative = 1.0,
    proposing: Proposing = PROPOSING,
    ema: Share = 0.0,
    detection: Detection = DETECTION,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes Mask R-CNN, by default the paper's of a ResNet-50 with a pyramid for 800-pixel images of COCO.

    Batches have masks of objects as `masks`, which may overlap, or as a map `instances`, whose numbers are 1 + the row
    of the box; and joints as `keypoints`, x and y in pixels, with `visibility`: 0 not labelled, 1 hidden, 2 visible.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      masks: train the branch of masks.
      keypoints: number of joints of an object; None: no branch for them.
      depth, width: of the ResNet.
      stem, strides: of the ResNet.
      fpn: read a pyramid over all stages of the ResNet, or else its last stage.
      channels: of the pyramid.
      rpn_channels: of the region proposal network.
      sizes: sides of the square anchors in pixels, those of each level.
      ratios: height / width of the anchors, at equal area.
      pooling: features of a region by "pool", RoIPool, or "align", RoIAlign.
      pooled: bins a side for classes and boxes.
      branch_pooled: bins a side for masks, which are twice as fine, and joints, whose heat maps are four times as fine.
      canonical: square root of the area of regions that are read from the pyramid's third level.
      hidden: units of the two fully connected layers.
      mask_channels: of the convolutions of the branch of masks.
      keypoint_channels: of those of the branch of joints.
      anchors: number of anchors that train the proposals of an image.
      regions: number of regions that train the classes of an image; a quarter at most also train the branches.
      beta: error at which the regions' smooth L1 turns from quadratic to linear.
      proposing: how proposals are chosen.
      ema: share of the moving average that each step keeps; 0: no average.
      detection: how detections are selected.
      optimiser: as in `cvjax.optim.build`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`.

    Raises:
      UserError: as `cvjax.detection.faster_rcnn.recipe`, or neither masks nor joints.
    """
    if not masks and not keypoints:
        raise UserError("config.recipe: masks=False without keypoints leaves detection.faster_rcnn: take that system.")
    given = {name: value for name, value in locals().items() if name in SHARED}
    base = faster_rcnn.recipe(**given, backbone="resnet", dropout=0.0).train_step.__self__
    inner = {field.name: getattr(base, field.name) for field in dataclasses.fields(base)}
    heads = {
        "mask_head": MaskHead(len(base.classes), tuple(mask_channels)) if masks else None,
        "keypoint_head": KeypointHead(keypoints, tuple(keypoint_channels)) if keypoints else None,
    }
    return Recipe.of(MaskRCNN(**inner, **heads, branch_pooled=branch_pooled))
