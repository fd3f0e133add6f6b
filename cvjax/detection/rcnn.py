"""R-CNN: Girshick, Donahue, Darrell & Malik, Rich Feature Hierarchies for Accurate Object Detection, 2014.

arXiv:1311.2524, version 5, with the VGG of its section 3.3. Each proposal is cut out, warped to the network's size and
classified by itself. What the paper leaves open follows the authors' code.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax import optim
from cvjax.core import Recipe, class_names
from cvjax.detection.detector import Detection, Images
from cvjax.detection.proposal_detector import SEARCH, Regions, as_json
from cvjax.detection.region_classifier import DETECTION, Pooled, RegionDetector, VGGHead
from cvjax.detection.region_heads import count_positives
from cvjax.detection.region_svms import PAPER, RegionSVMs
from cvjax.errors import UserError
from cvjax.nets.imagenet import MEAN
from cvjax.nets.vgg import DEPTHS, VGG
from cvjax.signature import Count, Natural, Share

AT_ONCE = 64  # regions in one pass outside of training; a VGG-16's largest features of one are 12 MiB


def warp(
    image: Float[Array, "height width channels"],
    box: Float[Array, "4"],
    side: int,
    context: int,
    outside: Sequence[float] = MEAN,
) -> Float[Array, "{side} {side} channels"]:
    """Cuts a box out of an image and stretches it to `side` pixels (appendix A, "warp").

    The box becomes side - 2 `context` pixels wide and high, and around it are `context` warped pixels of what surrounds
    it; beyond the image they are `outside`, to the network the mean. A box thinner than a pixel counts as a pixel.
    Returns the crop, resized bilinearly and antialiased.
    """
    size = jnp.maximum(jnp.stack([box[3] - box[1], box[2] - box[0]]), 1.0)
    scale = (side - 2 * context) / size
    shift = context - scale * jnp.stack([box[1], box[0]])
    level = jnp.asarray(outside, image.dtype)[: image.shape[2]]
    shape = (side, side, image.shape[2])
    moved = jax.image.scale_and_translate(image - level, shape, (0, 1), scale, shift, "linear", antialias=True)
    return moved + level


@dataclasses.dataclass(frozen=True)
class RCNN(RegionDetector):
    """R-CNN's functions; the attributes are those of `RegionDetector` and arguments of `recipe`."""

    side: int
    context: int

    def pool(self, vgg: Mapping[str, Any], images: Images, regions: Regions) -> Pooled:
        """Computes the last pooled features of each region, warped."""
        cut = partial(warp, side=self.side, context=self.context)
        crops = jax.vmap(jax.vmap(cut, (None, 0)))(images, regions)
        pooled, _ = self.vgg.apply(vgg, crops.reshape(-1, *crops.shape[2:]))
        return pooled.reshape(*regions.shape[:2], -1)

    def pool_many(self, vgg: Mapping[str, Any], images: Images, regions: Regions) -> Pooled:
        """Computes them of about `AT_ONCE` regions at a time, a few of each image: all would not fit into memory."""
        batch, count = regions.shape[:2]
        parts = -(-count // max(AT_ONCE // batch, 1))
        size = -(-count // parts)
        padded = jnp.pad(regions, ((0, 0), (0, parts * size - count), (0, 0))).reshape(batch, parts, size, 4)
        pooled = jax.lax.map(partial(self.pool, vgg, images), padded.swapaxes(0, 1))
        return pooled.swapaxes(0, 1).reshape(batch, parts * size, -1)[:, :count]


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    depth: Literal[11, 13, 16, 19] = 16,
    stages: tuple[Count, ...] = (),
    width: Count = 64,
    hidden: Count = 4096,
    dropout: Share = 0.5,
    side: Count = 224,
    context: Natural = 16,
    windows: Count = 64,
    positive_share: Share = 0.25,
    classifier: Literal["svm", "softmax"] = "svm",
    regression: bool = True,
    svm: RegionSVMs = PAPER,
    search: Mapping[str, Any] = SEARCH,
    candidates: Count = 1000,
    ema: Share = 0.0,
    detection: Detection = DETECTION,
    optimiser: Mapping[str, Any] = {"name": "sgd", "learning_rate": 1e-3, "momentum": 0.9, "weight_decay": 5e-4},
) -> Recipe:
    """Makes R-CNN, by default that of the paper's VGG on images of VOC.

    The network is fine-tuned by steps; after the last one SVMs and box regression are fitted to its features. Batches
    have `proposals`, from `data.derive`. Difficult and crowd objects count neither as objects nor as
    background, nor does a region half of which lies in a crowd.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      depth, stages, width: as in `cvjax.nets.vgg.VGG`, whose features after the last pooling are used.
      hidden: channels of `fc6` and `fc7`.
      dropout: of those two.
      side: pixels to which regions are warped; each stage halves them.
      context: warped pixels around a region.
      windows: number of regions of each image that a step is trained on; the paper has 128 of all images together.
      positive_share: share of them that show an object.
      classifier: "svm": an SVM for each class on the features of `fc7`; "softmax": the fine-tuned network's own.
      regression: move regions by regression from the pooled features.
      svm: how SVMs and regression are fitted.
      search: what proposes regions of images of one's own: the entry `proposals` of `config.data.derive`.
      candidates: number of pairs of a region and a class from which an image's detections are selected.
      ema: share of the moving average that each step keeps; 0: no average.
      detection: how detections are selected.
      optimiser: as in `cvjax.optim.build`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures`, and `proposal_recall`.

    Raises:
      UserError: a side that cannot be halved so often or has no room for the context, or a share that leaves no
        regions of objects or of background.
    """
    halved = 2 ** len(stages or DEPTHS[depth])
    if side % halved:
        raise UserError(f"config.recipe.side={side}: the stages halve it, so that it is a multiple of {halved}.")
    if 2 * context >= side:
        raise UserError(
            f"config.recipe.context={context}: nothing of a side of {side} is left; at most {(side - 1) // 2}."
        )
    names, positives = class_names(classes), count_positives(windows, positive_share, "windows", "positive_share")
    base = (tuple(shape), names, ema, detection, optim.build(optimiser), as_json(search))
    networks = (VGG(depth, stages=tuple(stages), width=width), VGGHead(len(names) + 1, hidden, dropout))
    drawn = (windows, positives, classifier, regression)
    return Recipe.of(RCNN(*base, *networks, *drawn, False, svm, candidates, side, context))
