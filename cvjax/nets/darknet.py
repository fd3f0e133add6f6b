"""Darknet-19: Redmon & Farhadi, YOLO9000: Better, Faster, Stronger, 2017 (arXiv:1612.08242), table 6."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.errors import UserError
from cvjax.nets.layers import Conv

Images = Float[Array, "batch height width channels"]
Features = Float[Array, "batch rows columns features"]

STAGES = (1, 1, 3, 3, 5, 5)  # convolutions between the poolings of Darknet-19; the nineteenth is the classifier


class ConvBlock(nn.Module):
    """Convolution of stride 1 with a kernel of odd size, batch normalisation, leaky ReLU."""

    features: int
    kernel: int = 3

    @nn.compact
    def __call__(self, x: Images, train: bool = False) -> Features:
        """Returns features of the same size; training normalises by the batch's statistics."""
        options = dict(padding=self.kernel // 2, use_bias=False, kernel_init=nn.initializers.he_normal())
        x = Conv(self.features, self.kernel, **options, name="conv")(x)
        x = nn.BatchNorm(not train, momentum=0.99, epsilon=1e-5, name="norm")(x)
        return nn.leaky_relu(x, 0.1)


class Darknet(nn.Module):
    """Darknet-19 without its classifier, of any width and depth.

    In a stage, an odd number of convolutions, 3x3 ones alternate with 1x1 ones that halve the channels. Each stage has
    twice the channels and, after a maximum over 2x2, half the size of the one before. The first has `width` channels,
    32 in the paper.
    """

    width: int = 32
    stages: Sequence[int] = STAGES

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> list[Features]:
        """Returns the features of every stage, finest first."""
        x, outputs = images, []
        for stage, depth in enumerate(self.stages):
            x = halve(x) if stage else x
            for index in range(depth):
                narrow = index % 2
                features, kernel = self.width * 2**stage // (1 + narrow), 1 if narrow else 3
                x = ConvBlock(features, kernel, name=f"block_{stage}_{index}")(x, train)
            outputs.append(x)
        return outputs


class Classifier(nn.Module):
    """Darknet-19 as an image classifier: a 1x1 convolution to the classes, averaged over the image."""

    classes: int = 1000
    width: int = 32
    stages: Sequence[int] = STAGES

    @nn.compact
    def __call__(self, images: Images, train: bool = False) -> Float[Array, "batch classes"]:
        """Returns the logits, float32."""
        x = Darknet(self.width, self.stages, name="darknet")(images, train)[-1]
        return Conv(self.classes, 1, name="logits")(x).astype(jnp.float32).mean((1, 2))


def check_stages(stages: Sequence[int]) -> int:
    """Returns the stride in pixels of the last of a `Darknet`'s stages.

    Raises a UserError for no stages, or one that does not end with a 3x3 convolution.
    """
    if not stages or any(depth < 1 or depth % 2 == 0 for depth in stages):
        raise UserError(
            f"config.recipe.stages={tuple(stages)}: expected odd numbers of convolutions, such as {STAGES}: each stage "
            "starts and ends with a 3x3 convolution."
        )
    return 2 ** (len(stages) - 1)


def halve(x: Images) -> Features:
    """Returns the maxima over 2x2 pixels; on a CPU the gradient is ten times as fast as that of `nn.max_pool`."""
    x = jnp.maximum(x[:, ::2], x[:, 1::2])
    return jnp.maximum(x[:, :, ::2], x[:, :, 1::2])


def reorganise(x: Images, block: int = 2) -> Features:
    """Returns each block of pixels as channels, by rows: the passthrough layer of YOLOv2 (section 2)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // block, block, width // block, block, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // block, width // block, block * block * channels)
