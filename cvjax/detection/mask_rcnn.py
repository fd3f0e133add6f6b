"""Mask R-CNN: He, Gkioxari, Dollár & Girshick, Mask R-CNN, 2017 (arXiv:1703.06870).

Faster R-CNN with RoIAlign, and branches that see inside the boxes: masks of objects, and joints of people (section 5).
Both are trained on regions that overlap an object, and read for detections only. Targets and pasting of masks are
Detectron2's, which are exact to a pixel; features are read, boxes are coded and joints are binned as in torchvision.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key, Shaped

from cvjax.core import Batch, Recipe, State
from cvjax.data import people
from cvjax.detection.detector import Candidates, Detection, Found, Images, find_and_select
from cvjax.detection.faster_rcnn import Apply, Classifying, FasterRCNN, Features, Levels, Losses
from cvjax.detection.region_branches import KeypointHead, MaskHead, keypoint_loss, mask_loss, own_masks
from cvjax.detection.region_heads import FOREGROUND, Regions, count_positives
from cvjax.detection.rpn import Proposing
from cvjax.errors import UserError
from cvjax.metrics import detection as metrics
from cvjax.metrics.instance_coco import KeypointTally, MaskTally, watch
from cvjax.ops.instance_masks import mask_targets, split_instances
from cvjax.ops.keypoint_heatmaps import decode_keypoints, encode_keypoints
from cvjax.signature import Count, NonNegative, Positive, Share


@dataclasses.dataclass(frozen=True)
class Branches:
    """The networks that see inside boxes: `config.recipe.branches`.

    Attributes:
      pooled: bins a side that they read; masks are twice as fine, and heat maps of joints four times.
      mask_channels: of the convolutions of the branch of masks.
      keypoint_channels: of those of the branch of joints.
      mask_weight, keypoint_weight: of their losses in the sum; the paper's are 1.
      sigmas: how far annotators lie apart, for each joint, in shares of the object's side; by default COCO's 17.
    """

    pooled: Count = 14
    mask_channels: tuple[Count, ...] = (256, 256, 256, 256)
    keypoint_channels: tuple[Count, ...] = (512,) * 8
    mask_weight: NonNegative = 1.0
    keypoint_weight: NonNegative = 1.0
    sigmas: tuple[Positive, ...] = people.SIGMAS


@dataclasses.dataclass(frozen=True)
class MaskRCNN(FasterRCNN):
    """Mask R-CNN's functions; the attributes are those of `FasterRCNN`, and arguments of `recipe`."""

    masks: bool
    keypoints: int | None
    branches: Branches

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by their names in the state."""
        networks, settings = super().networks, self.branches
        if self.masks:
            networks["mask_head"] = MaskHead(len(self.classes), tuple(settings.mask_channels))
        if self.keypoints:
            networks["keypoint_head"] = KeypointHead(self.keypoints, tuple(settings.keypoint_channels))
        return networks

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises the networks, their common optimiser and their averages."""
        self.check(batch)
        return super().init(key, batch)

    def check(self, batch: Batch) -> None:
        """Raises a UserError if batches lack what the branches are trained on."""
        if self.masks and not {"masks", "instances"} & batch.keys():
            raise UserError(
                "config.recipe.masks=True: the batches have no masks. Set config.data.keep=('instances',) if the "
                "dataset has such a map, config.data.masks if its objects have masks, or config.recipe.masks=False."
            )
        if not self.keypoints:
            return
        if not {"keypoints", "visibility"} <= batch.keys():
            raise UserError(
                f"config.recipe.keypoints={self.keypoints}: the batches have no joints. Set config.data.keypoints if "
                "the dataset has them, or leave config.recipe.keypoints out."
            )
        if (given := batch["keypoints"].shape[2]) != self.keypoints:
            raise UserError(f"config.recipe.keypoints={self.keypoints}: the dataset's objects have {given} joints.")

    def visit(self, apply: Apply, images: Images) -> None:
        """Calls each network once, on an input of the right shape."""
        super().visit(apply, images)
        channels = self.maps(apply, images)[0].shape[-1]
        for name in self.networks.keys() & {"mask_head", "keypoint_head"}:
            apply(name, jnp.zeros((1, 1, self.branches.pooled, self.branches.pooled, channels)))

    # --- training

    def drawn_losses(self, apply: Apply, levels: Levels, drawn: Regions, batch: Batch) -> Losses:
        """Computes the losses of regions that were drawn; those of the branches of the ones that show an object."""
        losses, side = super().drawn_losses(apply, levels, drawn, batch), self.branches.pooled
        most = count_positives(self.classifying.count, FOREGROUND)  # and they are the first
        drawn = Regions(*(rows[:, :most] for rows in drawn))
        positive = drawn.mask & (drawn.labels > 0)
        pooled = self.read(levels, drawn.boxes, positive, side)
        if self.masks:
            targets = mask_targets(object_masks(batch), drawn.matched, drawn.boxes, positive, 2 * side)
            labels = jnp.where(positive, drawn.labels - 1, 0)
            loss = mask_loss(apply("mask_head", pooled), targets, labels, positive)
            losses["masks"] = self.branches.mask_weight * loss
        if self.keypoints:
            at = drawn.matched[..., None]
            places = jnp.take_along_axis(batch["keypoints"], at[..., None], axis=1)
            labelled = jnp.take_along_axis(batch["visibility"], at, axis=1) > people.ABSENT
            bins = encode_keypoints(places, labelled & positive[..., None], drawn.boxes, 4 * side)
            loss = keypoint_loss(apply("keypoint_head", pooled), *bins)
            losses["keypoints"] = self.branches.keypoint_weight * loss
        return losses

    # --- detection

    @partial(jax.jit, static_argnums=0)
    def detect(self, state: State, images: Images) -> Found:
        """Detects objects in images, and reads their masks and joints."""
        apply = partial(self.call, state)
        levels = self.maps(apply, images)

        def find(given: Images) -> Candidates:
            mirrored = given is not images
            return self.find_on(apply, self.maps(apply, given) if mirrored else levels, given)

        found = find_and_select(find, images, self.detection)
        return found | self.see(apply, levels, found)

    def see(
        self, apply: Apply, levels: Levels, found: Mapping[str, Shaped[Array, "batch detections ..."]]
    ) -> dict[str, Shaped[Array, "batch detections ..."]]:
        """Reads inside of detections.

        Returns `masks`, the probability that each bin of a detection's box belongs to the object; and `keypoints`, x
        and y of each joint in pixels, and the probability of its bin.
        """
        boxes, there, seen = found["boxes"], found["detected"][..., None, None], {}
        pooled = self.read(levels, boxes, found["detected"], self.branches.pooled)
        if self.masks:
            masks = jax.nn.sigmoid(own_masks(apply("mask_head", pooled), found["labels"]))
            seen["masks"] = jnp.where(there, masks, 0)
        if self.keypoints:
            logits = apply("keypoint_head", pooled)
            flat = logits.reshape(-1, *logits.shape[2:])
            places, values = decode_keypoints(flat, boxes.reshape(-1, 4), *self.shape[:2])
            # Between bins, the interpolation may exceed the largest of them.
            chances = jnp.exp(jnp.minimum(values - jax.nn.logsumexp(flat, axis=(1, 2)), 0))
            joints = jnp.concatenate([places, chances[..., None]], -1)
            seen["keypoints"] = jnp.where(there, joints.reshape(*boxes.shape[:2], -1, 3), 0)
        return seen

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes mean average precisions of boxes, masks and joints."""
        tallies = []
        if self.masks:
            tallies.append(MaskTally(self.classes))
        if self.keypoints:
            tallies.append(KeypointTally(np.array(self.branches.sigmas), self.classes))
        figures = metrics.figures(watch(rows, *tallies), self.classes)
        for tally in tallies:
            figures |= tally.figures()
        return figures


def object_masks(batch: Batch) -> Bool[Array, "batch objects height width"]:
    """Returns the mask of each object of a batch: its `masks`, or those that its map `instances` numbers."""
    return batch["masks"] if "masks" in batch else split_instances(batch["instances"], batch["boxes"].shape[1])


FEATURES = Features("resnet", depth=50, fpn=True)
PROPOSING = Proposing(
    channels=256,
    sizes=((32.0,), (64.0,), (128.0,), (256.0,), (512.0,)),
    before=2000,
    test_before=1000,
    test_after=1000,
    smallest=0.0,
)
CLASSIFYING = Classifying("align", hidden=1024, dropout=0.0, count=512)
BRANCHES = Branches()
DETECTION = Detection(score_threshold=0.05, iou_threshold=0.5)
PAPER = {"name": "sgd", "learning_rate": 0.02, "momentum": 0.9, "weight_decay": 1e-4}


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    masks: bool = True,
    keypoints: Count | None = None,
    features: Features = FEATURES,
    proposing: Proposing = PROPOSING,
    classifying: Classifying = CLASSIFYING,
    branches: Branches = BRANCHES,
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
      masks: whether there is a branch of masks.
      keypoints: number of joints of an object; None: there is no branch of joints.
      features: the network of features.
      proposing: how regions are proposed.
      classifying: how regions are read and classified. A quarter of them at most train the branches too.
      branches: the networks of masks and joints.
      ema: share of the moving average that each step keeps; 0: no average.
      detection: how detections are selected.
      optimiser: as in `cvjax.optim.build`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`, and of `cvjax.metrics.instance_coco` for
      masks and joints.

    Raises:
      UserError: as `cvjax.detection.faster_rcnn.recipe`; neither masks nor joints; not one sigma for each joint.
    """
    if not masks and not keypoints:
        raise UserError("config.recipe: without masks and keypoints this is config.system='detection.faster_rcnn'.")
    if keypoints and len(branches.sigmas) != keypoints:
        raise UserError(
            f"config.recipe.branches.sigmas: expected one for each of the {keypoints} joints, and there are "
            f"{len(branches.sigmas)}; those of COCO's people are between 0.025 and 0.107."
        )
    given = (shape, classes, features, proposing, classifying, ema, detection, optimiser)
    return Recipe.of(MaskRCNN.of(*given, masks=masks, keypoints=keypoints, branches=branches))
