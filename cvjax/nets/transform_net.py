"""A network that repaints a picture in one of many styles, chosen by the scales and shifts of its normalisations.

The transformation network of Johnson et al., Perceptual Losses for Real-Time Style Transfer and Super-Resolution, 2016
(arXiv:1603.08155), as Dumoulin et al. changed it in A Learned Representation For Artistic Style, 2017
(arXiv:1610.07629, table 3): reflections pad, nearest neighbours magnify, and conditional instance normalisation has a
scale and a shift for each style. The defaults are that paper's.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.core import Variables
from cvjax.nets.layers import Conv
from cvjax.ops.padding import reflect
from cvjax.ops.precision import at_least_float32
from cvjax.ops.resampling import magnify

Features = Float[Array, "batch rows columns features"]
Shares = Float[Array, "batch styles"]

EPSILON = 1e-5  # added to variances, as by torch and by the published networks
STRIDE = 4  # a size that this divides comes out as it went in


class ConditionalInstanceNorm(nn.Module):
    """Instance normalisation with a scale and a shift for each style, blended by shares.

    Each picture's channels are normalised by their own mean and (biased) variance; there are no running statistics.
    Parameters: `scale` [styles, channels], initially 1, and `shift`, initially 0 (equation 5 of Dumoulin et al.).
    """

    styles: int

    @nn.compact
    def __call__(self, x: Features, shares: Shares) -> Features:
        """Normalises each picture in the blend of its shares."""
        scale = self.param("scale", nn.initializers.ones, (self.styles, x.shape[-1]))
        shift = self.param("shift", nn.initializers.zeros, (self.styles, x.shape[-1]))
        wide = at_least_float32(x)
        mean = wide.mean(axis=(1, 2), keepdims=True)
        variance = ((wide - mean) ** 2).mean(axis=(1, 2), keepdims=True)
        blended = (jnp.dot(shares, table)[:, None, None] for table in (scale, shift))
        normalised = (wide - mean) / jnp.sqrt(variance + EPSILON)
        return (normalised * next(blended) + next(blended)).astype(x.dtype)


class StyledConv(nn.Module):
    """A convolution without bias of a picture that is magnified and padded by its reflection, then normalised.

    The convolution is `conv`, the normalisation `norm`. `upsample` magnifies by nearest neighbours first.
    """

    features: int
    kernel: int
    styles: int
    stride: int = 1
    upsample: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], shares: Shares
    ) -> Float[Array, "batch rows columns features"]:
        """Convolves and normalises."""
        if self.upsample > 1:
            x = magnify(x, self.upsample)
        x = reflect(x, self.kernel // 2)
        x = Conv(self.features, self.kernel, self.stride, use_bias=False, name="conv")(x)
        return ConditionalInstanceNorm(self.styles, name="norm")(x, shares)


class TransformNet(nn.Module):
    """Two halvings, residual blocks at a quarter of the size, two doublings, and a sigmoid.

    Attributes:
      styles: number of styles.
      contract: channels of the first convolution and of the two halvings.
      blocks: number of residual blocks, of the last of `contract` channels.
      expand: channels after each doubling.
      channels: of the pictures.
    """

    styles: int = 1
    contract: Sequence[int] = (32, 64, 128)
    blocks: int = 5
    expand: Sequence[int] = (64, 32)
    channels: int = 3

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], shares: Shares | None = None
    ) -> Float[Array, "batch rows columns channels"]:
        """Repaints images of at least 16 x 16 pixels; the size is rounded up to a multiple of 4.

        Args:
          shares: of each style, with sum 1; by default the first style alone.
        """
        if shares is None:
            shares = jnp.zeros((len(images), self.styles)).at[:, 0].set(1)
        x = images
        kernels, strides = (9, 3, 3), (1, 2, 2)
        for index, (width, kernel, stride) in enumerate(zip(self.contract, kernels, strides, strict=True)):
            x = nn.relu(StyledConv(width, kernel, self.styles, stride, name=f"contract_{index}")(x, shares))
        for index in range(self.blocks):
            inner = StyledConv(x.shape[-1], 3, self.styles, name=f"residual_{index}_0")(x, shares)
            x += StyledConv(x.shape[-1], 3, self.styles, name=f"residual_{index}_1")(nn.relu(inner), shares)
        for index, width in enumerate(self.expand):
            x = nn.relu(StyledConv(width, 3, self.styles, upsample=2, name=f"expand_{index}")(x, shares))
        last = StyledConv(self.channels, 9, self.styles, name=f"expand_{len(self.expand)}")
        return nn.sigmoid(last(x, shares))


def repaint(
    net: TransformNet, held: Variables, images: Float[Array, "batch height width channels"], shares: Shares
) -> Float[Array, "batch height width channels"]:
    """Returns images of any size repainted at that size: padded by reflection to a multiple of 4, and cropped."""
    height, width = images.shape[1:3]
    margins = ((0, 0), (0, -height % STRIDE), (0, -width % STRIDE), (0, 0))
    return net.apply(held, jnp.pad(images, margins, mode="reflect"), shares)[:, :height, :width]
