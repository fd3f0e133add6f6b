"""SRResNet: a residual network with batch normalisation, trained on squared differences; SRGAN begins with it.

Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network, CVPR 2017
(arXiv:1609.04802), figure 4 and section 3.2.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from cvjax import optim
from cvjax.core import Recipe
from cvjax.nets.layers import Conv
from cvjax.ops.precision import at_least_float32
from cvjax.signature import Count
from cvjax.translation.super_resolution.degradation import BICUBIC, Degradation
from cvjax.translation.super_resolution.enlarger import Enlarger
from cvjax.translation.super_resolution.upscaling import UNIFORM, Factor, Upscale


class SRResNet(nn.Module):
    """The generator of figure 4. It takes images in [0, 1] and computes in [-1, 1], the range of its losses."""

    scale: int = 4
    blocks: int = 16
    features: int = 64

    @property
    def reach(self) -> int:
        """Pixels to either side that a pixel of the input may change."""
        return 2 * self.blocks + 8

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch rows columns channels"], train: bool = False
    ) -> Float[Array, "batch height width channels"]:
        """Enlarges images of any size; the result, in [0, 1] like the input, is not clipped.

        Training normalises by the batch's statistics.
        """

        def conv(features: int, kernel: int, name: str) -> Conv:
            return Conv(features, kernel, padding=kernel // 2, kernel_init=UNIFORM, name=name)

        def norm(name: str) -> nn.BatchNorm:
            return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, name=name)

        def prelu(name: str) -> nn.PReLU:
            return nn.PReLU(negative_slope_init=0.25, name=name)

        x = first = prelu("head_prelu")(conv(self.features, 9, "head")(images))
        for index in range(self.blocks):
            name = f"block_{index}"
            inner = norm(f"{name}_norm_0")(conv(self.features, 3, f"{name}_0")(x))
            inner = conv(self.features, 3, f"{name}_1")(prelu(f"{name}_prelu")(inner))
            x += norm(f"{name}_norm_1")(inner)
        x = first + norm("body_norm")(conv(self.features, 3, "body")(x))
        x = Upscale(self.scale, self.features, prelu=True, name="upscale")(x)
        return (at_least_float32(conv(images.shape[-1], 9, "tail")(x)) + 1) / 2


def recipe(
    scale: Factor = 4,
    blocks: Count = 16,
    features: Count = 64,
    degradation: Degradation = BICUBIC,
    tile: Count = 256,
    self_ensemble: bool = False,
    optimiser: Mapping[str, Any] = {"name": "adam", "learning_rate": 1e-4},
) -> Recipe:
    """Makes SRResNet, trained on the mean squared error; the defaults are the paper's.

    Args:
      scale: how many times as large pictures become.
      blocks: number of residual blocks.
      features: channels.
      degradation: how pictures of the dataset are made smaller, besides the bicubic kernel.
      tile: side in pixels of the tiles in which `apply` enlarges larger pictures.
      self_ensemble: enlarge each picture mirrored and turned in all 8 ways, and take the mean.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `edsr`.
    """
    net = SRResNet(scale, blocks, features)
    return Recipe.of(Enlarger(net, scale, degradation, "mse", optim.build(optimiser), tile, self_ensemble))
