"""Feature pyramid: Lin et al., Feature Pyramid Networks for Object Detection, 2017 (arXiv:1612.03144)."""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from cvjax.errors import UserError
from cvjax.nets.layers import Conv

KERNELS = nn.initializers.lecun_uniform()  # Caffe2's "XavierFill" of the authors' code: its variance is 1 / inputs


class FPN(nn.Module):
    """Features of every scale of a backbone, all as deep and as wide as the last.

    P5 is a 1x1 convolution of C5; P4 that of C4, plus P5 at twice its size; and so down. A 3x3 convolution smooths
    each. P6 and P7 are RetinaNet's: a 3x3 convolution at stride 2 of C5, then one of the ReLU of P6.

    Attributes:
      channels: of every level.
      levels: which are made, from fine to coarse, with no gap; the backbone's coarsest counts where it is left out.
      dtype: of the computation; parameters are float32.
    """

    channels: int = 256
    levels: Sequence[int] = (3, 4, 5, 6, 7)
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, stages: Mapping[str, Float[Array, "batch _ _ _"]]) -> dict[str, Float[Array, "batch _ _ _"]]:
        """Computes the pyramid.

        Args:
          stages: `c2`, `c3`, ... of a backbone.

        Returns:
          `p3`, `p4`, ...: one entry a level.

        Raises:
          UserError: levels with a gap, or finer than the backbone has.
        """
        available = sorted(int(name.removeprefix("c")) for name in stages)
        finest, coarsest, last = min(self.levels, default=0), max(self.levels, default=0), available[-1]
        if list(self.levels) != list(range(finest, coarsest + 1)) or finest not in available:
            names = ", ".join(stages)
            raise UserError(f"FPN: levels={tuple(self.levels)} have to follow each other and start at one of {names}.")
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
        return Conv(self.channels, kernel, kernel_init=KERNELS, dtype=self.dtype, name=name, **options)


def upsample(x: Float[Array, "batch rows columns channels"], size: Sequence[int]) -> Float[Array, "batch _ _ channels"]:
    """Repeats pixels until an image has the size of the finer one of which it is the coarser.

    Args:
      x: the coarser image.
      size: height and width of the finer one, k times as large, or up to k - 1 pixels short of it.

    Returns:
      [batch, *size, channels].
    """
    batch, rows, columns, channels = x.shape
    down, right = -(-size[0] // rows), -(-size[1] // columns)
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, rows, down, columns, right, channels))
    return x.reshape(batch, rows * down, columns * right, channels)[:, : size[0], : size[1]]
