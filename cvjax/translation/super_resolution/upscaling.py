"""Pixels from channels: Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network, CVPR 2016 (arXiv:1609.05158), equation 4.
"""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.nets.layers import Conv

Factor = Literal[2, 3, 4]

DIV2K = (0.4488, 0.4371, 0.4040)  # means of red, green and blue in DIV2K's training images
UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # torch's, with which these networks began


def pixel_shuffle(
    x: Float[Array, "batch rows columns features"], factor: int
) -> Float[Array, "batch height width channels"]:
    """Returns images `factor` times as large; factor^2 channels that follow one another are a square, row by row.

    The order is that of torch's `PixelShuffle`; TensorFlow's `depth_to_space` has another.
    """
    batch, rows, columns, features = x.shape
    x = x.reshape(batch, rows, columns, features // factor**2, factor, factor)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(batch, rows * factor, columns * factor, features // factor**2)


class Upscale(nn.Module):
    """Convolutions and shuffles: one of factor 2 or 3, or two of factor 2.

    Attributes:
      prelu: end each of them with a parametric ReLU.
    """

    factor: int
    features: int
    prelu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "batch rows columns features"]) -> Float[Array, "batch height width features"]:
        """Magnifies features."""
        for stage, factor in enumerate((2, 2) if self.factor == 4 else (self.factor,)):
            conv = Conv(self.features * factor**2, 3, padding=1, kernel_init=UNIFORM, name=f"conv_{stage}")
            x = pixel_shuffle(conv(x), factor)
            x = nn.PReLU(negative_slope_init=0.25, name=f"prelu_{stage}")(x) if self.prelu else x
        return x


def channel_means(mean: Sequence[float], channels: int) -> Float[Array, " channels"]:
    """Returns the means of the channels of images, by default those of RGB; others get their mean."""
    values = jnp.asarray(mean, jnp.float32)
    return values if len(mean) == channels else jnp.full(channels, values.mean())
