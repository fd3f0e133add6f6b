"""SPP-net: He, Zhang, Ren & Sun, Spatial Pyramid Pooling in Deep Convolutional Networks, 2014 (arXiv:1406.4729).

Section 4: the convolutions run once over an image, and a pyramid of maxima makes vectors of one length of regions of
any size. The heads are R-CNN's.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cvjax import optim
from cvjax.core import Recipe, class_names
from cvjax.detection.detector import Detection, Images
from cvjax.detection.proposal_detector import SEARCH, Regions, as_json
from cvjax.detection.region_classifier import DETECTION, Pooled, RegionDetector, VGGHead
from cvjax.detection.region_heads import count_positives
from cvjax.detection.region_svms import PAPER, RegionSVMs
from cvjax.errors import UserError
from cvjax.nets.vgg import DEPTHS, VGG
from cvjax.ops.window_maxima import window_maxima
from cvjax.signature import Count, Share

# --- the pyramid --------------------------------------------------------------------------------------------------


def project(
    near: Float[Array, "*regions"], far: Float[Array, "*regions"], stride: float, count: int
) -> tuple[Int[Array, "*regions"], Int[Array, "*regions"]]:
    """Projects edges of regions along an axis onto `count` features, one every `stride` pixels (appendix A).

    A feature belongs to a region if its centre lies inside; those whose centres none does have the nearest one. Returns
    (first feature, one after the last).
    """
    first = jnp.floor(near / stride - 0.5).astype(jnp.int32) + 1
    last = jnp.ceil(far / stride - 0.5).astype(jnp.int32) - 1
    nearest = jnp.clip(jnp.floor((near + far) / 2 / stride).astype(jnp.int32), 0, count - 1)
    first, last = jnp.maximum(first, 0), jnp.minimum(last, count - 1)
    empty = last < first
    return jnp.where(empty, nearest, first), jnp.where(empty, nearest, last) + 1


def pyramid(
    features: Float[Array, "batch rows columns channels"],
    regions: Float[Array, "batch regions 4"],
    strides: tuple[float, float],
    levels: Sequence[int],
) -> Float[Array, "batch regions outputs"]:
    """Pools each region into n x n maxima for each n of `levels` (section 2.2).

    Bin i of n along w features reaches from floor(i w / n) to ceil((i + 1) w / n): bins overlap where n does not divide
    w. `strides` are vertical and horizontal, in the pixels of the regions. Returns vectors of one length.
    """
    batch, rows, columns, _ = features.shape
    y1, y2 = project(regions[..., 1], regions[..., 3], strides[0], rows)
    x1, x2 = project(regions[..., 0], regions[..., 2], strides[1], columns)
    edges = {"top": [], "bottom": [], "left": [], "right": []}
    for count in levels:
        bins = jnp.arange(count)
        spans = []
        for first, end in ((y1, y2), (x1, x2)):
            first, length = first[..., None], (end - first)[..., None]
            spans.append((first + bins * length // count, first - (-(bins + 1) * length // count)))
        for names, span, axis in zip((("top", "bottom"), ("left", "right")), spans, (3, 2), strict=True):
            for name, values in zip(names, span, strict=True):
                grid = jnp.broadcast_to(jnp.expand_dims(values, axis), (*regions.shape[:2], count, count))
                edges[name].append(grid.reshape(*regions.shape[:2], -1))
    edges = {name: jnp.concatenate(parts, axis=2).reshape(batch, -1) for name, parts in edges.items()}
    return window_maxima(features, **edges).reshape(*regions.shape[:2], -1)


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SPPNet(RegionDetector):
    """SPP-net's functions; the attributes are those of `RegionDetector` and arguments of `recipe`."""

    side: int
    levels: tuple[int, ...]

    def pool(self, vgg: Mapping[str, Any], images: Images, regions: Regions) -> Pooled:
        """Computes the convolutions once over each image, and the pyramid of each region."""
        height, width = images.shape[1:3]
        factor = self.side / min(height, width)
        shape = (len(images), round(factor * height), round(factor * width), images.shape[3])
        _, kept = self.vgg.apply(vgg, jax.image.resize(images, shape, "linear", antialias=True))
        (features,) = kept.values()
        stride = 2 ** (len(self.vgg.stages or DEPTHS[self.vgg.depth]) - 1)  # the last pooling is the pyramid
        strides = (stride * height / shape[1], stride * width / shape[2])
        return pyramid(features, regions, strides, self.levels)


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    depth: Literal[11, 13, 16, 19] = 16,
    stages: tuple[Count, ...] = (),
    width: Count = 64,
    hidden: Count = 4096,
    dropout: Share = 0.5,
    side: Count = 688,
    levels: tuple[Count, ...] = (6, 3, 2, 1),
    frozen: bool = True,
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
    """Makes SPP-net, by default that of the paper's single scale with a VGG on images of VOC.

    Batches have `proposals`, from `data.derive`. Difficult and crowd objects count neither as objects nor as
    background, nor does a region half of which lies in a crowd.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      depth, stages, width: as in `cvjax.nets.vgg.VGG`, whose features before the last pooling are used.
      hidden: channels of `fc6` and `fc7`.
      dropout: of those two.
      side: pixels to which the shorter side of an image is resized.
      levels: numbers of bins along an axis in the pyramid.
      frozen: train the head alone, as the paper does, on convolutions that `config.borrow.vgg` names, such as those of
        an R-CNN's run; False: train both.
      windows: number of regions of each image that a step is trained on.
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
      UserError: no levels, a side without features, or a share that leaves no regions of objects or of background.
    """
    counts = tuple(stages) or DEPTHS[depth]
    if not levels:
        raise UserError("config.recipe.levels=(): expected numbers of bins, such as (6, 3, 2, 1).")
    if side < 2 ** (len(counts) - 1):
        raise UserError(f"config.recipe.side={side}: no feature is left of it; at least {2 ** (len(counts) - 1)}.")
    names, positives = class_names(classes), count_positives(windows, positive_share, "windows", "positive_share")
    base = (tuple(shape), names, ema, detection, optim.build(optimiser), as_json(search))
    last = f"relu{len(counts)}_{counts[-1]}"
    networks = (
        VGG(depth, stages=tuple(stages), width=width, capture=(last,)),
        VGGHead(len(names) + 1, hidden, dropout),
    )
    drawn = (windows, positives, classifier, regression)
    return Recipe.of(SPPNet(*base, *networks, *drawn, frozen, svm, candidates, side, tuple(levels)))
