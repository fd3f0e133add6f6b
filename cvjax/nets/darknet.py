"""Darknet-19: Redmon & Farhadi, YOLO9000: Better, Faster, Stronger, 2017 (arXiv:1612.08242), table 6."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from cvjax.errors import UserError
from cvjax.nets.layers import Conv

Images = Float[Array, "batch height width channels"]
Features = Float[Array, "batch rows columns features"]

STAGES = (1, 1, 3, 3, 5, 5)  # convolutions between the poolings of Darknet-19; its nineteenth is the classifier


class ConvBlock(nn.Module):
    """Convolution that keeps the size, batch normalisation, leaky ReLU of slope .1.

    Attributes:
      features: channels of the output.
      kernel: side of the kernel, an odd number.
      dtype: of the computation; statistics are float32.
    """

    features: int
    kernel: int = 3
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, x: Images, train: bool = False) -> Features:
        """Returns the features; while training they are normalised by the batch's statistics."""
        options = dict(padding=self.kernel // 2, use_bias=False, kernel_init=nn.initializers.he_normal())
        x = Conv(self.features, self.kernel, **options, dtype=self.dtype, name="conv")(x)
        x = nn.BatchNorm(not train, momentum=0.99, epsilon=1e-5, dtype=self.dtype, name="norm")(x)
        return nn.leaky_relu(x, 0.1)


class Darknet(nn.Module):
    """Darknet-19 without its classifier, narrower or shorter where that is asked for.

    In a stage, 3x3 convolutions alternate with 1x1 ones that halve the channels. Each stage has twice the channels of
    the one before and, by a maximum over 2x2, half its size.

    Attributes:
      width: channels of the first stage; 32 is the paper's.
      stages: convolutions in each stage, odd numbers; the features are 2 ** (stages - 1) times as small as the images.
      dtype: of the computation.
    """

    width: int = 32
    stages: Sequence[int] = STAGES
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> list[Features]:
        """Returns the features of every stage, those of the last one last."""
        x, outputs = images.astype(self.dtype), []
        for stage, depth in enumerate(self.stages):
            x = halve(x) if stage else x
            for index in range(depth):
                narrow = index % 2
                features, kernel = self.width * 2**stage // (1 + narrow), 1 if narrow else 3
                x = ConvBlock(features, kernel, self.dtype, name=f"block_{stage}_{index}")(x, train)
            outputs.append(x)
        return outputs


class Classifier(nn.Module):
    """Darknet-19 as it classifies images: a 1x1 convolution to the classes, averaged over the image.

    Attributes:
      classes: how many.
      width: as `Darknet`'s.
      stages: as `Darknet`'s.
      dtype: of the computation.
    """

    classes: int = 1000
    width: int = 32
    stages: Sequence[int] = STAGES
    dtype: DTypeLike = "float32"

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> Float[Array, "batch classes"]:
        """Returns the logits, float32."""
        x = Darknet(self.width, self.stages, self.dtype, name="darknet")(images, train)[-1]
        return Conv(self.classes, 1, dtype=self.dtype, name="logits")(x).astype(jnp.float32).mean((1, 2))


def check_stages(stages: Sequence[int]) -> int:
    """Refuses stages that `Darknet` cannot have.

    Args:
      stages: convolutions in each.

    Returns:
      How many pixels of the image are one of the last stage's features, along an axis.

    Raises:
      UserError: none, or one that would not end with a 3x3 convolution.
    """
    if not stages or any(depth < 1 or depth % 2 == 0 for depth in stages):
        raise UserError(
            f"config.recipe.stages={tuple(stages)}: expected odd numbers of convolutions, such as {STAGES}: each stage "
            "starts and ends with a 3x3 one."
        )
    return 2 ** (len(stages) - 1)


def halve(x: Images) -> Features:
    """Takes the maximum over 2x2 pixels. The sides have to be even.

    Args:
      x: features.

    Returns:
      Features of half the height and width. The gradient takes a tenth of the time of `flax.linen.max_pool`'s on a CPU.
    """
    x = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(x[:, :, ::2], x[:, :, 1::2])


def reorganise(x: Images, block: int = 2) -> Features:
    """Moves each block of pixels into the channels: the passthrough layer of YOLOv2 (section 2, fine-grained features).

    Args:
      x: features whose height and width are multiples of `block`.
      block: pixels along each axis of a block.

    Returns:
      [batch, height / block, width / block, block * block * channels]: the channels of a block's first pixel first,
      then those of the pixel to its right, and so on by rows.
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // block, block, width // block, block, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // block, width // block, block * block * channels)
