"""RRDBNet, which makes pictures four times as large: the generator of ESRGAN and Real-ESRGAN.

Wang et al., ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks, ECCV Workshops 2018 (arXiv:1809.00219),
figure 4 and section 3.1; Real-ESRGAN (arXiv:2107.10833) has the same network.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.nets.layers import Conv
from cvjax.ops.precision import at_least_float32
from cvjax.ops.resampling import magnify

Features = Float[Array, "batch rows columns _"]

RESIDUAL = 0.2  # beta: factor of each residual, of a dense block and of three of them
SLOPE = 0.2  # of the leaky ReLUs
DENSE, CONVOLUTIONS = 3, 5  # dense blocks of a block, and convolutions of each


class RRDBNet(nn.Module):
    """Residual-in-residual dense blocks without normalisation, and two doublings by nearest neighbours.

    Attributes:
      blocks: 23 in the papers, 6 in the small network for drawings.
      features: channels between blocks.
      growth: channels that each convolution of a dense block adds.
    """

    blocks: int = 23
    features: int = 64
    growth: int = 32

    @property
    def scale(self) -> int:
        """How many times as large pictures become."""
        return 4

    @property
    def reach(self) -> int:
        """Pixels to either side that a pixel of the input may change; those far away hardly do."""
        return DENSE * CONVOLUTIONS * self.blocks + 4

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch rows columns channels"], train: bool = False
    ) -> Float[Array, "batch height width channels"]:
        """Enlarges images in [0, 1] of any size; the result is not clipped to [0, 1]."""

        def conv(x: Features, features: int, name: str) -> Features:
            return Conv(features, 3, padding=1, name=name)(x)

        def active(x: Features, features: int, name: str) -> Features:
            return nn.leaky_relu(conv(x, features, name), SLOPE)

        x = first = conv(images, self.features, "first")
        for block in range(self.blocks):
            entered = x
            for dense in range(DENSE):
                seen = [x]
                for index in range(CONVOLUTIONS - 1):
                    name = f"block_{block}_{dense}_{index}"
                    seen.append(active(jnp.concatenate(seen, axis=-1), self.growth, name))
                last = f"block_{block}_{dense}_{CONVOLUTIONS - 1}"
                x += RESIDUAL * conv(jnp.concatenate(seen, axis=-1), self.features, last)
            x = entered + RESIDUAL * x
        x = first + conv(x, self.features, "body")
        for stage in range(2):
            x = active(magnify(x, 2), self.features, f"up_{stage}")
        x = active(x, self.features, "large")
        return at_least_float32(conv(x, images.shape[-1], "image"))


def layers(blocks: int) -> list[str]:
    """Returns the names of a network's convolutions in their order."""
    inner = [
        f"block_{block}_{dense}_{i}" for block in range(blocks) for dense in range(DENSE) for i in range(CONVOLUTIONS)
    ]
    return ["first", *inner, "body", "up_0", "up_1", "large", "image"]
