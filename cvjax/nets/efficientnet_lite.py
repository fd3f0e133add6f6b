"""EfficientNet-Lite: Tan & Le, EfficientNet: Rethinking Model Scaling for Convolutional Networks, 2019.

arXiv:1905.11946, table 1 and equation 3, in the variant that TensorFlow published for phones in 2020: ReLU6 in place of
swish, no squeeze-and-excitation, and a stem and a head that are not scaled.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.nets.capture import Capture
from cvjax.nets.imagenet import KERNELS
from cvjax.nets.layers import Conv

Features = Float[Array, "batch _ _ _"]

# Blocks, kernel, stride of the first block, expansion and width of each stage, before scaling.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280  # widths, the same in all
SCALES = {  # what each published network is made with; SIZES has the sides of its training images
    0: dict(width=1.0, depth=1.0, dropout=0.2),
    1: dict(width=1.0, depth=1.1, dropout=0.2),
    2: dict(width=1.1, depth=1.2, dropout=0.3),
    3: dict(width=1.2, depth=1.4, dropout=0.3),
    4: dict(width=1.4, depth=1.8, dropout=0.3),
}
SIZES = {0: 224, 1: 240, 2: 260, 3: 280, 4: 300}


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite of any scale: `EfficientNetLite(**SCALES[0])` is Lite0, with 4,652,008 parameters.

    Its padding is TensorFlow's "SAME", which depends on the size of the images.

    Attributes:
      width, depth: factors of the widths and of the numbers of blocks.
      dropout: share of the mean features dropped while training; takes the random stream "dropout".
      survival: of the n blocks, block i keeps a share 1 - (1 - survival) * (i - 1) / n of its residual branches while
        training: all in the first, and in the last a little more than `survival`.
      capture: activations to return: `stem`, `block_1`, `block_2`, ..., and `head`, what the classifier averages.
    """

    classes: int = 1000
    width: float = 1.0
    depth: float = 1.0
    dropout: float = 0.2
    survival: float = 0.8
    capture: Sequence[str] = ()

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], train: bool = False
    ) -> tuple[Float[Array, "batch classes"], dict[str, Features]]:
        """Returns (logits, {name: activation}); images have three channels or one.

        Training normalises by the batch's statistics. Raises a UserError for an unknown layer to capture.
        """
        blocks = scale(self.width, self.depth)
        names = [f"block_{index}" for index in range(1, len(blocks) + 1)]
        keep = Capture("EfficientNetLite", self.capture, ["stem", *names, "head"])
        x = (jnp.broadcast_to(images, (*images.shape[:-1], 3)) * 255 - 127) / 128
        x = keep("stem", _Unit(STEM, 3, stride=2, name="stem")(x, train))
        for index, (name, (kernel, stride, expansion, width)) in enumerate(zip(names, blocks, strict=True)):
            survival = 1 - (1 - self.survival) * index / len(blocks)
            x = keep(name, _Block(width, kernel, stride, expansion, survival, name=name)(x, train))
        x = keep("head", _Unit(HEAD, 1, name="head")(x, train))
        features = x.astype(jnp.float32).mean(axis=(1, 2))
        features = nn.Dropout(self.dropout, deterministic=not train)(features)
        return nn.Dense(self.classes, name="classifier")(features), keep.activations


def scale(width: float, depth: float) -> list[tuple[int, int, int, int]]:
    """Returns kernel, stride, expansion and width of each block; widths are rounded to multiples of 8.

    The numbers of blocks are rounded up, but in the first and the last stage, which are not scaled.
    """
    blocks = []
    for stage, (count, kernel, stride, expansion, channels) in enumerate(STAGES):
        wanted = width * channels
        rounded = max(8, int(wanted + 4) // 8 * 8)
        rounded += 8 * (rounded < 0.9 * wanted)
        repeats = count if stage in (0, len(STAGES) - 1) else math.ceil(depth * count)
        blocks += [(kernel, stride if index == 0 else 1, expansion, rounded) for index in range(repeats)]
    return blocks


class _Unit(nn.Module):
    """A convolution, its normalisation and, if `active`, ReLU6; `depthwise` keeps channels apart."""

    features: int
    kernel: int
    stride: int = 1
    depthwise: bool = False
    active: bool = True

    @nn.compact
    def __call__(self, x: Features, train: bool) -> Features:
        """Applies the unit."""
        groups = self.features if self.depthwise else 1
        options = dict(padding="SAME", groups=groups, use_bias=False, kernel_init=KERNELS)
        x = Conv(self.features, self.kernel, self.stride, name="conv", **options)(x)
        x = nn.BatchNorm(not train, momentum=0.99, epsilon=1e-3, name="norm")(x)
        return jax.nn.relu6(x) if self.active else x


class _Block(nn.Module):
    """An inverted residual block: expanded, convolved channel by channel, and projected."""

    features: int
    kernel: int
    stride: int
    expansion: int
    survival: float

    @nn.compact
    def __call__(self, x: Features, train: bool) -> Features:
        """Applies the block; the shortcut is there where shapes agree."""
        y, inner = x, x.shape[-1] * self.expansion
        if self.expansion > 1:
            y = _Unit(inner, 1, name="expand")(y, train)
        y = _Unit(inner, self.kernel, self.stride, depthwise=True, name="depthwise")(y, train)
        y = _Unit(self.features, 1, active=False, name="project")(y, train)
        if x.shape != y.shape:
            return y
        # Stochastic depth: whole branches are dropped.
        return x + nn.Dropout(1 - self.survival, broadcast_dims=(1, 2, 3), deterministic=not train)(y)
