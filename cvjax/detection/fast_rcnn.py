"""Fast R-CNN: Girshick, Fast R-CNN, 2015 (arXiv:1504.08083).

The convolutions run once over an image, RoIPool makes maps of one size of regions of any size, and one head classifies
and moves them; all is trained at once.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from cvjax import optim
from cvjax.core import Batch, Metrics, Recipe, State, advance, class_names, descend, start, variables
from cvjax.detection.detector import Candidates, Detection, Images, training_objects
from cvjax.detection.proposal_detector import SEARCH, Present, ProposalDetector, Regions, as_json
from cvjax.detection.region_heads import (
    RegionHead,
    count_positives,
    find_objects,
    multi_task_loss,
    outside_crowds,
    sample_regions,
)
from cvjax.errors import UserError
from cvjax.nets.vgg import DEPTHS, VGG
from cvjax.ops import boxes as box_ops
from cvjax.ops.roi import roi_pool
from cvjax.signature import Count, NonNegative, Share


@dataclasses.dataclass(frozen=True)
class FastRCNN(ProposalDetector):
    """Fast R-CNN's functions.

    The attributes are those of `ProposalDetector`, the networks and arguments of `recipe`.
    """

    vgg: VGG
    head: RegionHead
    side: int
    bins: int
    regions: int
    foreground: float
    background: tuple[float, float]
    beta: float
    candidates: int

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both networks, by their names in the state."""
        return {"vgg": self.vgg, "head": self.head}

    def pool(
        self, vgg: Mapping[str, Any], images: Images, regions: Regions, present: Present
    ) -> Float[Array, "batch regions {self.bins} {self.bins} features"]:
        """Computes the convolutions once over each image, and RoIPool of each region; 0 of padding."""
        sides = images.shape[1:3]
        factor = self.side / min(sides)
        shape = (len(images), *(round(factor * side) for side in sides), images.shape[3])
        _, kept = self.vgg.apply(vgg, jax.image.resize(images, shape, "linear", antialias=True))
        (features,) = kept.values()
        stride = 2 ** (len(self.vgg.stages or DEPTHS[self.vgg.depth]) - 1)  # RoIPool is the last pooling
        # One factor for both axes: rounding moves an edge by less than half a pixel.
        return roi_pool(features, regions, present, size=self.bins, scale=factor / stride)

    def init(self, key: Key[Array, ""], batch: Batch) -> State:
        """Initialises both networks, their common optimiser and their averages."""
        self.check(batch)
        keys, images = jax.random.split(key), jnp.zeros((1, *self.shape))
        held = {"vgg": self.vgg.init(keys[0], images)}
        whole = jnp.array([[[0.0, 0.0, self.shape[1], self.shape[0]]]])
        pooled = self.pool(held["vgg"], images, whole, jnp.ones((1, 1), bool))
        held["head"] = self.head.init(keys[1], pooled)
        opt = {"head": self.tx.init({name: held[name]["params"] for name in held})}
        return start(held, opt, averaged=tuple(held) if self.ema else ())

    def train_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> tuple[State, Metrics]:
        """Takes a step down the multi-task loss of some regions of each image."""
        draw_key, dropout_key = jax.random.split(key)
        boxes, labels, mask = training_objects(batch)
        boxes, mask = box_ops.visible(boxes, mask, *self.shape[:2])
        draw = partial(sample_regions, count=self.regions, foreground=self.foreground, background=self.background)
        keys = jax.random.split(draw_key, len(boxes))
        outside = outside_crowds(batch["proposals"], batch["boxes"], batch["mask"] & batch["crowd"])
        drawn = jax.vmap(draw)(keys, batch["proposals"], batch["proposals_mask"], boxes, labels, mask, outside)

        def loss_fn(params):
            pooled = self.pool({"params": params["vgg"]}, batch["image"], drawn.boxes, drawn.mask)
            outputs = self.head.apply({"params": params["head"]}, pooled, train=True, rngs={"dropout": dropout_key})
            parts = multi_task_loss(*outputs, drawn, self.beta)
            return sum(parts), parts

        params, opt, loss, parts = descend(self.tx, loss_fn, state.params, state.opt["head"])
        metrics = dict(zip(("loss/classification", "loss/boxes"), parts, strict=True)) | {"loss/total": loss}
        shown = (drawn.mask & (drawn.labels > 0)).sum() / jnp.maximum(drawn.mask.sum(), 1)
        return advance(state, params, {"head": opt}, keep=self.ema), metrics | {"share/objects": shown}

    def find(self, state: State, images: Images, regions: Regions, present: Present) -> Candidates:
        """Finds the best pairs of a region, moved, and a class."""
        pooled = self.pool(variables(state, "vgg"), images, regions, present)
        logits, offsets = self.head.apply(variables(state, "head"), pooled)
        boxes, scores, labels = find_objects(logits, offsets, regions, present, self.shape[:2])
        best, at = jax.lax.top_k(scores, min(self.candidates, scores.shape[1]))
        boxes, labels = jnp.take_along_axis(boxes, at[..., None], axis=1), jnp.take_along_axis(labels, at, axis=1)
        return boxes, best, labels


