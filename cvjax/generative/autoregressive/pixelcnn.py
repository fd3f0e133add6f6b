"""PixelCNN: van den Oord, Kalchbrenner & Kavukcuoglu, Pixel Recurrent Neural Networks, 2016 (arXiv:1601.06759).

Masked convolutions in residual blocks predict each value of an image from those before it. Stacks of masked square
kernels leave a blind spot: pixels above, to the right, that no number of layers reaches (`gated_pixelcnn` has none).
"""

from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
from jaxtyping import Array, Float

from cvjax.core import Recipe, count_classes
from cvjax.generative.autoregressive import pixel_model
from cvjax.generative.autoregressive.masked import ClassBias, Features, Head, Labels, MaskedConv, Place
from cvjax.signature import Count, Range, Share


class ResidualBlock(nn.Module):
    """A masked convolution between two 1 x 1 convolutions that halve and restore the features (figure 5).

    Attributes:
      width: features of the masked convolution.
      kernel: its height and width.
      channels: of the image.
      classes: that the block is told; None: none.
      dropout: share of the masked convolution's features dropped while training.
    """

    width: int
    kernel: int
    channels: int
    classes: int | None
    dropout: float

    @nn.compact
    def __call__(self, x: Features, labels: Labels | None, train: bool, place: Place | None) -> Features:
        """Returns the sum of the input and what the block makes of it."""
        y = MaskedConv(self.width, (1, 1), channels=self.channels)(nn.relu(x))
        y = MaskedConv(self.width, (self.kernel, self.kernel), channels=self.channels)(nn.relu(y), place)
        y = nn.relu(y + ClassBias(self.classes, self.width)(labels))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return x + MaskedConv(x.shape[-1], (1, 1), channels=self.channels)(y)


class PixelCNN(nn.Module):
    """A masked convolution of mask A, residual blocks of mask B and a softmax a value (table 1).

    Attributes:
      levels: of a value.
      classes: that every layer is told; None: none.
      layers: number of residual blocks.
      width: features of a block's masked convolution; twice as many lead from block to block.
      first_kernel: height and width of the first convolution.
      kernel: of the blocks' masked convolutions.
      head: features of the last hidden layer.
      dropout: share of features dropped while training.
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
        place: Place | None = None,
    ) -> Float[Array, "batch rows columns channels levels"]:
        """Returns logits of all pixels, or of the one at `place`."""
        channels = images.shape[-1]
        first = MaskedConv(2 * self.width, (self.first_kernel,) * 2, "A", channels, first=True)
        x = first(2 * images - 1, place) + ClassBias(self.classes, 2 * self.width)(labels)
        for _ in range(self.layers):
            x = ResidualBlock(self.width, self.kernel, channels, self.classes, self.dropout)(x, labels, train, place)
        return Head(self.head, self.levels, channels)(x)

    def above(self, images: Features, labels: Labels | None, place: Place) -> tuple[()]:
        """Nothing is computed a row at a time; see `cvjax.generative.autoregressive.pixel_model`."""
        return ()

    def across(
        self, images: Features, labels: Labels | None, above: tuple[()], place: Place
    ) -> Float[Array, "batch 1 1 channels levels"]:
        """Returns logits of one pixel; see `cvjax.generative.autoregressive.pixel_model`."""
        return self(images, labels, place=place)


def recipe(
    shape: tuple[Count, Count, Count],
    levels: Annotated[int, Range(2)] = 256,
    classes: Count | tuple[str, ...] | None = None,
    layers: Count = 15,
    width: Count = 128,
    first_kernel: Count = 7,
    kernel: Count = 3,
    head: Count = 1024,
    dropout: Share = 0.0,
    ema: Share = 0.0,
    optimiser: Mapping[str, Any] = {"name": "rmsprop", "learning_rate": 1e-4},
) -> Recipe:
    """Makes a PixelCNN; the sizes that are the defaults are the paper's on CIFAR-10.

    Args:
      shape: height, width, channels of the images.
      levels: of a value.
      classes: how many classes the model is told, or their names; None: it is told none.
      layers: number of residual blocks.
      width: features of their masked convolutions.
      first_kernel: height and width of the first convolution.
      kernel: height and width of the others.
      head: features of the last hidden layer.
      dropout: share of the blocks' features dropped while training.
      ema: share of the averaged parameters that each step keeps, (1 + step) / (10 + step) where that is less.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe; its figures are those of `pixel_model.make_recipe`.
    """
    count = count_classes(classes)
    net = PixelCNN(levels, count, layers, width, first_kernel, kernel, head, dropout)
    return pixel_model.make_recipe("pixelcnn", net, shape, ema, optimiser)
