"""Feature pyramid: Lin et al., Feature Pyramid Networks for Object Detection, 2017 (arXiv:1612.03144)."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.errors import UserError
from cvjax.nets.layers import Conv

KERNELS = nn.initializers.lecun_uniform()  # "XavierFill" of the authors' Caffe2: its variance is 1 / inputs


class FPN(nn.Module):
    """Feature pyramid: semantically strong features, of `channels` channels, at every scale of a backbone.

    P5 is a 1x1 convolution of C5, P4 one of C4 plus P5 upsampled, and so on down. A 3x3 convolution smooths each. P6
    and P7 are RetinaNet's: 3x3 convolutions of stride 2, of C5 and of the ReLU of P6.

    Attributes:
      levels: to compute, consecutive, from fine to coarse; coarser stages of the backbone contribute in any case.
    """

    channels: int = 256
    levels: Sequence[int] = (3, 4, 5, 6, 7)

    @nn.compact
    def __call__(self, stages: Mapping[str, Float[Array, "batch _ _ _"]]) -> dict[str, Float[Array, "batch _ _ _"]]:
        """Returns `p3`, `p4`, ... (the levels), computed from the stages `c2`, `c3`, ... of a backbone.

        Raises a UserError for levels with a gap, or finer than the backbone's stages.
        """
        available = sorted(int(name.removeprefix("c")) for name in stages)
        finest, coarsest, last = min(self.levels, default=0), max(self.levels, default=0), available[-1]
        if list(self.levels) != list(range(finest, coarsest + 1)) or finest not in available:
            names = ", ".join(stages)
            raise UserError(f"FPN: levels={tuple(self.levels)} have to be consecutive and start at one of {names}.")
        pyramid, merged = {}, None
        for level in range(last, finest - 1, -1):
            lateral = self._conv(1, f"lateral_{level}")(stages[f"c{level}"])
            merged = lateral if merged is None else lateral + upsample(merged, lateral.shape[1:3])
            if level in self.levels:
                pyramid[f"p{level}"] = self._conv(3, f"smooth_{level}", padding=1)(merged)
        x = stages[f"c{last}"]
        for level in range(last + 1, coarsest + 1):
            x = self._conv(3, f"coarse_{level}", padding=1, stride=2)(x if level == last + 1 else nn.relu(x))
            pyramid[f"p{level}"] = x
        return {f"p{level}": pyramid[f"p{level}"] for level in self.levels}

    def _conv(self, kernel: int, name: str, **options) -> Conv:
        return Conv(self.channels, kernel, kernel_init=KERNELS, name=name, **options)


def upsample(x: Float[Array, "batch rows columns channels"], size: Sequence[int]) -> Float[Array, "batch _ _ channels"]:
    """Returns a level at the size of the next finer one, by repeating pixels; sizes need not be exact multiples."""
    batch, rows, columns, channels = x.shape
    down, right = -(-size[0] // rows), -(-size[1] // columns)
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, rows, down, columns, right, channels))
    return x.reshape(batch, rows * down, columns * right, channels)[:, : size[0], : size[1]]