DETECTION = Detection(score_threshold=0.05, iou_threshold=0.3)  # as in the author's code


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    depth: Literal[11, 13, 16, 19] = 16,
    stages: tuple[Count, ...] = (),
    width: Count = 64,
    hidden: Count = 4096,
    dropout: Share = 0.5,
    side: Count = 600,
    bins: Count = 7,
    regions: Count = 64,
    foreground: Share = 0.25,
    background: tuple[Share, Share] = (0.1, 0.5),
    beta: NonNegative = 1.0,
    search: Mapping[str, Any] = SEARCH,
    candidates: Count = 1000,
    ema: Share = 0.0,
    detection: Detection = DETECTION,
    optimiser: Mapping[str, Any] = {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 5e-4},
) -> Recipe:
    """Makes Fast R-CNN, by default the paper's with a VGG-16 on images of VOC.

    The paper's batches have two images, and so 128 regions. Batches have `proposals`, from `data.derive`. Difficult and
    crowd objects are not trained on.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      depth, stages, width: as in `cvjax.nets.vgg.VGG`, whose features before the last pooling are used.
      hidden: units of the head's two layers.
      dropout: share of their outputs dropped while training.
      side: pixels to which the shorter side of an image is resized.
      bins: height and width of the map of a region.
      regions: number of regions of each image that a step is trained on.
      foreground: greatest share of them that overlap an object by 0.5 or more.
      background: least IoU of the others with the nearest object, and the one below which it is.
      beta: error at which smooth L1 of offsets turns from quadratic to linear.
      search: what proposes regions of images of one's own: the entry `proposals` of `config.data.derive`.
      candidates: number of pairs of a region and a class from which an image's detections are selected.
      ema: share of the moving average that each step keeps; 0: no average.
      detection: how detections are selected.
      optimiser: as in `cvjax.optim.build`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`, and `proposal_recall`.

    Raises:
      UserError: a side without features, a range of background that is empty, or a share that leaves no regions of
        objects or of background.
    """
    counts = tuple(stages) or DEPTHS[depth]
    if side < 2 ** (len(counts) - 1):
        raise UserError(f"config.recipe.side={side}: no feature is left of it; at least {2 ** (len(counts) - 1)}.")
    if background[0] >= background[1]:
        raise UserError(
            f"config.recipe.background={background}: expected a lower and a higher IoU, such as (0.1, 0.5)."
        )
    count_positives(regions, foreground, "regions", "foreground")
    names, last = class_names(classes), f"relu{len(counts)}_{counts[-1]}"
    base = (tuple(shape), names, ema, detection, optim.build(optimiser), as_json(search))
    networks = (
        VGG(depth, stages=tuple(stages), width=width, capture=(last,)),
        RegionHead(len(names), hidden, dropout),
    )
    drawn = (regions, foreground, tuple(background), beta)
    return Recipe.of(FastRCNN(*base, *networks, side, bins, *drawn, candidates))
