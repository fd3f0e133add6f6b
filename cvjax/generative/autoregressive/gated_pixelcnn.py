"""Gated PixelCNN: van den Oord et al., Conditional Image Generation with PixelCNN Decoders, 2016 (arXiv:1606.05328).

Two stacks see all that comes before a pixel and leave no blind spot: the vertical one the rows above, the horizontal
one the pixels to the left and, at each layer, what the vertical one made of the rows above. Gates take the place of
ReLUs, and a class adds a bias to both halves of each (equations 2 and 4).
"""

from collections.abc import Mapping
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cvjax.core import Recipe, count_classes
from cvjax.generative.autoregressive import pixel_model
from cvjax.generative.autoregressive.masked import ClassBias, Features, Head, Labels, MaskedConv, Place
from cvjax.nets.layers import Conv
from cvjax.signature import Count, Range, Share


def gate(x: Float[Array, "batch height width twice"]) -> Float[Array, "batch height width once"]:
    """Computes tanh of the first half of the features times the sigmoid of the second (equation 2).

    Args:
      x: an even number of features.

    Returns:
      Half as many.
    """
    signal, gates = jnp.split(x, 2, axis=-1)
    return nn.tanh(signal) * nn.sigmoid(gates)


class GatedLayer(nn.Module):
    """One layer of both stacks (figure 2).

    Attributes:
      width: features of each stack.
      kernel: height and width of the masked kernel that the two stacks' kernels make up.
      channels: of the image.
      classes: that the layer is told; None: none.
      dropout: share of the gated features of the horizontal stack dropped while training.
      first: its inputs are the image; without mask B and a residual connection.
    """

    width: int
    kernel: int
    channels: int
    classes: int | None
    dropout: float
    first: bool

    def setup(self):
        """Makes the convolutions of both stacks."""
        square, strip = (self.kernel, self.kernel), (1, self.kernel)
        options = dict(channels=self.channels, first=self.first)
        self.vertical = MaskedConv(2 * self.width, square, None, **options)
        self.link = Conv(2 * self.width, 1)
        self.horizontal = MaskedConv(2 * self.width, strip, "A" if self.first else "B", parts=2, **options)
        self.output = MaskedConv(self.width, (1, 1), channels=self.channels)
        self.vertical_class, self.horizontal_class = (ClassBias(self.classes, 2 * self.width) for _ in range(2))
        self.drop = nn.Dropout(self.dropout)

    def above(self, vertical: Features, labels: Labels | None, place: Place | None) -> tuple[Features, Features]:
        """Returns the vertical stack's next features, and what the horizontal stack is told."""
        x = self.vertical(vertical, place)
        return gate(x + self.vertical_class(labels)), self.link(x)

    def across(
        self, horizontal: Features, above: Features, labels: Labels | None, train: bool, place: Place | None
    ) -> Features:
        """Returns the horizontal stack's next features."""
        x = gate(self.horizontal(horizontal, place) + above + self.horizontal_class(labels))
        x = self.output(self.drop(x, deterministic=not train))
        return x if self.first else horizontal + x


class GatedPixelCNN(nn.Module):
    """Layers of two stacks and a softmax a value.

    Attributes:
      levels: of a value.
      classes: that every layer is told; None: none.
      layers: their number.
      width: features of each stack.
      first_kernel: of the first layer.
      kernel: of the others.
      head: features of the last hidden layer.
      dropout: share of features dropped while training.
      channels: of the image.
    """

    levels: int
    classes: int | None = None
    layers: int = 20
    width: int = 384
    first_kernel: int = 7
    kernel: int = 5
    head: int = 1024
    dropout: float = 0.0
    channels: int = 3

    def setup(self):
        """Makes the layers."""
        kernels = [self.first_kernel] + [self.kernel] * (self.layers - 1)
        options = dict(channels=self.channels, classes=self.classes, dropout=self.dropout)
        self.stack = [GatedLayer(self.width, size, first=not n, **options) for n, size in enumerate(kernels)]
        self.outputs = Head(self.head, self.levels, self.channels)

    def __call__(
        self, images: Float[Array, "batch height width channels"], labels: Labels | None = None, train: bool = False
    ) -> Float[Array, "batch height width channels levels"]:
        """Returns logits of all pixels."""
        return self.across(images, labels, self.above(images, labels), train=train)

    def above(self, images: Features, labels: Labels | None, place: Place | None = None) -> list[Features]:
        """Returns what each layer of the vertical stack tells the horizontal one, everywhere or in one row."""
        # Moved down by a row: each place sees the rows above its own.
        x, told = jnp.pad(2 * images - 1, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1], []
        for layer in self.stack:
            x, link = layer.above(x, labels, place)
            told.append(link)
        return told

    def across(
        self,
        images: Features,
        labels: Labels | None,
        above: list[Features],
        place: Place | None = None,
        train: bool = False,
    ) -> Float[Array, "batch rows columns channels levels"]:
        """Returns logits of all pixels, or of one."""
        x = 2 * images - 1
        for layer, told in zip(self.stack, above, strict=True):
            x = layer.across(x, told, labels, train, place)
        return self.outputs(x)


def recipe(
    shape: tuple[Count, Count, Count],
    levels: Annotated[int, Range(2)] = 256,
    classes: Count | tuple[str, ...] | None = None,
    layers: Count = 20,
    width: Count = 384,
    first_kernel: Count = 7,
    kernel: Count = 5,
    head: Count = 1024,
    dropout: Share = 0.0,
    ema: Share = 0.0,
    optimiser: Mapping[str, Any] = {"name": "rmsprop", "learning_rate": 1e-4},
) -> Recipe:
    """Makes a Gated PixelCNN; the depth, width and kernel that are the defaults are the paper's on ImageNet.

    Args:
      shape: height, width, channels of the images.
      levels: of a value.
      classes: how many classes the model is told, or their names; None: it is told none.
      layers: number of layers.
      width: features of each stack.
      first_kernel: height and width of the first layer's kernel.
      kernel: height and width of the others'.
      head: features of the last hidden layer.
      dropout: share of features dropped while training.
      ema: share of the averaged parameters that each step keeps, (1 + step) / (10 + step) where that is less.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe; its figures are those of `pixel_model.make_recipe`.
    """
    count = count_classes(classes)
    net = GatedPixelCNN(levels, count, layers, width, first_kernel, kernel, head, dropout, shape[2])
    return pixel_model.make_recipe("pixelcnn", net, shape, ema, optimiser)
