"""WDSR: wide features before the activation, few after it, and weight normalisation.

Yu, Fan, Yang, Xu, Wang, Wang & Huang, Wide Activation for Efficient and Accurate Image Super-Resolution, 2018
(arXiv:1808.08718); Salimans & Kingma, Weight Normalization, 2016 (arXiv:1602.07868).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from cvjax import optim
from cvjax.core import Recipe
from cvjax.errors import UserError
from cvjax.ops import convolution
from cvjax.ops.precision import at_least_float32
from cvjax.signature import Count, Share
from cvjax.translation.super_resolution.degradation import BICUBIC, Degradation
from cvjax.translation.super_resolution.enlarger import Enlarger
from cvjax.translation.super_resolution.upscaling import DIV2K, UNIFORM, Factor, channel_means, pixel_shuffle

EXPANSION = {"a": 4, "b": 6}
LOW_RANK = 0.8  # of B
HALF = 0.5  # the network computes in about [-1, 1]


class WeightNormConv(nn.Module):
    """A convolution whose kernel has a direction and a length for each feature: g v / |v|, equation 2.

    The length begins as that of the direction, so that the kernel is what it would be without normalisation; Linen's
    `WeightNorm` would begin with 1. No data are used. Parameters: `direction` [kh, kw, channels, features], `length`
    and `bias` [features].
    """

    features: int
    kernel: int
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch rows columns channels"]) -> Float[Array, "batch rows columns features"]:
        """Convolves images, whose size stays."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        direction = self.param("direction", UNIFORM, shape)
        norm = jnp.sqrt(jnp.sum(at_least_float32(direction) ** 2, axis=(0, 1, 2)))
        length = self.param("length", lambda key: norm)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, direction * (length / norm), bias, dtype=self.dtype)
        return convolution.conv(x, kernel, padding=self.kernel // 2) + bias


class WDSR(nn.Module):
    """The network of figure 2, WDSR-A or WDSR-B.

    Attributes:
      variant: "a": blocks of two 3x3 convolutions; "b": of two 1x1, the second a linear low-rank one, and a 3x3.
      features: channels between blocks.
      expansion: channels before the activation over those between blocks; None: 4 of A and 6 of B.
      low_rank: channels between B's linear convolutions, in those between blocks.
      mean: of red, green and blue, subtracted from the input and added to the output.
    """

    scale: int = 2
    variant: Literal["a", "b"] = "a"
    blocks: int = 16
    features: int = 32
    expansion: int | None = None
    low_rank: float = LOW_RANK
    mean: Sequence[float] = DIV2K

    @property
    def reach(self) -> int:
        """Pixels to either side that a pixel of the input may change."""
        return 2 + self.blocks * (2 if self.variant == "a" else 1)

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch rows columns channels"], train: bool = False
    ) -> Float[Array, "batch height width channels"]:
        """Enlarges images of any size; the result is not clipped to [0, 1]."""
        channels = images.shape[-1]
        wide = (self.expansion or EXPANSION[self.variant]) * self.features
        layers = [(wide, 3), (self.features, 3)]  # features and kernel; the ReLU follows the first
        if self.variant == "b":
            layers = [(wide, 1), (int(self.low_rank * self.features), 1), (self.features, 3)]
        mean = channel_means(self.mean, channels)
        inputs = (images - mean) / HALF
        x = WeightNormConv(self.features, 3, name="head")(inputs)
        for block in range(self.blocks):
            inner = x
            for index, (features, kernel) in enumerate(layers):
                inner = WeightNormConv(features, kernel, name=f"block_{block}_{index}")(inner)
                inner = nn.relu(inner) if index == 0 else inner
            x += inner
        pixels = channels * self.scale**2
        x = pixel_shuffle(WeightNormConv(pixels, 3, name="tail")(x), self.scale)
        x += pixel_shuffle(WeightNormConv(pixels, 5, name="skip")(inputs), self.scale)
        return at_least_float32(x) * HALF + mean


def recipe(
    scale: Factor = 2,
    variant: Literal["a", "b"] = "a",
    blocks: Count = 16,
    features: Count = 32,
    expansion: Count | None = None,
    low_rank: Share | None = None,
    degradation: Degradation = BICUBIC,
    tile: Count = 256,
    self_ensemble: bool = False,
    optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 1e-3},
) -> Recipe:
    """Makes WDSR, trained on L1; the defaults are the paper's.

    Args:
      scale: how many times as large pictures become.
      variant: "a", two 3x3 convolutions a block; "b", two 1x1 and a 3x3.
      blocks: number of residual blocks.
      features: channels between blocks.
      expansion: channels before the activation, in `features`; None: 4 of "a" and 6 of "b".
      low_rank: channels between the linear convolutions of "b", in `features`; None: 0.8. "a" has no such layer.
      degradation: how pictures of the dataset are made smaller, besides the bicubic kernel.
      tile: side in pixels of the tiles in which `apply` enlarges larger pictures.
      self_ensemble: enlarge each picture mirrored and turned in all 8 ways, and take the mean.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `edsr`.
    """
    if variant == "a" and low_rank is not None:
        raise UserError(f'config.recipe.low_rank={low_rank} is for variant "b"; "a" has no low-rank convolution.')
    low_rank = LOW_RANK if low_rank is None else low_rank
    if variant == "b" and low_rank * features < 1:
        raise UserError(f"config.recipe.low_rank={low_rank} leaves none of {features} features; raise either.")
    net = WDSR(scale, variant, blocks, features, expansion, low_rank)
    return Recipe.of(Enlarger(net, scale, degradation, "l1", optim.build(optimiser), tile, self_ensemble))
