"""FCN-32s, -16s and -8s: Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015 (arXiv:1411.4038).

The networks of the three strides contain one another, so FCN-16s can start from FCN-32s, and FCN-8s from FCN-16s:

    --config.borrow.vgg=RUN/vgg --config.borrow.score32=RUN/score32 --config.borrow.score16=RUN/score16
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float, Key

from cvjax import optim
from cvjax.core import Recipe, Variables, class_names
from cvjax.losses.segmentation import MapLoss
from cvjax.nets.imagenet import MEAN
from cvjax.nets.layers import Conv, ConvTranspose
from cvjax.nets.vgg import VGG
from cvjax.segmentation.segmenter import CROSS_ENTROPY, ONE_SCALE, Images, Inference, Logits, Segmenter, check_loss
from cvjax.signature import Count, NonNegative, Share

Features = Float[Array, "batch rows columns features"]
Scores = Float[Array, "batch rows columns classes"]

SKIPS = {32: (), 16: ("pool4",), 8: ("pool4", "pool3")}  # features that are scored besides fc7, in order
# Where the authors crop with 100 zeros around the image: pool4 and pool3 before they are added, and the last output.
SKIP_CROPS, LAST_CROPS = {"pool4": 5, "pool3": 9}, {32: 19, 16: 27, 8: 31}


# --- nets ---------------------------------------------------------------------------------------------------------


def bilinear_kernel(size: int) -> Float[np.ndarray, " size"]:
    """Returns the weights of bilinear upsampling by size / 2 along one axis, as a transposed convolution has them."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    return 1 - np.abs(np.arange(size) - centre) / factor


def bilinear_init(key: Key[Array, ""], shape: tuple[int, int, int, int], dtype: Any = "float32") -> Float[Array, "..."]:
    """Returns a kernel [rows, columns, channels, features] that upsamples each channel by itself; draws nothing."""
    rows, columns, channels, features = shape
    weights = np.outer(bilinear_kernel(rows), bilinear_kernel(columns))
    return jnp.asarray(weights[..., None, None] * np.eye(channels, features), dtype)


class Upsample(nn.Module):
    """Upsamples by a transposed convolution with a fixed bilinear kernel of twice the factor, and crops.

    The even `factor` is its stride, `crop` the first row and column of its output that is kept.
    """

    factor: int
    crop: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, scores: Scores, size: tuple[int, int]) -> Float[Array, "batch height width classes"]:
        """Returns the scores of every pixel of a height and width."""
        matrices = [_bilinear_matrix(count, self.factor) for count in scores.shape[1:3]]
        rows, columns = (
            jnp.asarray(matrix[self.crop : self.crop + side], scores.dtype)
            for matrix, side in zip(matrices, size, strict=True)
        )
        scores, rows, columns = nn.dtypes.promote_dtype(scores, rows, columns, dtype=self.dtype)
        return jnp.einsum("hr,brcn,wc->bhwn", rows, scores, columns)


def _bilinear_matrix(count: int, factor: int) -> np.ndarray:
    """Returns the transposed convolution along one axis as a matrix [output, input]."""
    kernel = bilinear_kernel(2 * factor)
    matrix = np.zeros(((count + 1) * factor, count))
    for place in range(count):
        matrix[place * factor : (place + 2) * factor, place] = kernel
    return matrix


class FirstScore(nn.Module):
    """Scores fc7 by a 1x1 convolution, zero at first."""

    classes: int

    @nn.compact
    def __call__(self, x: Features) -> Scores:
        """Returns the scores."""
        return Conv(self.classes, 1, kernel_init=nn.initializers.zeros, name="score")(x)


class SkipScore(nn.Module):
    """Doubles the resolution of scores, bilinear at first, and adds those of finer features (figure 3).

    Attributes:
      scale: factor of the features; those of "at once" training bring the pools to the size of fc7.
      crop: first row and column of the features that the scores cover; None: both cover the same.
    """

    scale: float = 1.0
    crop: int | None = None

    @nn.compact
    def __call__(
        self, scores: Scores, x: Float[Array, "batch skip_rows skip_columns features"]
    ) -> Float[Array, "batch finer_rows finer_columns classes"]:
        """Returns the sum."""
        classes, padding = scores.shape[-1], 1 if self.crop is None else 0
        options = dict(stride=2, padding=padding, use_bias=False, kernel_init=bilinear_init)
        scores = ConvTranspose(classes, 4, **options, name="upscore")(scores)
        fine = Conv(classes, 1, kernel_init=nn.initializers.zeros, name="score")(self.scale * x)
        first = self.crop or 0
        return scores + fine[:, first : first + scores.shape[1], first : first + scores.shape[2]]


