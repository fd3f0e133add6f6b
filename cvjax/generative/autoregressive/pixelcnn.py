"""PixelCNN: van den Oord, Kalchbrenner & Kavukcuoglu, Pixel Recurrent Neural Networks, 2016 (arXiv:1601.06759).

Masked convolutions in residual blocks predict each value of an image from those before it. Stacks of masked square
kernels leave a blind spot: pixels above, to the right, that no number of layers reaches (`gated_pixelcnn` has none).
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
from jaxtyping import Array, Float

from cvjax.core import Recipe, count_classes
from cvjax.generative.autoregressive import pixel_model
from cvjax.generative.autoregressive.masked import ClassBias, Features, Head, Labels, MaskedConv, Position
from cvjax.signature import Count, Range, Share

PAPER = pixel_model.Architecture(layers=15, width=128, kernel=3)  # for CIFAR-10


class ResidualBlock(nn.Module):
    """A masked convolution between two 1 x 1 convolutions that halve and restore the features (figure 5).

    `width`, `kernel` and `dropout` are those of the masked convolution.
    """

    width: int
    kernel: int
    channels: int
    classes: int | None
    dropout: float

    @nn.compact
    def __call__(self, x: Features, labels: Labels | None, train: bool, position: Position | None) -> Features:
        """Adds the block's output to its input."""
        y = MaskedConv(self.width, (1, 1), channels=self.channels)(nn.relu(x))
        y = MaskedConv(self.width, (self.kernel, self.kernel), channels=self.channels)(nn.relu(y), position)
        y = nn.relu(y + ClassBias(self.classes, self.width)(labels))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + MaskedConv(x.shape[-1], (1, 1), channels=self.channels)(y)


class PixelCNN(nn.Module):
    """A masked convolution of mask A, residual blocks of mask B and a softmax over the levels (table 1).

    Blocks are connected by 2 * width features. The attributes are those of `recipe` and of `pixel_model.Architecture`.
    """

    levels: int
    classes: int | None = None
    layers: int = 15
    width: int = 128
    first_kernel: int = 7
    kernel: int = 3
    head: int = 1024
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        labels: Labels | None = None,
        train: bool = False,
        position: Position | None = None,
    ) -> Float[Array, "batch rows columns channels levels"]:
        """Returns logits of all pixels, or of the one at a position."""
        channels = images.shape[-1]
        first = MaskedConv(2 * self.width, (self.first_kernel,) * 2, "A", channels, first=True)
        x = first(2 * images - 1, position) + ClassBias(self.classes, 2 * self.width)(labels)
        for _ in range(self.layers):
            block = ResidualBlock(self.width, self.kernel, channels, self.classes, self.dropout)
            x = block(x, labels, train, position)
        return Head(self.head, self.levels, channels)(x)

    def context(self, images: Features, labels: Labels | None, position: Position) -> tuple[()]:
        """Returns nothing: all is computed pixel by pixel."""
        return ()

    def logits(
        self, images: Features, labels: Labels | None, context: tuple[()], position: Position
    ) -> Float[Array, "batch 1 1 channels levels"]:
        """Returns logits of one pixel."""
        return self(images, labels, position=position)


def recipe(
    shape: tuple[Count, Count, Count],
    levels: Annotated[int, Range(2)] = 256,
    classes: Count | tuple[str, ...] | None = None,
    architecture: pixel_model.Architecture = PAPER,
    ema: Share = 0.0,
    optimiser: Mapping[str, Any] = {"name": "rmsprop", "learning_rate": 1e-4},
) -> Recipe:
    """Makes a PixelCNN; the default architecture is the paper's for CIFAR-10.

    Args:
      shape: height, width, channels of the images.
      levels: number of values of a pixel and channel.
      classes: number or names of the classes that the model is conditioned on, or None.
      architecture: sizes of the network.
      ema: as `pixel_model.make_recipe` takes it.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe; its figures are those of `pixel_model.make_recipe`.
    """
    net = PixelCNN(levels, count_classes(classes), **dataclasses.asdict(architecture))
    return pixel_model.make_recipe("pixelcnn", net, shape, ema, optimiser)