# --- recipe -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FCNSegmenter(Segmenter):
    """VGG and the (name, network) of its scores; the other attributes are those of `Segmenter` and `recipe`."""

    vgg: VGG
    scores: tuple[tuple[str, nn.Module], ...]
    stride: int

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by their names in the state."""
        return {"vgg": self.vgg, **dict(self.scores)}

    def begin(self, key: Key[Array, ""], images: Images) -> dict[str, Variables]:
        """Initialises the networks."""
        vgg_key, *keys = jax.random.split(key, len(self.networks))
        (x, pools), vgg = self.vgg.init_with_output(vgg_key, self.extend(images))
        held, scores = {"vgg": vgg}, ()
        features = (x, *(pools[name] for name in SKIPS[self.stride]))
        for (name, net), score_key, each in zip(self.scores, keys, features, strict=True):
            found, held[name] = net.init_with_output(score_key, *scores, each)
            scores = (found,)
        return held

    def extend(self, images: Images) -> Float[Array, "batch rows columns channels"]:
        """Extends images at the bottom and right by the mean colour, until all poolings halve their size.

        With 100 zeros around them, this stands for Caffe's poolings, which round sizes up.
        """
        beyond = 2 * self.vgg.padding - 2  # added by the first convolution
        rows, columns = ((0, -(side + beyond) % 32) for side in images.shape[1:3])
        colour = jnp.asarray(MEAN if images.shape[-1] == 3 else np.mean(MEAN), images.dtype)
        return jnp.pad(images - colour, ((0, 0), rows, columns, (0, 0))) + colour

    def forward(
        self, key: Key[Array, ""] | None, held: Mapping[str, Variables], images: Images
    ) -> tuple[Logits, dict[str, Any]]:
        """Computes the logits of every pixel."""
        extended, new = self.extend(images), {}
        if key is None:
            x, pools = self.vgg.apply(held["vgg"], extended)
        else:
            options = dict(train=True, mutable=["batch_stats"], rngs={"dropout": key})
            (x, pools), new = self.vgg.apply(held["vgg"], extended, **options)
        scores, features = (), (x, *(pools[name] for name in SKIPS[self.stride]))
        for (name, net), each in zip(self.scores, features, strict=True):
            scores = (net.apply(held[name], *scores, each),)
        crop = LAST_CROPS[self.stride] if self.vgg.padding == 100 else self.stride // 2
        logits = Upsample(self.stride, crop).apply({}, *scores, images.shape[1:3])
        return logits, {"vgg": new.get("batch_stats", {})}


# Section 4.3 has momentum 0.9 and batches of 20; the authors' later models have batches of one image, 0.99 and a rate
# of 1e-10 for the sum over pixels, which for VOC's images is about this rate for their mean.
PAPER = {"name": "sgd", "learning_rate": 2e-5, "momentum": 0.99, "weight_decay": 5e-4}


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    truth: str = "class_map",
    weights: str = "",
    stride: Literal[32, 16, 8] = 8,
    skip_scales: tuple[NonNegative, NonNegative] = (0.01, 0.0001),
    depth: Literal[11, 13, 16, 19] = 16,
    width: Count = 64,
    hidden: Count = 4096,
    batch_norm: bool = False,
    dropout: Share = 0.5,
    padding: Literal[100, 1] = 100,
    loss: MapLoss = CROSS_ENTROPY,
    inference: Inference = ONE_SCALE,
    ema: Share = 0.0,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes FCN-32s, FCN-16s or FCN-8s. The defaults are the authors' FCN-8s, trained at once.

    Args:
      shape, classes, truth, weights: as in `cvjax.segmentation.unet.recipe`.
      stride: pixels per score before the last upsampling.
      skip_scales: factors of pool4 and pool3; (1, 1) where a run borrows the networks of the next larger stride.
      depth, width, hidden, batch_norm, dropout: as in `cvjax.nets.vgg.VGG`.
      padding: 100: zeros around the image, and the authors' crops; 1: features cover the image and no more, which takes
        less computation for small images.
      loss, inference, ema, optimiser: as in `cvjax.segmentation.unet.recipe`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.segmentation.figures`.

    Raises:
      UserError: class weights that do not fit.
    """
    names = class_names(classes)
    check_loss(loss, names)
    options = dict(head="convolutional", classes=None, width=width, hidden=hidden, dropout=dropout)
    options |= dict(padding=padding, head_padding=0 if padding == 100 else 3, capture=SKIPS[stride])
    scores = [("score32", FirstScore(len(names)))]
    for name, pool, scale in zip(("score16", "score8"), SKIPS[stride], skip_scales, strict=False):
        scores.append((name, SkipScore(scale, SKIP_CROPS[pool] if padding == 100 else None)))
    base = (tuple(shape), names, truth, weights, loss, inference, ema, optim.build(optimiser))
    return Recipe.of(FCNSegmenter(*base, VGG(depth, batch_norm, **options), tuple(scores), stride))
